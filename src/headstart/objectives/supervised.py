"""The losses of labelled rows: cross-entropy, binary cross-entropy, squared error.

    cross_entropy        = 1/b sum_i sum_c w_c q_ic (-log softmax(z_i)_c)         q = (1 - s) onehot(y) + s / k
    binary_cross_entropy = 1/(b k) sum_i sum_c w_c (-q_ic log sigmoid(z_ic) - (1 - q_ic) log(1 - sigmoid(z_ic)))
    squared_error        = 1/(b k) sum_i sum_c (z_ic - y_ic)^2

Source: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016 (arXiv:1512.00567), section 7, for the smoothing s.
Use them for whatever labels are known; `supervised_objective` chooses by the task.
They divide by the number of rows, never by the sum of class weights as ``torch.nn.functional.cross_entropy`` does for class
numbers: so the loss of a batch is the mean of the losses of its parts, and accumulated or distributed steps equal one large step.
Shapes: b rows in a batch, k outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.errors import ConfigError, ShapeError
from headstart.core.tasks import Task
from headstart.objectives.objective import Batch, Objective
from headstart.objectives.precision import widen

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "SquaredError",
    "balanced_class_weights",
    "binary_cross_entropy",
    "cross_entropy",
    "squared_error",
    "supervised_objective",
]


def cross_entropy(
    logits_bk: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None
) -> Tensor:
    """Return the mean cross-entropy between labels and the softmax of the logits.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Outputs before the softmax. Half precision is computed in float32.
    labels : Tensor of shape (b,) or (b, k)
        Class numbers, or soft labels whose rows sum to 1.
    label_smoothing : float in [0, 1]
        Share of every label that is spread evenly over all classes.
    class_weights : sequence of k floats, optional
        Multiplies the part of the loss that belongs to each class. See `balanced_class_weights`.

    Returns
    -------
    Tensor of shape ()
        Nats a row; at least 0.

    Raises
    ------
    ShapeError
        If the shapes do not fit, or a class number lies outside 0..k-1.

    Examples
    --------
    >>> cross_entropy(torch.zeros(1, 2), torch.tensor([1]))                      # log 2
    tensor(0.6931)
    >>> cross_entropy(torch.zeros(1, 2), torch.tensor([1]), class_weights=[1, 2])
    tensor(1.3863)
    """
    logits_bk = _checked("cross_entropy", logits_bk, labels)
    _check_labels(logits_bk, labels)
    weights = None
    if class_weights is not None:
        weights = _weights("cross_entropy", class_weights, logits_bk)
        if labels.ndim == 1:  # as soft labels, for which torch divides by the number of rows
            labels = functional.one_hot(labels, logits_bk.shape[1])
    labels = labels.to(logits_bk.dtype) if labels.ndim == 2 else labels
    return functional.cross_entropy(logits_bk, labels, weights, label_smoothing=label_smoothing)


def binary_cross_entropy(
    logits_bk: Tensor,
    labels_bk: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Tensor:
    """Return the mean over rows and classes of the binary cross-entropy between indicators and the sigmoid of the logits.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Outputs before the sigmoid. Half precision is computed in float32.
    labels_bk : Tensor of shape (b, k)
        1 where a row has the class, 0 where it has not; anything between is a soft label.
    label_smoothing : float in [0, 1]
        Pulls every indicator towards one half.
    class_weights : sequence of k floats, optional
        Multiplies the loss of each class.

    Returns
    -------
    Tensor of shape ()
        Nats; at least 0.

    Raises
    ------
    ShapeError
        If the shapes differ.

    Examples
    --------
    >>> binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))      # log 2 for either class
    tensor(0.6931)
    """
    logits_bk = _checked("binary_cross_entropy", logits_bk, labels_bk)
    if labels_bk.shape != logits_bk.shape:
        raise ShapeError(
            f"binary_cross_entropy: labels must be indicators of shape {tuple(logits_bk.shape)}; got {tuple(labels_bk.shape)}."
        )
    soft_bk = (1 - label_smoothing) * labels_bk.to(logits_bk.dtype) + label_smoothing / 2
    loss_bk = functional.binary_cross_entropy_with_logits(logits_bk, soft_bk, reduction="none")
    if class_weights is not None:
        loss_bk = loss_bk * _weights("binary_cross_entropy", class_weights, logits_bk)
    return loss_bk.mean()


def squared_error(outputs_bk: Tensor, labels: Tensor) -> Tensor:
    """Return the mean squared error.

    Parameters
    ----------
    outputs_bk : Tensor of shape (b, k)
        Numbers that the head gives. Half precision is computed in float32.
    labels : Tensor of shape (b,) where k is 1, or (b, k)
        True numbers.

    Returns
    -------
    Tensor of shape ()
        At least 0; in the squared unit of the labels.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Examples
    --------
    >>> squared_error(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0]))    # (0 + 4) / 2
    tensor(2.)
    """
    outputs_bk = _checked("squared_error", outputs_bk, labels)
    truth_bk = labels[:, None] if labels.ndim == 1 else labels
    if truth_bk.shape != outputs_bk.shape:
        raise ShapeError(
            f"squared_error: outputs have shape {tuple(outputs_bk.shape)} but labels {tuple(labels.shape)}; "
            "give one number for each output."
        )
    return (outputs_bk - truth_bk.to(outputs_bk.dtype)).square().mean()


class CrossEntropy(Objective):
    """`cross_entropy` of the source rows' logits and labels.

    Parameters
    ----------
    label_smoothing : float in [0, 1]
        Share of every label that is spread evenly over all classes.
    class_weights : sequence of k floats, optional
        Multiplies the part of the loss that belongs to each class.
    head : str
        Name of the head whose outputs are meant.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If ``label_smoothing`` lies outside [0, 1], or a class weight is negative.

    Examples
    --------
    >>> CrossEntropy()(Batch(labels=torch.tensor([0]), logits=torch.zeros(1, 2)))
    tensor(0.6931)
    """

    needs = frozenset({"labels", "logits"})
    reads_classes = True

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        head: str = "main",
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        _check_options("CrossEntropy", label_smoothing, class_weights)
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else tuple(float(value) for value in class_weights)
        self.head, self.weight = head, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the cross-entropy of the source rows."""
        logits_bk, labels = self.take_logits(source, self.head), self.take(source, "labels")
        return self.weight * cross_entropy(
            logits_bk, labels, label_smoothing=self.label_smoothing, class_weights=self.class_weights
        )


class BinaryCrossEntropy(Objective):
    """`binary_cross_entropy` of the source rows' logits and indicators.

    Parameters
    ----------
    label_smoothing : float in [0, 1]
        Pulls every indicator towards one half.
    class_weights : sequence of k floats, optional
        Multiplies the loss of each class.
    head : str
        Name of the head whose outputs are meant.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If ``label_smoothing`` lies outside [0, 1], or a class weight is negative.

    Examples
    --------
    >>> BinaryCrossEntropy()(Batch(labels=torch.tensor([[0.0, 1.0]]), logits=torch.zeros(1, 2)))
    tensor(0.6931)
    """

    needs = frozenset({"labels", "logits"})
    reads_classes = True

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        head: str = "main",
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        _check_options("BinaryCrossEntropy", label_smoothing, class_weights)
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else tuple(float(value) for value in class_weights)
        self.head, self.weight = head, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the binary cross-entropy of the source rows."""
        logits_bk, labels_bk = self.take_logits(source, self.head), self.take(source, "labels")
        return self.weight * binary_cross_entropy(
            logits_bk, labels_bk, label_smoothing=self.label_smoothing, class_weights=self.class_weights
        )


class SquaredError(Objective):
    """`squared_error` of the source rows' outputs and numbers.

    Parameters
    ----------
    head : str
        Name of the head whose outputs are meant.
    weight : float
        Multiplies the term.

    Examples
    --------
    >>> SquaredError()(Batch(labels=torch.tensor([3.0]), logits=torch.tensor([[1.0]])))
    tensor(4.)
    """

    needs = frozenset({"labels", "logits"})

    def __init__(self, head: str = "main", weight: float = 1.0) -> None:
        super().__init__()
        self.head, self.weight = head, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the mean squared error of the source rows."""
        return self.weight * squared_error(self.take_logits(source, self.head), self.take(source, "labels"))


def supervised_objective(
    task: Task,
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    head: str = "main",
    weight: float = 1.0,
) -> Objective:
    """Return the loss that belongs to a task.

    Parameters
    ----------
    task : Task
        Classification gets `CrossEntropy`, several classes at once `BinaryCrossEntropy`, numbers `SquaredError`.
    label_smoothing : float in [0, 1]
        For classes; numbers have none.
    class_weights : sequence of k floats, optional
        For classes; numbers have none.
    head : str
        Name of the head whose outputs are meant.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If smoothing or class weights are asked for where targets are numbers.

    Examples
    --------
    >>> supervised_objective(Task("regression"))
    SquaredError(head='main', weight=1.0)
    """
    if task.kind == "classification":
        return CrossEntropy(label_smoothing, class_weights, head, weight)
    if task.kind == "multilabel":
        return BinaryCrossEntropy(label_smoothing, class_weights, head, weight)
    if label_smoothing or class_weights is not None:
        raise ConfigError(
            "supervised_objective: targets that are numbers have no classes to smooth or to weigh; "
            "leave label_smoothing and class_weights out."
        )
    return SquaredError(head, weight)


def balanced_class_weights(targets: NDArray[Any], num_classes: int) -> tuple[float, ...]:
    """Return for every class how much rarer it is than the average class.

    Parameters
    ----------
    targets : array of shape (n,) or (n, k)
        Class numbers, or indicators.
    num_classes : int
        k.

    Returns
    -------
    tuple of k floats
        Mean count of the classes that occur, over the count of the class; 1 for a class that never occurs.

    Examples
    --------
    >>> balanced_class_weights(np.array([0, 0, 0, 1]), 2)        # mean count 2, over 3 and 1
    (0.6666666666666666, 2.0)
    """
    if targets.ndim == 2:
        counts = targets.astype(np.float64).sum(0)
    else:
        counts = np.bincount(targets.astype(np.int64), minlength=num_classes).astype(np.float64)
    occurring = counts > 0
    mean = counts[occurring].mean() if occurring.any() else 1.0
    return tuple((mean / np.where(occurring, counts, mean)).tolist())


def _checked(who: str, logits_bk: Tensor, labels: Tensor) -> Tensor:
    check_matrix(who, "logits", logits_bk)
    check_same_rows(who, "logits", logits_bk, "labels", labels)
    return widen(logits_bk)


def _check_labels(logits_bk: Tensor, labels: Tensor) -> None:
    num_classes = logits_bk.shape[1]
    if labels.ndim == 2:
        if labels.shape[1] != num_classes:
            raise ShapeError(
                f"cross_entropy: soft labels have {labels.shape[1]} classes but logits {num_classes}; "
                "give one probability for each class."
            )
        return
    if labels.ndim != 1 or labels.is_floating_point():
        raise ShapeError(
            f"cross_entropy: labels must be class numbers (b,) or soft labels (b, k); "
            f"got {labels.dtype} of shape {tuple(labels.shape)}."
        )
    if labels.device.type == "cpu":  # elsewhere looking would make the device wait
        least, most = (int(value) for value in labels.aminmax())
        if least < 0 or most >= num_classes:
            raise ShapeError(f"cross_entropy: class numbers must lie in 0..{num_classes - 1}; got {least} to {most}.")


def _weights(who: str, class_weights: Sequence[float], logits_bk: Tensor) -> Tensor:
    if len(class_weights) != logits_bk.shape[1]:
        raise ShapeError(
            f"{who}: needs one class weight for each of {logits_bk.shape[1]} classes; got {len(class_weights)}."
        )
    return torch.tensor(class_weights, dtype=logits_bk.dtype, device=logits_bk.device)


def _check_options(who: str, label_smoothing: float, class_weights: Sequence[float] | None) -> None:
    if not 0 <= label_smoothing <= 1:
        raise ConfigError(f"{who}: label_smoothing lies between 0 and 1; got {label_smoothing}.")
    if class_weights is not None and any(value < 0 for value in class_weights):
        raise ConfigError(f"{who}: class weights are at least 0; got {min(class_weights)}.")
