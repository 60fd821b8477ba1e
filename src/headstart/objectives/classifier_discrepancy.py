"""Classifier discrepancy: where two heads on the same features disagree, rows lie outside what the labels cover.

    d(p, q) = 1/b sum_i 1/k sum_c | softmax(p_i)_c - softmax(q_i)_c |

Source: Saito et al., "Maximum Classifier Discrepancy for Unsupervised Domain Adaptation", CVPR 2018 (arXiv:1712.02560),
section 3.2, the L1 distance of the outputs.
Use it on unlabelled target rows in two phases: heads make it large (a negative ``weight``), the features make it small.
It ignores labels, so labelled rows must keep both heads right meanwhile.
Shapes: b rows, k classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from headstart.core.errors import ConfigError
from headstart.objectives.distillation import same_shape
from headstart.objectives.objective import Batch, Objective

__all__ = ["ClassifierDiscrepancy", "classifier_discrepancy"]


def classifier_discrepancy(first_bk: Tensor, second_bk: Tensor) -> Tensor:
    """Return the mean absolute difference between two softmax outputs.

    Parameters
    ----------
    first_bk, second_bk : Tensor of shape (b, k)
        Logits of two heads. Half precision is computed in float32.

    Returns
    -------
    Tensor of shape ()
        From 0, where they agree, to 2 / k.

    Raises
    ------
    ShapeError
        If the shapes differ or are no matrices.

    Examples
    --------
    >>> import torch
    >>> classifier_discrepancy(torch.zeros(1, 2), torch.tensor([[100.0, 0.0]]))     # (0.5 + 0.5) / 2
    tensor(0.5000)
    """
    first_bk, second_bk = same_shape("classifier_discrepancy", first_bk, second_bk)
    return (functional.softmax(first_bk, dim=1) - functional.softmax(second_bk, dim=1)).abs().mean()


class ClassifierDiscrepancy(Objective):
    """`classifier_discrepancy` of two heads on the rows of the target domain.

    Parameters
    ----------
    first, second : str
        Names of the heads.
    weight : float
        Multiplies the term; negative in the phase that makes the heads disagree.

    Raises
    ------
    ConfigError
        If both names are the same.

    Examples
    --------
    >>> import torch
    >>> target = Batch(head_logits={"main": torch.zeros(1, 2), "second": torch.tensor([[100.0, 0.0]])})
    >>> ClassifierDiscrepancy()(Batch(), target)
    tensor(0.5000)
    """

    needs = frozenset({"logits"})
    reads_classes = True

    def __init__(self, first: str = "main", second: str = "second", weight: float = 1.0) -> None:
        super().__init__()
        if first == second:
            raise ConfigError(f"ClassifierDiscrepancy: needs two different heads; got {first!r} twice.")
        self.first, self.second, self.weight = first, second, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the discrepancy on the target rows."""
        (batch,) = self.chosen("target", source, target)
        first_bk, second_bk = self.take_logits(batch, self.first), self.take_logits(batch, self.second)
        return self.weight * classifier_discrepancy(first_bk, second_bk)
