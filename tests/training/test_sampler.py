"""Which rows a step takes: every row once a pass, another order each pass, classes shown alike where asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.training import TrainingRows, row_draws
from headstart.training.sampler import Stream
from training_toys import ArrayRows


def stream(num_rows: int, batch: int, *, labels: np.ndarray | None = None, indices: np.ndarray | None = None) -> Stream:
    rows = TrainingRows(ArrayRows(np.zeros((num_rows, 1), np.float32)), labels, indices)
    return Stream(rows, batch, seed=4, purpose="order", groups=labels)


@settings(max_examples=40, deadline=None)
@given(num_rows=st.integers(1, 60), batch=st.integers(1, 70), turn=st.integers(0, 3))
def test_every_pass_takes_every_row_once_in_even_batches(num_rows: int, batch: int, turn: int) -> None:
    rows = stream(num_rows, batch)
    batches = [rows.at(turn * rows.num_batches + step).positions for step in range(rows.num_batches)]
    assert sorted(np.concatenate(batches)) == list(range(num_rows))
    sizes = {len(part) for part in batches}
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= min(batch, num_rows)
    assert max(sizes) < 2 * min(batch, num_rows) or num_rows == 1


def test_passes_differ_and_steps_can_be_asked_in_any_order() -> None:
    rows = stream(50, 10)
    forwards = [rows.at(step).positions.tolist() for step in range(10)]
    assert forwards[:5] != forwards[5:]
    assert [rows.at(step).positions.tolist() for step in reversed(range(10))] == forwards[::-1]


def test_rows_go_by_their_own_numbers() -> None:
    chosen = np.array([7, 2, 9])
    rows = stream(10, 2, indices=chosen)
    sample = rows.at(0)
    assert sorted(rows.indices(sample)) == [2, 7, 9] and sorted(sample.positions) == [0, 1, 2]
    turned = np.argsort(rows.indices(sample))
    assert (rows.draws(sample)[turned] == row_draws(4, ("order", "view", 0), np.array([2, 7, 9]))).all()
    assert (rows.draws(sample) != rows.draws(sample, "teacher")).all()
    assert (np.sort(rows.draws(sample)) != np.sort(rows.draws(rows.at(1)))).all()


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(1, 20), min_size=2, max_size=4), turn=st.integers(0, 2))
def test_balanced_passes_show_every_class_alike(counts: list[int], turn: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = stream(len(labels), 4, labels=labels)
    seen = np.concatenate([rows.at(turn * rows.num_batches + step).positions for step in range(rows.num_batches)])
    shown = np.bincount(labels[seen], minlength=len(counts))
    assert len(seen) == len(labels) and shown.max() - shown.min() <= 1
    for value, count in enumerate(counts):
        times = np.bincount(seen, minlength=len(labels))[labels == value]
        assert times.max() - times.min() <= 1, count


def test_a_row_that_comes_again_looks_different() -> None:
    labels = np.array([0] * 9 + [1])
    rows = stream(10, 10, labels=labels)
    sample = rows.at(0)
    draws = rows.draws(sample)[sample.positions == 9]
    assert len(draws) == 5 == len(set(draws.tolist()))


@pytest.mark.parametrize("views", [2, 3, 10])
def test_draws_choose_all_views_alike(views: int) -> None:
    chosen = row_draws(0, ("view", 1), np.arange(30_000)) % np.uint64(views)
    counts = np.bincount(chosen.astype(int), minlength=views)
    expected = 30_000 / views
    assert ((counts - expected) ** 2 / expected).sum() < 30  # chi-squared of at most 9 degrees of freedom: 1 in 2,000
    bits = np.unpackbits(row_draws(0, ("view", 1), np.arange(30_000)).view(np.uint8)).reshape(30_000, 64)
    assert np.abs(bits.mean(0) - 0.5).max() < 0.02
