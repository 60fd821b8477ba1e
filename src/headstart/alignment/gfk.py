"""GFK: compare rows on every subspace along the geodesic from the source's to the target's.

    G = integral over t in [0, 1] of Phi(t) Phi(t)',     Phi(0) = P_S,  Phi(1) spans P_T
    P_S' P_T = U cos(theta) V',   p_i = (P_S U)_i,   q_i = unit vector of (P_T V)_i - cos(theta_i) p_i
    Phi(t)_i = cos(t theta_i) p_i + sin(t theta_i) q_i
    G = sum_i [p_i q_i] [[1 + c, s], [s, 1 - c]] / 2 [p_i q_i]'
    c = sin(2 theta_i) / (2 theta_i),   s = (1 - cos(2 theta_i)) / (2 theta_i)

Source: Gong, Shi, Sha & Grauman, "Geodesic flow kernel for unsupervised domain adaptation", CVPR 2012 (the closed form of G,
there without the factor 1/2, and the subspace disagreement measure); compared line by line with the authors' closed form in
GFK.m of jindongwang/transferlearning, which has the factor. With G = L L', rows become x' = L'(x - mean): inner products and
distances are G's, in 2 r dimensions, and no d x d matrix or orthogonal complement is formed.
Use it for small gaps between low-dimensional subspaces. It ignores variances along the axes, and labels.
Shapes: n source rows, m target rows, d features, r components.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg

from headstart.alignment.aligner import Domains, FeatureAligner
from headstart.alignment.gaussians import move_rows
from headstart.alignment.mmd_projection import check_whole
from headstart.alignment.principal_axes import largest_angle, principal_axes
from headstart.core.errors import ConfigError, DomainError

__all__ = ["GFK", "geodesic_factor", "subspace_disagreement"]

Array = npt.NDArray[Any]


def geodesic_factor(source_axes_dr: Array, target_axes_dr: Array) -> Array:
    """Return L of shape (d, 2 r) with ``L L' = G``, the geodesic flow kernel between two subspaces.

    Parameters
    ----------
    source_axes_dr, target_axes_dr : ndarray of shape (d, r)
        Orthonormal bases.

    Examples
    --------
    >>> axis = np.array([[1.0], [0.0]])
    >>> (geodesic_factor(axis, axis) @ geodesic_factor(axis, axis).T).tolist()        # no angle: the projection itself
    [[1.0, 0.0], [0.0, 0.0]]
    """
    left, cosines, right = linalg.svd(source_axes_dr.T @ target_axes_dr, check_finite=False)
    from_source = source_axes_dr @ left
    away = target_axes_dr @ right.T - from_source * cosines
    sines = np.linalg.norm(away, axis=0)
    angles = np.arctan2(sines, cosines)
    towards = away / np.where(sines > 0, sines, 1.0)
    sinc = np.sinc(2 * angles / np.pi)
    mixed = np.where(angles > 0, (1 - np.cos(2 * angles)) / np.where(angles > 0, 2 * angles, 1.0), 0.0)
    first = np.sqrt((1 + sinc) / 2)  # Cholesky factor of each 2 x 2 block
    below = mixed / 2 / first
    second = np.sqrt(np.maximum((1 - sinc) / 2 - np.square(below), 0.0))
    return np.concatenate([from_source * first + towards * below, towards * second], axis=1)


def subspace_disagreement(
    source_axes_dr: Array, target_axes_dr: Array, joint_axes_dr: Array, until: float = np.inf
) -> Array:
    """Return the subspace disagreement measure for 1, 2, ... axes: ``(sin alpha + sin beta) / 2``.

    alpha is the largest angle between the first axes of the source and of both domains together, beta the same for the target.
    Small while all three agree, 1 when both subspaces have a direction that the joint one lacks. The first value of at least
    ``until`` is the last one.

    Examples
    --------
    >>> axes = np.eye(3)[:, :2]
    >>> subspace_disagreement(axes, axes, axes).tolist()
    [0.0, 0.0]
    """
    widest = min(source_axes_dr.shape[1], target_axes_dr.shape[1], joint_axes_dr.shape[1])
    measures = []
    for count in range(1, widest + 1):
        joint = joint_axes_dr[:, :count]
        angles = [largest_angle(axes[:, :count], joint) for axes in (source_axes_dr, target_axes_dr)]
        measures.append(float(np.sin(angles).mean()))
        if measures[-1] >= until:
            break
    return np.array(measures)


class GFK(FeatureAligner):
    """Rows in the space of the geodesic flow kernel, for any classifier; for the paper's, take one nearest neighbour.

    After ``fit``: ``num_components_``, and where the measure chose it ``disagreement_`` for 1, 2, ... up to that number.

    Parameters
    ----------
    num_components : int, optional
        Dimension of both subspaces; when left out the first, up to half the number of features, at which the subspace
        disagreement measure reaches ``disagreement``, without any label.
    disagreement : float, above 0 and at most 1
        Where the choice stops; the paper's is 1. Unused when ``num_components`` is given.
    match_mean : bool
        Whether each domain is centred on its own mean (the paper's standardised data); otherwise both on the mean of all rows.

    Examples
    --------
    >>> source, target = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([[-0.6, -0.8], [0.6, 0.8]])
    >>> GFK(num_components=1).fit(source, None, target).transform(target).shape
    (2, 2)
    """

    min_rows = 2

    def __init__(self, num_components: int | None = None, disagreement: float = 0.99, match_mean: bool = True) -> None:
        self.num_components = num_components
        self.disagreement = disagreement
        self.match_mean = match_mean

    def _align(self, domains: Domains) -> None:
        if not 0 < self.disagreement <= 1:
            raise ConfigError(f"GFK: disagreement must be above 0 and at most 1; got {self.disagreement!r}.")
        if self.num_components is not None:
            check_whole("GFK", "num_components", self.num_components)
        half = max(
            domains.source_nd.shape[1] // 2, 1
        )  # beyond it two subspaces must overlap, and no angle is left to choose by
        wanted = half if self.num_components is None else self.num_components
        source_mean, source_axes, _ = principal_axes(domains.source_nd, wanted)
        target_mean, target_axes, _ = principal_axes(domains.target_md, wanted)
        if not self.match_mean:
            sizes = [len(domains.source_nd), len(domains.target_md)]
            source_mean = target_mean = np.average([source_mean, target_mean], axis=0, weights=sizes)
        self.source_mean_, self.target_mean_ = source_mean, target_mean
        kept = min(source_axes.shape[1], target_axes.shape[1])
        if not kept:
            raise DomainError("GFK: the rows of a domain are all the same; there is no subspace to start from.")
        if self.num_components is None:
            kept = self._choose(domains, source_axes[:, :kept], target_axes[:, :kept])
        self.num_components_ = kept
        self.map_ = geodesic_factor(source_axes[:, :kept], target_axes[:, :kept])

    def _choose(self, domains: Domains, source_axes_dr: Array, target_axes_dr: Array) -> int:
        """Return the first number of axes at which the subspaces disagree, or all of them."""
        centred = [domains.source_nd - self.source_mean_, domains.target_md - self.target_mean_]
        _, joint_axes, _ = principal_axes(np.concatenate(centred), source_axes_dr.shape[1])
        self.disagreement_ = subspace_disagreement(source_axes_dr, target_axes_dr, joint_axes, self.disagreement)
        return len(self.disagreement_)

    def _map_source(self, X: Array) -> Array:
        return move_rows(X, self.source_mean_, self.map_, np.zeros(self.map_.shape[1]))

    def _map_target(self, X: Array) -> Array:
        return move_rows(X, self.target_mean_, self.map_, np.zeros(self.map_.shape[1]))
