"""MixStyle: in training, a row's channels take on a mixture of their own mean and spread and those of another row.

    z = s' (x - m) / s + m'       m' = l m + (1 - l) m~,  s' = l s + (1 - l) s~,  l ~ Beta(alpha, alpha), one draw a row

Source: Zhou, Yang, Qiao & Xiang, "Domain Generalization with MixStyle", ICLR 2021 (arXiv:2104.02008), equations 4 to 6: m and s
of each row and channel over all positions, without gradient; m~ and s~ those of a partner in the batch. A batch is mixed with a
probability (1/2 in the paper), after the first segments of a network, where style still is.
Use it for unseen domains, or few labels: style of images is in those statistics. It adds no term: it changes the network.
It ignores which domain a row is from (the paper's random shuffle), and what does not train. The mixing of tokens (b, t, c) over
their places is ours.
Shapes: b rows, c channels, then positions h x w; or t tokens, then c channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from headstart.core.errors import ConfigError, ShapeError, did_you_mean
from headstart.objectives.objective import Batch, Objective, Setup, check_positive
from headstart.objectives.precision import widen

__all__ = ["MixStyle", "mix_style", "with_mixstyle", "without_mixstyle"]

_EPSILON = 1e-6


def mix_style(activations: Tensor, partners: Tensor, share_b: Tensor) -> Tensor:
    """Return activations whose means and spreads are mixed with those of other rows.

    Parameters
    ----------
    activations : Tensor of shape (b, c, h, w) or (b, t, c)
        Half precision is computed in float32 and given back as it came.
    partners : Tensor of shape (b,)
        int64 number of the row that each is mixed with.
    share_b : Tensor of shape (b,)
        From 0 to 1: how much of the row's own statistics stays.

    Returns
    -------
    Tensor of the shape of ``activations``
        No gradient flows through the statistics.

    Raises
    ------
    ShapeError
        If there are no positions to take statistics over.

    Examples
    --------
    >>> maps = torch.tensor([[[[0.0, 2.0]]], [[[10.0, 12.0]]]])          # means 1 and 11, the same spread
    >>> mix_style(maps, torch.tensor([1, 0]), torch.tensor([0.5, 1.0])).round(decimals=3).tolist()
    [[[[5.0, 7.0]]], [[[10.0, 12.0]]]]
    """
    if activations.ndim not in {3, 4}:
        raise ShapeError(
            f"mix_style: activations are maps (b, c, h, w) or tokens (b, t, c); got shape {tuple(activations.shape)}. "
            "Mix after an earlier segment."
        )
    places = (1,) if activations.ndim == 3 else (2, 3)
    wide = widen(activations)
    variance, mean = torch.var_mean(wide.detach(), places, correction=0, keepdim=True)
    spread = (variance + _EPSILON).sqrt()
    share = share_b.to(wide.dtype).view(-1, *[1] * (wide.ndim - 1))
    new_mean = share * mean + (1 - share) * mean[partners]
    new_spread = share * spread + (1 - share) * spread[partners]
    return (new_spread * (wide - mean) / spread + new_mean).to(activations.dtype)


class _Mixing:
    """A hook that mixes what a module gives while it is in training mode."""

    def __init__(self, probability: float, alpha: float) -> None:
        self.probability, self.alpha = probability, alpha

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> object:
        first = output[0] if isinstance(output, tuple) else output
        if not module.training or float(torch.rand(())) >= self.probability:
            return output
        partners = torch.randperm(len(first)).to(first.device)
        alpha = torch.tensor(self.alpha)
        share_b = torch.distributions.Beta(alpha, alpha).sample(torch.Size([len(first)])).to(first.device)
        mixed = mix_style(first, partners, share_b)
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed


def with_mixstyle(module: nn.Module, probability: float = 0.5, alpha: float = 0.1) -> nn.Module:
    """Mix the output of a module in training from now on, and return the module; its tensors and their names stay.

    Parameters
    ----------
    module : nn.Module
        Gives maps or tokens, alone or first of a tuple.
    probability : float in [0, 1]
        Of a batch to be mixed.
    alpha : float
        Of the Beta distribution of the shares; small values leave most rows near one style.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> layer = with_mixstyle(nn.Identity(), probability=1.0)
    >>> maps = torch.rand(4, 2, 3, 3)
    >>> bool((layer(maps) == maps).all()), bool((layer.eval()(maps) == maps).all())
    (False, True)
    """
    _check("with_mixstyle", probability, alpha)
    without_mixstyle(module)
    module.register_forward_hook(_Mixing(probability, alpha))
    return module


def without_mixstyle(network: nn.Module) -> nn.Module:
    """Undo `with_mixstyle` for a module and all within, and return it.

    Examples
    --------
    >>> layer = without_mixstyle(with_mixstyle(nn.Identity(), probability=1.0))
    >>> maps = torch.rand(4, 2, 3, 3)
    >>> bool((layer(maps) == maps).all())
    True
    """
    for module in network.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, _Mixing):
                del module._forward_hooks[key]
    return network


class MixStyle(Objective):
    """`with_mixstyle` as part of a joint loss: a term of value 0 that prepares the network.

    Parameters
    ----------
    segments : sequence of str, optional
        After which; when left out the first two that may train, without the last, whose output are the features.
    probability : float in [0, 1]
        Of a batch to be mixed, at each of them.
    alpha : float
        Of the Beta distribution of the shares.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> MixStyle()(Batch())
    tensor(0.)
    """

    weight = 1.0

    def __init__(self, segments: Sequence[str] | None = None, probability: float = 0.5, alpha: float = 0.1) -> None:
        super().__init__()
        _check("MixStyle", probability, alpha)
        self.segments = None if segments is None else tuple(segments)
        self.probability, self.alpha = probability, alpha

    def prepare(self, setup: Setup) -> None:
        """Let the chosen segments mix what they give.

        Raises
        ------
        ConfigError
            If a segment does not exist or never trains, or there is none to choose.
        """
        known = setup.segments()
        chosen = tuple(known)[:-1][:2] if self.segments is None else self.segments
        if not chosen:
            raise ConfigError(
                "MixStyle: needs a segment that trains before the one that gives the features; let an earlier stage train."
            )
        for name in chosen:
            if name not in known:
                raise ConfigError(
                    f"MixStyle: no segment {name!r} trains; those that do are {', '.join(known)}."
                    + did_you_mean(name, known)
                )
            with_mixstyle(known[name], self.probability, self.alpha)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return 0."""
        return torch.zeros(())


def _check(who: str, probability: float, alpha: float) -> None:
    if not 0 <= probability <= 1:
        raise ConfigError(f"{who}: probability lies between 0 and 1; got {probability}.")
    check_positive(who, "alpha", alpha)
