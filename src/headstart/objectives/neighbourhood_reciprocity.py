"""NRC: a target row gets the answer of its neighbours, most of all of those that count it among theirs; no source row is needed.

    agreement_i = sum over k in N_i of A_ik <S_k, p_i>  +  r sum over k in N_i, l in E_k, l != i of <S_l, p_i>  +  <S_i, p_i>
    nrc = - 1/b sum_i agreement_i  +  diversity sum_c pbar_c log pbar_c          p = softmax(z), pbar the mean of p
    A_ik = 1 where i is in E_k, r where not                                      N, E: nearest rows by cosine

Source: Yang, Wang, van de Weijer, Herranz & Jui, "Exploiting the Intrinsic Neighborhood Structure for Source-free Domain
Adaptation", NeurIPS 2021 (arXiv:2110.04202), section 3, with r 0.1, and 5 rows in N and E as the authors' code has for VisDA-C.
That code keeps the row itself in E and leaves out the last term instead; here, as in the formula, it is the other way round.
S are the answers in the memory, this step's for the rows of the batch; no gradient flows to them.
Use it after the network has learned from source rows, weight 1. The authors train everything; the head may as well stay as it is.
It ignores rows without neighbours of their class: small classes are swallowed.
Shapes: b rows, m rows of the target stream, d features, k classes, q neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.errors import ConfigError
from headstart.objectives.fixmatch import check_share
from headstart.objectives.information_maximisation import entropy_of_mean
from headstart.objectives.objective import Batch, Objective, Setup, check_positive
from headstart.objectives.precision import full_precision, widen
from headstart.objectives.target_memory import first_outputs, nearest_rows

__all__ = ["NRC", "neighbourhood_agreement"]


@full_precision
def neighbourhood_agreement(
    logits_bk: Tensor,
    rows_b: Tensor,
    memory_md: Tensor,
    answers_mk: Tensor,
    *,
    num_neighbours: int = 5,
    num_expanded: int = 5,
    distant: float = 0.1,
) -> Tensor:
    """Return how far each row's answer agrees with those of its neighbours, of their neighbours, and its own.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Half precision is computed in float32.
    rows_b : Tensor of shape (b,)
        int64, which rows of the memory these are.
    memory_md, answers_mk : Tensor of shapes (m, d) and (m, k)
        Features and probabilities of all rows, these included. No gradient flows to them.
    num_neighbours, num_expanded : int
        Neighbours of a row, and neighbours of each of them.
    distant : float in [0, 1]
        What a neighbour counts that does not name the row in turn, and every neighbour's neighbour.

    Returns
    -------
    Tensor of shape ()
        Sum of probabilities of agreeing, a row; from 0 to ``1 + num_neighbours (1 + distant num_expanded)``.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Examples
    --------
    >>> memory, answers = torch.tensor([[1.0, 0.0], [1.0, 0.1]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> logits = torch.tensor([[200.0, 0.0]])
    >>> neighbourhood_agreement(logits, torch.tensor([0]), memory, answers)    # the other names it in turn; and itself
    tensor(2.)
    """
    check_matrix("neighbourhood_agreement", "logits", logits_bk)
    check_same_rows("neighbourhood_agreement", "logits", logits_bk, "rows", rows_b)
    check_same_rows("neighbourhood_agreement", "memory", memory_md, "answers", answers_mk)
    probabilities_bk = functional.softmax(widen(logits_bk), dim=1)
    memory_md, answers_mk = memory_md.detach(), answers_mk.detach().to(probabilities_bk.dtype)
    near_bq = nearest_rows(memory_md[rows_b], memory_md, rows_b, num_neighbours)
    places = near_bq.reshape(-1)
    beyond_pe = nearest_rows(memory_md[places], memory_md, places, num_expanded)
    beyond_bqe = beyond_pe.view(*near_bq.shape, beyond_pe.shape[1])
    own_bqe = beyond_bqe == rows_b[:, None, None]
    affinity_bq = torch.where(own_bqe.any(2), 1.0, distant)
    pull_bk = (affinity_bq[:, :, None] * answers_mk[near_bq]).sum(1)
    pull_bk = pull_bk + distant * (answers_mk[beyond_bqe] * ~own_bqe[..., None]).sum((1, 2))
    return ((pull_bk + answers_mk[rows_b]) * probabilities_bk).sum(1).mean()


class NRC(Objective):
    """The negative `neighbourhood_agreement` of target rows, and the entropy of their mean answer, to be kept large.

    Features and answers of all target rows are buffers.

    Parameters
    ----------
    num_neighbours, num_expanded : int, at least 1
        Neighbours of a row, and neighbours of each of them.
    distant : float in [0, 1]
        What neighbours count that do not name the row in turn.
    diversity : float, at least 0
        Multiplies the entropy of the mean answer.
    weight : float
        Multiplies the sum.

    Raises
    ------
    ConfigError
        If an argument breaks its rule, or there is no second stream.

    Examples
    --------
    >>> import numpy as np
    >>> outputs = lambda: (np.ones((2, 1), np.float32), 200 * np.ones((2, 2), np.float32) * [1, 0])
    >>> objective = NRC(diversity=0.0)
    >>> objective.prepare(Setup(torch.nn.Module(), task=None, num_target=2, target_outputs=outputs))
    >>> batch = Batch(rows=torch.tensor([0]), features=torch.ones(1, 1), logits=torch.tensor([[200.0, 0.0]]))
    >>> objective(Batch(), batch)
    tensor(-2.)
    """

    needs = frozenset({"features", "logits"})
    reads_classes = True
    features_md: Tensor
    answers_mk: Tensor

    def __init__(
        self,
        num_neighbours: int = 5,
        num_expanded: int = 5,
        distant: float = 0.1,
        diversity: float = 1.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive("NRC", "num_neighbours", num_neighbours)
        check_positive("NRC", "num_expanded", num_expanded)
        check_share("NRC", "distant", distant)
        if not diversity >= 0:
            raise ConfigError(f"NRC: diversity is at least 0; got {diversity}.")
        self.num_neighbours, self.num_expanded, self.distant = num_neighbours, num_expanded, distant
        self.diversity, self.weight = diversity, weight
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def prepare(self, setup: Setup) -> None:
        """Fill the memory."""
        features_md, logits_mk = first_outputs("NRC", setup)
        self.register_buffer("features_md", functional.normalize(features_md, dim=1))
        self.register_buffer("answers_mk", functional.softmax(logits_mk, dim=1))

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the term; the memory takes the rows' new features and answers first, in training mode."""
        (batch,) = self.chosen("target", source, target)
        logits_bk, rows_b = self.take(batch, "logits"), self.take(batch, "rows")
        features_bd = functional.normalize(widen(self.take(batch, "features").detach()), dim=1)
        new_bk = functional.softmax(widen(logits_bk.detach()), dim=1)
        if self.training and self.together.size > 1:  # alone the memory has them by the next line
            self._seen.append((rows_b, features_bd, new_bk))
        memory_md, answers_mk = (self.features_md, self.answers_mk) if self.training else self._copies()
        memory_md[rows_b] = features_bd.to(memory_md.dtype)
        answers_mk[rows_b] = new_bk.to(answers_mk.dtype)
        agreement = neighbourhood_agreement(
            logits_bk,
            rows_b,
            memory_md,
            answers_mk,
            num_neighbours=self.num_neighbours,
            num_expanded=self.num_expanded,
            distant=self.distant,
        )
        return -self.weight * (agreement + self.diversity * entropy_of_mean(logits_bk))

    @torch.no_grad()
    def after_step(self) -> None:
        """Put what other processes saw into the memory."""
        for seen in self._seen:
            rows_b, features_bd, answers_bk = self.together.rows(*seen)
            self.features_md[rows_b] = features_bd.to(self.features_md.dtype)
            self.answers_mk[rows_b] = answers_bk.to(self.answers_mk.dtype)
        self._seen = []

    def _copies(self) -> tuple[Tensor, Tensor]:
        return self.features_md.clone(), self.answers_mk.clone()
