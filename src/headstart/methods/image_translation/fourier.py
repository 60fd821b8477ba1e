"""Fourier amplitude swap: a source image takes on the low frequencies' amplitudes of a target image and keeps its own phases.

    F^-1( m A_target + (1 - m) A_source,  P_source )        m: 1 where both frequencies are at most floor(size * min(h, w))

Source: Yang & Soatto, "FDA: Fourier Domain Adaptation for Semantic Segmentation", CVPR 2020 (arXiv:2004.05498), equations 2, 3.
Use it where domains differ in light, colour and texture at large; nothing is trained. The paper's sizes are 0.01 to 0.09.
It ignores what is in the images: large sizes carry shapes of the target over.
Shapes: b images, c channels, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.core.errors import ConfigError, ShapeError
from headstart.training.rows import Rows

__all__ = ["FourierRows", "swap_amplitude"]


def swap_amplitude(source_bchw: Tensor, target_bchw: Tensor, size: float = 0.01) -> Tensor:
    """Return source images with the low-frequency amplitudes of target images.

    Parameters
    ----------
    source_bchw, target_bchw : Tensor of shape (b, c, h, w)
        Pixels on a scale that begins at black, 0: below it a mean would have a sign, which is a phase.
    size : float in [0, 0.5)
        How many frequencies, as a share of the shorter side; at 0 the mean of each channel alone.

    Returns
    -------
    Tensor of shape (b, c, h, w)
        Not limited to the range of pixels.

    Raises
    ------
    ShapeError
        If shapes differ.
    ConfigError
        If ``size`` is out of range.

    Examples
    --------
    >>> grey, bright = torch.full((1, 1, 4, 4), 0.25), torch.full((1, 1, 4, 4), 0.75)
    >>> swap_amplitude(grey, bright, 0.0)[0, 0, 0, 0].item()            # the mean is the amplitude of frequency 0
    0.75
    """
    _check_size("swap_amplitude", size)
    if source_bchw.ndim != 4 or source_bchw.shape != target_bchw.shape:
        raise ShapeError(
            f"swap_amplitude: needs two batches of images (b, c, h, w) of one shape; got {tuple(source_bchw.shape)} and "
            f"{tuple(target_bchw.shape)}."
        )
    height, width = source_bchw.shape[-2:]
    source, target = (torch.fft.rfft2(images, norm="forward") for images in (source_bchw, target_bchw))
    reach = int(size * min(height, width))
    rows = (torch.fft.fftfreq(height) * height).abs().round() <= reach
    columns = (torch.fft.rfftfreq(width) * width).round() <= reach
    low = (rows[:, None] & columns[None, :]).to(source.device)
    amplitude = torch.where(low, target.abs(), source.abs())
    swapped: Tensor = torch.fft.irfft2(torch.polar(amplitude, source.angle()), s=(height, width), norm="forward")
    return swapped


class FourierRows:
    """Source rows that take on, in each look, the amplitudes of a target row drawn for it; plain where nothing is drawn.

    Parameters
    ----------
    source, target : Rows
        Images of one size as network inputs.
    size : float in [0, 0.5)
        See `swap_amplitude`.
    mean, std : sequence of float
        Of each channel, as the inputs were scaled: amplitudes are swapped on pixels from 0 to 1.

    Raises
    ------
    ConfigError
        If an option is out of range, or there is no target row.

    Examples
    --------
    >>> class Pictures:
    ...     num_views = 1
    ...     def __init__(self, level): self.level = level
    ...     def __len__(self): return 3
    ...     def batch(self, indices, draws=None): return (torch.full((len(indices), 1, 4, 4), self.level),)
    >>> rows = FourierRows(Pictures(0.25), Pictures(0.75))
    >>> places, draws = np.array([0, 1]), np.array([5, 6], np.uint64)
    >>> rows.batch(places)[0].mean().item(), rows.batch(places, draws)[0].mean().item()
    (0.25, 0.75)
    """

    def __init__(
        self,
        source: Rows,
        target: Rows,
        size: float = 0.01,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        _check_size("FourierRows", size)
        if len(mean) != len(std) or min(std, default=0.0) <= 0 or not len(target):
            raise ConfigError(
                "FourierRows: mean and std have an entry for each channel, std above 0, and there is a target row; got "
                f"{list(mean)}, {list(std)} and {len(target)} rows."
            )
        self.source, self.target, self.size = source, target, size
        self._mean, self._std = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
        self.dataset = getattr(source, "dataset", None)

    @property
    def num_views(self) -> int:
        """How many fixed views a row has."""
        return self.source.num_views

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[Tensor, ...]:
        """Return the network's arguments for some rows; see `headstart.training.rows.Rows`."""
        inputs = self.source.batch(indices, draws)
        if draws is None:
            return inputs
        mixed = np.asarray(draws, np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # apart from the draw of the view
        partners = ((mixed >> np.uint64(33)) % np.uint64(len(self.target))).astype(np.int64)
        pixels, others = (rows * self._std + self._mean for rows in (inputs[0], self.target.batch(partners, draws)[0]))
        changed = swap_amplitude(pixels, others, self.size).clamp(0, 1)
        return ((changed - self._mean) / self._std, *inputs[1:])

    def close(self) -> None:
        """Let go of both domains' rows."""
        self.source.close()
        self.target.close()


def _check_size(who: str, size: float) -> None:
    if not 0 <= size < 0.5:
        raise ConfigError(f"{who}: size is a share of the shorter side in [0, 0.5); got {size}.")
