"""Fine-tuning: part of the base model, or all of it, goes on learning together with a head that starts as the solved one.

    1. set rows aside     2. solve the head on frozen features     3. choose what trains (a strategy)     4. train
    5. keep the weights of the lowest validation loss              6. calibrate the temperature on the rows set aside

The second of the core methods. Use it when there are enough rows for the body to learn something that holds beyond them
(`headstart.training.choose`); the solved head is its starting point and the figure it has to beat. It ignores unlabelled rows.
The base model that is given stays as it is: what trains is a copy, whose features the cache keeps under their own name.
Shapes: n rows, d features, k outputs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from numpy.typing import NDArray
from torch import nn

from headstart.backbones import Backbone
from headstart.core.errors import ConfigError
from headstart.core.preprocessing import View
from headstart.core.progress import Progress
from headstart.data import Dataset
from headstart.features import FeatureStore
from headstart.heads import LinearHead
from headstart.methods.feature_extraction import FeatureExtraction
from headstart.methods.fine_tuned import FineTuned
from headstart.methods.recipe import default_config
from headstart.methods.regularisers import read_regularisers
from headstart.methods.tuning_job import TuningJob, TuningSettings
from headstart.methods.tuning_rows import TuningRows, check_rows
from headstart.objectives import Objective
from headstart.training import TrainingConfig
from headstart.training.boundary_plan import MULTIPLY_ADDS
from headstart.training.choose import choose_strategy
from headstart.training.rate_finder import RateSweep
from headstart.training.strategies import HeadOnly, LayerwiseDecay, LinearProbeThenFineTune, Strategy, read_strategy

__all__ = ["FineTuned", "FineTuning"]

BatchNorm = Literal["frozen", "train"]

_MIRRORED = (View(), View(flip=True))
_STEP = 3.0  # a step of training over a forward pass


@dataclass(frozen=True)
class FineTuning:
    """Train a head together with some or all of the base model.

    Parameters
    ----------
    strategy : str, dict or Strategy
        ``"auto"`` chooses by the amount of data and the cost (`headstart.training.choose.choose_strategy`); otherwise what
        `headstart.training.strategies.read_strategy` takes: ``"last-stages:2"``, ``"full"``, ``"lora"``, ...
    head : str or nn.Module
        ``"solved"`` starts from the solution on frozen features; ``"linear"``, layers in words
        (``"dense512-relu-dropout0.5"``) or a module start at random.
    config : TrainingConfig, optional
        How to train; by modality, strategy and number of rows (`headstart.methods.recipe.default_config`) when left out.
    regularisers : sequence of str or Objective
        Further terms of the loss: ``"l2-sp"``, ``"delta"``, ``"bss"``, ``"lwf"``, ``"co-tuning"``, ``"bi-tuning"``,
        ``"stochastic-normalisation"``, each with its weight after a colon if need be.
    views : tuple of View, optional
        Images: fixed looks, of which each epoch draws one a row. Plain and mirrored when left out.
    validation : float in [0, 1), optional
        Share of the training rows set aside where no validation rows are given; 0 trains on all. When left out: 0 where
        ``config`` says that nothing is chosen by them (``restore_best=False``), 0.15 otherwise.
    boundary : {"auto", "cached", "computed"}
        What a frozen prefix gives is kept and read back, or computed each time; "auto" decides by arithmetic.
    runtime : str
        What computes a frozen prefix: ``"auto"`` takes what is fastest here, ``"torch-fp32"`` is exact, so that kept and computed
        activations train the same weights bit for bit.
    batch_norm : {"frozen", "train"}
        Whether batch normalisation of stages that train keeps the base model's statistics and scales, or learns new ones.
    mix : float in [0, 1] or "auto"
        How far to go from the solved start to the trained weights: 0 stays, 1 goes all the way. "auto" is chosen by the
        validation loss where ``config`` lets validation rows choose, is a matter of the number of rows otherwise, and 1 for
        heads that start at random.
    refit : bool
        Where training rows were set aside: train once more on all of them, as the first time, with what was chosen.
    head_rate : float, optional
        Learning rate of the head over that of the body; 1 for a solved head and 10 for a fresh one when left out.
    temperature : float, optional
        Of the probabilities where there are no validation rows, such as that of an earlier run on part of the rows.
    seed : int
        Of the split, the starting weights and every draw, unless ``config`` has its own.

    Raises
    ------
    ConfigError
        If a value breaks its rule.
    """

    strategy: str | dict[str, Any] | Strategy = "auto"
    head: str | nn.Module = "solved"
    config: TrainingConfig | None = None
    regularisers: tuple[str | Objective, ...] = ()
    views: tuple[View, ...] | None = None
    validation: float | None = None
    boundary: Literal["auto", "cached", "computed"] = "auto"
    runtime: str = "auto"
    batch_norm: BatchNorm = "frozen"
    mix: float | Literal["auto"] = "auto"
    refit: bool = True
    head_rate: float | None = None
    temperature: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "regularisers", tuple(self.regularisers))
        if self.strategy != "auto":
            read_strategy(self.strategy)
        read_regularisers(self.regularisers)
        if self.batch_norm not in get_args(BatchNorm):
            raise ConfigError(f"FineTuning: batch_norm is 'frozen' or 'train'; got {self.batch_norm!r}.")
        if self.boundary not in {"auto", "cached", "computed"}:
            raise ConfigError(f"FineTuning: boundary is auto, cached or computed; got {self.boundary!r}.")
        if self.validation is not None and not 0 <= self.validation < 1:
            raise ConfigError(f"FineTuning: validation lies in [0, 1); got {self.validation!r}.")
        if self.mix != "auto" and not 0 <= self.mix <= 1:
            raise ConfigError(f"FineTuning: mix lies in [0, 1], or is 'auto'; got {self.mix!r}.")
        if self.head_rate is not None and not self.head_rate > 0:
            raise ConfigError(f"FineTuning: head_rate is positive; got {self.head_rate!r}.")
        if self.temperature is not None and not self.temperature > 0:
            raise ConfigError(f"FineTuning: temperature is positive; got {self.temperature!r}.")

    def fit(
        self,
        train_rows: Dataset,
        backbone: Backbone,
        *,
        validation_rows: Dataset | None = None,
        solved: LinearHead | None = None,
        groups: NDArray[Any] | None = None,
        checkpoint: Path | None = None,
        store: FeatureStore | bool | None = None,
        progress: Progress | None = None,
    ) -> FineTuned:
        """Train, and return a model of its own.

        Parameters
        ----------
        train_rows : Dataset
            Labelled.
        backbone : Backbone
            Stays as it is.
        validation_rows : Dataset, optional
            Labelled rows that choose the weights to keep; some of the training rows are set aside when left out.
        solved : LinearHead, optional
            To start from, solved on frozen features of the training rows. Used only where ``validation_rows`` are given or
            none are set aside: it would otherwise have seen the rows that are set aside, and one of its kind is solved anew.
        groups : array of shape (n,), optional
            Rows with equal values are not divided between training and validation; the data set's own groups count as well.
        checkpoint : Path, optional
            Folder to go on from after a kill, and to save to.
        store : FeatureStore or bool, optional
            Where frozen features are kept.
        progress : Progress, optional
            Gets a stage for each pass.

        Raises
        ------
        DataError
            If there are no labels, or too few rows.
        ConfigError
            If strategy, head or regularisers do not suit the base model.
        """
        started = time.process_time()
        job = self._job(train_rows, backbone, validation_rows, solved, groups, store, progress)
        part, start, strategy = job.rows, job.solved, job.strategy
        if start is not None and isinstance(strategy, HeadOnly):
            done = job.keep_solved()
        else:
            done = job.train(checkpoint, store, progress)
        if part.divided and self.refit and start is not None and not job.settings.config.restore_best:
            done = self._again(done, job, train_rows, backbone, groups, checkpoint, store, progress)
        return replace(done, cpu_seconds=time.process_time() - started)

    def find_learning_rate(
        self,
        train_rows: Dataset,
        backbone: Backbone,
        *,
        num_steps: int = 100,
        store: FeatureStore | bool | None = None,
        progress: Progress | None = None,
    ) -> RateSweep:
        """Return losses along rising learning rates, from where `fit` would begin; nothing is kept of these steps.

        Parameters
        ----------
        train_rows : Dataset
            Labelled.
        backbone : Backbone
            Stays as it is.
        num_steps : int
            Steps of the sweep.
        store, progress
            As in `fit`.

        Returns
        -------
        RateSweep
            ``suggestion`` and ``cautious`` are rates for ``TrainingConfig(learning_rate=...)``, ``plot(path)`` draws the curve.

        Raises
        ------
        ConfigError
            If nothing but a solved head would train, or strategy, head or regularisers do not suit the base model.
        """
        job = self._job(train_rows, backbone, None, None, None, store, progress)
        if job.solved is not None and isinstance(job.strategy, HeadOnly):
            raise ConfigError(
                "FineTuning: a solved head needs no learning rate, and nothing else would train; name a strategy, such as "
                "'last-stages:1', or a head in words."
            )
        return job.sweep(num_steps, store, progress)

    def _job(
        self,
        train_rows: Dataset,
        backbone: Backbone,
        validation_rows: Dataset | None,
        solved: LinearHead | None,
        groups: NDArray[Any] | None,
        store: FeatureStore | bool | None,
        progress: Progress | None,
    ) -> TuningJob:
        """Check and divide the rows, solve the head, choose the strategy."""
        check_rows(train_rows, backbone, validation_rows)
        part = TuningRows(train_rows, validation_rows)
        if validation_rows is None:
            part.divide(self._share(), groups, self.seed)
        part.read(backbone, self.head == "solved", store, progress)
        start = self._solve(part, backbone, solved)
        strategy, why = self._choose(part, backbone)
        return TuningJob(self._settings(part, strategy), part, backbone, strategy, why, start)

    def _again(
        self,
        done: FineTuned,
        job: TuningJob,
        rows: Dataset,
        backbone: Backbone,
        groups: NDArray[Any] | None,
        checkpoint: Path | None,
        store: FeatureStore | bool | None,
        progress: Progress | None,
    ) -> FineTuned:
        """Return the same with a model that learnt from all rows, by what was chosen on some of them."""
        settled = replace(
            self,
            strategy=done.strategy if done.mix > 0 else HeadOnly(),
            config=job.settings.config,
            validation=0.0,
            mix=done.mix,
            temperature=done.model.head.temperature,
        )
        folder = None if checkpoint is None else checkpoint / "all rows"
        whole = settled.fit(rows, backbone, groups=groups, checkpoint=folder, store=store, progress=progress)
        note = f"the model learnt once more, from all {len(rows):,} rows; the validation figures are of the one before"
        return replace(done, model=whole.model, notes=(*done.notes, note))

    def _share(self) -> float:
        if self.validation is not None:
            return self.validation
        return 0.15 if self.config is None or self.config.restore_best else 0.0

    def _settings(self, part: TuningRows, strategy: Strategy) -> TuningSettings:
        task, modality = part.learning.task, part.learning.modality
        assert task is not None
        config = self.config or default_config(
            modality,
            task.kind,
            len(part.learning),
            whole=not _is_partial(strategy),
            head_only=isinstance(strategy, HeadOnly),
            solved=self.head == "solved",
            seed=self.seed,
        )
        views = self.views or (_MIRRORED if modality == "image" else (View(),))
        return TuningSettings(
            config=config,
            head=self.head,
            objectives=read_regularisers(self.regularisers),
            views=views,
            boundary=self.boundary,
            runtime=self.runtime,
            batch_norm=self.batch_norm,
            mix=self.mix,
            may_choose=self.config is None or self.config.restore_best or part.divided,
            head_rate=self.head_rate,
            temperature=self.temperature,
            seed=self.seed,
        )

    def _solve(self, part: TuningRows, backbone: Backbone, solved: LinearHead | None) -> LinearHead | None:
        if self.head != "solved":
            return None
        task = part.learning.task
        assert task is not None and part.learning.targets is not None and part.learning_features is not None
        values = part.learning_features.values_nd
        if solved is not None and not part.divided:
            if solved.weight.shape[1] != backbone.width or solved.task != task:
                raise ConfigError(
                    f"FineTuning: the solved head is for {solved.weight.shape[1]} features and {solved.task.num_outputs} "
                    f"outputs; {backbone.name} gives {backbone.width} and the rows have {task.num_outputs}; solve it on these "
                    "features."
                )
            start = solved
        else:
            method = FeatureExtraction(head="auto" if solved is None else solved.kind, seed=self.seed)
            start = method.solve(values, part.learning.targets, task, groups=part.learning.groups)
        return start if backbone.modality == "vector" else start.without_noise(values)

    def _choose(self, part: TuningRows, backbone: Backbone) -> tuple[Strategy, str]:
        if self.strategy != "auto":
            return read_strategy(self.strategy), ""
        assert part.learning.task is not None
        stages = 0 if backbone.modality == "vector" else len(_holding(backbone))
        choice = choose_strategy(
            len(part.learning),
            part.learning.task.num_outputs,
            parameters=_count(backbone),
            num_stages=stages,
            cpu_seconds=self._whole_seconds(part, backbone),
        )
        return choice.strategy, choice.reason

    def _whole_seconds(self, part: TuningRows, backbone: Backbone) -> float:
        """Return about what training every stage takes of one core, the second time on all rows included; 0 on a GPU."""
        if torch.cuda.is_available() or backbone.modality == "vector":
            return 0.0
        epochs = self._settings(part, LayerwiseDecay()).config.max_epochs
        passes = epochs * len(part.learning) * (2 if part.divided and self.refit else 1)
        return _STEP * passes * backbone.info.multiply_adds / MULTIPLY_ADDS["float32"]


def _is_partial(strategy: Strategy) -> bool:
    """Return whether a frozen prefix is left, as far as the strategy alone can say."""
    chosen = strategy.then if isinstance(strategy, LinearProbeThenFineTune) else strategy
    return isinstance(chosen, HeadOnly) or getattr(chosen, "num_stages", None) is not None


def _count(backbone: Backbone) -> int:
    return sum(parameter.numel() for parameter in backbone.module.parameters())


def _holding(backbone: Backbone) -> list[nn.Module]:
    """Return the segments that hold parameters."""
    cuts = [block.name for block in backbone.blocks if block.name not in {"input", "features"}]
    return [part for part in backbone.segments(cuts) if next(part.parameters(), None) is not None]
