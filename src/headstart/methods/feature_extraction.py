"""Feature extraction: the backbone frozen, a head solved on its features.

The first of the three core methods and the cheapest rung of the loop: one pass over the rows, then a convex problem.
Use it first, always; with few rows it is often the best there is. It cannot learn what the features do not hold.
Shapes: n rows, v views, d features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.core.errors import ConfigError, DataError, did_you_mean
from headstart.core.preprocessing import View
from headstart.core.tasks import Task
from headstart.features import Features
from headstart.heads import LinearHead, head_key, recall_head, remember_head, solve_head
from headstart.model import Model
from headstart.model.novelty import NoveltyScorer

__all__ = ["FeatureExtraction"]


@dataclass(frozen=True)
class FeatureExtraction:
    """Solve a head on frozen features.

    Parameters
    ----------
    head : str
        ``"auto"`` lets the heads compete by cross-validation; otherwise a head's name from the catalog.
    class_weight : {None, "balanced"}
        "balanced" weighs rows so that every class counts the same.
    views : tuple of View
        Looks taken at every row; the head learns from all of them and predictions average over them.
    seed : int
        Folds.
    memo : bool
        Read back a head that was solved before for the same features, targets and settings.
    """

    head: str = "auto"
    class_weight: Literal["balanced"] | None = None
    views: tuple[View, ...] = (View(),)
    seed: int = 0
    memo: bool = True

    def __post_init__(self) -> None:
        known = ["auto", *LinearHead.kinds]
        if self.head not in known:
            raise ConfigError(
                f"FeatureExtraction: head is one of {', '.join(known)}; got {self.head!r}.{did_you_mean(self.head, known)}"
            )

    def fit(
        self,
        backbone: Backbone,
        features: Features,
        targets: NDArray[Any],
        task: Task,
        *,
        groups: NDArray[Any] | None = None,
    ) -> Model:
        """Return a model.

        Parameters
        ----------
        backbone : Backbone
            Where the features came from.
        features : Features
            Of the training rows: (n, d), or (n, v, d).
        targets : array of shape (n,) or (n, k)
            Their targets.
        task : Task
            What the targets mean.
        groups : array of shape (n,), optional
            Rows that must not be split between folds (duplicates, patients).
        """
        values = features.values_nd
        if len(values) != len(targets):
            raise DataError(f"FeatureExtraction: {len(values)} rows of features but {len(targets)} targets.")
        rows_nd, row_targets, row_groups = values, targets, groups
        if values.ndim == 3:
            num_views = values.shape[1]
            rows_nd = values.reshape(-1, values.shape[2])
            row_targets = np.repeat(targets, num_views, axis=0)
            row_groups = np.repeat(np.arange(len(values)) if groups is None else groups, num_views)
        head = self.solve(rows_nd, row_targets, task, groups=row_groups)
        if backbone.modality != "vector":
            head = head.without_noise(rows_nd)
        centre_nd = values if values.ndim == 2 else values[:, 0]
        return Model(
            backbone=backbone,
            head=head,
            task=task,
            novelty=NoveltyScorer("standardised" if backbone.modality == "vector" else "cosine").fit(centre_nd),
            views=self.views,
            runtime=features.runtime.label,
        )

    def solve(
        self,
        features_nd: NDArray[np.float32],
        targets: NDArray[Any],
        task: Task,
        *,
        groups: NDArray[Any] | None = None,
    ) -> LinearHead:
        """Return the head alone."""
        if not self.memo:
            return self._solve(features_nd, targets, task, groups)
        settings = {"head": self.head, "class_weight": self.class_weight, "seed": self.seed}
        key = head_key(features_nd, targets, task, groups, settings)
        head = recall_head(key)
        if head is None:
            head = self._solve(features_nd, targets, task, groups)
            remember_head(key, head)
        return head

    def _solve(
        self, features_nd: NDArray[np.float32], targets: NDArray[Any], task: Task, groups: NDArray[Any] | None
    ) -> LinearHead:
        if self.head == "auto":
            return solve_head(features_nd, targets, task, seed=self.seed, groups=groups, class_weight=self.class_weight)
        weights = None
        if self.class_weight == "balanced" and task.kind == "classification":
            counts_k = np.bincount(targets, minlength=len(task.classes))
            weights = (1 / np.maximum(counts_k, 1))[targets]
        head = LinearHead.kinds[self.head]()
        return head.fit(features_nd, targets, task, groups=groups, sample_weight=weights)
