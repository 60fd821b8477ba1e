"""Mixup and cutmix: the arithmetic by hand, and that labels follow the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.errors import ConfigError
from headstart.core.tasks import Task
from headstart.objectives import Batch, Objective
from headstart.training import Phase, Run, TrainingConfig, TrainingRows
from headstart.training.mixing import Mix, draw_mix, mix_labels
from training_toys import TASK, ArrayRows, bodied, points


class Shown(Objective):
    """Remembers what it was shown."""

    needs = frozenset({"labels", "logits"})
    weight = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Batch] = []

    def forward(self, source: Batch, target: Batch | None = None) -> torch.Tensor:
        self.seen.append(source)
        return source.logits.sum()


def test_mixup_by_hand() -> None:
    mix = Mix(np.array([1, 0]), 0.75)
    own = torch.tensor([[4.0, 0.0], [0.0, 8.0]])
    (mixed,), keep = mix.inputs((own,), (own[[1, 0]],))
    assert mixed.tolist() == [[3.0, 2.0], [1.0, 6.0]] and keep == 0.75
    labels = torch.tensor([0, 2])
    assert mix_labels(labels, labels[[1, 0]], keep, 3).tolist() == [[0.75, 0, 0.25], [0.25, 0, 0.75]]
    assert mix_labels(torch.tensor([4.0]), torch.tensor([0.0]), 0.75, 1).tolist() == [3.0]
    assert mix_labels(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]), 0.75, 2).tolist() == [[1.0, 0.25]]


def test_cutmix_by_hand() -> None:
    mix = Mix(
        np.array([1, 0]), 0.75, (0.5, 0.0)
    )  # a box of half the side, its middle on the left edge: half of it is cut off
    own = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    (mixed,), keep = mix.inputs((own,), (own[[1, 0]],))
    expected = np.zeros((8, 8))
    expected[2:6, 0:2] = 1
    assert np.array_equal(mixed[0, 0].numpy(), expected) and np.array_equal(mixed[1, 0].numpy(), 1 - expected)
    assert keep == 1 - 8 / 64
    assert own[0].sum() == 0  # what is kept for later was not written into


@given(keep=st.floats(0, 1), at=st.tuples(*2 * [st.floats(0, 0.999)]), size=st.tuples(*2 * [st.integers(1, 40)]))
def test_labels_have_the_share_of_the_pixels(keep: float, at: tuple[float, float], size: tuple[int, int]) -> None:
    mix = Mix(np.array([0]), keep, at)
    (mixed,), kept = mix.inputs((torch.zeros(1, 3, *size),), (torch.ones(1, 3, *size),))
    assert 1 - float(mixed.mean()) == pytest.approx(kept, abs=1e-6) and 0 <= kept <= 1


def test_draws_follow_the_seed_and_the_step() -> None:
    both = TrainingConfig(mixup=0.2, cutmix=1.0)
    mixes = [draw_mix(both, step, 6) for step in range(200)]
    again = draw_mix(both, 7, 6)
    assert again is not None and mixes[7] is not None
    assert again.keep == mixes[7].keep and again.partners.tolist() == mixes[7].partners.tolist()
    assert 60 < sum(mix.centre is not None for mix in mixes if mix) < 140
    assert all(sorted(mix.partners) == list(range(6)) for mix in mixes if mix)
    assert draw_mix(TrainingConfig(), 0, 6) is None
    keeps = [mix.keep for step in range(500) if (mix := draw_mix(TrainingConfig(mixup=2.0), step, 2))]
    assert np.mean(keeps) == pytest.approx(0.5, abs=0.05) and np.var(keeps) == pytest.approx(
        1 / 20, abs=0.01
    )  # of Beta(2, 2)


def test_the_loop_mixes_rows_and_labels_alike() -> None:
    values, labels = points(8)
    shown = Shown()
    config = TrainingConfig(mixup=1.0, batch_size=8, max_epochs=1, precision="fp32")
    run = Run(bodied(), TASK, TrainingRows(ArrayRows(values), labels), None, config, phases=[Phase((shown,))])
    mix = draw_mix(config, 0, 8)
    assert mix is not None
    order = run.source.at(0).positions
    with run.random_numbers():
        hidden = run.feed.pieces(0)[0][0]().hidden[0]
        run.step()
    expected = mix.keep * values[order] + (1 - mix.keep) * values[order][mix.partners]
    np.testing.assert_allclose(hidden.numpy(), expected, rtol=1e-5, atol=1e-6)
    one_hot = np.eye(2)[labels[order]]
    np.testing.assert_allclose(
        shown.seen[0].labels.numpy(), mix.keep * one_hot + (1 - mix.keep) * one_hot[mix.partners], rtol=1e-5, atol=1e-6
    )


def test_texts_are_not_mixed() -> None:
    tokens, mask = torch.ones(2, 4, dtype=torch.int64), torch.ones(2, 4, dtype=torch.int64)
    with pytest.raises(ConfigError, match="texts cannot be mixed"):
        Mix(np.array([1, 0]), 0.5).inputs((tokens, mask), (tokens, mask))
    with pytest.raises(ConfigError, match="cutmix pastes boxes into images"):
        Mix(np.array([1, 0]), 0.5, (0.5, 0.5)).inputs((torch.zeros(2, 3),), (torch.zeros(2, 3),))


def test_numbers_are_mixed_as_numbers() -> None:
    values, _ = points(8)
    shown = Shown()
    config = TrainingConfig(mixup=1.0, batch_size=8, max_epochs=1, precision="fp32")
    data = TrainingRows(ArrayRows(values), np.arange(8.0))
    run = Run(bodied(outputs=1), Task("regression"), data, None, config, phases=[Phase((shown,))])
    with run.random_numbers():
        run.step()
    assert shown.seen[0].labels.shape == (8,) and float(shown.seen[0].labels.sum()) == pytest.approx(28)
