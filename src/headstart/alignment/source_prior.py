"""A source prior: linear models for the target that start from the source's weights and pay for leaving them.

    ridge:      min  sum_target (y - x'w)^2        +  alpha |w - w_source|^2
    logistic:   min  sum_target -log softmax(W x)_y  +  alpha / 2 |W - W_source|^2          x with a 1 added: the intercept too

Ridge in closed form: w = w_source + X' (X X' + alpha I)^-1 (y - X w_source). alpha = infinity is the source model.
Source: the Gaussian prior around another domain's weights of Chelba & Acero, "Adaptation of maximum entropy
capitalizer", EMNLP 2004; for kernel regularisers Evgeniou & Pontil, KDD 2004, call it regularised multi-task
learning. ``alpha="auto"`` takes the strength that predicts held-out target rows best (ridge: leave-one-out in closed
form; logistic: folds), infinity, "do not adapt", among the candidates; a tie goes to the stronger prior. Candidates
are multiples of the mean squared singular value of the labelled rows, so that the unit of the features does not
matter.
Use it when you have a good source model and a few labelled target rows; the source rows only serve to fit that model.
It ignores unlabelled target rows. Where source and target disagree in sign, the prior costs rows before it lets go.
Shapes: n source rows, l labelled target rows, d features, k classes, r = rank of the labelled rows.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression, Ridge

from headstart.alignment.aligner import Domains
from headstart.alignment.few_labels import FewLabelsClassifier, FewLabelsRegressor
from headstart.alignment.option_checks import check_count, check_number
from headstart.alignment.trained_classifier import as_double, deal_folds
from headstart.core.errors import ConfigError

__all__ = ["SourcePriorLogistic", "SourcePriorRidge", "linear_weights"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def linear_weights(model: Any) -> tuple[FloatArray, FloatArray]:
    """Return a fitted linear classifier's weights (k, d) and intercepts (k,), two classes as two opposite rows.

    Softmax of the two opposite rows gives the probabilities of the one-row form.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> coef, intercept = linear_weights(SimpleNamespace(coef_=np.array([[2.0]]), intercept_=np.array([4.0])))
    >>> coef.tolist(), intercept.tolist()
    ([[-1.0], [1.0]], [-2.0, 2.0])
    """
    coef = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    intercept = np.atleast_1d(np.asarray(model.intercept_, dtype=np.float64))
    if len(coef) > 1:
        return coef, np.broadcast_to(intercept, (len(coef),)).copy()
    return np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2


def _thin_factor(rows: Any) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return U (l, r), s (r,), V (d + 1, r) with rows and a column of ones = U s V'."""
    if isinstance(rows, np.ndarray):
        left, singular, right = np.linalg.svd(np.column_stack([rows, np.ones(len(rows))]), full_matrices=False)
        keep = singular > singular[0] * 1e-12
        return left[:, keep], singular[keep], right[keep].T
    widened: Any = sparse.hstack([rows, sparse.csr_array(np.ones((rows.shape[0], 1)))], format="csr")
    squared, left = np.linalg.eigh((widened @ widened.T).toarray())
    keep = squared > squared[-1] * 1e-12
    singular, left = np.sqrt(squared[keep]), left[:, keep]
    return left, singular, (widened.T @ left) / singular


def _is_auto(who: str, alpha: float | str) -> bool:
    if isinstance(alpha, str):
        if alpha != "auto":
            raise ConfigError(f'{who}: alpha must be "auto" or a number above 0; got {alpha!r}.')
        return True
    check_number(who, "alpha", alpha, low_included=False)
    return False


class SourcePriorRidge(FewLabelsRegressor):
    """Ridge regression on the labelled target rows, drawn towards the source's weights and intercept.

    After ``fit``: ``coef_``, ``intercept_``, ``source_coef_``, ``source_intercept_``, ``alpha_`` (infinity: the
    source model).

    Parameters
    ----------
    alpha : "auto" or float above 0
        Strength of the prior; "auto" takes the best by leave-one-out error on the target rows.
    source_alpha : float, at least 0
        Ridge penalty of the source model itself.

    Examples
    --------
    >>> source, target = np.array([[-1.0], [1.0]]), np.array([[1.0]])
    >>> model = SourcePriorRidge(alpha=2.0, source_alpha=0.0).fit(source, [-1.0, 1.0], target, target_labels=[5.0])
    >>> model.predict([[1.0]]).round(6).tolist()         # source says 1; the gap of 4, over x'x + 1 = 2: half of it is taken
    [3.0]
    """

    accepts_sparse = True

    def __init__(self, alpha: float | str = "auto", source_alpha: float = 1.0) -> None:
        self.alpha = alpha
        self.source_alpha = source_alpha

    def _learn(self, domains: Domains, values_n: npt.NDArray[np.floating[Any]]) -> None:
        is_auto = _is_auto("SourcePriorRidge", self.alpha)
        source_alpha = check_number("SourcePriorRidge", "source_alpha", self.source_alpha)
        source = Ridge(alpha=source_alpha, tol=1e-12).fit(as_double(domains.source_nd), values_n)
        self.source_coef_ = np.asarray(source.coef_, dtype=np.float64)
        self.source_intercept_ = float(source.intercept_)
        self.coef_, self.intercept_, self.alpha_ = self.source_coef_, self.source_intercept_, float("inf")
        target_ld, target_values = self._labelled(domains)
        if not len(target_values):
            return
        left, singular, right = _thin_factor(target_ld)
        gaps = target_values - (target_ld @ self.source_coef_ + self.source_intercept_)
        self.alpha_ = _leave_one_out(left, singular, gaps) if is_auto else float(self.alpha)
        if np.isfinite(self.alpha_):
            step = right @ (singular / (singular**2 + self.alpha_) * (left.T @ gaps))
            self.coef_, self.intercept_ = self.source_coef_ + step[:-1], self.source_intercept_ + float(step[-1])

    def _estimate(self, X: Any) -> FloatArray:
        return np.asarray(as_double(X) @ self.coef_ + self.intercept_)


def _leave_one_out(left_lr: FloatArray, singular_r: FloatArray, gaps_l: FloatArray) -> float:
    """Return the strength with the least squared error of rows left out, strongest first."""
    best, best_error = float("inf"), float(np.square(gaps_l).mean())
    for alpha in np.logspace(4, -4, 33) * np.square(singular_r).mean():
        shrink = singular_r**2 / (singular_r**2 + alpha)
        fitted = left_lr @ (shrink * (left_lr.T @ gaps_l))
        leverage = np.square(left_lr) @ shrink
        error = float(np.square((gaps_l - fitted) / (1 - leverage)).mean())
        if error < best_error * (1 - 1e-12):
            best, best_error = float(alpha), error
    return best


class SourcePriorLogistic(FewLabelsClassifier):
    """Multinomial logistic regression on the labelled target rows, drawn towards the source's weights and intercepts.

    After ``fit``: ``coef_`` (k, d), ``intercept_`` (k,), ``source_coef_``, ``source_intercept_``, ``alpha_``
    (infinity: the source model), and with "auto" ``alphas_`` and ``losses_`` (log-loss on held-out target rows; nat).

    Parameters
    ----------
    alpha : "auto" or float above 0
        Strength of the prior; "auto" takes the best by cross-validated log-loss on the target rows.
    source_C : float above 0
        Inverse penalty of the source model itself (scikit-learn's ``C``).
    num_folds : int, at least 2
        Folds of the labelled target rows, for "auto".

    Examples
    --------
    >>> source, target = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([[3.0], [5.0]])
    >>> model = SourcePriorLogistic(alpha=0.01).fit(source, ["a", "a", "b", "b"], target, target_labels=["a", "b"])
    >>> model.predict([[2.0], [6.0]]).tolist()
    ['a', 'b']
    """

    fit_only: ClassVar[frozenset[str]] = frozenset({"alphas_", "losses_"})

    accepts_sparse = True

    def __init__(self, alpha: float | str = "auto", source_C: float = 1.0, num_folds: int = 5) -> None:
        self.alpha = alpha
        self.source_C = source_C
        self.num_folds = num_folds

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        is_auto = _is_auto("SourcePriorLogistic", self.alpha)
        strength = check_number("SourcePriorLogistic", "source_C", self.source_C, low_included=False)
        num_folds = check_count("SourcePriorLogistic", "num_folds", self.num_folds, least=2)
        source = LogisticRegression(C=strength, max_iter=1000).fit(as_double(domains.source_nd), codes_n)
        self.source_coef_, self.source_intercept_ = linear_weights(source)
        self.coef_, self.intercept_, self.alpha_ = self.source_coef_, self.source_intercept_, float("inf")
        target_ld, codes = self._labelled(domains)
        if not len(codes):
            return
        left, singular, right = _thin_factor(target_ld)
        rows, offsets = left * singular, target_ld @ self.source_coef_.T + self.source_intercept_
        self.alpha_ = self._chosen(rows, offsets, codes, num_folds) if is_auto else float(self.alpha)
        if np.isfinite(self.alpha_):
            step = right @ _leave_source(rows, offsets, codes, self.alpha_, np.zeros((rows.shape[1], offsets.shape[1])))
            self.coef_ = self.source_coef_ + step[:-1].T
            self.intercept_ = self.source_intercept_ + step[-1]

    def _chosen(self, rows_lr: FloatArray, offsets_lk: FloatArray, codes_l: IntArray, num_folds: int) -> float:
        """Return the strength with the least log-loss on held-out rows; strongest first, each fold starting from the last."""
        self.alphas_ = np.concatenate([[np.inf], np.logspace(3, -4, 15) * np.square(rows_lr).sum() / rows_lr.shape[1]])
        losses = np.empty((len(self.alphas_), len(codes_l)))
        folds = deal_folds(codes_l, max(2, min(num_folds, len(codes_l))))
        for fold in np.unique(folds):
            held, kept = folds == fold, folds != fold
            step = np.zeros((rows_lr.shape[1], offsets_lk.shape[1]))
            for place, alpha in enumerate(self.alphas_):
                if np.isfinite(alpha) and kept.any():
                    step = _leave_source(rows_lr[kept], offsets_lk[kept], codes_l[kept], float(alpha), step)
                logits = offsets_lk[held] + rows_lr[held] @ step
                losses[place, held] = -log_softmax(logits, axis=1)[np.arange(held.sum()), codes_l[held]]
        self.losses_ = losses.mean(axis=1)
        better = self.losses_ < self.losses_[0] - 1e-9
        return float(self.alphas_[np.where(better, self.losses_, np.inf).argmin()]) if better.any() else float("inf")

    def _probabilities(self, X: Any) -> FloatArray:
        return np.asarray(softmax(as_double(X) @ self.coef_.T + self.intercept_, axis=1))


def _leave_source(
    rows_lr: FloatArray, offsets_lk: FloatArray, codes_l: IntArray, alpha: float, start_rk: FloatArray
) -> FloatArray:
    """Return the step (r, k) away from the source's weights with the least penalised log-loss."""
    shape = start_rk.shape
    truth = np.eye(shape[1])[codes_l]

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        step = flat.reshape(shape)
        log_probabilities = log_softmax(offsets_lk + rows_lr @ step, axis=1)
        loss = -np.sum(truth * log_probabilities) + alpha / 2 * np.square(step).sum()
        return float(loss), (rows_lr.T @ (np.exp(log_probabilities) - truth) + alpha * step).ravel()

    found = minimize(
        objective, start_rk.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-7, "ftol": 1e-12}
    )
    return np.asarray(found.x).reshape(shape)
