"""Entropy minimisation: rows without labels should get sure answers, so that the border between classes runs where rows are few.

    entropy = 1/b sum_i H(softmax(z_i / T))            H(p) = - sum_c p_c log p_c

Source: Grandvalet & Bengio, "Semi-supervised learning by entropy minimization", NeurIPS 2004, without the temperature.
Use it on target rows beside the loss of labelled rows, with a small weight: the paper's users take 0.1 or less.
It ignores whether a sure answer is right, and the same class for all rows is a minimum of it.
Shapes: b rows, k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix
from headstart.objectives.objective import Batch, Objective, Rows, check_choice, check_positive
from headstart.objectives.precision import widen

__all__ = ["Entropy", "mean_entropy", "row_entropies"]


def row_entropies(logits_bk: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return the entropy of each row's softmax.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Half precision is computed in float32.
    temperature : float, above 0
        Divides the logits.

    Returns
    -------
    Tensor of shape (b,)
        Nats: 0 where one class is certain, to log k.

    Raises
    ------
    ShapeError
        If the logits are no matrix.

    Examples
    --------
    >>> row_entropies(torch.zeros(1, 2))                                       # log 2
    tensor([0.6931])
    """
    check_matrix("row_entropies", "logits", logits_bk)
    log_bk = functional.log_softmax(widen(logits_bk) / temperature, dim=1)
    return -(log_bk.exp() * log_bk).sum(1)


def mean_entropy(logits_bk: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return the mean of `row_entropies`.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Half precision is computed in float32.
    temperature : float, above 0
        Divides the logits.

    Returns
    -------
    Tensor of shape ()
        Nats a row.

    Raises
    ------
    ShapeError
        If the logits are no matrix.

    Examples
    --------
    >>> mean_entropy(torch.tensor([[0.0, 0.0], [200.0, 0.0]]))                # log 2 / 2
    tensor(0.3466)
    """
    return row_entropies(logits_bk, temperature=temperature).mean()


class Entropy(Objective):
    """`mean_entropy` of a head's answers.

    Parameters
    ----------
    temperature : float, above 0
        Divides the logits.
    rows : {"source", "target", "both"}
        Of which stream.
    head : str
        Whose answers.
    weight : float
        Multiplies the term; negative in a phase that makes answers unsure.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.

    Examples
    --------
    >>> Entropy()(Batch(), Batch(logits=torch.zeros(1, 2)))
    tensor(0.6931)
    """

    needs = frozenset({"logits"})
    reads_classes = True

    def __init__(
        self, temperature: float = 1.0, rows: Rows = "target", head: str = "main", weight: float = 1.0
    ) -> None:
        super().__init__()
        check_positive("Entropy", "temperature", temperature)
        check_choice("Entropy", "rows", rows, ("source", "target", "both"))
        self.temperature, self.rows, self.head, self.weight = temperature, rows, head, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the mean entropy."""
        batches = self.chosen(self.rows, source, target)
        logits_bk = torch.cat([self.take_logits(batch, self.head) for batch in batches])
        return self.weight * mean_entropy(logits_bk, temperature=self.temperature)
