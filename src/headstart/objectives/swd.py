"""Sliced Wasserstein discrepancy (SWD): two heads' answers on the same rows, compared as clouds of points and not row by row.

    L = mean over directions u of W_2(u'P, u'Q)^2            P, Q: softmax outputs of the heads, u: drawn from the sphere

Source: Lee et al., "Sliced Wasserstein discrepancy for unsupervised domain adaptation", CVPR 2019 (arXiv:1903.04064),
with 128 directions drawn anew in every step. It is the squared `headstart.distances.sliced_wasserstein` of the two outputs.
Use it on unlabelled target rows in two phases, as `ClassifierDiscrepancy`: heads make it large, the features make it small.
It ignores which row got which answer, so that heads that merely swap two rows agree.
Shapes: b rows, k classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from headstart.core.errors import ConfigError
from headstart.distances import sliced_wasserstein
from headstart.objectives.distillation import same_shape
from headstart.objectives.layers import StepDraws, or_not_a_number
from headstart.objectives.objective import Batch
from headstart.objectives.precision import full_precision

__all__ = ["SWD", "sliced_discrepancy"]


@full_precision
def sliced_discrepancy(first_bk: Tensor, second_bk: Tensor, *, num_directions: int = 128, seed: int = 0) -> Tensor:
    """Return the squared sliced Wasserstein distance of order 2 between two softmax outputs.

    Parameters
    ----------
    first_bk, second_bk : Tensor of shape (b, k)
        Logits of two heads. Half precision is computed in float32.
    num_directions : int, at least 1
        Directions drawn.
    seed : int
        Draws them.

    Returns
    -------
    Tensor of shape ()
        From 0, where both answers are the same cloud, to 2 / k on average over directions.

    Raises
    ------
    ShapeError
        If the shapes differ or are no matrices.

    Examples
    --------
    >>> import torch
    >>> first, second = torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([[0.0, 9.0], [9.0, 0.0]])
    >>> sliced_discrepancy(first, second)                            # the same answers, of other rows
    tensor(0.)
    """
    first_bk, second_bk = same_shape("sliced_discrepancy", first_bk, second_bk)
    distance: Tensor = sliced_wasserstein(
        functional.softmax(first_bk, dim=1),
        functional.softmax(second_bk, dim=1),
        num_directions=num_directions,
        seed=seed,
    )
    return distance.square()


class SWD(StepDraws):
    """`sliced_discrepancy` of two heads on the rows of the target domain.

    Parameters
    ----------
    first, second : str
        Names of the heads.
    num_directions : int, at least 1
        Directions drawn in every step.
    seed : int
        Of the directions.
    weight : float
        Multiplies the term; negative in the phase that makes the heads disagree.

    Raises
    ------
    ConfigError
        If both names are the same, or there is no direction.

    Examples
    --------
    >>> import torch
    >>> target = Batch(head_logits={"main": torch.zeros(1, 2), "second": torch.zeros(1, 2)})
    >>> SWD()(Batch(), target)
    tensor(0.)
    """

    needs = frozenset({"logits"})
    reads_classes = True

    def __init__(
        self,
        first: str = "main",
        second: str = "second",
        num_directions: int = 128,
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if first == second:
            raise ConfigError(f"SWD: needs two different heads; got {first!r} twice.")
        if num_directions < 1:
            raise ConfigError(f"SWD: num_directions is at least 1; got {num_directions}.")
        self.first, self.second, self.num_directions = first, second, num_directions
        self.seed, self.weight = seed, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the discrepancy of the two heads."""
        (batch,) = self.chosen("target", source, target)
        first_bk, second_bk = self.take_logits(batch, self.first), self.take_logits(batch, self.second)
        options = {"num_directions": self.num_directions, "seed": self.step_seed()}
        return self.weight * or_not_a_number(
            lambda: sliced_discrepancy(first_bk, second_bk, **options), first_bk, second_bk
        )
