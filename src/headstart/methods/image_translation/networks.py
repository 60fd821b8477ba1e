"""Small networks that change images and that judge them: enough for digits on a processor.

    generator    x + spread(out(blocks(in(gather(x)))))      instance normalisation; the identity at the start
                 gather: four neighbouring pixels become channels of one place; spread: the way back
    critic       a map of numbers, one for each patch of the image

Source: Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017
(arXiv:1703.10593), section 4 and appendix 7.2, but small; that a generator adds to its input and begins as the identity is ours,
and that critics do not normalise, so that they see the level of light. Gathered pixels (the way back: Shi et al., CVPR 2016,
arXiv:1609.05158) stand for strided convolutions: all layers work at half size, on channels a processor is quick at.
Use them for images of up to some 64 pixels a side. They ignore what the images show.
Shapes: b images, c channels, h x w pixels (multiples of 4).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core.seeds import derive_seed

__all__ = ["Generator", "Generators", "PatchCritic"]


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
        Maps, at half of the image's size.
    num_blocks : int
        Residual blocks; each lets a pixel see eight pixels farther.
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
            self.enter = nn.Conv2d(4 * channels, width, 3, padding=1)
            self.blocks = nn.Sequential(*(_Block(width) for _ in range(num_blocks)))
            self.leave = nn.Conv2d(width, 4 * channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(cast(Tensor, self.leave.bias))

    def forward(self, images: Tensor) -> Tensor:
        """Return changed images."""
        maps = functional.relu(functional.instance_norm(self.enter(functional.pixel_unshuffle(images, 2))))
        change: Tensor = functional.pixel_shuffle(self.leave(self.blocks(maps)), 2)
        return images + change


class Generators(nn.Module):
    """Both directions, held together while they train; as a layer it lets images through, for each loss asks for what it needs.

    Parameters
    ----------
    to_target, to_source : Generator
        From source images to target images, and back.

    Examples
    --------
    >>> images = torch.rand(2, 1, 8, 8)
    >>> Generators(Generator(1), Generator(1))(images) is images
    True
    """

    def __init__(self, to_target: Generator, to_source: Generator) -> None:
        super().__init__()
        self.to_target, self.to_source = to_target, to_source

    def forward(self, images: Tensor) -> Tensor:
        """Return the images."""
        return images


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
