"""Floor 3: the one visible training loop, and the rows it feeds on."""

from headstart.training.inputs import InputRows
from headstart.training.loop import History, TrainingConfig, TrainingRows, train

__all__ = ["History", "InputRows", "TrainingConfig", "TrainingRows", "train"]
