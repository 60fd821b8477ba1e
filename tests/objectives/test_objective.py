"""What a loss term is: its configuration, how it asks for fields, sums of terms, and the precision of formulas."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from headstart.core.errors import ConfigError
from headstart.core.tasks import Task
from headstart.objectives import Batch, CrossEntropy, Objective, Setup, SquaredError, joint_loss
from headstart.objectives.objective import check_choice, check_positive
from headstart.objectives.precision import full_precision, widen


def test_a_configuration_is_the_constructor() -> None:
    objective = CrossEntropy(label_smoothing=0.25, class_weights=(1, 2), head="second", weight=3)
    config = json.loads(json.dumps(objective.config()))
    assert config == {"label_smoothing": 0.25, "class_weights": [1.0, 2.0], "head": "second", "weight": 3}
    assert CrossEntropy(**config).config() == config
    assert "label_smoothing=0.25" in repr(objective)


def test_a_field_that_was_not_filled_is_named() -> None:
    with pytest.raises(ConfigError, match="CrossEntropy: needs labels of the batch, which is empty"):
        CrossEntropy()(Batch(logits=torch.zeros(1, 2)))
    with pytest.raises(ConfigError, match=r"needs head_logits\['second'\] of the batch; there is main"):
        CrossEntropy(head="second")(Batch(labels=torch.tensor([0]), head_logits={"main": torch.zeros(1, 2)}))


def test_the_main_head_is_found_under_either_name() -> None:
    batch = Batch(labels=torch.tensor([0]), head_logits={"main": torch.zeros(1, 2)})
    assert CrossEntropy()(batch) == CrossEntropy()(Batch(labels=batch.labels, logits=torch.zeros(1, 2)))


def test_a_stream_that_is_not_there() -> None:
    source, target = Batch(), Batch()
    objective = Objective()
    assert objective.chosen("source", source, target) == (source,)
    assert objective.chosen("both", source, None) == (source,)
    assert objective.chosen("both", source, target) == (source, target)
    assert objective.chosen("target", source, target)[0] is target
    with pytest.raises(ConfigError, match="needs a second stream"):
        objective.chosen("target", source, None)


def test_the_joint_loss_is_the_weighted_sum_and_its_gradient_the_sum_of_gradients() -> None:
    logits = torch.tensor([[1.0]], requires_grad=True)
    batch = Batch(labels=torch.tensor([3.0]), logits=logits)
    total = joint_loss([SquaredError(weight=2.0), SquaredError(weight=0.5)], batch)
    assert total.item() == pytest.approx(10.0)
    total.backward()
    assert logits.grad.item() == pytest.approx(2.5 * 2 * (1 - 3))
    with pytest.raises(ConfigError, match="at least one objective"):
        joint_loss([], batch)


def test_a_setup_leaves_out_what_is_frozen() -> None:
    network = nn.Module()
    network.segments = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 2), nn.Linear(2, 2)])
    network.heads = nn.ModuleDict({"main": nn.Linear(2, 1)})
    setup = Setup(network, Task("regression"))
    assert list(setup.segments()) == ["0", "1", "2"]
    network.names, network.num_frozen = ("stem", "middle", "features"), 1
    assert list(setup.segments()) == ["middle", "features"]
    assert setup.segments()["middle"] is network.segments[1]
    assert list(setup.heads()) == ["main"]


def test_an_objective_that_only_says_its_name_refuses_to_be_used() -> None:
    with pytest.raises(NotImplementedError):
        Objective()(Batch())
    assert Objective().after_step() is None


def test_choices_and_signs_are_checked() -> None:
    check_choice("x", "form", "kl", ("kl", "squared"))
    with pytest.raises(ConfigError, match=r"x: form is one of kl, squared; got 'sqared'. Did you mean 'squared'"):
        check_choice("x", "form", "sqared", ("kl", "squared"))
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="temperature is above 0"):
            check_positive("x", "temperature", bad)


def test_formulas_keep_double_widen_half_and_leave_autocast() -> None:
    assert widen(torch.ones(1, dtype=torch.float16)).dtype == torch.float32
    assert widen(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
    product = full_precision(lambda a, *, b: a @ b)
    rows = torch.full((1, 3), 1.001)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (rows @ rows.T).dtype == torch.bfloat16
        assert product(rows, b=rows.T).item() == pytest.approx(3 * 1.001**2, rel=1e-6)
        assert (rows @ rows.T).item() != pytest.approx(3 * 1.001**2, rel=1e-4)
