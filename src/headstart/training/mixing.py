"""Mixup and cutmix: train between two rows, with their labels in the same proportion.

    mixup:   x = l x_i + (1 - l) x_j             q = l q_i + (1 - l) q_j              l ~ Beta(alpha, alpha)
    cutmix:  x = x_i, a box of x_j pasted in     q = l q_i + (1 - l) q_j              l = 1 - area of the box / area

Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018 (arXiv:1710.09412); Yun et al., "CutMix", ICCV 2019
(arXiv:1905.04899), the box cut at the border and l taken from what is left of it.
Use them on few labelled images with long trainings; cutmix on raw images only. One l and one box a step, partners from the
whole batch.
They ignore what the rows show: a box may cover nothing of either class.
Shapes: b rows of a batch, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from headstart.core.errors import ConfigError
from headstart.core.seeds import generator
from headstart.training.config import TrainingConfig

__all__ = ["Mix", "draw_mix", "mix_labels"]


@dataclass(frozen=True)
class Mix:
    """How the rows of one step are mixed.

    Parameters
    ----------
    partners : int64 array of shape (b,)
        Which row of the batch each is mixed with.
    keep : float in [0, 1]
        Share of the row itself; for a box, before it is cut at the border.
    centre : tuple of 2 floats in [0, 1), optional
        Where the box lies (down, across); ``None`` for mixup.
    """

    partners: NDArray[np.int64]
    keep: float
    centre: tuple[float, float] | None = None

    def box(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the pixels that come from the partner.

        Examples
        --------
        >>> Mix(np.array([0]), 0.75, (0.5, 0.5)).box(8, 8)              # a quarter of the area: half of each side
        (slice(2, 6, None), slice(2, 6, None))
        """
        assert self.centre is not None
        side = (1 - self.keep) ** 0.5
        spans = []
        for size, middle in ((height, self.centre[0]), (width, self.centre[1])):
            half, at = int(size * side) // 2, int(size * middle)
            spans.append(slice(max(0, at - half), min(size, at + half)))
        return spans[0], spans[1]

    def inputs(self, own: tuple[Tensor, ...], partner: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], float]:
        """Return mixed inputs, and the share of each row's own label.

        Parameters
        ----------
        own, partner : tuple of Tensor
            Inputs of the rows and of their partners, in the same order.

        Raises
        ------
        ConfigError
            If the rows are no numbers to be mixed (texts), or no images where a box is to be pasted.
        """
        if len(own) != 1 or not own[0].is_floating_point():
            raise ConfigError(
                "train: mixup and cutmix mix images, vectors, or activations of images; texts cannot be mixed. "
                "Leave mixup and cutmix at 0."
            )
        rows, others = own[0], partner[0]
        if self.centre is None:
            return (torch.lerp(others, rows, self.keep),), self.keep
        if rows.ndim != 4:
            raise ConfigError(
                f"train: cutmix pastes boxes into images (b, channels, height, width); got rows of shape "
                f"{tuple(rows.shape)}. Use mixup, or leave cutmix at 0."
            )
        down, across = self.box(rows.shape[2], rows.shape[3])
        mixed = rows.clone()
        mixed[:, :, down, across] = others[:, :, down, across]
        area = (down.stop - down.start) * (across.stop - across.start)
        return (mixed,), 1 - area / (rows.shape[2] * rows.shape[3])


def draw_mix(config: TrainingConfig, step: int, num_rows: int) -> Mix | None:
    """Return how a step's rows are mixed, a function of the seed and the step; ``None`` where nothing is."""
    if not (config.mixup or config.cutmix):
        return None
    random = generator(config.seed, "mix", step)
    boxes = random.random() < 0.5 if config.mixup and config.cutmix else bool(config.cutmix)
    alpha = config.cutmix if boxes else config.mixup
    keep = float(random.beta(alpha, alpha))
    centre = (float(random.random()), float(random.random())) if boxes else None
    return Mix(random.permutation(num_rows), keep, centre)


def mix_labels(own: Tensor, partner: Tensor, keep: float, num_classes: int) -> Tensor:
    """Return labels in the proportion of the rows.

    Parameters
    ----------
    own, partner : Tensor of shape (b,) or (b, k)
        int64 class numbers become soft labels (b, k); numbers and indicators are mixed as they are.
    keep : float in [0, 1]
        Share of ``own``.
    num_classes : int
        k; for class numbers.

    Examples
    --------
    >>> mix_labels(torch.tensor([0]), torch.tensor([2]), 0.75, 3)
    tensor([[0.7500, 0.0000, 0.2500]])
    """
    if not own.is_floating_point():
        own = functional.one_hot(own, num_classes).float()
        partner = functional.one_hot(partner, num_classes).float()
    return torch.lerp(partner, own, keep)
