"""The training loop: mini-batches, AdamW, warm-up and cosine, the best validated weights kept.

Time is a budget of CPU seconds spent in training steps (checks on validation rows are not charged to it). The learning rate
falls along the share of the budget that is spent, or of the epochs if those end first, so that a short run is a whole run and
not the torn-off beginning of a long one.
Shapes: b rows in a batch, k outputs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from headstart.core.progress import Progress
from headstart.core.seeds import generator
from headstart.core.tasks import Task
from headstart.training.inputs import InputRows

__all__ = ["History", "TrainingConfig", "TrainingRows", "train"]

_MOST_VALIDATION_ROWS = 128


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to train.

    Parameters
    ----------
    cpu_seconds : float
        Budget of CPU time for training steps, all threads; infinity trains until ``patience`` or ``max_epochs`` ends it.
    learning_rate : float
        Peak rate of AdamW.
    weight_decay : float
        Decoupled weight decay of AdamW.
    batch_size : int
        Rows a step; halved until an epoch has at least 4 steps.
    max_epochs : int
        Most passes over the training rows.
    patience : int
        Checks without a better validation loss before training stops.
    flips : bool
        Mirror half of the images.
    seed : int
        Order of rows and flips.
    """

    cpu_seconds: float = 60.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    batch_size: int = 32
    max_epochs: int = 100
    patience: int = 15
    flips: bool = True
    seed: int = 0


@dataclass(frozen=True)
class TrainingRows:
    """Inputs, their targets, and which of them this purpose may use."""

    inputs: InputRows
    targets: NDArray[Any]
    indices: NDArray[np.int64]


@dataclass
class History:
    """What happened, one entry a check: at the end of an epoch while checks stay cheap, and five times over the budget.

    ``stopped`` is ``"budget"``, ``"patience"`` or ``"epochs"``; ``best`` is the check whose weights were kept. The measure is
    accuracy, the mean per-class accuracy of multi-label rows, or R2; that of training rows is taken while they train.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    train_measure: list[float] = field(default_factory=list)
    validation_measure: list[float] = field(default_factory=list)
    steps: int = 0
    epochs: float = 0.0
    cpu_seconds: float = 0.0
    best: int = -1
    stopped: str = "epochs"


def train(
    network: nn.Module,
    task: Task,
    training: TrainingRows,
    validation: TrainingRows,
    config: TrainingConfig,
    *,
    progress: Progress | None = None,
) -> History:
    """Train a network in place and leave it with the weights of the lowest validation loss, in evaluation mode.

    Parameters
    ----------
    network : nn.Module
        Takes what `InputRows.batch` gives, returns (b, k) logits, or (b, 1) numbers in the unit of the targets given.
    task : Task
        Says which loss: cross-entropy, binary cross-entropy, or squared error.
    training, validation : TrainingRows
        Rows to learn from, and rows that choose the weights to keep.
    config : TrainingConfig
        How long and how fast.
    progress : Progress, optional
        Gets a stage named "scratch".

    Returns
    -------
    History
        Losses and measures of every check.
    """
    run = _Run(network, task, training, validation, config)
    with (progress or Progress(quiet=True)).stage("scratch") as stage:
        for rows in run.steps():
            stage.advance(rows)
        stage.note = f"{run.history.epochs:.1f} epochs, stopped by {run.history.stopped}"
    return run.finish()


class _Run:
    """State of one training run between two steps."""

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        training: TrainingRows,
        validation: TrainingRows,
        config: TrainingConfig,
    ) -> None:
        self.network, self.task, self.config = network.to(memory_format=torch.channels_last), task, config
        self.training, self.validation = training, validation
        self.random = generator(config.seed, "training")
        self.batch_size = _batch_size(len(training.indices), config.batch_size)
        self.optimiser = torch.optim.AdamW(
            _parameter_groups(network, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.99)
        )
        self.history = History()
        self.best_loss = math.inf
        self.best_weights: dict[str, Tensor] = {}
        self.device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        self.spent = self.checking = 0.0
        self.losses: list[float] = []
        self.agreements: list[float] = []

    def steps(self) -> Iterator[int]:
        """Do one step after another, yielding the number of rows each took, until something ends the run."""
        budget, history = self.config.cpu_seconds, self.history
        every = budget / 5
        last_check = 0.0
        for epoch in range(self.config.max_epochs):
            order = self.random.permutation(self.training.indices)
            num_batches = max(1, len(order) // self.batch_size)
            for number, rows in enumerate(np.array_split(order, num_batches)):
                done = (epoch + number / num_batches) / self.config.max_epochs
                self._set_rate(max(done, self.spent / budget))
                started = time.process_time()
                self._step(rows)
                self.spent += time.process_time() - started
                history.steps += 1
                history.epochs = epoch + (number + 1) / num_batches
                yield len(rows)
                over = self.spent >= budget
                cheap = number + 1 == num_batches and self.checking <= 0.25 * self.spent
                if over or cheap or self.spent - last_check >= every:
                    self._check()
                    last_check = self.spent
                if over:
                    history.stopped = "budget"
                    return
                if len(history.validation_loss) - 1 - history.best >= self.config.patience:
                    history.stopped = "patience"
                    return
        if self.losses:
            self._check()

    def finish(self) -> History:
        """Put the best weights back."""
        if self.best_weights:
            self.network.load_state_dict(self.best_weights)
        self.network.eval()
        self.history.cpu_seconds = self.spent
        return self.history

    def _set_rate(self, share: float) -> None:
        warm_up = min(1.0, share / 0.05)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * max(0.02, warm_up * cosine)

    def _step(self, rows: NDArray[np.int64]) -> None:
        self.network.train()
        flipped = self.random.random(len(rows)) < 0.5 if self.config.flips else None
        output_bk = self._outputs(self.training, rows, flipped)
        loss = _loss(self.task, output_bk, self.training.targets[rows])
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.losses.append(float(loss.detach()))
        self.agreements.append(_agreement(self.task, output_bk.detach(), self.training.targets[rows]))

    @torch.no_grad()
    def _check(self) -> None:
        history, started = self.history, time.process_time()
        history.train_loss.append(float(np.mean(self.losses)))
        history.train_measure.append(float(np.mean(self.agreements)))
        self.losses, self.agreements = [], []
        self.network.eval()
        rows = self.validation.indices[:_MOST_VALIDATION_ROWS]
        outputs = [self._outputs(self.validation, rows[i : i + 32]) for i in range(0, len(rows), 32)]
        output_bk, targets = torch.cat(outputs), self.validation.targets[rows]
        loss = float(_loss(self.task, output_bk, targets))
        history.validation_loss.append(loss)
        history.validation_measure.append(_agreement(self.task, output_bk, targets))
        if loss < self.best_loss:
            self.best_loss, history.best = loss, len(history.validation_loss) - 1
            self.best_weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.checking += time.process_time() - started

    def _outputs(self, part: TrainingRows, rows: NDArray[np.int64], flipped: NDArray[np.bool_] | None = None) -> Tensor:
        inputs = part.inputs.batch(rows.tolist(), flipped)
        output: Tensor = self.network(*(tensor.to(self.device) for tensor in inputs))
        return output.float().cpu()


def _batch_size(num_rows: int, wished: int) -> int:
    """Return a batch size that leaves at least four steps in an epoch, and at least two rows in a batch.

    Examples
    --------
    >>> _batch_size(1000, 32), _batch_size(40, 32), _batch_size(3, 32)
    (32, 8, 2)
    """
    while wished > 2 and num_rows // wished < 4:
        wished //= 2
    return max(2, wished)


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameters with and without weight decay: vectors (biases, norms) are not decayed."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _loss(task: Task, output_bk: Tensor, targets: NDArray[Any]) -> Tensor:
    if task.kind == "classification":
        return functional.cross_entropy(output_bk, torch.from_numpy(targets.astype(np.int64)))
    truth = torch.from_numpy(targets.astype(np.float32))
    if task.kind == "multilabel":
        return functional.binary_cross_entropy_with_logits(output_bk, truth)
    return functional.mse_loss(output_bk[:, 0], truth)


def _agreement(task: Task, output_bk: Tensor, targets: NDArray[Any]) -> float:
    if task.kind == "classification":
        return float(np.mean(output_bk.argmax(1).numpy() == targets))
    if task.kind == "multilabel":
        return float(np.mean((output_bk > 0).numpy() == targets.astype(bool)))
    spread = float(np.var(targets))
    return 1 - float(np.mean((output_bk[:, 0].numpy() - targets) ** 2)) / spread if spread > 0 else 0.0
