"""Label shift: how often does each class occur in the target, from a source classifier's predictions alone?

    assumption    P_S(x | y) = P_T(x | y): only the class shares differ
    BBSE          C w = mu        C_ij = mean over held-out source rows of f_i(x) [y = j],  mu_i = mean over target rows of f_i(x)
                  w_j = P_T(y = j) / P_S(y = j);  f: predicted probabilities ("soft") or the predicted class as 0 and 1 ("hard")
    EM            p_ij = q_j f_j(x_i) / P_S(j) / sum_l q_l f_l(x_i) / P_S(l),   q_j = mean over i of p_ij,   until q rests

Source: Lipton, Wang & Smola, "Detecting and correcting for label shift with black box predictors", ICML 2018 (arXiv:1802.03916);
Saerens, Latinne & Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities: a simple procedure", Neural
Computation 2002. Unit: shares of rows.
Use EM with calibrated probabilities (it is the maximum of their likelihood), BBSE with any classifier that has held-out labels.
Both ignore that the features of a class may look different in the target, and classes the source does not have: then the
estimates are wrong however narrow their intervals.
Shapes: n held-out source rows, m target rows, k classes, b resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix, check_same_rows, check_same_width
from headstart.core.errors import ConfigError, DataError, DomainError
from headstart.core.seeds import generator
from headstart.distances.rows import as_numpy

__all__ = ["LabelShift", "bbse", "correct_probabilities", "em_priors"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
_LEAST = 1e-12


@dataclass(frozen=True)
class LabelShift:
    """Estimated class shares of the target.

    Parameters
    ----------
    method : {"bbse-soft", "bbse-hard", "em"}
        How they were estimated.
    classes : tuple
        Class of each column of the predictions.
    source_priors_k, target_priors_k : float64 arrays of shape (k,)
        Class shares; each adds up to 1.
    low_k, high_k : float64 arrays of shape (k,)
        95 % bootstrap interval of the target shares.
    weights_k : float64 array of shape (k,)
        Importance weights of source rows by class, ``target / source``.
    condition : float
        Condition number of BBSE's confusion matrix with columns summing to 1; 1 is best; NaN for EM.
    p_value : float
        How often as large a change of shares comes from noise alone (bootstrap).
    """

    method: str
    classes: tuple[Any, ...]
    source_priors_k: FloatArray
    target_priors_k: FloatArray
    low_k: FloatArray
    high_k: FloatArray
    weights_k: FloatArray
    condition: float
    p_value: float

    @property
    def change(self) -> float:
        """Share of rows that changed class share: half the sum of absolute differences, in [0, 1]."""
        return float(np.abs(self.target_priors_k - self.source_priors_k).sum() / 2)

    def row_weights(self, source_labels_n: npt.ArrayLike) -> FloatArray:
        """Return the importance weight of each source row, from its class.

        Raises
        ------
        DataError
            If a label is none of ``classes``.
        """
        return np.asarray(self.weights_k[_codes("LabelShift.row_weights", source_labels_n, self.classes)])

    def correct(self, probabilities_mk: npt.ArrayLike) -> FloatArray:
        """Return a source classifier's probabilities under the target's class shares; see `correct_probabilities`."""
        return correct_probabilities(probabilities_mk, self.source_priors_k, self.target_priors_k)


def bbse(
    source_probabilities_nk: npt.ArrayLike,
    source_labels_n: npt.ArrayLike,
    target_probabilities_mk: npt.ArrayLike,
    *,
    kind: Literal["soft", "hard"] = "soft",
    classes: Sequence[Any] | None = None,
    max_condition: float = 100.0,
    num_resamples: int = 200,
    seed: int = 0,
) -> LabelShift:
    """Estimate target class shares by black box shift estimation.

    Parameters
    ----------
    source_probabilities_nk : array-like of shape (n, k)
        Predicted probabilities of source rows that the classifier was *not* trained on.
    source_labels_n : array-like of shape (n,)
        Their true classes: column numbers, or members of ``classes``.
    target_probabilities_mk : array-like of shape (m, k)
        Predicted probabilities of the target rows.
    kind : {"soft", "hard"}
        Whether probabilities or predicted classes are counted.
    classes : sequence, optional
        Class of each column; 0 to k-1 when left out.
    max_condition : float, at least 1
        Largest condition number accepted: beyond it a small error of the predictions becomes a large one of the shares.
    num_resamples : int, at least 1
        Bootstrap resamples of both domains' rows, for the interval and the p-value.
    seed : int
        Draws them.

    Raises
    ------
    DomainError
        If the confusion matrix is near singular: the classifier cannot tell some classes apart, or a class has no source row.
    HeadstartError
        If what came are no probabilities, labels are unknown, or an option breaks its rule.

    Examples
    --------
    >>> right = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> found = bbse(right, [0, 1], np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]]))
    >>> found.target_priors_k.tolist(), found.weights_k.tolist()
    ([0.75, 0.25], [1.5, 0.5])
    """
    who = "bbse"
    if kind not in ("soft", "hard") or not max_condition >= 1 or num_resamples < 1:
        raise ConfigError(
            f"{who}: kind is 'soft' or 'hard', max_condition and num_resamples at least 1; got {kind!r}, {max_condition}, "
            f"{num_resamples}."
        )
    source_nk, target_mk = _probabilities(who, "source", source_probabilities_nk), _probabilities(
        who, "target", target_probabilities_mk)  # fmt: skip
    check_same_width(who, source_nk, target_mk)
    num_classes = source_nk.shape[1]
    names = _class_names(who, classes, num_classes)
    codes_n = _codes(who, source_labels_n, names)
    check_same_rows(who, "source labels", codes_n, "source probabilities", source_nk)
    if kind == "hard":
        source_nk, target_mk = (
            np.eye(num_classes)[source_nk.argmax(axis=1)],
            np.eye(num_classes)[target_mk.argmax(axis=1)],
        )
    truth_nk = np.eye(num_classes)[codes_n]
    priors_k = truth_nk.mean(axis=0)
    if (priors_k == 0).any():
        missing = [names[place] for place in np.flatnonzero(priors_k == 0)]
        raise DomainError(
            f"{who}: no source row has class {missing}, so that its share cannot be told; leave the column out."
        )
    joint_kk = source_nk.T @ truth_nk / len(truth_nk)
    condition = float(np.linalg.cond(joint_kk / priors_k))
    if not condition <= max_condition:
        raise DomainError(_singular(who, joint_kk / priors_k, names, condition, max_condition))
    shares_k = _bbse_shares(joint_kk, target_mk.mean(axis=0), priors_k)
    random = generator(seed, "bbse")
    drawn = np.empty((2, num_resamples, num_classes))
    for number in range(num_resamples):
        rows = random.integers(0, len(truth_nk), len(truth_nk))
        joint = source_nk[rows].T @ truth_nk[rows] / len(rows)
        prior = truth_nk[rows].mean(axis=0)
        predicted = target_mk[random.integers(0, len(target_mk), len(target_mk))].mean(axis=0)
        drawn[0, number], drawn[1, number] = _bbse_shares(joint, predicted, prior), prior
    return _summary(f"bbse-{kind}", names, priors_k, shares_k, drawn[0], drawn[1], condition)


def em_priors(
    target_probabilities_mk: npt.ArrayLike,
    source_priors_k: npt.ArrayLike,
    *,
    classes: Sequence[Any] | None = None,
    tolerance: float = 1e-6,
    max_steps: int = 1000,
    num_resamples: int = 200,
    seed: int = 0,
) -> LabelShift:
    """Estimate target class shares by expectation maximisation on calibrated probabilities.

    Parameters
    ----------
    target_probabilities_mk : array-like of shape (m, k)
        The source classifier's probabilities of the target rows, calibrated on the source.
    source_priors_k : array-like of shape (k,)
        Class shares of the rows the classifier was trained on; above 0.
    classes : sequence, optional
        Class of each column; 0 to k-1 when left out.
    tolerance : float, above 0
        Done when no share moves by more than this.
    max_steps : int, at least 1
        Steps at most.
    num_resamples : int, at least 1
        Bootstrap resamples of the target rows, for the interval and the p-value.
    seed : int
        Draws them.

    Raises
    ------
    HeadstartError
        If what came are no probabilities or shares, or an option breaks its rule.

    Examples
    --------
    >>> certain = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    >>> em_priors(certain, [0.5, 0.5]).target_priors_k.tolist()
    [0.75, 0.25]
    """
    who = "em_priors"
    if not tolerance > 0 or max_steps < 1 or num_resamples < 1:
        raise ConfigError(f"{who}: tolerance is above 0, max_steps and num_resamples are at least 1.")
    target_mk = _probabilities(who, "target", target_probabilities_mk)
    priors_k = _priors(who, "source_priors_k", source_priors_k, target_mk.shape[1])
    names = _class_names(who, classes, len(priors_k))
    num_rows = len(target_mk)
    counts_bm = generator(seed, "em").multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=num_resamples)
    weights_bm = np.concatenate([np.full((1, num_rows), 1 / num_rows), counts_bm / num_rows])
    shares_bk = _expectation_maximisation(target_mk / priors_k, priors_k, weights_bm, tolerance, max_steps)
    fixed = np.broadcast_to(priors_k, shares_bk[1:].shape)
    return _summary("em", names, priors_k, shares_bk[0], shares_bk[1:], fixed, float("nan"))


def correct_probabilities(
    probabilities_mk: npt.ArrayLike, source_priors_k: npt.ArrayLike, target_priors_k: npt.ArrayLike
) -> FloatArray:
    """Return a classifier's probabilities as they are under other class shares: times ``target / source``, rows adding up to 1.

    Parameters
    ----------
    probabilities_mk : array-like of shape (m, k)
        Calibrated probabilities under the source's shares.
    source_priors_k, target_priors_k : array-like of shape (k,)
        Class shares; the source's above 0.

    Raises
    ------
    HeadstartError
        If what came are no probabilities or shares.

    Examples
    --------
    >>> correct_probabilities([[0.5, 0.5]], [0.5, 0.5], [0.8, 0.2]).round(6).tolist()
    [[0.8, 0.2]]
    """
    who = "correct_probabilities"
    rows_mk = _probabilities(who, "target", probabilities_mk)
    source_k = _priors(who, "source_priors_k", source_priors_k, rows_mk.shape[1])
    target_k = _priors(who, "target_priors_k", target_priors_k, rows_mk.shape[1], zero_allowed=True)
    weighted_mk = np.maximum(rows_mk, _LEAST) * (target_k / source_k)
    return np.asarray(weighted_mk / weighted_mk.sum(axis=1, keepdims=True))


def _bbse_shares(joint_kk: FloatArray, predicted_k: FloatArray, priors_k: FloatArray) -> FloatArray:
    """Return the target shares: solved, cut off at 0, adding up to 1."""
    weights_k = np.linalg.lstsq(joint_kk, predicted_k, rcond=None)[0]
    shares_k = np.maximum(weights_k, 0.0) * priors_k
    total = shares_k.sum()
    return np.asarray(shares_k / total if total > 0 else priors_k)


def _expectation_maximisation(
    ratios_mk: FloatArray, priors_k: FloatArray, weights_bm: FloatArray, tolerance: float, max_steps: int
) -> FloatArray:
    """Return the shares of every resample at once, shape (b, k); ``weights_bm`` says how much each row counts."""
    shares_bk = np.tile(priors_k, (len(weights_bm), 1))
    active = np.arange(len(weights_bm))
    for _ in range(max_steps):
        total_bm = np.maximum(shares_bk[active] @ ratios_mk.T, 1e-300)
        new_bk = shares_bk[active] * ((weights_bm[active] / total_bm) @ ratios_mk)
        new_bk /= new_bk.sum(axis=1, keepdims=True)
        moved_b = np.abs(new_bk - shares_bk[active]).max(axis=1)
        shares_bk[active] = new_bk
        active = active[moved_b > tolerance]
        if not len(active):
            break
    return shares_bk


def _summary(
    method: str, names: tuple[Any, ...], priors_k: FloatArray, shares_k: FloatArray, drawn_bk: FloatArray,
    drawn_priors_bk: FloatArray, condition: float,
) -> LabelShift:  # fmt: skip
    """Add interval and p-value: how often a resampled change strays as far from the estimate as the estimate lies from 0."""
    low_k, high_k = np.quantile(drawn_bk, [0.025, 0.975], axis=0)
    change_k = shares_k - priors_k
    strays_b = np.abs((drawn_bk - drawn_priors_bk) - change_k).sum(axis=1)
    p_value = (1 + float((strays_b >= np.abs(change_k).sum()).sum())) / (1 + len(drawn_bk))
    return LabelShift(method, names, priors_k, shares_k, low_k, high_k, shares_k / priors_k, condition, p_value)


def _probabilities(who: str, name: str, rows: npt.ArrayLike) -> FloatArray:
    rows_nk = np.asarray(as_numpy(rows), dtype=np.float64)
    check_matrix(who, name, rows_nk)
    if not np.isfinite(rows_nk).all() or rows_nk.min() < -1e-6 or np.abs(rows_nk.sum(axis=1) - 1).max() > 1e-3:
        raise DataError(
            f"{who}: {name} probabilities are at least 0 and rows add up to 1; apply a softmax to the logits."
        )
    if rows_nk.shape[1] < 2:
        raise DataError(f"{who}: {name} probabilities need at least two classes; got one column.")
    rows_nk = np.maximum(rows_nk, 0.0)
    return np.asarray(rows_nk / rows_nk.sum(axis=1, keepdims=True))


def _priors(who: str, name: str, priors: npt.ArrayLike, num_classes: int, zero_allowed: bool = False) -> FloatArray:
    priors_k = np.asarray(as_numpy(priors), dtype=np.float64)
    if priors_k.shape != (num_classes,) or not np.isfinite(priors_k).all() or abs(priors_k.sum() - 1) > 1e-3:
        raise DataError(f"{who}: {name} needs one share for each of {num_classes} classes, adding up to 1.")
    if priors_k.min() < 0 or (priors_k.min() == 0 and not zero_allowed):
        raise DataError(f"{who}: {name} must be above 0; leave out classes the source does not have.")
    return np.asarray(priors_k / priors_k.sum())


def _class_names(who: str, classes: Sequence[Any] | None, num_classes: int) -> tuple[Any, ...]:
    names = tuple(range(num_classes)) if classes is None else tuple(np.asarray(classes).tolist())
    if len(names) != num_classes or len(set(names)) != num_classes:
        raise DataError(f"{who}: classes needs {num_classes} different names, one for each column; got {list(names)}.")
    return names


def _codes(who: str, labels_n: npt.ArrayLike, names: tuple[Any, ...]) -> npt.NDArray[np.int64]:
    places = {name: place for place, name in enumerate(names)}
    labels = np.ravel(as_numpy(labels_n)).tolist()
    unknown = sorted({str(label) for label in labels if label not in places})
    if unknown:
        raise DataError(f"{who}: source labels {unknown[:5]} are none of the classes {list(names)[:10]}.")
    return np.array([places[label] for label in labels], dtype=np.int64)


def _singular(who: str, columns_kk: FloatArray, names: tuple[Any, ...], condition: float, limit: float) -> str:
    """Say which two classes the classifier confuses most."""
    gaps = np.abs(columns_kk[:, :, None] - columns_kk[:, None, :]).sum(axis=0) + 10 * np.eye(len(names))
    first, second = np.unravel_index(int(gaps.argmin()), gaps.shape)
    return (
        f"{who}: the confusion matrix is near singular (condition {condition:.0f}, at most {limit:g}): the classifier predicts "
        f"much the same for classes {names[int(first)]!r} and {names[int(second)]!r}, so that their shares cannot be told apart; "
        "use a better classifier, or merge classes."
    )
