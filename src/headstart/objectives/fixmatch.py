"""FixMatch: where the network is sure of a row, it has to say the same of a strongly changed view of it.

    fixmatch = 1/b sum_i 1[max_c p_ic >= t]  ( - log softmax(s_i)_y_i )          p_i = softmax(z_i),   y_i = argmax_c p_ic

Source: Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", NeurIPS 2020
(arXiv:2001.07685), equation 4; z of the row as it is shown in training, s of its strongly changed view. The threshold is 0.95.
Use it on target rows with the loss of labelled rows, weight 1, where strong changes leave the class as it is: images above all.
It ignores rows the network is unsure of, and that sure answers on another domain may be wrong.
Shapes: b rows, k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.errors import ConfigError
from headstart.objectives.distillation import same_shape
from headstart.objectives.objective import Batch, Objective

__all__ = ["FixMatch", "check_share", "confident_loss"]


def confident_loss(logits_bk: Tensor, changed_bk: Tensor, threshold: float | Tensor) -> Tensor:
    """Return the cross-entropy of the second answers with the first ones as labels, where those are sure; 0 for other rows.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Give the labels; no gradient flows to them. Half precision is computed in float32.
    changed_bk : Tensor of shape (b, k)
        Have to agree.
    threshold : float, or Tensor of shape (k,)
        Probability from which a label counts, of all classes or of each.

    Returns
    -------
    Tensor of shape ()
        Nats, over all rows; at least 0.

    Raises
    ------
    ShapeError
        If the shapes differ or are no matrices.

    Examples
    --------
    >>> first = torch.tensor([[200.0, 0.0], [0.0, 0.0]])                      # sure, and not
    >>> confident_loss(first, torch.zeros(2, 2), 0.95)                        # log 2 of two rows
    tensor(0.3466)
    """
    logits_bk, changed_bk = same_shape("confident_loss", logits_bk.detach(), changed_bk)
    sure_b, labels_b = functional.softmax(logits_bk, dim=1).max(1)
    least_b = threshold[labels_b] if isinstance(threshold, Tensor) else threshold
    losses_b = functional.cross_entropy(changed_bk, labels_b, reduction="none")
    return torch.where(sure_b >= least_b, losses_b, 0.0).mean()


class FixMatch(Objective):
    """`confident_loss` between target rows and their strongly changed views.

    Parameters
    ----------
    threshold : float in [0, 1]
        Probability from which an answer counts as a label.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If the threshold is no probability.

    Examples
    --------
    >>> FixMatch()(Batch(), Batch(logits=torch.tensor([[200.0, 0.0]]), strong_logits=torch.zeros(1, 2)))
    tensor(0.6931)
    """

    needs = frozenset({"logits", "strong_logits"})
    reads_classes = True

    def __init__(self, threshold: float = 0.95, weight: float = 1.0) -> None:
        super().__init__()
        check_share("FixMatch", "threshold", threshold)
        self.threshold, self.weight = threshold, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the loss of target rows."""
        (batch,) = self.chosen("target", source, target)
        logits_bk, changed_bk = self.take(batch, "logits"), self.take(batch, "strong_logits")
        return self.weight * confident_loss(logits_bk, changed_bk, self.threshold)


def check_share(who: str, name: str, value: float) -> None:
    """Refuse a number outside [0, 1].

    Raises
    ------
    ConfigError
        With what came.
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"{who}: {name} lies between 0 and 1; got {value}.")
