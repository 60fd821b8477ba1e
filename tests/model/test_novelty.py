"""Novelty: distances against a literal twin, false alarms as promised, a saved scorer that answers the same."""

from __future__ import annotations

import json

import numpy as np
import pytest

from headstart.core.errors import ConfigError, ShapeError
from headstart.model.novelty import NoveltyScorer


def features(num_rows: int, seed: int, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.abs(random.normal(size=(num_rows, 32)) + np.linspace(0, 3, 32) + shift).astype(np.float32)


def test_distances_agree_with_a_literal_twin() -> None:
    train, new = features(40, 0).astype(np.float64), features(15, 1).astype(np.float64)
    unit_train = train / np.linalg.norm(train, axis=1, keepdims=True)
    unit_new = new / np.linalg.norm(new, axis=1, keepdims=True)
    twin = np.array([min(np.linalg.norm(row - other) for other in unit_train) for row in unit_new])
    scorer = NoveltyScorer().fit(train)
    np.testing.assert_allclose(scorer.distances(new), twin, atol=1e-3)
    own = [
        min(np.linalg.norm(row - other) for j, other in enumerate(unit_train) if j != i)
        for i, row in enumerate(unit_train)
    ]
    assert scorer.threshold == pytest.approx(np.quantile(own, 0.98), abs=1e-3)


@pytest.mark.parametrize("distance", ["cosine", "standardised"])
def test_false_alarms_are_as_rare_as_promised(distance: str) -> None:
    scorer = NoveltyScorer(distance, quantile=0.95).fit(features(600, 0))  # type: ignore[arg-type]
    assert 0.02 < scorer.unlike(features(1000, 1)).mean() < 0.09
    assert scorer.unlike(features(100, 2)[:, ::-1]).all()


def test_scale_does_not_matter_to_columns_with_units() -> None:
    units = np.geomspace(1e-6, 1e6, 32)
    plain = NoveltyScorer("standardised").fit(features(100, 0))
    scaled = NoveltyScorer("standardised").fit(features(100, 0) * units)
    np.testing.assert_allclose(
        plain.distances(features(20, 1)), scaled.distances(features(20, 1) * units), rtol=0.01, atol=0.01
    )


def test_duplicates_do_not_pull_the_threshold_down() -> None:
    single = features(50, 0)
    once, twice = NoveltyScorer().fit(single), NoveltyScorer().fit(np.repeat(single, 2, axis=0))
    assert twice.threshold == pytest.approx(once.threshold, rel=0.02)


def test_familiarity_falls_with_distance() -> None:
    train = features(200, 0)
    scorer = NoveltyScorer().fit(train)
    own, fresh, strange = (
        scorer.familiarity(rows).mean() for rows in (train, features(100, 1), features(100, 2)[:, ::-1])
    )
    assert own > 0.99
    assert 0.3 < fresh < 0.7
    assert strange == 0


@pytest.mark.parametrize("distance", ["cosine", "standardised"])
def test_a_saved_scorer_answers_the_same(distance: str) -> None:
    scorer = NoveltyScorer(distance, max_reference=60).fit(features(100, 0))  # type: ignore[arg-type]
    again = NoveltyScorer.from_state(json.loads(json.dumps(scorer.config())), scorer.state())
    new = features(30, 1)
    assert (again.distances(new) == scorer.distances(new)).all()
    assert (again.unlike(new) == scorer.unlike(new)).all()
    assert (again.familiarity(new) == scorer.familiarity(new)).all()
    assert len(scorer.state()["reference"]) == 60
    assert scorer.moments is not None and again.moments is not None
    for kept, loaded, twin in zip(
        scorer.moments, again.moments, (features(100, 0).mean(0), features(100, 0).std(0)), strict=True
    ):
        assert (kept == loaded).all()
        np.testing.assert_allclose(kept, twin, rtol=1e-5, atol=1e-6)
    older = {name: array for name, array in scorer.state().items() if name not in {"mean", "deviation"}}
    assert NoveltyScorer.from_state(scorer.config(), older).moments is None


def test_equal_rows_everywhere_flag_nothing_and_still_save() -> None:
    scorer = NoveltyScorer().fit(np.ones((5, 3)))
    assert not scorer.unlike(np.array([[5.0, 0.0, 0.0]])).any()
    assert json.dumps(scorer.config(), allow_nan=False)
    again = NoveltyScorer.from_state(scorer.config(), scorer.state())
    assert not again.unlike(np.array([[5.0, 0.0, 0.0]])).any()


def test_the_draw_is_seeded() -> None:
    first, same, other = (NoveltyScorer(max_reference=20, seed=seed).fit(features(100, 0)) for seed in (0, 0, 1))
    assert (first.state()["reference"] == same.state()["reference"]).all()
    assert (first.state()["reference"] != other.state()["reference"]).any()


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="quantile lies in"):
        NoveltyScorer(quantile=1.0)
    with pytest.raises(ShapeError, match="32 features but target has 5"):
        NoveltyScorer().fit(features(10, 0)).distances(np.zeros((2, 5)))
    with pytest.raises(ShapeError, match="at least 2 rows"):
        NoveltyScorer().fit(features(1, 0))
