"""Learning without forgetting: on new rows the source-task head goes on answering as the base model did.

    L_old = - 1/b sum_i sum_c y'_ic log p'_ic       y' = softmax(base / T),  p' = softmax(source head / T)

Source: Li & Hoiem, "Learning without Forgetting", ECCV 2016 (arXiv:1606.09282), equations 2 to 4: raising probabilities to 1/T
and normalising them is a softmax of logits over T. The form (powers of 1/T, no factor T^2) agrees with the implementation that
Serra et al. published with HAT (arXiv:1801.01423); some later ones minimise the Kullback-Leibler divergence times T^2 instead.
Use it to keep the source task, and what it knows, without its rows. It differs from distillation by the entropy of the base
model's answers, which is constant, and by having no factor T^2.
It ignores how far the new rows are from what the base model understands.
Shapes: b rows, k classes of the source task.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from headstart.objectives.distillation import same_shape
from headstart.objectives.objective import Batch, Objective, check_positive

__all__ = ["LwF", "lwf_loss"]


def lwf_loss(logits_bk: Tensor, base_bk: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Return the cross-entropy between a base model's tempered answers and those of the source-task head.

    Parameters
    ----------
    logits_bk, base_bk : Tensor of shape (b, k)
        Logits over the source task's classes. No gradient flows to the base model. Half precision is computed in float32.
    temperature : float, above 0
        The paper uses 2.

    Returns
    -------
    Tensor of shape ()
        Nats a row; at least the entropy of the base model's tempered answers.

    Raises
    ------
    ShapeError
        If the shapes differ or are no matrices.

    Examples
    --------
    >>> import torch
    >>> lwf_loss(torch.zeros(1, 4), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))     # log 4, whatever the base model says
    tensor(1.3863)
    """
    logits_bk, base_bk = same_shape("lwf_loss", logits_bk, base_bk.detach())
    kept_bk = functional.softmax(base_bk / temperature, dim=1)
    return -(kept_bk * functional.log_softmax(logits_bk / temperature, dim=1)).sum(1).mean()


class LwF(Objective):
    """`lwf_loss` between the source-task head and the base model, on the rows of the new task.

    Parameters
    ----------
    temperature : float, above 0
        The paper uses 2.
    head : str
        Name of the head that answers for the source task.
    weight : float
        Multiplies the term; the paper's lambda_o is 1.

    Raises
    ------
    ConfigError
        If the temperature is not above 0.

    Examples
    --------
    >>> import torch
    >>> LwF()(Batch(head_logits={"source": torch.zeros(1, 4)}, base_logits=torch.ones(1, 4)))
    tensor(1.3863)
    """

    needs = frozenset({"logits", "base_logits"})

    def __init__(self, temperature: float = 2.0, head: str = "source", weight: float = 1.0) -> None:
        super().__init__()
        check_positive("LwF", "temperature", temperature)
        self.temperature, self.head, self.weight = temperature, head, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the cross-entropy against the base model's answers."""
        logits_bk, base_bk = self.take_logits(source, self.head), self.take(source, "base_logits")
        return self.weight * lwf_loss(logits_bk, base_bk, temperature=self.temperature)
