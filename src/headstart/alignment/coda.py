"""CODA: co-training for domain adaptation, which chooses features, splits them into two views and labels target rows in one go.

    L = source with its labels, U = target;  gamma falls by ``decay`` from round to round
    repeat   solve for two sparse classifiers u, v on disjoint features (`coda_objective`)
             rows of U that one of them is sure of move to L with its answer, the surest of each class first
    answer:  one classifier on all features, trained on L with the same weighted l1 penalty

Source: Chen, Weinberger & Blitzer, "Co-training for domain adaptation", NeurIPS 2011, algorithm 2, from memory (see
`coda_objective` for what is theirs and what ours). The paper begins at gamma = 0.1 on word counts, divides it by 1.1 each round,
and says to begin large and fall until a feature is chosen; here gamma is a share of the least one at which none is, so that the
unit of the features does not matter, and a round in which nobody is sure lowers gamma and goes on. Each class gets its share
of the rows that move, as in `co_training`, since without that all rows end in one class (books to electronics); rows that are
named differently wait. The paper has two classes and no intercepts; here there may be more, and intercepts are free.
Use it with many features, some of which mean the same in both domains and others do not (words, sensors); sparse rows are taken.
It ignores class shares that differ, and that a wrong answer that both believe is never taken back: where the source alone
hardly beats chance in the target, the wrong features come to agree and it gets worse. `GradualCoTraining` is the
quick relative that works with any classifier.
Shapes: n source rows, m target rows, d features, k classes, q columns of weights (1 for two classes, else k).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.alignment.aligner import DomainClassifier, Domains
from headstart.alignment.co_training import agreed, name_rows, named_each_round, product_of
from headstart.alignment.coda_objective import (
    LinearScores,
    SplitObjective,
    class_columns,
    feature_penalties,
    fit_sparse,
    largest_penalty,
)
from headstart.alignment.kernel_rows import RowScale
from headstart.alignment.option_checks import check_count, check_number
from headstart.alignment.trained_classifier import as_double, stack_rows

__all__ = ["CODA"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_KEPT = 1e-3  # how much of either constraint may be left over
_TRIES = 4  # turns of the multipliers in one round
_STEPS = 25  # steps between them: where forty of L-BFGS with bounds ended, or lower


class CODA(DomainClassifier):
    """Co-training for domain adaptation: two sparse views that label target rows for each other.

    After ``fit``: ``coef_`` (d, q) and ``intercept_`` (q,) of the last classifier on the rows as they came; ``views_`` (columns
    that each classifier of the last round uses); ``target_codes_`` (the class each target row was given, a place in
    ``classes_``; -1: none); ``num_features_``, how many features the two views used in each round; ``constraints_``, h and g
    after each.

    Parameters
    ----------
    penalty : float above 0, at most 1
        gamma at first, as a share of the least gamma at which no feature is used.
    decay : float, at least 1
        What gamma is divided by from round to round.
    sure : float above 0, below 1
        Probability from which on a classifier is sure of a row.
    expandability : float, at least 0
        How many rows that one classifier alone is sure of there must be for each row of the rarer of "both" and "neither".
    num_rounds : int, at least 1
        Rounds in which the whole target could be labelled.

    Examples
    --------
    >>> source = np.array([[-2.0, -1.0], [-1.0, -2.0], [1.0, 2.0], [2.0, 1.0]])
    >>> CODA(num_rounds=2).fit(source, ["a", "a", "b", "b"], source + 0.1).predict([[-3.0, -3.0], [3.0, 3.0]]).tolist()
    ['a', 'b']
    """

    accepts_sparse = True

    def __init__(
        self,
        penalty: float = 0.1,
        decay: float = 1.1,
        sure: float = 0.8,
        expandability: float = 1.0,
        num_rounds: int = 20,
    ) -> None:
        self.penalty = penalty
        self.decay = decay
        self.sure = sure
        self.expandability = expandability
        self.num_rounds = num_rounds

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        who = "CODA"
        penalty = check_number(who, "penalty", self.penalty, 0.0, 1.0, low_included=False)
        decay = check_number(who, "decay", self.decay, 1.0, high_included=False)
        check_number(who, "sure", self.sure, 0.0, 1.0, low_included=False, high_included=False)
        check_number(who, "expandability", self.expandability, high_included=False)
        num_rounds = check_count(who, "num_rounds", self.num_rounds)
        source, target, centre, length = _one_scale(as_double(domains.source_nd), as_double(domains.target_md))
        num_classes, columns = len(self.classes_), class_columns(len(self.classes_))
        number = named_each_round(codes_n, num_classes, target.shape[0], num_rounds)
        self.target_codes_ = np.full(target.shape[0], -1, dtype=np.int64)
        self.num_features_: list[int] = []
        self.constraints_: list[tuple[float, float]] = []
        truth = np.eye(num_classes)[codes_n]
        gamma = penalty * largest_penalty(source, truth, columns)
        plain = fit_sparse(source, truth, np.full((source.shape[1], len(columns)), gamma), columns)
        pair, judges = _deal_out(plain), (plain, plain)
        objective = _first_objective(plain, self.sure, self.expandability)
        for _ in range(num_rounds):
            waiting = np.flatnonzero(self.target_codes_ < 0)
            if not len(waiting):
                break
            labelled, truth = self._labelled(source, target, codes_n)
            first, second = (
                gamma
                * feature_penalties(labelled, truth, target[waiting], judge.probabilities(target[waiting]), columns)
                for judge in judges
            )
            objective = replace(
                objective, labelled=labelled, truth_nk=truth, unlabelled=target[waiting], penalties=(first, second)
            )
            objective, pair = self._solve(objective, pair)
            self._move(waiting, target[waiting], pair, number)
            judges, gamma = pair, gamma / decay
        self.views_ = [np.flatnonzero(scores.weights_dq.any(axis=1)) for scores in pair]
        labelled, truth = self._labelled(source, target, codes_n)
        answers = product_of(*(scores.probabilities(target) for scores in pair))
        final = fit_sparse(
            labelled, truth, gamma * feature_penalties(labelled, truth, target, answers, columns), columns
        )
        self.coef_ = final.weights_dq / length
        self.intercept_ = final.offsets_q - centre @ self.coef_

    def _labelled(self, source: Any, target: Any, codes_n: IntArray) -> tuple[Any, FloatArray]:
        """Return L: source rows and those target rows that have a class, and both's classes."""
        known = self.target_codes_ >= 0
        codes = np.concatenate([codes_n, self.target_codes_[known]])
        return stack_rows(source, target[np.flatnonzero(known)]), np.eye(len(self.classes_))[codes]

    def _solve(
        self, objective: SplitObjective, pair: tuple[LinearScores, LinearScores]
    ) -> tuple[SplitObjective, tuple[LinearScores, LinearScores]]:
        """Return this round's two classifiers, and the objective with the multipliers at which the next round begins."""
        for _ in range(_TRIES):
            pair = objective.minimise(*pair, _STEPS)
            overlap, gap = objective.constraints(*pair)
            if overlap <= _KEPT and gap <= _KEPT:
                break
            objective = replace(
                objective,
                split_price=objective.split_price + objective.weight * overlap,
                gap_price=max(0.0, objective.gap_price + objective.weight * gap),
                weight=2 * objective.weight,
            )
        self.constraints_.append((overlap, gap))
        pair = _disjoint(pair)
        self.num_features_.append(int(sum(scores.weights_dq.any(axis=1).sum() for scores in pair)))
        return objective, pair

    def _move(self, places: IntArray, rows: Any, pair: tuple[LinearScores, LinearScores], number_k: IntArray) -> None:
        """Give each class the surest rows of either classifier; what they named differently waits."""
        named = []
        for scores in pair:
            probabilities = scores.probabilities(rows)
            is_sure = probabilities.max(axis=1) > self.sure
            named.append({row: code for row, code in name_rows(probabilities, number_k).items() if is_sure[row]})
        for row, code in agreed(*named).items():
            self.target_codes_[places[row]] = code

    def _probabilities(self, X: Any) -> FloatArray:
        columns = class_columns(len(self.classes_))
        return LinearScores(self.coef_, self.intercept_, columns).probabilities(as_double(X))


def _one_scale(source: Any, target: Any) -> tuple[Any, Any, FloatArray, float]:
    """Return both on one scale, and what was taken off and divided by; sparse rows keep their zeros."""
    if not isinstance(source, np.ndarray):
        both: Any = stack_rows(source, target)
        largest = float(abs(both).max()) or 1.0
        length = largest * float(np.sqrt((both / largest).power(2).sum() / both.shape[0])) or 1.0
        return source / length, target / length, np.zeros(source.shape[1]), length
    scale = RowScale(np.concatenate([source, target]), to_unit=False)
    return scale(source), scale(target), scale.mean, float(scale.length)


def _first_objective(plain: LinearScores, sure: float, expandability: float) -> SplitObjective:
    """Return the objective without rows: h in units of what two copies of one classifier would share."""
    lengths = np.square(plain.weights_dq).sum(axis=1)
    nothing = np.zeros((0, 0))
    return SplitObjective(
        labelled=nothing,
        truth_nk=nothing,
        unlabelled=nothing,
        penalties=(nothing, nothing),
        columns_qk=plain.columns_qk,
        sure=sure,
        expandability=expandability,
        unit=float(lengths @ lengths) or 1.0,
    )


def _deal_out(plain: LinearScores) -> tuple[LinearScores, LinearScores]:
    """Return two halves of one classifier: its features by falling weight, dealt out 1 4 5 8 .. and 2 3 6 7 .."""
    order = np.argsort(-np.abs(plain.weights_dq).max(axis=1), kind="stable")
    turn = np.empty(len(order), dtype=bool)
    turn[order] = np.isin(np.arange(len(order)) % 4, [0, 3])
    return tuple(  # type: ignore[return-value]
        LinearScores(np.where(part[:, None], plain.weights_dq, 0.0), plain.offsets_q, plain.columns_qk)
        for part in (turn, ~turn)
    )


def _disjoint(pair: tuple[LinearScores, LinearScores]) -> tuple[LinearScores, LinearScores]:
    """Return both with the smaller weight of each feature set to 0: what the last step of the multipliers left over."""
    one, other = (np.abs(scores.weights_dq).max(axis=1) for scores in pair)
    first = one >= other
    return (
        replace(pair[0], weights_dq=np.where(first[:, None], pair[0].weights_dq, 0.0)),
        replace(pair[1], weights_dq=np.where(first[:, None], 0.0, pair[1].weights_dq)),
    )
