"""Margin disparity discrepancy: a second classifier agrees with the first on source rows and contradicts it on target rows.

    L = margin * mean over source of -log p'(y) + mean over target of -log(1 - p'(y))       y = argmax of the first classifier
    p' = softmax(f'(reverse(features)))                                                      min over f', max over the features

Source: Zhang, Liu, Long & Jordan, "Bridging Theory and Algorithm for Domain Adaptation", ICML 2019 (arXiv:1904.05801), section
5: margin 4. Strength 0.1 is that of the authors' program, which lets it rise within the first steps as
2 / (1 + exp(-i / 1000)) - 1; here it rises with the share of the training that is done, as that of `DANN`. That the logarithm of
1 - p' is taken from the other classes' logits, and so never is infinite, is ours.
Use it for classes, with the loss of the source rows beside it. Minus its value, at the best second classifier, is the discrepancy
that the paper's bound is made of.
It ignores how sure the first classifier is: its answers count as if they were right.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.errors import ConfigError
from headstart.objectives.critic import CriticObjective, num_classes, progress, reverse_gradient
from headstart.objectives.distillation import same_shape
from headstart.objectives.objective import Batch, Setup, check_positive
from headstart.objectives.precision import full_precision
from headstart.objectives.schedules import ramp

__all__ = ["MDD", "margin_disparity"]


@full_precision
def margin_disparity(
    source_nk: Tensor, source_second_nk: Tensor, target_mk: Tensor, target_second_mk: Tensor, *, margin: float = 4.0
) -> Tensor:
    """Return the loss of the second classifier: minus the margin disparity discrepancy.

    Parameters
    ----------
    source_nk, source_second_nk : Tensor of shape (n, k)
        Logits of the first and of the second classifier on source rows. Half precision is computed in float32.
    target_mk, target_second_mk : Tensor of shape (m, k)
        The same on target rows.
    margin : float, above 0
        Multiplies the source rows' part.

    Returns
    -------
    Tensor of shape ()
        Nats; at least 0. Only the second classifier's logits have a gradient.

    Raises
    ------
    ShapeError
        If two logits of the same rows differ in shape.
    ConfigError
        If there is one class only.

    Examples
    --------
    >>> even = torch.zeros(1, 2)
    >>> margin_disparity(even, even, even, even, margin=3.0)                     # 3 log 2 + log 2
    tensor(2.7726)
    """
    source_nk, source_second_nk = same_shape("margin_disparity", source_nk, source_second_nk)
    target_mk, target_second_mk = same_shape("margin_disparity", target_mk, target_second_mk)
    if target_mk.shape[1] < 2:
        raise ConfigError("margin_disparity: needs two classes at least; got one.")
    agree = functional.cross_entropy(source_second_nk, source_nk.argmax(1))
    answers_m1 = target_mk.argmax(1)[:, None]
    others_mk = target_second_mk.scatter(1, answers_m1, float("-inf"))
    contradict = (target_second_mk.logsumexp(1) - others_mk.logsumexp(1)).mean()
    return margin * agree + contradict


class MDD(CriticObjective):
    """`margin_disparity` of the classifier and a second one of the objective's own, the features' gradient turned round.

    Parameters
    ----------
    margin : float, above 0
        Multiplies the source rows' part.
    strength : float, at least 0
        What the reversal rises to.
    steepness : float, above 0
        How early it rises.
    widths : sequence of int
        Of the second classifier's layers between.
    dropout : float in [0, 1)
        Of the second classifier's layers.
    spectral : bool
        Divide the second classifier's layers by their largest singular values.
    head : str
        Name of the first classifier.
    seed : int
        Of the second classifier's first weights.
    weight : float
        Multiplies the term, for the second classifier too.

    Raises
    ------
    ConfigError
        If an argument breaks its rule, or the task has no classes.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> objective = MDD(widths=())
    >>> objective.prepare(Setup(torch.nn.Module(), Task("classification", ("a", "b")), width=5))
    >>> _ = torch.nn.init.zeros_(objective.critic.layers[0].weight), torch.nn.init.zeros_(objective.critic.layers[0].bias)
    >>> batch = Batch(features=torch.ones(3, 5), logits=torch.zeros(3, 2))
    >>> round(objective(batch, batch).item(), 4)                               # 4 log 2 + log 2
    3.4657
    """

    needs = frozenset({"features", "logits"})
    reads_classes = True

    def __init__(
        self,
        margin: float = 4.0,
        strength: float = 0.1,
        steepness: float = 10.0,
        widths: Sequence[int] = (256,),
        dropout: float = 0.0,
        spectral: bool = False,
        head: str = "main",
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.configure(strength, widths, dropout, spectral, seed)
        check_positive("MDD", "margin", margin)
        self.margin, self.steepness, self.head, self.weight = margin, steepness, head, weight

    def prepare(self, setup: Setup) -> None:
        """Make the second classifier."""
        self.make_critic(setup, setup.known_width("MDD"), num_classes("MDD", setup))

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the second classifier's loss."""
        (other,) = self.chosen("target", source, target)
        source_nk, target_mk = self.take_logits(source, self.head), self.take_logits(other, self.head)
        features_bd = torch.cat([self.take(source, "features"), self.take(other, "features")])
        strength = self.strength * ramp(progress(source, target), self.steepness)
        second_bk = self.known_critic()(reverse_gradient(features_bd, strength))
        size = len(source_nk)
        loss = margin_disparity(
            source_nk.detach(), second_bk[:size], target_mk.detach(), second_bk[size:], margin=self.margin
        )
        return self.weight * loss
