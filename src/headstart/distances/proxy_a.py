"""Proxy A-distance: how well a linear classifier tells the two domains apart on rows it was not trained on.

    A = 2 (1 - 2 e)        e: balanced error of a cross-validated logistic regression,  e = (e_S + e_T) / 2

    minimise over w, b:  mean over rows of log(1 + exp(-s (w'z + b))) + penalty / (2 N) |w|^2,   s = -1 source, +1 target
    z: features less their mean, over their deviation;  each domain weighs 1/2, whatever its size

Source: Ben-David, Blitzer, Crammer & Pereira, "Analysis of representations for domain adaptation", NeurIPS 2006; the proxy
is Glorot, Bordes & Bengio, "Domain adaptation for large-scale sentiment classification", ICML 2011. Unit: none.
Use it to learn whether a linear head could see the domain at all, which rows and which features give it away.
It ignores differences that no linear classifier sees, and not how large a difference is: once separable it stays at 2.
All folds are trained at once, by L-BFGS on block-wise passes over the rows as they are: no copy, no standardised array, no
subsample. Identical rows share a fold. Shapes: n source rows, m target rows, d features, f folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.optimize import minimize

from headstart.core.errors import ConfigError, DomainError
from headstart.core.seeds import generator
from headstart.distances.moments import BLOCK_ROWS
from headstart.distances.rows import as_numpy, read_domains

__all__ = ["DomainClassification", "classify_domains", "proxy_a_distance"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
# Folds share training rows, so errors of equal domains spread more than coin tosses: 1.15 to 1.29 times their deviation in
# simulations with 50 to 400 rows and 5 to 100 features.
_FOLD_VARIANCE = 1.6


@dataclass(frozen=True)
class DomainClassification:
    """What a cross-validated domain classifier found.

    Parameters
    ----------
    error : float in [0, 1]
        Balanced error on left-out rows; 0.5 is chance.
    error_low, error_high : float
        95 % interval of the error.
    chance_low, chance_high : float
        Where 95 % of errors lie when the domains are equal.
    p_value : float
        Probability of so small an error, or a smaller one, when the domains are equal.
    auc : float in [0, 1]
        Probability that a target row gets a higher left-out log-odds than a source row; 0.5 is chance.
    source_log_odds_n, target_log_odds_m : float64 arrays of shape (n,) and (m,)
        Left-out log-odds of each row: above 0 more like the target, below 0 more like the source.
    weights_d : float64 array of shape (d,)
        Weights of the classifier trained on all rows, for features in units of their own deviation.
    """

    error: float
    error_low: float
    error_high: float
    chance_low: float
    chance_high: float
    p_value: float
    auc: float
    source_log_odds_n: FloatArray
    target_log_odds_m: FloatArray
    weights_d: FloatArray

    @property
    def distance(self) -> float:
        """Proxy A-distance, ``2 (1 - 2 error)``: about 0 by chance, 2 when the domains are separable."""
        return 2 * (1 - 2 * self.error)


def proxy_a_distance(
    source_nd: Any, target_md: Any, *, num_folds: int = 5, penalty: float = 1.0, seed: int = 0
) -> float:
    """Return the proxy A-distance ``2 (1 - 2 error)`` of two domains.

    Parameters
    ----------
    source_nd, target_md : array or tensor of shape (n, d) and (m, d), at least ``num_folds`` rows each
        Features. Tensors are read as arrays: no gradient flows.
    num_folds : int, at least 2
        Folds of the cross-validation.
    penalty : float, above 0
        Weight of ``|w|^2 / 2`` against the sum of all rows' losses: one over scikit-learn's ``C``.
    seed : int
        Assigns rows to folds.

    Returns
    -------
    float
        At most 2 (separable); about 0 by chance, and below where the classifier does worse than chance. No unit.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared, are too few, or an option breaks its rule.

    Examples
    --------
    >>> source = np.linspace(0, 1, 10)[:, None]
    >>> proxy_a_distance(source, source + 5)
    2.0
    """
    return classify_domains(source_nd, target_md, num_folds=num_folds, penalty=penalty, seed=seed).distance


def classify_domains(
    source_nd: Any,
    target_md: Any,
    *,
    source_weights_n: npt.ArrayLike | None = None,
    num_folds: int = 5,
    penalty: float = 1.0,
    seed: int = 0,
) -> DomainClassification:
    """Return what a cross-validated linear domain classifier finds: error, its chance level, log-odds of every row, weights.

    Parameters
    ----------
    source_nd, target_md, num_folds, penalty, seed
        As in `proxy_a_distance`.
    source_weights_n : array-like of shape (n,), at least 0, optional
        Weights of the source rows, in training and in the error: asks whether *weighted* source rows differ from the target.

    Raises
    ------
    HeadstartError
        As `proxy_a_distance`; also if weights are negative, not finite or all 0.
    """
    who = "proxy_a_distance" if source_weights_n is None else "classify_domains"
    if num_folds < 2 or not penalty > 0:
        raise ConfigError(f"{who}: num_folds is at least 2 and penalty above 0; got {num_folds} and {penalty}.")
    _, source, target = read_domains(who, source_nd, target_md, min_rows=num_folds)
    problem = _Problem(
        as_numpy(source), as_numpy(target), _weights(who, source_weights_n, source.shape[0]), num_folds, seed
    )
    weights_de, offsets_e = problem.train(penalty)
    odds = [problem.left_out(which, weights_de, offsets_e) for which in range(2)]
    return _summarise(odds, problem.row_weights, weights_de[:, -1])


class _Problem:
    """One logistic regression a fold, and one on all rows (the last column), sharing every pass over the rows."""

    def __init__(self, source: Array, target: Array, source_weights_n: FloatArray, num_folds: int, seed: int) -> None:
        self.domains = (source, target)
        self.row_weights = (source_weights_n, np.ones(len(target)))
        self.num_folds = num_folds
        self.folds = _folds(self.domains, num_folds, seed)
        self.mean_d, self.scale_d = _standards(source, target)
        # weight of a row in the model that leaves out fold e: 0 in its own fold; each domain adds up to 1/2
        self.totals = [
            weights.sum() - np.append(np.bincount(fold, weights, num_folds), 0.0)
            for weights, fold in zip(self.row_weights, self.folds, strict=True)
        ]
        if min(total.min() for total in self.totals) <= 0:
            raise DomainError(
                "proxy_a_distance: one fold holds all weight of a domain; its rows are too few or all equal."
            )
        self.num_rows = len(source) + len(target)

    def train(self, penalty: float) -> tuple[Array, FloatArray]:
        """Return weights (d, f + 1) for standardised features, and offsets (f + 1,)."""
        num_models, width = self.num_folds + 1, self.domains[0].shape[1]
        decay = penalty / self.num_rows

        def objective(flat: npt.NDArray[Any]) -> tuple[float, npt.NDArray[Any]]:
            packed = flat.reshape(width + 1, num_models)
            loss, gradient = self._loss(packed[:-1], packed[-1])
            gradient[:-1] += decay * packed[:-1]
            return loss + decay / 2 * float(np.square(packed[:-1]).sum()), gradient.ravel()

        options = {"maxiter": 300, "maxcor": 20, "gtol": 1e-5, "ftol": 1e-9}
        best: Any = minimize(  # type: ignore[call-overload]
            objective, np.zeros((width + 1) * num_models), jac=True, method="L-BFGS-B", options=options
        )
        packed = best.x.reshape(width + 1, num_models)
        return packed[:-1], packed[-1]

    def _loss(self, weights_de: Array, offsets_e: FloatArray) -> tuple[float, FloatArray]:
        """Return the summed mean loss of all models and its gradient; standardising is folded into the weights."""
        raw_de, shift_e = self._raw(weights_de, offsets_e)
        loss, gradient_de, offset_e = 0.0, np.zeros(weights_de.shape), np.zeros(len(offsets_e))
        for which, rows in enumerate(self.domains):
            sign = 2.0 * which - 1.0
            for start in range(0, len(rows), BLOCK_ROWS):
                block = rows[start : start + BLOCK_ROWS]
                share_be = self._shares(which, start, len(block))
                margin_be = sign * (block @ raw_de + shift_e)
                loss += float((share_be * np.logaddexp(0.0, -margin_be)).sum())
                pull_be = -sign * share_be * special.expit(-margin_be)
                gradient_de += block.T @ pull_be.astype(block.dtype)
                offset_e += pull_be.sum(axis=0)
        gradient_de = (gradient_de - self.mean_d[:, None] * offset_e) * self.scale_d[:, None]
        return loss, np.vstack([gradient_de, offset_e])

    def _raw(self, weights_de: Array, offsets_e: FloatArray) -> tuple[Array, FloatArray]:
        raw_de = weights_de * self.scale_d[:, None]
        return raw_de.astype(self.domains[0].dtype), offsets_e - self.mean_d @ raw_de

    def _shares(self, which: int, start: int, count: int) -> FloatArray:
        fold = self.folds[which][start : start + count]
        weights = self.row_weights[which][start : start + count]
        trains = fold[:, None] != np.arange(self.num_folds + 1)
        return np.asarray(trains * weights[:, None] / (2 * self.totals[which]))

    def left_out(self, which: int, weights_de: Array, offsets_e: FloatArray) -> FloatArray:
        """Return each row's log-odds under the model that did not see it."""
        raw_de, shift_e = self._raw(weights_de, offsets_e)
        rows, fold = self.domains[which], self.folds[which]
        odds = [
            (rows[start : start + BLOCK_ROWS] @ raw_de + shift_e)[
                np.arange(len(fold[start : start + BLOCK_ROWS])), fold[start : start + BLOCK_ROWS]
            ]
            for start in range(0, len(rows), BLOCK_ROWS)
        ]
        return np.concatenate(odds).astype(np.float64)


def _weights(who: str, weights_n: npt.ArrayLike | None, num_rows: int) -> FloatArray:
    weights = np.ones(num_rows) if weights_n is None else np.asarray(weights_n, dtype=np.float64)
    if weights.shape != (num_rows,) or not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise DomainError(
            f"{who}: source_weights_n must be one finite number of at least 0 for each of {num_rows} rows."
        )
    return np.asarray(weights * (num_rows / weights.sum()))


def _folds(domains: tuple[Array, Array], num_folds: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Return the fold of each row; equal rows, in one domain or both, are in one fold, so that none vouches for itself."""
    groups: dict[int, int] = {}
    numbers = [np.array([groups.setdefault(hash(row.tobytes()), len(groups)) for row in rows]) for rows in domains]
    order = generator(seed, "folds").permutation(len(groups))
    if len(groups) < num_folds:
        raise DomainError(f"proxy_a_distance: needs {num_folds} different rows; the two domains have {len(groups)}.")
    # groups of the source are numbered first: dealing each domain's in turn keeps folds of one size in both
    fold_of = np.empty(len(groups), dtype=np.int64)
    first_target = int(numbers[0].max()) + 1
    for low, high in ((0, first_target), (first_target, len(groups))):
        mine = order[(order >= low) & (order < high)]
        fold_of[mine] = np.arange(len(mine)) % num_folds
    return [fold_of[number] for number in numbers]


def _standards(source: Array, target: Array) -> tuple[FloatArray, FloatArray]:
    """Return the mean and one over the deviation of each feature, both domains weighing the same; 0 for a constant."""
    means = [rows.mean(axis=0, dtype=np.float64) for rows in (source, target)]
    centre = (means[0] + means[1]) / 2
    variance = np.zeros(len(centre))
    for rows in (source, target):
        total = sum(
            np.square(rows[start : start + BLOCK_ROWS] - centre).sum(axis=0)
            for start in range(0, len(rows), BLOCK_ROWS)
        )
        variance += np.asarray(total) / len(rows) / 2
    deviation = np.sqrt(variance)
    constant = deviation <= np.abs(centre) * np.finfo(source.dtype).eps * 4
    return centre, np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, deviation))


def _summarise(
    odds: list[FloatArray], row_weights: tuple[FloatArray, FloatArray], weights_d: Array
) -> DomainClassification:
    """Turn left-out log-odds into error, interval, chance level and p-value (normal approximations)."""
    errors, null_variance, variance = [], 0.0, 0.0
    for which in range(2):
        wrong = (odds[which] > 0 if which == 0 else odds[which] < 0) + 0.5 * (odds[which] == 0)
        share = row_weights[which] / row_weights[which].sum()
        error = float(share @ wrong)
        worth = 1 / float(share @ share)  # Kish's effective number of rows
        errors.append(error)
        null_variance += 1 / (16 * worth)
        variance += max(error * (1 - error), 1 / (worth + 2)) / (4 * worth)
    variance, null_variance = _FOLD_VARIANCE * variance, _FOLD_VARIANCE * null_variance
    error, half, chance = sum(errors) / 2, 1.96 * variance**0.5, 1.96 * null_variance**0.5
    return DomainClassification(
        error=error,
        error_low=max(0.0, error - half),
        error_high=min(1.0, error + half),
        chance_low=0.5 - chance,
        chance_high=0.5 + chance,
        p_value=float(special.ndtr((error - 0.5) / null_variance**0.5)),
        auc=_weighted_auc(odds[0], row_weights[0], odds[1]),
        source_log_odds_n=odds[0],
        target_log_odds_m=odds[1],
        weights_d=np.asarray(weights_d, dtype=np.float64),
    )


def _weighted_auc(source_n: FloatArray, weights_n: FloatArray, target_m: FloatArray) -> float:
    order = np.argsort(source_n)
    below = np.concatenate([[0.0], np.cumsum(weights_n[order])]) / weights_n.sum()
    first = np.searchsorted(source_n[order], target_m, side="left")
    last = np.searchsorted(source_n[order], target_m, side="right")
    return float(((below[first] + below[last]) / 2).mean())
