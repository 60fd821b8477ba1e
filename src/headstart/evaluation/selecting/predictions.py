"""Rules that judge by the target's predicted probabilities alone: confidence, and spread over the classes.

    PredictionEntropy     -1/m sum_i H(p_i)                               H(p) = -sum_c p_c log p_c
    InfoMax               H(mean_i p_i) - 1/m sum_i H(p_i)                mutual information of row and class
    BatchNuclearNorm      ||P||_* / sqrt(m min(m, k))                     sum of singular values over its largest value

Sources: Morerio, Cavazza & Murino, "Minimal-entropy correlation alignment", ICLR 2018; Bridle, Heading & MacKay, "Unsupervised
classifiers, mutual information and 'phantom targets'", NIPS 1991, used for domain adaptation by Shi & Sha, ICML 2012; Cui
et al., "Towards discriminability and diversity: batch nuclear-norm maximization", CVPR 2020 (they divide by m; the further
constant ranks alike and makes 1 the best).
Use them where source rows are gone. They ignore whether a confident answer is right.
Shapes: m target rows, k classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from headstart.evaluation.selecting.evidence import CandidateEvidence, check_probabilities
from headstart.evaluation.selecting.rule import CandidateRule, RuleFacts

__all__ = [
    "BatchNuclearNorm",
    "InfoMax",
    "PredictionEntropy",
    "mean_entropy",
    "mutual_information",
    "nuclear_norm_share",
]

_PREDICTIONS = (frozenset({"target_probabilities_mk"}),)


def mean_entropy(probabilities_mk: npt.ArrayLike) -> float:
    """Return the mean entropy of the rows, in nats: 0 (sure of every row) to log k.

    Examples
    --------
    >>> round(mean_entropy([[0.5, 0.5], [1.0, 0.0]]), 4)      # log(2) / 2
    0.3466
    """
    table = check_probabilities("mean_entropy", "probabilities", probabilities_mk)
    return float(entr(np.clip(table, 0.0, 1.0), dtype=np.float64).sum(axis=1).mean())


def mutual_information(probabilities_mk: npt.ArrayLike) -> float:
    """Return the mutual information of row and class, in nats: 0 (rows tell nothing) to log k.

    Examples
    --------
    >>> mutual_information([[0.5, 0.5], [0.5, 0.5]]), round(mutual_information([[1, 0], [0, 1]]), 4)
    (0.0, 0.6931)
    """
    table = check_probabilities("mutual_information", "probabilities", probabilities_mk)
    table = np.clip(table, 0.0, 1.0)
    spread = float(entr(table.mean(axis=0, dtype=np.float64)).sum())
    return max(0.0, spread - float(entr(table, dtype=np.float64).sum(axis=1).mean()))


def nuclear_norm_share(probabilities_mk: npt.ArrayLike) -> float:
    """Return the sum of singular values over the largest it can be: above 0, 1 for sure answers spread evenly.

    Examples
    --------
    >>> round(nuclear_norm_share([[1, 0], [0, 1]]), 4), round(nuclear_norm_share([[1, 0], [1, 0]]), 4)
    (1.0, 0.7071)
    """
    table = check_probabilities("nuclear_norm_share", "probabilities", probabilities_mk).astype(np.float64)
    num_rows, num_classes = table.shape
    largest = np.sqrt(num_rows * min(num_rows, num_classes))
    return float(np.linalg.svd(_reduced(table), compute_uv=False).sum() / largest)


def _reduced(rows_mk: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a small matrix with the same singular values."""
    if rows_mk.shape[0] <= 2 * rows_mk.shape[1]:
        return rows_mk
    return np.asarray(np.linalg.qr(rows_mk, mode="r"))


class PredictionEntropy(CandidateRule):
    """Minus the mean entropy of target predictions.

    Examples
    --------
    >>> evidence = CandidateEvidence(target_probabilities_mk=np.array([[0.5, 0.5], [1.0, 0.0]]))
    >>> round(PredictionEntropy().score(evidence), 4)      # -log(2) / 2
    -0.3466
    """

    facts = RuleFacts(
        title="prediction entropy",
        source="Morerio, Cavazza & Murino, ICLR 2018",
        unit="nats",
        bounds="-log k to 0",
        fails_when="predictions collapse: answering one class with certainty scores the best value there is",
    )
    needs = _PREDICTIONS

    def score(self, evidence: CandidateEvidence) -> float:
        """Return minus the mean entropy."""
        return -mean_entropy(evidence.target_probabilities_mk)


class InfoMax(CandidateRule):
    """Mutual information of target row and predicted class.

    Examples
    --------
    >>> evidence = CandidateEvidence(target_probabilities_mk=np.array([[1.0, 0.0], [0.0, 1.0]]))
    >>> round(InfoMax().score(evidence), 4)      # log(2)
    0.6931
    """

    facts = RuleFacts(
        title="information maximisation",
        source="Bridle, Heading & MacKay, NIPS 1991; Shi & Sha, ICML 2012",
        unit="nats",
        bounds="0 to log k",
        fails_when="classes are of unequal size in the target, since even answers score best; or answers are sure, even "
        "and wrong",
    )
    needs = _PREDICTIONS

    def score(self, evidence: CandidateEvidence) -> float:
        """Return the mutual information."""
        return mutual_information(evidence.target_probabilities_mk)


class BatchNuclearNorm(CandidateRule):
    """Nuclear norm of target predictions, as a share of the largest it can be.

    Examples
    --------
    >>> evidence = CandidateEvidence(target_probabilities_mk=np.array([[0.5, 0.5], [0.5, 0.5]]))
    >>> round(BatchNuclearNorm().score(evidence), 4)      # one singular value, 1, over sqrt(2 * 2)
    0.5
    """

    facts = RuleFacts(
        title="batch nuclear norm (BNM)",
        source="Cui et al., CVPR 2020; as a validator: Musgrave, Belongie & Lim 2022 (arXiv:2208.07360)",
        unit="share of the largest norm",
        bounds="0 to 1",
        fails_when="predictions collapse: one class with certainty beats answers that are right and unsure",
    )
    needs = _PREDICTIONS

    def score(self, evidence: CandidateEvidence) -> float:
        """Return the nuclear norm's share."""
        return nuclear_norm_share(evidence.target_probabilities_mk)
