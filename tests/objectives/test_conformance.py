"""What every objective of the catalog keeps to; a new entry is named here only by the values its arguments may take.

Rules: the same value and gradients under the same seed; finite; precision and device kept; `needs` is neither too much nor too
little; the configuration and the state are all there is to it; no constructor argument is dead; described in full.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from headstart.catalog import Entry, entries
from headstart.core.errors import ConfigError
from headstart.objectives import NEEDS, Batch, Objective

ENTRIES = entries("objective")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

# For every constructor argument a value that differs from the default; rows, head and weight are the same everywhere.
ROWS, HEAD, WEIGHT = "both", "second", 0.25
CRITIC = {"strength": 0.5, "widths": (7,), "dropout": 0.25, "spectral": True, "seed": 1}
OTHERWISE: dict[str, dict[str, Any]] = {
    "cross-entropy": {"label_smoothing": 0.3, "class_weights": (1.0, 2.0, 3.0)},
    "binary-cross-entropy": {"label_smoothing": 0.3, "class_weights": (1.0, 2.0, 3.0)},
    "squared-error": {},
    "l2-sp": {"alpha": 0.7, "beta": 0.7},
    "delta": {"alpha": 0.7, "beta": 0.7, "channel_weights": {"middle": (0.0, 1.0, 0.0, 0.0)}},
    "bss": {"num_values": 2},
    "stochastic-normalisation": {"probability": 0.9},
    "distillation": {"temperature": 5.0, "direction": "reverse"},
    "lwf": {"temperature": 5.0},
    "co-tuning": {"method": "reverse", "temperature": 3.0, "seed": 1},
    "bi-tuning": {"temperature": 0.5, "num_keys": 1, "width": 7, "momentum": 0.1, "seed": 1},
    "feature-mapping": {"width": 5, "base_width": 5, "seed": 1},
    "output-mapping": {},
    "consistency": {"form": "kl", "rows": "source"},
    "embedding": {"form": "squared", "bandwidth": 3.0},
    "classifier-discrepancy": {"first": "third", "second": "third"},
    "domain-coral": {},
    "irm": {"start": 0.9},
    "vrex": {"start": 0.9},
    "groupdro": {"step": 3.0},
    "m3sda": {"num_moments": 3},
    "neighbourhood-clustering": {"temperature": 0.5},
    "entropy-separation": {"margin": 0.1},
    "class-weighted-ce": {"momentum": 0.1},
    "mdan": {"gamma": 3.0, "critic_weight": 0.5, "widths": (4,), "seed": 1},
    "mixstyle": {"segments": ("middle",), "probability": 1.0, "alpha": 5.0},
    "domain-distance": {
        "distance": "coral",
        "layer": "segments.middle",
        "options": {"unbiased": False},
        "rise": 5.0,
        "seed": 1,
    },
    "multi-task": {
        "source_head": "second",
        "target_head": "third",
        "source_loss": "binary-cross-entropy",
        "target_loss": "squared-error",
        "balance": 0.2,
        "alpha": 0.7,
        "beta": 0.7,
    },
    "coral": {"layer": "segments.middle"},
    "dan": {"layers": ["features"], "factors": [1.0], "linear": True, "seed": 1},
    "jan": {"layers": ["features"], "factors": [1.0], "linear": True, "rise": 1.0},
    "dsan": {"layer": "segments.middle", "factors": [1.0], "rise": 1.0},
    "homm": {
        "order": 4,
        "num_moments": 7,
        "gamma": 0.1,
        "centred": False,
        "layer": "segments.middle",
        "seed": 1,
    },
    "cmd": {"num_moments": 2, "span": 2.0, "layer": "segments.middle"},
    "deep-jdot": {"feature_cost": 1.0, "label_cost": 1.0, "layer": "segments.middle"},
    "swd": {"first": "third", "second": "third", "num_directions": 3, "seed": 1},
    "afn": {"form": "hard", "step": 2.0, "radius": 5.0, "layer": "segments.middle"},
    "bsp": {"num_values": 2, "layer": "segments.middle"},
    "dann": {"steepness": 1.0, **CRITIC},
    "multi-domain-dann": {"steepness": 1.0, **CRITIC},
    "domain-confusion": CRITIC,
    "adda": CRITIC,
    "cdan": {"entropy": True, "max_products": 14, "num_random": 9, "steepness": 1.0, **CRITIC},
    "mdd": {"margin": 2.0, "steepness": 1.0, **CRITIC},
    "gvb": {"features_bridge": 0.5, "critic_bridge": 0.5, "steepness": 1.0, **CRITIC},
    "wdgrl": {"penalty": 1.0, **CRITIC},
    "pada": {"momentum": 0.5, "steepness": 1.0, **CRITIC},
    "osbp": {"boundary": 0.25, "strength": 0.5, "seed": 1},
    "entropy": {"temperature": 3.0},
    "mcc": {"temperature": 1.0},
    "bnm": {"fast": True},
    "infomax": {"diversity": 0.5},
    "shot": {"labels": 1.0, "diversity": 0.5, "num_refreshes": 1},
    "nrc": {"num_neighbours": 2, "num_expanded": 2, "distant": 0.5, "diversity": 0.5},
    "neighbourhood-density": {"temperature": 1.0},
    "vat": {"epsilon": 0.5, "xi": 0.5, "num_steps": 3},
    "fixmatch": {"threshold": 0.5},
    "flexmatch": {"threshold": 0.5, "warm_up": False},
    "self-training": {"start": 1.0, "end": 1.0},
    "deep-co-training": {"first": "third", "second": "third", "threshold": 0.5, "difference": 1.0},
    "mean-teacher": {"threshold": 1.0, "ramp": 1.0},
    "atdoc": {"form": "centres", "num_neighbours": 1, "temperature": 2.0, "momentum": 0.9},
    "mme": {},
    "eata": {"margin": 0.9, "similarity": 1.9},
}
CHANGE_THE_NETWORK = {"stochastic-normalisation", "mixstyle"}  # and have no term of their own
# What an argument needs beside it to make a difference.
BESIDES: dict[tuple[str, str], dict[str, Any]] = {
    ("co-tuning", "seed"): {"method": "reverse"},
    ("feature-mapping", "width"): {"base_width": 5},
    ("feature-mapping", "base_width"): {"width": 5},
    ("feature-mapping", "seed"): {"width": 5, "base_width": 5},
    ("domain-distance", "seed"): {"distance": "sliced-wasserstein"},
    ("dan", "seed"): {"linear": True},
    ("homm", "seed"): {"num_moments": 7},
    ("afn", "radius"): {"form": "hard"},
    ("domain-confusion", "dropout"): {"widths": (7,)},
    ("cdan", "num_random"): {"max_products": 14},
    ("atdoc", "momentum"): {"form": "centres"},
    ("flexmatch", "threshold"): {"warm_up": False},
}
DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("co-tuning", "seed"): {"method": "reverse"},
    ("feature-mapping", "seed"): {"width": 5, "base_width": 5},
    ("domain-distance", "seed"): {"distance": "sliced-wasserstein"},
    ("dan", "seed"): {"linear": True},
    ("homm", "seed"): {"num_moments": 7},
    ("afn", "radius"): {"form": "hard"},
    ("domain-confusion", "dropout"): {"widths": (7,)},
    ("cdan", "num_random"): {"max_products": 14},
    ("atdoc", "momentum"): {"form": "centres"},
    ("flexmatch", "threshold"): {"warm_up": False},
}
each = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


class Run:
    """An objective in a few steps of training: what it returns, what it leaves in the network, what it remembers."""

    def __init__(
        self,
        entry: Entry,
        world: Any,
        config: dict[str, Any] | None = None,
        needs: frozenset[str] = NEEDS,
        *,
        many: bool = False,
    ) -> None:
        torch.manual_seed(0)
        self.entry, self.world, self.needs, self.steps = entry, world, needs, 0
        world.network.heads["third"] = torch.nn.Linear(5, 3).to(world.labels.device)
        self.objective: Objective = entry.load()(**(config or {}))
        setup = world.setup()
        if many:  # rows enough for it to matter which are held out
            random = np.random.default_rng(0)
            setup = replace(
                setup,
                targets=random.integers(3, size=60),
                base_logits=lambda: random.normal(size=(60, 4)).astype(np.float32),
            )
        self.objective.prepare(setup)
        self.objective.to(world.labels.device)

    def batches(self) -> tuple[Batch, Batch]:
        """The two streams, with nothing but what is needed."""
        source, target = self.world.batch(), self.world.batch(target=True)
        if self.entry.name == "multi-task":
            source, target = self.two_tasks(source, target)
        if self.entry.name == "binary-cross-entropy":
            source = replace(source, labels=torch.nn.functional.one_hot(self.world.labels, 3).float())
        if self.entry.name == "squared-error":
            source = replace(source, labels=torch.nn.functional.one_hot(self.world.labels, 3).double() * 7)
        return self.bare(source), self.bare(target)

    def two_tasks(self, source: Batch, target: Batch) -> tuple[Batch, Batch]:
        """Give the second stream labels, and each the form that its loss takes."""
        classes = self.world.labels[:6].flip(0)
        target = replace(target, labels=classes)
        config = self.objective.config()
        if config["source_loss"] == "binary-cross-entropy":
            source = replace(source, labels=torch.nn.functional.one_hot(self.world.labels, 4).float())
        if config["target_loss"] == "squared-error":
            target = replace(target, labels=torch.nn.functional.one_hot(classes, 3).double())
        return source, target

    def bare(self, batch: Batch) -> Batch:
        fields = {name: getattr(batch, name) for name in self.needs}
        if "logits" in self.needs:
            fields["head_logits"] = batch.head_logits
        if "hidden" in self.needs:
            fields["run"] = batch.run
        return Batch(**fields, rows=batch.rows, share=batch.share)

    def step(self) -> torch.Tensor:
        torch.manual_seed(self.steps)  # as the loop does
        self.steps += 1
        value = self.objective(*self.batches())
        if value.requires_grad:
            value.backward()
        self.objective.after_step()
        return value.detach()

    def outcome(self) -> list[torch.Tensor]:
        """Everything that an argument may change: three values, all gradients, and what the network then gives."""
        torch.manual_seed(0)
        values = []
        for _ in range(3):
            values.append(self.step())
            with torch.no_grad():  # the network and the objective's own parameters move on
                for parameter in self.parameters():
                    if parameter.requires_grad:
                        drift = torch.linspace(-1, 2, parameter.numel()).view_as(parameter)
                        parameter.add_(0.1 * drift.to(parameter))
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        features = self.world.batch().features
        return [*values, *gradients, features.detach()]

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        return [*self.world.network.parameters(), *self.objective.parameters()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@each
@pytest.mark.parametrize("device", DEVICES)
def test_it_is_deterministic_finite_and_stays_where_it_is(entry: Entry, device: str, make_world: Any) -> None:
    first, again = Run(entry, make_world(device)), Run(entry, make_world(device))
    outcome = first.outcome()
    assert same(outcome, again.outcome())
    assert all(torch.isfinite(tensor).all() for tensor in outcome)
    value = first.step()
    assert value.shape == ()
    assert value.is_floating_point()
    if entry.name not in CHANGE_THE_NETWORK:
        assert value.device.type == device
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in first.parameters())


@each
def test_needs_are_enough_and_none_is_idle(entry: Entry, make_world: Any) -> None:
    needs = entry.load().needs
    assert needs <= NEEDS
    bare, full = Run(entry, make_world(), needs=needs), Run(entry, make_world())
    assert torch.equal(bare.step(), full.step())
    for name in needs:
        lacking = Run(entry, make_world(), needs=needs - {name})
        with pytest.raises(ConfigError, match=f"needs {name}|needs head_logits|needs activations"):
            lacking.step()


@each
def test_the_configuration_is_the_constructor(entry: Entry, make_world: Any) -> None:
    kind = entry.load()
    for config in ({}, *({name: value, **BESIDES.get((entry.name, name), {})} for name, value in changes(entry))):
        if entry.name == "classifier-discrepancy" and config.get("second") == config.get("first", "main"):
            continue
        objective = kind(**config)
        written = json.loads(json.dumps(objective.config()))
        assert kind(**written).config() == written
        assert set(written) == set(arguments(kind))
    assert same(Run(entry, make_world(), kind().config()).outcome(), Run(entry, make_world()).outcome())


@each
def test_state_is_all_that_a_killed_run_needs(entry: Entry, make_world: Any) -> None:
    run = Run(entry, make_world())
    run.step()
    state = {name: tensor.clone() for name, tensor in run.objective.state_dict().items()}
    resumed = Run(entry, make_world())
    resumed.steps = run.steps
    resumed.batches()  # the network has run once, as the other's has
    for parameter, copied in zip(resumed.parameters(), run.parameters(), strict=True):
        parameter.grad = None if copied.grad is None else copied.grad.clone()
    resumed.objective.load_state_dict(state)
    if entry.name == "stochastic-normalisation":
        resumed.world.network.load_state_dict(run.world.network.state_dict())
    expected = run.step()
    assert torch.equal(resumed.step(), expected)


def arguments(kind: Callable[..., Objective]) -> list[str]:
    return list(inspect.signature(kind).parameters)


def changes(entry: Entry) -> list[tuple[str, Any]]:
    values = {"rows": ROWS, "head": HEAD, "weight": WEIGHT, **OTHERWISE[entry.name]}
    return [(name, values[name]) for name in arguments(entry.load())]


@pytest.mark.golden
@each
def test_no_argument_is_dead(entry: Entry, make_world: Any) -> None:
    for name, value in changes(entry):
        defaults, besides = DEFAULTS.get((entry.name, name), {}), BESIDES.get((entry.name, name), {})
        if entry.name in {"distillation", "lwf", "co-tuning", "output-mapping"} and name == "head":
            world, other = make_world(), make_world()  # the base model's classes fit no other head: rename
            other.network.heads["second"] = other.network.heads["source"]
            with torch.no_grad():
                other.network.heads["source"] = torch.nn.Linear(5, 4)
            assert torch.equal(Run(entry, other, {"head": "second"}).step(), Run(entry, world).step())
            assert not torch.equal(Run(entry, other).step(), Run(entry, make_world()).step())
            continue
        default = inspect.signature(entry.load()).parameters[name].default
        many = (entry.name, name) == ("co-tuning", "seed")
        worlds = make_world(), make_world()
        if name == "segments":  # with one more that trains there is a choice
            for world in worlds:
                world.network.num_frozen = 0
        before = Run(entry, worlds[0], {name: default, **defaults}, many=many)
        after = Run(entry, worlds[1], {name: value, **besides}, many=many)
        assert not same(before.outcome(), after.outcome()), name


@each
def test_the_weight_multiplies(entry: Entry, make_world: Any) -> None:
    if "weight" not in arguments(entry.load()):
        assert entry.name in CHANGE_THE_NETWORK
        return
    one, three = (Run(entry, make_world(), {"weight": weight}) for weight in (1.0, 3.0))
    assert torch.allclose(3 * one.step(), three.step())
    for first, second in zip(one.parameters(), three.parameters(), strict=True):
        assert (first.grad is None) == (second.grad is None)
        assert first.grad is None or torch.allclose(3 * first.grad, second.grad, rtol=1e-3, atol=1e-3)
    assert Run(entry, make_world(), {"weight": 0.0}).step() == 0


@each
def test_half_precision_gives_float32_inside_autocast_and_out(entry: Entry, make_world: Any) -> None:
    full, half = Run(entry, make_world()), Run(entry, make_world())

    def halved(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: halved(entry) for name, entry in value.items()}
        return value.bfloat16() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    batches = [Batch(**{name: halved(value) for name, value in vars(batch).items()}) for batch in half.batches()]
    torch.manual_seed(1)
    expected = full.objective(*full.batches())
    torch.manual_seed(1)
    value = half.objective(*batches)
    assert value.dtype == torch.float32
    assert torch.allclose(value, expected, rtol=0.1, atol=0.05)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = half.objective(*batches)
    assert inside.dtype == torch.float32
    assert torch.allclose(inside, value, rtol=1e-5, atol=1e-6)


@each
def test_it_is_described_in_full(entry: Entry) -> None:
    kind = entry.load()
    module = inspect.getmodule(kind)
    assert module is not None
    for part in ("Source: ", "Use it", "It ignores") if entry.name not in SUPERVISED else ("Source: ", "Use them"):
        assert part in (module.__doc__ or ""), part
    assert "Shapes: " in (module.__doc__ or "") or entry.name == "l2-sp"
    for value in [kind, *(getattr(module, name) for name in module.__all__)]:
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        text = inspect.getdoc(value) or ""
        assert ">>>" in text or "Raises" in text or "Attributes" in text, value
        if value is kind or (inspect.isfunction(value) and "Parameters" in text):
            described = re.findall(
                r"^([\w, ]+) ?(?:: .*)?$", text.split("Parameters\n")[1].split("\n\n")[0], re.MULTILINE
            )
            named = {name.strip() for line in described for name in line.split(",")}
            assert set(inspect.signature(value).parameters) <= named, value


SUPERVISED = {"cross-entropy", "binary-cross-entropy", "squared-error"}


def test_every_entry_is_covered() -> None:
    assert set(OTHERWISE) == {entry.name for entry in ENTRIES}
