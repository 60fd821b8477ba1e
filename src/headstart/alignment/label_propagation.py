"""Label propagation: source labels spread over a graph of nearest neighbours that spans both domains.

    w_ij = exp(-|x_i - x_j|^2 / (r_i r_j)) where i or j is among the other's neighbours;  D_ii = sum_j w_ij
    r_i: distance from i to its last neighbour

    harmonic:   F_T = (D_TT - a W_TT)^-1 (a W_TS Y_S + (1 - a) D_TT H)       source labels clamped; H: the source's class shares
    spreading:  F = (1 - a) (I - a S)^-1 Y,   S = D^-1/2 W D^-1/2             source labels may give way

Source: harmonic, Zhu, Ghahramani & Lafferty, ICML 2003, with their external classifier H: each
step of the random walk leaves for H with probability 1 - a (a -> 1 is their harmonic function); spreading, Zhou, Bousquet,
Lal, Weston & Schölkopf, NeurIPS 2003. The width r_i r_j is Zelnik-Manor & Perona's, NeurIPS 2004, so that no
bandwidth has to be chosen.
Use it when each class is one connected cloud that stretches from the source into the target.
It ignores that clouds may touch: one wrong bridge floods a region. Classes follow the source's shares where nothing
else is known. Rows not seen in `fit` get the mean of their neighbours' answers (Delalleau, Bengio & Le Roux, AISTATS
2005); target rows of `fit` get theirs.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import cg

from headstart.alignment.aligner import DomainClassifier, Domains
from headstart.alignment.neighbour_graph import SeenRows, nearest, neighbour_matrix
from headstart.alignment.option_checks import check_choice, check_count, check_number
from headstart.alignment.trained_classifier import as_double
from headstart.core.errors import DomainError

__all__ = ["LabelPropagation"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class LabelPropagation(DomainClassifier):
    """Source labels spread over a nearest-neighbour graph of both domains.

    After ``fit``: ``target_probabilities_`` (m, k), of the target rows in their order; ``affinity_``, the graph
    (CSR), source first.

    Parameters
    ----------
    num_neighbours : int, at least 1
        Neighbours of each row, of either domain.
    alpha : float above 0, below 1
        a: how far labels travel.
    form : "harmonic" or "spreading"
        Whether source labels are clamped.

    Examples
    --------
    >>> source, target = np.array([[0.0], [9.0]]), np.array([[1.0], [2.0], [8.0], [7.0]])
    >>> LabelPropagation(num_neighbours=1).fit(source, ["left", "right"], target).predict(target).tolist()
    ['left', 'left', 'right', 'right']
    """

    fit_only: ClassVar[frozenset[str]] = frozenset({"affinity_"})
    new_rows: ClassVar[str] = "the mean of the answers of their nearest rows among those of the adaptation"

    def __init__(self, num_neighbours: int = 10, alpha: float = 0.99, form: str = "harmonic") -> None:
        self.num_neighbours = num_neighbours
        self.alpha = alpha
        self.form = form

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        who = "LabelPropagation"
        num_neighbours = check_count(who, "num_neighbours", self.num_neighbours)
        alpha = check_number(who, "alpha", self.alpha, 0.0, 1.0, low_included=False, high_included=False)
        form = check_choice(who, "form", self.form, ("harmonic", "spreading"))
        rows = np.concatenate([as_double(domains.source_nd), as_double(domains.target_md)])
        source_nk = np.eye(len(self.classes_))[codes_n]
        self._prior = source_nk.mean(axis=0)
        self.affinity_, self._radii = _graph(rows, num_neighbours)
        spread = _harmonic if form == "harmonic" else _spreading
        answers = spread(self.affinity_, source_nk, self._prior, alpha)
        answers = _normalised(answers, self._prior)
        self.target_probabilities_ = answers[len(source_nk) :]
        self._rows, self._answers, self._neighbours = rows, answers, num_neighbours
        self._seen = SeenRows(rows[len(source_nk) :], self.target_probabilities_)

    def _probabilities(self, X: Any) -> FloatArray:
        rows = as_double(X)
        distances, places = nearest(self._rows, self._neighbours, rows)
        widths = distances[:, -1:] * self._radii[places]
        weights = np.exp(-np.square(distances) / np.where(widths > 0, widths, np.inf))
        answers = np.einsum("ij,ijk->ik", weights, self._answers[places])
        answers = _normalised(answers, self._prior)
        seen, known = self._seen.find(rows)
        answers[seen] = known
        return answers


def _graph(rows_nd: FloatArray, num_neighbours: int) -> tuple[Any, FloatArray]:
    """Return the symmetric affinity of rows, and each row's distance to its last neighbour."""
    distances, places = nearest(rows_nd, num_neighbours)
    if not distances.shape[1]:
        return sparse.csr_matrix((len(rows_nd), len(rows_nd))), np.ones(len(rows_nd))
    radii = distances[:, -1]
    widths = radii[:, None] * radii[places]
    weights = np.exp(-np.square(distances) / np.where(widths > 0, widths, np.inf))
    directed = neighbour_matrix(np.maximum(weights, 1e-300), places, len(rows_nd))
    return directed.maximum(directed.T).tocsr(), radii


def _normalised(answers: FloatArray, prior_k: FloatArray) -> FloatArray:
    answers = np.maximum(answers, 0.0)
    total = answers.sum(axis=1, keepdims=True)
    return np.where(total > 0, answers / np.where(total > 0, total, 1.0), prior_k)


def _solve(matrix: Any, right_mk: FloatArray) -> FloatArray:
    """Return the solution of a sparse symmetric positive definite system by conjugate gradients, each column by itself."""
    diagonal = matrix.diagonal()
    scale = sparse.diags_array(1 / diagonal)
    columns = []
    for column in right_mk.T:
        found, left = cg(matrix, column, rtol=1e-12, atol=0.0, maxiter=20 * len(column) + 1000, M=scale)
        if left:
            raise DomainError(
                f"LabelPropagation: the graph's equations did not converge in {left} steps; choose a smaller alpha or "
                "more neighbours."
            )
        columns.append(found)
    return np.stack(columns, axis=1)


def _harmonic(affinity: Any, source_nk: FloatArray, prior_k: FloatArray, alpha: float) -> FloatArray:
    num_source = len(source_nk)
    degrees = np.asarray(affinity.sum(axis=1)).ravel()[num_source:]
    degrees = np.where(degrees > 0, degrees, 1.0)  # a row without neighbours follows the prior
    to_source, to_target = affinity[num_source:, :num_source], affinity[num_source:, num_source:]
    system = sparse.diags_array(degrees) - alpha * to_target
    right = alpha * (to_source @ source_nk) + (1 - alpha) * degrees[:, None] * prior_k
    return np.concatenate([source_nk, _solve(system.tocsr(), right)])


def _spreading(affinity: Any, source_nk: FloatArray, prior_k: FloatArray, alpha: float) -> FloatArray:
    del prior_k
    degrees = np.asarray(affinity.sum(axis=1)).ravel()
    roots = sparse.diags_array(1 / np.sqrt(np.where(degrees > 0, degrees, 1.0)))
    system = sparse.eye_array(affinity.shape[0]) - alpha * (roots @ affinity @ roots)
    right = np.zeros((affinity.shape[0], source_nk.shape[1]))
    right[: len(source_nk)] = source_nk
    return (1 - alpha) * _solve(system.tocsr(), right)
