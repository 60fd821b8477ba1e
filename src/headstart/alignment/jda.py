"""JDA and BDA: components on which the domains agree in their means and in the means of every class.

    max_A tr(A' X H X' A)   with   A' (X M X' + l I) A  diagonal
    M = (1 - b) M_0 + b sum_c M_c        M_c: means of class c, the target's by pseudo-labels; JDA: M = M_0 + sum_c M_c

Sources: Long, Wang, Ding, Sun & Yu, "Transfer feature learning with joint distribution adaptation", ICCV 2013; Wang, Chen, Hao,
Feng & Shen, "Balanced distribution adaptation for transfer learning", ICDM 2017 (balance b; weighted: means of a class times the
root of its share in the domain). M is scaled to Frobenius norm 1, as in the programs that go round (checked: JDA.m and MyTJM.m of
jindongwang/transferlearning). Those count M_0 as many times as there are classes, which no paper writes, and nor do we.
A round trains the base classifier on projected source rows, labels the target, and solves again; it ends when no label changes.
Use them when classes move apart from each other; they help when first pseudo-labels are mostly right and hurt when not.
They ignore how sure a pseudo-label is.
The paper asks for the smallest eigenvalues of a pencil whose second matrix is singular; here the largest of the inverse, whose
second matrix is positive definite and identity plus low rank, and so exactly symmetric.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.multiclass import check_classification_targets

from headstart.alignment.aligner import Domains
from headstart.alignment.mmd_projection import MMDProjection, check_whole, mean_contrasts
from headstart.core.errors import ConfigError

__all__ = ["BDA", "JDA"]

Array = npt.NDArray[Any]


class _Conditional(MMDProjection):
    """What both share: rounds of projecting, labelling the target, and projecting with class means."""

    requires_labels = True

    def __init__(
        self,
        num_components: int = 30,
        regularisation: float = 1.0,
        kernel: str = "primal",
        bandwidth: float = 1.0,
        normalise_rows: bool = True,
        whiten: bool = False,
        num_rounds: int = 10,
        estimator: Any = None,
    ) -> None:
        super().__init__(num_components, regularisation, kernel, bandwidth, normalise_rows, whiten)
        self.num_rounds = num_rounds
        self.estimator = estimator

    @abstractmethod
    def _contrasts(self, source_codes_n: Array, target_codes_m: Array) -> Array:
        """Return the means to bring together, from class numbers of both domains."""

    def _check_labels(self, labels_n: Array) -> Array:
        check_classification_targets(labels_n)
        return super()._check_labels(labels_n)

    def _find(self, domains: Domains, base_np: Array) -> None:
        check_whole(type(self).__name__, "num_rounds", self.num_rounds)
        num_source = len(domains.source_nd)
        self.classes_, codes = np.unique(np.asarray(domains.source_labels_n), return_inverse=True)
        view = self._view(base_np)
        self.map_ = self._solve(view, mean_contrasts(num_source, len(domains.target_md)))
        labels = self._label_target(base_np, codes)
        self.num_rounds_ = 0
        while self.num_rounds_ < self.num_rounds:
            self.num_rounds_ += 1
            self.map_ = self._solve(view, self._contrasts(codes, labels))
            before, labels = labels, self._label_target(base_np, codes)
            if np.array_equal(before, labels):
                break
        self.pseudo_labels_ = self.classes_[labels]

    def _label_target(self, base_np: Array, codes_n: Array) -> Array:
        projected, num_source = self._project(base_np), len(codes_n)
        estimator = KNeighborsClassifier(1) if self.estimator is None else clone(self.estimator)
        return np.asarray(estimator.fit(projected[:num_source], codes_n).predict(projected[num_source:]))


class JDA(_Conditional):
    """Joint distribution adaptation: marginal and class means agree after one projection.

    After ``fit``: ``pseudo_labels_`` of the target rows, ``num_rounds_`` until they settled.

    Parameters
    ----------
    num_components : int
        Components kept; fewer where the data have fewer directions.
    regularisation : float, above 0
        The paper's lambda, for M of Frobenius norm 1.
    kernel : "primal", "linear" or "rbf"
        Features themselves with a penalty on feature coefficients, or a kernel with a penalty on row coefficients.
    bandwidth : float
        Width of the "rbf" kernel as a multiple of the rows' root mean squared distance from their mean; otherwise unused.
    normalise_rows : bool
        Whether rows have length 1 before and after projection, as in the authors' programs; leave it out with few features.
    whiten : bool
        Whether components have variance 1 (the paper's constraint) instead of coefficients of length 1 (the authors' programs).
    num_rounds : int
        Rounds of labelling at most.
    estimator : scikit-learn classifier, optional
        What labels the target; one nearest neighbour, as in the paper, when left out.

    Examples
    --------
    >>> source, target = np.array([[0.0], [1.0], [8.0], [9.0]]), np.array([[2.0], [3.0], [10.0], [11.0]])
    >>> JDA(num_components=1).fit(source, ["a", "a", "b", "b"], target).pseudo_labels_.tolist()
    ['a', 'a', 'b', 'b']
    """

    def _contrasts(self, source_codes_n: Array, target_codes_m: Array) -> Array:
        return mean_contrasts(len(source_codes_n), len(target_codes_m), source_codes_n, target_codes_m)


class BDA(_Conditional):
    """Balanced distribution adaptation: JDA with a balance between marginal and class means, and optional class weights.

    Parameters
    ----------
    num_components, regularisation, kernel, bandwidth, normalise_rows, whiten, num_rounds, estimator
        As in `JDA`.
    balance : float between 0 and 1
        0 looks at the marginal means alone, 1 at the class means alone; 0.5, unweighted, is `JDA`, since M has norm 1.
    weighted : bool
        Whether class means are multiplied by the root of the class's share in their domain, for classes whose shares differ.

    Examples
    --------
    >>> source, target = np.array([[0.0], [1.0], [8.0], [9.0]]), np.array([[2.0], [3.0], [10.0], [11.0]])
    >>> BDA(num_components=1).fit(source, ["a", "a", "b", "b"], target).pseudo_labels_.tolist()
    ['a', 'a', 'b', 'b']
    """

    def __init__(
        self,
        num_components: int = 30,
        regularisation: float = 1.0,
        kernel: str = "primal",
        bandwidth: float = 1.0,
        normalise_rows: bool = True,
        whiten: bool = False,
        num_rounds: int = 10,
        estimator: Any = None,
        balance: float = 0.5,
        weighted: bool = False,
    ) -> None:
        super().__init__(
            num_components, regularisation, kernel, bandwidth, normalise_rows, whiten, num_rounds, estimator
        )
        self.balance = balance
        self.weighted = weighted

    def _contrasts(self, source_codes_n: Array, target_codes_m: Array) -> Array:
        if not 0 <= self.balance <= 1:
            raise ConfigError(f"BDA: balance must be between 0 and 1; got {self.balance!r}.")
        sizes = len(source_codes_n), len(target_codes_m)
        return mean_contrasts(
            *sizes, source_codes_n, target_codes_m, 1.0 - self.balance, self.balance, by_share=self.weighted
        )
