"""Small networks that change images and that judge them: enough for digits on a processor.

    generator    x + out(up(blocks(down(in(x)))))        instance normalisation; the identity at the start
    critic       a map of numbers, one for each patch of the image

Source: Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017
(arXiv:1703.10593), section 4 and appendix 7.2, but small; that a generator adds to its input and begins as the identity is ours,
and that critics do not normalise, so that they see the level of light.
Use them for images of up to some 64 pixels a side. They ignore what the images show.
Shapes: b images, c channels, h x w pixels (multiples of 4).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core.seeds import derive_seed

__all__ = ["Generator", "PatchCritic"]


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, maps: Tensor) -> Tensor:
        inner = functional.relu(functional.instance_norm(self.first(maps)))
        return maps + functional.instance_norm(self.second(inner))


class Generator(nn.Module):
    """Changes an image into one of the same size.

    Parameters
    ----------
    channels : int
        Of the image.
    width : int
        Maps at full size; twice as many at half of it.
    num_blocks : int
        Residual blocks at half size.
    seed : int
        Of the first weights.

    Examples
    --------
    >>> images = torch.rand(2, 1, 8, 8)
    >>> bool((Generator(1)(images) == images).all())
    True
    """

    def __init__(self, channels: int, width: int = 16, num_blocks: int = 2, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "generator"))
            self.enter = nn.Conv2d(channels, width, 5, padding=2)
            self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
            self.blocks = nn.Sequential(*(_Block(2 * width) for _ in range(num_blocks)))
            self.up = nn.Conv2d(2 * width, width, 3, padding=1)
            self.leave = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(cast(Tensor, self.leave.bias))

    def forward(self, images: Tensor) -> Tensor:
        """Return changed images."""
        maps = functional.relu(functional.instance_norm(self.enter(images)))
        maps = self.blocks(functional.relu(functional.instance_norm(self.down(maps))))
        maps = functional.interpolate(maps, scale_factor=2.0, mode="nearest")
        maps = functional.relu(functional.instance_norm(self.up(maps)))
        change: Tensor = self.leave(maps)
        return images + change


class PatchCritic(nn.Module):
    """Says of each patch how much it looks like one of its domain: near 1 if it does, near 0 if it was made.

    Parameters
    ----------
    channels : int
        Of the image.
    width : int
        Maps after the first layer.
    seed : int
        Of the first weights.

    Examples
    --------
    >>> PatchCritic(1)(torch.rand(2, 1, 16, 16)).shape
    torch.Size([2, 1, 4, 4])
    """

    def __init__(self, channels: int, width: int = 16, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "patch critic"))
            self.first = nn.Conv2d(channels, width, 4, stride=2, padding=1)
            self.second = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
            self.last = nn.Conv2d(2 * width, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return a map (b, 1, h / 4, w / 4)."""
        maps = functional.leaky_relu(self.first(images), 0.2)
        maps = functional.leaky_relu(self.second(maps), 0.2)
        said: Tensor = self.last(maps)
        return said
