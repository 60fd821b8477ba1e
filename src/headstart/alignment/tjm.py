"""TJM: project both domains onto agreeing means while source rows unlike the target fade out.

    max_A tr(A' K H K A)   with   A' (K M K + l G) A  diagonal,   M = M_0
    G_ii = 1 / (2 |a_i|) for source row i, 1 for target rows            a_i: row i of A, taken from the round before

Source: Long, Wang, Ding, Sun & Yu, "Transfer joint matching for unsupervised domain adaptation", CVPR 2014. G is the
subgradient of the (2,1)-norm of the source rows' coefficients: rows that help little lose their coefficients.
Use it when part of the source is irrelevant to the target. It ignores labels.
M is scaled to Frobenius norm 1 as in MyTJM.m of jindongwang/transferlearning (checked), where G_ii = 1 / |a_i|, without the half.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headstart.alignment.aligner import Domains
from headstart.alignment.mmd_projection import MMDProjection, check_whole, leading_projection, mean_contrasts

__all__ = ["TJM"]

Array = npt.NDArray[Any]


class TJM(MMDProjection):
    """Transfer joint matching: agreeing means, and source rows reweighted by the size of their coefficients.

    After ``fit``: ``source_relevance_`` of shape (n,), the length of each source row's coefficients over their mean.

    Parameters
    ----------
    num_components : int
        Components kept; fewer where the data have fewer directions.
    regularisation : float, above 0
        The paper's lambda, for M of Frobenius norm 1.
    kernel : "linear" or "rbf"
        The kernel between rows.
    bandwidth : float
        Width of the "rbf" kernel as a multiple of the rows' root mean squared distance from their mean; otherwise unused.
    normalise_rows : bool
        Whether rows have length 1 before and after projection, as in the authors' programs; leave it out with few features.
    whiten : bool
        Whether components have variance 1 (the paper's constraint) instead of coefficients of length 1 (the authors' programs).
    num_rounds : int
        Rounds of reweighting.

    Examples
    --------
    >>> source, target = np.array([[0.0, 1.0], [1.0, 0.0], [9.0, 9.0]]), np.array([[0.0, 0.0], [1.0, 1.0]])
    >>> TJM(num_components=1).fit(source, None, target).source_relevance_.shape
    (3,)
    """

    kernels: ClassVar[tuple[str, ...]] = ("linear", "rbf")

    def __init__(
        self,
        num_components: int = 20,
        regularisation: float = 1.0,
        kernel: str = "linear",
        bandwidth: float = 1.0,
        normalise_rows: bool = True,
        whiten: bool = False,
        num_rounds: int = 10,
    ) -> None:
        super().__init__(num_components, regularisation, kernel, bandwidth, normalise_rows, whiten)
        self.num_rounds = num_rounds

    def _find(self, domains: Domains, base_np: Array) -> None:
        check_whole("TJM", "num_rounds", self.num_rounds)
        num_source = len(domains.source_nd)
        contrasts = mean_contrasts(num_source, len(domains.target_md))
        penalties = np.ones(len(base_np))
        for _ in range(self.num_rounds):
            view = self._view(base_np, penalties)
            found = leading_projection(view.rows_np, contrasts, self.num_components)
            coefficients = view.coefficients(found)
            # the paper's scale is A'KHKA = I, the programs' is columns of length 1
            sizes = (
                np.full(found.shape[1], np.sqrt(len(base_np))) if self.whiten else np.linalg.norm(coefficients, axis=0)
            )
            self.map_ = view.map(found) / (1.0 if self.whiten else sizes)
            lengths = np.linalg.norm(coefficients[:num_source] / sizes, axis=1)
            penalties[:num_source] = 1.0 / (2.0 * np.maximum(lengths, 1e-8 * lengths.max()))
        self.source_relevance_ = lengths / (lengths.mean() or 1.0)
