"""Small rows and networks for the tests of the training engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.tasks import Task
from headstart.training import Network, TrainingRows

__all__ = ["TASK", "THREE", "ArrayRows", "bodied", "normed", "points", "rows"]

TASK = Task("classification", ("no", "yes"))
THREE = Task("classification", ("a", "b", "c"))


class ArrayRows:
    """Rows of an array; every look at one but the plain look adds noise drawn from the row's own number."""

    num_views = 1

    def __init__(self, values: np.ndarray, noise: float = 0.0) -> None:
        self.values, self.noise = values, noise
        self.asked: list[tuple[np.ndarray, np.ndarray | None]] = []

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: np.ndarray, draws: np.ndarray | None = None) -> tuple[Tensor, ...]:
        self.asked.append((indices, draws))
        chosen = self.values[indices]
        if draws is not None and self.noise:
            drawn = np.stack([np.random.default_rng(int(draw)).normal(size=chosen.shape[1:]) for draw in draws])
            chosen = chosen + (self.noise * drawn).astype(chosen.dtype)
        return (torch.from_numpy(chosen),)

    def close(self) -> None:
        """Nothing to let go."""


def points(num_rows: int, seed: int = 0, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 (n, 2) points around as many centres as classes, and their classes."""
    random = np.random.default_rng(seed)
    labels = np.arange(num_rows) % classes
    angles = 2 * np.pi * labels / classes
    centres = np.stack([np.cos(angles), np.sin(angles)], 1)
    return (centres + 0.4 * random.normal(size=(num_rows, 2))).astype(np.float32), labels.astype(np.int64)


def rows(num_rows: int, seed: int = 0, classes: int = 2, noise: float = 0.0) -> TrainingRows:
    """Return labelled points as training rows."""
    values, labels = points(num_rows, seed, classes)
    return TrainingRows(ArrayRows(values, noise), labels)


def bodied(heads: Sequence[str] = ("main",), *, width: int = 8, outputs: int = 2, seed: int = 0) -> Network:
    """Return two segments without batch statistics, and linear heads."""
    torch.manual_seed(seed)
    segments = {
        "first": nn.Sequential(nn.Linear(2, width), nn.Tanh()),
        "features": nn.Sequential(nn.Linear(width, width), nn.Tanh()),
    }
    return Network(segments, {name: nn.Linear(width, outputs) for name in heads})


def normed(*, width: int = 6, outputs: int = 2, seed: int = 0, dropout: float = 0.3, frozen: int = 0) -> Network:
    """Return three segments with batch normalisation and dropout."""
    torch.manual_seed(seed)

    def block(inputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout))

    segments = {"first": block(2), "second": block(width), "features": block(width)}
    return Network(segments, {"main": nn.Linear(width, outputs)}, num_frozen=frozen)
