"""A small network as objectives meet it: segments by name, heads, and a frozen copy of the base model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.core.tasks import Task
from headstart.objectives import Batch, Setup


class SmallNetwork(nn.Module):
    """Three segments with batch normalisation, and heads for the new task (two) and for the source task."""

    def __init__(self, num_frozen: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.names = ("stem", "middle", "features")
        self.segments = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU()),
                nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.ReLU()),
                nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5)),
            ]
        )
        self.heads = nn.ModuleDict({"main": nn.Linear(5, 3), "second": nn.Linear(5, 3), "source": nn.Linear(5, 4)})
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)
        self.num_frozen, self.start = num_frozen, 0
        for segment in self.segments[:num_frozen]:
            segment.requires_grad_(False)

    def forward(self, inputs: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return activations by segment and logits by head."""
        activations = {}
        for name, segment in zip(self.names, self.segments, strict=True):
            inputs = segment(inputs)
            activations[name] = inputs
        return activations, {name: head(inputs) for name, head in self.heads.items()}


class World:
    """A network, the base model it came from, its averaged teacher, and rows of two domains."""

    def __init__(self, device: str = "cpu") -> None:
        self.network = SmallNetwork().to(device)
        self.base = copy.deepcopy(self.network).eval()
        self.teacher = copy.deepcopy(self.network).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for network, size in ((self.network, 0.2), (self.teacher, 0.1)):
                for parameter in network.parameters():
                    if parameter.requires_grad:
                        noise = torch.randn(parameter.shape, generator=generator)
                        parameter.add_(size * noise.to(device))
            self.teacher.heads["main"].weight.mul_(0.25)  # sure, but not of everything
        self.inputs = torch.randn(8, 1, 4, 4, generator=generator).to(device)
        self.labels = torch.tensor([0, 1, 2, 0, 1, 2, 1, 0], device=device)
        self.others = torch.randn(6, 1, 4, 4, generator=generator).to(device) + 0.5
        self.domains = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1], device=device)
        self.task = Task("classification", ("a", "b", "c"))

    def setup(self) -> Setup:
        """What objectives may look at before the first step (the network as it was before training)."""
        targets, base = self.labels.cpu().numpy(), self.base
        with torch.no_grad():
            logits = base(self.inputs)[1]["source"].cpu().numpy()
        return Setup(
            self.network,
            self.task,
            targets,
            lambda: logits,
            width=5,
            num_target=len(self.others),
            target_outputs=lambda: self.outputs(self.others),
            source_outputs=lambda: self.outputs(self.inputs),
            num_domains=2,
        )

    def outputs(self, inputs: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return features and logits as the loop hands them out, in evaluation mode."""
        self.network.eval()
        with torch.no_grad():
            activations, logits = self.network(inputs)
        return activations["features"].cpu().numpy(), logits["main"].cpu().numpy()

    def run(self, hidden: tuple[Tensor, ...]) -> Tensor:
        """Return the main head's logits for what enters the part that trains."""
        output = hidden[0]
        for segment in self.network.segments[self.network.num_frozen :]:
            output = segment(output)
        logits: Tensor = self.network.heads["main"](output)
        return logits

    def batch(self, target: bool = False) -> Batch:
        """A batch with every field filled."""
        inputs = self.others if target else self.inputs
        self.network.train()
        activations, logits = self.network(inputs)
        strong_activations, strong_logits = self.network(inputs + 0.3 * torch.flip(inputs, (2,)))
        with torch.no_grad():
            hidden = self.network.segments[0](inputs)
            base_activations, base_logits = self.base(inputs)
            teacher_activations, teacher_logits = self.teacher(inputs)
        return Batch(
            labels=None if target else self.labels,
            features=activations["features"],
            logits=logits["main"],
            head_logits=logits,
            activations=activations,
            base_features=base_activations["features"],
            base_logits=base_logits["source"],
            base_activations=base_activations,
            teacher_features=teacher_activations["features"],
            teacher_logits=teacher_logits["main"],
            rows=torch.arange(len(inputs), device=inputs.device),
            strong_features=strong_activations["features"],
            strong_logits=strong_logits["main"],
            hidden=(hidden,),
            run=self.run,
            domains=None if target else self.domains,
            share=0.5,
        )


@pytest.fixture
def world() -> World:
    """A fresh world; the same numbers every time."""
    return World()


@pytest.fixture
def make_world() -> type[World]:
    """For tests that need several."""
    return World
