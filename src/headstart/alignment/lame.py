"""LAME: a classifier's target probabilities corrected so that near neighbours agree; the classifier itself stays as it is.

    min over z_i on the simplex   sum_i KL(z_i || q_i)  -  weight / 2  sum_ij w_ij z_i'z_j      q: the classifier's answer
    step:   z_i  ~  ( q_i exp(weight sum_j w_ij z_j) z_i^c )^(1 / (1 + c))                          ~ : normalised to sum 1

Source: Boudiaf, Mueller, Ben Ayed & Bertinetto, "Parameter-free online test-time adaptation", CVPR 2022: c = 0 is
their concave-convex step, and the half makes it the exact one. It descends for sure where W is positive
semi-definite, which a graph of neighbours is not; so where a step would raise the objective it is taken again with c
= 1, 3, 7, ... : the fixed points are the same and the objective never rises. w_ij is 1 where i and j are both among
the other's nearest neighbours, 1/2 where one is.
Use it when the classifier is right for most rows of a neighbourhood and the target comes as a batch with few classes
at once.
It ignores everything but the batch: where a neighbourhood is mostly wrong, all of it becomes wrong. Rows not seen in
`fit` take one step from their own probabilities with the fitted rows as neighbours; target rows of `fit` get theirs.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax

from headstart.alignment.aligner import DomainClassifier, Domains
from headstart.alignment.neighbour_graph import SeenRows, nearest, neighbour_matrix
from headstart.alignment.option_checks import check_count, check_number
from headstart.alignment.trained_classifier import as_double, class_probabilities, fit_classifier
from headstart.core.checks import check_same_rows
from headstart.core.errors import ShapeError

__all__ = ["LAME", "lame_objective", "lame_probabilities", "neighbour_affinity"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def neighbour_affinity(rows_md: FloatArray, num_neighbours: int = 5) -> Any:
    """Return the symmetric CSR matrix with 1 between mutual nearest neighbours, 1/2 where only one names the other.

    Examples
    --------
    >>> neighbour_affinity(np.array([[0.0], [1.0], [5.0]]), 1).toarray().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.5], [0.0, 0.5, 0.0]]
    """
    distances, places = nearest(np.asarray(rows_md, dtype=np.float64), num_neighbours)
    directed = neighbour_matrix(np.ones(distances.shape), places, len(distances))
    return ((directed + directed.T) / 2).tocsr()


def lame_objective(assigned_mk: FloatArray, log_given_mk: FloatArray, affinity_mm: Any, weight: float = 1.0) -> float:
    """Return the objective at ``assigned_mk``; nat.

    Examples
    --------
    >>> half = np.full((2, 2), 0.5)
    >>> lame_objective(half, np.log(half), np.array([[0.0, 1.0], [1.0, 0.0]]))          # no gap to q; 1/2 twice, halved
    -0.5
    """
    own = np.sum(assigned_mk * (np.log(np.maximum(assigned_mk, 1e-300)) - log_given_mk))
    return float(own - weight / 2 * np.sum(assigned_mk * (affinity_mm @ assigned_mk)))


def lame_probabilities(
    probabilities_mk: npt.ArrayLike,
    affinity_mm: Any,
    weight: float = 1.0,
    max_steps: int = 100,
    objectives: list[float] | None = None,
) -> FloatArray:
    """Return probabilities corrected by the batch they are part of.

    Parameters
    ----------
    probabilities_mk : array-like of shape (m, k)
        Any classifier's probabilities of the rows of one batch.
    affinity_mm : symmetric array or sparse matrix of shape (m, m)
        How near the rows are to each other (`neighbour_affinity`).
    weight : float, at least 0
        What agreement between neighbours is worth; 0 changes nothing.
    max_steps : int, at least 1
        Steps at most; they end when the objective falls by less than one part in 10^10.
    objectives : list, optional
        Receives the objective at the start and after each step.

    Returns
    -------
    ndarray of shape (m, k)
        Corrected probabilities, rows summing to 1.

    Raises
    ------
    ShapeError
        If the affinity does not fit the probabilities.

    Examples
    --------
    >>> unsure = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])                         # the third is near the other two
    >>> lame_probabilities(unsure, np.ones((3, 3)) - np.eye(3)).argmax(axis=1).tolist()
    [0, 0, 0]
    """
    given = np.log(np.maximum(np.asarray(probabilities_mk, dtype=np.float64), 1e-300))
    if given.ndim != 2:
        raise ShapeError(
            f"lame_probabilities: probabilities must be a matrix (rows, classes); got shape {given.shape}."
        )
    check_same_rows("lame_probabilities", "probabilities", given, "affinity", affinity_mm)
    given = log_softmax(given, axis=1)
    assigned = np.exp(given)
    now = lame_objective(assigned, given, affinity_mm, weight)
    history = [now]
    damping = 0.0
    for _ in range(max_steps):
        pull = given + weight * (affinity_mm @ assigned)
        while True:
            kept = damping * np.log(np.maximum(assigned, 1e-300))
            moved = softmax((pull + kept) / (1 + damping), axis=1)
            then = lame_objective(moved, given, affinity_mm, weight)
            if then <= now or damping > 1e6:
                break
            damping = 2 * damping + 1
        if not then < now:
            break
        fallen, assigned, now = now - then, moved, then
        history.append(now)
        if fallen <= 1e-10 * max(1.0, abs(now)):
            break
    if objectives is not None:
        objectives.extend(history)
    return np.asarray(assigned)


class LAME(DomainClassifier):
    """A classifier trained on the source, its target probabilities corrected by LAME.

    To correct the probabilities of a model you already have: `lame_probabilities(p, neighbour_affinity(rows))`. After
    ``fit``: ``estimator_``, ``target_probabilities_`` (m, k) of the target rows in their order, ``objectives_`` of
    the steps.

    Parameters
    ----------
    estimator : scikit-learn classifier with ``predict_proba``, optional
        What learns on the source; logistic regression when left out.
    num_neighbours : int, at least 1
        Neighbours a target row names.
    weight : float, at least 0
        What agreement between neighbours is worth; 1 in the paper, 0 changes nothing.

    Examples
    --------
    >>> source, target = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([[-0.2], [0.1], [0.5], [5.0], [5.5], [6.0]])
    >>> LAME(num_neighbours=2).fit(source, ["a", "a", "b", "b"], target).predict(target).tolist()
    ['b', 'b', 'b', 'b', 'b', 'b']
    """

    new_rows: ClassVar[str] = (
        "the source classifier's answer, moved one step towards the answers of their nearest target rows of the adaptation"
    )

    def __init__(self, estimator: Any = None, num_neighbours: int = 5, weight: float = 1.0) -> None:
        self.estimator = estimator
        self.num_neighbours = num_neighbours
        self.weight = weight

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        num_neighbours = check_count("LAME", "num_neighbours", self.num_neighbours)
        weight = check_number("LAME", "weight", self.weight, high_included=False)
        self._rows = as_double(domains.target_md)
        self.estimator_ = fit_classifier("LAME", self.estimator, as_double(domains.source_nd), codes_n)
        given = class_probabilities("LAME", self.estimator_, self._rows, len(self.classes_))
        self.objectives_: list[float] = []
        affinity = neighbour_affinity(self._rows, num_neighbours)
        self.target_probabilities_ = lame_probabilities(given, affinity, weight, objectives=self.objectives_)
        self._seen = SeenRows(self._rows, self.target_probabilities_)
        self._neighbours, self._weight = num_neighbours, weight

    def _probabilities(self, X: Any) -> FloatArray:
        rows = as_double(X)
        given = class_probabilities("LAME", self.estimator_, rows, len(self.classes_))
        _, places = nearest(self._rows, self._neighbours, rows)
        pull = self.target_probabilities_[places].sum(axis=1)
        answers = np.asarray(softmax(np.log(np.maximum(given, 1e-300)) + self._weight * pull, axis=1))
        seen, known = self._seen.find(rows)
        answers[seen] = known
        return answers
