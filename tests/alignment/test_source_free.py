"""Prototypes and source-free adaptation: literal twins, finite differences, and target rows alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.svm import SVC, LinearSVC

from headstart.alignment import Prototypes, SourceFree
from headstart.alignment.source_free import information_loss, prototype_labels
from headstart.alignment.source_prior import linear_weights
from headstart.core.errors import ConfigError, DomainError, ShapeError
from two_domain_problems import clouds


def test_prototypes_follow_literal_rounds() -> None:
    source, labels = clouds(0)
    target, _ = clouds(1, shift=1.0)
    model = Prototypes(num_rounds=3, prior_rows=2.0).fit(source, labels, target)
    means = np.array([source[labels == name].mean(axis=0) for name in ("down", "up")])
    variance = np.mean(
        np.concatenate([(source[labels == n] - m) ** 2 for n, m in zip(("down", "up"), means, strict=True)])
    )
    moved = means.copy()
    for _ in range(3):
        distances = ((target[:, None] - moved[None]) ** 2).sum(axis=2)
        p = np.exp(-distances / (2 * variance))
        p /= p.sum(axis=1, keepdims=True)
        moved = np.array([(2 * means[k] + p[:, k] @ target) / (2 + p[:, k].sum()) for k in range(2)])
    np.testing.assert_allclose(model.prototypes_, moved, rtol=1e-9)
    assert model.variance_ == pytest.approx(variance)


def test_prototypes_without_rounds_are_the_nearest_mean() -> None:
    source, labels = clouds(0)
    target, _ = clouds(1, shift=1.0)
    nearest = NearestCentroid().fit(source, labels).predict(target)
    np.testing.assert_array_equal(Prototypes(num_rounds=0).fit(source, labels, target).predict(target), nearest)


@pytest.mark.parametrize("method", [Prototypes(), SourceFree()], ids=repr)
def test_they_mend_a_moved_target_and_hurt_where_a_class_is_rare(method) -> None:  # type: ignore[no-untyped-def]
    source, labels = clouds(0)
    target, truth = clouds(1, shift=2.0)
    alone = LogisticRegression().fit(source, labels).score(target, truth)
    assert alone < 0.75
    assert method.fit(source, labels, target).score(target, truth) > 0.9
    target, truth = clouds(1, share=0.05)
    alone = LogisticRegression().fit(source, labels).score(target, truth)
    assert alone > 0.9
    assert method.fit(source, labels, target).score(target, truth) < alone - 0.2


def test_information_loss_is_literal_and_its_gradient_exact() -> None:
    draws = np.random.default_rng(0)
    logits, labels = 3 * draws.normal(size=(7, 3)), draws.integers(0, 3, size=7)
    loss, gradient = information_loss(logits, labels, 0.4)
    p = softmax(logits, axis=1)
    entropy = np.mean([-sum(q * np.log(q) for q in row) for row in p])
    mean = p.mean(axis=0)
    assert loss == pytest.approx(entropy + sum(mean * np.log(mean)) - 0.4 * np.mean(np.log(p[np.arange(7), labels])))
    numeric = approx_fprime(logits.ravel(), lambda flat: information_loss(flat.reshape(7, 3), labels, 0.4)[0], 1e-7)
    np.testing.assert_allclose(gradient.ravel(), numeric, atol=1e-6)


def test_pseudo_labels_are_the_papers_two_rounds_of_centroids() -> None:
    draws = np.random.default_rng(0)
    rows, p = draws.normal(size=(20, 4)), draws.dirichlet(np.ones(3), size=20)
    shares = p
    for _ in range(2):
        centroids = [sum(shares[i, k] * rows[i] for i in range(20)) / shares[:, k].sum() for k in range(3)]
        labels = [
            int(np.argmax([row @ c / np.linalg.norm(row) / np.linalg.norm(c) for c in centroids])) for row in rows
        ]
        shares = np.eye(3)[labels]
    assert prototype_labels(rows, p).tolist() == labels


def test_one_round_is_the_minimum_of_the_stated_loss() -> None:
    source, labels = clouds(0, num_features=2)
    target, _ = clouds(1, shift=1.0, num_features=2)
    model = SourceFree(anchor=0.5, num_rounds=1).fit(source, labels, target)
    start, shift = linear_weights(LogisticRegression(max_iter=1000).fit(source, labels))
    centre = target.mean(axis=0)
    scale = np.sqrt(np.mean(np.sum((target - centre) ** 2, axis=1)))
    z = np.column_stack([(target - centre) / scale, np.ones(len(target))])
    first = np.column_stack([start * scale, shift + start @ centre])
    pseudo = prototype_labels(z[:, :2], softmax(z @ first.T, axis=1))

    def loss(flat: np.ndarray) -> float:
        moved = flat.reshape(2, 3)
        return information_loss(z @ moved.T, pseudo, 0.3)[0] + 0.25 * np.sum((moved - first) ** 2)

    best = minimize(loss, first.ravel(), method="BFGS", options={"gtol": 1e-8}).x.reshape(2, 3)
    np.testing.assert_allclose(model.coef_, best[:, :2] / scale, atol=1e-3)
    np.testing.assert_allclose(softmax(z @ best.T, axis=1), model.predict_proba(target), atol=1e-3)


def test_no_source_row_is_needed_or_kept() -> None:
    source, labels = clouds(0)
    target, truth = clouds(1, shift=2.0)
    model = LogisticRegression(max_iter=1000).fit(source, labels)
    given = SourceFree().fit(source, labels, target)
    free = SourceFree.from_model(model)
    np.testing.assert_array_equal(free.predict(target), model.predict(target))  # until it adapts it is the model
    np.testing.assert_allclose(free.adapt(target).predict_proba(target), given.predict_proba(target), atol=1e-9)
    again = free.adapt(source).adapt(target)  # starts from the source each time
    np.testing.assert_array_equal(again.coef_, free.coef_)
    assert all(getattr(value, "shape", (0,))[:1] != (len(source),) for value in vars(given).values())
    assert free.score(target, truth) > model.score(target, truth) + 0.2


def test_class_means_are_enough() -> None:
    source, labels = clouds(0)
    target, truth = clouds(1, shift=1.5)
    means = Prototypes(num_rounds=0).fit(source, labels, target)
    free = SourceFree.from_means(means.prototypes_, ["down", "up"], means.variance_)
    np.testing.assert_allclose(free.predict_proba(target), means.predict_proba(target), atol=1e-9)
    assert free.adapt(target).score(target, truth) > means.score(target, truth)
    with pytest.raises(ShapeError, match="one mean row for each of at least two classes"):
        SourceFree.from_means([[0.0]], ["a"], 1.0)
    with pytest.raises(ConfigError, match="variance must be a number above 0"):
        SourceFree.from_means([[0.0], [1.0]], ["a", "b"], 0.0)


def test_turning_and_moving_the_features_of_both_changes_nothing() -> None:
    source, labels = clouds(0)
    target, _ = clouds(1, shift=1.0)
    model = LogisticRegression(max_iter=1000).fit(source, labels)
    coef, intercept = linear_weights(model)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))
    plain = SourceFree.from_model(model).adapt(target).predict_proba(target)
    other = SourceFree.from_model(model)
    other._take(
        coef @ turn, intercept - coef @ np.full(5, 3.0), other.classes_
    )  # the same model for x turned, then moved
    moved = (target + 3.0) @ turn
    np.testing.assert_allclose(other.adapt(moved).predict_proba(moved), plain, atol=1e-4)


def test_what_is_not_a_linear_model_or_not_a_model_is_refused() -> None:
    source, labels = clouds(0)
    with pytest.raises(ConfigError, match=r"SVC has no coef_"):
        SourceFree.from_model(SVC().fit(source, labels))
    with pytest.raises(ConfigError, match=r"LogisticRegression has no coef_, intercept_, classes_"):
        SourceFree.from_model(LogisticRegression())
    with pytest.raises(DomainError, match="there is no source model yet"):
        SourceFree().adapt(source)
    with pytest.raises(DomainError, match="source has 5 features but target has 3"):
        SourceFree.from_model(LinearSVC().fit(source, labels)).adapt(source[:, :3])


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (Prototypes(), {"num_rounds": 1, "prior_rows": 100.0}),
        (SourceFree(), {"source_C": 0.001, "pseudo_weight": 2.0, "anchor": 10.0, "num_rounds": 1}),
    ],
    ids=repr,
)
def test_every_option_changes_something_and_is_checked(method, changes) -> None:  # type: ignore[no-untyped-def]
    source, labels = clouds(0, num_features=40)
    target, _ = clouds(1, shift=1.5, num_features=40)
    assert set(changes) == set(method.get_params())
    usual = method.fit(source, labels, target).predict_proba(target)
    for name, value in changes.items():
        other = type(method)(**{name: value}).fit(source, labels, target).predict_proba(target)
        assert not np.allclose(other, usual), name
        with pytest.raises(ConfigError, match=f"{type(method).__name__}: {name} must be"):
            type(method)(**{name: -1}).fit(source, labels, target)
