"""ATDOC: target rows are labelled by target rows, through neighbours or class centres in a memory, not by the source's head.

    neighbours:   q_i = mean of s_j over the nearest rows j,   y_i = argmax q_i,   w_i = max q_i
                  s_jc = p_jc^(1/T) / sum_j' p_j'c^(1/T)                          over the rows j' of a step;   p = softmax(z)
    centres:      y_i = argmax over c of cos(f_i, m_c),   w_i = 1
                  m_c <- (1 - g) m_c + g mean of f_i over the step's rows i that are answered c
    atdoc = share / sum_i w_i  sum_i w_i ( - log softmax(z_i)_y_i )               share: how much of the training is done

Source: Liang, Hu & Feng, "Domain Adaptation with Auxiliary Target Domain-Oriented Classifier", CVPR 2021 (arXiv:2007.04171),
section 3: 5 neighbours by cosine, T 0.5, g 0.1, weight 1 that rises with the share, as in the authors' code. That runs each
batch a second time to fill the memory and begins it at random; here the memory takes the step's own outputs, and begins with
those of the network at the start. s is divided by the class's mass in the batch, which makes rare classes as strong as others;
here it is also multiplied by b / k, so that batches of all sizes are comparable. Centres of classes that no row of a step is
answered with stay as they are.
Use it on target rows with the loss of labelled rows.
It ignores rows whose neighbourhood is of another class.
Shapes: b rows, m rows of the target stream, d features, k classes, q neighbours.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix
from headstart.core.errors import ConfigError
from headstart.objectives.objective import Batch, Objective, Setup, check_choice, check_positive
from headstart.objectives.precision import full_precision, widen
from headstart.objectives.target_memory import first_outputs, nearest_rows

__all__ = ["ATDOC", "centre_vote", "neighbour_vote", "sharpened", "weighted_cross_entropy"]

_LEAST = 1e-12

Form = Literal["neighbours", "centres"]


def sharpened(logits_bk: Tensor, *, temperature: float = 0.5) -> Tensor:
    """Return sharpened answers, each class divided by its mass in the batch; an even batch keeps its sums.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Half precision is computed in float32.
    temperature : float, above 0
        Below 1 it sharpens.

    Returns
    -------
    Tensor of shape (b, k)
        At least 0; every column adds up to b / k.

    Examples
    --------
    >>> sharpened(torch.zeros(4, 2))[0].tolist()
    [0.5, 0.5]
    >>> sharpened(torch.tensor([[200.0, 0.0], [200.0, 0.0], [0.0, 200.0]]))[:, 0].tolist()     # two share the mass of 3/2
    [0.75, 0.75, 0.0]
    """
    check_matrix("sharpened", "logits", logits_bk)
    powers_bk = functional.softmax(widen(logits_bk), dim=1).pow(1 / temperature)
    num_rows, num_classes = powers_bk.shape
    return powers_bk / powers_bk.sum(0).clamp_min(_LEAST) * (num_rows / num_classes)


@full_precision
def neighbour_vote(
    features_bd: Tensor, rows_b: Tensor, memory_md: Tensor, answers_mk: Tensor, *, num_neighbours: int = 5
) -> tuple[Tensor, Tensor]:
    """Return the class that each row's neighbours in the memory stand for, and how strongly.

    Parameters
    ----------
    features_bd : Tensor of shape (b, d)
        Half precision is computed in float32.
    rows_b : Tensor of shape (b,)
        int64, which rows of the memory these are; no row votes for itself.
    memory_md, answers_mk : Tensor of shapes (m, d) and (m, k)
        Features and sharpened answers of all rows.
    num_neighbours : int
        How many vote.

    Returns
    -------
    labels_b : Tensor of shape (b,)
        int64 class numbers.
    weights_b : Tensor of shape (b,)
        Mean answer of the neighbours for that class.

    Examples
    --------
    >>> memory, answers = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), torch.eye(3)
    >>> neighbour_vote(memory[:1], torch.tensor([0]), memory, answers, num_neighbours=1)
    (tensor([1]), tensor([1.]))
    """
    features_bd = widen(features_bd)
    near_bq = nearest_rows(features_bd, memory_md.to(features_bd.dtype), rows_b, num_neighbours)
    votes_bk = answers_mk[near_bq].to(features_bd.dtype).sum(1) / max(1, near_bq.shape[1])
    weights_b, labels_b = votes_bk.max(1)
    return labels_b, weights_b


@full_precision
def centre_vote(features_bd: Tensor, centres_kd: Tensor) -> Tensor:
    """Return the class whose centre is nearest to each row by cosine; a centre of zeros is no class yet.

    Parameters
    ----------
    features_bd : Tensor of shape (b, d)
        Half precision is computed in float32.
    centres_kd : Tensor of shape (k, d)
        One a class.

    Returns
    -------
    Tensor of shape (b,)
        int64 class numbers.

    Examples
    --------
    >>> centre_vote(torch.tensor([[-1.0, 0.1]]), torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 5.0]])).tolist()
    [2]
    """
    features_bd = widen(features_bd)
    centres_kd = centres_kd.to(features_bd.dtype)
    similarity_bk = functional.normalize(features_bd, dim=1) @ functional.normalize(centres_kd, dim=1).T
    return similarity_bk.masked_fill(centres_kd.square().sum(1) == 0, -torch.inf).argmax(1)


def weighted_cross_entropy(logits_bk: Tensor, labels_b: Tensor, weights_b: Tensor) -> Tensor:
    """Return the weighted mean of the rows' cross-entropies; 0 where no row has any weight.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Half precision is computed in float32.
    labels_b, weights_b : Tensor of shape (b,)
        Class numbers, and what each row counts.

    Returns
    -------
    Tensor of shape ()
        Nats a row.

    Examples
    --------
    >>> logits, labels = torch.tensor([[0.0, 0.0], [200.0, 0.0]]), torch.tensor([0, 0])
    >>> weighted_cross_entropy(logits, labels, torch.tensor([1.0, 3.0]))      # log 2 / 4
    tensor(0.1733)
    """
    losses_b = functional.cross_entropy(widen(logits_bk), labels_b, reduction="none")
    return (weights_b * losses_b).sum() / weights_b.sum().clamp_min(_LEAST)


class ATDOC(Objective):
    """The cross-entropy of target rows with the labels that a memory of the target gives them.

    The memory is in buffers, written after each step: features and sharpened answers of all target rows, or a centre for each
    class.

    Parameters
    ----------
    form : {"neighbours", "centres"}
        Who labels: near rows, or the nearest class centre.
    num_neighbours : int, at least 1
        Of the form ``"neighbours"``.
    temperature : float, above 0
        Of the form ``"neighbours"``: below 1 it sharpens what neighbours say.
    momentum : float in (0, 1]
        Of the form ``"centres"``: how much of a step's mean a centre takes.
    weight : float
        Multiplies the term at the end of the training; before, as much of it as is done.

    Raises
    ------
    ConfigError
        If an argument breaks its rule, or there is no second stream.

    Examples
    --------
    >>> import numpy as np
    >>> outputs = lambda: (np.ones((3, 1), np.float32), np.zeros((3, 2), np.float32) + [9, 0])
    >>> objective = ATDOC()
    >>> objective.prepare(Setup(torch.nn.Module(), task=None, num_target=3, target_outputs=outputs))
    >>> batch = Batch(rows=torch.tensor([0]), features=torch.ones(1, 1), logits=torch.zeros(1, 2), share=0.5)
    >>> objective(Batch(), batch)                                             # log 2 / 2
    tensor(0.3466)
    """

    needs = frozenset({"features", "logits"})
    reads_classes = True
    memory_md: Tensor
    answers_mk: Tensor
    centres_kd: Tensor

    def __init__(
        self,
        form: Form = "neighbours",
        num_neighbours: int = 5,
        temperature: float = 0.5,
        momentum: float = 0.1,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("ATDOC", "form", form, ("neighbours", "centres"))
        check_positive("ATDOC", "num_neighbours", num_neighbours)
        check_positive("ATDOC", "temperature", temperature)
        if not 0 < momentum <= 1:
            raise ConfigError(f"ATDOC: momentum lies above 0 and at most at 1; got {momentum}.")
        self.form, self.num_neighbours, self.temperature, self.momentum = form, num_neighbours, temperature, momentum
        self.weight = weight
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def prepare(self, setup: Setup) -> None:
        """Fill the memory."""
        features_md, logits_mk = first_outputs("ATDOC", setup)
        if self.form == "neighbours":
            self.register_buffer("memory_md", functional.normalize(features_md, dim=1))
            self.register_buffer("answers_mk", sharpened(logits_mk, temperature=self.temperature))
        else:
            centres_kd, _ = _centres(features_md, logits_mk)
            self.register_buffer("centres_kd", centres_kd)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return the weighted term; in training mode the rows' features and answers wait for `after_step`."""
        (batch,) = self.chosen("target", source, target)
        logits_bk, rows_b = self.take(batch, "logits"), self.take(batch, "rows")
        features_bd = widen(self.take(batch, "features").detach())
        if self.form == "neighbours":
            labels_b, weights_b = neighbour_vote(
                features_bd, rows_b, self.memory_md, self.answers_mk, num_neighbours=self.num_neighbours
            )
        else:
            labels_b = centre_vote(features_bd, self.centres_kd)
            weights_b = torch.ones_like(labels_b, dtype=features_bd.dtype)
        if self.training:
            self._waiting.append((rows_b, features_bd, widen(logits_bk.detach())))
        return self.weight * batch.share * weighted_cross_entropy(logits_bk, labels_b, weights_b)

    @torch.no_grad()
    def after_step(self) -> None:
        """Put the step's features and answers into the memory."""
        for waiting in self._waiting:
            rows_b, features_bd, logits_bk = self.together.rows(*waiting)
            if self.form == "neighbours":
                self.memory_md[rows_b] = functional.normalize(features_bd, dim=1).to(self.memory_md.dtype)
                answers_bk = sharpened(logits_bk, temperature=self.temperature)
                self.answers_mk[rows_b] = answers_bk.to(self.answers_mk.dtype)
            else:
                means_kd, counts_k = _centres(features_bd, logits_bk)
                moved_kd = self.centres_kd.lerp(means_kd.to(self.centres_kd.dtype), self.momentum)
                self.centres_kd.copy_(torch.where(counts_k[:, None] > 0, moved_kd, self.centres_kd))
        self._waiting = []


def _centres(features_bd: Tensor, logits_bk: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean features of the rows that are answered with each class, and how many they are."""
    chosen_bk = functional.one_hot(logits_bk.argmax(1), logits_bk.shape[1]).to(features_bd.dtype)
    counts_k = chosen_bk.sum(0)
    with torch.autocast(features_bd.device.type, enabled=False):
        return chosen_bk.T @ features_bd / counts_k[:, None].clamp_min(1.0), counts_k
