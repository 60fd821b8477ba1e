"""Strongly changed views follow from the draw and suit the kind of row; the loop shows them to objectives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.backbones import vector_backbone
from headstart.data import open_dataset
from headstart.objectives import Batch, CrossEntropy, Objective, Setup
from headstart.training import InputRows, Phase, TrainingConfig, TrainingRows, train
from headstart.training.strong_views import strong_activations, strong_numbers, strong_pixels, strong_tokens
from small_networks import small_text_backbone
from training_toys import TASK, ArrayRows, bodied, points, rows


def test_every_draw_keeps_shape_and_type_and_changes_the_picture() -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    looks = [strong_pixels(image, draw) for draw in range(60)]
    assert all(look.shape == image.shape and look.dtype == np.uint8 for look in looks)
    assert all((look != image).any() for look in looks)
    covered = np.mean([(look == 127).all(2).mean() for look in looks])
    assert 0.08 < covered < 0.35  # a quarter less what lies outside, and what turning uncovers
    assert all((strong_pixels(image, draw) == looks[draw]).all() for draw in (0, 7, 59))


def test_a_fifth_of_the_words_is_left_out_and_the_ends_stay() -> None:
    text = list(range(50))
    kept = [strong_tokens(text, draw) for draw in range(200)]
    assert all(item[0] == 0 and item[-1] == 49 and item == sorted(item) for item in kept)
    assert abs(np.mean([len(item) for item in kept]) - (2 + 0.8 * 48)) < 0.7


def test_numbers_move_by_half_a_deviation_and_a_fifth_become_means() -> None:
    wide = np.full((4000, 3), 10.0, np.float32)
    mean, deviation = np.array([0.0, 1.0, 2.0], np.float32), np.array([1.0, 2.0, 0.0], np.float32)
    changed = strong_numbers(wide, np.arange(4000, dtype=np.uint64), mean, deviation)
    replaced = changed == mean
    assert np.abs(replaced.mean(0) - 0.2).max() < 0.03
    noise = np.array([(changed[~replaced[:, column], column] - 10).std() for column in range(3)])
    assert np.abs(noise - 0.5 * deviation).max() < 0.05
    assert (wide == 10).all()


@pytest.mark.parametrize("shape", [(5, 40), (5, 40, 3, 2), (5, 7, 40)])
def test_channels_of_activations_are_left_out_as_a_whole(shape: tuple[int, ...]) -> None:
    mask = torch.ones(5, 7)
    changed, same = strong_activations((torch.ones(shape), mask), np.arange(5, dtype=np.uint64))
    assert same is mask
    by_channel = changed.movedim(2 if len(shape) == 3 else 1, 1).reshape(5, 40, -1)
    assert torch.equal(by_channel.amin(2), by_channel.amax(2))
    assert set(by_channel.unique().tolist()) == {0.0, 2.0}
    assert 0.3 < (by_channel > 0).float().mean() < 0.7
    again, _ = strong_activations((torch.ones(shape), mask), np.arange(5, dtype=np.uint64))
    assert torch.equal(changed, again)


def test_rows_of_numbers_and_texts_offer_strong_views() -> None:
    table = open_dataset(np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), unlabelled=True)
    inputs = InputRows(table, vector_backbone(3))
    (plain,), (changed,) = inputs.batch(np.array([1, 4])), inputs.strong(np.array([1, 4]), np.array([1, 2], np.uint64))
    assert changed.shape == plain.shape and not torch.equal(changed, plain)
    texts = InputRows(
        open_dataset([" ".join(f"w{i}" for i in range(1, 40))], labels=None, unlabelled=True), small_text_backbone()
    )
    ids, mask = texts.strong(np.array([0]), np.array([3], np.uint64))
    assert ids.shape == mask.shape and 20 < ids.shape[1] < 39


class Seen(Objective):
    """Writes down what it is shown."""

    needs = frozenset({"logits", "strong_logits", "hidden", "domains"})

    def __init__(self) -> None:
        super().__init__()
        self.weight = 1.0
        self.shares: list[float] = []
        self.rows: list[tuple[Tensor, Tensor]] = []

    def prepare(self, setup: Setup) -> None:
        self.known = setup

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        assert target is not None and source.strong_logits is None and target.strong_logits is not None
        assert target.hidden is not None and target.run is not None and source.domains is not None
        assert target.logits is not None and target.rows is not None
        again = target.run(target.hidden)
        torch.testing.assert_close(again, target.logits)
        assert again.requires_grad and target.strong_logits.requires_grad
        assert not torch.equal(target.strong_logits, target.logits)
        self.shares.append(target.share)
        self.rows.append((source.domains, target.rows))
        return 0 * target.strong_logits.sum()


def test_the_loop_shows_objectives_what_they_ask_for() -> None:
    values, labels = points(24)
    source = TrainingRows(ArrayRows(values), labels, domains=np.arange(24) % 3)
    target = TrainingRows(ArrayRows(points(10, seed=1)[0]), None)
    network, seen = bodied(), Seen()
    with torch.no_grad():
        before = network(torch.from_numpy(target.inputs.batch(np.arange(10))[0].numpy()))
    config = TrainingConfig(batch_size=8, max_epochs=2, precision="fp32")
    train(network, TASK, source, None, config, unlabelled=target, phases=[Phase((CrossEntropy(), seen))])
    assert seen.shares == pytest.approx([step / 6 for step in range(6)])
    assert seen.known.width == 8 and seen.known.num_target == 10 and seen.known.num_domains == 3
    assert seen.known.target_outputs is not None and seen.known.source_outputs is not None
    assert all(set(domains.tolist()) <= {0, 1, 2} for domains, _ in seen.rows)
    assert sorted(torch.cat([rows for _, rows in seen.rows[:1]]).tolist())[-1] < 10
    assert before.features.shape == (10, 8)


def test_domains_are_shown_equally_often() -> None:
    values, labels = points(60)
    domains = np.repeat([0, 1], [50, 10])
    counts = np.zeros(2)

    class Count(Objective):
        needs = frozenset({"domains"})
        weight = 1.0

        def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
            assert source.domains is not None
            counts[:] += np.bincount(source.domains.numpy(), minlength=2)
            return torch.zeros(())

    config = TrainingConfig(batch_size=12, max_epochs=4, balance="domains", precision="fp32")
    source = TrainingRows(ArrayRows(values), labels, domains=domains)
    train(bodied(), TASK, source, None, config, phases=[Phase((CrossEntropy(), Count()))])
    assert counts.tolist() == [120, 120]


def test_without_a_second_stream_the_labelled_rows_are_changed() -> None:
    class Alone(Objective):
        needs = frozenset({"strong_logits"})
        weight = 1.0

        def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
            assert source.strong_logits is not None
            return source.strong_logits.square().mean()

    config = TrainingConfig(batch_size=8, max_epochs=1, precision="fp32")
    train(bodied(), TASK, rows(16), None, config, phases=[Phase((CrossEntropy(), Alone()))])
