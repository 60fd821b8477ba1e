"""Conditional adversarial adaptation: the critic sees each feature together with what the classifier says of the row.

    L = domain loss(c(reverse(T(f, g))))  on both domains,      g = softmax(logits), a constant
    T(f, g) = f g'  (d k numbers), or where those are too many     T(f, g) = (R_f f) * (R_g g) / sqrt(e),   R of normal numbers
    with entropy:  each row counts  w_i = (1 + exp(-H(g_i))) / mean of the same over its domain

Source: Long, Cao, Wang & Jordan, "Conditional Adversarial Domain Adaptation", NeurIPS 2018 (arXiv:1705.10667), section 3:
d k above 4,096 takes e = 1,024 random products. As in the authors' program g carries no gradient, and the weights of a domain sum
to the same number; unlike there, the weights carry none either. The schedule is that of `DANN`.
Use it instead of `DANN` where classes may be confused with each other. With ``entropy`` (CDAN+E) rows the classifier is unsure of
count up to half as much as sure ones.
It ignores whether the classifier is right: early on it conditions on guesses, which is what the schedule is for.
Shapes: n source rows, m target rows, b rows in all, d features, k classes, e random products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_same_rows
from headstart.core.seeds import derive_seed
from headstart.objectives.critic import (
    CriticObjective,
    device_of,
    domain_loss,
    num_classes,
    progress,
    reverse_gradient,
)
from headstart.objectives.objective import Batch, Setup, check_positive
from headstart.objectives.precision import full_precision, widen
from headstart.objectives.schedules import ramp

__all__ = ["CDAN", "certainty_weights", "multilinear_map", "randomised_map"]


@full_precision
def multilinear_map(features_bd: Tensor, probabilities_bk: Tensor) -> Tensor:
    """Return every product of a feature and a probability, row by row.

    Parameters
    ----------
    features_bd : Tensor of shape (b, d)
        Half precision is computed in float32.
    probabilities_bk : Tensor of shape (b, k)
        What the classifier says of the same rows.

    Returns
    -------
    Tensor of shape (b, d * k)
        All classes of the first feature, then of the second.

    Raises
    ------
    ShapeError
        If the numbers of rows differ.

    Examples
    --------
    >>> multilinear_map(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.25, 0.75]]))
    tensor([[0.2500, 0.7500, 0.5000, 1.5000]])
    """
    check_same_rows("multilinear_map", "features", features_bd, "probabilities", probabilities_bk)
    return (widen(features_bd)[:, :, None] * widen(probabilities_bk)[:, None, :]).flatten(1)


@full_precision
def randomised_map(features_bd: Tensor, probabilities_bk: Tensor, features_de: Tensor, outputs_ke: Tensor) -> Tensor:
    """Return random products whose inner products are, on average, those of `multilinear_map`.

    Parameters
    ----------
    features_bd : Tensor of shape (b, d)
        Half precision is computed in float32.
    probabilities_bk : Tensor of shape (b, k)
        What the classifier says of the same rows.
    features_de, outputs_ke : Tensor of shapes (d, e), (k, e)
        Independent random numbers of mean 0 and variance 1, drawn once.

    Returns
    -------
    Tensor of shape (b, e)

    Raises
    ------
    ShapeError
        If the numbers of rows differ.

    Examples
    --------
    >>> randomised_map(torch.tensor([[2.0]]), torch.tensor([[0.5]]), torch.ones(1, 4), torch.ones(1, 4))    # 2 * 0.5 / sqrt 4
    tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """
    check_same_rows("randomised_map", "features", features_bd, "probabilities", probabilities_bk)
    features_bd, probabilities_bk = widen(features_bd), widen(probabilities_bk)
    products_be = (features_bd @ features_de.to(features_bd.dtype)) * (
        probabilities_bk @ outputs_ke.to(features_bd.dtype)
    )
    return products_be / math.sqrt(features_de.shape[1])


@full_precision
def certainty_weights(logits_bk: Tensor, *, least: float = 1.0) -> Tensor:
    """Return ``least + exp(-H)`` of each row, divided by its mean: how much a row counts by how sure the classifier is of it.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Of one domain's rows. Half precision is computed in float32.
    least : float, at least 0
        What every row counts before the division.

    Returns
    -------
    Tensor of shape (b,)
        Of mean 1, without gradient.

    Examples
    --------
    >>> certainty_weights(torch.tensor([[100.0, 0.0], [0.0, 0.0]]))              # 2 and 1 + 1/2, over 1.75
    tensor([1.1429, 0.8571])
    """
    log_bk = functional.log_softmax(widen(logits_bk.detach()), dim=1)
    weights_b = least + (log_bk.exp() * log_bk).sum(1).exp()
    return weights_b / weights_b.mean()


class CDAN(CriticObjective):
    """The loss of a critic of features and predictions together, with the gradient to the features turned round.

    Parameters
    ----------
    entropy : bool
        Let rows the classifier is sure of count more: CDAN+E.
    max_products : int
        Products of features and classes above which random ones take their place.
    num_random : int
        Random products.
    strength : float, at least 0
        What the reversal rises to.
    steepness : float, above 0
        How early it rises.
    widths : sequence of int
        Of the critic's layers between.
    dropout : float in [0, 1)
        Of the critic's layers.
    spectral : bool
        Divide the critic's layers by their largest singular values.
    head : str
        Name of the classifier.
    seed : int
        Of the critic's first weights, and of the random products.
    weight : float
        Multiplies the term, for the critic too.

    Raises
    ------
    ConfigError
        If an argument breaks its rule, or the task has no classes.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> objective = CDAN(widths=())
    >>> objective.prepare(Setup(torch.nn.Module(), Task("classification", ("a", "b", "c")), width=5))
    >>> objective.critic.layers[0].in_features
    15
    """

    needs = frozenset({"features", "logits"})
    reads_classes = True

    def __init__(
        self,
        entropy: bool = False,
        max_products: int = 4096,
        num_random: int = 1024,
        strength: float = 1.0,
        steepness: float = 10.0,
        widths: Sequence[int] = (256, 256),
        dropout: float = 0.0,
        spectral: bool = False,
        head: str = "main",
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.configure(strength, widths, dropout, spectral, seed)
        check_positive("CDAN", "max_products", max_products)
        check_positive("CDAN", "num_random", num_random)
        self.entropy, self.max_products, self.num_random = entropy, max_products, num_random
        self.steepness, self.head, self.weight = steepness, head, weight
        self.features_de: Tensor | None
        self.outputs_ke: Tensor | None
        self.register_buffer("features_de", None)
        self.register_buffer("outputs_ke", None)

    def prepare(self, setup: Setup) -> None:
        """Make the critic and, where products are too many, draw random ones."""
        width, classes = setup.known_width("CDAN"), num_classes("CDAN", setup)
        if width * classes <= self.max_products:
            self.make_critic(setup, width * classes)
            return
        random = torch.Generator().manual_seed(derive_seed(self.seed, "random products"))
        device = device_of(setup)
        self.features_de = torch.randn(width, self.num_random, generator=random).to(device)
        self.outputs_ke = torch.randn(classes, self.num_random, generator=random).to(device)
        self.make_critic(setup, self.num_random)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the critic's loss."""
        (other,) = self.chosen("target", source, target)
        source_nk, target_mk = self.take_logits(source, self.head), self.take_logits(other, self.head)
        features_bd = torch.cat([self.take(source, "features"), self.take(other, "features")])
        probabilities_bk = functional.softmax(widen(torch.cat([source_nk, target_mk]).detach()), dim=1)
        strength = self.strength * ramp(progress(source, target), self.steepness)
        critic = self.known_critic()
        said_b1 = critic(self._products(reverse_gradient(features_bd, strength), probabilities_bk))
        source_n, target_m = None, None
        if self.entropy:
            source_n, target_m = certainty_weights(source_nk), certainty_weights(target_mk)
        return self.weight * domain_loss(said_b1[: len(source_nk)], said_b1[len(source_nk) :], source_n, target_m)

    def _products(self, features_bd: Tensor, probabilities_bk: Tensor) -> Tensor:
        if self.features_de is None or self.outputs_ke is None:
            return multilinear_map(features_bd, probabilities_bk)
        return randomised_map(features_bd, probabilities_bk, self.features_de, self.outputs_ke)
