"""Statistics of batch normalisation taken anew on target rows (AdaBN), or between those and the source's.

    mean = (1 - s) mean_target + s mean_source,    variance likewise          s = prior / (prior + m)

Source: Li, Wang, Shi, Hou & Liu, "Adaptive Batch Normalization for practical domain adaptation", Pattern Recognition 2018
(arXiv:1603.04779): all layers' statistics are the target's. Schneider et al., "Improving robustness against common corruptions by
covariate shift adaptation", NeurIPS 2020 (arXiv:2006.16971), equation 3, for the prior: the source counts as so many rows.
Use it where the target differs in contrast, lighting, noise or sensor. It ignores what the layers' scales should become.
It is one pass over shuffled rows; statistics are plain means over batches.
Shapes: m target rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.training import Network

__all__ = ["affine_parameters", "batch_normalisations", "replace_statistics"]


def batch_normalisations(network: Network) -> list[_BatchNorm]:
    """Return the layers of the segments that keep statistics of batches.

    Examples
    --------
    >>> network = Network({"features": nn.BatchNorm1d(2)}, {"main": nn.Linear(2, 1)})
    >>> len(batch_normalisations(network))
    1
    """
    return [
        module
        for module in network.segments.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


def affine_parameters(network: Network) -> tuple[str, list[str]]:
    """Return scale and shift of the normalisation layers in the segments: of batch normalisation, or where there is none of layer
    and group normalisation.

    Returns
    -------
    kind : str
        ``"batch"``, ``"layer"``, or empty where there is no layer with scale and shift.
    names : list of str
        As `Network.named_parameters` has them.

    Examples
    --------
    >>> network = Network({"features": nn.LayerNorm(2)}, {"main": nn.Linear(2, 1)})
    >>> affine_parameters(network)
    ('layer', ['segments.0.weight', 'segments.0.bias'])
    """
    for kind, types in (("batch", (_BatchNorm,)), ("layer", (nn.LayerNorm, nn.GroupNorm))):
        names = [
            f"{module_name}.{name}"
            for module_name, module in network.named_modules()
            if isinstance(module, types) and module_name.startswith("segments.")
            for name, _ in module.named_parameters(recurse=False)
        ]
        if names:
            return kind, names
    return "", []


@torch.no_grad()
def replace_statistics(
    network: Network, batches: Iterable[tuple[Tensor, ...]], *, num_rows: int, prior: float = 0.0
) -> int:
    """Take the statistics of all batch normalisation in the segments anew.

    Parameters
    ----------
    network : Network
        Left in evaluation mode.
    batches : iterable of tuple of Tensor
        Inputs, shuffled.
    num_rows : int
        How many target rows they are.
    prior : float, at least 0
        How many rows the statistics there are count as.

    Returns
    -------
    int
        Number of layers whose statistics were taken.

    Examples
    --------
    >>> network = Network({"features": nn.BatchNorm1d(1)}, {"main": nn.Linear(1, 1)})
    >>> replace_statistics(network, [(torch.tensor([[2.0], [6.0]]),)], num_rows=2)
    1
    >>> network.segments[0].running_mean.item(), network.segments[0].running_var.item()
    (4.0, 8.0)
    """
    layers = batch_normalisations(network)
    before = [(layer.running_mean, layer.running_var, layer.momentum) for layer in layers]
    network.eval()
    for layer, (mean, variance, _) in zip(layers, before, strict=True):
        assert mean is not None and variance is not None
        layer.running_mean, layer.running_var, layer.momentum = mean.clone(), variance.clone(), None
        layer.reset_running_stats()
        nn.Module.train(layer)
    try:
        for inputs in batches:
            network(*inputs)
    finally:
        network.eval()
        share = prior / (prior + num_rows) if num_rows else 1.0
        for layer, (mean, variance, momentum) in zip(layers, before, strict=True):
            layer.momentum = momentum
            assert layer.running_mean is not None and layer.running_var is not None
            assert mean is not None and variance is not None
            layer.running_mean.lerp_(mean, share)
            layer.running_var.lerp_(variance, share)
    return len(layers)
