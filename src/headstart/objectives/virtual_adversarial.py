"""Virtual adversarial training: answers must not change in the direction in which they change most.

    vat = 1/b sum_i KL(p(h_i) || p(h_i + e r_i))          r_i the unit vector that makes it largest, by power iteration:
    r <- random;   r <- unit( gradient over r of KL(p(h) || p(h + xi r)) )   num_steps times

Source: Miyato, Maeda, Koyama & Ishii, "Virtual Adversarial Training", TPAMI 2018 (arXiv:1704.03976), section 3.3, one step; for a
target domain Shu, Bui, Narui & Ermon, "A DIRT-T Approach to Unsupervised Domain Adaptation", ICLR 2018 (arXiv:1802.08735). h is
what enters the part of the network that trains: pixels, numbers, or activations. So that one setting suits all of them, e and xi
are shares of the root mean square length of h in the batch, which is ours: e 0.06 is DIRT-T's radius of 3.5 on pictures of 32 x
32, whose length is about 55. xi is 0.01, not their 1e-6, so that half precision sees it. The unchanged answers get no gradient.
Use it with `Entropy` on target rows, small weights, and on source rows with weight 1.
It ignores directions beyond the first. Statistics of batch normalisation do not move with changed rows.
Shapes: b rows, k classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from headstart.core.errors import ConfigError
from headstart.objectives.distillation import kl_divergence
from headstart.objectives.objective import Batch, Objective, Rows, Setup, check_choice, check_positive
from headstart.objectives.precision import widen

__all__ = ["VAT", "adversarial_direction", "virtual_adversarial_loss"]

Run = Callable[[tuple[Tensor, ...]], Tensor]


def adversarial_direction(
    logits_bk: Tensor, hidden: tuple[Tensor, ...], run: Run, start: Tensor, *, xi: float | Tensor, num_steps: int = 1
) -> Tensor:
    """Return for each row the direction of unit length in which the answers change most.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Answers for ``hidden`` as it is.
    hidden : tuple of Tensor
        Floats (b, ...) first; what follows (masks) stays as it is.
    run : callable
        Gives logits (b, k) for a changed ``hidden``.
    start : Tensor of shape (b, ...)
        Any directions.
    xi : float or Tensor of shape (), above 0
        How far the gradient is taken from ``hidden``.
    num_steps : int, at least 1
        Steps of the power iteration.

    Returns
    -------
    Tensor of shape (b, ...)
        Without gradient; 0 for a row whose answer changes in no direction.

    Examples
    --------
    >>> weight = torch.tensor([[2.0, 0.0], [0.0, 0.0]])                        # the second number does not matter
    >>> run = lambda hidden: hidden[0] @ weight
    >>> h = torch.zeros(1, 2)
    >>> adversarial_direction(run((h,)), (h,), run, torch.ones(1, 2), xi=0.1).abs().tolist()
    [[1.0, 0.0]]
    """
    first, rest = hidden[0].detach(), hidden[1:]
    direction, given_bk = _unit(start), logits_bk.detach()
    for _ in range(num_steps):
        moved = direction.clone().requires_grad_()
        with torch.enable_grad():
            gap = kl_divergence(given_bk, run((first + (xi * moved).to(first.dtype), *rest)))
            (gradient,) = torch.autograd.grad(gap, moved)
        direction = _unit(widen(gradient))
    return direction


def virtual_adversarial_loss(
    logits_bk: Tensor, hidden: tuple[Tensor, ...], run: Run, direction: Tensor, *, epsilon: float | Tensor
) -> Tensor:
    """Return how far answers change along a direction.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Answers for ``hidden`` as it is; no gradient flows to them.
    hidden : tuple of Tensor
        Floats (b, ...) first.
    run : callable
        Gives logits (b, k) for a changed ``hidden``.
    direction : Tensor of shape (b, ...)
        Of unit length for each row.
    epsilon : float or Tensor of shape ()
        How far to go.

    Returns
    -------
    Tensor of shape ()
        Nats a row; at least 0.

    Examples
    --------
    >>> run = lambda hidden: torch.cat([200 * hidden[0], 0 * hidden[0]], 1)
    >>> h = torch.zeros(1, 1)
    >>> round(virtual_adversarial_loss(run((h,)), (h,), run, torch.ones(1, 1), epsilon=0.01).item(), 4)   # at logits 2, 0
    0.4338
    """
    changed = hidden[0] + (epsilon * direction).to(hidden[0].dtype)
    return kl_divergence(logits_bk.detach(), run((changed, *hidden[1:])))


class VAT(Objective):
    """`virtual_adversarial_loss` in the `adversarial_direction`.

    Parameters
    ----------
    epsilon : float, above 0
        How far rows are changed, as a share of their average length.
    xi : float, above 0
        How far the gradient is taken, likewise.
    num_steps : int, at least 1
        Steps of the power iteration, each a pass forward and backward.
    rows : {"source", "target", "both"}
        Of which stream.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If an argument breaks its rule, or what enters the network are token numbers.

    Examples
    --------
    >>> hidden = torch.ones(4, 3)
    >>> batch = Batch(logits=torch.zeros(4, 2), hidden=(hidden,), run=lambda hidden: 0 * hidden[0][:, :2])
    >>> VAT()(Batch(), batch)                                                 # nothing changes these answers
    tensor(0.)
    """

    needs = frozenset({"logits", "hidden"})
    reads_classes = True

    def __init__(
        self,
        epsilon: float = 0.06,
        xi: float = 0.01,
        num_steps: int = 1,
        rows: Rows = "target",
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value in (("epsilon", epsilon), ("xi", xi), ("num_steps", num_steps)):
            check_positive("VAT", name, value)
        check_choice("VAT", "rows", rows, ("source", "target", "both"))
        self.epsilon, self.xi, self.num_steps, self.rows, self.weight = epsilon, xi, num_steps, rows, weight
        self._normalisations: list[_NormBase] = []  # in a list: they are the network's, not ours

    def prepare(self, setup: Setup) -> None:
        """Find the layers whose statistics must not move with changed rows."""
        self._normalisations = [module for module in setup.network.modules() if isinstance(module, _NormBase)]

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the mean loss of the streams."""
        losses = [self._loss(batch) for batch in self.chosen(self.rows, source, target)]
        return self.weight * torch.stack(losses).mean()

    def _loss(self, batch: Batch) -> Tensor:
        logits_bk = self.take(batch, "logits")
        self.take(batch, "hidden")
        assert batch.hidden is not None and batch.run is not None
        first = batch.hidden[0]
        if not first.is_floating_point():
            raise ConfigError(
                "VAT: what enters the network in training are token numbers, which have no directions; freeze the embedding, or "
                "choose another objective."
            )
        length = widen(first.detach()).flatten(1).square().sum(1).mean().sqrt()
        start = torch.randn(first.shape, device=first.device)
        with torch.autocast(first.device.type, enabled=False), _still(self._normalisations):
            direction = adversarial_direction(
                logits_bk, batch.hidden, batch.run, start, xi=self.xi * length, num_steps=self.num_steps
            )
            return virtual_adversarial_loss(
                logits_bk, batch.hidden, batch.run, direction, epsilon=self.epsilon * length
            )


@contextlib.contextmanager
def _still(layers: list[_NormBase]) -> Iterator[None]:
    """Let layers in training mode use a batch's statistics without taking note of them."""
    noting = [layer for layer in layers if layer.training and layer.track_running_stats]
    for layer in noting:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in noting:
            layer.track_running_stats = True


def _unit(direction: Tensor) -> Tensor:
    """Return each row scaled to length 1; rows of zeros stay."""
    flat = direction.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    scaled = flat / torch.where(largest > 0, largest, 1.0)  # squares of tiny gradients would vanish
    return nn.functional.normalize(scaled, dim=1).view_as(direction)
