"""Features that have exploded: terms between domains are not a number, and the training stops in words with good weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.backbones import vector_backbone
from headstart.core.errors import ConfigError, TrainingError
from headstart.core.tasks import Task
from headstart.data import open_dataset
from headstart.objectives import (
    AFN,
    BSP,
    CMD,
    CORAL,
    DAN,
    DSAN,
    JAN,
    SWD,
    Batch,
    CrossEntropy,
    DeepJDOT,
    DomainDistance,
    HoMM,
)
from headstart.objectives.domain_distance import DIFFERENTIABLE
from headstart.objectives.layers import or_not_a_number
from headstart.training import InputRows, Network, Phase, TrainingConfig, TrainingRows, train

TERMS = [
    *(DomainDistance(name) for name in DIFFERENTIABLE if not name.startswith("wasserstein")),
    CORAL(),
    DAN(),
    DAN(linear=True),
    JAN(),
    DSAN(),
    HoMM(),
    HoMM(num_moments=5),
    CMD(),
    DeepJDOT(),
    SWD(),
    AFN(),
    BSP(),
]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("term", TERMS, ids=lambda term: repr(term)[:30])
def test_a_term_of_what_is_not_finite_is_not_finite(term: Any, value: float) -> None:
    rows, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    broken = rows.clone()
    broken[2, 1] = value
    source = Batch(labels=labels, features=rows, logits=rows)
    target = Batch(features=broken, logits=broken, head_logits={"main": broken, "second": rows})
    assert not torch.isfinite(term(source, target))


def test_what_is_wrong_otherwise_is_still_refused() -> None:
    def refuse() -> torch.Tensor:
        raise ConfigError("another reason")

    with pytest.raises(ConfigError, match="another reason"):
        or_not_a_number(refuse, torch.zeros(2))


def test_a_training_that_explodes_stops_in_words_and_has_its_weights_back() -> None:
    points = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)

    def rows(labels: np.ndarray | None) -> TrainingRows:
        return TrainingRows(InputRows(open_dataset(points, unlabelled=True), vector_backbone(2)), labels)

    network = Network({"features": nn.Linear(2, 3)}, {"main": nn.Linear(3, 2)})
    config = TrainingConfig(
        learning_rate=1e30, optimiser="sgd", clip=None, schedule="constant", warm_up=0.0, precision="fp32"
    )
    with pytest.raises(TrainingError, match=r"train: the (loss|gradient).* at step"):
        train(
            network,
            Task("classification", ("a", "b")),
            rows((points[:, 0] > 0).astype(np.int64)),
            None,
            config,
            unlabelled=rows(None),
            phases=[Phase((CrossEntropy(), DAN(["features"])))],
        )
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
