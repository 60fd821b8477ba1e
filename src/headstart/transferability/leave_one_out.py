"""Ridge regression held out row by row, exactly, from one decomposition; and the linear probe built on it.

    minimise sum_i w_i |y_i - W x_i - b|^2 + penalty |W|^2        the bias is not penalised
    left-out residual_i = residual_i / (1 - h_ii)
    H = q q' + U diag(s^2 / (s^2 + penalty)) U',   q = sqrt(w) / |sqrt(w)|,   sqrt(w) (X - mean) = U S V'

Source: Allen, "The relationship between variable selection and data augmentation", Technometrics 1974 (PRESS); Golub,
Heath & Wahba, "Generalized cross-validation", Technometrics 1979.
Use the probe to rank base models when a second of computing is affordable: it asks the very question that feature
extraction will answer. The constant direction q belongs to the bias and must never be shrunk: whoever forgets it reports
perfect accuracy on random labels.
It ignores what fine-tuning could change, and is too kind to data with near-duplicate rows.
Shapes: n rows, d features, r directions, k outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.transferability.row_space import RowSpace, rotate
from headstart.transferability.targets import check_features, read_targets

__all__ = ["PENALTIES", "LeaveOneOut", "linear_probe_loo"]

Array = npt.NDArray[Any]
PENALTIES = np.logspace(-4, 4, 40)
"""The path that is searched; penalties refer to rows of mean squared length 1 (see `RowSpace`)."""


class LeaveOneOut:
    """One eigendecomposition, then the ridge solution and its left-out predictions for any penalty.

    Parameters
    ----------
    rotated_nr : ndarray of shape (n, r)
    codes_nk : ndarray of shape (n, k)
        Numbers to aim at.
    weights_n : ndarray of shape (n,)
        Positive.
    strength_r : ndarray of shape (r,), optional
        Sums of squares of the columns, when these are centred and orthogonal already and all weights are 1.

    Examples
    --------
    >>> rows = np.array([[-1.0], [0.0], [1.0]])
    >>> exact = LeaveOneOut(rows, np.array([[0.0], [1.0], [5.0]]), np.ones(3))
    >>> exact.predictions(0.0).round(6).ravel().tolist()        # the line through the two other points, each time
    [-3.0, 2.5, 2.0]
    """

    def __init__(
        self, rotated_nr: Array, codes_nk: Array, weights_n: Array, strength_r: npt.NDArray[np.float64] | None = None
    ) -> None:
        root_n = np.sqrt(weights_n)
        self.codes = codes_nk
        self.root = root_n[:, None]
        self.basis: Array | None = None
        self.mean_x = np.average(rotated_nr, axis=0, weights=weights_n)
        self.mean_y = np.average(codes_nk, axis=0, weights=weights_n)
        if strength_r is None:
            rotated, strength, self.basis = rotate((rotated_nr - self.mean_x).astype(np.float64) * self.root)
        else:
            rotated, strength = rotated_nr.astype(np.float64), strength_r
        self.singular = np.sqrt(strength)
        self.U = rotated / self.singular if len(strength) else np.zeros((len(rotated_nr), 0))
        self.U_squared = self.U**2
        self.centred = (codes_nk - self.mean_y) * self.root
        self.projected = self.U.T @ self.centred
        full = len(strength) == len(rotated_nr) - 1
        self.beyond = np.zeros_like(self.centred) if full else self.centred - self.U @ self.projected
        constant = weights_n / weights_n.sum()
        self.room = np.zeros(len(rotated_nr)) if full else np.clip(1 - constant - self.U_squared.sum(axis=1), 0, None)

    def _shrunk(self, penalty: float) -> npt.NDArray[np.float64]:
        """Return penalty / (s^2 + penalty); for penalty 0 and as many directions as rows, its limit's direction."""
        squared = self.singular**2
        if penalty > 0:
            shrunk: npt.NDArray[np.float64] = penalty / (squared + penalty)
            return shrunk
        interpolates = len(squared) == len(self.codes) - 1
        return 1 / squared if interpolates else np.zeros_like(squared)

    def predictions(self, penalty: float) -> npt.NDArray[np.float64]:
        """Return for every row what a fit without it predicts, shape (n, k)."""
        shrunk = self._shrunk(penalty)
        residual = self.beyond + self.U @ (shrunk[:, None] * self.projected)
        room = self.room + self.U_squared @ shrunk
        alone = room <= 1e-12 * max(float(room.max(initial=0.0)), 1e-300)  # only this row knows its direction
        correction = residual / (np.where(alone, 1.0, room)[:, None] * self.root)
        left_out: npt.NDArray[np.float64] = np.where(alone[:, None], self.mean_y, self.codes - correction)
        return left_out

    def solution(self, penalty: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return weights (k, r) and biases (k,) of the fit on all rows."""
        shares = self.singular / (self.singular**2 + penalty)
        weight = (shares[:, None] * self.projected).T
        if self.basis is not None:
            weight = weight @ self.basis.T
        return weight, self.mean_y - weight @ self.mean_x


def linear_probe_loo(features_nd: Array, targets: Array) -> float:
    """Return how well a ridge probe predicts rows it has not seen, by exact leave-one-out.

    Parameters
    ----------
    features_nd : ndarray of shape (n, d), n >= 3
        Features of the target's rows; they are standardised.
    targets : ndarray of shape (n,) or (n, k)
        Whole numbers are classes, floating-point numbers are values, a matrix of 0 and 1 holds several labels.

    Returns
    -------
    float
        Accuracy in [0, 1] (several labels: share of single labels right), or R2 for values, at most 1. The penalty is
        that of `PENALTIES` with the smallest left-out squared error. Accuracy is never below the largest class's share:
        left out, a row makes its own class rarer, and a probe that sees nothing would be wrong on purpose.

    Raises
    ------
    HeadstartError
        If the shapes do not fit each other, a value is not finite, or there is only one class.

    Examples
    --------
    >>> features = np.array([[0.0], [0.2], [0.1], [5.0], [5.1], [5.2]])
    >>> linear_probe_loo(features, np.array([0, 0, 0, 1, 1, 1]))
    1.0
    """
    who = "linear_probe_loo"
    check_features(who, features_nd, targets, min_rows=3)
    read = read_targets(who, targets)
    space = RowSpace.of(features_nd)
    codes = read.columns if read.kind == "values" else 2 * read.columns - 1
    exact = LeaveOneOut(space.rotated, codes, np.ones(len(codes)), space.strength)
    errors = [float(np.square(exact.predictions(penalty) - codes).mean()) for penalty in PENALTIES]
    left_out = exact.predictions(float(PENALTIES[int(np.argmin(errors))]))
    if read.kind == "classes":
        right = np.mean(left_out.argmax(axis=1) == codes.argmax(axis=1))
        return float(max(right, read.columns.mean(axis=0).max()))
    if read.kind == "labels":
        share = read.columns.mean(axis=0)
        return float(np.maximum(np.mean((left_out > 0) == (codes > 0), axis=0), np.maximum(share, 1 - share)).mean())
    return float(1 - np.square(left_out - codes).sum() / np.square(codes - codes.mean(axis=0)).sum())
