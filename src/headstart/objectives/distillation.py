"""Knowledge distillation: the network in training answers as a teacher does, wrong classes included.

    kl(p, q)       = 1/b sum_i sum_c softmax(p_i / T)_c (log softmax(p_i / T)_c - log softmax(q_i / T)_c)
    distillation   = T^2 kl(teacher, student)         or, reversed,   T^2 kl(student, teacher)
    transfer loss  = weight * kl(q_source, p_target)  is distillation at T = 1, in either direction

Source: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv:1503.02531), equation 1 for the
temperature; section 2 for the factor T^2: gradients of tempered answers shrink as 1/T^2 (its equations 2 to 4).
Use it where a teacher knows more than the labels say. Forward makes the student cover all that the teacher holds possible,
reversed makes it commit to the teacher's likeliest answer.
It ignores the true labels, and how sure the teacher has reason to be.
Shapes: b rows, k classes of the teacher.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix
from headstart.core.errors import ShapeError
from headstart.objectives.objective import Batch, Objective, Rows, check_choice, check_positive
from headstart.objectives.precision import widen

__all__ = ["Direction", "Distillation", "distillation_loss", "kl_divergence", "same_shape"]

Direction = Literal["forward", "reverse"]


def kl_divergence(first_bk: Tensor, second_bk: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return the mean over rows of ``KL(softmax(first / T) || softmax(second / T))``.

    Parameters
    ----------
    first_bk, second_bk : Tensor of shape (b, k)
        Logits. Half precision is computed in float32.
    temperature : float, above 0
        Divides both; above 1 it evens the distributions out.

    Returns
    -------
    Tensor of shape ()
        Nats a row; at least 0, and 0 where both are the same.

    Raises
    ------
    ShapeError
        If the shapes differ or are no matrices.

    Examples
    --------
    >>> even = torch.zeros(1, 2)
    >>> kl_divergence(torch.tensor([[100.0, 0.0]]), even)         # 1 log(1 / 0.5)
    tensor(0.6931)
    >>> kl_divergence(even, even)
    tensor(0.)
    """
    first_bk, second_bk = same_shape("kl_divergence", first_bk, second_bk)
    log_first_bk = functional.log_softmax(first_bk / temperature, dim=1)
    log_second_bk = functional.log_softmax(second_bk / temperature, dim=1)
    return (log_first_bk.exp() * (log_first_bk - log_second_bk)).sum(1).mean()


def distillation_loss(
    student_bk: Tensor, teacher_bk: Tensor, *, temperature: float = 2.0, direction: Direction = "forward"
) -> Tensor:
    """Return the divergence between a student and its teacher, times the squared temperature.

    Parameters
    ----------
    student_bk, teacher_bk : Tensor of shape (b, k)
        Logits over the same classes. No gradient flows to the teacher.
    temperature : float, above 0
        Divides both.
    direction : {"forward", "reverse"}
        ``KL(teacher || student)``, or ``KL(student || teacher)``.

    Returns
    -------
    Tensor of shape ()
        At least 0.

    Raises
    ------
    ShapeError
        If the shapes differ or are no matrices.

    Examples
    --------
    >>> student, teacher = torch.zeros(1, 2), torch.tensor([[200.0, 0.0]])
    >>> distillation_loss(student, teacher, temperature=2.0)      # 2^2 log 2
    tensor(2.7726)
    """
    teacher_bk = teacher_bk.detach()
    pair = (teacher_bk, student_bk) if direction == "forward" else (student_bk, teacher_bk)
    return temperature**2 * kl_divergence(*pair, temperature=temperature)


class Distillation(Objective):
    """`distillation_loss` between a head over the source task's classes and the base model's own answers.

    Parameters
    ----------
    temperature : float, above 0
        Divides both logits; 1 gives the transfer loss.
    direction : {"forward", "reverse"}
        ``KL(base || network)``, or ``KL(network || base)``.
    head : str
        Name of the head that answers for the source task.
    rows : {"source", "target", "both"}
        Of which stream.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If the temperature is not above 0, or a choice is unknown.

    Examples
    --------
    >>> batch = Batch(head_logits={"source": torch.zeros(1, 2)}, base_logits=torch.tensor([[100.0, 0.0]]))
    >>> Distillation(temperature=1.0)(batch)
    tensor(0.6931)
    """

    needs = frozenset({"logits", "base_logits"})

    def __init__(
        self,
        temperature: float = 2.0,
        direction: Direction = "forward",
        head: str = "source",
        rows: Rows = "source",
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive("Distillation", "temperature", temperature)
        check_choice("Distillation", "direction", direction, ("forward", "reverse"))
        check_choice("Distillation", "rows", rows, ("source", "target", "both"))
        self.temperature, self.direction, self.head, self.rows, self.weight = temperature, direction, head, rows, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the divergence from the base model's answers."""
        batches = self.chosen(self.rows, source, target)
        student_bk = torch.cat([self.take_logits(batch, self.head) for batch in batches])
        teacher_bk = torch.cat([self.take(batch, "base_logits") for batch in batches])
        return self.weight * distillation_loss(
            student_bk, teacher_bk, temperature=self.temperature, direction=self.direction
        )


def same_shape(who: str, first_bk: Tensor, second_bk: Tensor) -> tuple[Tensor, Tensor]:
    """Return two matrices of one shape in float32 at least, or refuse them.

    Raises
    ------
    ShapeError
        If the shapes differ or are no matrices.
    """
    check_matrix(who, "first", first_bk)
    check_matrix(who, "second", second_bk)
    if first_bk.shape != second_bk.shape:
        raise ShapeError(
            f"{who}: shapes must agree; got {tuple(first_bk.shape)} and {tuple(second_bk.shape)}; "
            "give both networks the same rows and the same outputs."
        )
    return widen(first_bk), widen(second_bk)
