"""Class shares of the target: found again where they are known, refused where they cannot be told."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core.errors import ConfigError, DataError, DomainError, HeadstartError
from headstart.distances import bbse, correct_probabilities, em_priors

NAMES = ["cat", "dog", "owl"]
CENTRES = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])


def draw(shares: list[float], num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the true posterior under equal shares (a calibrated classifier) and labels."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, num_rows, p=shares)
    rows = CENTRES[labels] + random.normal(size=(num_rows, 2))
    density = np.exp(-np.square(rows[:, None] - CENTRES).sum(axis=2) / 2)
    return density / density.sum(axis=1, keepdims=True), labels


SOURCE, LABELS = draw([1 / 3, 1 / 3, 1 / 3], 3000, 0)
SHARES = [0.1, 0.2, 0.7]
TARGET, _ = draw(SHARES, 3000, 1)


@pytest.mark.parametrize("method", ["soft", "hard", "em"])
def test_shares_are_found_within_their_interval(method: str) -> None:
    found = em_priors(TARGET, [1 / 3] * 3) if method == "em" else bbse(SOURCE, LABELS, TARGET, kind=method)
    assert found.target_priors_k == pytest.approx(SHARES, abs=0.04)
    assert (found.low_k < SHARES).all() and (found.high_k > SHARES).all()
    assert (found.high_k - found.low_k < 0.12).all()
    assert found.weights_k == pytest.approx(found.target_priors_k / found.source_priors_k)
    assert found.target_priors_k.sum() == pytest.approx(1.0)
    assert found.p_value < 0.01 and found.change == pytest.approx(0.37, abs=0.04)


@pytest.mark.parametrize("method", ["soft", "em"])
def test_equal_shares_are_no_shift(method: str) -> None:
    p_values = []
    for seed in range(20):
        source, labels = draw([1 / 3] * 3, 300, 100 + seed)
        target, _ = draw([1 / 3] * 3, 300, 200 + seed)
        found = em_priors(target, [1 / 3] * 3) if method == "em" else bbse(source, labels, target, num_resamples=99)
        p_values.append(found.p_value)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.2
    assert max(p_values) > 0.3


def test_bbse_solves_the_confusion_equation() -> None:
    hard_source, hard_target = np.eye(3)[SOURCE.argmax(1)], np.eye(3)[TARGET.argmax(1)]
    for kind, source, target in (("soft", SOURCE, TARGET), ("hard", hard_source, hard_target)):
        C = np.zeros((3, 3))
        for row, label in zip(source, LABELS, strict=True):
            C[:, label] += row / len(source)
        weights = np.linalg.solve(C, target.mean(axis=0))
        shares = weights * np.bincount(LABELS) / len(LABELS)
        found = bbse(SOURCE, LABELS, TARGET, kind=kind)
        assert found.target_priors_k == pytest.approx(shares / shares.sum(), rel=1e-9)
        assert found.condition == pytest.approx(np.linalg.cond(C / C.sum(axis=0)), rel=1e-9)


def test_em_is_the_maximum_of_the_likelihood() -> None:
    found = em_priors(TARGET, [0.2, 0.3, 0.5], tolerance=1e-10, max_steps=20_000).target_priors_k

    def likelihood(shares: np.ndarray) -> float:
        return float(np.log(TARGET @ (shares / np.array([0.2, 0.3, 0.5]))).mean())

    for step in ([1, -1, 0], [0, 1, -1], [1, 0, -1]):
        for size in (-1e-3, 1e-3):
            assert likelihood(found + size * np.array(step)) < likelihood(found)
    assert em_priors(TARGET, [1 / 3] * 3, max_steps=1).target_priors_k == pytest.approx(TARGET.mean(axis=0))


def test_corrected_probabilities_are_bayes() -> None:
    rows = np.array([[0.6, 0.3, 0.1], [0.0, 1.0, 0.0]])
    weighted = rows * np.array([0.1, 0.2, 0.7]) / np.array([0.5, 0.25, 0.25])
    assert correct_probabilities(rows, [0.5, 0.25, 0.25], [0.1, 0.2, 0.7]) == pytest.approx(
        weighted / weighted.sum(axis=1, keepdims=True), abs=1e-9
    )
    found = em_priors(TARGET, [1 / 3] * 3)
    assert found.correct(TARGET).mean(axis=0) == pytest.approx(found.target_priors_k, abs=1e-4)  # EM's fixed point


def test_correction_helps_where_shares_changed() -> None:
    target, labels = draw(SHARES, 3000, 5)
    corrected = em_priors(target, [1 / 3] * 3).correct(target)
    assert (corrected.argmax(1) == labels).mean() > (target.argmax(1) == labels).mean() + 0.03


def test_names_and_row_weights() -> None:
    labels = np.array(NAMES)[LABELS]
    found = bbse(SOURCE, labels, TARGET, classes=NAMES)
    assert found.classes == tuple(NAMES)
    assert found.row_weights(["owl", "cat"]) == pytest.approx(found.weights_k[[2, 0]])
    with pytest.raises(DataError, match="emu"):
        found.row_weights(["emu"])


def test_classes_that_cannot_be_told_apart_are_named() -> None:
    blurred = SOURCE.copy()
    blurred[:, :2] = blurred[:, :2].mean(axis=1, keepdims=True)
    with pytest.raises(DomainError, match=r"near singular.*'cat' and 'dog'"):
        bbse(blurred, np.array(NAMES)[LABELS], TARGET, classes=NAMES)
    with pytest.raises(DomainError, match=r"no source row has class \[2\]"):
        bbse(SOURCE[LABELS < 2], LABELS[LABELS < 2], TARGET)
    condition = bbse(SOURCE, LABELS, TARGET).condition
    with pytest.raises(DomainError, match="near singular"):
        bbse(SOURCE, LABELS, TARGET, max_condition=condition - 1e-3)


def test_seed_and_resamples_matter_for_the_interval_only() -> None:
    one, other = bbse(SOURCE, LABELS, TARGET, seed=0), bbse(SOURCE, LABELS, TARGET, seed=1, num_resamples=50)
    assert (one.target_priors_k == other.target_priors_k).all() and (one.low_k != other.low_k).any()
    assert (bbse(SOURCE, LABELS, TARGET, seed=0).low_k == one.low_k).all()


@pytest.mark.parametrize(("source", "labels", "target", "error"), [
    (SOURCE * 3, LABELS, TARGET, DataError),
    (SOURCE, LABELS[:5], TARGET, HeadstartError),
    (SOURCE, LABELS + 1, TARGET, DataError),
    (SOURCE, LABELS, TARGET[:, :2] / TARGET[:, :2].sum(axis=1, keepdims=True), HeadstartError),
    (SOURCE, LABELS, np.full((4, 3), np.nan), DataError),
])  # fmt: skip
def test_what_fits_nothing_is_refused(source: np.ndarray, labels: np.ndarray, target: np.ndarray, error: type) -> None:
    with pytest.raises(error):
        bbse(source, labels, target)


def test_priors_must_be_shares() -> None:
    for priors in ([0.5, 0.6, 0.1], [0.0, 0.5, 0.5], [0.5, 0.5]):
        with pytest.raises(DataError):
            em_priors(TARGET, priors)
    with pytest.raises(ConfigError):
        em_priors(TARGET, [1 / 3] * 3, tolerance=0.0)
