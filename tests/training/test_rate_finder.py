"""The learning-rate range test: the sweep against a twin by hand, its marks on known curves, and nothing left behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from headstart.core.errors import ConfigError, TrainingError
from headstart.core.tasks import Task
from headstart.training.config import TrainingConfig
from headstart.training.loop import Run
from headstart.training.network import Network
from headstart.training.plan import ParameterGroup, Plan
from headstart.training.probes import sweep_rates
from headstart.training.rate_finder import RateSweep, find_learning_rate
from headstart.training.rows import TrainingRows


def test_the_sweep_is_that_of_a_twin_in_numpy() -> None:
    """SGD on k w^2 / 2 worked out step by step."""
    curvature, lowest, highest, num_steps, beta = 4.0, 1e-4, 10.0, 60, 0.8
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(layer.weight, 3.0)
    sweep = find_learning_rate(
        [layer],
        lambda i: curvature * layer.weight.square().sum() / 2,
        lambda: torch.optim.SGD(layer.parameters(), lr=1.0),
        lowest=lowest,
        highest=highest,
        num_steps=num_steps,
        beta=beta,
    )
    w, s, least, rates, losses, smooth = 3.0, 0.0, math.inf, [], [], []
    for i in range(num_steps):
        rate = lowest * (highest / lowest) ** (i / (num_steps - 1))
        rates.append(rate)
        losses.append(curvature * w**2 / 2)
        s = beta * s + (1 - beta) * losses[-1]
        smooth.append(s / (1 - beta ** (i + 1)))
        least = min(least, smooth[-1])
        if smooth[-1] > 4 * least:
            break
        w -= rate * curvature * w
    np.testing.assert_allclose(sweep.rates, rates, rtol=1e-12)
    np.testing.assert_allclose(sweep.losses, losses, rtol=1e-9)
    np.testing.assert_allclose(sweep.smoothed, smooth, rtol=1e-9)
    assert sweep.diverged and len(rates) < num_steps
    assert rates[-1] > 2 / curvature  # above it gradient descent on this bowl diverges
    assert sweep.suggestion < 2 / curvature
    assert sweep.cautious == rates[int(np.argmin(smooth))] / 10


def test_marks_on_a_known_curve() -> None:
    rates = tuple(10.0 ** np.linspace(-6, 0, 121))
    position = np.log10(rates)
    losses = tuple(2 - 1 / (1 + np.exp(-8 * (position + 3))) + np.exp(6 * (position + 0.5)))  # falls fastest at 1e-3
    sweep = RateSweep(rates, losses, beta=0.0)
    assert sweep.suggestion == pytest.approx(1e-3, rel=0.01)
    assert sweep.cautious == rates[int(np.argmin(losses))] / 10


@pytest.mark.parametrize("losses", [(1.0,) * 12, tuple(range(1, 13)), (1.0, 2.0, math.nan)])
def test_a_loss_that_never_falls_suggests_the_lowest_rate(losses: tuple[float, ...]) -> None:
    rates = tuple(1e-4 * 2.0**i for i in range(len(losses)))
    sweep = RateSweep(rates, losses)
    assert sweep.suggestion == sweep.cautious == rates[0]


def test_everything_is_put_back() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)).eval()
    critic = nn.Linear(2, 1)
    first = network[0].weight
    first.grad = kept = torch.ones_like(first)
    before = {name: value.clone() for name, value in nn.ModuleList([network, critic]).state_dict().items()}
    inputs = torch.randn(16, 4)
    seen = []

    def step(i: int) -> torch.Tensor:
        network.train()
        seen.append(i)
        if i == 30:
            raise RuntimeError("no more rows")
        return critic(network(inputs)).square().mean()

    def optimiser() -> torch.optim.Optimizer:
        return torch.optim.AdamW([*network.parameters(), *critic.parameters()])

    torch.manual_seed(5)
    wanted = torch.rand(2)
    for steps in (20, 40):
        torch.manual_seed(5)
        if steps == 20:
            find_learning_rate([network, critic], step, optimiser, num_steps=steps, divergence=1e9)
        else:
            with pytest.raises(RuntimeError, match="no more rows"):
                find_learning_rate([network, critic], step, optimiser, num_steps=steps, divergence=1e9)
        assert torch.equal(torch.rand(2), wanted)
        after = nn.ModuleList([network, critic]).state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert first.grad is kept and critic.weight.grad is None
        assert not network.training and not network[1].training and critic.training
    assert seen == [*range(20), *range(31)]


def test_groups_keep_their_ratio_and_gradients_are_cut() -> None:
    pair = nn.ParameterList([nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))])
    moved: list[list[float]] = []

    def step(i: int) -> torch.Tensor:
        moved.append([float(item.detach()) for item in pair])
        return 3 * pair[0].sum() + 4 * pair[1].sum() + 100

    def optimiser() -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": [pair[0]], "lr": 0.2}, {"params": [pair[1]], "lr": 0.1}])

    find_learning_rate([pair], step, optimiser, lowest=1e-3, highest=1e-2, num_steps=10, clip=1.0)
    assert moved[1] == pytest.approx([-1e-3 * 0.6, -0.5e-3 * 0.8])  # gradient (3, 4) / 5


def test_a_loss_that_is_not_finite() -> None:
    layer = nn.Linear(1, 1)
    values = iter([1.0, math.inf])

    def optimiser() -> torch.optim.Optimizer:
        return torch.optim.SGD(layer.parameters(), lr=1.0)

    sweep = find_learning_rate([layer], lambda i: layer.bias.sum() * 0 + next(values), optimiser)
    assert sweep.diverged and sweep.losses == (1.0, math.inf) and sweep.smoothed.tolist() == [1.0]
    with pytest.raises(TrainingError, match="nan before the first step"):
        find_learning_rate([layer], lambda i: layer.bias.sum() * math.nan, optimiser)


@pytest.mark.parametrize(
    "wrong", [{"lowest": 0}, {"lowest": 2.0}, {"highest": math.inf}, {"num_steps": 9}, {"beta": 1}, {"divergence": 1}]
)
def test_wrong_arguments_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="find_learning_rate: needs"):
        find_learning_rate([], lambda i: torch.zeros(()), lambda: None, **wrong)  # type: ignore[arg-type,return-value]


def digits() -> tuple[nn.Module, Callable[[int], torch.Tensor]]:
    """A network on real digits, and its loss on the i-th batch."""
    content = load_digits()
    inputs, labels = torch.tensor(content.data / 16, dtype=torch.float32), torch.tensor(content.target)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    order = torch.randperm(len(inputs))

    def step(i: int) -> torch.Tensor:
        rows = order[(i * 32) % 1760 :][:32]
        return nn.functional.cross_entropy(network(inputs[rows]), labels[rows])

    return network, step


@pytest.mark.golden
def test_the_suggestion_suits_real_digits() -> None:
    """Adam with it learns more in 100 steps than with a hundredth or thirty times as much."""
    network, step = digits()
    sweep = find_learning_rate([network], step, lambda: torch.optim.Adam(network.parameters()))
    ends = []
    for rate in (sweep.suggestion / 100, sweep.suggestion, sweep.suggestion * 30):
        torch.manual_seed(0)
        network, step = digits()
        optimiser = torch.optim.Adam(network.parameters(), lr=rate)
        losses = []
        for i in range(100):
            optimiser.zero_grad()
            loss = step(i)
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        ends.append(np.mean(losses[-20:]))
    assert ends[1] < 0.5 * min(ends[0], ends[2])


@pytest.mark.golden
def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    network, step = digits()
    sweep = find_learning_rate([network], step, lambda: torch.optim.Adam(network.parameters()))
    path = sweep.plot(tmp_path / "rates.png")
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.shape == (600, 960, 3)
    for colour in ((0x1F, 0x4E, 0x79), (0xC4, 0x4E, 0x00), (0x2A, 0x7F, 0x3F)):
        assert (pixels == colour).all(axis=2).sum() > 20


class Vectors:
    """Rows of three numbers."""

    num_views = 1

    def __init__(self, num_rows: int) -> None:
        self.values = torch.from_numpy(np.random.default_rng(0).normal(size=(num_rows, 3)).astype(np.float32))

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: np.ndarray, draws: np.ndarray | None = None) -> tuple[torch.Tensor, ...]:
        return (self.values[indices],)

    def close(self) -> None:
        """Nothing is open."""


def a_run() -> Run:
    torch.manual_seed(0)
    network = Network({"body": nn.Linear(3, 4), "features": nn.Tanh()}, {"main": nn.Linear(4, 2)})
    names = [name for name, _ in network.named_parameters()]
    head, body = ([name for name in names if name.startswith(part)] for part in ("heads", "segments"))
    plan = Plan((ParameterGroup(tuple(head)), ParameterGroup(tuple(body), rate=0.1)))
    rows = TrainingRows(Vectors(24), np.arange(24) % 2)
    config = TrainingConfig(batch_size=8, optimiser="sgd", momentum=0.0, weight_decay=0.0, clip=None, precision="fp32")
    return Run(network, Task("classification", ("a", "b")), rows, None, config, plan=plan)


def test_a_runs_sweep_keeps_the_plans_rates_and_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[list[float]] = []
    original = torch.optim.SGD.step

    def step(self: torch.optim.SGD, *arguments: object) -> object:
        groups.append([group["lr"] for group in self.param_groups])
        return original(self, *arguments)

    run, untouched = a_run(), a_run()
    monkeypatch.setattr(torch.optim.SGD, "step", step)
    sweep = sweep_rates(run, lowest=1e-3, highest=1.0, num_steps=12)
    assert [max(rates) for rates in groups] == pytest.approx(sweep.rates)
    assert all(min(rates) == pytest.approx(0.1 * max(rates)) for rates in groups)
    with run.random_numbers():
        for each in (run, untouched):
            while each.ended() is None and each.done < 5:
                each.step()
    for name, value in untouched.network.state_dict().items():
        assert torch.equal(run.network.state_dict()[name], value), name
