"""Choosing among adaptations without target labels; "do not adapt" is always one of them.

    selection = select({"do not adapt": evidence, "CORAL": evidence, ...}, CircularValidation(), no_adaptation="do not adapt")
    selection.chosen, selection.reason

A candidate is chosen over "do not adapt" only if it scores more than ``margin`` above it. No rule sees a target label: a
candidate comes as `CandidateEvidence`, which has no place for one. Every rule can fail, and says how in
``rule.facts.fails_when``. Most rules read probabilities of classes; for candidates that predict numbers (`ValueEvidence`) those
that have a counterpart for numbers judge through it, and the others are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core.errors import ConfigError, DataError, did_you_mean
from headstart.evaluation.selecting.agreement import EnsembleAgreement, RankConsensus
from headstart.evaluation.selecting.circular import CircularValidation
from headstart.evaluation.selecting.circular_test import CircularTest
from headstart.evaluation.selecting.committee import committee_evidence
from headstart.evaluation.selecting.evidence import CandidateEvidence, FailedCandidate, Predictor, Refit
from headstart.evaluation.selecting.mixing import MixVal
from headstart.evaluation.selecting.predictions import BatchNuclearNorm, InfoMax, PredictionEntropy
from headstart.evaluation.selecting.rule import CandidateRule, RuleFacts, Score, SelectionRule, is_tie
from headstart.evaluation.selecting.source_risk import (
    DeepEmbeddedValidation,
    ImportanceWeighted,
    SourceAccuracy,
    density_ratio,
)
from headstart.evaluation.selecting.structure import ClassAMI, RankMe, SoftNeighbourhoodDensity
from headstart.evaluation.selecting.values import (
    SourceError,
    ValueCircularValidation,
    ValueDeepEmbeddedValidation,
    ValueEvidence,
    ValueImportanceWeighted,
)

__all__ = [
    "BatchNuclearNorm",
    "CandidateEvidence",
    "CandidateRule",
    "CircularTest",
    "CircularValidation",
    "ClassAMI",
    "DeepEmbeddedValidation",
    "EnsembleAgreement",
    "FailedCandidate",
    "ImportanceWeighted",
    "InfoMax",
    "MixVal",
    "PredictionEntropy",
    "Predictor",
    "RankConsensus",
    "RankMe",
    "Refit",
    "RuleFacts",
    "Score",
    "Selection",
    "SelectionRule",
    "SoftNeighbourhoodDensity",
    "SourceAccuracy",
    "SourceError",
    "ValueCircularValidation",
    "ValueDeepEmbeddedValidation",
    "ValueEvidence",
    "ValueImportanceWeighted",
    "committee_evidence",
    "density_ratio",
    "select",
]


@dataclass(frozen=True)
class Selection:
    """What was chosen, and why.

    Parameters
    ----------
    chosen : str
        Name of the candidate.
    reason : str
        Why, in one sentence.
    scores : dict of str to Score
        Every candidate, in the order they were given; NaN with a reason for those that failed or could not be judged.
    rule : str
        Name of the rule.
    no_adaptation : str
        Name of the candidate that does not adapt.
    margin : float
        What a candidate had to score above it, in the rule's unit.
    """

    chosen: str
    reason: str
    scores: dict[str, Score]
    rule: str
    no_adaptation: str
    margin: float

    @property
    def adapts(self) -> bool:
        """Whether an adaptation was chosen."""
        return self.chosen != self.no_adaptation

    @property
    def ranking(self) -> tuple[str, ...]:
        """Names from the best score down; those without a score last."""
        return tuple(
            sorted(self.scores, key=lambda name: -self.scores[name].value if self.scores[name].is_judged else math.inf)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value with the same names; a missing score is None."""
        return {
            "chosen": self.chosen,
            "reason": self.reason,
            "rule": self.rule,
            "no_adaptation": self.no_adaptation,
            "margin": self.margin,
            "scores": {
                name: {"value": score.value if score.is_judged else None, "reason": score.reason}
                for name, score in self.scores.items()
            },
        }


def select(
    candidates: Mapping[str, CandidateEvidence | ValueEvidence | FailedCandidate],
    rule: SelectionRule,
    *,
    no_adaptation: str,
    margin: float | None = None,
) -> Selection:
    """Choose a candidate without target labels.

    Parameters
    ----------
    candidates : mapping of str to CandidateEvidence, ValueEvidence or FailedCandidate
        Candidates by name, all of classes or all of numbers, the simpler first: of equal scores the first is taken.
    rule : SelectionRule
        Who judges.
    no_adaptation : str
        Which candidate is the source model as it is. It is chosen unless another beats it by more than ``margin``.
    margin : float, optional
        At least 0, in the rule's unit; the rule's own when left out, which may grow with the noise of the difference.

    Returns
    -------
    Selection
        The choice with its reason, and everyone's score.

    Raises
    ------
    HeadstartError
        If ``no_adaptation`` is not among the candidates or has failed, candidates cannot be set against each other (other
        target rows, classes or source labels), or the rule can judge none of them.

    Examples
    --------
    >>> stays = CandidateEvidence(target_probabilities_mk=np.array([[0.6, 0.4], [0.4, 0.6]]))
    >>> moves = CandidateEvidence(target_probabilities_mk=np.array([[0.9, 0.1], [0.1, 0.9]]))
    >>> choice = select({"do not adapt": stays, "CORAL": moves}, InfoMax(), no_adaptation="do not adapt")
    >>> choice.chosen, choice.reason
    ('CORAL', 'CORAL scores 0.368 by information maximisation, 0.348 above do not adapt (0.0201).')
    >>> select({"do not adapt": stays, "CORAL": moves}, InfoMax(), no_adaptation="do not adapt", margin=0.5).chosen
    'do not adapt'
    """
    name, rule = getattr(rule, "name", ""), _judge_of(candidates, rule)
    judged = _check(candidates, rule, no_adaptation, margin)
    by_rule = rule.scores(judged)
    scores = {
        name: Score(math.nan, f"failed: {candidate.reason}" if candidate.begun else candidate.reason)
        if isinstance(candidate, FailedCandidate)
        else by_rule[name]
        for name, candidate in candidates.items()
    }
    if not any(score.is_judged for score in scores.values()):
        raise DataError(f"select: {name} could judge no candidate; {scores[no_adaptation].reason}.")
    first = [name for name in rule.first_choices(judged) if scores[name].is_judged and name != no_adaptation]
    chosen, reason, margin = _choose(scores, rule, no_adaptation, margin, first)
    return Selection(chosen, reason, scores, name, no_adaptation, margin)


def _choose(
    scores: dict[str, Score], rule: SelectionRule, no_adaptation: str, asked: float | None, first: Sequence[str]
) -> tuple[str, str, float]:
    """Return the chosen name, the reason and the margin it had to exceed."""
    stay, by = scores[no_adaptation], f"by {rule.facts.title}"
    if not stay.is_judged:
        reason = f"{no_adaptation} could not be judged {by} ({stay.reason}), so nothing shows that adapting would help."
        return no_adaptation, reason, asked or 0.0
    rivals = {name: score.value for name, score in scores.items() if name != no_adaptation and score.is_judged}
    if not rivals:
        return no_adaptation, f"No adaptation could be judged {by}.", asked or 0.0
    best = _best(rivals)
    beaten = {name for name in rivals if _beats(scores[name], stay, rule, asked)}
    if preferred := [name for name in first if name in beaten]:
        best = _best({name: rivals[name] for name in preferred})
    elif best not in beaten and beaten:
        best = _best({name: rivals[name] for name in rivals if name in beaten})
    margin = rule.margin(scores[best], stay) if asked is None else asked
    gain, needed = rivals[best] - stay.value, f", more than the margin of {margin:.3g}" if margin else ""
    if best in beaten:
        tied = [name for name, value in rivals.items() if name != best and is_tie(value, rivals[best])]
        also = f" {', '.join(tied)} scored the same; the first was taken." if tied and not preferred else ""
        more = [name for name, value in rivals.items() if value > rivals[best] and not is_tie(value, rivals[best])]
        better = [name for name in more if name in beaten]
        also = f" {', '.join(better)} scored more, but {best} goes first wherever it passes." if better else also
        reason = (
            f"{best} scores {rivals[best]:.3g} {by}, {gain:.3g} above {no_adaptation} ({stay.value:.3g}){needed}.{also}"
        )
        return best, reason, margin
    short = "not above" if gain <= 0 or is_tie(gain, 0.0) else f"not more than the margin of {margin:.3g} above"
    reason = f"The best adaptation, {best}, scores {rivals[best]:.3g} {by}, {short} {no_adaptation} ({stay.value:.3g})."
    return no_adaptation, reason, margin


def _best(values: Mapping[str, float]) -> str:
    """Return the name of the largest value; of equal ones the first."""
    top = max(values.values())
    return next(name for name, value in values.items() if is_tie(value, top))


def _beats(score: Score, stay: Score, rule: SelectionRule, asked: float | None) -> bool:
    """Return whether a score exceeds that of "do not adapt" by more than the margin."""
    margin, gain = rule.margin(score, stay) if asked is None else asked, score.value - stay.value
    return gain > margin and not is_tie(gain, margin)


def _judge_of(
    candidates: Mapping[str, CandidateEvidence | ValueEvidence | FailedCandidate], rule: SelectionRule
) -> SelectionRule:
    """Return the rule, or its counterpart where candidates predict numbers."""
    kinds = {type(candidate) for candidate in candidates.values()} & {CandidateEvidence, ValueEvidence}
    if ValueEvidence not in kinds or not isinstance(rule, SelectionRule):
        return rule
    judge = rule.for_values()
    if len(kinds) > 1:
        raise ConfigError("select: candidates predict classes and numbers; give those of one task.")
    if judge is None:
        raise ConfigError(
            f"select: {rule.name} judges probabilities of classes, and these candidates predict numbers; take a rule that has a "
            "counterpart for numbers, such as CircularValidation() or ImportanceWeighted()."
        )
    return judge


def _check(
    candidates: Mapping[str, CandidateEvidence | ValueEvidence | FailedCandidate],
    rule: SelectionRule,
    no_adaptation: str,
    margin: float | None,
) -> dict[str, Any]:
    """Return the evidence of the candidates that did not fail."""
    if not isinstance(rule, SelectionRule):
        raise ConfigError(f"select: rule must be a selection rule, such as CircularValidation(); got {rule!r}.")
    if margin is not None and not (math.isfinite(margin) and margin >= 0):
        raise ConfigError(f"select: margin must be a number of at least 0, in the rule's unit; got {margin}.")
    if no_adaptation not in candidates:
        raise ConfigError(
            f"select: no_adaptation must name the candidate that does not adapt; got {no_adaptation!r}."
            f"{did_you_mean(no_adaptation, candidates)}"
        )
    judged: dict[str, Any] = {}
    for name, candidate in candidates.items():
        if isinstance(candidate, CandidateEvidence | ValueEvidence):
            judged[name] = candidate
        elif not isinstance(candidate, FailedCandidate):
            raise ConfigError(
                f"select: candidate {name!r} must be CandidateEvidence (or ValueEvidence), which holds no target labels, or "
                f"FailedCandidate; "
                f"got {type(candidate).__name__}."
            )
    if no_adaptation not in judged:
        reason = getattr(candidates[no_adaptation], "reason", "")
        raise DataError(f"select: {no_adaptation!r} itself failed, so there is nothing to fall back on: {reason}")
    _check_labels(judged)
    return judged


def _check_labels(judged: dict[str, Any]) -> None:
    """Refuse candidates that were judged on different source rows."""
    first = next(
        (evidence.source_labels_v for evidence in judged.values() if evidence.source_labels_v is not None), None
    )
    for name, evidence in judged.items():
        labels = evidence.source_labels_v
        if labels is not None and first is not None and not np.array_equal(labels, first):
            raise DataError(
                f"select: all candidates must be judged on the same source rows, in one order; the labels of {name!r} differ."
            )
