"""Small pairs of domains whose answer is known: what the tests of adaptation methods share."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import make_moons

__all__ = ["clouds", "few_labels", "turned_moons"]


def clouds(
    seed: int, shift: float = 0.0, share: float = 0.5, num_rows: int = 160, num_features: int = 5
) -> tuple[Any, Any]:
    """Return two Gaussian clouds three units apart along the first feature, moved along it; ``share`` of the rows are "up"."""
    draws = np.random.default_rng(seed)
    up = draws.random(num_rows) < share
    rows = draws.normal(size=(num_rows, num_features))
    rows[:, 0] += 3.0 * up + shift
    return rows, np.where(up, "up", "down")


def turned_moons(seed: int, degrees: float = 0.0, num_rows: int = 150) -> tuple[Any, Any]:
    """Return two interleaved half circles, turned about their middle."""
    rows, labels = make_moons(num_rows, noise=0.06, random_state=seed)
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (rows - [0.5, 0.25]) @ turn.T, np.array(["in", "out"])[labels]


def few_labels(labels: Any, num_each: int) -> Any:
    """Return labels with None for all but the first ``num_each`` rows of each class."""
    given = np.full(len(labels), None, dtype=object)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)[:num_each]
        given[rows] = labels[rows]
    return given
