"""Information maximisation: each row gets a sure answer, and the answers of a batch use all classes.

    infomax = 1/b sum_i H(p_i)  -  diversity * H(1/b sum_i p_i)             p_i = softmax(z_i),   H(p) = - sum_c p_c log p_c

Source: Shi & Sha, "Information-Theoretical Learning of Discriminative Clusters for Unsupervised Domain Adaptation", ICML 2012
(arXiv:1206.6438); for networks, and under the name SHOT-IM, Liang, Hu & Feng, "Do We Really Need to Access the Source Data?",
ICML 2020 (arXiv:2002.08546), section 3.2. With diversity 1 it is the negative mutual information of rows and answers.
Use it on target rows, with or without the loss of labelled ones; weight 1.
It ignores that the classes' shares may be uneven: the second term asks for equal ones, batch by batch.
Shapes: b rows, k classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix
from headstart.core.errors import ConfigError
from headstart.objectives.entropy import mean_entropy
from headstart.objectives.objective import Batch, Objective
from headstart.objectives.precision import widen

__all__ = ["InfoMax", "entropy_of_mean", "information_maximisation"]


def entropy_of_mean(logits_bk: Tensor) -> Tensor:
    """Return the entropy of a batch's mean answer.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Half precision is computed in float32.

    Returns
    -------
    Tensor of shape ()
        Nats: 0 where all rows surely get one class, to log k.

    Raises
    ------
    ShapeError
        If the logits are no matrix.

    Examples
    --------
    >>> entropy_of_mean(torch.tensor([[200.0, 0.0], [0.0, 200.0]]))           # half of each class: log 2
    tensor(0.6931)
    """
    check_matrix("entropy_of_mean", "logits", logits_bk)
    log_bk = functional.log_softmax(widen(logits_bk), dim=1)
    log_k = torch.logsumexp(log_bk, dim=0) - math.log(len(log_bk))  # finite where the mean itself is 0
    return -(log_k.exp() * log_k).sum()


def information_maximisation(logits_bk: Tensor, *, diversity: float = 1.0) -> Tensor:
    """Return how unsure single answers are, less how diverse they are together.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Half precision is computed in float32.
    diversity : float, at least 0
        Multiplies the second term; 0 leaves the entropy alone.

    Returns
    -------
    Tensor of shape ()
        Nats; with diversity 1 from -log k to 0.

    Raises
    ------
    ShapeError
        If the logits are no matrix.

    Examples
    --------
    >>> information_maximisation(torch.tensor([[200.0, 0.0], [0.0, 200.0]]))  # 0 - log 2
    tensor(-0.6931)
    """
    return mean_entropy(logits_bk) - diversity * entropy_of_mean(logits_bk)


class InfoMax(Objective):
    """`information_maximisation` of a head's answers on target rows.

    Parameters
    ----------
    diversity : float, at least 0
        Multiplies the entropy of the mean answer.
    head : str
        Whose answers.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If ``diversity`` is negative.

    Examples
    --------
    >>> InfoMax()(Batch(), Batch(logits=torch.tensor([[200.0, 0.0], [0.0, 200.0]])))
    tensor(-0.6931)
    """

    needs = frozenset({"logits"})
    reads_classes = True

    def __init__(self, diversity: float = 1.0, head: str = "main", weight: float = 1.0) -> None:
        super().__init__()
        if not diversity >= 0:
            raise ConfigError(f"InfoMax: diversity is at least 0; got {diversity}.")
        self.diversity, self.head, self.weight = diversity, head, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the term."""
        (batch,) = self.chosen("target", source, target)
        return self.weight * information_maximisation(self.take_logits(batch, self.head), diversity=self.diversity)
