"""Every rule against its formula written out in float64, by hand, and under what must not change it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, balanced_accuracy_score, mutual_info_score
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from headstart.core.errors import ConfigError, DataError, ShapeError
from headstart.distances import soft_neighbourhood_density
from headstart.evaluation import selection
from headstart.evaluation.selecting import agreement
from headstart.evaluation.selecting.predictions import mean_entropy, mutual_information, nuclear_norm_share
from headstart.evaluation.selecting.row_order import canonical_order
from headstart.evaluation.selecting.rule import rank_shares
from headstart.evaluation.selecting.source_risk import control_variate_risk
from headstart.evaluation.selecting.structure import effective_rank
from headstart.evaluation.selecting.values import ValueRule
from headstart.evaluation.selection import (
    BatchNuclearNorm,
    CandidateEvidence,
    CandidateRule,
    CircularTest,
    CircularValidation,
    ClassAMI,
    DeepEmbeddedValidation,
    EnsembleAgreement,
    ImportanceWeighted,
    InfoMax,
    MixVal,
    PredictionEntropy,
    RankConsensus,
    RankMe,
    Score,
    SelectionRule,
    SoftNeighbourhoodDensity,
    SourceAccuracy,
    committee_evidence,
    density_ratio,
)

RULES: tuple[type[SelectionRule], ...] = tuple(
    rule
    for rule in (getattr(selection, name) for name in selection.__all__)
    if isinstance(rule, type)
    and issubclass(rule, SelectionRule)
    and not rule.__abstractmethods__
    and not issubclass(rule, ValueRule)  # those for numbers: test_value_rules.py
)
NAMES = [rule.__name__ for rule in RULES]


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def centroids(rows: Any, labels: Any, target: Any) -> NearestCentroid:
    return NearestCentroid().fit(rows, labels)


def linear_probabilities(weights_dk: np.ndarray) -> Callable[[Any], np.ndarray]:
    return lambda rows: softmax(np.asarray(rows @ weights_dk))


def candidate(seed: int = 0, *, sharpness: float = 2.0, num_classes: int = 3) -> CandidateEvidence:
    """Source and target of one kind, judged by a linear classifier that is right for most rows."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(num_classes, 4)) * 2
    labels = random.integers(num_classes, size=24)
    source = centres[labels] + random.normal(size=(24, 4))
    target = centres[random.integers(num_classes, size=30)] + random.normal(size=(30, 4)) + 0.3
    weights = (sharpness * centres.T + np.random.default_rng(seed).normal(size=(4, num_classes)) * seed) / 3
    predict = linear_probabilities(weights)
    return CandidateEvidence(
        target_probabilities_mk=predict(target),
        source_probabilities_vk=predict(source),
        source_labels_v=labels,
        source_rows_vd=source,
        target_rows_md=target,
        source_features_vr=source * (1 + seed),
        target_features_mr=target * (1 + seed) + seed,
        refit=centroids,
        predict_target=predict,
    )


def candidates() -> dict[str, CandidateEvidence]:
    return {"stay": candidate(0, sharpness=0.3), "first": candidate(1), "second": candidate(2)}


def values(rule: SelectionRule, named: dict[str, CandidateEvidence]) -> list[float]:
    return [score.value for score in rule.scores(named).values()]


# ---------------------------------------------------------------- formulas


def entropy_twin(p: np.ndarray) -> float:
    return -float(np.mean([sum(-x * math.log(x) for x in row if x > 0) for row in p.tolist()]))


def infomax_twin(p: np.ndarray) -> float:
    return sum(-x * math.log(x) for x in p.mean(axis=0).tolist() if x > 0) + entropy_twin(p)


def bnm_twin(p: np.ndarray) -> float:
    m, k = p.shape
    return float(np.sqrt(np.clip(np.linalg.eigvalsh(p.T @ p), 0, None)).sum() / math.sqrt(m * min(m, k)))


def rankme_twin(features: np.ndarray, eps: float) -> float:
    sigma = np.linalg.svd(features, compute_uv=False)
    p = sigma / np.abs(sigma).sum() + eps
    return math.exp(-sum(x * math.log(x) for x in p.tolist()))


def dev_twin(losses: np.ndarray, weights: np.ndarray) -> float:
    weighted = losses * weights
    covariance = np.cov(weighted, weights, ddof=1)
    eta = -covariance[0, 1] / covariance[1, 1]
    return -float(weighted.mean() + eta * weights.mean() - eta)


@pytest.mark.parametrize("rows", [1, 2, 7, 40])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_predictions_match_their_formulas(rows: int, dtype: Any) -> None:
    p = softmax(np.random.default_rng(rows).normal(size=(rows, 5)) * 3).astype(dtype)
    exact = p.astype(np.float64)
    evidence = CandidateEvidence(target_probabilities_mk=p)
    assert PredictionEntropy().score(evidence) == pytest.approx(entropy_twin(exact), rel=1e-6)
    assert InfoMax().score(evidence) == pytest.approx(infomax_twin(exact), rel=1e-6, abs=1e-7)
    assert BatchNuclearNorm().score(evidence) == pytest.approx(bnm_twin(exact), rel=1e-6)


def test_prediction_rules_by_hand() -> None:
    even, sure = np.full((4, 4), 0.25), np.eye(4)
    assert mean_entropy(even) == pytest.approx(math.log(4)) and mean_entropy(sure) == 0
    assert mutual_information(even) == 0 and mutual_information(sure) == pytest.approx(math.log(4))
    assert nuclear_norm_share(even) == pytest.approx(0.25) and nuclear_norm_share(sure) == pytest.approx(1)
    # Three rows sure of two classes, two and one: singular values sqrt(2) and 1.
    assert nuclear_norm_share(np.eye(2)[[0, 0, 1]]) == pytest.approx((math.sqrt(2) + 1) / math.sqrt(6))


def test_mutual_information_of_sure_answers_is_scikit_learns() -> None:
    labels = np.random.default_rng(0).integers(3, size=50)
    assert mutual_information(np.eye(3)[labels]) == pytest.approx(mutual_info_score(labels, labels))


def test_ensemble_agreement_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = values(EnsembleAgreement(), candidates())
    monkeypatch.setattr(agreement, "_BLOCK", 3 * 4)
    assert values(EnsembleAgreement(), candidates()) == whole


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (40, 3), (1, 1)])
@pytest.mark.parametrize("eps", [1e-7, 1e-2])
def test_rankme_matches_its_formula(shape: tuple[int, int], eps: float) -> None:
    features = np.random.default_rng(3).normal(size=shape)
    assert effective_rank(features, eps) == pytest.approx(rankme_twin(features, eps), rel=1e-9)


def test_rankme_by_hand() -> None:
    # Shares 3/4 and 1/4.
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(np.diag([3.0, 1.0]), 1e-12) == pytest.approx(expected)
    assert effective_rank(np.diag([3e200, 1e200]), 1e-12) == pytest.approx(expected)


def test_class_ami_is_scikit_learns() -> None:
    evidence = candidate()
    order = canonical_order(evidence.target_features_mr)
    clusters = KMeans(3, n_init=50, random_state=1).fit_predict(evidence.target_features_mr[order])
    predicted = evidence.target_probabilities_mk.argmax(axis=1)[order]
    expected = adjusted_mutual_info_score(predicted, clusters)
    assert ClassAMI().score(evidence) == pytest.approx(expected)
    assert 0.3 < expected < 1


@pytest.mark.parametrize("loss", ["zero_one", "log"])
def test_source_risks_match_their_formulas(loss: Any) -> None:
    weights = np.random.default_rng(4).uniform(0.1, 3, size=24)
    evidence = replace(candidate(2), input_weights_v=weights, feature_weights_v=weights[::-1])
    p, y = evidence.source_probabilities_vk, evidence.source_labels_v
    assert p is not None and y is not None
    wrong = np.array([float(row.argmax() != label) for row, label in zip(p, y, strict=True)])
    costs = wrong if loss == "zero_one" else np.array([-math.log(row[label]) for row, label in zip(p, y, strict=True)])
    assert SourceAccuracy().score(evidence) == pytest.approx(1 - wrong.mean())
    iwcv = -sum(w * cost for w, cost in zip(weights, costs, strict=True)) / len(costs)
    assert ImportanceWeighted(loss).score(evidence) == pytest.approx(iwcv)
    assert DeepEmbeddedValidation(loss).score(evidence) == pytest.approx(dev_twin(costs, weights[::-1]))


def test_a_control_variate_takes_out_what_the_weights_explain() -> None:
    # Loss 1 everywhere: the weighted mean is the weights' mean, and the true risk is 1.
    weights = np.array([0.2, 0.5, 4.0])
    assert control_variate_risk(np.ones(3), weights) == pytest.approx(1.0)
    assert control_variate_risk([0.0, 1.0, 1.0], np.full(3, 2.0)) == pytest.approx(4 / 3)  # alike: nothing to take out
    with pytest.raises(DataError, match="at least 2 rows"):
        control_variate_risk([1.0], [1.0])


def test_density_ratio_is_that_of_two_normal_distributions() -> None:
    random = np.random.default_rng(5)
    source, target = random.normal(0, 1, (4000, 1)), random.normal(0.5, 1, (2000, 1))
    true = np.exp(0.5 * source[:, 0] - 0.125)
    estimated = density_ratio(source, target)
    assert np.abs(np.log(estimated / true)).max() < 0.25
    assert estimated.mean() == pytest.approx(1, abs=0.05)


def test_density_ratio_sparse_is_close_to_dense_and_keeps_the_order() -> None:
    random = np.random.default_rng(6)
    source, target = random.poisson(1.0, (60, 5)).astype(float), random.poisson(1.5, (50, 5)).astype(float)
    dense = density_ratio(source, target)
    assert (
        np.corrcoef(np.log(dense), np.log(density_ratio(sparse.csr_matrix(source), sparse.csr_matrix(target))))[0, 1]
        > 0.9
    )
    shuffle = random.permutation(60)
    np.testing.assert_array_equal(density_ratio(source[shuffle], target[::-1]), dense[shuffle])
    with pytest.raises(ShapeError, match="source has 5 features but target has 4"):
        density_ratio(source, target[:, :4])


def test_a_weight_left_out_is_estimated_from_the_rows() -> None:
    evidence = candidate(1)
    with_weights = replace(
        evidence,
        input_weights_v=density_ratio(evidence.source_rows_vd, evidence.target_rows_md),
        feature_weights_v=density_ratio(evidence.source_features_vr, evidence.target_features_mr),
    )
    assert ImportanceWeighted().score(evidence) == ImportanceWeighted().score(with_weights)
    assert DeepEmbeddedValidation().score(evidence) == DeepEmbeddedValidation().score(with_weights)


def test_a_ratio_over_shared_rows_is_estimated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(ImportanceWeighted, "_ratio", lambda self, evidence: calls.append(1) or np.ones(24))
    shared = candidate()
    ImportanceWeighted().scores({"a": shared, "b": replace(shared, refit=None)})
    assert len(calls) == 1


@pytest.mark.parametrize("balanced", [False, True])
def test_circular_validation_there_and_back(balanced: bool) -> None:
    evidence = candidate(2)
    pseudo = evidence.target_probabilities_mk.argmax(axis=1)
    back = NearestCentroid().fit(evidence.target_rows_md, pseudo).predict(evidence.source_rows_vd)
    labels = evidence.source_labels_v
    expected = balanced_accuracy_score(labels, back) if balanced else np.mean(back == labels)
    assert CircularValidation(balanced).score(evidence) == pytest.approx(expected)


def test_circular_validation_adapts_back_to_the_training_rows() -> None:
    seen: list[Any] = []

    def refit(rows: Any, labels: Any, target: Any) -> NearestCentroid:
        seen.append((rows, labels, target))
        return NearestCentroid().fit(rows, labels)

    evidence = replace(candidate(), refit=refit)
    training = np.zeros((2, 4))
    CircularValidation().score(evidence)
    CircularValidation().score(replace(evidence, source_training_nd=training))
    assert seen[0][0] is evidence.target_rows_md and seen[0][2] is evidence.source_rows_vd
    assert seen[1][2] is training
    np.testing.assert_array_equal(seen[0][1], evidence.target_probabilities_mk.argmax(axis=1))


def mixval_twin(evidence: CandidateEvidence, mixing: float) -> tuple[float, float]:
    """Every ordered pair of different rows: what many rounds of random partners come to."""
    rows, predict = evidence.target_rows_md, evidence.predict_target
    assert predict is not None
    answers = {0: [], 1: []}  # type: dict[int, list[bool]]
    own = evidence.target_probabilities_mk.argmax(axis=1)
    for i in range(len(rows)):
        for j in range(len(rows)):
            if i != j:
                mixed = predict((mixing * rows[i] + (1 - mixing) * rows[j])[None])
                answers[int(own[i] != own[j])].append(bool(mixed.argmax() == own[i]))
    return float(np.mean(answers[0])), float(np.mean(answers[1]))


@pytest.mark.parametrize("mixing", [0.55, 0.8])
def test_mixval_probes_match_their_formula(mixing: float) -> None:
    rows = np.random.default_rng(7).normal(size=(12, 2))
    # Rings are not convex, so that both probes have something to find.
    predict = lambda rows: np.eye(2)[(np.linalg.norm(rows, axis=1) > 1).astype(int)] * 0.8 + 0.1  # noqa: E731
    evidence = CandidateEvidence(target_probabilities_mk=predict(rows), target_rows_md=rows, predict_target=predict)
    found = MixVal(mixing, num_rounds=400).consistency(evidence)
    expected = mixval_twin(evidence, mixing)
    assert found == pytest.approx(expected, abs=0.03)
    assert 0.1 < expected[0] < 1 and 0.1 < expected[1] < 1


def test_mixval_is_the_mean_of_two_ranks() -> None:
    shares = {"a": (0.9, 0.2), "b": (0.5, 0.6), "c": (0.5, math.nan)}
    named = dict(zip(shares, candidates().values(), strict=True))

    class Given(MixVal):
        def consistency(self, evidence: CandidateEvidence) -> tuple[float, float]:
            return next(shares[name] for name, own in named.items() if own is evidence)

    # a beats both within, b and c tie; between, b beats both, a beats c, c has no boundary.
    assert values(Given(), named) == pytest.approx([(1 + 0.5) / 2, (0.25 + 1) / 2, (0.25 + 0) / 2])


def test_mixval_takes_sparse_rows() -> None:
    evidence = candidate()
    assert evidence.predict_target is not None
    sparse_rows = replace(evidence, target_rows_md=sparse.csr_matrix(evidence.target_rows_md))
    intra, inter = MixVal(num_rounds=50).consistency(sparse_rows)
    assert intra == 1.0  # a linear classifier's classes are convex
    assert inter == pytest.approx(MixVal(num_rounds=50).consistency(evidence)[1], abs=0.05)


def test_mixval_asks_each_member_of_a_committee_for_rows_as_it_knows_them() -> None:
    random = np.random.default_rng(3)
    rows = random.normal(size=(30, 3))
    first, second = (linear_probabilities(random.normal(size=(3, 2)) * 3) for _ in range(2))
    turn = random.normal(size=(3, 3))
    own = rows @ turn + 5.0  # the same rows as the second member knows them
    members = [
        CandidateEvidence(target_probabilities_mk=first(rows), target_rows_md=rows, predict_target=first),
        CandidateEvidence(
            target_probabilities_mk=second(rows),
            target_rows_md=own,
            predict_target=lambda asked: second((asked - 5.0) @ np.linalg.inv(turn)),
        ),
    ]
    committee = committee_evidence(members)
    assert committee.predict_target is None
    plain = replace(committee, predict_target=lambda asked: (first(asked) + second(asked)) / 2, members=None)
    assert MixVal(0.6).consistency(committee) == MixVal(0.6).consistency(plain)  # mixing goes through a linear map
    assert MixVal(0.6, num_rounds=200).consistency(committee) == pytest.approx(mixval_twin(plain, 0.6), abs=0.03)
    assert MixVal().scores({"one": members[0], "both": committee})["both"].is_judged


def test_ensemble_agreement_matches_its_formula() -> None:
    named = candidates()
    mean = np.mean([evidence.target_probabilities_mk for evidence in named.values()], axis=0)
    expected = [np.mean(e.target_probabilities_mk.argmax(1) == mean.argmax(1)) for e in named.values()]
    assert values(EnsembleAgreement(), named) == pytest.approx(expected)
    assert min(expected) < 1


def test_rank_consensus_is_the_mean_share_of_candidates_beaten() -> None:
    named, rules = candidates(), [InfoMax(), SourceAccuracy(), RankMe()]
    shares = [list(rank_shares(rule.scores(named)).values()) for rule in rules]
    assert values(RankConsensus(rules), named) == pytest.approx(np.mean(shares, axis=0))


def test_rank_consensus_leaves_out_who_cannot_judge() -> None:
    named = {name: replace(evidence, refit=None) for name, evidence in candidates().items()}
    assert values(RankConsensus([InfoMax(), CircularValidation()]), named) == values(RankConsensus([InfoMax()]), named)
    unjudged = RankConsensus([CircularValidation()]).scores(named)
    assert all(not score.is_judged and "refit" in score.reason for score in unjudged.values())


def test_rank_consensus_puts_last_whom_a_rule_cannot_judge() -> None:
    named = candidates()
    named["first"] = replace(named["first"], refit=None)
    scores = RankConsensus([CircularValidation()]).scores(named)
    assert not scores["first"].is_judged and "refit" in scores["first"].reason
    both = RankConsensus([CircularValidation(), InfoMax()]).scores(named)
    assert both["first"].value == pytest.approx(rank_shares(InfoMax().scores(named))["first"] / 2)
    assert "refit" in both["first"].reason


def test_rank_shares_by_hand() -> None:
    scores = {"a": Score(1.0), "b": Score(1.0 + 1e-12), "c": Score(math.nan, "no"), "d": Score(0.0)}
    assert rank_shares(scores) == pytest.approx({"a": 2.5 / 3, "b": 2.5 / 3, "c": 0.0, "d": 1 / 3})
    assert rank_shares({"alone": Score(1.0)}) == {"alone": 0.0}


# ---------------------------------------------------------------- what changes nothing


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_the_order_of_rows_changes_no_score(rule: type[SelectionRule]) -> None:
    random = np.random.default_rng(8)
    target, source = random.permutation(30), random.permutation(24)

    def shuffled(evidence: CandidateEvidence) -> CandidateEvidence:
        return replace(
            evidence,
            **{
                name: getattr(evidence, name)[target]
                for name in evidence.available
                if name[-3:] in {"_mk", "_md", "_mr"}
            },
            **{
                name: getattr(evidence, name)[source]
                for name in evidence.available
                if name[-3:] in {"_vk", "_vd", "_vr"}
            },
            source_labels_v=np.asarray(evidence.source_labels_v)[source],
        )

    named = candidates()
    moved = {name: shuffled(evidence) for name, evidence in named.items()}
    assert values(rule(), moved) == pytest.approx(values(rule(), named), rel=1e-9)


def test_the_order_of_rows_does_not_move_clusters_of_noise() -> None:
    random = np.random.default_rng(10)
    noise, p = random.normal(size=(60, 6)), softmax(random.normal(size=(60, 5)))
    scores = set()
    for _ in range(5):
        order = random.permutation(60)
        scores.add(
            ClassAMI().score(CandidateEvidence(target_probabilities_mk=p[order], target_features_mr=noise[order]))
        )
    assert max(scores) - min(scores) < 1e-9


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_the_numbering_of_classes_changes_no_score(rule: type[SelectionRule]) -> None:
    new = np.array([2, 0, 1])  # column j was column new[j]
    old = np.argsort(new)

    def renamed(evidence: CandidateEvidence) -> CandidateEvidence:
        predict = evidence.predict_target
        assert predict is not None and evidence.source_probabilities_vk is not None
        return replace(
            evidence,
            target_probabilities_mk=evidence.target_probabilities_mk[:, new],
            source_probabilities_vk=evidence.source_probabilities_vk[:, new],
            source_labels_v=old[evidence.source_labels_v],
            predict_target=lambda rows: predict(rows)[:, new],
        )

    named = candidates()
    moved = {name: renamed(evidence) for name, evidence in named.items()}
    assert values(rule(), moved) == pytest.approx(values(rule(), named), rel=1e-9)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_score_depends_on_nothing_the_rule_does_not_need(rule: type[SelectionRule]) -> None:
    instance = rule() if rule is not RankConsensus else RankConsensus([InfoMax()])
    named = candidates()
    for need in instance.needs:
        kept = need | {"target_probabilities_mk"}
        lean = {
            name: CandidateEvidence(**{field: getattr(evidence, field) for field in kept & evidence.available})
            for name, evidence in named.items()
        }
        if any(instance.missing(evidence) for evidence in lean.values()):
            continue  # the alternative with weights, which this evidence leaves to be estimated
        if rule is CircularTest and need != instance.wants:
            continue  # another way back gives other scores (test_circular_test.py)
        assert values(instance, lean) == values(instance, named)
        for field in need - {"target_probabilities_mk"}:
            lacking = {name: replace(evidence, **{field: None}) for name, evidence in lean.items()}
            if not instance.missing(next(iter(lacking.values()))):
                continue
            assert all(not s.is_judged and field in s.reason for s in instance.scores(lacking).values())


tables = st.tuples(st.integers(1, 8), st.integers(2, 5), st.integers(0, 10_000)).map(
    lambda drawn: softmax(np.random.default_rng(drawn[2]).normal(size=drawn[:2]) * 5)
)


@settings(max_examples=50, deadline=None)
@given(tables)
def test_scores_stay_within_their_bounds(p: np.ndarray) -> None:
    evidence, num_classes = CandidateEvidence(target_probabilities_mk=p), p.shape[1]
    assert -math.log(num_classes) - 1e-9 <= PredictionEntropy().score(evidence) <= 0
    assert 0 <= InfoMax().score(evidence) <= math.log(num_classes) + 1e-9
    assert 0 < BatchNuclearNorm().score(evidence) <= 1 + 1e-9
    assert 1 - 1e-6 <= effective_rank(p) <= min(p.shape) + 1e-4
    if len(p) > 1:
        assert -1e-9 <= soft_neighbourhood_density(p) <= math.log(len(p) - 1) + 1e-9


@settings(max_examples=30, deadline=None)
@given(tables, st.floats(1e-3, 1e3))
def test_effective_rank_ignores_scale_and_density_the_length_of_rows(p: np.ndarray, factor: float) -> None:
    assert effective_rank(p * factor) == pytest.approx(effective_rank(p), rel=1e-9)
    if len(p) > 1:
        assert soft_neighbourhood_density(p * factor) == pytest.approx(
            soft_neighbourhood_density(p), rel=1e-6, abs=1e-9
        )


# ---------------------------------------------------------------- parameters and bad input

OTHER_VALUES: dict[type[SelectionRule], dict[str, Any]] = {
    ImportanceWeighted: {"loss": "log", "random_state": 1},
    DeepEmbeddedValidation: {"loss": "log", "random_state": 1},
    CircularTest: {"num_errors": 0.0},
    CircularValidation: {"balanced": True},
    ClassAMI: {"random_state": 1},
    SoftNeighbourhoodDensity: {"temperature": 0.5, "of": "features"},
    RankMe: {"eps": 1e-2},
    MixVal: {"mixing": 0.9, "num_rounds": 1, "random_state": 1},
    RankConsensus: {"rules": [SourceAccuracy()]},
}


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_every_parameter_changes_the_outcome(rule: type[SelectionRule]) -> None:
    import inspect

    parameters = set(inspect.signature(rule).parameters) if "__init__" in rule.__dict__ else set()
    others = OTHER_VALUES.get(rule, {})
    assert parameters == set(others)
    # Unclustered features, so that k-means has several resting places to choose from.
    noise = np.random.default_rng(9).normal(size=(30, 6))
    labels = candidate().source_labels_v
    assert labels is not None
    rings = lambda rows: np.eye(3)[(np.linalg.norm(rows, axis=1) * 2).astype(int) % 3] * 0.7 + 0.1  # noqa: E731
    evidence = replace(
        candidate(2),
        target_features_mr=noise,
        source_features_vr=noise[:24],
        source_labels_v=np.where(labels == 1, 1, 0),
        target_probabilities_mk=rings(candidate(2).target_rows_md),
        predict_target=rings,
    )
    for name, value in others.items():
        default, changed = rule(), rule(**{name: value})
        if isinstance(default, MixVal) and isinstance(changed, MixVal):
            assert default.consistency(evidence) != changed.consistency(evidence), name
        elif isinstance(default, CandidateRule) and isinstance(changed, CandidateRule):
            assert default.score(evidence) != changed.score(evidence), name
        elif rule is CircularTest:
            best, stay = (Score(0.5, outcomes=np.array(right)) for right in ([1.0, 0.0], [0.0, 1.0]))
            assert default.margin(best, stay) != changed.margin(best, stay), name
        else:
            assert values(default, candidates()) != values(changed, candidates()), name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImportanceWeighted("squared"), "ImportanceWeighted: loss must be one of zero_one, log; got 'squared'"),
        (lambda: DeepEmbeddedValidation("l2"), "loss must be one of"),
        (lambda: SoftNeighbourhoodDensity(0.0), "temperature must be above 0; got 0.0"),
        (lambda: SoftNeighbourhoodDensity(of="logits"), "of must be one of probabilities, features"),
        (lambda: RankMe(-1.0), "eps must be above 0"),
        (lambda: MixVal(0.5), "mixing must lie between 0.5 and 1"),
        (lambda: MixVal(num_rounds=0), "num_rounds must be at least 1; got 0"),
        (lambda: RankConsensus([]), "rules must be one selection rule or more"),
        (lambda: RankConsensus([InfoMax]), "rules must be one selection rule or more"),
    ],
)
def test_bad_parameters_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_too_few_rows_are_refused_in_words() -> None:
    one = CandidateEvidence(
        target_probabilities_mk=np.array([[0.2, 0.3, 0.5]]),
        target_features_mr=np.zeros((1, 2)),
        target_rows_md=np.zeros((1, 2)),
        predict_target=linear_probabilities(np.ones((2, 3))),
    )
    reasons = {
        SoftNeighbourhoodDensity(): "needs at least 2 rows; got 1",
        ClassAMI(): "at least as many target rows as classes; got 1 rows and 3 classes",
        MixVal(): "at least 2 target rows to mix; got 1",
        RankMe(): "all features are 0",
    }
    for rule, reason in reasons.items():
        score = rule.scores({"only": one})["only"]
        assert not score.is_judged and reason in score.reason
    assert math.isfinite(PredictionEntropy().score(one)) and math.isfinite(BatchNuclearNorm().score(one))


def test_answers_of_the_wrong_kind_are_refused() -> None:
    evidence = candidate()

    class Words:
        def predict(self, rows: Any) -> Any:
            return np.array(["a"] * len(rows))

    judged = CircularValidation().judge(replace(evidence, refit=lambda *arguments: Words()))
    assert "must return a class number for each of 24 rows" in judged.reason
    with pytest.raises(DataError, match="predict_target must return probabilities of shape"):
        MixVal().consistency(replace(evidence, predict_target=lambda rows: np.full((len(rows), 2), 0.5)))
    with pytest.raises(ShapeError, match=r"predict_target\(rows\) must be a matrix"):
        MixVal().consistency(replace(evidence, predict_target=lambda rows: np.zeros(len(rows))))


def test_a_refit_that_breaks_off_leaves_a_reason() -> None:
    def refit(*arguments: Any) -> Any:
        raise np.linalg.LinAlgError("singular matrix")

    score = CircularValidation().judge(replace(candidate(), refit=refit))
    assert not score.is_judged and score.reason == "LinAlgError: singular matrix"


def test_a_score_without_bounds_is_not_taken_for_one() -> None:
    class Endless(CandidateRule):
        facts = InfoMax.facts
        needs = InfoMax.needs

        def score(self, evidence: CandidateEvidence) -> float:
            return math.inf

    score = Endless().judge(candidate())
    assert not score.is_judged and "came out as inf" in score.reason


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_every_rule_says_what_it_is(rule: type[SelectionRule]) -> None:
    facts = rule.facts
    assert all((facts.title, facts.source, facts.unit, facts.bounds, facts.fails_when))
    fields = set(CandidateEvidence.__dataclass_fields__)
    assert rule().needs and all(need <= fields for need in rule().needs)
    assert rule.__doc__ and "Examples" in rule.__doc__


def test_kneighbours_work_as_a_refit_too() -> None:
    evidence = replace(candidate(), refit=lambda rows, labels, target: KNeighborsClassifier(1).fit(rows, labels))
    assert 0.5 < CircularValidation().score(evidence) <= 1
