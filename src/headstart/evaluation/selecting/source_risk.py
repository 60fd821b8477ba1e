"""Rules that judge by labelled source rows: as they are, or weighted so that they stand for the target.

    SourceAccuracy               1/v sum_i [argmax p_i = y_i]
    ImportanceWeighted           R = 1/v sum_i w_i l_i                                      score = -R
    DeepEmbeddedValidation       R = mean(w l) + eta mean(w) - eta,   eta = -Cov(w l, w) / Var(w);   score = -R
    density ratio                w(x) = n_s / n_t  P(target | x) / P(source | x)

Sources: Sugiyama, Krauledat & Mueller, "Covariate shift adaptation by importance weighted cross validation", JMLR 2007; You,
Wang, Long & Jordan, "Towards accurate model selection in deep unsupervised domain adaptation", ICML 2019 (ratio in the space
after adaptation, control variate because E[w] = 1); ratio from a domain classifier: Bickel, Brueckner & Scheffer, ICML 2007.
Use them where both domains overlap and only the inputs' distribution moved.
They ignore what is in the target and nowhere in the source, and any change of the classes given the features.
Shapes: v source rows to judge on, m target rows, d features before and r after adaptation, k classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from headstart.core.checks import check_same_width
from headstart.core.errors import DataError, HeadstartError
from headstart.core.seeds import derive_seed
from headstart.evaluation.selecting.evidence import CandidateEvidence
from headstart.evaluation.selecting.row_order import canonical_order
from headstart.evaluation.selecting.rule import CandidateRule, Candidates, RuleFacts, Score, SelectionRule, check_choice

__all__ = ["DeepEmbeddedValidation", "ImportanceWeighted", "SourceAccuracy", "control_variate_risk", "density_ratio"]

FloatArray = npt.NDArray[np.float64]
Loss = Literal["zero_one", "log"]

_SMALLEST = 1e-12  # a probability below this costs no more in log-loss
_SURE = 1e-6  # a domain classifier is never surer than this, so that a ratio stays finite
_FOLDS = 5
_SOURCE = frozenset({"source_probabilities_vk", "source_labels_v"})


class SourceAccuracy(CandidateRule):
    """Accuracy on held-out source rows; the baseline rule.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
    >>> evidence = CandidateEvidence(target_probabilities_mk=p, source_probabilities_vk=p, source_labels_v=[0, 1, 1])
    >>> round(SourceAccuracy().score(evidence), 4)
    0.6667
    """

    facts = RuleFacts(
        title="source validation accuracy",
        source="the baseline of every study, e.g. Musgrave, Belongie & Lim 2022 (arXiv:2208.07360)",
        unit="share of source rows",
        bounds="0 to 1",
        fails_when="the domains differ: it never looks at the target, so nothing that adapting changes there counts",
    )
    needs = (_SOURCE,)

    def for_values(self) -> SelectionRule:
        """Return R2 on held-out source rows."""
        from headstart.evaluation.selecting.values import SourceError

        return SourceError()

    def score(self, evidence: CandidateEvidence) -> float:
        """Return the share of source rows whose likeliest class is right."""
        return 1.0 - float(_losses(evidence, "zero_one").mean())


class ImportanceWeighted(CandidateRule):
    """Importance-weighted validation: minus the source loss, weighted by the density ratio *before* adaptation.

    Parameters
    ----------
    loss : {"zero_one", "log"}
        What a wrong answer costs: 1, or minus the log of the right class's probability (nats).
    random_state : int
        Folds of the domain classifier, where `CandidateEvidence.input_weights_v` is not given.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.8, 0.2]])
    >>> evidence = CandidateEvidence(
    ...     target_probabilities_mk=p, source_probabilities_vk=p, source_labels_v=[0, 1], input_weights_v=[0.5, 1.5])
    >>> ImportanceWeighted().score(evidence)      # -(0.5 * 0 + 1.5 * 1) / 2
    -0.75
    """

    facts = RuleFacts(
        title="importance-weighted validation (IWCV)",
        source="Sugiyama, Krauledat & Mueller, JMLR 2007",
        unit="loss (share of rows, or nats)",
        bounds="below 0; 0 is best",
        fails_when="the domains hardly overlap: a few source rows carry all the weight, and the score is their luck",
    )
    needs = (_SOURCE | {"source_rows_vd", "target_rows_md"}, _SOURCE | {"input_weights_v"})

    def __init__(self, loss: Loss = "zero_one", random_state: int = 0) -> None:
        self.loss: Loss = check_choice(self.name, "loss", loss, ("zero_one", "log"))  # type: ignore[assignment]
        self.random_state = random_state

    def for_values(self) -> SelectionRule:
        """Return the weighted squared error."""
        from headstart.evaluation.selecting.values import ValueImportanceWeighted

        return ValueImportanceWeighted(self.random_state)

    def scores(self, candidates: Candidates) -> dict[str, Score]:
        """Return each candidate's score; the ratio over rows that candidates share is estimated once."""
        known: dict[tuple[int, int], FloatArray] = {}
        return super().scores({name: self._weighted(evidence, known) for name, evidence in candidates.items()})

    def _weighted(self, evidence: CandidateEvidence, known: dict[tuple[int, int], FloatArray]) -> CandidateEvidence:
        if evidence.input_weights_v is not None or self.missing(evidence):
            return evidence
        rows = (id(evidence.source_rows_vd), id(evidence.target_rows_md))
        try:
            if rows not in known:
                known[rows] = self._ratio(evidence)
        except HeadstartError:
            return evidence  # `score` meets the same error and gives it as the reason
        return replace(evidence, input_weights_v=known[rows])

    def _ratio(self, evidence: CandidateEvidence) -> FloatArray:
        return density_ratio(evidence.source_rows_vd, evidence.target_rows_md, random_state=self.random_state)

    def score(self, evidence: CandidateEvidence) -> float:
        """Return minus the weighted risk."""
        weights_v = evidence.input_weights_v
        if weights_v is None:
            weights_v = self._ratio(evidence)
        return -float(np.mean(weights_v * _losses(evidence, self.loss)))


class DeepEmbeddedValidation(CandidateRule):
    """DEV: minus the target risk, estimated from source rows weighted *after* adaptation, with a control variate.

    Parameters
    ----------
    loss : {"zero_one", "log"}
        What a wrong answer costs: 1, or minus the log of the right class's probability (nats).
    random_state : int
        Folds of the domain classifier, where `CandidateEvidence.feature_weights_v` is not given.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.8, 0.2]])
    >>> evidence = CandidateEvidence(
    ...     target_probabilities_mk=p, source_probabilities_vk=p, source_labels_v=[0, 1], feature_weights_v=[3.0, 1.0])
    >>> DeepEmbeddedValidation().score(evidence)    # w l = (0, 1): eta = 1/2, risk 1/2 + 1/2 (2 - 1)
    -1.0
    """

    facts = RuleFacts(
        title="deep embedded validation (DEV)",
        source="You, Wang, Long & Jordan, ICML 2019",
        unit="loss (share of rows, or nats)",
        bounds="any number; about 0 is best, above 0 is chance",
        fails_when="adapting pulls the domains apart, or a few weights dominate: the estimate has no bounds and can fall "
        "below a risk of 0",
    )
    needs = (_SOURCE | {"source_features_vr", "target_features_mr"}, _SOURCE | {"feature_weights_v"})

    def __init__(self, loss: Loss = "zero_one", random_state: int = 0) -> None:
        self.loss: Loss = check_choice(self.name, "loss", loss, ("zero_one", "log"))  # type: ignore[assignment]
        self.random_state = random_state

    def for_values(self) -> SelectionRule:
        """Return DEV of the squared error."""
        from headstart.evaluation.selecting.values import ValueDeepEmbeddedValidation

        return ValueDeepEmbeddedValidation(self.random_state)

    def score(self, evidence: CandidateEvidence) -> float:
        """Return minus the estimated target risk."""
        weights_v = evidence.feature_weights_v
        if weights_v is None:
            weights_v = density_ratio(
                evidence.source_features_vr, evidence.target_features_mr, random_state=self.random_state
            )
        return -control_variate_risk(_losses(evidence, self.loss), weights_v)


def control_variate_risk(losses_v: npt.ArrayLike, weights_v: npt.ArrayLike) -> float:
    """Return the weighted mean loss, less what the weights' own deviation from mean 1 explains.

    Parameters
    ----------
    losses_v, weights_v : array of shape (v,), v >= 2
        Loss and density ratio of each source row.

    Returns
    -------
    float
        ``mean(w l) + eta mean(w) - eta`` with ``eta = -Cov(w l, w) / Var(w)``, and eta = 0 where all weights are alike.

    Raises
    ------
    DataError
        With fewer than two rows: there is no covariance.

    Examples
    --------
    >>> control_variate_risk([0.0, 1.0], [1.0, 1.0])
    0.5
    """
    losses, weights = np.asarray(losses_v, dtype=np.float64), np.asarray(weights_v, dtype=np.float64)
    if losses.shape != weights.shape or losses.ndim != 1 or len(losses) < 2:
        raise DataError(
            f"control_variate_risk: needs a loss and a weight for each of at least 2 rows; got shapes {losses.shape} "
            f"and {weights.shape}."
        )
    weighted = losses * weights
    variance = float(weights.var())
    if variance <= np.finfo(np.float64).eps * float(np.square(weights).mean()):
        return float(weighted.mean())
    eta = -float(np.mean((weighted - weighted.mean()) * (weights - weights.mean()))) / variance
    return float(weighted.mean()) + eta * float(weights.mean()) - eta


def density_ratio(source_vd: Any, target_md: Any, *, random_state: int = 0) -> FloatArray:
    """Return how much likelier each source row is in the target, from a cross-fitted logistic domain classifier.

    Parameters
    ----------
    source_vd : array or sparse matrix of shape (v, d), v >= 2
        Source rows; each is weighed by a classifier that was not trained on it.
    target_md : array or sparse matrix of shape (m, d), m >= 2
        Target rows.
    random_state : int
        Draws the folds. The order of the rows does not matter.

    Returns
    -------
    float64 array of shape (v,)
        Above 0; about 1 on average where the domains overlap.

    Raises
    ------
    HeadstartError
        If the widths differ or a domain has fewer than two rows.

    Examples
    --------
    >>> same = np.arange(20.0)[:, None] % 2
    >>> bool(np.allclose(density_ratio(same, same), 1.0, atol=0.2))
    True
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    check_same_width("density_ratio", source_vd, target_md, min_rows=2)
    is_sparse = sparse.issparse(source_vd) or sparse.issparse(target_md)
    source_order, target_order = canonical_order(source_vd), canonical_order(target_md)
    stack = sparse.vstack if is_sparse else np.concatenate
    source, target = source_vd[source_order], target_md[target_order]
    rows = stack([source, target]).astype(np.float64)
    rows = sparse.csr_matrix(rows) if is_sparse else rows
    is_target = np.repeat([0, 1], [source.shape[0], target.shape[0]])
    folds = StratifiedKFold(
        min(_FOLDS, source.shape[0], target.shape[0]), shuffle=True, random_state=derive_seed(random_state, "ratio")
    )
    weights = np.empty(source.shape[0])
    for train, test in folds.split(np.zeros(len(is_target)), is_target):
        held = test[is_target[test] == 0]
        model = make_pipeline(StandardScaler(with_mean=not is_sparse), LogisticRegression(max_iter=1000))
        model.fit(rows[train], is_target[train])
        chance = np.clip(model.predict_proba(rows[held])[:, 1], _SURE, 1 - _SURE)
        num_target = int(is_target[train].sum())
        weights[held] = (len(train) - num_target) / num_target * chance / (1 - chance)
    in_order = np.empty_like(weights)
    in_order[source_order] = weights
    return in_order


def _losses(evidence: CandidateEvidence, loss: Loss) -> FloatArray:
    """Return the loss of each source row."""
    probabilities, labels = evidence.source_probabilities_vk, evidence.source_labels_v
    assert probabilities is not None and labels is not None
    if loss == "zero_one":
        return np.asarray(probabilities.argmax(axis=1) != labels, dtype=np.float64)
    right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(np.clip(right, _SMALLEST, 1.0)))
