"""A run that is stopped after any step and goes on in a fresh process ends with the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.core.errors import TrainingError
from headstart.objectives import Batch, CrossEntropy, Objective
from headstart.objectives.objective import Setup
from headstart.training import History, ParameterGroup, Phase, Plan, Run, TrainingConfig
from training_toys import TASK, bodied, normed, rows


class Remembering(Objective):
    """Pulls features towards a running mean that it keeps, through a projection of its own, and answers towards the teacher's."""

    needs = frozenset({"features", "logits", "teacher_logits", "base_features", "activations"})

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__()
        self.weight = weight
        self._seen: Tensor | None = None

    def prepare(self, setup: Setup) -> None:
        self.register_buffer("mean_d", torch.zeros(6))
        torch.manual_seed(1)
        self.projection = nn.Linear(6, 6)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        assert target is not None
        features = self.projection(self.take(target, "features"))
        self._seen = features.detach().mean(0)
        towards = (features - self.mean_d).square().mean() + (features - target.base_features).square().mean()
        near = (self.take(target, "logits") - self.take(target, "teacher_logits")).square().mean()
        return self.weight * (towards + near + target.activations["second"].square().mean())

    def after_step(self) -> None:
        assert self._seen is not None
        self.mean_d.lerp_(self._seen, 0.1)


def plain() -> Run:
    config = TrainingConfig(batch_size=5, max_epochs=3, precision="fp32", learning_rate=0.05)
    return Run(normed(), TASK, rows(16, noise=0.1), rows(8, 1), config)


def every_option() -> Run:
    config = TrainingConfig(
        batch_size=6, max_epochs=3, learning_rate=0.05, accumulate=2, label_smoothing=0.1, mixup=0.4, balance="sampling",
        ema=0.9, precision="fp32", patience=2, schedule="one-cycle", clip=0.5, seed=7,
    )  # fmt: skip
    network = normed(frozen=1)
    names = [name for name, _ in network.named_parameters()]
    plan = Plan(
        (
            ParameterGroup(tuple(name for name in names if name.startswith("segments.1")), rate=0.3, begins=0.5),
            ParameterGroup(tuple(name for name in names if name.startswith(("segments.2", "heads")))),
        ),
        num_frozen=1,
    )
    keeps = Remembering()
    phases = [
        Phase((CrossEntropy(0.1), keeps)),
        Phase((keeps,), trains=("heads", "objectives"), name="again", repeats=2, streams=("target",)),
    ]
    unlabelled = rows(21, 2, noise=0.2)
    return Run(network, TASK, rows(16, noise=0.1), rows(8, 1), config, unlabelled=unlabelled, phases=phases, plan=plan)


def momentum() -> Run:
    config = TrainingConfig(
        optimiser="sgd", nesterov=True, batch_size=4, max_epochs=4, swa=0.5, precision="fp32", restore_best=False,
        learning_rate=0.1,
    )  # fmt: skip
    return Run(normed(), TASK, rows(10, noise=0.1), rows(8, 1), config)


def adam() -> Run:
    config = TrainingConfig(
        optimiser="adam", batch_size=4, max_epochs=3, precision="fp32", patience=1, learning_rate=0.3
    )
    return Run(normed(), TASK, rows(10, noise=0.1), rows(8, 1), config)


def weights(run: Run) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in run.network.state_dict().items()}


def steps(run: Run, number: int) -> Run:
    with run.random_numbers():
        while run.done < number:
            run.step()
    return run


def to_the_end(run: Run) -> History:
    with run.random_numbers():
        while run.ended() is None:
            run.step()
        return run.finish()


@pytest.mark.golden
@pytest.mark.parametrize("make", [plain, every_option, momentum, adam])
def test_stopped_at_any_step_the_end_is_the_same(make: Callable[[], Run]) -> None:
    whole = make()
    expected = to_the_end(whole)
    assert whole.done >= 4
    for stop in range(whole.done + 1):
        tensors, value = steps(make(), stop).state()
        value = json.loads(json.dumps(value))
        torch.manual_seed(stop)  # whatever else the new process has drawn
        second = make()
        second.restore(tensors, value)
        history = to_the_end(second)
        for name, tensor in weights(whole).items():
            assert torch.equal(tensor, weights(second)[name]), (stop, name)
        told, meant = history.to_dict(), expected.to_dict()
        assert told.pop("cpu_seconds") >= 0 and meant.pop("cpu_seconds") >= 0
        assert told == meant


def test_the_state_holds_no_memory_of_the_run() -> None:
    run = plain()
    with run.random_numbers():
        run.step()
        tensors, _ = run.state()
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        run.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())


def test_another_networks_state_is_refused() -> None:
    run = plain()
    other = Run(bodied(), TASK, rows(16), rows(8, 1), run.config)
    with pytest.raises(TrainingError, match="other tensors under 'network'"):
        other.restore(*run.state())


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    run = plain()
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 - the caller's
    expected = torch.rand(3), np.random.random()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    steps(run, 2)
    assert torch.equal(torch.rand(3), expected[0]) and np.random.random() == expected[1]  # noqa: NPY002
