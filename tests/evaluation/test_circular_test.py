"""The paired circular test and committees: formulas by twins and by hand, who is chosen, and what happens without a way back."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from headstart.core.errors import ConfigError, DataError
from headstart.evaluation.selecting.rule import paired_error
from headstart.evaluation.selection import (
    CandidateEvidence,
    CircularTest,
    CircularValidation,
    FailedCandidate,
    InfoMax,
    MixVal,
    Score,
    SourceAccuracy,
    committee_evidence,
    select,
)

STAY = "do not adapt"
CENTRES = np.array([[-2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])


def onehot(classes: Any, sure: float = 0.8) -> np.ndarray:
    return sure * np.eye(3)[np.asarray(classes)] + (1 - sure) / 3


def evidence(flipped: float = 0.0, seed: int = 0, *, model: Any = None, **more: Any) -> CandidateEvidence:
    """A candidate that answers a share of the target rows at random, with a plain classifier for the way back."""
    fixed, own = np.random.default_rng(0), np.random.default_rng(seed)
    trained, held, truth = (fixed.integers(3, size=size) for size in (60, 20, 50))
    rows = [CENTRES[labels] + fixed.normal(size=(len(labels), 3)) for labels in (trained, held, truth)]
    answers = np.where(own.random(50) < flipped, own.integers(3, size=50), truth)
    model = LogisticRegression() if model is None else model
    given: dict[str, Any] = {
        "target_probabilities_mk": onehot(answers),
        "source_rows_vd": rows[1],
        "source_labels_v": held,
        "source_training_nd": rows[0],
        "source_training_labels_n": trained,
        "target_rows_md": rows[2],
        "refit": lambda source, labels, target: model.__class__().fit(source, labels),
    }
    return CandidateEvidence(**{**given, **more})


def returned_twin(candidate: CandidateEvidence) -> np.ndarray:
    """The way back written out: learn the answers on target rows, name the source rows."""
    answers = candidate.target_probabilities_mk.argmax(axis=1)
    model = LogisticRegression().fit(candidate.target_rows_md, answers)
    table = np.zeros((80, 3))
    for place, row in enumerate([*candidate.source_rows_vd, *candidate.source_training_nd]):
        for column, value in zip(model.classes_, model.predict_proba(row[None])[0], strict=True):
            table[place, column] = value
    return table


def labels_of(candidate: CandidateEvidence) -> np.ndarray:
    return np.array([*candidate.source_labels_v, *candidate.source_training_labels_n])  # type: ignore[misc]


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize("flipped", [0.0, 0.5, 0.9])
def test_the_share_of_all_labels_that_return(flipped: float) -> None:
    candidate = evidence(flipped)
    score = CircularTest().scores({"one": candidate})["one"]
    right = returned_twin(candidate).argmax(axis=1) == labels_of(candidate)
    np.testing.assert_array_equal(score.outcomes, right.astype(float))
    assert score.value == pytest.approx(sum(right) / 80)


def test_a_committee_returns_the_mean_of_what_its_members_return() -> None:
    members = [evidence(0.6, seed) for seed in (1, 2, 3)]
    committee = committee_evidence(members)
    mean = sum(returned_twin(member) for member in members) / 3
    np.testing.assert_allclose(CircularTest().returned(committee), mean, atol=1e-8)
    score = CircularTest().scores({"committee": committee})["committee"]
    assert score.value == pytest.approx(np.mean(mean.argmax(axis=1) == labels_of(members[0])))


def test_members_go_back_once_for_themselves_and_their_committee() -> None:
    calls: list[int] = []

    def refit(rows: Any, labels: Any, target: Any) -> Any:
        calls.append(1)
        return LogisticRegression().fit(rows, labels)

    members = {name: evidence(0.5, seed, refit=refit) for name, seed in (("a", 1), ("b", 2))}
    CircularTest().scores({**members, "committee": committee_evidence(list(members.values()))})
    assert len(calls) == 2


def test_the_paired_error_by_hand() -> None:
    # Three rows differ of five: sqrt(1 + 1 + 1) / 5.
    first, second = Score(0.6, outcomes=np.array([1, 1, 1, 0, 0.0])), Score(0.4, outcomes=np.array([0, 0, 1, 0, 1.0]))
    assert paired_error(first, second) == pytest.approx(math.sqrt(3) / 5)
    assert paired_error(first, first) == 0
    with pytest.raises(DataError, match="outcomes of the same rows"):
        paired_error(first, Score(0.5))
    with pytest.raises(DataError, match="outcomes of the same rows"):
        paired_error(first, Score(0.5, outcomes=np.zeros(4)))


def test_the_paired_error_is_mcnemars_under_the_null() -> None:
    random = np.random.default_rng(0)
    first, second = (random.random((2, 4000)) < [[0.7], [0.7]]).astype(float)
    only_first, only_second = np.sum(first > second), np.sum(second > first)
    z = (first.mean() - second.mean()) / paired_error(Score(0.0, outcomes=first), Score(0.0, outcomes=second))
    assert z == pytest.approx((only_first - only_second) / math.sqrt(only_first + only_second))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_the_order_of_source_rows_changes_no_score(seed: int) -> None:
    candidate, random = evidence(0.4), np.random.default_rng(seed)
    held, trained = random.permutation(20), random.permutation(60)
    shuffled = replace(
        candidate,
        source_rows_vd=candidate.source_rows_vd[held],
        source_labels_v=candidate.source_labels_v[held],  # type: ignore[index]
        source_training_nd=candidate.source_training_nd[trained],
        source_training_labels_n=candidate.source_training_labels_n[trained],  # type: ignore[index]
    )
    scores = CircularTest().scores({"a": candidate, "b": shuffled})
    assert scores["a"].value == pytest.approx(scores["b"].value, abs=1e-12)


# ---------------------------------------------------------------- who is chosen


class Outcomes(CircularTest):
    """Scores with the outcomes it was made with, so that a choice can be worked out by hand."""

    def __init__(self, num_errors: float, **right: Any) -> None:
        super().__init__(num_errors)
        self.right = right

    def scores(self, candidates: Any) -> dict[str, Score]:
        return {
            name: Score(float(np.mean(self.right[name])), outcomes=np.array(self.right[name])) for name in candidates
        }


def rows(right: int, wrong: int, of: int = 100) -> list[float]:
    """``of`` rows, the first 80 right; ``right`` more become right, ``wrong`` of the first become wrong."""
    found = np.zeros(of)
    found[: of - 20] = 1
    found[of - 20 : of - 20 + right] = 1
    found[:wrong] = 0
    return [float(value) for value in found]


@pytest.mark.parametrize(
    ("right", "wrong", "num_errors", "adapts"),
    [
        (4, 0, 1.5, True),  # 4 / sqrt(4) = 2
        (4, 0, 2.5, False),
        (9, 5, 1.0, True),  # 4 / sqrt(14) = 1.07: the same gain, less sure
        (9, 5, 1.5, False),
        (1, 0, 1.0, False),  # one row of difference is one standard error, never more
        (0, 0, 0.0, False),  # a tie stays
        (1, 0, 0.0, True),
    ],
)
def test_a_candidate_must_return_more_than_chance_explains(
    right: int, wrong: int, num_errors: float, adapts: bool
) -> None:
    rule = Outcomes(num_errors, stay=rows(0, 0), moved=rows(right, wrong))
    choice = select({"stay": evidence(), "moved": evidence()}, rule, no_adaptation="stay")
    assert choice.adapts is adapts
    assert choice.margin == pytest.approx(num_errors * math.sqrt(right + wrong) / 100)


def test_a_saturated_return_can_still_be_beaten() -> None:
    """Where 98 of 100 labels return, a margin of 0.08 cannot be; four rows more of a thousand are two standard errors."""
    stay = np.r_[np.ones(980), np.zeros(20)]
    moved = np.r_[np.ones(984), np.zeros(16)]
    rule = Outcomes(1.5, stay=stay, moved=moved)
    named = {"stay": evidence(), "moved": evidence()}
    assert select(named, rule, no_adaptation="stay").chosen == "moved"
    assert select(named, rule, no_adaptation="stay", margin=0.08).chosen == "stay"


def test_a_committee_that_passes_goes_first() -> None:
    members = {"stay": evidence(), "one": evidence(0.1), "two": evidence(0.2)}
    named = {**members, "committee": committee_evidence(list(members.values()))}
    rule = Outcomes(1.0, stay=rows(0, 0), one=rows(12, 0), two=rows(2, 2), committee=rows(6, 0))
    choice = select(named, rule, no_adaptation="stay")
    assert choice.chosen == "committee" and choice.reason.endswith(
        "one scored more, but committee goes first wherever it passes."
    )
    short = Outcomes(3.0, stay=rows(0, 0), one=rows(12, 0), two=rows(2, 2), committee=rows(6, 0))
    assert select(named, short, no_adaptation="stay").chosen == "one"  # 6 / sqrt(6) falls short of 3
    none = Outcomes(4.0, stay=rows(0, 0), one=rows(12, 0), two=rows(2, 2), committee=rows(6, 0))
    assert select(named, none, no_adaptation="stay").chosen == "stay"


def test_a_surer_candidate_is_taken_where_a_better_score_is_noise() -> None:
    rule = Outcomes(1.5, stay=rows(0, 0), loud=rows(16, 10), sure=rows(5, 0))  # 6/sqrt(26) = 1.2, 5/sqrt(5) = 2.2
    named = {"stay": evidence(), "loud": evidence(), "sure": evidence()}
    assert select(named, rule, no_adaptation="stay").chosen == "sure"


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(["one", "two", "three", "committee"]), seed=st.integers(0, 1000))
def test_the_order_of_candidates_changes_no_choice_but_between_ties(order: list[str], seed: int) -> None:
    random = np.random.default_rng(seed)
    chances = dict(zip(["stay", *order], random.random(5), strict=True))
    right = {name: (random.random(60) < chance).astype(float) for name, chance in chances.items()}
    base = {"stay": evidence(), "one": evidence(0.1), "two": evidence(0.2), "three": evidence(0.3)}
    base["committee"] = committee_evidence(list(base.values()))
    first = select(base, Outcomes(1.0, **right), no_adaptation="stay")
    second = select(
        {"stay": base["stay"], **{name: base[name] for name in order}}, Outcomes(1.0, **right), no_adaptation="stay"
    )
    assert first.scores[first.chosen].value == second.scores[second.chosen].value
    assert (first.chosen == "stay") == (second.chosen == "stay")


def test_failed_candidates_stay_in_the_table_and_the_rest_is_judged() -> None:
    def broken(*arguments: Any) -> Any:
        raise DataError("no way back")

    named = {
        STAY: evidence(0.9),
        "lost": FailedCandidate("no memory"),
        "broken": evidence(refit=broken),
        "good": evidence(),
    }
    choice = select(named, CircularTest(), no_adaptation=STAY)
    assert choice.chosen == "good"
    assert choice.scores["lost"].reason == "failed: no memory"
    assert choice.scores["broken"].reason == "DataError: no way back" and not choice.scores["broken"].is_judged
    alone = select({STAY: evidence()}, CircularTest(), no_adaptation=STAY)
    assert alone.chosen == STAY


def test_a_single_predicted_class_returns_itself_without_a_fit() -> None:
    def never(*arguments: Any) -> Any:
        raise AssertionError("a classifier cannot learn from one class")

    one = evidence(target_probabilities_mk=onehot(np.full(50, 2)), refit=never)
    assert CircularTest().scores({"one": one})["one"].value == pytest.approx(np.mean(labels_of(one) == 2))


def test_standard_errors_must_be_a_number() -> None:
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="num_errors must be a number of at least 0"):
            CircularTest(value)


# ---------------------------------------------------------------- evidence that is not whole


def test_predictors_without_probabilities_answer_by_class() -> None:
    candidate = evidence(0.3, model=NearestCentroid())

    class Bare:
        def __init__(self, rows: Any, labels: Any) -> None:
            self._model = NearestCentroid().fit(rows, labels)

        def predict(self, new: Any) -> Any:
            return self._model.predict(new)

    bare = replace(candidate, refit=lambda source, labels, target: Bare(source, labels))
    expected = NearestCentroid().fit(candidate.target_rows_md, candidate.target_probabilities_mk.argmax(axis=1))
    answers = expected.predict(np.concatenate([candidate.source_rows_vd, candidate.source_training_nd]))
    np.testing.assert_array_equal(CircularTest().returned(bare), np.eye(3)[answers])
    wrong = replace(candidate, refit=lambda *given: type("Short", (), {"predict": lambda self, new: np.zeros(2)})())
    assert "class number for each of 80 rows" in CircularTest().scores({"a": wrong})["a"].reason


def test_without_labels_of_trained_rows_held_out_rows_alone_are_judged() -> None:
    candidate = evidence(0.5, source_training_labels_n=None)
    right = returned_twin(evidence(0.5)).argmax(axis=1)[:20] == candidate.source_labels_v
    assert CircularTest().scores({"a": candidate})["a"].value == pytest.approx(right.mean())
    assert CircularTest().scores({"a": candidate})["a"].value == pytest.approx(CircularValidation().score(candidate))


def test_without_a_way_back_features_stand_in_and_all_are_judged_on_held_out_rows() -> None:
    whole = evidence(0.2)
    network = evidence(
        0.2,
        refit=None,
        source_features_vr=np.asarray(whole.source_rows_vd) * 2,
        target_features_mr=np.asarray(whole.target_rows_md) * 2,
    )
    scores = CircularTest().scores({STAY: whole, "network": network})
    assert scores[STAY].outcomes is not None and scores["network"].outcomes is not None
    assert scores[STAY].outcomes.shape == scores["network"].outcomes.shape == (20,)
    np.testing.assert_array_equal(
        scores[STAY].outcomes, (returned_twin(whole).argmax(axis=1)[:20] == whole.source_labels_v).astype(float)
    )
    features, other = (
        np.asarray(value, dtype=float) for value in (network.target_features_mr, network.source_features_vr)
    )
    centred = features - features.mean(axis=0)
    wanted = np.eye(3)[network.target_probabilities_mk.argmax(axis=1)]
    penalty = sum(float(row @ row) for row in centred) / len(centred)
    weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(3), centred.T @ (wanted - wanted.mean(axis=0)))
    expected = (other - features.mean(axis=0)) @ weights + wanted.mean(axis=0)
    np.testing.assert_allclose(CircularTest().returned(network), expected, atol=1e-10)


def test_with_neither_a_candidate_is_not_judged_and_not_chosen() -> None:
    bare = CandidateEvidence(target_probabilities_mk=evidence().target_probabilities_mk)
    choice = select({STAY: evidence(0.9), "bare": bare}, CircularTest(), no_adaptation=STAY)
    assert choice.chosen == STAY and "CircularTest needs" in choice.scores["bare"].reason


# ---------------------------------------------------------------- committees as candidates


def test_a_committee_averages_what_its_members_say() -> None:
    def predict(rows: Any) -> np.ndarray:
        return onehot(np.zeros(len(rows), dtype=int))

    members = [
        evidence(0.5, seed, source_probabilities_vk=onehot(np.full(20, seed)), predict_target=predict)
        for seed in (1, 2)
    ]
    committee = committee_evidence(members)
    np.testing.assert_allclose(
        committee.target_probabilities_mk,
        (members[0].target_probabilities_mk + members[1].target_probabilities_mk) / 2,
    )
    np.testing.assert_allclose(committee.source_probabilities_vk, (onehot(np.full(20, 1)) + onehot(np.full(20, 2))) / 2)
    assert committee.source_labels_v is members[0].source_labels_v or np.array_equal(
        committee.source_labels_v,
        members[0].source_labels_v,  # type: ignore[arg-type]
    )
    assert InfoMax().score(committee) > 0 and 0 <= SourceAccuracy().score(committee) <= 1
    assert not MixVal().missing(committee)
    # Another rule's way back: every member learns the committee's own answers, and their mean decides.
    answers = committee.target_probabilities_mk.argmax(axis=1)
    model = LogisticRegression().fit(committee.target_rows_md, answers)
    expected = np.mean(model.predict(committee.source_rows_vd) == committee.source_labels_v)
    assert CircularValidation().score(committee) == pytest.approx(expected)


def test_what_not_all_members_have_a_committee_has_not() -> None:
    committee = committee_evidence(
        [evidence(source_probabilities_vk=onehot(np.zeros(20, dtype=int))), evidence(refit=None)]
    )
    assert committee.source_probabilities_vk is None and committee.refit is None and committee.predict_target is None
    with pytest.raises(DataError, match="at least two members; got 1"):
        committee_evidence([evidence()])
    with pytest.raises(DataError, match="the same rows and classes"):
        committee_evidence([evidence(), CandidateEvidence(target_probabilities_mk=onehot([0, 1]))])


def test_a_member_that_knows_rows_by_features_of_its_own_is_handed_those() -> None:
    """One member sees the rows doubled and moved: whatever asks the committee, it must never be given the others' features."""
    first = evidence(0.3, 1)
    asked: list[Any] = []

    class Nearest(NearestCentroid):
        def fit(self, rows: Any, labels: Any) -> Any:
            asked.append(rows)
            return super().fit(rows, labels)

        def predict_proba(self, rows: Any) -> Any:
            asked.append(rows)
            return super().predict_proba(rows)

    def own(rows: Any) -> Any:
        return 2 * rows[:, :2] + 5

    names = ("source_rows_vd", "source_training_nd", "target_rows_md")
    second = evidence(0.3, 2, model=Nearest(), **{name: own(getattr(first, name)) for name in names})
    committee = committee_evidence([first, second])
    np.testing.assert_allclose(
        CircularTest().returned(committee), (CircularTest().returned(first) + CircularTest().returned(second)) / 2
    )
    assert all(getattr(committee, name) is getattr(first, name) for name in names)
    asked.clear()
    score = CircularValidation().score(committee)
    assert len(asked) == 2
    np.testing.assert_array_equal(asked[0], own(first.target_rows_md))
    np.testing.assert_array_equal(asked[1], own(first.source_rows_vd))
    answers = committee.target_probabilities_mk.argmax(axis=1)
    voters = [LogisticRegression().fit(first.target_rows_md, answers).predict_proba(first.source_rows_vd)]
    voters += [NearestCentroid().fit(own(first.target_rows_md), answers).predict_proba(own(first.source_rows_vd))]
    assert score == np.mean(np.mean(voters, axis=0).argmax(axis=1) == first.source_labels_v)


def test_members_that_know_rows_by_their_own_features_go_back_over_those_alone() -> None:
    def predict(rows: Any) -> np.ndarray:
        return onehot(np.zeros(len(rows), dtype=int))

    members = [evidence(seed=1, predict_target=predict), evidence(seed=2, predict_target=predict)]
    assert not MixVal().missing(committee_evidence(members))
    moved = [members[0], replace(members[1], target_rows_md=members[1].target_rows_md + 1)]
    committee = committee_evidence(moved)
    assert committee.predict_target is None and not MixVal().missing(committee)
    without = committee_evidence([moved[0], replace(moved[1], predict_target=None)])
    assert MixVal().missing(without) == ("predict_target",)
    assert committee.refit is not None
    with pytest.raises(DataError, match="features of its own, and has none of a row"):
        committee.refit(np.ones((2, 3)), [0, 1], committee.source_training_nd)
