"""Floor 2: differentiable loss terms. Each file is one formula: a pure function, and a thin `Objective` over it."""

from headstart.objectives.objective import Batch, Objective, Setup, joint_loss
from headstart.objectives.supervised import (
    BinaryCrossEntropy,
    CrossEntropy,
    SquaredError,
    balanced_class_weights,
    binary_cross_entropy,
    cross_entropy,
    squared_error,
    supervised_objective,
)

__all__ = [
    "Batch",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Objective",
    "Setup",
    "SquaredError",
    "balanced_class_weights",
    "binary_cross_entropy",
    "cross_entropy",
    "joint_loss",
    "squared_error",
    "supervised_objective",
]
