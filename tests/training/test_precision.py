"""The precision probe: what it chooses, what it refuses, that it leaves no trace, and that it remembers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from headstart.training import precision as module
from headstart.training.precision import PrecisionChoice, autocast, choose_precision, supports_bf16

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _able(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and a processor that is said to know bf16."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "supports_bf16", lambda device: True)


class Steps:
    """A network, and a step that may take (pretended) longer in one precision."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fp32: float = 1.0, bf16: float = 1.0) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
        self.inputs, self.labels = torch.randn(12, 8), torch.arange(12) % 3
        self.costs = {False: fp32, True: bf16}
        self.now = self.calls = 0.0
        monkeypatch.setattr(module.time, "process_time", lambda: self.now)

    def __call__(self) -> torch.Tensor:
        self.calls += 1
        self.now += self.costs[torch.is_autocast_enabled("cpu")]
        return nn.functional.cross_entropy(self.network(self.inputs), self.labels)


@pytest.mark.parametrize(("bf16", "wanted"), [(0.5, "bf16"), (0.94, "bf16"), (0.97, "fp32"), (2.0, "fp32")])
def test_the_faster_one_is_chosen(monkeypatch: pytest.MonkeyPatch, bf16: float, wanted: str) -> None:
    step = Steps(monkeypatch, bf16=bf16)
    choice = choose_precision(step.network, step, key={})
    assert choice.precision == wanted
    assert choice.seconds["bf16"] / choice.seconds["fp32"] == pytest.approx(bf16)
    assert f"takes {bf16:.2f} of the CPU time" in choice.reason
    assert 0.99 <= choice.cosine <= 1 and 0 < choice.loss_gap < 0.02


def test_it_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Steps(monkeypatch)
    parameter = next(step.network.parameters())
    parameter.grad = kept = torch.ones_like(parameter)
    before = {name: tensor.clone() for name, tensor in step.network.state_dict().items()}
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    choose_precision(step.network, step, key={})
    assert torch.equal(torch.rand(3), wanted)
    for name, tensor in step.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert parameter.grad is kept and torch.equal(kept, torch.ones_like(kept))
    assert all(other.grad is None for other in list(step.network.parameters())[1:])
    assert step.network[3].p == 0.5 and step.network.training


def test_gradients_are_compared_as_numpy_compares_them(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Steps(monkeypatch)
    choice = choose_precision(step.network, step, key={})
    step.network[3].p = 0.0
    gradients = []
    for name in ("bf16", "fp32"):
        step.network.zero_grad()
        with autocast(name, CPU):
            loss = step()
        loss.backward()
        gradients.append(torch.cat([p.grad.reshape(-1) for p in step.network.parameters()]).double().numpy())
    low, full = gradients
    wanted = (low * full).sum() / ((low**2).sum() * (full**2).sum()) ** 0.5
    assert choice.cosine == pytest.approx(wanted, abs=1e-6)
    assert choice.cosine < 1


class Rounded(nn.Module):
    """A difference of large numbers: bf16 keeps no digit of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4, bias=False)
        nn.init.eye_(self.layer.weight)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs * 1000 + 1) - self.layer(inputs * 1000)


def test_bf16_that_disagrees_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Steps(monkeypatch)
    network, inputs = Rounded(), torch.rand(6, 4)
    choice = choose_precision(network, lambda: (network(inputs) - 1).square().mean() + network(inputs).std(), key={})
    assert choice.precision == "fp32" and "disagrees" in choice.reason
    assert choice.seconds == {}


def test_bf16_that_is_not_finite_or_fails_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Steps(monkeypatch)

    def broken() -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("no kernel for BFloat16\nmore")
        return step()

    def not_finite() -> torch.Tensor:
        return step() * (float("nan") if torch.is_autocast_enabled("cpu") else 1.0)

    assert choose_precision(step.network, broken, key={"step": "broken"}).reason == "bf16 fails: no kernel for BFloat16"
    assert choose_precision(step.network, not_finite, key={"step": "nan"}).precision == "fp32"


def test_it_is_remembered_by_what_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Steps(monkeypatch, bf16=0.5)
    first = choose_precision(step.network, step, key={"rows": 12})
    calls = step.calls
    again = choose_precision(step.network, step, key={"rows": 12})
    assert step.calls == calls and again.remembered and not first.remembered
    assert PrecisionChoice(**{**again.__dict__, "remembered": False}) == first
    choose_precision(step.network, step, key={"rows": 13})
    assert step.calls > calls
    calls = step.calls
    step.network[0].requires_grad_(False)  # another backward pass
    choose_precision(step.network, step, key={"rows": 12})
    assert step.calls > calls
    known = json.loads((tmp_path / "precisions.json").read_text())
    assert len(known) == 3
    calls = step.calls
    (tmp_path / "precisions.json").write_text("{broken")
    assert not choose_precision(step.network, step, key={"rows": 12}).remembered
    assert step.calls > calls


def test_a_cache_that_cannot_be_written_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file"))
    step = Steps(monkeypatch, bf16=0.5)
    assert choose_precision(step.network, step, key={}).precision == "bf16"


def test_without_instructions_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "supports_bf16", lambda device: False)
    step = Steps(monkeypatch)
    assert choose_precision(step.network, step, key={}).precision == "fp32"
    assert step.calls == 0
    assert not supports_bf16(torch.device("meta"))


def test_autocast_is_plain_in_fp32() -> None:
    left = torch.rand(3, 3)
    with autocast("fp32", CPU):
        assert torch.equal(left @ left, torch.mm(left, left))
    with autocast("bf16", CPU):
        assert (left @ left).dtype == torch.bfloat16
