"""Partial adaptation: source classes that target rows do not show count less, for the critic and for the classifier.

    gamma = running mean over target rows of softmax(logits), divided by its largest entry
    L = 1/2 mean over source of gamma_y log(1 + exp(-c(reverse(f)))) + 1/2 mean over target of log(1 + exp(c(reverse(f))))
        - mean over source of (1 - gamma_y) (-log softmax(logits)_y)

Source: Cao, Ma, Long & Wang, "Partial Adversarial Domain Adaptation", ECCV 2018 (arXiv:1808.04205), section 3. The last line
takes from the cross-entropy that stands beside this term what the paper leaves out, so that ``ce + pada`` is the paper's sum. The
authors count all target rows anew every 500 steps; a running mean, from equal shares on, is our reading. The schedule is that of
`DANN`.
Use it where the target has some of the source's classes only, and nobody knows which.
It ignores classes that only the target has (see `OSBP`). A class once out of sight is learned more slowly, so a classifier that
begins wrong may stay wrong.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_same_rows
from headstart.core.errors import ConfigError
from headstart.objectives.critic import (
    CriticObjective,
    device_of,
    domain_loss,
    num_classes,
    progress,
    reverse_gradient,
)
from headstart.objectives.objective import Batch, Setup
from headstart.objectives.precision import full_precision, widen
from headstart.objectives.schedules import ramp

__all__ = ["PADA", "partial_loss"]


@full_precision
def partial_loss(source_n: Tensor, target_m: Tensor, logits_nk: Tensor, labels: Tensor, classes_k: Tensor) -> Tensor:
    """Return the critic's loss with source rows weighed by their class, less what a plain cross-entropy counts too much.

    Parameters
    ----------
    source_n, target_m : Tensor of shapes (n,), (m,) or (n, 1), (m, 1)
        What the critic says. Half precision is computed in float32.
    logits_nk : Tensor of shape (n, k)
        The classifier's, of source rows.
    labels : Tensor of shape (n,) or (n, k)
        Class numbers, or soft labels whose rows sum to 1.
    classes_k : Tensor of shape (k,)
        How much each class counts, from 0 to 1.

    Returns
    -------
    Tensor of shape ()
        Nats.

    Raises
    ------
    ShapeError
        If the numbers of rows differ.

    Examples
    --------
    >>> weights = torch.tensor([1.0, 0.0])
    >>> said, logits = torch.zeros(2), torch.zeros(2, 2)                         # every row costs log 2 everywhere
    >>> partial_loss(said, said, logits, torch.tensor([0, 1]), weights)          # (1/2 + 1) log 2 / 2 - log 2 / 2
    tensor(0.1733)
    """
    check_same_rows("partial_loss", "logits", logits_nk, "labels", labels)
    logits_nk = widen(logits_nk)
    soft_nk = functional.one_hot(labels, logits_nk.shape[1]) if labels.ndim == 1 else labels
    soft_nk, classes_k = soft_nk.to(logits_nk.dtype), classes_k.to(logits_nk.dtype)
    told = domain_loss(source_n, target_m, soft_nk @ classes_k)
    too_much_nk = soft_nk * (1 - classes_k) * functional.log_softmax(logits_nk, dim=1)
    return told + too_much_nk.sum(1).mean()


class PADA(CriticObjective):
    """`partial_loss` with the gradient to the features turned round; the classes' weights are a running mean over target rows.

    Parameters
    ----------
    momentum : float in [0, 1)
        How much of itself the running mean keeps at each step.
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
        Of the critic's first weights.
    weight : float
        Multiplies the term; other than 1, the cross-entropy beside it is corrected by that share.

    Raises
    ------
    ConfigError
        If an argument breaks its rule, or the task has no classes.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> objective = PADA(momentum=0.5, widths=())
    >>> objective.prepare(Setup(torch.nn.Module(), Task("classification", ("a", "b")), width=5))
    >>> source = Batch(labels=torch.tensor([0]), features=torch.ones(1, 5), logits=torch.zeros(1, 2))
    >>> _ = objective(source, Batch(features=torch.ones(1, 5), logits=torch.tensor([[100.0, 0.0]])))
    >>> objective.after_step()                                                 # shares (1/2, 1/2) and (1, 0), half of each
    >>> objective.class_weights()
    tensor([1.0000, 0.3333])
    """

    needs = frozenset({"features", "labels", "logits"})
    reads_classes = True
    shares_k: Tensor

    def __init__(
        self,
        momentum: float = 0.99,
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
        if not 0 <= momentum < 1:
            raise ConfigError(f"PADA: momentum lies in [0, 1); got {momentum}.")
        self.momentum, self.steepness, self.head, self.weight = momentum, steepness, head, weight
        self._waiting: list[Tensor] = []

    def prepare(self, setup: Setup) -> None:
        """Make the critic, and begin with equal shares of the classes."""
        classes = num_classes("PADA", setup)
        self.make_critic(setup, setup.known_width("PADA"))
        self.register_buffer("shares_k", torch.full((classes,), 1 / classes, device=device_of(setup)))

    def class_weights(self) -> Tensor:
        """Return how much each class counts, float32 (k,): 1 for the one that target rows seem to show most."""
        return self.shares_k / self.shares_k.max()

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the term; in training mode the target rows' answers wait for `after_step`."""
        (other,) = self.chosen("target", source, target)
        critic = self.known_critic()
        source_nd, target_md = self.take(source, "features"), self.take(other, "features")
        if self.training:
            answers_mk = functional.softmax(widen(self.take_logits(other, self.head).detach()), dim=1)
            self._waiting.append(answers_mk)
        strength = self.strength * ramp(progress(source, target), self.steepness)
        said_b1 = critic(reverse_gradient(torch.cat([source_nd, target_md]), strength))
        logits_nk, labels = self.take_logits(source, self.head), self.take(source, "labels")
        size = len(source_nd)
        return self.weight * partial_loss(said_b1[:size], said_b1[size:], logits_nk, labels, self.class_weights())

    @torch.no_grad()
    def after_step(self) -> None:
        """Let the running mean follow the step's answers."""
        if self._waiting:
            (answers_mk,) = self.together.rows(torch.cat(self._waiting))
            self.shares_k.lerp_(answers_mk.mean(0).to(self.shares_k.dtype), 1 - self.momentum)
            self._waiting = []
