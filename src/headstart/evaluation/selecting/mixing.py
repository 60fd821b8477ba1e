"""MixVal: does the classifier keep its answer when a target row is mixed with another?

    x = lambda a + (1 - lambda) b,   lambda > 1/2,   a and b target rows in the space before adaptation
    intra = share of pairs of one predicted class with argmax p(x) = argmax p(a)         how dense a class is
    inter = the same over pairs of two predicted classes                                 where the boundary runs
    score = mean of the candidate's rank by intra and its rank by inter

Source: Hu, Liang, Liew, Xue, Bai & Wang, "Mixed samples as probes for unsupervised model selection in domain adaptation", NeurIPS
2023 (lambda = 0.55). Ranks are shares of the other candidates beaten, so that neither probe outweighs the other.
Use it where mixed rows still mean something: images, spectra, features; and where candidates can answer for new rows.
A committee whose members know the rows by features of their own is asked for the mean of what they say, each of the same two rows
mixed as it knows them.
It ignores whether a boundary that lies well between clusters separates the right ones. A linear classifier's classes are
convex, so its intra share is always 1.
Shapes: m target rows, d features, k classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from headstart.core.errors import ConfigError, DataError, HeadstartError
from headstart.core.seeds import generator
from headstart.evaluation.selecting.evidence import CandidateEvidence, check_probabilities
from headstart.evaluation.selecting.row_order import canonical_order
from headstart.evaluation.selecting.rule import Candidates, RuleFacts, Score, SelectionRule, rank_shares

__all__ = ["MixVal"]


class MixVal(SelectionRule):
    """Consistency of a candidate's answers under mixing of target rows, within and between its predicted classes.

    Parameters
    ----------
    mixing : float
        Share of the first row, the paper's lambda; above 0.5 and below 1.
    num_rounds : int
        How many partners each row is mixed with.
    random_state : int
        Draws the partners, the same for every candidate. The order of the rows does not matter.

    Examples
    --------
    >>> def at(edge):
    ...     return lambda rows: np.where(rows < edge, [[0.9, 0.1]], [[0.1, 0.9]])
    >>> rows = np.array([[0.0], [0.1], [1.0], [1.1]])
    >>> def candidate(edge):
    ...     return CandidateEvidence(
    ...         target_probabilities_mk=at(edge)(rows), target_rows_md=rows, predict_target=at(edge))
    >>> MixVal(mixing=0.7).scores({"between": candidate(0.55), "beside": candidate(1.05)})["between"].value
    0.75
    """

    facts = RuleFacts(
        title="consistency under mixing (MixVal)",
        source="Hu, Liang, Liew, Xue, Bai & Wang, NeurIPS 2023",
        unit="mean rank (share of candidates beaten)",
        bounds="0 to 1, relative to the other candidates",
        fails_when="boundaries run cleanly between the wrong clusters; or rows mixed in this space mean nothing",
    )
    needs = (
        frozenset({"target_probabilities_mk", "target_rows_md", "predict_target"}),
        frozenset({"target_probabilities_mk", "target_rows_md", "members"}),
    )

    def __init__(self, mixing: float = 0.55, num_rounds: int = 3, random_state: int = 0) -> None:
        if not 0.5 < mixing < 1:
            raise ConfigError(f"MixVal: mixing must lie between 0.5 and 1, so that the first row leads; got {mixing}.")
        if num_rounds < 1:
            raise ConfigError(f"MixVal: num_rounds must be at least 1; got {num_rounds}.")
        self.mixing = mixing
        self.num_rounds = num_rounds
        self.random_state = random_state

    def missing(self, evidence: CandidateEvidence) -> tuple[str, ...]:
        """Return the fields that are lacking, of a committee those that its members lack."""
        if evidence.predict_target is None and evidence.members:
            return tuple(sorted({name for member in evidence.members for name in self.missing(member)}))
        return super().missing(evidence)

    def scores(self, candidates: Candidates) -> dict[str, Score]:
        """Return each candidate's mean rank over both probes."""
        self._comparable(candidates)
        probes = {name: self._probe(evidence) for name, evidence in candidates.items()}
        judged = {name: probe for name, probe in probes.items() if not isinstance(probe, Score)}
        intra, inter = (rank_shares({name: Score(probe[place]) for name, probe in judged.items()}) for place in (0, 1))
        return {
            name: probe if isinstance(probe, Score) else Score((intra[name] + inter[name]) / 2)
            for name, probe in probes.items()
        }

    def consistency(self, evidence: CandidateEvidence) -> tuple[float, float]:
        """Return the shares (intra, inter) of mixed rows that keep their answer.

        A share over no pair is NaN and ranks last: one predicted class has no boundary to probe.

        Raises
        ------
        HeadstartError
            With fewer than two target rows, or when ``predict_target`` returns no table of probabilities.
        """
        rows = evidence.target_rows_md
        num_rows = evidence.num_target_rows
        if num_rows < 2:
            raise DataError(f"MixVal: needs at least 2 target rows to mix; got {num_rows}.")
        order = canonical_order(rows)
        predicted = evidence.target_probabilities_mk.argmax(axis=1)
        random = generator(self.random_state, "mixval")
        kept, pairs = np.zeros(2), np.zeros(2)
        for _ in range(self.num_rounds):
            first, second = order, order[_partners(num_rows, random)]
            answers = self._answers(evidence, first, second)
            same = answers.argmax(axis=1) == predicted[first]
            is_inter = (predicted[first] != predicted[second]).astype(np.int64)
            pairs += np.bincount(is_inter, minlength=2)
            kept += np.bincount(is_inter, weights=same, minlength=2)
        shares = [float(kept[kind] / pairs[kind]) if pairs[kind] else math.nan for kind in (0, 1)]
        return shares[0], shares[1]

    def _answers(self, evidence: CandidateEvidence, first: Any, second: Any) -> Any:
        """Return probabilities of the rows ``first``, each mixed with its partner in ``second``."""
        if evidence.predict_target is None:
            assert evidence.members is not None
            return np.mean([self._answers(member, first, second) for member in evidence.members], axis=0)
        rows = evidence.target_rows_md
        mixed = self.mixing * rows[first] + (1 - self.mixing) * rows[second]
        answers = check_probabilities("MixVal", "predict_target(rows)", evidence.predict_target(mixed))
        if answers.shape != evidence.target_probabilities_mk.shape:
            raise DataError(
                f"MixVal: predict_target must return probabilities of shape {evidence.target_probabilities_mk.shape}; "
                f"got {answers.shape}."
            )
        return answers

    def _probe(self, evidence: CandidateEvidence) -> tuple[float, float] | Score:
        if missing := self.missing(evidence):
            return Score(math.nan, f"{self.name} needs {', '.join(missing)}")
        try:
            return self.consistency(evidence)
        except (HeadstartError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            return Score(math.nan, f"{type(error).__name__}: {error}")


def _partners(num_rows: int, random: np.random.Generator) -> Any:
    """Return another row for each row: a random cycle, so that none is mixed with itself."""
    cycle = random.permutation(num_rows)
    partners = np.empty(num_rows, dtype=np.intp)
    partners[cycle] = np.roll(cycle, -1)
    return partners
