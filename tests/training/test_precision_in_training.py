"""Training in half precision and with a compiled network: it learns the same, and goes on bit for bit."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import distributed

from headstart.objectives import VREx
from headstart.training import Phase, Run, TrainingConfig, World, train
from headstart.training.probes import loss_at
from training_toys import TASK, bodied, normed, rows


def test_bf16_learns_what_fp32_learns() -> None:
    measures = {}
    for precision in ("fp32", "bf16"):
        network = bodied()
        config = TrainingConfig(precision=precision, max_epochs=10, learning_rate=0.05, batch_size=8)
        history = train(network, TASK, rows(64), rows(64, 1), config)
        measures[precision] = history.validation_measure[history.best]
        assert history.precision == precision
        assert all(item.dtype == torch.float32 for item in network.parameters())
    assert measures["bf16"] == pytest.approx(measures["fp32"], abs=0.05) and measures["fp32"] > 0.9


def test_bf16_goes_on_bit_for_bit() -> None:
    def make() -> Run:
        config = TrainingConfig(precision="bf16", max_epochs=2, batch_size=8, ema=0.9)
        return Run(normed(), TASK, rows(32, noise=0.1), rows(8, 1), config)

    whole, first, second = make(), make(), make()
    with whole.random_numbers():
        while whole.ended() is None:
            whole.step()
        whole.finish()
    with first.random_numbers():
        for _ in range(3):
            first.step()
    second.restore(*first.state())
    with second.random_numbers():
        while second.ended() is None:
            second.step()
        second.finish()
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name]), name


def test_a_short_training_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def probe(*arguments: object, **options: object) -> object:
        asked.append(options)
        return type("Choice", (), {"precision": "bf16", "reason": "measured"})()

    monkeypatch.setattr("headstart.training.probes.choose_precision", probe)
    short = train(bodied(), TASK, rows(16), None, TrainingConfig(max_epochs=2, batch_size=8))
    assert not asked and short.precision == "fp32"
    long = train(bodied(), TASK, rows(16), None, TrainingConfig(max_epochs=50, batch_size=8))
    assert len(asked) == 1 and long.precision == "bf16" and any("measured" in note for note in long.notes)


def test_a_look_at_a_step_does_not_ask_the_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process alone measures; what it asked the others would never be answered."""
    monkeypatch.setattr(distributed, "all_reduce", lambda tensor: pytest.fail("the others are asked"))
    training = replace(rows(16), domains=np.repeat([0, 1], 8))
    objective = VREx()
    run = Run(bodied(), TASK, training, None, TrainingConfig(batch_size=8), phases=[Phase((objective,))])
    expected = loss_at(run, 0)
    run.world = World(0, 2)
    objective.together = run.world.together()
    assert loss_at(run, 0).item() == expected.item() > 0
    assert objective.together.size == 2 and objective.training


@pytest.mark.golden
@pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"
)
def test_a_compiled_network_learns_the_same() -> None:
    results = []
    for compiled in (False, True):
        network = normed(dropout=0.0)
        config = TrainingConfig(
            precision="fp32", max_epochs=2, batch_size=8, compile=compiled, optimiser="sgd", learning_rate=0.1
        )
        history = train(network, TASK, rows(32), rows(16, 1), config)
        results.append((torch.cat([item.detach().flatten() for item in network.parameters()]), history.validation_loss))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-4, atol=1e-5)
    assert results[1][1] == pytest.approx(results[0][1], abs=1e-4)
