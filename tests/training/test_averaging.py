"""Averages of weights against literal sums, and statistics that belong to the averaged weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from headstart.training import Average, History, Network, Run, TrainingConfig, recompute_statistics, train
from training_toys import TASK, bodied, normed, rows


def flat(network: nn.Module) -> np.ndarray:
    return torch.cat([item.detach().double().flatten() for item in network.parameters()]).numpy()


def every_step(run: Run) -> tuple[list[np.ndarray], History]:
    seen = []
    with run.random_numbers():
        while run.ended() is None:
            run.step()
            seen.append(flat(run.network))
        return seen, run.finish()


def test_the_running_average_is_the_literal_one() -> None:
    network = bodied()
    start = flat(network)
    config = TrainingConfig(ema=0.7, batch_size=4, max_epochs=4, learning_rate=0.1, precision="fp32")
    run = Run(network, TASK, rows(12), None, config)
    seen, history = every_step(run)
    average = start
    for step, weights in enumerate(seen, start=1):
        decay = min(0.7, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights
    np.testing.assert_allclose(flat(network), average, rtol=1e-5, atol=1e-6)
    assert history.kept == "average" and not np.allclose(average, seen[-1], atol=1e-3)


def test_what_is_validated_is_the_average() -> None:
    network = bodied()
    config = TrainingConfig(ema=0.9, batch_size=4, max_epochs=5, learning_rate=0.3, precision="fp32")
    check = rows(16, 3)
    history = train(network, TASK, rows(12), check, config)
    with torch.no_grad():
        logits = network(*check.inputs.batch(check.indices)).logits
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(check.targets))
    assert float(loss) == pytest.approx(history.validation_loss[history.best], rel=1e-5)


def test_the_late_average_is_the_mean_of_the_last_epochs() -> None:
    network = bodied()
    config = TrainingConfig(swa=0.5, batch_size=4, max_epochs=8, learning_rate=0.1, precision="fp32")
    run = Run(network, TASK, rows(12), None, config)
    seen, history = every_step(run)
    ends = seen[2::3]
    np.testing.assert_allclose(flat(network), np.mean(ends[4:], axis=0), rtol=1e-5, atol=1e-6)
    assert history.rates[4:] == [history.rates[3]] * 4 and history.rates[2] > history.rates[3]


def test_statistics_are_those_of_the_averaged_weights() -> None:
    network = normed(dropout=0.5)
    data = rows(24)
    config = TrainingConfig(swa=0.4, batch_size=8, max_epochs=5, learning_rate=0.1, precision="fp32")
    train(network, TASK, data, None, config)
    with torch.no_grad():
        hidden = network.segments[0][0](torch.from_numpy(data.inputs.values))
    layer = network.segments[0][1]
    np.testing.assert_allclose(layer.running_mean, hidden.mean(0), rtol=1e-4, atol=1e-5)  # equal batches: mean of means
    assert int(layer.num_batches_tracked) == 3 and layer.momentum == 0.1 and not network.training


def test_a_worse_average_is_not_kept() -> None:
    random = np.random.default_rng(0)
    data, check = rows(24), rows(24, 9)
    object.__setattr__(data, "targets", random.permutation(data.targets))
    network = bodied()
    config = TrainingConfig(swa=0.5, batch_size=4, max_epochs=30, learning_rate=0.3, patience=30, precision="fp32")
    history = train(network, TASK, data, check, config)
    assert history.kept == "best" and any("more than the best" in note for note in history.notes)


def test_no_average_is_said_where_training_ended_before() -> None:
    random = np.random.default_rng(0)
    data = rows(24)
    object.__setattr__(data, "targets", random.permutation(data.targets))
    config = TrainingConfig(swa=0.9, batch_size=4, max_epochs=50, learning_rate=0.3, patience=2, precision="fp32")
    history = train(bodied(), TASK, data, rows(24, 9), config)
    assert history.stopped == "patience" and history.kept == "best"
    assert any("before the weights were averaged" in note for note in history.notes)


def test_frozen_tensors_are_shared_and_frozen_statistics_left() -> None:
    network = normed(frozen=1)
    network.freeze(1)
    average = Average(network)
    assert average.network.segments[0][0].weight is network.segments[0][0].weight
    assert average.network.segments[1][0].weight is not network.segments[1][0].weight
    assert not any(item.requires_grad for item in average.network.parameters())
    assert all(item.requires_grad for item in network.segments[1].parameters())
    before = network.segments[0][1].running_mean.clone()
    taken = recompute_statistics(network, lambda: [(torch.randn(8, 2),), (torch.randn(8, 2),)])
    assert taken == 2 and torch.equal(network.segments[0][1].running_mean, before)
    assert recompute_statistics(bodied(), lambda: pytest.fail("nothing to take")) == 0


def test_parts_that_are_shared_stay_shared_in_the_average() -> None:
    layer = nn.Linear(2, 2)
    network = Network({"a": layer, "features": layer}, {"main": nn.Linear(2, 2)})
    average = Average(network)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    start = average.network.segments[0].weight.clone()
    average.follow(0.5, 100)
    assert average.network.segments[0] is average.network.segments[1]
    torch.testing.assert_close(average.network.segments[0].weight, 0.5 * start + 0.5)
