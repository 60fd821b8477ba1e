"""Gradients of every objective of the catalog, in float64, along a random direction of the network and of its own parameters.

Most are the derivative of the value. Where something counts as a constant (a bandwidth, weights of rows, guessed labels) or is
turned round before a critic, they are not: `ELSEWHERE` names these, and each has a test of its own beside its twin.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.catalog import Entry, entries
from headstart.objectives import Batch, Objective, ramp

ENTRIES = [entry for entry in entries("objective") if entry.name not in {"stochastic-normalisation", "mixstyle"}]
each = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
OPTIONS: dict[str, dict[str, Any]] = {  # with which there is something to learn in these few rows
    "mdan": {"critic_weight": 1.0},
    "bss": {"num_values": 3},
    "entropy-separation": {"margin": 0.1},
}
REVERSED = {"dann", "multi-domain-dann", "pada", "wdgrl"}  # all that reaches the network comes through the reversal
ELSEWHERE = {
    "embedding": "nearness of rows",
    "domain-distance": "the median distance",
    "dan": "the median distance",
    "jan": "the median distance",
    "dsan": "the median distance, and guesses",
    "cmd": "the span of the features",
    "afn": "the length to reach; the value is 0",
    "domain-confusion": "the value is the critic's",
    "adda": "the value is the critic's",
    "cdan": "predictions shown to the critic",
    "mdd": "the first head's answers are labels",
    "gvb": "only the critic's part is turned round",
    "osbp": "only target rows are turned round",
    "mcc": "weights of rows",
    "nrc": "answers in the memory",
    "vat": "the direction, and the answers it starts from",
    "eata": "weights of rows",
    "mme": "the head, against which the features learn",
    "groupdro": "weights of domains",
    "mdan": "weights of domains, and target rows are turned round",
}
OWN_CONSTANTS = {"gvb", "mdan"}  # the first bridge is turned round for the critic; weights of domains


class Slope:
    """An objective, and how its value and its gradient answer to a move along a random direction."""

    def __init__(self, entry: Entry, world: Any, share: float = 0.5, options: dict[str, Any] | None = None) -> None:
        self.world, self.name, self.share = world, entry.name, share
        world.network.heads["third"] = nn.Linear(5, 3)
        self.objective: Objective = entry.load()(**(options or OPTIONS.get(entry.name, {})))
        self.objective.prepare(world.setup())
        for module in (world.network, world.base, world.teacher, self.objective):
            module.double()
        world.inputs, world.others = world.inputs.double(), world.others.double()
        if self.name == "self-training":  # low thresholds, on which no row of the batch lies
            self.objective.answers_mk.copy_(torch.eye(3).repeat(2, 1) * 0.01 + 0.33)
        if self.name == "bi-tuning":  # which has no keys before
            self.value()
            self.objective.after_step()
        network = list(world.network.parameters())
        self.network = [parameter for parameter in network if parameter.requires_grad]
        self.own = [item for item in self.objective.parameters() if not any(item is other for other in network)]

    def batches(self) -> tuple[Batch, Batch]:
        source, target = (replace(self.world.batch(target=item), share=self.share) for item in (False, True))
        if self.name == "multi-task":
            target = replace(target, labels=self.world.labels[:6])
        if self.name == "binary-cross-entropy":
            source = replace(source, labels=nn.functional.one_hot(self.world.labels, 3).double())
        if self.name == "squared-error":
            source = replace(source, labels=nn.functional.one_hot(self.world.labels, 3).double())
        return source, target

    def value(self) -> Tensor:
        torch.manual_seed(0)  # the same draws every time
        return self.objective(*self.batches())

    def along(self, parameters: list[Any], size: float = 1e-6) -> tuple[float, float]:
        """Return the gradient's part in a random direction, and the value's own slope there."""
        generator = torch.Generator().manual_seed(7)
        directions = [torch.randn(item.shape, generator=generator, dtype=torch.float64) for item in parameters]
        gradients = torch.autograd.grad(self.value(), parameters, allow_unused=True)
        pairs = zip(gradients, directions, strict=True)
        told = sum(float((gradient * way).sum()) for gradient, way in pairs if gradient is not None)
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                torch._foreach_add_(parameters, directions, alpha=sign * size)
                values.append(self.value().item())
                torch._foreach_sub_(parameters, directions, alpha=sign * size)
        return told, (values[0] - values[1]) / (2 * size)


@each
def test_gradients_are_slopes_of_the_value_or_named_above(entry: Entry, world: Any) -> None:
    found = Slope(entry, world)
    told, slope = found.along(found.network)
    if entry.name in REVERSED:
        steepness = getattr(found.objective, "steepness", None)
        assert told == pytest.approx(-slope * (1.0 if steepness is None else ramp(0.5, steepness)), rel=1e-4)
    elif entry.name in ELSEWHERE:
        assert told != pytest.approx(slope, rel=1e-3) and told != 0  # else it is to be named no more
    else:
        assert told == pytest.approx(slope, rel=1e-4)
    assert slope != 0 or entry.name == "afn"
    if found.own:
        told, slope = found.along(found.own)
        assert (told == pytest.approx(slope, rel=1e-4)) == (entry.name not in OWN_CONSTANTS)


def test_what_is_named_above_is_in_the_catalog() -> None:
    assert {*OPTIONS, *REVERSED, *ELSEWHERE, *OWN_CONSTANTS} <= {entry.name for entry in ENTRIES}


SCHEDULED = [entry for entry in ENTRIES if {"steepness", "rise"} & set(inspect.signature(entry.load()).parameters)]


@pytest.mark.parametrize("entry", SCHEDULED, ids=lambda entry: entry.name)
def test_schedules_at_the_beginning_half_and_the_end(entry: Entry, make_world: Any) -> None:
    """What follows the ramp is nothing at the beginning, and tanh(2.5) and tanh(5) of itself at half and at the end."""
    options = {"rise": 10.0} if entry.name == "domain-distance" else None
    gradients = []
    for share in (0.0, 0.5, 1.0):
        found = Slope(entry, make_world(), share, options)
        gradients.append(found.along(found.network)[0])
    start, half, end = gradients
    if entry.name != "gvb":  # whose first bridge is there throughout
        assert start == 0
    assert end != start
    assert (half - start) / (end - start) == pytest.approx(0.9866142981514303 / 0.9999092042625951, rel=1e-6)
