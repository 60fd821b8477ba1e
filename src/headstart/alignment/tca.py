"""TCA: components on which the domains' means agree while the data still vary.

    max_A tr(A' K H K A)   with   A' (K L K + mu I) A  diagonal        x' = k(x, fitted rows) A
    L = e e',  e = 1/n on source rows, -1/m on target rows

Source: Pan, Tsang, Kwok & Yang, "Domain adaptation via transfer component analysis", IEEE Transactions on Neural Networks 2011
(unsupervised TCA). ``regularisation`` is mu / |L|_F, so that it means the same for any number of rows: mu = regularisation *
(1/n + 1/m). Rows are centred and brought to one scale first.
Use it when domains differ smoothly and the classes keep their proportions; with ``kernel="primal"`` the projection acts on
features (the variant in Long et al. 2013), with "linear" and "rbf" on kernel values as in the paper.
It ignores labels and everything beyond the mean in the kernel's space; "rbf" keeps all rows and needs (n + m)^2 numbers.
KLK is of rank one, so the problem is symmetric after a rank-one correction: d x d for linear kernels, Lanczos for "rbf".
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from headstart.alignment.aligner import Domains
from headstart.alignment.mmd_projection import MMDProjection, mean_contrasts

__all__ = ["TCA"]

Array = npt.NDArray[Any]


class TCA(MMDProjection):
    """Transfer component analysis, unsupervised: one projection for both domains and for new rows of either.

    Parameters
    ----------
    num_components : int
        Components kept; fewer where the data have fewer directions.
    regularisation : float, above 0
        Price of large coefficients against distance between the means: mu over ``1/n + 1/m``.
    kernel : "primal", "linear" or "rbf"
        Features themselves with a penalty on feature coefficients, or a kernel with a penalty on row coefficients.
    bandwidth : float
        Width of the "rbf" kernel as a multiple of the rows' root mean squared distance from their mean; otherwise unused.
    normalise_rows : bool
        Whether rows have length 1 before and after projection, as in the authors' programs; leave it out with few features.
    whiten : bool
        Whether components have variance 1 (the paper's constraint) instead of coefficients of length 1 (the authors' programs).

    Examples
    --------
    >>> import numpy as np
    >>> source = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0]])          # the domains differ in the first feature,
    >>> target = np.array([[9.0, 0.0], [9.0, 1.0], [9.0, 2.0]])          # and vary in the second
    >>> aligner = TCA(num_components=1, regularisation=1e-6, normalise_rows=False).fit(source, None, target)
    >>> bool(np.allclose(aligner.transform(source, sample_domain=[1, 1, 1]), aligner.transform(target), atol=1e-3))
    True
    """

    def _find(self, domains: Domains, base_np: Array) -> None:
        self.map_ = self._solve(self._view(base_np), mean_contrasts(len(domains.source_nd), len(domains.target_md)))
