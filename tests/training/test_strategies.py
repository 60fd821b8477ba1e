"""Strategies: what trains, how fast and from when on; adapters that leave an ordinary network behind."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

from headstart.core.errors import ConfigError, MissingExtra
from headstart.training.adapters import (
    Adapters,
    HadamardAdapters,
    KroneckerAdapters,
    LowRankAdapters,
    RescalingAdapters,
    WeightDecomposedAdapters,
)
from headstart.training.network import Network
from headstart.training.norms import NormsOnly
from headstart.training.plan import ParameterGroup, Plan
from headstart.training.strategies import (
    FRESH_HEAD,
    FullFineTuning,
    GradualUnfreezing,
    HeadOnly,
    LastStages,
    LayerwiseDecay,
    LinearProbeThenFineTune,
    Strategy,
    read_strategy,
    without_batch_norm,
)


def _network() -> Network:
    """Return three stages with parameters and a last one without."""
    torch.manual_seed(0)
    segments = {
        "stem": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        "layer1": nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        "layer2": nn.Sequential(nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 8, 1), nn.ReLU()),
        "features": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    }
    return Network(segments, {"main": nn.Linear(8, 2)})


def _rates(plan: Plan) -> dict[str, tuple[float, float]]:
    """Return rate and beginning by segment (or head)."""
    found: dict[str, tuple[float, float]] = {}
    for group in plan.groups:
        for name in group.names:
            found[".".join(name.split(".")[:2])] = (group.rate, group.begins)
    return found


def test_head_only_freezes_the_whole_body() -> None:
    plan = HeadOnly().plan(_network(), 20)
    assert _rates(plan) == {"heads.main": (FRESH_HEAD, 0.0)} and plan.num_frozen == 4
    assert "the head alone trains on 20 rows" in plan.reason


def test_last_stages_are_counted_without_those_that_hold_nothing() -> None:
    network = _network()
    plan = LastStages(2).plan(network, 200, solved=True)
    assert _rates(plan) == {"segments.1": (1.0, 0.0), "segments.2": (1.0, 0.0), "heads.main": (1.0, 0.0)}
    assert plan.num_frozen == 1 and plan.reason == "layer1 and layer2 and the head train on 200 rows"
    trained = plan.carry_out(network)
    assert set(trained) == {
        name for name, _ in network.named_parameters() if name.startswith(("segments.1", "segments.2", "heads"))
    }
    with pytest.raises(ConfigError, match="3 stages with parameters; num_stages 4 is too many"):
        LastStages(4).plan(network, 200)


def test_full_fine_tuning_trains_every_parameter() -> None:
    network = _network()
    plan = FullFineTuning().plan(network, 5)
    assert {name for group in plan.groups for name in group.names} == {name for name, _ in network.named_parameters()}
    assert plan.num_frozen == 0


def test_layerwise_decay_is_a_power_of_the_stages_that_follow() -> None:
    plan = LayerwiseDecay(0.5).plan(_network(), 1000)
    assert _rates(plan) == {
        "segments.0": (0.25, 0.0),
        "segments.1": (0.5, 0.0),
        "segments.2": (1.0, 0.0),
        "heads.main": (FRESH_HEAD, 0.0),
    }
    assert "the first at 0.25" in plan.reason
    assert set(_rates(LayerwiseDecay(0.5, num_stages=2).plan(_network(), 9))) == {
        "segments.1",
        "segments.2",
        "heads.main",
    }


def test_gradual_unfreezing_opens_one_stage_after_another_from_the_last() -> None:
    plan = GradualUnfreezing(complete=0.8, decay=0.5).plan(_network(), 100)
    rates = _rates(plan)
    assert rates["heads.main"] == (FRESH_HEAD, 0.0)
    for segment, rate, begins in [("segments.2", 1.0, 0.2), ("segments.1", 0.5, 0.4), ("segments.0", 0.25, 0.6)]:
        assert rates[segment] == (rate, pytest.approx(begins))
    assert "after 60 % of the training" in plan.reason and plan.num_frozen == 0


def test_a_solved_head_needs_no_probe_and_a_fresh_one_does() -> None:
    strategy = LinearProbeThenFineTune(then=GradualUnfreezing(2, complete=0.75), probe=0.2)
    solved = strategy.plan(_network(), 50, solved=True)
    assert solved.groups == strategy.then.plan(_network(), 50, solved=True).groups
    assert solved.reason.startswith("from the solved head, ")
    rates = _rates(strategy.plan(_network(), 50))
    assert rates["heads.main"] == (FRESH_HEAD, 0.0)
    assert rates["segments.2"][1] == pytest.approx(0.2 + 0.8 * 0.25)
    assert rates["segments.1"][1] == pytest.approx(0.2 + 0.8 * 0.5)


def test_batch_normalisation_can_be_left_as_it_is() -> None:
    network = _network()
    plan = without_batch_norm(FullFineTuning().plan(network, 5), network)
    left_out = {name for name, _ in network.named_parameters()} - {
        name for group in plan.groups for name in group.names
    }
    assert left_out == {f"segments.{i}.1.{name}" for i in (0, 1) for name in ("weight", "bias")}
    plan.carry_out(network)
    before = {name: item.clone() for name, item in network.named_buffers()}
    network.train()(torch.randn(4, 3, 9, 9) * 9)
    assert all(torch.equal(item, before[name]) for name, item in network.named_buffers())


def test_normalisation_layers_alone_train_and_keep_their_statistics() -> None:
    network = _network()
    network.segments[2].append(nn.GroupNorm(2, 8))
    plan = LinearProbeThenFineTune(NormsOnly(), 0.5).plan(network, 30, solved=True)
    expected = {f"segments.{place}.{name}" for place in ("0.1", "1.1", "2.3") for name in ("weight", "bias")}
    assert set(plan.groups[0].names) == expected and plan.num_frozen == 0
    assert "normalisation layers in all 3 stages (36 numbers) and the head train on 30 rows" in plan.reason
    resting = without_batch_norm(plan, network)
    assert resting.groups == plan.groups and resting.to_dict()["rest_statistics"] is True
    rows = torch.randn(4, 3, 11, 11) * 9
    for one, moves in ((resting, False), (plan, True)):
        learning = one.carry_out(network)
        assert set(learning) == expected | {"heads.main.weight", "heads.main.bias"}
        before = {name: item.clone() for name, item in network.named_buffers()}
        plain = network.eval()(rows).logits
        output = network.train()(rows).logits
        assert torch.equal(output, plain) != moves  # with statistics at rest training sees what prediction sees
        changed = [name for name, item in network.named_buffers() if not torch.equal(item, before[name])]
        assert bool(changed) == moves
        output.sum().backward()
        assert all(network.get_parameter(name).grad is not None for name in learning)
    last = NormsOnly(num_stages=1).plan(network, 30)
    assert last.groups[0].names == ("segments.2.3.weight", "segments.2.3.bias") and last.num_frozen == 2
    with pytest.raises(ConfigError, match="no normalisation layer with scale and shift; use last-stages or lora"):
        NormsOnly().plan(Network({"features": nn.Linear(3, 3)}, {"main": nn.Linear(3, 2)}), 9)


@pytest.mark.parametrize(
    "strategy",
    [
        HeadOnly(),
        LastStages(3),
        FullFineTuning(),
        LayerwiseDecay(0.6, 2),
        GradualUnfreezing(2, 0.4, 0.9),
        LinearProbeThenFineTune(LastStages(2), 0.5),
        LowRankAdapters(4, 8.0, 0.1, 2, 5.0),
        WeightDecomposedAdapters(4, 8.0, 0.1, 2, 5.0),
        HadamardAdapters(4, 8.0, 0.1, 2, 5.0),
        KroneckerAdapters(4, 8.0, 0.1, 2, 5.0),
        RescalingAdapters(2, 5.0),
        NormsOnly(2, 5.0),
    ],
    ids=lambda item: item.name,
)
def test_a_strategy_is_read_back_from_its_configuration(strategy: Strategy) -> None:
    assert read_strategy(json.loads(json.dumps(strategy.config()))) == strategy
    assert read_strategy(strategy) is strategy
    assert type(read_strategy(strategy.name)) is type(strategy)


def test_a_number_after_a_name_sets_what_one_would_set_first() -> None:
    assert read_strategy("last-stages:2") == LastStages(2)
    assert read_strategy("lora:4") == LowRankAdapters(4)
    assert read_strategy({"name": "lp-ft", "then": "last-stages:2"}) == LinearProbeThenFineTune(LastStages(2))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("last-stage", "Did you mean 'last-stages'"),
        ("full:2", "takes no number"),
        ("lora:many", "is a number; got 'many'"),
        ("lora:0", "rank is a whole number, at least 1"),
        ("last-stages:1.5", "num_stages is a whole number"),
        ("norms:0", "num_stages is a whole number"),
        ({"name": "norms", "rate": 0}, "strategy norms: rate is above 0"),
        ("layerwise-decay:1.5", "decay lies above 0"),
        ({"name": "last-stages", "stages": 2}, "has no 'stages'; it has num_stages"),
        ({"name": "lp-ft", "then": "lp-ft"}, "cannot be followed by itself"),
        ({"name": "gradual-unfreezing", "complete": 0}, "complete lies above 0"),
        ({"name": "lora", "dropout": 1.0}, r"dropout lies in \[0, 1\)"),
        ({"name": "ia3", "rate": 0.0}, "strategy ia3: rate is above 0; got 0.0"),
        ({"name": "loha", "alpha": 0.0}, "strategy loha: dropout lies in"),
        ("lp-ft:0", "probe lies between 0 and 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(value: object, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        read_strategy(value)  # type: ignore[arg-type]


def test_a_body_without_parameters_has_only_its_head_to_train() -> None:
    network = Network({"features": nn.Identity()}, {"main": nn.Linear(3, 2)})
    assert HeadOnly().plan(network, 9).num_frozen == 1
    with pytest.raises(ConfigError, match="use head-only"):
        FullFineTuning().plan(network, 9)


def _adapter_names(network: Network) -> list[str]:
    return [name for name, _ in network.named_parameters() if ".base_layer." not in name and ".default" in name]


def _stir(network: Network) -> None:
    """Give adapters and head other values, as training would."""
    own = _adapter_names(network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in own or name.startswith("heads."):
                parameter.add_(0.3 * torch.randn(parameter.shape))


EVERY_ADAPTER = [
    LowRankAdapters(rank=2),
    WeightDecomposedAdapters(rank=2),
    HadamardAdapters(rank=2),
    KroneckerAdapters(rank=2),
    RescalingAdapters(),
]


@pytest.mark.parametrize("strategy", EVERY_ADAPTER, ids=lambda item: item.name)
def test_merged_adapters_leave_the_same_function_and_an_ordinary_network(strategy: Adapters) -> None:
    network, rows = _network().eval(), torch.randn(5, 3, 11, 11)
    names, before = [name for name, _ in network.named_parameters()], network(rows).logits.detach()
    weights = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    strategy.prepare(network, seed=1)
    torch.testing.assert_close(network(rows).logits, before)  # at first they change nothing
    plan = strategy.plan(network, 40)
    own = _adapter_names(network)
    assert sorted(plan.groups[0].names) == sorted(own) and f"adapters ({strategy.name})" in plan.reason
    adapted = {".".join(name.split(".")[:3]) for name in own}
    every = {"segments.0.0", "segments.1.0", "segments.2.1"}  # not the grouped convolution, not the head
    assert adapted == ({"segments.2.1"} if strategy.name == "dora" else every)
    assert plan.groups[1].names == ("heads.main.weight", "heads.main.bias")
    assert plan.num_frozen == (2 if strategy.name == "dora" else 0)
    plan.carry_out(network)
    assert {name for name, part in network.named_parameters() if part.requires_grad} == {*own, *plan.groups[1].names}
    _stir(network)
    with torch.no_grad():
        adapted_output = network.eval()(rows).logits
        strategy.finish(network)
        merged = network.eval()(rows).logits
    torch.testing.assert_close(merged, adapted_output, rtol=1e-5, atol=1e-5)
    assert (merged - before).abs().max() > 0.1
    assert [name for name, _ in network.named_parameters()] == names
    assert type(network.segments[0][0]) is nn.Conv2d
    torch.testing.assert_close(network.get_parameter("segments.2.0.weight"), weights["segments.2.0.weight"])


def _adapted_weight(strategy: Adapters, part: dict[str, torch.Tensor], before: torch.Tensor) -> torch.Tensor:
    """Return the weight by the formula of each paper; 3 is alpha / rank."""
    if strategy.name == "ia3":
        return part["ia3_l"].reshape(-1, 1) * before
    if strategy.name == "lora":
        return before + 3 * part["lora_B"] @ part["lora_A"]
    if strategy.name == "dora":
        moved = before + 3 * part["lora_B"] @ part["lora_A"]
        return part["lora_magnitude_vector"].reshape(-1, 1) * moved / moved.norm(dim=1, keepdim=True)
    if strategy.name == "loha":
        return before + 3 * (part["hada_w1_a"] @ part["hada_w1_b"]) * (part["hada_w2_a"] @ part["hada_w2_b"])
    small, large = part["lokr_w1"], part["lokr_w2_a"] @ part["lokr_w2_b"]
    blocks = [torch.cat([number * large for number in row], dim=1) for row in small]  # Kronecker's product, by hand
    return before + 3 * torch.cat(blocks)


@pytest.mark.parametrize(
    ("strategy", "numbers"),
    [
        (LowRankAdapters(rank=2, alpha=6.0), 2 * (36 + 24)),
        (WeightDecomposedAdapters(rank=2, alpha=6.0), 2 * (36 + 24) + 24),
        (HadamardAdapters(rank=2, alpha=6.0), 2 * 2 * (36 + 24)),
        (KroneckerAdapters(rank=2, alpha=6.0), 4 * 6 + 2 * (6 + 6)),
        (RescalingAdapters(), 24),
    ],
    ids=lambda item: getattr(item, "name", str(item)),
)
def test_adapters_are_the_formulas_of_their_papers(strategy: Adapters, numbers: int) -> None:
    torch.manual_seed(0)
    network = Network({"features": nn.Linear(36, 24)}, {"main": nn.Linear(24, 2)})
    layer = network.segments[0]
    before = layer.weight.detach().clone()
    strategy.prepare(network)
    _stir(network)
    own = _adapter_names(network)
    assert sum(network.get_parameter(name).numel() for name in own) == numbers
    part = {name.split(".")[2]: network.get_parameter(name).detach() for name in own}
    strategy.finish(network)
    expected = _adapted_weight(strategy, part, before)
    torch.testing.assert_close(network.segments[0].weight, expected, rtol=1e-5, atol=1e-5)
    assert network.segments[0] is layer  # a layer shared with the backbone stays that layer
    ranks = {"lora": 2, "loha": 4}
    if strategy.name in ranks:
        assert torch.linalg.matrix_rank(expected - before) == ranks[strategy.name]


def test_adapters_in_the_last_stages_leave_a_frozen_prefix() -> None:
    network = _network()
    strategy = LinearProbeThenFineTune(LowRankAdapters(rank=2, num_stages=1))
    strategy.prepare(network)
    plan = strategy.plan(network, 40)
    assert plan.num_frozen == 2 and plan.groups[0].begins == pytest.approx(0.3)
    assert isinstance(plan.groups[0], ParameterGroup) and plan.groups[0].rate == 10.0
    strategy.finish(network)
    assert not _adapter_names(network)


def test_the_seed_says_where_adapters_start() -> None:
    found = []
    for seed in (1, 1, 2):
        network = _network()
        LowRankAdapters(rank=2).prepare(network, seed=seed)
        found.append(network.get_parameter("segments.0.0.lora_A.default.weight").detach())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_adapters_that_cannot_be_made_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Network({"features": nn.Conv2d(4, 4, 3, groups=4)}, {"main": nn.Flatten()})
    with pytest.raises(ConfigError, match="no linear layer or plain convolution to adapt; use full instead"):
        LowRankAdapters().prepare(plain)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"headstart\[adapters\]"):
        LowRankAdapters().prepare(_network())
