"""One fine-tuning: a copy of the base model and a head become a network, the network trains, and a model comes out."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headstart.backbones import Backbone
from headstart.core.digests import digest_array, digest_many
from headstart.core.preprocessing import View
from headstart.core.progress import Progress
from headstart.core.seeds import derive_seed
from headstart.core.tasks import Task
from headstart.data import Dataset, folds
from headstart.features import FeatureStore
from headstart.heads import Head, LinearHead, NetworkHead, fit_temperature, to_probabilities
from headstart.methods.regularisers import source_head_of
from headstart.methods.tuning_rows import TuningRows
from headstart.metrics import compute_metrics
from headstart.model import Model
from headstart.model.novelty import NoveltyScorer
from headstart.objectives import Objective, StochasticNormalisation, without_stochastic_normalisation
from headstart.training import History, InputRows, TrainingConfig, TrainingRows, supervised_phase, train
from headstart.training.boundary import boundary_rows
from headstart.training.checkpoint import Checkpoint
from headstart.training.network import Network
from headstart.training.plan import Plan
from headstart.training.rows import Rows
from headstart.training.strategies import Strategy, without_batch_norm

__all__ = ["FineTuned", "TuningJob", "TuningSettings"]

Array = NDArray[Any]

_ROWS_AT_ONCE = 64
_CALIBRATION_FOLDS = 5
_MEASURES = {"classification": "accuracy", "multilabel": "f1_macro", "regression": "r2"}


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning made, and how it went.

    Parameters
    ----------
    model : Model
        Tuned copy of the base model, trained head, temperature.
    history : History
        Losses and measures of every check.
    validation_scores : array of shape (n, k) or (n,), or None
        What the model says of the validation rows; each row's probabilities are calibrated by the other rows. None without
        validation rows.
    validation_kept : int64 array, or None
        Which rows these are: of ``validation_rows`` where they were given, of the training rows otherwise.
    solved_scores : array, or None
        What the solved head that training began from says of the same rows.
    strategy : Strategy
        What was carried out.
    plan_reason : str
        Why it, and what trained.
    notes : tuple of str
        What a person should know.
    cpu_seconds : float
        CPU time of all of it, all threads.
    """

    model: Model
    history: History
    validation_scores: NDArray[np.float64] | None
    validation_kept: NDArray[np.int64] | None
    solved_scores: NDArray[np.float64] | None
    strategy: Strategy
    plan_reason: str
    notes: tuple[str, ...] = ()
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class TuningSettings:
    """What a fine-tuning was asked for, with every choice made.

    Parameters
    ----------
    config : TrainingConfig
        How to train.
    head : str or nn.Module
        ``"solved"``, layers in words, or a module.
    objectives : tuple of Objective
        Terms added to the task's loss.
    views : tuple of View
        Looks at training images.
    boundary, runtime, batch_norm, temperature, seed
        As in `headstart.methods.FineTuning`.
    """

    config: TrainingConfig
    head: str | nn.Module
    objectives: tuple[Objective, ...]
    views: tuple[View, ...]
    boundary: str
    runtime: str
    batch_norm: str
    temperature: float | None
    seed: int


class TuningJob:
    """Carries one fine-tuning out.

    Parameters
    ----------
    settings : TuningSettings
        What was asked for.
    rows : TuningRows
        Rows to learn from and to validate on.
    backbone : Backbone
        Stays as it is.
    strategy : Strategy
        What trains.
    why : str
        Why that strategy, where it was not the user's choice.
    solved : LinearHead, optional
        What the head starts as.
    """

    def __init__(
        self,
        settings: TuningSettings,
        rows: TuningRows,
        backbone: Backbone,
        strategy: Strategy,
        why: str,
        solved: LinearHead | None,
    ) -> None:
        self.settings, self.rows, self.backbone = settings, rows, backbone
        self.strategy, self.why, self.solved = strategy, why, solved
        task, targets = rows.learning.task, rows.learning.targets
        assert task is not None and targets is not None
        self.task: Task = task
        self.targets: Array = targets
        self.centre, self.scale = 0.0, 1.0
        if task.kind == "regression":
            self.centre, self.scale = float(targets.mean()), float(targets.std()) or 1.0
        self.notes = list(rows.notes)

    def keep_solved(self) -> FineTuned:
        """Return the solved head as it is: there is nothing to train that is not solved already."""
        assert self.solved is not None and self.rows.learning_features is not None
        features = self.rows.learning_features
        model = self._model(self.backbone, self.solved, features.values_nd, "the head alone, which is solved already")
        model.runtime = features.runtime.label
        scores = self._solved_scores()
        reason = "; ".join(
            filter(None, [self.why, "the head alone would train, and it is solved already: nothing is trained"])
        )
        return FineTuned(model, History(), scores, self.rows.kept, scores, self.strategy, reason, tuple(self.notes))

    def train(self, checkpoint: Path | None, store: FeatureStore | bool | None, progress: Progress | None) -> FineTuned:
        """Train, and return the model."""
        tuned = self.backbone.copy()
        head = self._head()
        network = self._network(tuned, head)
        self.strategy.prepare(network, derive_seed(self.settings.seed, "strategy") % 2**31)
        plan = self._plan(network)
        reason = "; ".join(filter(None, [self.why, plan.reason]))
        _say(progress, f"plan: {reason}")
        with self._open(network, tuned, plan, store, progress) as (learning, judging):
            history = self._train(network, plan, learning, judging, checkpoint, progress)
            self.strategy.finish(network)
            without_stochastic_normalisation(network)
            features_nd, _ = _outputs(network, learning)
            validation = None if judging is None else _outputs(network, judging)
        head.module.eval()
        tuned.refresh()
        tuned.source_head = None  # its answers are for features that are gone
        if plan.num_frozen == len(network.segments):
            tuned = self.backbone
        else:
            tuned.origin = f"fine-tuned from {self.backbone.name} ({self.backbone.origin})"
        scores = self._calibrate(head, validation)
        self.notes += [*history.notes, *self._compare(scores)]
        model = self._model(tuned, head, features_nd, plan.reason)
        return FineTuned(
            model, history, scores, self.rows.kept, self._solved_scores(), self.strategy, reason, tuple(self.notes)
        )

    def _head(self) -> NetworkHead:
        """Return the head where training begins."""
        settings = self.settings
        words = "linear" if settings.head == "solved" else settings.head
        seed = derive_seed(settings.seed, "head") % 2**31
        head = NetworkHead(words, self.backbone.width, self.task, seed=seed)
        head.centre, head.scale = self.centre, self.scale
        if self.solved is not None:
            start = self.solved.to_linear()
            with torch.no_grad():
                layer: Any = next(part for part in head.module.modules() if isinstance(part, nn.Linear))
                layer.weight.copy_(start.weight / self.scale)
                layer.bias.copy_((start.bias - self.centre) / self.scale)
        return head

    def _network(self, tuned: Backbone, head: NetworkHead) -> Network:
        heads: dict[str, nn.Module] = {"main": head.module}
        source_head = source_head_of(self.backbone, self.settings.objectives)
        if source_head is not None:
            heads["source"] = copy.deepcopy(source_head)
        return Network.of(tuned, heads, stages=() if tuned.modality == "vector" else None)

    def _plan(self, network: Network) -> Plan:
        plan = self.strategy.plan(network, len(self.rows.learning), solved=self.solved is not None)
        stochastic = any(isinstance(item, StochasticNormalisation) for item in self.settings.objectives)
        if self.settings.batch_norm == "frozen" and not stochastic:
            plan = without_batch_norm(plan, network)
        return plan

    @contextlib.contextmanager
    def _open(
        self,
        network: Network,
        tuned: Backbone,
        plan: Plan,
        store: FeatureStore | bool | None,
        progress: Progress | None,
    ) -> Iterator[tuple[TrainingRows, TrainingRows | None]]:
        """Give inputs of both parts with their targets, from the freeze boundary where that pays."""
        opened: list[Rows] = []
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            learning = self._inputs(network, tuned, plan, self.rows.learning, self.settings.views, store, progress)
            opened.append(learning)
            judging = None
            if self.rows.judging is not None:
                judging = self._inputs(network, tuned, plan, self.rows.judging, (View(),), store, progress)
                opened.append(judging)
            network.to(device)
            yield (
                TrainingRows(learning, self._unit(self.rows.learning)),
                None if judging is None else TrainingRows(judging, self._unit(self.rows.judging)),
            )
        finally:
            network.cpu()
            for rows in opened:
                rows.close()

    def _inputs(
        self,
        network: Network,
        tuned: Backbone,
        plan: Plan,
        rows: Dataset,
        views: tuple[View, ...],
        store: FeatureStore | bool | None,
        progress: Progress | None,
    ) -> Rows:
        """Return rows as activations of what is frozen, which is the base model's, or as they are where nothing is."""
        if plan.num_frozen == 0 or tuned.modality == "vector":
            return InputRows(rows, tuned, views=views)
        network.start = plan.num_frozen
        return boundary_rows(
            rows,
            self.backbone,
            network.names[plan.num_frozen - 1],
            views,
            epochs=self.settings.config.max_epochs,
            cached={"auto": None, "cached": True, "computed": False}[self.settings.boundary],
            runtime=self.settings.runtime,
            store=store,
            progress=progress,
        )

    def _unit(self, rows: Dataset | None) -> Array:
        """Return targets in the unit the network answers in: numbers standardised, others as they are."""
        assert rows is not None and rows.targets is not None
        if self.task.kind != "regression":
            return rows.targets
        return (rows.targets - self.centre) / self.scale

    def _train(
        self,
        network: Network,
        plan: Plan,
        learning: TrainingRows,
        judging: TrainingRows | None,
        checkpoint: Path | None,
        progress: Progress | None,
    ) -> History:
        settings = self.settings
        assert learning.targets is not None
        phase = supervised_phase(self.task, settings.config, learning.targets, settings.objectives)
        folder = (
            contextlib.nullcontext() if checkpoint is None else Checkpoint(checkpoint, identity=self._identity(plan))
        )
        with folder as kept:
            return train(
                network,
                self.task,
                learning,
                judging,
                settings.config,
                phases=[phase],
                plan=plan,
                source_head=source_head_of(self.backbone, settings.objectives),
                checkpoint=kept,
                progress=progress,
            )

    def _identity(self, plan: Plan) -> dict[str, Any]:
        """Return what a checkpoint belongs to."""
        settings = self.settings
        return {
            "rows": digest_many(self.rows.learning.digests()),
            "targets": digest_array(self.targets),
            "validation_rows": "" if self.rows.judging is None else digest_many(self.rows.judging.digests()),
            "config": settings.config.to_dict(),
            "backbone": self.backbone.weights_digest,
            "strategy": self.strategy.config(),
            "plan": plan.to_dict(),
            "head": settings.head if isinstance(settings.head, str) else type(settings.head).__name__,
            "regularisers": [{type(item).__name__: item.config()} for item in settings.objectives],
            "batch_norm": settings.batch_norm,
        }

    def _solved_scores(self) -> NDArray[np.float64] | None:
        features = self.rows.judging_features
        if self.solved is None or features is None:
            return None
        return np.asarray(self.solved.predict_scores(features.values_nd), np.float64)

    def _calibrate(self, head: NetworkHead, validation: tuple[Array, Array] | None) -> NDArray[np.float64] | None:
        """Set the head's temperature; return scores of the validation rows, each calibrated by the others."""
        if validation is None:
            head.temperature = self.settings.temperature or 1.0
            if self.settings.temperature is None and self.task.kind != "regression":
                self.notes.append("no validation rows: probabilities are as trained, not calibrated")
            return None
        assert self.rows.judging is not None and self.rows.judging.targets is not None
        features_nd, logits_nk = validation
        if self.task.kind == "regression":
            return np.asarray(logits_nk[:, 0] * self.scale + self.centre, np.float64)
        targets = self.rows.judging.targets
        head.calibrate(features_nd, targets)
        return cross_calibrated(self.task, logits_nk, targets, self.settings.seed)

    def _compare(self, scores: NDArray[np.float64] | None) -> list[str]:
        """Return a line that sets the result beside the solved head it began from."""
        before = self._solved_scores()
        if scores is None or before is None:
            return []
        assert self.rows.judging is not None and self.rows.judging.targets is not None
        targets, metric = self.rows.judging.targets, _MEASURES[self.task.kind]
        now, then = (compute_metrics(self.task, targets, item)[metric] for item in (scores, before))
        word = "better than" if now > then else ("no better than" if now == then else "WORSE than")
        return [
            f"on {len(targets):,} validation rows: {metric} {now:.4g}, {word} the solved head it began from ({then:.4g})"
        ]

    def _model(self, backbone: Backbone, head: Head, features_nd: Array, plan: str) -> Model:
        trained = backbone is not self.backbone
        novelty = NoveltyScorer("standardised" if backbone.modality == "vector" else "cosine").fit(features_nd)
        model = Model(backbone, head, self.task, novelty, runtime="torch-fp32")
        if isinstance(head, NetworkHead):
            head.report["why"] = plan
        if trained:
            model.provenance["fine_tuning"] = {
                "strategy": self.strategy.config(),
                "plan": plan,
                "base_weights_digest": self.backbone.weights_digest,
                "head": head.layers if isinstance(head, NetworkHead) else head.kind,
                "start": "solved" if self.solved is not None else "random",
                "learning_rows": len(self.rows.learning),
                "regularisers": [type(item).__name__ for item in self.settings.objectives],
            }
        return model


def _outputs(network: Network, rows: TrainingRows) -> tuple[Array, Array]:
    """Return features (n, d) and logits (n, k) of rows as they are, in evaluation mode."""
    network.eval()
    device = next((item.device for item in network.parameters()), torch.device("cpu"))
    features, logits = [], []
    with torch.no_grad():
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            inputs = rows.inputs.batch(rows.indices[start : start + _ROWS_AT_ONCE], None)
            output = network(*(tensor.to(device) for tensor in inputs))
            features.append(output.features.float().cpu().numpy())
            logits.append(output.logits.float().cpu().numpy())
    return np.concatenate(features), np.concatenate(logits)


def cross_calibrated(task: Task, logits_nk: Array, targets: Array, seed: int) -> NDArray[np.float64]:
    """Return probabilities of rows, each with the temperature that the other rows give.

    Parameters
    ----------
    task : Task
        Classification or several labels at once.
    logits_nk : array of shape (n, k)
        Of rows that were not trained on.
    targets : array of shape (n,) or (n, k)
        In the task's own type.
    seed : int
        Of the folds.
    """
    found = np.empty(logits_nk.shape, np.float64)
    if len(targets) < 2 * _CALIBRATION_FOLDS:
        return np.asarray(to_probabilities(task, logits_nk), np.float64)
    for others, mine in folds(targets, _CALIBRATION_FOLDS, seed=seed):
        temperature = fit_temperature(task, logits_nk[others], targets[others], np.ones(len(others)))
        found[mine] = to_probabilities(task, logits_nk[mine], temperature)
    return found


def _say(progress: Progress | None, text: str) -> None:
    if progress is not None:
        progress.say(text)
