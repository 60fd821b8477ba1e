"""Domain classifier, novelty, and the five diagnoses on domains whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from headstart.core.errors import DomainError
from headstart.distances import (
    SUGGESTIONS,
    bbse,
    classify_domains,
    diagnose,
    inspect_gap,
    novelty_of_rows,
    proxy_a_distance,
    shifted_features,
)
from headstart.distances.proxy_a import _Problem

KINDS = list(SUGGESTIONS)


def domains(kind: str, seed: int, num_rows: int = 300, width: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return source rows, their labels and target rows of three classes, and of a fourth where new classes are asked for."""
    random = np.random.default_rng([seed, len(kind)])
    centres = np.zeros((4, width))
    centres[0, 0], centres[1, 0], centres[2, 1], centres[3, -1] = -2, 2, 3, 7

    def draw(shares: list[float]) -> tuple[np.ndarray, np.ndarray]:
        labels = random.choice(len(shares), num_rows, p=shares)
        return centres[labels] + random.normal(size=(num_rows, width)), labels

    equal = [1 / 3, 1 / 3, 1 / 3]
    source, labels = draw(equal)
    target, _ = draw(
        {"label shift": [0.1, 0.3, 0.6], "new classes suspected": [0.27, 0.27, 0.26, 0.2]}.get(kind, equal)
    )
    if kind == "covariate shift":
        target[:, 2:4] += [1.0, 0.8]
    if kind == "support mismatch":
        target += 6 / width**0.5
    if kind == "wider":
        target[:, 2] *= 2
    return source, labels, target


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_recognised(kind: str, seed: int) -> None:
    source, labels, target = domains(kind, seed)
    found = inspect_gap(source, target, source_labels_n=labels, seed=seed)
    assert found.kind == kind, found.text
    assert "do-not-adapt" in found.suggestions
    assert found.text.lower().startswith(kind)


@pytest.mark.golden
@pytest.mark.parametrize("shape", [(150, 6), (1000, 4), (1000, 30), (2000, 100)])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_recognised_in_other_sizes(kind: str, shape: tuple[int, int]) -> None:
    hits = []
    for seed in range(10, 15):
        source, labels, target = domains(kind, seed, *shape)
        hits.append(inspect_gap(source, target, source_labels_n=labels, seed=seed).kind == kind)
    assert sum(hits) >= 4


@pytest.mark.golden
def test_a_wider_target_is_no_new_class() -> None:
    kinds = []
    for seed in range(8):
        source, labels, target = domains("wider", seed, 500)
        kinds.append(inspect_gap(source, target, source_labels_n=labels, seed=seed).kind)
    assert kinds.count("covariate shift") >= 6 and kinds.count("label shift") == 0


def test_without_labels_label_shift_is_not_claimed() -> None:
    source, _, target = domains("label shift", 0)
    found = inspect_gap(source, target)
    assert found.kind == "covariate shift" and "label shift cannot be told apart" in found.text
    assert found.label_shift is None


def test_given_predictions_are_used() -> None:
    source, labels, target = domains("label shift", 0)
    model = LogisticRegression(max_iter=500).fit(source[::2], labels[::2])
    names = np.array(["a", "b", "c"])
    probabilities: list[Any] = [model.predict_proba(rows) for rows in (source, target)]
    found = inspect_gap(
        source, target, source_labels_n=names[labels], source_probabilities_nk=probabilities[0],
        target_probabilities_mk=probabilities[1],
    )  # fmt: skip
    assert found.kind == "label shift" and found.label_shift is not None
    direct = bbse(probabilities[0], names[labels], probabilities[1], classes=["a", "b", "c"])
    assert found.label_shift.target_priors_k == pytest.approx(direct.target_priors_k)


def test_a_source_of_one_class_is_said_not_raised() -> None:
    source, _, target = domains("covariate shift", 0)
    found = inspect_gap(source, target, source_labels_n=np.zeros(len(source)))
    assert found.kind == "covariate shift" and "two classes" in found.text and found.label_shift is None


def test_leverage_and_features_point_at_the_shift() -> None:
    source, _, _ = domains("no shift", 0)
    target = domains("no shift", 1)[0].copy()
    target[:40, 3] += 5.0  # the first rows carry all of it
    found = inspect_gap(source, target, feature_names=["a", "b", "c", "d", "e", "f"])
    assert (found.unlike_source_rows < 40).all() and len(found.unlike_source_rows) == 20
    assert found.features[0].name == "d" and found.features[0].weight > 0
    pooled = np.sqrt((source[:, 3].var() + target[:, 3].var()) / 2)
    assert found.features[0].difference == pytest.approx((target[:, 3].mean() - source[:, 3].mean()) / pooled)
    assert len(inspect_gap(source, target, num_features=2).features) == 2


def test_constant_features_that_differ_are_infinitely_far() -> None:
    source, target = np.zeros((3, 2)), np.tile([0.0, 2.0], (3, 1))
    first, second = shifted_features(source, target, [0.0, 1.0])
    assert (first.feature, first.difference) == (1, np.inf) and second.difference == 0.0
    with pytest.raises(DomainError):
        shifted_features(source, target, [0.0])


def test_diagnose_takes_evidence_alone() -> None:
    source, _, target = domains("new classes suspected", 0)
    tells, novelty = classify_domains(source, target), novelty_of_rows(source, target)
    rest = classify_domains(source, target[~novelty.novel_m])
    assert diagnose(tells, novelty, rest=rest, num_rows=3).kind == "new classes suspected"
    assert diagnose(tells, novelty).kind != "new classes suspected"  # nothing shows that the others do not differ
    assert len(diagnose(tells, novelty, num_rows=3).unlike_target_rows) == 3
    assert diagnose(tells, novelty, remarks=["A remark."]).text.endswith("A remark.")


def test_the_domain_classifier_is_logistic_regression_with_balanced_domains() -> None:
    random = np.random.default_rng(0)
    source, target = random.normal(size=(60, 4)) * [1, 10, 1, 1], random.normal(size=(90, 4)) + 0.5
    problem = _Problem(source, target, np.ones(60), 5, 0)
    weights, offsets = problem.train(2.0)
    rows = (np.concatenate([source, target]) - problem.mean_d) * problem.scale_d
    labels = np.repeat([0, 1], [60, 90])
    model = LogisticRegression(C=0.5, class_weight="balanced", tol=1e-9, max_iter=2000).fit(rows, labels)
    assert weights[:, -1] == pytest.approx(model.coef_[0], abs=2e-4)
    assert offsets[-1] == pytest.approx(model.intercept_[0], abs=2e-4)
    fold = np.concatenate(problem.folds)
    twin = np.zeros(150)
    for number in range(5):  # each fold's model is one trained without it, on as strong a penalty per row as on all
        part = fold != number
        balance = np.where(labels[part] == 0, 1 / (labels[part] == 0).sum(), 1 / (labels[part] == 1).sum()) / 2 * 150
        left = LogisticRegression(C=0.5, tol=1e-9, max_iter=2000).fit(rows[part], labels[part], sample_weight=balance)
        twin[~part] = left.decision_function(rows[~part])
    found = classify_domains(source, target, penalty=2.0)
    odds = np.concatenate([found.source_log_odds_n, found.target_log_odds_m])
    assert odds == pytest.approx(twin, abs=2e-3)
    assert found.auc == pytest.approx(roc_auc_score(labels, odds), abs=1e-9)
    error = ((odds[:60] > 0).mean() + (odds[60:] < 0).mean()) / 2
    assert found.error == pytest.approx(error) and found.distance == pytest.approx(2 * (1 - 2 * error))
    assert proxy_a_distance(source, target, penalty=2.0) == found.distance
    assert proxy_a_distance(source, target, seed=3, num_folds=4) != found.distance


def test_the_chance_level_holds_for_equal_domains() -> None:
    inside = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        found = classify_domains(random.normal(size=(60, 8)), random.normal(size=(40, 8)), seed=seed)
        inside.append(found.chance_low <= found.error <= found.chance_high)
    assert np.mean(inside) >= 0.85


def test_equal_rows_share_a_fold() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 40))
    copied = np.repeat(rows, 4, axis=0)
    source, target = copied[:60], copied[60:]
    assert classify_domains(source, target).error > 0.3  # rows apart in folds would be recognised one by one
    same = classify_domains(rows, rows)
    assert same.error == pytest.approx(0.5, abs=0.02) and same.p_value > 0.3


def test_weights_that_undo_a_shift_leave_nothing_to_tell() -> None:
    random = np.random.default_rng(0)
    groups = random.random(2000) < 0.5
    source = random.normal(size=(2000, 2)) + 3 * groups[:, None]
    target = random.normal(size=(1000, 2)) + 3 * (random.random(1000) < 0.9)[:, None]
    weights = np.where(groups, 0.9, 0.1)
    assert classify_domains(source, target).error < 0.4
    assert classify_domains(source, target, source_weights_n=weights).error == pytest.approx(0.5, abs=0.03)
    for bad in (np.ones(3), -weights, np.zeros(2000)):
        with pytest.raises(DomainError, match="source_weights_n"):
            classify_domains(source, target, source_weights_n=bad)


def test_novelty_p_values_are_uniform_without_novelty() -> None:
    random = np.random.default_rng(0)
    found = novelty_of_rows(random.normal(size=(800, 3)), random.normal(size=(800, 3)))
    for level in (0.05, 0.25, 0.5, 0.75):
        assert (found.target_p_values_m <= level).mean() == pytest.approx(level, abs=0.05)
    assert found.share < 0.04 and not found.lie_together


def test_novelty_is_the_kth_distance_against_left_out_ones() -> None:
    random = np.random.default_rng(0)
    source, target = random.normal(size=(40, 2)), random.normal(size=(9, 2)) * 2
    scaled = [(rows - source.mean(0)) / source.std(0) for rows in (source, target)]
    own = [np.sort(np.linalg.norm(np.delete(scaled[0], i, 0) - scaled[0][i], axis=1))[1] for i in range(40)]
    twin = [
        (1 + (np.array(own) >= np.sort(np.linalg.norm(scaled[0] - row, axis=1))[1]).sum()) / 41 for row in scaled[1]
    ]
    found = novelty_of_rows(source, target, num_neighbours=2)
    assert found.target_p_values_m == pytest.approx(twin)
    assert found.source_p_values_r == pytest.approx([(np.array(own) >= value).mean() for value in own])
    assert (novelty_of_rows(source, target, num_neighbours=2, level=0.47).novel_m == (np.array(twin) <= 0.47)).all()
    few = novelty_of_rows(source, target, max_reference=20)
    assert len(few.source_rows_r) == 20 and (few.target_p_values_m != found.target_p_values_m).any()
    assert (novelty_of_rows(source, target, max_reference=20, seed=1).source_rows_r != few.source_rows_r).any()


def test_cosine_novelty_is_blind_to_length() -> None:
    random = np.random.default_rng(0)
    source, target = random.normal(size=(100, 5)) + 3, random.normal(size=(50, 5)) + 3
    cosine = novelty_of_rows(source, target, metric="cosine").target_p_values_m
    assert novelty_of_rows(source, 10 * target, metric="cosine").target_p_values_m == pytest.approx(cosine)
    assert (novelty_of_rows(source, 10 * target).target_p_values_m < 0.02).all()


def shrink(images: np.ndarray) -> np.ndarray:
    """Return digits as 7 x 7 or 8 x 8 block means between 0 and 1, cut to 7 x 7 columns."""
    block = images.shape[1] // 7
    cut = images[:, : 7 * block, : 7 * block].reshape(len(images), 7, block, 7, block)
    return cut.mean(axis=(2, 4)).reshape(len(images), 49) / 255.0


@pytest.mark.golden
def test_real_digits(shared_data: Path) -> None:
    with np.load(shared_data / "digits" / "mnist_t10k.npz") as file:
        mnist, labels = shrink(file["images"]), file["labels"]
    with np.load(shared_data / "digits" / "usps.npz") as file:
        usps = shrink(file["images"])
    random = np.random.default_rng(0)
    order, other = random.permutation(len(mnist)), random.permutation(len(usps))
    first, second = order[:1500], order[1500:3000]

    def kind(source: np.ndarray, target: np.ndarray, source_labels: np.ndarray | None = None) -> str:
        return inspect_gap(source, target, source_labels_n=source_labels, metric="cosine").kind

    assert kind(mnist[first], mnist[second], labels[first]) == "no shift"
    assert kind(usps[other[:1500]], usps[other[1500:3000]]) == "no shift"
    assert kind(mnist[first], usps[other[:1500]], labels[first]) in ("support mismatch", "covariate shift")
    without_zero = first[labels[first] != 0]
    assert kind(mnist[without_zero], mnist[second], labels[without_zero]) == "new classes suspected"
    shares = np.where(labels[order[1500:]] < 3, 1.0, 0.15)
    drawn = random.choice(order[1500:], 1500, replace=False, p=shares / shares.sum())
    assert kind(mnist[first], mnist[drawn], labels[first]) == "label shift"
    assert kind(mnist[first], 0.7 * mnist[second], labels[first]) == "covariate shift"
