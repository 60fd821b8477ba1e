"""FlexMatch: FixMatch with a threshold of its own for each class, low where few rows have been learned so far.

    n_c = number of target rows whose last sure answer was c         u = number of rows that were never sure
    beta_c = n_c / max(max_c' n_c', u)          t_c = t beta_c / (2 - beta_c)
    flexmatch = 1/b sum_i 1[max_c p_ic >= t_y_i]  ( - log softmax(s_i)_y_i )     p_i = softmax(z_i),   y_i = argmax_c p_ic

Source: Zhang et al., "FlexMatch: Boosting Semi-Supervised Learning with Curriculum Pseudo Labeling", NeurIPS 2021
(arXiv:2110.08263), section 3: an answer is sure at the one threshold t, 0.95; the map beta / (2 - beta) is their convex one.
Without warm-up u is left out. While no row was sure all thresholds are 0, as in the authors' code (TorchSSL).
Use it as FixMatch, weight 1, where some classes are harder on the target than others, and from a network that knows the source:
from a random start the low thresholds let chance answers count.
It ignores whether answers are right.
Shapes: b rows, m rows of the target stream, k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.errors import ConfigError
from headstart.objectives.fixmatch import check_share, confident_loss
from headstart.objectives.objective import Batch, Objective, Setup
from headstart.objectives.precision import widen

__all__ = ["FlexMatch", "curriculum_thresholds"]


def curriculum_thresholds(
    answers_m: Tensor, num_classes: int, *, threshold: float = 0.95, warm_up: bool = True
) -> Tensor:
    """Return each class's threshold.

    Parameters
    ----------
    answers_m : Tensor of shape (m,)
        int64, the class of each row's last sure answer; -1 where there was none.
    num_classes : int
        How many classes there are.
    threshold : float in [0, 1]
        That of a class which is learned as well as any.
    warm_up : bool
        Keep thresholds low while most rows have no sure answer.

    Returns
    -------
    Tensor of shape (k,)
        float32, from 0 to ``threshold``.

    Examples
    --------
    >>> curriculum_thresholds(torch.tensor([0, 0, 1, -1]), 3, threshold=0.9)  # beta 1, 1/2, 0
    tensor([0.9000, 0.3000, 0.0000])
    """
    counts_k = torch.bincount(answers_m[answers_m >= 0], minlength=num_classes).float()
    most = counts_k.max()
    if warm_up:
        most = torch.maximum(most, (answers_m < 0).sum().float())
    beta_k = counts_k / most.clamp_min(1.0)
    return threshold * beta_k / (2 - beta_k)


class FlexMatch(Objective):
    """`confident_loss` between target rows and their strongly changed views, with `curriculum_thresholds`.

    Each row's last sure answer is a buffer, written after each step.

    Parameters
    ----------
    threshold : float in [0, 1]
        Probability from which an answer is sure.
    warm_up : bool
        Keep thresholds low while most rows have no sure answer.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If the threshold is no probability, or there is no second stream.

    Examples
    --------
    >>> objective = FlexMatch()
    >>> objective.prepare(Setup(torch.nn.Module(), task=None, num_target=4))
    >>> batch = Batch(rows=torch.tensor([2]), logits=torch.tensor([[9.0, 0.0]]), strong_logits=torch.zeros(1, 2))
    >>> objective(Batch(), batch)
    tensor(0.6931)
    >>> objective.after_step()
    >>> objective.answers_m.tolist()
    [-1, -1, 0, -1]
    """

    needs = frozenset({"logits", "strong_logits"})
    reads_classes = True
    answers_m: Tensor

    def __init__(self, threshold: float = 0.95, warm_up: bool = True, weight: float = 1.0) -> None:
        super().__init__()
        check_share("FlexMatch", "threshold", threshold)
        self.threshold, self.warm_up, self.weight = threshold, warm_up, weight
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def prepare(self, setup: Setup) -> None:
        """Make room for an answer of every target row."""
        if not setup.num_target:
            raise ConfigError("FlexMatch: needs a second stream of rows; give rows of the target domain.")
        device = next((item.device for item in setup.network.parameters()), torch.device("cpu"))
        self.register_buffer("answers_m", torch.full((setup.num_target,), -1, dtype=torch.int64, device=device))

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the loss of target rows; in training mode their answers wait for `after_step`."""
        (batch,) = self.chosen("target", source, target)
        logits_bk, changed_bk = self.take(batch, "logits"), self.take(batch, "strong_logits")
        thresholds_k = curriculum_thresholds(
            self.answers_m, logits_bk.shape[1], threshold=self.threshold, warm_up=self.warm_up
        )
        if self.training:
            sure_b, labels_b = functional.softmax(widen(logits_bk.detach()), dim=1).max(1)
            sure = sure_b >= self.threshold
            self._waiting.append((self.take(batch, "rows")[sure], labels_b[sure]))
        return self.weight * confident_loss(logits_bk, changed_bk, thresholds_k)

    @torch.no_grad()
    def after_step(self) -> None:
        """Write down the answers of this step that were sure."""
        for waiting in self._waiting:
            rows, labels = self.together.rows(*waiting)
            self.answers_m[rows] = labels
        self._waiting = []
