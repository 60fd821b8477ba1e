"""One deep adaptation: the copy that trains, its head, rows of both domains at the freeze boundary, and the model."""

from __future__ import annotations

import contextlib
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
from headstart.core.errors import DataError
from headstart.core.preprocessing import View
from headstart.core.progress import Progress
from headstart.core.seeds import derive_seed
from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.features import FeatureStore, extract_features
from headstart.heads import NetworkHead, OpenSetHead, fit_temperature, to_probabilities
from headstart.methods.adaptations.carry_out import Adapting, adapt_network, loss_of, make_recipe
from headstart.methods.adaptations.givens import classifier_of
from headstart.methods.adaptations.heads import open_head, split_head
from headstart.methods.adaptations.recipe import AdaptationRecipe, RecipeOf
from headstart.methods.adaptations.stages import HIDDEN, staged_network
from headstart.methods.boundary_inputs import open_inputs
from headstart.methods.feature_extraction import FeatureExtraction
from headstart.methods.network_outputs import network_outputs
from headstart.methods.tuning_rows import TuningRows
from headstart.model import Model
from headstart.model.novelty import NoveltyScorer
from headstart.model.predictions import entropy_above, last_is_largest
from headstart.training import History, Network, Plan, TrainingConfig, TrainingRows
from headstart.training.joined import JoinedRows
from headstart.training.rows import Rows
from headstart.training.strategies import Strategy

__all__ = ["AdaptationJob", "AdaptationSettings", "Adapted"]

Array = NDArray[Any]


@dataclass(frozen=True)
class AdaptationSettings:
    """What a deep adaptation was asked for, with every choice made; see `headstart.methods.DeepAdaptation`."""

    config: TrainingConfig
    head: str
    views: tuple[View, ...]
    boundary: str
    runtime: str
    batch_norm: str
    name: str
    seed: int


@dataclass(frozen=True)
class Adapted:
    """What came out; see `headstart.methods.DeeplyAdapted`."""

    model: Model
    histories: tuple[History, ...]
    target_scores: NDArray[np.float64]
    held_out_scores: NDArray[np.float64] | None
    source_seen_nr: NDArray[np.float32]
    target_seen_mr: NDArray[np.float32]
    plan_reason: str
    target_unknown: NDArray[np.bool_] | None


class AdaptationJob:
    """Carries one deep adaptation out.

    Parameters
    ----------
    settings : AdaptationSettings
        What was asked for.
    rows : TuningRows
        Labelled source rows, to learn from and set aside.
    target : Dataset
        Target rows that can be read; without labels.
    few_labels : Dataset, optional
        Labelled target rows, their classes numbered as the source's.
    backbone : Backbone
        Stays as it is.
    strategy : Strategy
        Which stages train.
    recipe : callable
        What is minimised.
    """

    def __init__(
        self,
        settings: AdaptationSettings,
        rows: TuningRows,
        target: Dataset,
        few_labels: Dataset | None,
        backbone: Backbone,
        strategy: Strategy,
        recipe: RecipeOf,
    ) -> None:
        self.settings, self.rows, self.target, self.few_labels = settings, rows, target, few_labels
        self.backbone, self.strategy, self.recipe_of = backbone, strategy, recipe
        task, targets = rows.learning.task, rows.learning.targets
        assert task is not None and targets is not None
        self.task: Task = task
        self.targets: Array = targets
        self.centre, self.scale = 0.0, 1.0
        if task.kind == "regression":
            self.centre, self.scale = float(targets.mean()), float(targets.std()) or 1.0
        self.notes = list(rows.notes)

    def run(self, checkpoint: Path | None, store: FeatureStore | bool | None, progress: Progress | None) -> Adapted:
        """Train, and return the model with what it says of both domains."""
        tuned, head = self.backbone.copy(), self._head()
        hidden, last = split_head(head)
        recipe = make_recipe(self.recipe_of, self.task, self.settings.config, self._labelled(None))
        network, plan = staged_network(
            tuned,
            hidden,
            last,
            recipe,
            self.strategy,
            num_rows=len(self.rows.learning),
            batch_norm=self.settings.batch_norm,
            seed=self.settings.seed,
            solved=self.settings.head == "solved",
        )
        classifier = classifier_of(self.backbone.source_head, recipe)
        if progress is not None:
            progress.say(f"plan: {plan.reason}")
        with self._open(network, tuned, plan, store, progress) as (source, target, held_out):
            if self.settings.head == "solved":
                self._solve(head, self._base_features(network, source, store, progress))
            config = self.settings.config
            loss = loss_of(self.task, config, source)
            job = Adapting(network, self.task, source, target, recipe, config, loss, plan, held_out, classifier)
            histories = adapt_network(
                job, checkpoint=checkpoint, identity=self._identity(plan, recipe), progress=progress
            )
            self.strategy.finish(network)
            source_seen = network_outputs(network, source)
            target_seen = network_outputs(network, target)
            judged = None if held_out is None else network_outputs(network, held_out)
            body = self._body_outputs(network, target, target_seen[0])
        head.module.eval()
        tuned.refresh()
        tuned.source_head = None  # its answers are for features that are gone
        if plan.num_frozen >= len(network.segments) - (1 if hidden is not None else 0):
            tuned = self.backbone
        else:
            tuned.origin = f"adapted from {self.backbone.name} ({self.backbone.origin})"
        for history in histories:
            self.notes += history.notes
        held_out_scores = self._calibrate(head, judged)
        target_scores = self._scores(target_seen[1], head.temperature)
        return Adapted(
            self._model(tuned, open_head(head, recipe), body, plan.reason, recipe.unknown_above),
            histories,
            target_scores,
            held_out_scores,
            source_seen[0],
            target_seen[0],
            plan.reason,
            _unknown(recipe, target_seen, target_scores),
        )

    def _head(self) -> NetworkHead:
        """Return the head at random; one that is to be solved is, when rows are open."""
        settings = self.settings
        words = "linear" if settings.head == "solved" else settings.head
        head = NetworkHead(words, self.backbone.width, self.task, seed=derive_seed(settings.seed, "head") % 2**31)
        head.centre, head.scale = self.centre, self.scale
        return head

    def _solve(self, head: NetworkHead, values_nd: Array) -> None:
        """Bring the head to the solution on what the base model says of the source rows."""
        method = FeatureExtraction(seed=self.settings.seed)
        solved = method.solve(values_nd, self.targets, self.task, groups=self.rows.learning.groups)
        start = solved.without_noise(values_nd).to_linear()
        with torch.no_grad():
            layer: Any = next(part for part in head.module.modules() if isinstance(part, nn.Linear))
            layer.weight.copy_(start.weight / self.scale)
            layer.bias.copy_((start.bias - self.centre) / self.scale)

    def _base_features(
        self, network: Network, source: TrainingRows, store: FeatureStore | bool | None, progress: Progress | None
    ) -> Array:
        """Return the base model's features of the source rows: by way of the boundary, where part of the network rests."""
        rows = self.rows.learning
        if 0 < network.start < len(network.segments):  # which has not learned yet
            network.freeze(network.start)
            return network_outputs(network, TrainingRows(source.inputs, None, np.arange(len(rows))))[0]
        found = extract_features(rows, self.backbone, store=store, progress=progress)
        if len(found.kept) < len(rows):
            raise DataError(
                f"{self.rows.who}: {self.backbone.name} gives no features of {len(rows) - len(found.kept)} of {len(rows)} "
                f"source rows ({'; '.join(item.message for item in found.failures)}); leave them out."
            )
        return found.values_nd

    @contextlib.contextmanager
    def _open(
        self,
        network: Network,
        tuned: Backbone,
        plan: Plan,
        store: FeatureStore | bool | None,
        progress: Progress | None,
    ) -> Iterator[tuple[TrainingRows, TrainingRows, TrainingRows | None]]:
        """Give rows of source, target and source set aside, from the freeze boundary where that pays."""
        settings, plain = self.settings, (View(),)
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
            source = inputs(self.rows.learning, settings.views)
            few = None if self.few_labels is None else inputs(self.few_labels, settings.views)
            target = inputs(self.target, settings.views)
            judging = None if self.rows.judging is None else inputs(self.rows.judging, plain)
            network.to("cuda" if torch.cuda.is_available() else "cpu")
            held_out = None
            if judging is not None and self.rows.judging is not None:
                held_out = TrainingRows(judging, self._unit(self.rows.judging))
            labelled = self._labelled(source if few is None else JoinedRows([source, few]))
            yield labelled, TrainingRows(target, None), held_out

    def _labelled(self, inputs: Rows | None) -> TrainingRows:
        """Return the labelled rows with their targets and domains; the few of the target are the last domain."""
        parts = [self.rows.learning, *([] if self.few_labels is None else [self.few_labels])]
        targets = np.concatenate([self._unit(part) for part in parts])
        domains = self._domains()
        if inputs is None:  # before rows are opened: a recipe looks at targets alone
            inputs = _Counted(len(targets))
        return TrainingRows(inputs, targets, domains=domains)

    def _domains(self) -> NDArray[np.int64]:
        rows = self.rows.learning
        numbers = np.zeros(len(rows), np.int64)
        if rows.domains is not None:
            numbers = np.unique(rows.domains, return_inverse=True)[1].astype(np.int64)
        if self.few_labels is None:
            return numbers
        return np.concatenate([numbers, np.full(len(self.few_labels), numbers.max(initial=0) + 1)])

    def _unit(self, rows: Dataset) -> Array:
        """Return targets in the unit the network answers in: numbers standardised, others as they are."""
        assert rows.targets is not None
        return (rows.targets - self.centre) / self.scale if self.task.kind == "regression" else rows.targets

    def _body_outputs(self, network: Network, rows: TrainingRows, seen_md: Array) -> Array:
        """Return what the head of the model is given: features before hidden layers; those seen where it has none."""
        if network.names[-1] != HIDDEN:
            return seen_md
        names = network.names[network.start : -1]
        if not names:
            found = [
                rows.inputs.batch(rows.indices[first : first + 256], None)[0] for first in range(0, len(rows), 256)
            ]
            return torch.cat(found).float().numpy()
        return network_outputs(network, rows, activation=names[-1])[0]

    def _calibrate(self, head: NetworkHead, judged: tuple[Array, Array] | None) -> NDArray[np.float64] | None:
        """Set the head's temperature by source rows set aside; return their scores."""
        if judged is None:
            if self.task.kind != "regression":
                self.notes.append("no source rows set aside: probabilities are as trained, not calibrated")
            return None
        assert self.rows.judging is not None and self.rows.judging.targets is not None
        if self.task.kind != "regression":
            targets = self.rows.judging.targets
            head.temperature = fit_temperature(self.task, judged[1], targets, np.ones(len(targets)))
        return self._scores(judged[1], head.temperature)

    def _scores(self, logits_nk: Array, temperature: float) -> NDArray[np.float64]:
        if self.task.kind == "regression":
            return np.asarray(logits_nk[:, 0] * self.scale + self.centre, np.float64)
        return np.asarray(to_probabilities(self.task, logits_nk, temperature), np.float64)

    def _identity(self, plan: Plan, recipe: AdaptationRecipe) -> dict[str, Any]:
        """Return what a checkpoint belongs to."""
        settings = self.settings
        phases = [
            {
                "name": phase.name,
                "trains": list(phase.trains),
                "streams": list(phase.streams),
                "repeats": phase.repeats,
                "objectives": [{type(item).__name__: item.config()} for item in phase.objectives],
            }
            for phase in recipe.phases
        ]
        few = self.few_labels
        return {
            "rows": digest_many(self.rows.learning.digests()),
            "targets": digest_array(self.targets),
            "held_out_rows": "" if self.rows.judging is None else digest_many(self.rows.judging.digests()),
            "target_rows": digest_many(self.target.digests()),
            "few_labels": "" if few is None else digest_many([*few.digests(), digest_array(self._unit(few))]),
            "config": settings.config.to_dict(),
            "backbone": self.backbone.weights_digest,
            "strategy": self.strategy.config(),
            "plan": plan.to_dict(),
            "head": settings.head,
            "phases": phases,
            "batch_norm": settings.batch_norm,
        }

    def _model(
        self,
        backbone: Backbone,
        head: NetworkHead | OpenSetHead,
        features_md: Array,
        reason: str,
        unknown_above: float | None,
    ) -> Model:
        novelty = NoveltyScorer("cosine").fit(features_md)
        model = Model(backbone, head, self.task, novelty, runtime="torch-fp32", unknown_above=unknown_above)
        head.report["why"] = reason
        model.provenance["deep_adaptation"] = {
            "method": self.settings.name,
            "strategy": self.strategy.config(),
            "plan": reason,
            "base_weights_digest": self.backbone.weights_digest,
            "head": head.layers,
            "source_rows": len(self.rows.learning),
            "target_rows": len(self.target),
            "labelled_target_rows": 0 if self.few_labels is None else len(self.few_labels),
        }
        return model


def _unknown(
    recipe: AdaptationRecipe, seen: tuple[Array, Array], scores_mk: NDArray[np.float64]
) -> NDArray[np.bool_] | None:
    """Return which rows are of none of the classes, from features and logits at the head; None where no term learned it."""
    if recipe.unknown_layer is not None:
        layer = recipe.unknown_layer.cpu()
        with torch.no_grad():
            beside = layer(torch.from_numpy(np.asarray(seen[0], np.float32))).numpy()
        return last_is_largest(np.concatenate([seen[1], beside], axis=1))
    return None if recipe.unknown_above is None else entropy_above(scores_mk, recipe.unknown_above)


class _Counted:
    """Rows of which only the number is known."""

    num_views = 1

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows

    def __len__(self) -> int:
        return self._num_rows

    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[torch.Tensor, ...]:
        raise LookupError("these rows are counted, not read")

    def close(self) -> None:
        """Nothing to let go."""
