"""Embedding loss: a row's output follows the labels of the rows that lie near it.

    squared        = 1/n sum_i sum_j w_ij || y_i - phi_j ||^2
    cross-entropy  = 1/n sum_i sum_j w_ij sum_c -y_ic log softmax(phi_j)_c
    w_ij           = exp(-|| f_i - f_j ||^2 / (2 s^2)) / sum_j exp(-|| f_i - f_j ||^2 / (2 s^2))

Source: Weston et al., "Deep Learning via Semi-Supervised Embedding", ICML 2008, for losses over a graph of neighbours; Zhu &
Ghahramani, "Learning from Labeled and Unlabeled Data with Label Propagation", 2002, for the Gaussian weights.
Use it to spread few labels over many unlabelled rows whose features are already good.
It ignores that a neighbour across a class border is a neighbour too.
Shapes: n labelled rows, m rows that receive labels, d features, k outputs.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix, check_same_width
from headstart.core.errors import ShapeError
from headstart.objectives.objective import Batch, Objective, check_choice, check_positive
from headstart.objectives.precision import full_precision, widen

__all__ = ["Embedding", "embedding_loss", "gaussian_affinity"]

Form = Literal["cross-entropy", "squared"]


@full_precision
def embedding_loss(labels_nk: Tensor, outputs_mk: Tensor, affinity_nm: Tensor, *, form: Form = "squared") -> Tensor:
    """Return how far outputs are from the labels of rows that are near.

    Parameters
    ----------
    labels_nk : Tensor of shape (n, k)
        Numbers, or for the cross-entropy probabilities.
    outputs_mk : Tensor of shape (m, k)
        Numbers, or for the cross-entropy logits. Half precision is computed in float32.
    affinity_nm : Tensor of shape (n, m)
        How near each labelled row is to each row that receives.
    form : {"squared", "cross-entropy"}
        Squared distance, or nats.

    Returns
    -------
    Tensor of shape ()
        At least 0 where no affinity is negative.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Examples
    --------
    >>> labels, outputs = torch.tensor([[1.0], [0.0]]), torch.tensor([[3.0]])
    >>> embedding_loss(labels, outputs, torch.tensor([[1.0], [2.0]]))          # (1 * 4 + 2 * 9) / 2
    tensor(11.)
    """
    check_matrix("embedding_loss", "labels", labels_nk)
    check_matrix("embedding_loss", "outputs", outputs_mk)
    fitting = (labels_nk.shape[0], outputs_mk.shape[0])
    if tuple(affinity_nm.shape) != fitting or labels_nk.shape[1] != outputs_mk.shape[1]:
        raise ShapeError(
            f"embedding_loss: labels (n, k), outputs (m, k) and affinity (n, m) must fit; got {tuple(labels_nk.shape)}, "
            f"{tuple(outputs_mk.shape)} and {tuple(affinity_nm.shape)}."
        )
    outputs_mk = widen(outputs_mk)
    labels_nk, affinity_nm = labels_nk.to(outputs_mk.dtype), affinity_nm.to(outputs_mk.dtype)
    if form == "squared":
        cost_nm = (labels_nk[:, None] - outputs_mk[None]).square().sum(2)
    else:
        cost_nm = -labels_nk @ functional.log_softmax(outputs_mk, dim=1).T
    return (affinity_nm * cost_nm).sum() / len(labels_nk)


@full_precision
def gaussian_affinity(source_nd: Tensor, target_md: Tensor, *, bandwidth: float = 1.0) -> Tensor:
    """Return how near each source row is to each target row, Gaussian in their distance; every row sums to 1.

    Parameters
    ----------
    source_nd, target_md : Tensor of shapes (n, d), (m, d)
        Features. Half precision is computed in float32.
    bandwidth : float, above 0
        s, in units of the root mean square distance between the rows.

    Returns
    -------
    Tensor of shape (n, m)
        At least 0.

    Raises
    ------
    ShapeError
        If an input is not a matrix, or the widths differ.

    Examples
    --------
    >>> gaussian_affinity(torch.zeros(1, 1), torch.tensor([[1.0], [-1.0]]))    # equally near
    tensor([[0.5000, 0.5000]])
    """
    check_same_width("gaussian_affinity", source_nd, target_md)
    source_nd, target_md = widen(source_nd), widen(target_md)
    squared_nm = (source_nd[:, None] - target_md[None]).square().sum(2)
    scale = squared_nm.mean().clamp_min(torch.finfo(squared_nm.dtype).tiny)
    return functional.softmax(-squared_nm / (2 * bandwidth**2 * scale), dim=1)


class Embedding(Objective):
    """`embedding_loss` of the target rows' outputs against the labels of source rows near them.

    Without a second stream the rows of the batch are each other's neighbours. Nearness is taken as given: no gradient flows
    through it.

    Parameters
    ----------
    form : {"cross-entropy", "squared"}
        For class numbers and soft labels either (squared compares with the softmax); for numbers the squared one.
    bandwidth : float, above 0
        Width of the Gaussian, in units of the root mean square distance between the rows.
    head : str
        Name of the head whose outputs are meant.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If a choice is unknown, or the bandwidth is not above 0.

    Examples
    --------
    >>> source = Batch(labels=torch.tensor([0]), features=torch.zeros(1, 1))
    >>> target = Batch(features=torch.ones(2, 1), logits=torch.zeros(2, 2))
    >>> Embedding()(source, target)                                # log 2
    tensor(0.6931)
    """

    needs = frozenset({"labels", "features", "logits"})

    def __init__(
        self, form: Form = "cross-entropy", bandwidth: float = 0.5, head: str = "main", weight: float = 1.0
    ) -> None:
        super().__init__()
        check_choice("Embedding", "form", form, ("cross-entropy", "squared"))
        check_positive("Embedding", "bandwidth", bandwidth)
        self.form, self.bandwidth, self.head, self.weight = form, bandwidth, head, weight
        self.reads_classes = form == "cross-entropy"

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the distance from the neighbours' labels."""
        receiving = source if target is None else target
        labels, outputs_mk = self.take(source, "labels"), widen(self.take_logits(receiving, self.head))
        numbers = labels.ndim == 1 and labels.is_floating_point()
        if numbers:
            labels_nk = labels[:, None]
        elif labels.ndim == 1:
            labels_nk = functional.one_hot(labels, outputs_mk.shape[1])
        else:
            labels_nk = labels
        if self.form == "squared" and not numbers:
            outputs_mk = functional.softmax(outputs_mk, dim=1)
        affinity_nm = gaussian_affinity(
            self.take(source, "features").detach(), self.take(receiving, "features").detach(), bandwidth=self.bandwidth
        )
        return self.weight * embedding_loss(labels_nk, outputs_mk, affinity_nm, form=self.form)
