"""Rules that judge by how target rows lie: clusters, neighbourhoods, the dimensions they use.

    ClassAMI                    AMI(argmax p_i, k-means(F))          with k clusters of the target features
    SoftNeighbourhoodDensity    mean_i H(q_i),   q_ij ~ exp(cos(z_i, z_j) / tau) over j != i
    RankMe                      exp(-sum_j s_j log s_j),   s = sigma(F) / |sigma(F)|_1 + eps

Sources: Musgrave, Belongie & Lim, "Three new validators and a large-scale benchmark ranking for unsupervised domain
adaptation", 2022 (arXiv:2208.07360); Saito et al., "Tune it the right way: unsupervised validation of domain adaptation via soft
neighborhood density", ICCV 2021 (arXiv:2108.10860), z = predicted probabilities, tau = 0.05; Garrido,
Balestriero, Najman & LeCun, "RankMe", ICML 2023 (arXiv:2210.02885), eps = 1e-7, the features not centred.
Use ClassAMI where classes are clusters; SND to tune one method; RankMe to compare features before there is a classifier.
They ignore which cluster is which class.
Shapes: m target rows, r features, k classes.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix
from headstart.core.errors import DataError
from headstart.core.seeds import derive_seed
from headstart.distances import soft_neighbourhood_density
from headstart.evaluation.selecting.evidence import CandidateEvidence
from headstart.evaluation.selecting.row_order import canonical_order
from headstart.evaluation.selecting.rule import CandidateRule, RuleFacts, check_choice, check_positive

__all__ = ["ClassAMI", "RankMe", "SoftNeighbourhoodDensity", "effective_rank"]

Array = npt.NDArray[Any]


def effective_rank(features_mr: npt.ArrayLike, eps: float = 1e-7) -> float:
    """Return how many dimensions the features use evenly: 1 to min(m, r).

    Parameters
    ----------
    features_mr : array of shape (m, r)
        Features; a common factor changes nothing.
    eps : float
        Added to each singular value's share (the paper's 1e-7).

    Raises
    ------
    HeadstartError
        If all features are 0, or ``eps`` is not above 0.

    Examples
    --------
    >>> round(effective_rank([[1.0, 0.0], [0.0, 1.0]]), 4), round(effective_rank([[1.0, 1.0], [2.0, 2.0]]), 4)
    (2.0, 1.0)
    """
    check_positive("effective_rank", "eps", eps)
    features = np.asarray(features_mr, dtype=np.float64)
    check_matrix("effective_rank", "features", features)
    largest = np.abs(features).max()
    if not largest > 0:
        raise DataError("effective_rank: all features are 0; there is no rank to measure.")
    scaled = features / largest
    small = np.linalg.qr(scaled, mode="r") if scaled.shape[0] > 2 * scaled.shape[1] else scaled
    values = np.linalg.svd(small, compute_uv=False)
    shares = values / values.sum() + eps
    return float(np.exp(-(shares * np.log(shares)).sum()))


class ClassAMI(CandidateRule):
    """Adjusted mutual information of predicted classes and k-means clusters of the target features.

    Parameters
    ----------
    random_state : int
        Starts of k-means. The order of the rows does not matter.

    Examples
    --------
    >>> features = np.array([[0.0], [0.1], [5.0], [5.1]])
    >>> sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
    >>> round(ClassAMI().score(CandidateEvidence(target_probabilities_mk=sure, target_features_mr=features)), 4)
    1.0
    """

    facts = RuleFacts(
        title="agreement of classes and clusters (ClassAMI)",
        source="Musgrave, Belongie & Lim 2022 (arXiv:2208.07360)",
        unit="adjusted mutual information",
        bounds="about 0 (chance) to 1",
        fails_when="clusters are not the classes: a classifier that follows the wrong clusters scores 1",
    )
    needs = (frozenset({"target_probabilities_mk", "target_features_mr"}),)

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def score(self, evidence: CandidateEvidence) -> float:
        """Return the adjusted mutual information; 0 when a single class is predicted, which tells nothing."""
        from sklearn.metrics import adjusted_mutual_info_score

        _check_enough(evidence)
        predicted = evidence.target_probabilities_mk.argmax(axis=1)
        if (predicted == predicted[0]).all():
            return 0.0
        return float(adjusted_mutual_info_score(predicted, self.clusters(evidence)))

    def clusters(self, evidence: CandidateEvidence) -> npt.NDArray[np.int64]:
        """Return the k-means cluster of each target row, with as many clusters as classes.

        Raises
        ------
        DataError
            If there are fewer target rows than classes.
        """
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        features = _check_enough(evidence)
        order = canonical_order(features)
        seed = derive_seed(self.random_state, "class ami")
        clusterer = KMeans(evidence.num_classes, n_init=10, random_state=seed)
        found = np.empty(len(features), dtype=np.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than classes
            found[order] = clusterer.fit_predict(features[order].astype(np.float64))
        return found


def _check_enough(evidence: CandidateEvidence) -> Array:
    """Return the target features; refuse fewer rows than clusters."""
    features = evidence.target_features_mr
    assert features is not None
    if len(features) < evidence.num_classes:
        raise DataError(
            f"ClassAMI: needs at least as many target rows as classes; got {len(features)} rows and "
            f"{evidence.num_classes} classes."
        )
    return features


class SoftNeighbourhoodDensity(CandidateRule):
    """SND: mean entropy of each target row's similarities to the others; high where neighbourhoods are dense.

    Parameters
    ----------
    temperature : float
        The paper's tau.
    of : {"probabilities", "features"}
        What similarity is measured on; the paper takes the classifier's softmax output.

    Examples
    --------
    >>> evidence = CandidateEvidence(target_probabilities_mk=np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]))
    >>> round(SoftNeighbourhoodDensity().score(evidence), 4)      # log(2)
    0.6931
    """

    facts = RuleFacts(
        title="soft neighbourhood density (SND)",
        source="Saito et al., ICCV 2021 (arXiv:2108.10860)",
        unit="nats",
        bounds="0 to log(m - 1)",
        fails_when="predictions collapse: when all rows look alike every neighbourhood is as dense as can be",
    )

    def __init__(self, temperature: float = 0.05, of: Literal["probabilities", "features"] = "probabilities") -> None:
        self.temperature = check_positive(self.name, "temperature", temperature)
        self.of = check_choice(self.name, "of", of, ("probabilities", "features"))
        self._field = "target_probabilities_mk" if of == "probabilities" else "target_features_mr"
        self.needs = (frozenset({self._field}),)
        self.compares_feature_spaces = of == "probabilities"

    def score(self, evidence: CandidateEvidence) -> float:
        """Return the density."""
        rows = np.asarray(getattr(evidence, self._field), dtype=np.float64)
        return float(soft_neighbourhood_density(rows, self.temperature))


class RankMe(CandidateRule):
    """Effective rank of the target features.

    Parameters
    ----------
    eps : float
        Added to each singular value's share.

    Examples
    --------
    >>> evidence = CandidateEvidence(
    ...     target_probabilities_mk=np.full((2, 2), 0.5), target_features_mr=np.array([[3.0, 0.0], [0.0, 3.0]]))
    >>> round(RankMe().score(evidence), 4)
    2.0
    """

    facts = RuleFacts(
        title="effective rank (RankMe)",
        source="Garrido, Balestriero, Najman & LeCun, ICML 2023 (arXiv:2210.02885)",
        unit="dimensions",
        bounds="1 to min(m, r)",
        fails_when="noise fills dimensions: whitened noise uses all of them; the classifier is not looked at",
    )
    needs = (frozenset({"target_features_mr"}),)
    compares_feature_spaces = False

    def __init__(self, eps: float = 1e-7) -> None:
        self.eps = check_positive(self.name, "eps", eps)

    def score(self, evidence: CandidateEvidence) -> float:
        """Return the effective rank."""
        features = evidence.target_features_mr
        assert features is not None
        return effective_rank(features, self.eps)
