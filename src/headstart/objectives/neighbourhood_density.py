"""Soft neighbourhood density as a loss: target rows are to lie in dense neighbourhoods of like answers.

    density = 1/b sum_i H(q_i)        q_ij ~ exp(cos(p_i, p_j) / T) over the other rows j of the batch,   p = softmax(z)
    loss    = - density

Source: Saito, Kim, Teterwak, Sclaroff, Darrell & Saenko, "Tune it the Right Way: Unsupervised Validation of Domain Adaptation via
Soft Neighborhood Density", ICCV 2021 (arXiv:2108.10860), section 3, T 0.05. There it chooses between models; that a network
is trained on it, batch by batch, is ours. The formula is `headstart.distances.soft_neighbourhood_density`.
Use it on target rows with the loss of labelled rows and a term that keeps answers apart (`BNM`, `InfoMax`), weight 0.1.
It ignores classes: a batch in which all rows get one answer is as dense as can be.
Shapes: b rows, k classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix
from headstart.distances import soft_neighbourhood_density
from headstart.objectives.objective import Batch, Objective, check_positive
from headstart.objectives.precision import full_precision, widen

__all__ = ["NeighbourhoodDensity", "neighbourhood_density"]


@full_precision
def neighbourhood_density(logits_bk: Tensor, *, temperature: float = 0.05) -> Tensor:
    """Return the mean entropy of each row's similarities to the others.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k), b >= 2
        Half precision is computed in float32.
    temperature : float, above 0
        The lower, the nearer another row must be to count.

    Returns
    -------
    Tensor of shape ()
        Nats, from 0 to ``log(b - 1)``.

    Raises
    ------
    ShapeError
        If the logits are no matrix, or there are fewer than two rows.

    Examples
    --------
    >>> import torch
    >>> neighbourhood_density(torch.zeros(3, 2))                              # two neighbours alike: log 2
    tensor(0.6931)
    """
    check_matrix("neighbourhood_density", "logits", logits_bk, min_rows=2)
    density: Tensor = soft_neighbourhood_density(functional.softmax(widen(logits_bk), dim=1), temperature)
    return density


class NeighbourhoodDensity(Objective):
    """`neighbourhood_density` of a head's answers on target rows, to be made large.

    Parameters
    ----------
    temperature : float, above 0
        The lower, the nearer another row must be to count.
    head : str
        Whose answers.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If the temperature is not above 0.

    Examples
    --------
    >>> import torch
    >>> NeighbourhoodDensity()(Batch(), Batch(logits=torch.zeros(3, 2)))
    tensor(-0.6931)
    """

    needs = frozenset({"logits"})
    reads_classes = True

    def __init__(self, temperature: float = 0.05, head: str = "main", weight: float = 1.0) -> None:
        super().__init__()
        check_positive("NeighbourhoodDensity", "temperature", temperature)
        self.temperature, self.head, self.weight = temperature, head, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``-weight`` times the density."""
        (batch,) = self.chosen("target", source, target)
        return -self.weight * neighbourhood_density(self.take_logits(batch, self.head), temperature=self.temperature)
