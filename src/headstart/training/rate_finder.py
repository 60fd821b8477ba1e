"""The learning-rate range test: raise the rate at every step, look where the loss falls fastest and where it breaks.

    rate_i = lowest (highest / lowest)^(i / (n - 1))        i = 0 .. n - 1
    smooth_i = s_i / (1 - beta^(i + 1)),   s_i = beta s_(i-1) + (1 - beta) loss_i,   s_(-1) = 0

The sweep ends where the smoothed loss exceeds 4 times its least, or is not finite. `suggestion` is the rate at which the smoothed
loss falls fastest per decade, before its least; `cautious` is a tenth of the rate at the least, a common rule for fine-tuning.
Source: Smith, "Cyclical learning rates for training neural networks", WACV 2017 (arXiv:1506.01186), section 3.3.
Use it where the usual rate of a method does not suit the network. It ignores how long a training is: what falls fastest for a
hundred steps is often too much for a thousand, so take it as the peak of a schedule with a warm-up.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.core.errors import ConfigError, TrainingError

__all__ = ["RateSweep", "find_learning_rate"]


@dataclass(frozen=True)
class RateSweep:
    """Losses along rising rates.

    Parameters
    ----------
    rates : tuple of float
        Rate of every step taken.
    losses : tuple of float
        Loss of every step, before it; the last may be the one that broke.
    beta : float
        Of the smoothing.
    diverged : bool
        Whether the loss broke before the highest rate was reached.

    Examples
    --------
    >>> sweep = RateSweep((1e-3, 1e-2, 1e-1, 1.0, 10.0), (2.0, 1.9, 1.0, 0.8, 9.0), beta=0.0)
    >>> sweep.suggestion, sweep.cautious
    (0.1, 0.1)
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    beta: float = 0.9
    diverged: bool = False

    @property
    def smoothed(self) -> NDArray[np.float64]:
        """Exponential mean of the losses, corrected for its beginning at zero; only finite ones, so at times one shorter."""
        finite = np.array([loss for loss in self.losses if math.isfinite(loss)], np.float64)
        values, running = np.empty(len(finite)), 0.0
        for at, loss in enumerate(finite):
            running = self.beta * running + (1 - self.beta) * loss
            values[at] = running / (1 - self.beta ** (at + 1))
        return values

    @property
    def _least(self) -> int:
        """Where the smoothed loss is least; 0 where it never fell by more than rounding."""
        smoothed = self.smoothed
        least = int(smoothed.argmin())
        return least if smoothed[0] - smoothed[least] > 1e-6 * abs(smoothed[0]) else 0

    @property
    def suggestion(self) -> float:
        """Rate at which the smoothed loss falls fastest per decade, before its least."""
        smoothed, least = self.smoothed, self._least
        if least < 2:
            return self.cautious
        slopes = np.gradient(smoothed, np.log10(self.rates[: len(smoothed)]))
        return self.rates[int(slopes[:least].argmin())]

    @property
    def cautious(self) -> float:
        """A tenth of the rate at the least smoothed loss; the lowest rate where that is more, or the loss never fell."""
        return max(self.rates[0], self.rates[self._least] / 10)

    def plot(self, path: Path) -> Path:
        """Draw losses over rates and save the picture; the file's ending says the format.

        Returns
        -------
        Path
            The path given.
        """
        from matplotlib.figure import Figure

        smoothed = self.smoothed
        rates = np.array(self.rates[: len(smoothed)])
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        axes.plot(rates, np.array(self.losses)[: len(smoothed)], color="#b8c4d0", linewidth=1, label="loss of a batch")
        axes.plot(rates, smoothed, color="#1f4e79", linewidth=2, label="smoothed")
        marks = (
            (self.suggestion, "falls fastest", "#c44e00", "o"),
            (self.cautious, "a tenth of the rate at the least", "#2a7f3f", "s"),
        )
        for rate, text, colour, marker in marks:
            height = float(np.interp(math.log10(rate), np.log10(rates), smoothed))
            label = f"{text}: {rate:.1e}"
            axes.plot([rate], [height], marker, color=colour, markersize=8, linestyle="none", label=label)
        low, high = min(loss for loss in self.losses if math.isfinite(loss)), float(smoothed[0])
        room = max(high - low, 1e-12)
        axes.set_ylim(low - 0.1 * room, high + 0.75 * room)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
        figure.savefig(path, dpi=150)
        return Path(path)


def find_learning_rate(
    modules: Sequence[nn.Module],
    step: Callable[[int], Tensor],
    make_optimiser: Callable[[], torch.optim.Optimizer],
    *,
    lowest: float = 1e-7,
    highest: float = 1.0,
    num_steps: int = 100,
    beta: float = 0.9,
    divergence: float = 4.0,
    clip: float | None = None,
) -> RateSweep:
    """Train for a few steps at rising rates, and put everything back as it was.

    Parameters
    ----------
    modules : sequence of nn.Module
        All that the steps change: network, objectives. Weights, buffers, modes, gradients and random numbers are put back.
    step : callable
        ``step(i)`` returns the loss of the i-th mini-batch; the backward pass is done here.
    make_optimiser : callable
        Returns a new optimiser over the parameters to train. Groups keep the ratio of their rates to the largest of them.
    lowest, highest : float
        First and last rate, 0 < lowest < highest.
    num_steps : int
        Steps of the whole sweep, at least 10.
    beta : float in [0, 1)
        Smoothing of the losses.
    divergence : float
        The sweep ends where the smoothed loss is more than so many times the least one. Losses that fall below zero never do.
    clip : float, optional
        Longest gradient, as the training will have it.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.
    TrainingError
        If the loss is not finite before any step was taken.

    Examples
    --------
    >>> weight = nn.Linear(1, 1, bias=False)
    >>> sweep = find_learning_rate(
    ...     [weight],
    ...     lambda i: (weight(torch.ones(1, 1)) - 3).square().sum(),
    ...     lambda: torch.optim.SGD(weight.parameters(), lr=1.0),
    ...     highest=10.0,
    ... )
    >>> 0.01 < sweep.suggestion < 1, sweep.diverged
    (True, True)
    """
    if not (0 < lowest < highest < math.inf and num_steps >= 10 and 0 <= beta < 1 and divergence > 1):
        raise ConfigError(
            "find_learning_rate: needs 0 < lowest < highest, num_steps >= 10, 0 <= beta < 1 and divergence > 1; got "
            f"lowest={lowest}, highest={highest}, num_steps={num_steps}, beta={beta}, divergence={divergence}."
        )
    rates: list[float] = []
    losses: list[float] = []
    diverged, running, least = False, 0.0, math.inf
    with _restored(modules):
        optimiser = make_optimiser()
        largest = max(group["lr"] for group in optimiser.param_groups)
        factors = [group["lr"] / largest for group in optimiser.param_groups]
        for at in range(num_steps):
            rate = lowest * (highest / lowest) ** (at / (num_steps - 1))
            optimiser.zero_grad(set_to_none=True)
            loss = step(at)
            rates.append(rate)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                if at == 0:
                    raise TrainingError(
                        f"find_learning_rate: the loss is {losses[-1]} before the first step; look at the rows and the weights."
                    )
                diverged = True
                break
            running = beta * running + (1 - beta) * losses[-1]
            smooth = running / (1 - beta ** (at + 1))
            least = min(least, smooth)
            if smooth > divergence * least > 0:
                diverged = True
                break
            loss.backward()  # type: ignore[no-untyped-call]
            if clip is not None:
                nn.utils.clip_grad_norm_([item for group in optimiser.param_groups for item in group["params"]], clip)
            for group, factor in zip(optimiser.param_groups, factors, strict=True):
                group["lr"] = rate * factor
            optimiser.step()
    return RateSweep(tuple(rates), tuple(losses), beta, diverged)


@contextlib.contextmanager
def _restored(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Restore parameters, buffers, gradients, modes and random numbers, also where a step raises."""
    tensors = [
        (tensor, tensor.detach().clone()) for module in modules for tensor in (*module.parameters(), *module.buffers())
    ]
    gradients = [(item, item.grad) for module in modules for item in module.parameters()]
    modes = [(part, part.training) for module in modules for part in module.modules()]
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in tensors:
                    tensor.copy_(value)
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for part, training in modes:
                part.training = training
