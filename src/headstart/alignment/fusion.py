"""Fusion: training on both domains' rows, with the mixing weight that predicts held-out target rows best.

    min  weight / n  sum_source loss  +  (1 - weight) / l  sum_target loss  +  the estimator's own penalty

``weight`` is the source's part: 1 is the source alone ("do not adapt"), 0 the labelled target rows alone. With "auto"
both are among the candidates, and so is plain pooling, n / (n + l): the labelled target rows are dealt into folds,
each fold is predicted by models trained on the source and the other folds, and the least log-loss (regression:
squared error) wins; a tie goes to more source. Our own rule; the mixed loss is that of `balanced_weighting`, and
Ben-David et al. 2010 bound its target error.
Use it first whenever a few target rows are labelled. It ignores unlabelled target rows. With a handful of labels the
choice is noisy: read ``losses_`` beside ``weight_``.
Shapes: n source rows, l labelled target rows, d features, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge

from headstart.alignment.aligner import Domains
from headstart.alignment.balanced_weighting import balanced_weights
from headstart.alignment.few_labels import FewLabelsClassifier, FewLabelsRegressor
from headstart.alignment.option_checks import check_count, check_number
from headstart.alignment.trained_classifier import (
    as_double,
    class_probabilities,
    deal_folds,
    fit_classifier,
    fit_weighted,
    stack_rows,
)
from headstart.core.errors import ConfigError

__all__ = ["Fusion", "FusionRegressor"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
CANDIDATES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def _candidates(who: str, candidates: Sequence[float], num_source: int, num_target: int) -> FloatArray:
    """Return the weights to try, most source first: those given, 0, 1 and pooling."""
    if not np.iterable(candidates):
        raise ConfigError(f"{who}: candidates must be a list of numbers from 0 to 1; got {candidates!r}.")
    given = [check_number(who, "each of candidates", value, 0.0, 1.0) for value in candidates]
    return np.unique([*given, 0.0, 1.0, num_source / (num_source + num_target)])[::-1]


def _held_out_losses(
    source_nd: Any,
    target_ld: Any,
    source_labels_n: Any,
    target_labels_l: Any,
    weights: FloatArray,
    folds_l: IntArray,
    loss: Callable[[Any, Any, FloatArray, Any, Any], FloatArray],
) -> FloatArray:
    """Return the mean loss of held-out target rows for each weight; ``loss`` trains, predicts, and gives one number a row."""
    losses = np.empty((len(weights), len(target_labels_l)))
    for fold in np.unique(folds_l):
        held, kept = folds_l == fold, folds_l != fold
        rows = stack_rows(source_nd, target_ld[np.flatnonzero(kept)])
        labels = np.concatenate([source_labels_n, target_labels_l[kept]])
        for place, weight in enumerate(weights):
            row_weights = balanced_weights(len(source_labels_n), int(kept.sum()), 1 - weight)
            losses[place, held] = loss(
                rows, labels, row_weights, target_ld[np.flatnonzero(held)], target_labels_l[held]
            )
    return np.asarray(losses.mean(axis=1))


class _Mixing:
    """What both share: the choice of the weight."""

    weight: float | str
    candidates: Sequence[float]
    num_folds: int

    def _choose(
        self, source_nd: Any, target_ld: Any, source_labels_n: Any, target_labels_l: Any, loss: Any
    ) -> FloatArray:
        """Learn ``weight_`` (with "auto": ``candidates_``, ``losses_``) and return the weights of all rows."""
        who, num_source, num_target = type(self).__name__, len(source_labels_n), len(target_labels_l)
        num_folds = check_count(who, "num_folds", self.num_folds, least=2)
        weights = _candidates(who, self.candidates, num_source, num_target)
        if isinstance(self.weight, str) and self.weight != "auto":
            raise ConfigError(f'{who}: weight must be "auto" or a number from 0 to 1; got {self.weight!r}.')
        if self.weight != "auto":
            self.weight_ = check_number(who, "weight", self.weight, 0.0, 1.0)
        elif num_target < 2:
            self.weight_ = num_source / (num_source + num_target)
        else:
            folds = deal_folds(target_labels_l, min(num_folds, num_target))
            self.candidates_ = weights
            self.losses_ = _held_out_losses(
                source_nd, target_ld, source_labels_n, target_labels_l, weights, folds, loss
            )
            self.weight_ = float(weights[self.losses_.argmin()])
        return balanced_weights(num_source, num_target, 1 - self.weight_)


class Fusion(_Mixing, FewLabelsClassifier):
    """A classifier trained on both domains' rows, with a mixing weight chosen on the labelled target rows.

    After ``fit``: ``weight_``, the source's part; with "auto" and at least two labelled target rows also
    ``candidates_`` and ``losses_``
    (log-loss on held-out target rows; nat). With one labelled row all rows count the same.

    Parameters
    ----------
    estimator : scikit-learn classifier with ``sample_weight`` and ``predict_proba``, optional
        What learns; logistic regression when left out.
    weight : "auto" or float from 0 to 1
        The source's part of the loss.
    candidates : sequence of float from 0 to 1
        Weights that "auto" tries, besides 0, 1 and pooling.
    num_folds : int, at least 2
        Folds of the labelled target rows.

    Examples
    --------
    >>> rows, labels = np.array([[-2.0], [-1.0], [1.0], [2.0]]), [0, 0, 1, 1]
    >>> model = Fusion().fit(rows, [1, 1, 0, 0], rows, target_labels=labels)        # the source's labels are the wrong way round
    >>> model.weight_, model.predict([[-3.0], [3.0]]).tolist()
    (0.0, [0, 1])
    """

    accepts_sparse = True

    def __init__(
        self,
        estimator: Any = None,
        weight: float | str = "auto",
        candidates: Sequence[float] = CANDIDATES,
        num_folds: int = 5,
    ) -> None:
        self.estimator = estimator
        self.weight = weight
        self.candidates = candidates
        self.num_folds = num_folds

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        source_nd = as_double(domains.source_nd)
        target_ld, target_codes = self._labelled(domains)
        weights = self._choose(source_nd, target_ld, codes_n, target_codes, self._log_losses)
        codes = np.concatenate([codes_n, target_codes])
        self.estimator_ = fit_classifier("Fusion", self.estimator, stack_rows(source_nd, target_ld), codes, weights)

    def _log_losses(self, rows: Any, codes: IntArray, weights: FloatArray, held: Any, held_codes: IntArray) -> Any:
        trained = fit_classifier("Fusion", self.estimator, rows, codes, weights)
        probabilities = class_probabilities("Fusion", trained, held, len(self.classes_))
        return -np.log(np.maximum(probabilities[np.arange(len(held_codes)), held_codes], 1e-6))

    def _probabilities(self, X: Any) -> FloatArray:
        return class_probabilities("Fusion", self.estimator_, as_double(X), len(self.classes_))


class FusionRegressor(_Mixing, FewLabelsRegressor):
    """A regressor trained on both domains' rows, with a mixing weight chosen on the target rows that have values.

    After ``fit``: ``weight_``, the source's part; with "auto" and at least two target values also ``candidates_`` and
    ``losses_``
    (mean squared error on held-out target rows).

    Parameters
    ----------
    estimator : scikit-learn regressor with ``sample_weight``, optional
        What learns; ridge regression when left out.
    weight : "auto" or float from 0 to 1
        The source's part of the loss.
    candidates : sequence of float from 0 to 1
        Weights that "auto" tries, besides 0, 1 and pooling.
    num_folds : int, at least 2
        Folds of the target rows that have values.

    Examples
    --------
    >>> rows = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> model = FusionRegressor(Ridge(alpha=0.0)).fit(rows, [9.0, 9.0, 9.0, 9.0], rows, target_labels=[0.0, 1.0, 2.0, 3.0])
    >>> model.weight_, model.predict([[5.0]]).round(6).tolist()
    (0.0, [5.0])
    """

    accepts_sparse = True

    def __init__(
        self,
        estimator: Any = None,
        weight: float | str = "auto",
        candidates: Sequence[float] = CANDIDATES,
        num_folds: int = 5,
    ) -> None:
        self.estimator = estimator
        self.weight = weight
        self.candidates = candidates
        self.num_folds = num_folds

    def _train(self, rows: Any, values: FloatArray, weights: FloatArray) -> Any:
        return fit_weighted(
            "FusionRegressor", Ridge() if self.estimator is None else self.estimator, rows, values, weights
        )

    def _learn(self, domains: Domains, values_n: npt.NDArray[np.floating[Any]]) -> None:
        source_nd = as_double(domains.source_nd)
        target_ld, target_values = self._labelled(domains)
        weights = self._choose(source_nd, target_ld, values_n, target_values, self._squared_errors)
        values = np.concatenate([values_n, target_values])
        self.estimator_ = self._train(stack_rows(source_nd, target_ld), values, weights)

    def _squared_errors(self, rows: Any, values: FloatArray, weights: FloatArray, held: Any, held_values: Any) -> Any:
        return np.square(self._train(rows, values, weights).predict(held) - held_values)

    def _estimate(self, X: Any) -> FloatArray:
        return np.asarray(self.estimator_.predict(as_double(X)), dtype=np.float64)
