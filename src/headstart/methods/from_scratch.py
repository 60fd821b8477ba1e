"""The same network with random weights, really trained: what the labelled rows alone can teach it.

The honest counterpart of transfer: architecture and rows are the same, only the knowledge is missing. Pictures smaller than the
network's input are not enlarged to it, which gives the same budget many more steps.
It trains every parameter with augmentation (mirroring) and keeps the weights that do best on rows set aside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headstart.backbones import Backbone
from headstart.core.errors import DataError, TrainingError
from headstart.core.preprocessing import ImageTransform
from headstart.core.progress import Progress
from headstart.core.seeds import derive_seed
from headstart.core.tasks import Task
from headstart.data import Dataset, folds, sniff
from headstart.features import extract_features
from headstart.training import History, InputRows, Network, TrainingConfig, TrainingRows, fitting_batch_size, train

__all__ = ["FromScratch", "ScratchModel"]


def _fit_input_size(backbone: Backbone, rows: Dataset) -> None:
    """Let a network without knowledge see small pictures near their own size: enlarging them would only waste its budget.

    The size is the median short side of up to 64 rows, rounded up to a multiple of 32, at least 64 pixels and at most the
    network's own. A network that cannot take another size keeps its own.
    """
    transform = backbone.transform
    if not isinstance(transform, ImageTransform):
        return
    sides = []
    for i in range(0, len(rows), max(1, len(rows) // 64)):
        content: Any = rows.read(i)
        if isinstance(content, bytes):
            header = sniff(content)
            sides.append(min(header.width, header.height))
        else:
            sides.append(min(content.shape[:2]))
    size = max(64, 32 * math.ceil(float(np.median(sides)) / 32))
    if size >= min(transform.height, transform.width):
        return
    try:
        with torch.no_grad():
            features = backbone.module(torch.zeros(2, 3, size, size))
    except (RuntimeError, ValueError, AssertionError):
        return
    if features.shape == (2, backbone.width):
        backbone.transform = replace(transform, height=size, width=size)


def _linear(width: int, num_outputs: int) -> nn.Linear:
    head = nn.Linear(width, num_outputs)
    nn.init.zeros_(head.bias)
    nn.init.normal_(head.weight, std=0.01)
    return head


@dataclass
class ScratchModel:
    """A network trained from random weights, and how its training went."""

    backbone: Backbone
    head: nn.Linear
    task: Task
    history: History
    centre: float = 0.0
    scale: float = 1.0

    def predict(self, rows: Dataset, *, runtime: str = "auto", progress: Progress | None = None) -> NDArray[np.float64]:
        """Return scores of shape (n, k), or (n,) for regression. Rows that cannot be read are an error here."""
        features = extract_features(rows, self.backbone, store=False, runtime=runtime, progress=progress)
        if len(features.kept) != len(rows):
            raise DataError(
                f"ScratchModel: {len(rows) - len(features.kept)} rows cannot be read; leave them out first."
            )
        with torch.no_grad():
            output_nk = self.head(torch.from_numpy(features.values_nd)).double()
        if self.task.kind == "regression":
            return np.asarray(output_nk[:, 0].numpy() * self.scale + self.centre)
        activation = torch.softmax(output_nk, 1) if self.task.kind == "classification" else torch.sigmoid(output_nk)
        return np.asarray(activation.numpy())


class FromScratch:
    """Train a backbone's network from random weights.

    Parameters
    ----------
    cpu_seconds : float
        Budget of CPU time for training; infinity trains until the validation loss stops falling.
    wall_seconds : float
        Budget of waiting time, where others share the machine.
    seed : int
        Weights, order of rows, and the rows set aside.
    validation : float in (0, 1)
        Share of the training rows set aside to choose the weights to keep.
    """

    def __init__(
        self, cpu_seconds: float = 60.0, seed: int = 0, validation: float = 0.15, wall_seconds: float = math.inf
    ) -> None:
        self.cpu_seconds, self.wall_seconds = cpu_seconds, wall_seconds
        self.seed = seed
        self.validation = validation

    def fit(self, train_rows: Dataset, backbone: Backbone, *, progress: Progress | None = None) -> ScratchModel:
        """Train on labelled rows; the backbone given stays as it is."""
        task, targets = train_rows.task, train_rows.targets
        if task is None or targets is None:
            raise DataError("FromScratch: needs labelled rows; these have no labels.")
        fresh = backbone.with_random_weights(derive_seed(self.seed, "scratch") % 2**31)
        _fit_input_size(fresh, train_rows)
        centre, scale = 0.0, 1.0
        if task.kind == "regression":
            centre, scale = float(targets.mean()), float(targets.std()) or 1.0
            targets = (targets - centre) / scale
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "scratch head"))
            head = _linear(fresh.width, task.num_outputs)
            network = Network({"features": fresh.module}, {"main": head})
            network.to("cuda" if torch.cuda.is_available() else "cpu")
            inputs = InputRows(train_rows, fresh, augment="flips" if train_rows.modality == "image" else "none")
            try:
                history = self._train(network, task, inputs, targets, train_rows, progress)
            finally:
                inputs.close()
                network.cpu()
        return ScratchModel(fresh, head, task, history, centre, scale)

    def _train(
        self,
        network: Network,
        task: Task,
        inputs: InputRows,
        targets: NDArray[Any],
        rows: Dataset,
        progress: Progress | None,
    ) -> History:
        learning, choosing = self._set_aside(rows)
        config = TrainingConfig(
            cpu_seconds=self.cpu_seconds,
            wall_seconds=self.wall_seconds,
            learning_rate=5e-4 if rows.modality == "text" else 1e-3,
            batch_size=fitting_batch_size(len(learning), 32),
            max_epochs=200 if math.isinf(self.cpu_seconds) else 100,
            seed=self.seed,
            precision="fp32",
            threads=1,  # a CPU-second budget then buys steps, not threads that wait for each other
            validation_rows=128,
        )
        parts = [TrainingRows(inputs, targets, chosen) for chosen in (learning, choosing)]
        try:
            return train(network, task, parts[0], parts[1], config, progress=progress, stage="scratch")
        except TrainingError as error:  # a baseline that breaks off is a poor baseline, not the end of the comparison
            if error.history is None:
                raise
            history: History = error.history
            history.notes.append(str(error))
            return history

    def _set_aside(self, rows: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows to learn from and rows to choose by, whole groups on one side; tiny sets choose by what they learn from."""
        if len(rows) < 7:
            everything = np.arange(len(rows))
            return everything, everything
        num_folds = min(len(rows), max(2, round(1 / self.validation)))
        learning, choosing = folds(rows, num_folds, seed=self.seed)[0]
        return np.asarray(learning), np.asarray(choosing)
