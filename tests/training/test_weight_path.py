"""The way between two states of a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from headstart.core.errors import ConfigError
from headstart.training.weight_path import WeightPath


def test_points_on_the_way_are_the_straight_line() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        for parameter in network[0].parameters():
            parameter.add_(torch.randn(parameter.shape))
    network[1](torch.randn(9, 4))
    end = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    path = WeightPath((tensor, start[name]) for name, tensor in network.state_dict().items())
    moved = [(end[name].double() - start[name].double()).numpy() for name in end if end[name].is_floating_point()]
    assert path.length == pytest.approx(np.sqrt(sum((gap**2).sum() for gap in moved)), rel=1e-12)
    for share in (0.25, 0.0, 1.0, 0.6, 1.0):
        path.go(share)
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                assert torch.equal(tensor, end[name])  # a counter has no middle
                continue
            expected = start[name].double() + share * (end[name].double() - start[name].double())
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-6)
            if share in {0.0, 1.0}:
                assert torch.equal(tensor, (start if share == 0 else end)[name])


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_beyond_the_ends_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"lies in \[0, 1\]"):
        WeightPath([]).go(share)
