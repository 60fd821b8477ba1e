"""Splits and folds: shares, classes, groups, given parts, seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import ConfigError, DataError, ShapeError
from headstart.data import Dataset, folds, open_dataset, split_dataset
from headstart.data.splits import joined_units


def rows(labels: list[int] | np.ndarray, **options: object) -> Dataset:  # type: ignore[type-arg]
    return open_dataset([f"text {i}" for i in range(len(labels))], labels=list(map(str, labels)), **options)  # type: ignore[arg-type]


def test_shares_and_strata_are_exact_where_they_can_be() -> None:
    dataset = rows([0] * 50 + [1] * 30 + [2] * 20)
    split = split_dataset(dataset, test=0.2, validation=0.1)
    for part, share in ((split.train, 0.7), (split.validation, 0.1), (split.test, 0.2)):
        assert np.bincount(dataset.targets[part], minlength=3).tolist() == [50 * share, 30 * share, 20 * share]
    together = np.concatenate([split.train, split.validation, split.test])
    assert sorted(together) == list(range(100))


def test_the_seed_decides() -> None:
    dataset = rows([0, 1] * 20)
    one, same, other = (split_dataset(dataset, seed=seed).test.tolist() for seed in (0, 0, 1))
    assert one == same and one != other


def test_small_classes_train() -> None:
    split = split_dataset(rows([0] * 20 + [1] * 2 + [2]), test=0.5)
    dataset = rows([0] * 20 + [1] * 2 + [2])
    assert set(dataset.targets[split.train]) == {0, 1, 2}
    assert set(dataset.targets[split.test]) == {0, 1}


@pytest.mark.golden
@settings(max_examples=80, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=4, max_size=60),
    groups=st.lists(st.integers(0, 12), min_size=60, max_size=60),
    seed=st.integers(0, 5),
    test=st.sampled_from([0.1, 0.2, 0.5]),
)
def test_units_stay_whole_and_classes_train(labels: list[int], groups: list[int], seed: int, test: float) -> None:
    dataset, units = rows(labels), np.array(groups[: len(labels)])
    split = split_dataset(dataset, test=test, validation=0.1, seed=seed, duplicate_group=units)
    parts = [split.train, split.validation, split.test]
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    seen = [set(units[part]) for part in parts]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert set(dataset.targets[split.train]) == set(dataset.targets)


def test_large_groups_still_give_about_the_share_asked_for() -> None:
    random = np.random.default_rng(0)
    dataset, units = rows(random.integers(0, 3, 600)), random.integers(0, 60, 600)
    split = split_dataset(dataset, test=0.25, duplicate_group=units)
    assert 0.2 < len(split.test) / 600 < 0.3
    shares = np.bincount(dataset.targets[split.test]) / np.bincount(dataset.targets)
    assert (np.abs(shares - 0.25) < 0.08).all()


def test_groups_and_duplicates_are_joined() -> None:
    dataset = rows([0, 1] * 4, group=["a", "a", "b", "b", "", "", "", ""])
    duplicates = np.array([0, 1, 1, 3, 4, 5, 6, 4])
    for seed in range(10):
        split = split_dataset(dataset, test=0.4, seed=seed, duplicate_group=duplicates)
        for unit in ({0, 1, 2, 3}, {4, 7}):
            assert any(unit <= set(part) for part in (split.train, split.test))


def test_a_given_split_is_kept() -> None:
    parts = ["train", "val", "test", "", "train", "test"]
    split = split_dataset(rows([0, 1, 0, 1, 1, 1], split=parts))
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0, 3, 4], [1], [2, 5])
    assert "1 rows without a part train" in split.notes


def test_given_validation_rows_are_the_test_rows_where_there_are_no_others() -> None:
    split = split_dataset(rows([0, 1, 0, 1], split=["train", "train", "val", "val"]))
    assert split.test.tolist() == [2, 3] and not len(split.validation)
    dataset = rows([0, 1] * 20, split=["train"] * 20 + ["test"] * 20)
    split = split_dataset(dataset, validation=0.1)
    assert len(split.test) == 20 and len(split.validation) == 4 and len(split.train) == 16
    assert split_dataset(rows([0, 1] * 5, split=["train"] * 10), test=0.2).test.size == 2


def test_regression_and_multilabel_targets_are_balanced() -> None:
    values = np.random.default_rng(0).normal(size=200)
    dataset = open_dataset(values[:, None], labels=values, task="regression")
    split = split_dataset(dataset, test=0.2)
    assert len(split.test) == 40 and abs(np.mean(values[split.test]) - values.mean()) < 0.1
    indicators = np.zeros((100, 2), np.uint8)
    indicators[:10, 1] = 1
    indicators[:, 0] = 1
    split = split_dataset(open_dataset(values[:100, None], labels=indicators), test=0.2)
    assert indicators[split.test].sum(0).tolist() == [20, 2]


def test_wrong_shares_and_groups_are_refused() -> None:
    with pytest.raises(ConfigError):
        split_dataset(rows([0, 1]), test=0.6, validation=0.5)
    with pytest.raises(ShapeError):
        split_dataset(rows([0, 1]), duplicate_group=np.zeros(3))
    with pytest.raises(ConfigError):
        folds(np.array([0, 1]), 1)
    with pytest.raises(DataError, match="belong together"):
        folds(np.array([0, 1]), 2, groups=np.array([7, 7]))


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=10, max_size=80),
    num_folds=st.integers(2, 6),
    seed=st.integers(0, 3),
    grouped=st.booleans(),
)
def test_folds_cover_every_row_once(labels: list[int], num_folds: int, seed: int, grouped: bool) -> None:
    targets = np.array(labels)
    groups = np.arange(len(labels)) // 2 if grouped else None
    made = folds(targets, num_folds, seed, groups)
    assert sorted(np.concatenate([test for _, test in made])) == list(range(len(labels)))
    for train, test in made:
        assert sorted(np.concatenate([train, test])) == list(range(len(labels)))
        assert groups is None or not set(groups[train]) & set(groups[test])
    if not grouped:
        counts = np.array([np.bincount(targets[test], minlength=4) for _, test in made])
        assert (np.ptp(counts, axis=0) <= 1).all()
        assert np.ptp(counts.sum(1)) <= 1


def test_units_against_a_literal_search() -> None:
    random = np.random.default_rng(0)
    one, two = random.integers(0, 30, 40), random.integers(0, 30, 40)
    units = joined_units(40, one, two)
    reached = np.eye(40, dtype=bool) | (one[:, None] == one) | (two[:, None] == two)
    for _ in range(40):
        reached = reached @ reached
    np.testing.assert_array_equal(units[:, None] == units, reached)
