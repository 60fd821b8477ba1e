"""Adversarial recipes on the loop: they follow a rotation, stop in words when a critic runs away, and go on after a kill."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn

from headstart.catalog import resolve
from headstart.core.errors import ConfigError, TrainingError
from headstart.core.tasks import Task
from headstart.methods import AdaptedNetwork
from headstart.methods.adaptations import AdaptationRecipe
from headstart.methods.adaptations.adversarial import adda, dann, domain_confusion, mcd, osbp, pada, wdgrl
from headstart.objectives import WDGRL, CrossEntropy, Objective
from headstart.training import Network, Phase, Run, TrainingConfig, TrainingRows, train
from headstart.training.plan import Plan, whole_plan
from training_toys import TASK, THREE, ArrayRows, bodied, normed, points, rows


def loss(head: str) -> Objective:
    return CrossEntropy(head=head)


def with_rate(network: Network, recipe: AdaptationRecipe) -> Plan:
    return replace(whole_plan(network), own_rate=recipe.own_rate)


def run_of(make: Callable[..., AdaptationRecipe], heads: Sequence[str] = ("main",), **options: object) -> Run:
    recipe = make(loss, **options)
    network = normed() if len(heads) == 1 else bodied(heads)
    config = TrainingConfig(batch_size=6, max_epochs=3, precision="fp32", learning_rate=0.01, seed=5)
    return Run(
        network, TASK, rows(16, noise=0.1), None, config,
        unlabelled=rows(21, 2, noise=0.2), phases=recipe.phases, plan=with_rate(network, recipe),
    )  # fmt: skip


def steps(run: Run, number: int) -> Run:
    with run.random_numbers():
        while run.done < number:
            run.step()
    return run


def everything(run: Run) -> dict[str, Tensor]:
    own = {
        f"{place}/{name}": item for place, term in enumerate(run.objectives) for name, item in term.state_dict().items()
    }
    return {name: item.clone() for name, item in (run.network.state_dict() | own).items()}


@pytest.mark.parametrize("make", [
    partial(run_of, wdgrl, widths=(5,)),
    partial(run_of, adda, widths=(5,), dropout=0.3),
    partial(run_of, domain_confusion, widths=(5,), spectral=True),
    partial(run_of, pada, widths=(5,), momentum=0.5),
    partial(run_of, mcd, ("main", "second")),
])  # fmt: skip
def test_killed_after_any_step_the_end_is_the_same(make: Callable[[], Run]) -> None:
    whole = steps(make(), 7)
    expected = everything(whole)
    for stop in (0, 1, 4):
        tensors, value = steps(make(), stop).state()
        torch.manual_seed(stop)  # whatever else the new process has drawn
        second = make()
        second.restore(tensors, json.loads(json.dumps(value)))
        found = everything(steps(second, 7))
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_critic_learns_while_the_network_rests_and_the_other_way_round() -> None:
    for make, trained in ((wdgrl, ("segments", "heads")), (adda, ("segments",))):
        recipe = make(loss, widths=(5,))
        for phase in recipe.phases:
            network = bodied()
            config = TrainingConfig(batch_size=6, max_epochs=1, precision="fp32", learning_rate=0.1, weight_decay=0.1)
            single = (
                [phase] if "source" in phase.streams else [Phase(phase.objectives, phase.trains, streams=phase.streams)]
            )
            run = Run(network, TASK, rows(16), None, config, unlabelled=rows(21, 2), phases=single)
            before = everything(run)
            steps(run, 3)
            moved = {
                name.split(".")[0] for name, tensor in everything(run).items() if not torch.equal(tensor, before[name])
            }
            assert moved == ({"0/critic"} if phase.name == "critic" else set(trained)), (make, phase.name)


@pytest.mark.parametrize("first", [True, False])
def test_a_critic_that_runs_away_stops_the_training_and_is_named(first: bool) -> None:
    term = WDGRL(penalty=0.0, widths=(8,), strength=0.0)  # nothing holds its slope
    critic = Phase((term,), trains=("objectives",), repeats=3, name="critic")
    learn = Phase((CrossEntropy(),), trains=("segments", "heads"), name="learn")
    config = TrainingConfig(
        batch_size=8, max_epochs=300, precision="fp32", learning_rate=0.05, schedule="constant", clip=None
    )
    network = bodied()
    with pytest.raises(
        TrainingError, match=r"exploded from .* most of all critic\.WDGRL at step \d+ .* good weights back"
    ) as caught:
        train(network, TASK, rows(16), None, config, unlabelled=rows(16, 2),
              phases=[critic, learn] if first else [learn, critic])  # fmt: skip
    assert caught.value.history.stopped == "error"
    assert all(torch.isfinite(item).all() for item in network.state_dict().values())


def test_a_critic_that_is_not_a_number_is_named() -> None:
    recipe = domain_confusion(loss, widths=(5,))
    (term,) = recipe.phases[0].objectives
    network, config = bodied(), TrainingConfig(batch_size=8, max_epochs=3, precision="fp32")
    run = Run(network, TASK, rows(16), None, config, unlabelled=rows(16, 2), phases=recipe.phases)
    steps(run, 2)
    with torch.no_grad():
        term.critic.layers[0].weight.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"the loss critic\.DomainConfusion is nan at step 3"), run.random_numbers():
        run.step()


def test_a_gradient_that_is_not_a_number_is_named_by_its_phase() -> None:
    class Broken(Objective):
        needs = frozenset({"logits"})
        weight = 1.0

        def forward(self, source, target=None):  # type: ignore[no-untyped-def]
            return (source.logits - source.logits).sum().sqrt()  # 0, with the slope 0 / 0

    config = TrainingConfig(batch_size=8, max_epochs=3, precision="fp32")
    phases = [Phase((CrossEntropy(),)), Phase((Broken(),), trains=("heads",), name="second")]
    with pytest.raises(TrainingError, match=r"the gradient of second \(Broken\) is nan at step 1"):
        train(bodied(), TASK, rows(16), None, config, phases=phases)


def test_options_of_recipes_are_those_of_their_objectives() -> None:
    assert dann(loss, strength=0.25, seed=3).objectives[1].config()["strength"] == 0.25
    with pytest.raises(ConfigError, match=r"dann: has no option 'strengt'; it has strength, .*Did you mean 'strength'"):
        dann(loss, strengt=0.25)


@pytest.mark.golden
def test_osbp_tells_rows_of_a_class_the_source_does_not_have() -> None:
    random = np.random.default_rng(0)
    centres = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 4.0]])
    labels = random.integers(0, 2, 200)
    hidden = random.integers(0, 3, 300)  # 2: unknown
    values = [
        (centres[kind] + 0.3 * random.normal(size=(len(kind), 2))).astype(np.float32) for kind in (labels, hidden)
    ]
    source, target = TrainingRows(ArrayRows(values[0]), labels), TrainingRows(ArrayRows(values[1]), None)
    recipe, network = osbp(loss), bodied(width=16)
    config = TrainingConfig(batch_size=100, max_epochs=60, precision="fp32", learning_rate=3e-3, weight_decay=0.0)
    train(network, TASK, source, None, config, unlabelled=target, phases=recipe.phases, plan=with_rate(network, recipe))
    with torch.no_grad():
        output = network(torch.from_numpy(values[1]))
        unknown = recipe.objectives[1].unknown_logits(output.features)
    correct = torch.cat([output.logits, unknown[:, None]], 1).argmax(1).numpy() == hidden
    assert correct[hidden < 2].mean() > 0.95 and correct[hidden == 2].mean() > 0.9  # measured: 1.00 and 0.97


MOONS = Task("classification", ("inner", "outer"))


def moons(num_rows: int, degrees: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    values, labels = make_moons(num_rows, noise=0.08, random_state=seed)
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return ((values - [0.5, 0.25]) @ turn.T).astype(np.float32), labels.astype(np.int64)


def followed(name: str, seed: int, epochs: int, degrees: float = 30, own_rate: float = 1.0, **options: object) -> float:
    """Train by a recipe of the catalog on moons and return the accuracy on turned ones, which come without labels."""
    values, labels = moons(400, 0, seed)
    turned, hidden = moons(400, degrees, 100 + seed)
    recipe = resolve(name, "adaptation")(loss, **options)
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())

    def head() -> nn.Module:
        return nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))

    network = Network({"features": body}, {head_name: head() for head_name in recipe.heads})
    config = TrainingConfig(
        learning_rate=1e-3,
        weight_decay=0.0,
        batch_size=200,
        max_epochs=epochs,
        schedule="constant",
        precision="fp32",
        seed=seed,
    )
    source, target = TrainingRows(ArrayRows(values), labels), TrainingRows(ArrayRows(turned), None)
    plan = replace(whole_plan(network), own_rate=own_rate)
    train(network, MOONS, source, None, config, unlabelled=target, phases=recipe.phases, plan=plan)
    with torch.no_grad():
        return float((network(torch.from_numpy(turned)).logits.argmax(1).numpy() == hidden).mean())


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_a_second_classifier_follows_a_rotation(seed: int) -> None:
    source_only = followed("source-only", seed, 200)
    assert source_only < 0.85  # measured: 0.79 and 0.80
    assert followed("mcd", seed, 200, repeats=3) > 0.95  # measured: 1.00 and 1.00
    assert followed("mdd", seed, 500) > 0.93  # measured: 0.99 and 0.97


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_features_against_a_critic_follow_a_smaller_rotation(seed: int) -> None:
    """A turn of 30 degrees they follow for one seed and not for another: nothing holds a class to its own."""
    source_only = followed("source-only", seed, 400, 20)
    options = {"own_rate": 10.0, "widths": (64,), "spectral": True}
    assert followed("dann", seed, 400, 20, **options) > source_only + 0.05  # measured: 0.92 and 0.90, 0.99 and 1.00
    assert followed("cdan", seed, 400, 20, **options) > source_only + 0.05  # measured: 1.00 and 1.00
    assert followed("cdan-e", seed, 400, 20, **options) > source_only + 0.03  # measured: 0.99 and 0.99
    assert followed("gvb", seed, 400, 20, **options) > source_only + 0.02  # measured: 1.00 and 0.95


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_a_confused_critic_costs_little_and_gains_where_it_is_strong(seed: int) -> None:
    """The published strength hardly moves features this small; a hundred times as much does."""
    options = {"own_rate": 10.0, "widths": (64,), "spectral": True}
    source_only = followed("source-only", seed, 400, 20)
    published = followed("domain-confusion", seed, 400, 20, **options)
    assert published > source_only - 0.02  # measured: 0.96 and 0.90, 0.92 and 0.90
    assert followed("domain-confusion", seed, 400, 20, strength=1.0, **options) > source_only + 0.04  # 1.00 and 0.99


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_a_critic_of_distances_and_an_encoder_of_the_target_follow(seed: int) -> None:
    source_only = followed("source-only", seed, 200, 20)
    assert followed("wdgrl", seed, 200, 20, widths=(32,)) > source_only + 0.04  # measured: 1.00 and 1.00
    values, labels = moons(400, 0, seed)
    turned, hidden = moons(400, 20, 100 + seed)
    found = {}
    for name in ("source-only", "adda"):
        make = partial(adda, widths=(64,)) if name == "adda" else resolve(name, "adaptation")
        network = AdaptedNetwork(make, "dense32-relu-dense32-relu", num_steps=400, learning_rate=1e-3, seed=seed)
        network.set_params(batch_size=200)
        found[name] = float((network.fit(values, labels, turned).predict(turned) == hidden).mean())
    assert found["adda"] > found["source-only"] + 0.01  # measured: 0.93 and 0.90, 0.90 and 0.87


@pytest.mark.golden
def test_pada_finds_the_class_that_the_target_does_not_show() -> None:
    values, labels = points(300, 0, 3)
    there, hidden = points(300, 1, 3)
    there, hidden = there[hidden < 2] + np.float32([0.4, 0.2]), hidden[hidden < 2]
    recipe, network = pada(loss, momentum=0.9, widths=(32,)), bodied(outputs=3, width=16)
    config = TrainingConfig(batch_size=50, max_epochs=40, precision="fp32", learning_rate=3e-3, weight_decay=0.0)
    source, target = TrainingRows(ArrayRows(values), labels), TrainingRows(ArrayRows(there), None)
    train(
        network, THREE, source, None, config, unlabelled=target, phases=recipe.phases, plan=with_rate(network, recipe)
    )
    with torch.no_grad():
        answers = network(torch.from_numpy(there)).logits.argmax(1).numpy()
    counted = recipe.objectives[1].class_weights().tolist()
    assert counted[2] < 0.1 and min(counted[:2]) > 0.7  # measured: 0.02, and 1.00 and 0.86
    assert (answers == hidden).mean() > 0.95  # measured: 0.99
