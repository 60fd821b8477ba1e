"""Self-training: a classifier learns from its own surest answers on the target, more of them each round.

    round t of T:  p = classifier(target);  a row enters with its likeliest class where
                   its confidence is at least ``confidence``, and it is
                   among the surest t/T ``share`` of the rows given that class
    then the classifier is trained again on the source and the rows that entered, all chosen anew each round

Source: Yarowsky, ACL 1995, for the loop; the share of each predicted class is class-balanced self-training (Zou, Yu,
Vijaya Kumar & Wang, ECCV 2018), without which an easy class takes over. ``calibrate`` divides
log-probabilities by a temperature (Guo, Pleiss, Sun & Weinberger, ICML 2017) fitted on source rows the classifier has
not seen, so that a confidence of 0.8 is right 8 times in 10: on the source. On a shifted target it is usually right
less often.
Use it when the shift is gradual and classes stay apart in the target: the boundary then follows the gap between them.
It ignores that a wrong answer, once learned, confirms itself: where the source is mostly wrong, self-training makes
it worse.
Shapes: n source rows, m target rows, k classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from headstart.alignment.aligner import DomainClassifier, Domains
from headstart.alignment.option_checks import check_count, check_number
from headstart.alignment.trained_classifier import (
    as_double,
    class_probabilities,
    deal_folds,
    fit_classifier,
    stack_rows,
)

__all__ = ["SelfTraining", "fit_temperature", "surest_rows"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def fit_temperature(probabilities_nk: FloatArray, codes_n: IntArray) -> float:
    """Return the temperature T, from 0.05 to 20, that gives softmax(log p / T) the least log-loss.

    Examples
    --------
    >>> sure, truth = np.array([[0.9, 0.1]] * 4), np.array([0, 0, 0, 1])           # 9 in 10 said, 3 in 4 right: ln 9 / ln 3 = 2
    >>> round(fit_temperature(sure, truth), 3)
    2.0
    """
    logits, every = np.log(np.maximum(probabilities_nk, 1e-12)), np.arange(len(codes_n))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.exp(log_temperature), axis=1)[every, codes_n].mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def surest_rows(probabilities_mk: FloatArray, share: float, confidence: float = 0.0) -> IntArray:
    """Return the rows, in order, that are among the surest ``share`` of their predicted class (at least one) and sure enough.

    Examples
    --------
    >>> surest_rows(np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]]), share=0.5).tolist()
    [0, 2]
    """
    codes, sureness = probabilities_mk.argmax(axis=1), probabilities_mk.max(axis=1)
    chosen = []
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        order = rows[np.argsort(-sureness[rows], kind="stable")]
        chosen.append(order[: max(1, round(share * len(rows)))])
    places = np.sort(np.concatenate(chosen))
    return np.asarray(places[sureness[places] >= confidence])


class SelfTraining(DomainClassifier):
    """Any classifier, trained on the source and on its own surest target rows.

    After ``fit``: ``estimator_``, ``temperature_`` (1 without ``calibrate``), ``num_added_`` (target rows of each round).

    Parameters
    ----------
    estimator : scikit-learn classifier with ``predict_proba``, optional
        What learns; logistic regression when left out.
    confidence : float from 0 to 1
        Least probability of the likeliest class for a row to enter; 0 leaves the choice to ``share``.
    share : float above 0, at most 1
        Part of each predicted class that may enter in the last round.
    num_rounds : int, at least 1
        T.
    calibrate : bool
        Whether probabilities are calibrated on held-out source rows.

    Examples
    --------
    >>> source, target = np.array([[-1.0], [-2.0], [1.0], [2.0]]), np.array([[-4.0], [0.5], [3.0], [3.5]])
    >>> model = SelfTraining(confidence=0.0, calibrate=False).fit(source, ["a", "a", "b", "b"], target)
    >>> model.predict([[-3.0], [4.0]]).tolist()
    ['a', 'b']
    """

    accepts_sparse = True

    def __init__(
        self,
        estimator: Any = None,
        confidence: float = 0.7,
        share: float = 1.0,
        num_rounds: int = 5,
        calibrate: bool = True,
    ) -> None:
        self.estimator = estimator
        self.confidence = confidence
        self.share = share
        self.num_rounds = num_rounds
        self.calibrate = calibrate

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        confidence = check_number("SelfTraining", "confidence", self.confidence, 0.0, 1.0)
        share = check_number("SelfTraining", "share", self.share, 0.0, 1.0, low_included=False)
        num_rounds = check_count("SelfTraining", "num_rounds", self.num_rounds)
        source_nd, target_md = as_double(domains.source_nd), as_double(domains.target_md)
        self.temperature_ = self._temperature(source_nd, codes_n) if self.calibrate else 1.0
        self.estimator_ = fit_classifier("SelfTraining", self.estimator, source_nd, codes_n)
        self.num_added_ = []
        for number in range(1, num_rounds + 1):
            probabilities = self._probabilities(target_md)
            places = surest_rows(probabilities, share * number / num_rounds, confidence)
            self.num_added_.append(len(places))
            rows = stack_rows(source_nd, target_md[places])
            codes = np.concatenate([codes_n, probabilities[places].argmax(axis=1)])
            self.estimator_ = fit_classifier("SelfTraining", self.estimator, rows, codes)

    def _temperature(self, source_nd: Any, codes_n: IntArray) -> float:
        folds = deal_folds(codes_n, min(5, len(codes_n)))
        held_out = np.empty((len(codes_n), len(self.classes_)))
        for fold in np.unique(folds):
            kept, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            trained = fit_classifier("SelfTraining", self.estimator, source_nd[kept], codes_n[kept])
            held_out[held] = class_probabilities("SelfTraining", trained, source_nd[held], len(self.classes_))
        return fit_temperature(held_out, codes_n)

    def _probabilities(self, X: Any) -> FloatArray:
        plain = class_probabilities("SelfTraining", self.estimator_, as_double(X), len(self.classes_))
        return np.asarray(softmax(np.log(np.maximum(plain, 1e-300)) / self.temperature_, axis=1))
