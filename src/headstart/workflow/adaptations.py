"""Adaptations on features as rivals: every one is fitted, and all that a selection rule may see of it is gathered.

    candidate -> fitted on source (labels) + target (none) -> probabilities of target rows
                 fitted again on part of the source        -> probabilities of the source rows left out

"Do not adapt" is the first candidate, always (`headstart.workflow.committee` adds the committee of all). A candidate that breaks
off stays in the table with its reason.
Shapes: n source rows, m target rows, v source rows held out, d features, k classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, StratifiedShuffleSplit

from headstart.alignment import AdaptedClassifier, Aligner, DomainClassifier, FeatureAligner, Reweighter
from headstart.catalog import find
from headstart.core.errors import ConfigError
from headstart.core.progress import Progress
from headstart.evaluation.selection import CandidateEvidence
from headstart.workflow.entrants import Entrant, Room, carry_through
from headstart.workflow.rivals import FittedEstimator, Rival

__all__ = [
    "DEFAULT_CANDIDATES",
    "DEFAULT_NETWORKS",
    "NO_ADAPTATION",
    "base_classifier",
    "default_candidates",
    "hold_out",
    "make_candidates",
    "try_candidates",
    "try_entrants",
]

NO_ADAPTATION = "do not adapt"
DEFAULT_CANDIDATES = ("class-transport", "jda", "meda", "gradual-co-training", "label-propagation")
# Where a number for every pair of rows is too much: those of the next best that hold none.
_MANY_ROWS = ("moment-matching", "jda", "gradual-co-training", "source-free")
_MOST_PAIRED_ROWS = 8000
DEFAULT_NETWORKS = ("deep-jdot",)  # recipes for a network on features; docs/benchmarks.md

Array = NDArray[Any]


def base_classifier(source_nd: Array, codes_n: Array, *, seed: int = 0) -> LogisticRegression:
    """Return the classifier every aligner shares: logistic regression whose penalty the source's own folds choose, once.

    Examples
    --------
    >>> rows = np.array([[-2.0], [-1.0], [1.0], [2.0]] * 5)
    >>> base_classifier(rows, (rows[:, 0] > 0).astype(int)).C in PENALTIES
    True
    """
    smallest = int(np.bincount(codes_n)[np.unique(codes_n)].min())
    model = LogisticRegression(max_iter=1000, C=1.0)
    if smallest < 2:
        return model
    folds = StratifiedKFold(min(3, smallest), shuffle=True, random_state=seed)
    if source_nd.shape[1] > len(
        source_nd
    ):  # the penalty is on the length alone: a basis of the rows' span costs less, says the same
        source_nd = source_nd @ np.linalg.qr(np.asarray(source_nd, dtype=np.float64).T)[0]
    search = GridSearchCV(model, {"C": list(PENALTIES)}, cv=folds, scoring="neg_log_loss", refit=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a penalty at which the solver has not converged is not chosen by being silent
        search.fit(source_nd, codes_n)
    return LogisticRegression(max_iter=1000, C=search.best_params_["C"])


PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)


def default_candidates(num_rows: int) -> tuple[str, ...]:
    """Return the aligners that compete when nobody names any, by the number of rows of both domains together.

    Chosen one by one, by what each adds to the choice (docs/benchmarks.md); above 8,000 rows others take the place of those whose
    memory grows with the square of the rows.

    Examples
    --------
    >>> default_candidates(100_000)
    ('moment-matching', 'jda', 'gradual-co-training', 'source-free')
    """
    return DEFAULT_CANDIDATES if num_rows <= _MOST_PAIRED_ROWS else _MANY_ROWS


def make_candidates(names: Sequence[str], base: Any) -> dict[str, Aligner]:
    """Return estimators by name, "do not adapt" first.

    Raises
    ------
    ConfigError
        If there is no such aligner, or it is none that adapts a classifier.
    """
    found: dict[str, Aligner] = {NO_ADAPTATION: AdaptedClassifier(None, clone(base))}
    for name in names:
        entry = find(name, "aligner")
        kind = entry.load()
        if issubclass(kind, (FeatureAligner, Reweighter)):
            found[entry.name] = AdaptedClassifier(kind(), clone(base))
        elif issubclass(kind, DomainClassifier):
            found[entry.name] = kind()
        else:
            raise ConfigError(f"adapt: {entry.name} does not make a classifier; choose another (`headstart methods`).")
    return found


def try_candidates(
    candidates: Mapping[str, Aligner],
    source_nd: Array,
    codes_n: Array,
    target_md: Array,
    *,
    needs: frozenset[str],
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Rival]:
    """Fit every candidate and gather what a rule needs of it.

    Parameters
    ----------
    candidates : mapping of str to Aligner
        Unfitted, by name.
    source_nd, codes_n, target_md : arrays
        Source features, class numbers 0 to k-1, target features.
    needs : frozenset of str
        Fields of `CandidateEvidence` that the rule reads; no other is worked out.
    seed : int
        Of the part of the source that is held out.
    progress : Progress, optional
        One stage, "adapt".
    """
    entrants = [Entrant(name, one, source_nd, target_md) for name, one in candidates.items()]
    return try_entrants(entrants, codes_n, needs=needs, seed=seed, progress=progress)


def try_entrants(
    entrants: Sequence[Entrant],
    codes_n: Array,
    *,
    needs: frozenset[str],
    seed: int = 0,
    room: Room | None = None,
    progress: Progress | None = None,
) -> list[Rival]:
    """Fit candidates, each on its own features of the same rows, as long as there is time, and gather what a rule needs.

    Parameters
    ----------
    entrants : sequence of Entrant
        "Do not adapt" first.
    codes_n, needs, seed, progress
        As for `try_candidates`.
    room : Room, optional
        Time there is; endless when left out.
    """
    codes = np.unique(codes_n, return_inverse=True)[1]
    held_out = hold_out(codes, seed)

    def gather(entrant: Entrant, fitted: FittedEstimator) -> CandidateEvidence:
        rows = entrant.source_nd, entrant.target_md
        return _evidence(entrant.estimator, fitted, rows[0], codes, rows[1], held_out, needs)

    return carry_through(entrants, codes, gather, needs=needs, seed=seed, room=room, progress=progress)


def hold_out(codes_n: Array, seed: int) -> tuple[Array, Array]:
    """Return places of source rows to learn from and to judge on: a quarter, of every class where it has two rows.

    Examples
    --------
    >>> [len(part) for part in hold_out(np.array([0, 1] * 8), seed=0)]
    [12, 4]
    """
    if np.bincount(codes_n).min() >= 2 and len(codes_n) // 4 >= len(np.unique(codes_n)):
        split = StratifiedShuffleSplit(1, test_size=0.25, random_state=seed)
        learn, judge = next(split.split(codes_n[:, None], codes_n))
        return np.sort(learn), np.sort(judge)
    order = np.random.default_rng(seed).permutation(len(codes_n))
    return np.sort(order[len(order) // 4 :]), np.sort(order[: len(order) // 4])


def _evidence(
    estimator: Aligner,
    fitted: FittedEstimator,
    source_nd: Array,
    codes_n: Array,
    target_md: Array,
    held_out: tuple[Array, Array],
    needs: frozenset[str],
) -> CandidateEvidence:
    given: dict[str, Any] = {"target_probabilities_mk": fitted.target_scores}
    learn, judge = held_out
    num_classes = int(codes_n.max()) + 1
    partial: Any = None
    if needs & {"source_probabilities_vk", "source_features_vr"} and len(np.unique(codes_n[learn])) == num_classes:
        partial = clone(estimator).fit(source_nd[learn], codes_n[learn], target_md)
    if partial is not None:
        given["source_labels_v"], given["source_rows_vd"] = codes_n[judge], source_nd[judge]
        given["source_training_nd"] = source_nd[learn]
        as_source = np.ones(len(judge), dtype=np.int64)
        aligned = isinstance(partial, AdaptedClassifier)
        options = {"sample_domain": as_source} if aligned else {}
        given["source_probabilities_vk"] = partial.predict_proba(source_nd[judge], **options)
        if "source_features_vr" in needs:
            # In the space of the target's features: axes of two fits may differ in sign and order, and would look like a shift.
            given["source_features_vr"] = fitted.source_seen_nr[judge]
    if "target_features_mr" in needs:
        given["target_features_mr"] = fitted.target_seen_mr
    if "target_rows_md" in needs:
        given["target_rows_md"] = target_md
    if "predict_target" in needs:
        given["predict_target"] = fitted.estimator.predict_proba
    if "refit" in needs:
        given |= {"source_training_nd": source_nd[learn], "source_training_labels_n": codes_n[learn]}
        given |= {"source_rows_vd": source_nd[judge], "source_labels_v": codes_n[judge], "target_rows_md": target_md}
        given["refit"] = lambda source, labels, target: clone(estimator).fit(source, labels, target)
    return CandidateEvidence(**given)
