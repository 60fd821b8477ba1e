"""A rival: one candidate that has learnt from both domains, whatever it is made of, or the reason why it could not.

    Rival.evidence              what a rule without target labels may judge it by
    Rival.fitted                what it answers for the target, what it sees of both domains, and itself as a model

An aligner on features is `FittedEstimator`. A candidate of another make (a network trained on both domains) is one more
subclass of `FittedCandidate`, and needs nothing else to compete, to be shown and to be saved.
Shapes: n source rows, m target rows, r features as the candidate sees them, k classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.alignment import FeatureAligner
from headstart.core.tasks import Task
from headstart.evaluation.selection import CandidateEvidence, FailedCandidate, ValueEvidence
from headstart.heads import Head
from headstart.model import Model
from headstart.model.adapted_head import AdaptedHead
from headstart.model.novelty import NoveltyScorer
from headstart.model.predictions import likeliest_classes
from headstart.workflow.domains import TwoDomains

__all__ = ["FittedCandidate", "FittedEstimator", "Rival", "model_on_features", "rows_as_seen"]

Array = NDArray[Any]


class FittedCandidate(ABC):
    """A candidate that has learnt from source rows with labels and target rows without."""

    @property
    @abstractmethod
    def target_scores(self) -> Array:
        """Probabilities (m, k) of the target rows in the order of the task's classes, or numbers (m,) for regression; float64."""

    @property
    def target_unknown_m(self) -> Array | None:
        """Which target rows it takes for none of the classes; None for a candidate that knows no such rows."""
        return None

    @property
    def target_answers_m(self) -> Array:
        """Class number of each target row; the number of classes for rows of none of them."""
        return likeliest_classes(self.target_scores, self.target_unknown_m)

    @property
    def source_seen_nr(self) -> Array | None:
        """Source rows as its classifier sees them, after adaptation; None where there is no such thing."""
        return None

    @property
    def source_seen_rows(self) -> Array | None:
        """Which of the source rows those of `source_seen_nr` are, ascending; None for all."""
        return None

    @property
    def target_seen_mr(self) -> Array | None:
        """Target rows as its classifier sees them, in the same space; None where there is no such thing."""
        return None

    @property
    def seen_as(self) -> str:
        """What those two are, where that is not said by "as it sees them"."""
        return ""

    @property
    def new_rows(self) -> str:
        """How target rows it has not seen are answered, where that is not how those it has seen are."""
        return ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how it learnt."""
        return ()

    @abstractmethod
    def to_model(self, two: TwoDomains, task: Task) -> Model:
        """Return a model that answers for new rows of the target; its provenance is for the caller to write.

        Parameters
        ----------
        two : TwoDomains
            Where it learnt.
        task : Task
            Names of the classes in the order of `target_scores`.
        """


class FittedEstimator(FittedCandidate):
    """An estimator of `headstart.alignment`, fitted on features that one base model gave and one scale holds.

    Parameters
    ----------
    estimator : fitted estimator
        Numbers its classes 0 to k-1.
    source_nd, target_md : arrays of shape (n, d) and (m, d)
        The rows it was fitted on.
    """

    def __init__(self, estimator: Any, source_nd: Array, target_md: Array) -> None:
        self.estimator, self._source_nd, self._target_md = estimator, source_nd, target_md

    has_seat: ClassVar[bool] = True  # in the committee, whose members all answer, and go back, by themselves

    @property
    def rows(self) -> tuple[Array, Array]:
        """Source and target rows as it was given them."""
        return self._source_nd, self._target_md

    @property
    def moves_rows(self) -> bool:
        """Whether it sees the rows of either domain otherwise than they came."""
        return self.source_seen_nr is not self._source_nd or self.target_seen_mr is not self._target_md

    @cached_property
    def target_scores(self) -> Array:
        """Probabilities of the target rows, asked for all at once; predicted numbers of a regressor."""
        ask = getattr(self.estimator, "predict_proba", self.estimator.predict)
        return np.asarray(ask(self._target_md), dtype=np.float64)

    @property
    def source_seen_nr(self) -> Array:
        """Source rows after alignment; the rows themselves where they are only weighed, or nothing moves them."""
        return rows_as_seen(self.estimator, self._source_nd, np.ones(len(self._source_nd), dtype=np.int64))

    @property
    def target_seen_mr(self) -> Array:
        """Target rows after alignment, or the rows themselves."""
        return rows_as_seen(self.estimator, self._target_md, None)

    @property
    def new_rows(self) -> str:
        """What the estimator says of them."""
        return str(getattr(self.estimator, "new_rows", ""))

    def to_head(self, two: TwoDomains, task: Task) -> Head:
        """Return the estimator as the head of a model: it takes features as the base model gives them.

        Parameters
        ----------
        two, task
            As for `to_model`.
        """
        return AdaptedHead(self.estimator, two.scale, task)

    def to_model(self, two: TwoDomains, task: Task) -> Model:
        """Return the base model that embedded both domains, with the estimator as its head.

        Unusual rows are those unlike the target rows it adapted to; unlike the source rows where nothing was adapted.
        """
        adapts = getattr(self.estimator, "aligner", self.estimator) is not None
        return model_on_features(self.to_head(two, task), two, task, like_source=not adapts)


@dataclass(frozen=True)
class Rival:
    """One candidate carried through.

    Parameters
    ----------
    name : str
        As in the catalog, or "do not adapt".
    fitted : FittedCandidate, optional
        What it became on all source and target rows; None where it failed.
    evidence : CandidateEvidence, ValueEvidence or FailedCandidate
        What a selection rule may see.
    cpu_seconds : float
        What fitting, and gathering the evidence, took.
    """

    name: str
    fitted: FittedCandidate | None
    evidence: CandidateEvidence | ValueEvidence | FailedCandidate
    cpu_seconds: float


def model_on_features(head: Head, two: TwoDomains, task: Task, *, like_source: bool = False) -> Model:
    """Return a model of the base model that embedded both domains and a head; unusual is what is unlike the target's rows.

    Parameters
    ----------
    head : Head
        Takes features as the base model gives them.
    two, task
        As for `FittedCandidate.to_model`.
    like_source : bool
        Unusual is what is unlike the source's rows instead.
    """
    features = two.features[0 if like_source else 1]
    novelty = None
    if len(features.values_nd) >= 2:
        novelty = NoveltyScorer("standardised" if two.backbone.modality == "vector" else "cosine")
        novelty.fit(features.values_nd)
    return Model(two.backbone, head, task, novelty, runtime=features.runtime.label)


def rows_as_seen(estimator: Any, rows: Array, sample_domain: Array | None) -> Array:
    """Return rows as the classifier within an adapted estimator sees them; the target's where ``sample_domain`` is None."""
    aligner = getattr(estimator, "aligner_", None)
    if not isinstance(aligner, FeatureAligner):
        return rows
    return np.asarray(aligner.transform(rows, sample_domain=sample_domain))
