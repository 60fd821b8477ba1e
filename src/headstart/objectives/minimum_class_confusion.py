"""Minimum class confusion: rows that are torn between two classes make the two confused; confusion is made small.

    p_i = softmax(z_i / T)         w_i = b (1 + exp(-H(p_i))) / sum_j (1 + exp(-H(p_j)))         C = sum_i w_i p_i p_i'
    mcc = 1/k sum_c sum over c' != c of  C_cc' / sum_c'' C_cc''

Source: Jin, Wang, Long & Wang, "Minimum Class Confusion for Versatile Domain Adaptation", ECCV 2020 (arXiv:1912.03699),
section 3.2. The weights of sure rows carry no gradient, as in the authors' code (Transfer-Learning-Library). A class that no
row of the batch holds possible, whose row of C would be 0 / 0, adds nothing.
Use it on target rows with the loss of labelled rows, weight 1; it suits label sets that differ and needs no critic. The authors'
temperatures are 2 to 3 (2.5 for few classes, 2 for many).
It ignores which of two confused classes is right. Batches should hold rows of many classes.
Shapes: b rows, k classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix
from headstart.objectives.entropy import row_entropies
from headstart.objectives.objective import Batch, Objective, check_positive
from headstart.objectives.precision import full_precision, widen

__all__ = ["MCC", "class_confusion"]

_LEAST = 1e-12


@full_precision
def class_confusion(logits_bk: Tensor, *, temperature: float = 2.5) -> Tensor:
    """Return the share of each class's weight that lies on rows it shares with other classes, averaged over classes.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Half precision is computed in float32.
    temperature : float, above 0
        Divides the logits; above 1 it shows how answers are divided that seem sure.

    Returns
    -------
    Tensor of shape ()
        From 0, where every row is certain, to 1 - 1 / k.

    Raises
    ------
    ShapeError
        If the logits are no matrix.

    Examples
    --------
    >>> import torch
    >>> class_confusion(torch.zeros(4, 2))                         # all of C is 1/4 of the weight: half of each row is off
    tensor(0.5000)
    >>> class_confusion(torch.tensor([[300.0, 0.0], [0.0, 300.0]]))
    tensor(0.)
    """
    check_matrix("class_confusion", "logits", logits_bk)
    logits_bk = widen(logits_bk)
    probabilities_bk = functional.softmax(logits_bk / temperature, dim=1)
    sure_b = 1 + (-row_entropies(logits_bk.detach(), temperature=temperature)).exp()
    weighted_bk = probabilities_bk * (len(sure_b) * sure_b / sure_b.sum())[:, None]
    confusion_kk = weighted_bk.T @ probabilities_bk
    shares_kk = confusion_kk / confusion_kk.sum(1, keepdim=True).clamp_min(_LEAST)
    return (shares_kk.sum() - shares_kk.trace()) / shares_kk.shape[0]


class MCC(Objective):
    """`class_confusion` of a head's answers on target rows.

    Parameters
    ----------
    temperature : float, above 0
        Divides the logits.
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
    >>> MCC()(Batch(), Batch(logits=torch.zeros(4, 2)))
    tensor(0.5000)
    """

    needs = frozenset({"logits"})
    reads_classes = True

    def __init__(self, temperature: float = 2.5, head: str = "main", weight: float = 1.0) -> None:
        super().__init__()
        check_positive("MCC", "temperature", temperature)
        self.temperature, self.head, self.weight = temperature, head, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the confusion of target rows."""
        (batch,) = self.chosen("target", source, target)
        return self.weight * class_confusion(self.take_logits(batch, self.head), temperature=self.temperature)
