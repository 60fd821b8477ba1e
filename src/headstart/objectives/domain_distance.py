"""Domain distance: any differentiable measure of how far apart the two domains are, as a loss term.

    L_source + weight * f(p) * D(F_source, F_target)              D by its name; f(p) = 2 / (1 + exp(-s p)) - 1, or 1 for s = 0

Source: Ben-David et al., "A theory of learning from different domains", Machine Learning 2010, theorem 2: the target's error is
at most the source's, plus how far apart the domains are, plus what the best joint model errs. Distances have their own sources.
Use it with the task's loss on source rows, where both domains have the same classes in about the same shares.
It ignores classes: with other class shares in the target, domains that match are domains mixed up. The divergences of Gaussians
(``kl-gaussian``, ``js-gaussian``) ask for more rows in a batch than features, or a ``regularisation`` near 1; 'frechet' does not.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from headstart.core.errors import ConfigError, did_you_mean
from headstart.distances import (
    coral_distance,
    energy_distance,
    exact_wasserstein,
    gaussian_frechet_distance,
    js_divergence,
    kl_divergence,
    linear_discrepancy,
    linear_time_mmd,
    max_sliced_wasserstein,
    mk_mmd,
    sinkhorn_divergence,
    sliced_wasserstein,
)
from headstart.objectives.layers import StepDraws, both_domains, check_layer, layer_needs, or_not_a_number
from headstart.objectives.objective import Batch
from headstart.objectives.precision import full_precision
from headstart.objectives.schedules import rise_factor

__all__ = ["DIFFERENTIABLE", "NOT_DIFFERENTIABLE", "DomainDistance"]


def _wasserstein(order: int) -> Callable[[Any, Any], Any]:
    return lambda source_nd, target_md: exact_wasserstein(source_nd, target_md, order=order)


def _kl_gaussian(source_nd: Any, target_md: Any, regularisation: float = 1e-3) -> Any:
    return kl_divergence(source_nd, target_md, regularisation=regularisation)


def _js_gaussian(source_nd: Any, target_md: Any, regularisation: float = 1e-3) -> Any:
    return js_divergence(source_nd, target_md, regularisation=regularisation)


DIFFERENTIABLE: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "mk-mmd": mk_mmd,
        "linear-mmd": linear_time_mmd,
        "energy": energy_distance,
        "coral": coral_distance,
        "frechet": gaussian_frechet_distance,
        "linear-discrepancy": linear_discrepancy,
        "sliced-wasserstein": sliced_wasserstein,
        "max-sliced-wasserstein": max_sliced_wasserstein,
        "sinkhorn": sinkhorn_divergence,
        "wasserstein-1": _wasserstein(1),
        "wasserstein-2": _wasserstein(2),
        "kl-gaussian": _kl_gaussian,
        "js-gaussian": _js_gaussian,
    }
)

_NEIGHBOURS = "counts nearest neighbours, which has no gradient; take 'energy' or 'mk-mmd'"
_LABELS = "takes labels and no features"
_REPRESENTATIONS = "compares two representations of the same rows, not two domains"
NOT_DIFFERENTIABLE: Mapping[str, str] = MappingProxyType(
    {
        "proxy-a": "trains a classifier of its own; a critic that trains along (an adversarial objective) is its loss form",
        "kl-neighbours": _NEIGHBOURS,
        "js-neighbours": _NEIGHBOURS,
        "label-kl": _LABELS,
        "label-js": _LABELS,
        "linear-cka": _REPRESENTATIONS,
        "kernel-cka": _REPRESENTATIONS,
    }
)


class DomainDistance(StepDraws):
    """A distance of `headstart.distances` between the two batches, as a loss term.

    Parameters
    ----------
    distance : str
        Key of `DIFFERENTIABLE`.
    layer : str
        ``"features"``, ``"logits"``, ``"probabilities"`` or ``"segments.NAME"``.
    options : mapping, optional
        Arguments of the distance by name, such as ``{"order": 1}`` of the Sinkhorn divergence.
    rise : float, at least 0
        Steepness s of the factor that rises from 0 to 1 while training goes on; 0: the term counts in full from the start.
    seed : int
        Of what the distance draws (directions, pairs); drawn anew in every step.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If the distance is unknown or has no gradient, or an option is not one of its arguments.

    Examples
    --------
    >>> import torch
    >>> source, target = Batch(features=torch.tensor([[0.0], [0.0]])), Batch(features=torch.tensor([[3.0], [3.0]]))
    >>> DomainDistance("energy", weight=0.5)(source, target)                 # 0.5 * (2 * 3 - 0 - 0)
    tensor(3.)
    """

    needs = frozenset({"features"})

    def __init__(
        self,
        distance: str = "mk-mmd",
        layer: str = "features",
        options: Mapping[str, Any] | None = None,
        rise: float = 0.0,
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if distance in NOT_DIFFERENTIABLE:
            raise ConfigError(f"DomainDistance: {distance!r} cannot be a loss: it {NOT_DIFFERENTIABLE[distance]}.")
        if distance not in DIFFERENTIABLE:
            raise ConfigError(
                f"DomainDistance: no distance is called {distance!r}.{did_you_mean(distance, DIFFERENTIABLE)} "
                f"Known: {', '.join(DIFFERENTIABLE)}."
            )
        check_layer("DomainDistance", layer)
        rise_factor("DomainDistance", rise, 0.0)
        self.distance, self.layer, self.options = distance, layer, dict(options or {})
        self.rise, self.seed, self.weight = rise, seed, weight
        arguments = list(inspect.signature(DIFFERENTIABLE[distance]).parameters)[2:]
        self._draws = "seed" in arguments
        known = [name for name in arguments if name != "seed"]
        for name in self.options:
            if name not in known:
                raise ConfigError(
                    f"DomainDistance: {distance!r} has no option {name!r}; it takes {', '.join(known) or 'none'}."
                    + did_you_mean(name, known)
                )
        self.needs = layer_needs([layer])

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the distance, as far as it has risen."""
        source_nd, target_md = both_domains(self, self.layer, source, target)
        options = {**self.options, "seed": self.step_seed()} if self._draws else self.options
        distance = full_precision(DIFFERENTIABLE[self.distance])
        value = or_not_a_number(lambda: distance(source_nd, target_md, **options), source_nd, target_md)
        return self.weight * rise_factor("DomainDistance", self.rise, source.share) * value
