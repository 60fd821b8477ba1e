"""How good a network is on the validation rows: the task's plain loss and its measure, each row once, by the plain view."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from headstart.training.distributed import World
from headstart.training.forward import Forward
from headstart.training.losses import Measure, spread, target_tensor, validation_loss
from headstart.training.network import Network
from headstart.training.rows import TrainingRows

__all__ = ["CHECK_ROWS", "Judge"]

CHECK_ROWS = 32  # rows run at once where nothing is learned


@dataclass
class Judge:
    """Judges networks by the same rows.

    Parameters
    ----------
    rows : TrainingRows
        With labels.
    most : int, optional
        Look at the first so many only.
    forward : Forward
        Runs networks.
    world : World
        The processes that share the work; all get the same figures.
    """

    rows: TrainingRows
    most: int | None
    forward: Forward
    world: World

    @torch.no_grad()
    def judge(self, network: Network) -> tuple[float, float]:
        """Return loss and measure of a network, which is left in evaluation mode."""
        assert self.rows.targets is not None
        network.eval()
        task = self.forward.task
        rows = self.rows.indices[: self.most]
        mine = self.world.shard(rows) if len(rows) >= self.world.size else rows
        outputs = [
            self.forward.outputs(network, self.rows.inputs.batch(mine[first : first + CHECK_ROWS], None))
            for first in range(0, len(mine), CHECK_ROWS)
        ]
        output_nk = torch.cat(outputs)
        if len(mine) < len(rows):
            output_nk = self.world.gather(output_nk, len(rows))
        truth = self.rows.targets[rows]
        targets = target_tensor(task, truth)
        assert targets is not None
        measure = Measure(task, spread(task, truth))
        output_nk = output_nk.cpu()
        measure.add(output_nk, targets)
        return validation_loss(task, output_nk, targets), measure.value
