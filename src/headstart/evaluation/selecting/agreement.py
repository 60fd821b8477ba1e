"""Rules in which candidates, or other rules, vote.

    EnsembleAgreement    share of target rows where argmax p_i = argmax mean over all candidates of p_i
    RankConsensus        mean over rules of the share of the other candidates that the rule ranks below this one

Source: Hu, Luo, Liang & Foo, "Towards reliable model selection for unsupervised domain adaptation: an empirical study and a
certified baseline" (EnsV), NeurIPS 2024 Datasets and Benchmarks.
RankConsensus is headstart's own: a Borda count over rules that fail in different ways, with a margin in favour of "do not adapt".
Use them to avoid the worst choice rather than to find the best. They ignore that all voters may be wrong together.
Shapes: m target rows, k classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from headstart.core.errors import ConfigError
from headstart.evaluation.selecting.circular import CircularValidation
from headstart.evaluation.selecting.mixing import MixVal
from headstart.evaluation.selecting.predictions import InfoMax
from headstart.evaluation.selecting.rule import Candidates, RuleFacts, Score, SelectionRule, rank_shares

__all__ = ["EnsembleAgreement", "RankConsensus"]

_BLOCK = 4_000_000  # probabilities held at a time: 32 MB


class EnsembleAgreement(SelectionRule):
    """EnsV: agreement with the mean prediction of all candidates.

    Examples
    --------
    >>> from headstart.evaluation.selection import CandidateEvidence
    >>> rows = {"a": [[0.9, 0.1], [0.8, 0.2]], "b": [[0.7, 0.3], [0.9, 0.1]], "c": [[0.6, 0.4], [0.3, 0.7]]}
    >>> candidates = {name: CandidateEvidence(target_probabilities_mk=np.array(p)) for name, p in rows.items()}
    >>> {name: score.value for name, score in EnsembleAgreement().scores(candidates).items()}
    {'a': 1.0, 'b': 1.0, 'c': 0.5}
    """

    facts = RuleFacts(
        title="agreement with the ensemble (EnsV)",
        source="Hu, Luo, Liang & Foo, NeurIPS 2024 Datasets and Benchmarks",
        unit="share of target rows",
        bounds="0 to 1, relative to the other candidates",
        fails_when="most candidates are wrong together, or many are near copies of one: the odd one out loses",
    )
    needs = (frozenset({"target_probabilities_mk"}),)

    def scores(self, candidates: Candidates) -> dict[str, Score]:
        """Return each candidate's share of rows on which it answers as the ensemble does."""
        self._comparable(candidates)
        if not candidates:
            return {}
        tables = [evidence.target_probabilities_mk for evidence in candidates.values()]
        num_rows, num_classes = tables[0].shape
        agreeing, step = np.zeros(len(tables)), max(1, _BLOCK // num_classes)
        for start in range(0, num_rows, step):
            total = np.zeros((min(step, num_rows - start), num_classes))
            for table in tables:
                total += table[start : start + step]
            voted = total.argmax(axis=1)
            agreeing += [np.sum(table[start : start + step].argmax(axis=1) == voted) for table in tables]
        return {name: Score(float(share)) for name, share in zip(candidates, agreeing / num_rows, strict=True)}


class RankConsensus(SelectionRule):
    """Mean rank over several rules, each in its own unit: the candidate that most rules place high.

    A rule that can judge no candidate is left out; a candidate that a rule cannot judge ranks last by that rule.

    Parameters
    ----------
    rules : sequence of SelectionRule, optional
        Who votes. Left out: circular validation, agreement with the ensemble, consistency under mixing and information
        maximisation, which look at the source, the other candidates, the boundary and the spread of answers.

    Examples
    --------
    >>> from headstart.evaluation.selection import CandidateEvidence
    >>> sure, unsure = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.6, 0.4], [0.4, 0.6]])
    >>> candidates = {"sure": CandidateEvidence(target_probabilities_mk=sure),
    ...               "unsure": CandidateEvidence(target_probabilities_mk=unsure)}
    >>> consensus = RankConsensus([InfoMax(), EnsembleAgreement()])      # sure wins by InfoMax; both agree with the mean
    >>> {name: score.value for name, score in consensus.scores(candidates).items()}
    {'sure': 0.75, 'unsure': 0.25}
    """

    facts = RuleFacts(
        title="consensus of rules",
        source="headstart's own: Borda count over rules that fail in different ways",
        unit="mean rank (share of candidates beaten)",
        bounds="0 to 1, relative to the other candidates",
        fails_when="the rules fail together; and candidates that are near copies of one another shift its ranks",
    )
    default_margin = 0.25

    def __init__(self, rules: Sequence[SelectionRule] | None = None) -> None:
        if rules is None:
            rules = (CircularValidation(), EnsembleAgreement(), MixVal(), InfoMax())
        if not rules or not all(isinstance(rule, SelectionRule) for rule in rules):
            raise ConfigError(f"RankConsensus: rules must be one selection rule or more; got {rules!r}.")
        self.rules = tuple(rules)
        self.needs = tuple(dict.fromkeys(need for rule in self.rules for need in rule.needs))
        self.compares_feature_spaces = all(rule.compares_feature_spaces for rule in self.rules)

    @property
    def wants(self) -> frozenset[str]:
        """Fields that any of the rules wants."""
        return frozenset[str]().union(*(rule.wants for rule in self.rules))

    def scores(self, candidates: Candidates) -> dict[str, Score]:
        """Return each candidate's mean rank."""
        votes: dict[str, list[float]] = {name: [] for name in candidates}
        reasons: dict[str, list[str]] = {name: [] for name in candidates}
        for rule in self.rules:
            by_rule = rule.scores(candidates)
            for name, score in by_rule.items():
                if not score.is_judged:
                    reasons[name].append(score.reason)
            if any(score.is_judged for score in by_rule.values()):
                for name, share in rank_shares(by_rule).items():
                    votes[name].append(share)
        return {
            name: Score(float(np.mean(votes[name])), "; ".join(reasons[name]))
            if votes[name] and len(reasons[name]) < len(self.rules)
            else Score(math.nan, "; ".join(reasons[name]))
            for name in candidates
        }
