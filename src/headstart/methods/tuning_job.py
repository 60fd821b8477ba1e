"""One fine-tuning: a copy of the base model and a head become a network, the network trains, and a model comes out."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

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
from headstart.data import Dataset
from headstart.features import FeatureStore
from headstart.heads import Head, LinearHead, NetworkHead
from headstart.methods.boundary_inputs import open_inputs
from headstart.methods.fine_tuned import FineTuned, beside_the_start, cross_calibrated, judged_loss
from headstart.methods.network_outputs import network_outputs
from headstart.methods.recipe import default_mix
from headstart.methods.regularisers import source_head_of
from headstart.methods.tuning_rows import TuningRows
from headstart.model import Model
from headstart.model.novelty import NoveltyScorer
from headstart.objectives import Objective, StochasticNormalisation, without_stochastic_normalisation
from headstart.training import History, Phase, Run, TrainingConfig, TrainingRows, supervised_phase, train
from headstart.training.checkpoint import Checkpoint
from headstart.training.distributed import World
from headstart.training.network import Network
from headstart.training.plan import Plan
from headstart.training.probes import sweep_rates
from headstart.training.rate_finder import RateSweep
from headstart.training.strategies import Strategy, without_batch_norm
from headstart.training.weight_path import WeightPath

__all__ = ["TuningJob", "TuningSettings"]

Array = NDArray[Any]

_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


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
    boundary, runtime, batch_norm, mix, head_rate, temperature, seed
        As in `headstart.methods.FineTuning`.
    may_choose : bool
        Whether validation rows may choose ``mix``, or only watch.
    """

    config: TrainingConfig
    head: str | nn.Module
    objectives: tuple[Objective, ...]
    views: tuple[View, ...]
    boundary: str
    runtime: str
    batch_norm: str
    mix: float | Literal["auto"]
    may_choose: bool
    head_rate: float | None
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
        model = self._model(
            self.backbone, self.solved, features.values_nd, "the head alone, which is solved already", 0.0
        )
        model.runtime = features.runtime.label
        scores = self._solved_scores()
        reason = "; ".join(
            filter(None, [self.why, "the head alone would train, and it is solved already: nothing is trained"])
        )
        return FineTuned(
            model, History(), scores, self.rows.kept, scores, self.strategy, 0.0, reason, tuple(self.notes)
        )

    def sweep(self, num_steps: int, store: FeatureStore | bool | None, progress: Progress | None) -> RateSweep:
        """Return training losses along rising learning rates, from where the training would begin."""
        tuned, _, network, plan = self._begin()
        with self._open(network, tuned, plan, store, progress) as (learning, _):
            run = Run(
                network,
                self.task,
                learning,
                None,
                self.settings.config,
                phases=[self._phase(learning)],
                plan=plan,
                source_head=source_head_of(self.backbone, self.settings.objectives),
            )
            return sweep_rates(run, num_steps=num_steps)

    def train(self, checkpoint: Path | None, store: FeatureStore | bool | None, progress: Progress | None) -> FineTuned:
        """Train, and return the model."""
        tuned, head, network, plan = self._begin()
        reason = "; ".join(filter(None, [self.why, plan.reason]))
        _say(progress, f"plan: {reason}")
        start = {name: tensor.clone() for name, tensor in head.module.state_dict().items()}
        with self._open(network, tuned, plan, store, progress) as (learning, judging):
            history = self._train(network, plan, learning, judging, checkpoint, progress)
            self.strategy.finish(network)
            without_stochastic_normalisation(network)
            mix = self._go_back(tuned, head, start, network, judging)
            features_nd, _ = network_outputs(network, learning)
            validation = None if judging is None else network_outputs(network, judging)
        head.module.eval()
        tuned.refresh()
        tuned.source_head = None  # its answers are for features that are gone
        if plan.num_frozen == len(network.segments) or mix == 0:
            tuned = self.backbone
        else:
            tuned.origin = f"fine-tuned from {self.backbone.name} ({self.backbone.origin})"
        scores = self._calibrate(head, validation)
        self.notes += [note for note in history.notes if note not in self.notes] + self._compared(scores)
        model = self._model(tuned, head, features_nd, plan.reason, mix)
        return FineTuned(
            model,
            history,
            scores,
            self.rows.kept,
            self._solved_scores(),
            self.strategy,
            mix,
            reason,
            tuple(self.notes),
        )

    def _begin(self) -> tuple[Backbone, NetworkHead, Network, Plan]:
        """Return the copy that trains, its head, the network of both, and what of it trains."""
        tuned, head = self.backbone.copy(), self._head()
        network = self._network(tuned, head)
        self.strategy.prepare(network, derive_seed(self.settings.seed, "strategy") % 2**31)
        return tuned, head, network, self._plan(network)

    def _phase(self, learning: TrainingRows) -> Phase:
        """Return what is minimised: the task's loss and the regularisers."""
        assert learning.targets is not None
        return supervised_phase(self.task, self.settings.config, learning.targets, self.settings.objectives)

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
        given = World.current().hand_out(lambda: (head.module.state_dict(), {}))
        assert given is not None
        head.module.load_state_dict(given[0])  # of several processes, all begin with what the first one solved
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
        if self.settings.head_rate is None:
            return plan
        groups = (
            replace(group, rate=self.settings.head_rate) if group.names[0].startswith("heads.") else group
            for group in plan.groups
        )
        return replace(plan, groups=tuple(groups))

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
        settings, rows = self.settings, self.rows
        with open_inputs(
            network,
            tuned,
            self.backbone,
            plan,
            epochs=settings.config.max_epochs,
            boundary=settings.boundary,
            runtime=settings.runtime,
            store=store,
            progress=progress,
        ) as inputs:
            learning = inputs(rows.learning, settings.views)
            judging = None if rows.judging is None else inputs(rows.judging, (View(),))
            network.to("cuda" if torch.cuda.is_available() else "cpu")
            yield (
                TrainingRows(learning, self._unit(rows.learning)),
                None if judging is None or rows.judging is None else TrainingRows(judging, self._unit(rows.judging)),
            )

    def _go_back(
        self,
        tuned: Backbone,
        head: NetworkHead,
        start: dict[str, torch.Tensor],
        network: Network,
        judging: TrainingRows | None,
    ) -> float:
        """Go back part of the way from the trained weights to those at the start; return the share that is left."""
        wish = self.settings.mix
        if self.solved is None and wish == "auto":
            return 1.0
        before = self.backbone.module.state_dict()
        pairs = [(tensor, before[name]) for name, tensor in tuned.module.state_dict().items()]
        pairs += [(tensor, start[name]) for name, tensor in head.module.state_dict().items()]
        path = WeightPath(pairs)
        if wish != "auto" or judging is None or not self.settings.may_choose:
            share = wish if wish != "auto" else default_mix(len(self.rows.learning))
            path.go(share)
            return share
        losses = {}
        for share in _SHARES:
            path.go(share)
            assert self.rows.judging is not None and self.rows.judging.targets is not None
            answers = self._unit_of_targets(network_outputs(network, judging)[1])
            losses[share] = judged_loss(self.task, answers, self.rows.judging.targets, self.settings.seed)
        best = min(losses, key=lambda share: (losses[share], -share))
        path.go(best)
        shown = ", ".join(f"{loss:.4g} at {share:g}" for share, loss in losses.items())
        self.notes.append(
            f"weights lie at {best:g} of the way from the start to the trained ones: validation loss {shown}"
        )
        return best

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
                phases=[self._phase(learning)],
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
            return np.asarray(self._unit_of_targets(logits_nk)[:, 0], np.float64)
        targets = self.rows.judging.targets
        head.calibrate(features_nd, targets)
        return cross_calibrated(self.task, logits_nk, targets, self.settings.seed)

    def _unit_of_targets(self, logits_nk: Array) -> Array:
        """Return what the network answers in the unit of the targets."""
        return logits_nk * self.scale + self.centre if self.task.kind == "regression" else logits_nk

    def _compared(self, scores: NDArray[np.float64] | None) -> list[str]:
        before = self._solved_scores()
        if scores is None or before is None:
            return []
        assert self.rows.judging is not None and self.rows.judging.targets is not None
        return [beside_the_start(self.task, self.rows.judging.targets, scores, before)]

    def _model(self, backbone: Backbone, head: Head, features_nd: Array, plan: str, mix: float) -> Model:
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
                "mix": mix,
                "start": "solved" if self.solved is not None else "random",
                "learning_rows": len(self.rows.learning),
                "regularisers": [type(item).__name__ for item in self.settings.objectives],
            }
        return model


def _say(progress: Progress | None, text: str) -> None:
    if progress is not None:
        progress.say(text)
