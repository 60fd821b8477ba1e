"""Choosing: what a candidate is judged by, when adapting is chosen, what happens to ties and failures; and how rules fail."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.neighbors import NearestCentroid

from headstart.alignment import CORAL, AdaptedClassifier
from headstart.core.errors import ConfigError, DataError, HeadstartError, ShapeError
from headstart.evaluation import selection
from headstart.evaluation.selecting.agreement import RankConsensus
from headstart.evaluation.selection import (
    BatchNuclearNorm,
    CandidateEvidence,
    CircularValidation,
    ClassAMI,
    DeepEmbeddedValidation,
    EnsembleAgreement,
    FailedCandidate,
    ImportanceWeighted,
    InfoMax,
    MixVal,
    PredictionEntropy,
    RankMe,
    Score,
    Selection,
    SelectionRule,
    SoftNeighbourhoodDensity,
    SourceAccuracy,
    select,
)

STAY = "do not adapt"


def answers(classes: Any, sure: float, num_classes: int = 4) -> np.ndarray:
    """Probabilities that give ``sure`` more to a class than to the others, which share the rest alike."""
    return sure * np.eye(num_classes)[np.asarray(classes)] + (1 - sure) / num_classes


def evidence(classes: Any = (0, 1, 2, 3), sure: float = 0.5, **more: Any) -> CandidateEvidence:
    return CandidateEvidence(target_probabilities_mk=answers(classes, sure), **more)


class Fixed(SelectionRule):
    """Gives the scores it was made with."""

    facts = InfoMax.facts
    needs = InfoMax.needs

    def __init__(self, *values: float) -> None:
        self.values = values

    def scores(self, candidates: Any) -> dict[str, Score]:
        return {
            name: Score(value, "no luck" if math.isnan(value) else "")
            for name, value in zip(candidates, self.values, strict=True)
        }


def choose(*values: float, **options: Any) -> Selection:
    names = [STAY, "first", "second", "third"][: len(values)]
    return select({name: evidence() for name in names}, Fixed(*values), no_adaptation=STAY, **options)


# ---------------------------------------------------------------- no target labels


def test_there_is_no_way_to_pass_target_labels() -> None:
    names = {field.name for field in fields(CandidateEvidence)}
    assert not [name for name in names if "label" in name and "source" not in name]
    assert not [name for name in names if name.startswith("target") and name.endswith("_m")]
    for name in ("target_labels_m", "target_labels", "labels", "y", "y_target"):
        with pytest.raises(TypeError, match="unexpected keyword"):
            evidence(**{name: [0, 1, 2, 3]})
    with pytest.raises((AttributeError, TypeError)):
        evidence().target_labels_m = np.arange(4)  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        CandidateEvidence(answers([0, 1], 0.5))  # type: ignore[misc]  # by name alone


def test_a_vector_of_labels_is_no_target_evidence() -> None:
    labels = np.array([0, 1, 2, 3])
    for name in ("target_features_mr", "target_rows_md"):
        with pytest.raises(ShapeError, match="must be a matrix"):
            evidence(**{name: labels})
    with pytest.raises(ShapeError, match="must be a matrix"):
        CandidateEvidence(target_probabilities_mk=labels)


@pytest.mark.parametrize("rule", [cls for cls in vars(selection).values() if inspect.isclass(cls)])
def test_no_rule_has_a_method_that_takes_labels(rule: type) -> None:
    if not issubclass(rule, SelectionRule):
        return
    for name in ("scores", "score", "judge", "consistency"):
        if hasattr(rule, name):
            assert len(inspect.signature(getattr(rule, name)).parameters) == 2  # self and the evidence


# ---------------------------------------------------------------- evidence


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (np.zeros((0, 3)), ShapeError, "needs at least 1 rows; got 0"),
        (np.ones((3, 1)), ShapeError, "a column for each of at least 2 classes"),
        (np.full((2, 2), 0.4), DataError, "rows of target_probabilities_mk must sum to 1; row 0 sums to 0.8"),
        (np.array([[0.5, 0.5], [0.5, 0.6]]), DataError, "row 1 sums to 1.1"),
        (np.array([[3.0, -2.0]]), DataError, "must lie between 0 and 1; got -2 to 3. Apply softmax to logits"),
        (np.array([[np.nan, 1.0]]), DataError, "contains NaN or infinity; this candidate has failed"),
        (np.array([["a", "b"]]), DataError, "must hold numbers"),
    ],
)
def test_probabilities_that_are_none_are_refused(table: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        CandidateEvidence(target_probabilities_mk=table)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"source_probabilities_vk": answers([0], 0.5, 3)}, "has 3 classes but target_probabilities_mk has 4"),
        ({"source_labels_v": [0, 4]}, "must be class numbers 0 to 3"),
        ({"source_labels_v": [0.5]}, "must be class numbers 0 to 3"),
        ({"source_labels_v": ["cat"]}, "must be class numbers 0 to 3"),
        ({"source_labels_v": [[0]]}, "one class number a row"),
        (
            {"source_labels_v": [0, 1], "source_rows_vd": np.ones((3, 2))},
            "labels_v has 2 rows but source_rows_vd has 3",
        ),
        ({"target_rows_md": np.ones((3, 2))}, "target_probabilities_mk has 4 rows but target_rows_md has 3"),
        ({"target_features_mr": np.full((4, 2), np.inf)}, "contains NaN or infinity"),
        ({"target_rows_md": np.ones((4, 2)), "source_rows_vd": np.ones((1, 3))}, "the same number of features"),
        ({"target_features_mr": np.ones((4, 2)), "source_features_vr": np.ones((1, 3))}, "the same number of features"),
        ({"input_weights_v": [[1.0]]}, "one number a source row"),
        ({"input_weights_v": [1.0, -1.0]}, "at least 0 and not all 0"),
        ({"feature_weights_v": [0.0]}, "at least 0 and not all 0"),
    ],
)
def test_evidence_that_does_not_fit_is_refused(more: Any, message: str) -> None:
    with pytest.raises(HeadstartError, match=message):
        evidence(**more)


def test_half_precision_probabilities_are_taken() -> None:
    powers = np.exp(np.random.default_rng(0).normal(size=(50, 10)))
    half = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float16)
    kept = CandidateEvidence(target_probabilities_mk=half)
    assert kept.target_probabilities_mk.dtype == np.float16
    exact = CandidateEvidence(target_probabilities_mk=half.astype(np.float64))
    for rule in (PredictionEntropy(), InfoMax(), BatchNuclearNorm(), SoftNeighbourhoodDensity()):
        assert rule.score(kept) == pytest.approx(rule.score(exact), rel=1e-6)


# ---------------------------------------------------------------- choosing


def test_the_best_is_chosen_and_the_reason_given() -> None:
    choice = choose(0.5, 0.6, 0.75)
    assert choice.chosen == "second" and choice.adapts
    assert choice.reason == "second scores 0.75 by information maximisation, 0.25 above do not adapt (0.5)."
    assert choice.ranking == ("second", "first", STAY)
    assert choice.rule == "Fixed" and choice.no_adaptation == STAY and choice.margin == 0
    assert {name: score.value for name, score in choice.scores.items()} == {STAY: 0.5, "first": 0.6, "second": 0.75}


@pytest.mark.parametrize("gain", [-0.1, 0.0, 1e-13])
def test_what_does_not_beat_staying_is_not_chosen(gain: float) -> None:
    choice = choose(0.5, 0.4, 0.5 + gain)
    assert choice.chosen == STAY and not choice.adapts
    assert ", not above do not adapt (0.5)." in choice.reason


def test_a_margin_speaks_for_staying() -> None:
    assert choose(0.5, 0.6, margin=0.05).chosen == "first"
    assert "more than the margin of 0.05" in choose(0.5, 0.6, margin=0.05).reason
    stays = choose(0.5, 0.6, margin=0.1)
    assert stays.chosen == STAY  # not *more* than the margin
    assert "not more than the margin of 0.1 above do not adapt (0.5)" in stays.reason


def test_the_rule_has_a_margin_of_its_own() -> None:
    named = {STAY: evidence(), "first": evidence()}
    rule = Fixed(0.5, 0.55)
    rule.default_margin = 0.1
    assert select(named, rule, no_adaptation=STAY).chosen == STAY
    assert select(named, rule, no_adaptation=STAY, margin=0.0).chosen == "first"
    assert RankConsensus().default_margin > 0


def test_of_equal_candidates_the_first_is_taken() -> None:
    choice = choose(0.5, 0.7, 0.7 + 1e-14, 0.6)
    assert choice.chosen == "first"
    assert choice.reason.endswith("second scored the same; the first was taken.")


def test_infinite_margins_and_negative_ones_are_refused() -> None:
    for margin in (-0.1, math.inf, math.nan):
        with pytest.raises(ConfigError, match="margin must be a number of at least 0"):
            choose(0.5, 0.6, margin=margin)


def test_a_failed_candidate_stays_in_the_table() -> None:
    named = {"KMM": FailedCandidate("too few effective rows"), STAY: evidence(sure=0.2), "CORAL": evidence(sure=0.9)}
    choice = select(named, InfoMax(), no_adaptation=STAY)
    assert choice.chosen == "CORAL"
    assert list(choice.scores) == ["KMM", STAY, "CORAL"]
    assert choice.scores["KMM"].reason == "failed: too few effective rows" and not choice.scores["KMM"].is_judged
    assert choice.ranking == ("CORAL", STAY, "KMM")
    assert choice.to_dict()["scores"]["KMM"] == {"value": None, "reason": "failed: too few effective rows"}
    assert choice.to_dict()["chosen"] == "CORAL"


def test_a_candidate_without_a_score_is_not_chosen() -> None:
    choice = choose(0.5, math.nan, 0.6)
    assert choice.chosen == "second" and choice.scores["first"].reason == "no luck"
    assert choose(0.5, math.nan, math.nan).reason == "No adaptation could be judged by information maximisation."


def test_nothing_is_chosen_over_staying_that_was_not_judged() -> None:
    choice = choose(math.nan, 0.9)
    assert choice.chosen == STAY
    assert "could not be judged" in choice.reason and "no luck" in choice.reason


def test_staying_alone_is_a_choice() -> None:
    choice = select({STAY: evidence()}, InfoMax(), no_adaptation=STAY)
    assert choice.chosen == STAY


def test_what_cannot_be_decided_is_refused() -> None:
    named = {STAY: evidence(), "CORAL": evidence()}
    with pytest.raises(ConfigError, match=r"got 'do not adpat'\. Did you mean 'do not adapt'\?"):
        select(named, InfoMax(), no_adaptation="do not adpat")
    with pytest.raises(ConfigError, match="rule must be a selection rule"):
        select(named, InfoMax, no_adaptation=STAY)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="which holds no target labels, or FailedCandidate; got ndarray"):
        select({STAY: evidence(), "CORAL": np.ones(3)}, InfoMax(), no_adaptation=STAY)  # type: ignore[dict-item]
    with pytest.raises(DataError, match="itself failed, so there is nothing to fall back on: no memory"):
        select({STAY: FailedCandidate("no memory"), "CORAL": evidence()}, InfoMax(), no_adaptation=STAY)
    with pytest.raises(DataError, match="CircularValidation could judge no candidate; CircularValidation needs refit"):
        select(named, CircularValidation(), no_adaptation=STAY)


def test_candidates_that_cannot_be_set_against_each_other_are_refused() -> None:
    def pair(other: CandidateEvidence, rule: SelectionRule, **more: Any) -> Selection:
        return select({STAY: evidence(**more), "other": other}, rule, no_adaptation=STAY)

    fewer_rows, fewer_classes = (
        evidence([0, 1]),
        CandidateEvidence(target_probabilities_mk=answers([0, 1, 2, 2], 0.5, 3)),
    )
    for rule in (InfoMax(), EnsembleAgreement(), MixVal(), RankConsensus()):
        with pytest.raises(DataError, match="same number of target rows; 'do not adapt' has 4, 'other' has 2"):
            pair(fewer_rows, rule)
        with pytest.raises(DataError, match="same number of classes; 'do not adapt' has 4, 'other' has 3"):
            pair(fewer_classes, rule)
    wide, narrow = np.eye(4, 5), np.eye(4, 2)
    for rule in (RankMe(), SoftNeighbourhoodDensity(of="features"), RankConsensus([RankMe()])):
        with pytest.raises(DataError, match="this rule cannot compare such spaces"):
            pair(evidence(target_features_mr=narrow), rule, target_features_mr=wide)
    assert pair(evidence(target_features_mr=narrow), ClassAMI(), target_features_mr=wide).chosen
    with pytest.raises(DataError, match="the labels of 'other' differ"):
        pair(evidence(source_labels_v=[0, 1]), InfoMax(), source_labels_v=[1, 0])


def test_adapted_classifiers_are_chosen_where_they_help_and_not_where_they_do_not() -> None:
    """The whole way: CORAL undoes a change of scale, and is left alone where there is nothing to undo."""
    random = np.random.default_rng(0)
    scale = np.array([8.0, 0.1])
    centres = np.array([[-1.0, -1.0], [1.0, -1.0], [0.0, 2.0]])
    labels, held, other = (random.integers(3, size=120) for _ in range(3))
    train, source, target = (centres[classes] + random.normal(size=(120, 2)) * 0.2 for classes in (labels, held, other))

    def judged(aligner: Any, rows: np.ndarray) -> CandidateEvidence:
        estimator = AdaptedClassifier(aligner)
        fitted = clone(estimator).fit(train, labels, rows)
        return CandidateEvidence(
            target_probabilities_mk=fitted.predict_proba(rows),
            source_labels_v=held,
            source_rows_vd=source,
            target_rows_md=rows,
            source_training_nd=train,
            refit=lambda source, labels, target: clone(estimator).fit(source, labels, target),
            predict_target=fitted.predict_proba,
        )

    for rows, expected in ((target * scale, "CORAL"), (target, STAY)):
        named = {STAY: judged(None, rows), "CORAL": judged(CORAL(), rows)}
        choice = select(named, CircularValidation(), no_adaptation=STAY)
        assert choice.chosen == expected, choice.reason
        assert choice.margin == CircularValidation.default_margin > 0


# ---------------------------------------------------------------- how rules fail, so that nobody is surprised


def duel(rule: SelectionRule, good: CandidateEvidence, bad: CandidateEvidence) -> bool:
    """Return whether the rule prefers the bad candidate."""
    scores = rule.scores({"good": good, "bad": bad})
    return scores["bad"].value > scores["good"].value


TRUTH = np.repeat(np.arange(4), 6)
GOOD = CandidateEvidence(target_probabilities_mk=answers(TRUTH, 0.2))
COLLAPSED = CandidateEvidence(target_probabilities_mk=answers(np.zeros(24, dtype=int), 1.0))


@pytest.mark.parametrize("rule", [PredictionEntropy(), BatchNuclearNorm(), SoftNeighbourhoodDensity()])
def test_collapse_is_rewarded_by_confidence_and_density(rule: SelectionRule) -> None:
    assert duel(rule, GOOD, COLLAPSED)
    assert "collapse" in rule.facts.fails_when


def test_collapse_is_seen_by_the_others() -> None:
    random = np.random.default_rng(0)
    centres = np.eye(4) * 4
    rows, source = centres[TRUTH] + random.normal(size=(24, 4)), centres[TRUTH] + random.normal(size=(24, 4))
    shared: dict[str, Any] = {
        "source_rows_vd": source,
        "source_labels_v": TRUTH,
        "target_rows_md": rows,
        "target_features_mr": rows,
        "refit": lambda source, labels, target: NearestCentroid().fit(source, labels),
    }
    good = CandidateEvidence(
        target_probabilities_mk=GOOD.target_probabilities_mk,
        predict_target=lambda new: answers(np.argmax(new, axis=1), 0.2),
        **shared,
    )
    bad = CandidateEvidence(
        target_probabilities_mk=COLLAPSED.target_probabilities_mk,
        predict_target=lambda new: answers(np.zeros(len(new), dtype=int), 1.0),
        **shared,
    )
    for rule in (InfoMax(), CircularValidation(), ClassAMI(), MixVal(), RankConsensus()):
        assert not duel(rule, good, bad), rule.name
    assert CircularValidation().score(bad) == 0.25  # one class returns nothing but itself
    assert ClassAMI().score(bad) == 0.0
    assert math.isnan(MixVal().consistency(bad)[1])  # no boundary to probe


def test_one_predicted_class_over_equal_features_is_no_agreement() -> None:
    """One class and one cluster agree perfectly, and say nothing."""
    same = evidence([1, 1, 1, 1], target_features_mr=np.ones((4, 2)))
    assert ClassAMI().score(same) == 0.0


def test_a_single_predicted_class_needs_no_refit() -> None:
    def never(*arguments: Any) -> Any:
        raise AssertionError("a classifier cannot learn from one class")

    rows = np.zeros((4, 2))
    one = evidence([2, 2, 2, 2], source_rows_vd=rows, target_rows_md=rows, source_labels_v=[2, 2, 0, 1], refit=never)
    assert CircularValidation().score(one) == 0.5
    assert CircularValidation(balanced=True).score(one) == pytest.approx(1 / 3)


def test_circular_validation_cannot_see_swapped_classes() -> None:
    labels = np.repeat([0, 1], 10)
    rows = np.where(labels[:, None] == 0, -1.0, 1.0) + np.random.default_rng(0).normal(size=(20, 2)) * 0.1
    # The target is the source mirrored. The recipe mirrors wrongly, so all its target answers are wrong; so is its way back.
    swapped = CandidateEvidence(
        target_probabilities_mk=answers(1 - labels, 0.8, 2),
        target_rows_md=rows,
        source_rows_vd=rows,
        source_labels_v=labels,
        refit=lambda source, pseudo, target: NearestCentroid().fit(-source, pseudo),
    )
    assert CircularValidation().score(swapped) == 1.0
    assert "swapped" in CircularValidation.facts.fails_when


def test_information_maximisation_rewards_even_answers_over_right_ones() -> None:
    mostly_one = np.array([0] * 18 + [1] * 2 + [2] * 2 + [3] * 2)
    right, even = answers(mostly_one, 0.9), answers(TRUTH, 0.9)
    assert duel(
        InfoMax(), CandidateEvidence(target_probabilities_mk=right), CandidateEvidence(target_probabilities_mk=even)
    )


def test_effective_rank_rewards_noise() -> None:
    random = np.random.default_rng(0)
    useful = np.eye(8)[TRUTH] * 10 + random.normal(size=(24, 8)) * 0.1
    noise = random.normal(size=(24, 8))
    table = GOOD.target_probabilities_mk
    assert duel(
        RankMe(),
        CandidateEvidence(target_probabilities_mk=table, target_features_mr=useful),
        CandidateEvidence(target_probabilities_mk=table, target_features_mr=noise),
    )


def test_source_accuracy_never_looks_at_the_target() -> None:
    source = {"source_probabilities_vk": answers([0, 1], 0.9), "source_labels_v": [0, 1]}
    right, wrong = evidence([0, 1, 2, 3], **source), evidence([3, 2, 1, 0], **source)
    assert SourceAccuracy().score(right) == SourceAccuracy().score(wrong) == 1.0


def test_estimated_risks_leave_their_range_when_a_few_weights_dominate() -> None:
    weights = [0.01, 0.01, 0.01, 6.0]
    wrong_once = evidence(
        source_probabilities_vk=answers([0, 1, 2, 0], 0.9),
        source_labels_v=[0, 1, 2, 3],
        input_weights_v=weights,
        feature_weights_v=weights,
    )
    assert ImportanceWeighted().score(wrong_once) == pytest.approx(-1.5)  # a share of rows above 1
    losses = evidence(
        source_probabilities_vk=answers([3, 1, 2, 3], 0.9),
        source_labels_v=[0, 1, 2, 3],
        feature_weights_v=[2.5, 2.4, 2.6, 3.5],
    )
    assert not -1 <= DeepEmbeddedValidation().score(losses) <= 0


def test_agreement_follows_a_wrong_majority() -> None:
    wrong = answers((TRUTH + 1) % 4, 0.9)
    named = {
        "right": CandidateEvidence(target_probabilities_mk=answers(TRUTH, 0.9)),
        **{f"copy {n}": CandidateEvidence(target_probabilities_mk=wrong) for n in range(3)},
    }
    scores = EnsembleAgreement().scores(named)
    assert scores["right"].value == 0.0 and scores["copy 0"].value == 1.0


def test_consensus_keeps_the_worst_of_a_collapse_away_where_single_rules_do_not() -> None:
    """Over every pair of the default voters, a collapsed candidate never wins by the margin."""
    voters = RankConsensus().rules
    assert len(voters) >= 3
    usable = [rule for rule in voters if rule.missing(GOOD) == ()]
    assert len(usable) >= 2
    named = {STAY: GOOD, "also": CandidateEvidence(target_probabilities_mk=answers(TRUTH, 0.3)), "collapsed": COLLAPSED}
    for pair in combinations(usable, 2):
        assert select(named, RankConsensus(pair), no_adaptation=STAY).chosen != "collapsed"
    assert select(named, PredictionEntropy(), no_adaptation=STAY).chosen == "collapsed"
