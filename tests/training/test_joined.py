"""Rows of several places as one: the same tensors as each place gives, in the order that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.errors import ConfigError
from headstart.data import open_dataset
from headstart.training import InputRows
from headstart.training.joined import JoinedRows
from small_networks import small_text_backbone
from training_toys import ArrayRows


@pytest.mark.golden
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_every_row_comes_from_its_place(sizes: list[int], random: object) -> None:
    values = [np.arange(size, dtype=np.float32)[:, None] + 10 * part for part, size in enumerate(sizes)]
    joined = JoinedRows([ArrayRows(part) for part in values])
    everything = np.concatenate(values)
    order = np.random.default_rng(random.randint(0, 99)).permutation(len(everything))  # type: ignore[attr-defined]
    (batch,) = joined.batch(order)
    assert len(joined) == len(everything)
    assert torch.equal(batch, torch.from_numpy(everything[order]))


def test_draws_stay_with_their_rows() -> None:
    values = np.zeros((3, 2), np.float32)
    alone, joined = (
        ArrayRows(values, noise=1.0),
        JoinedRows([ArrayRows(values, noise=1.0), ArrayRows(values, noise=1.0)]),
    )
    draws = np.array([7, 8, 9, 10], np.uint64)
    (batch,) = joined.batch(np.array([4, 0, 5, 1]), draws)
    (same,) = alone.batch(np.array([1, 0, 2, 1]), draws)
    assert torch.equal(batch, same)


def test_texts_are_padded_to_the_longest_of_all_places() -> None:
    backbone = small_text_backbone()
    short, long = ["w1 w2", "w3"], ["w4 w5 w6 w7 w8"]
    parts = [InputRows(open_dataset(texts, unlabelled=True), backbone) for texts in (short, long)]
    whole = InputRows(open_dataset([*short, *long], unlabelled=True), backbone)
    joined = JoinedRows(parts)
    for got, expected in zip(joined.batch(np.array([2, 1, 0])), whole.batch(np.array([2, 1, 0])), strict=True):
        assert torch.equal(got, expected)
    changed = joined.strong(np.array([2, 1]), np.array([1, 2], np.uint64))
    assert changed[0].shape[0] == 2 and changed[0].shape == changed[1].shape
    assert joined.dataset.ids[:2] == tuple(parts[0].dataset.ids)
    joined.close()


def test_strong_views_are_offered_only_where_every_place_offers_them() -> None:
    values = np.zeros((2, 2), np.float32)
    assert not hasattr(JoinedRows([ArrayRows(values)]), "strong")
    with pytest.raises(ConfigError, match="at least one place"):
        JoinedRows([])
