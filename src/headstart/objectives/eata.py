"""EATA: entropy of those rows alone that are sure enough to be right and unlike what was seen lately.

    eata = mean over the taken i of  exp(E - H_i) H_i             H_i = H(p_i),   p = softmax(z),   E = margin log k
    taken: H_i < E, and |cos(p_i, m)| < similarity / sqrt(k)      m <- 0.9 m + 0.1 mean of the taken p, after each step

Source: Niu et al., "Efficient Test-Time Model Adaptation without Forgetting", ICML 2022 (arXiv:2204.02610), section 3. The
factor exp(E - H) carries no gradient. The first step takes all sure rows, as there is no m yet. The authors' cosine is 0.4 for 10
classes and 0.05 for 1000; 1 / sqrt(k) is that of a certain answer to an even m, of which these are 1.3 and 1.6 times as much; to
measure it so is ours. What keeps the network from forgetting is a term of its own (`headstart.methods.TestTimeAdaptation`).
Use it on target rows alone, where normalisation layers train.
It ignores rows it does not take: a network that is sure of nothing learns nothing.
Shapes: b rows, k classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix
from headstart.objectives.entropy import row_entropies
from headstart.objectives.fixmatch import check_share
from headstart.objectives.objective import Batch, Objective, Setup, check_positive
from headstart.objectives.precision import widen

__all__ = ["EATA", "reliable_entropy", "reliable_rows"]


def reliable_rows(logits_bk: Tensor, mean_k: Tensor | None, *, margin: float = 0.4, similarity: float = 1.3) -> Tensor:
    """Return which rows are sure, and unlike the mean answer.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Half precision is computed in float32.
    mean_k : Tensor of shape (k,), optional
        Mean of the answers taken so far; none yet when left out.
    margin : float in [0, 1]
        Largest entropy of a sure row, as a share of log k.
    similarity : float, above 0
        Largest cosine to the mean answer, times sqrt(k).

    Returns
    -------
    Tensor of shape (b,)
        bool.

    Raises
    ------
    ShapeError
        If the logits are no matrix.

    Examples
    --------
    >>> logits = torch.tensor([[9.0, 0.0], [0.0, 9.0], [0.0, 0.0]])            # sure, sure, not sure
    >>> reliable_rows(logits, torch.tensor([1.0, 0.1])).tolist()              # the first is like the mean
    [False, True, False]
    """
    check_matrix("reliable_rows", "logits", logits_bk)
    num_classes = logits_bk.shape[1]
    taken_b = row_entropies(logits_bk) < margin * math.log(num_classes)
    if mean_k is None:
        return taken_b
    answers_bk = functional.softmax(widen(logits_bk), dim=1)
    cosine_b = functional.cosine_similarity(answers_bk, mean_k.to(answers_bk.dtype)[None], dim=1)
    return taken_b & (cosine_b.abs() < similarity / math.sqrt(num_classes))


def reliable_entropy(logits_bk: Tensor, taken_b: Tensor, *, margin: float = 0.4) -> Tensor:
    """Return the mean entropy of the rows taken, the surer the heavier; 0 where none is.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Half precision is computed in float32.
    taken_b : Tensor of shape (b,)
        bool, which rows count.
    margin : float in [0, 1]
        As in `reliable_rows`.

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
    >>> reliable_entropy(torch.zeros(2, 2), torch.tensor([True, False]), margin=1.0)      # exp(0) log 2
    tensor(0.6931)
    """
    entropies_b = row_entropies(logits_bk)
    factors_b = (margin * math.log(logits_bk.shape[1]) - entropies_b.detach()).exp()
    return torch.where(taken_b, factors_b * entropies_b, 0.0).sum() / taken_b.sum().clamp_min(1)


class EATA(Objective):
    """`reliable_entropy` of the target rows that `reliable_rows` names; the mean answer is a buffer.

    Parameters
    ----------
    margin : float in [0, 1]
        Largest entropy of a sure row, as a share of log k.
    similarity : float, above 0
        Largest cosine to the mean answer, times sqrt(k).
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> objective = EATA(margin=1.0)
    >>> objective.prepare(Setup(torch.nn.Module(), Task("classification", ("a", "b"))))
    >>> value = objective(Batch(), Batch(logits=torch.tensor([[9.0, 0.0]])))
    >>> objective.after_step()
    >>> [round(entry, 2) for entry in objective.mean_k.tolist()]
    [1.0, 0.0]
    """

    needs = frozenset({"logits"})
    reads_classes = True
    mean_k: Tensor

    def __init__(self, margin: float = 0.4, similarity: float = 1.3, weight: float = 1.0) -> None:
        super().__init__()
        check_share("EATA", "margin", margin)
        check_positive("EATA", "similarity", similarity)
        self.margin, self.similarity, self.weight = margin, similarity, weight
        self._waiting: list[Tensor] = []

    def prepare(self, setup: Setup) -> None:
        """Begin without a mean answer: zeros."""
        device = next((item.device for item in setup.network.parameters()), torch.device("cpu"))
        self.register_buffer("mean_k", torch.zeros(setup.task.num_outputs, device=device))

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the term; in training mode the answers taken wait for `after_step`."""
        (batch,) = self.chosen("target", source, target)
        logits_bk = self.take(batch, "logits")
        mean_k = self.mean_k if bool(self.mean_k.any()) else None
        taken_b = reliable_rows(logits_bk.detach(), mean_k, margin=self.margin, similarity=self.similarity)
        if self.training:
            self._waiting.append(functional.softmax(widen(logits_bk.detach()), dim=1)[taken_b])
        return self.weight * reliable_entropy(logits_bk, taken_b, margin=self.margin)

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the mean answer towards those of this step."""
        for waiting in self._waiting:
            (answers_bk,) = self.together.rows(waiting)
            if len(answers_bk):
                share = 0.1 if bool(self.mean_k.any()) else 1.0
                self.mean_k.lerp_(answers_bk.mean(0).to(self.mean_k.dtype), share)
        self._waiting = []
