"""Deep JDOT: each target row learns from the source row it is carried to, near in features and right in its class.

    L = sum_ij P_ij C_ij,      C_ij = a |x_i - z_j|^2 + b CE(y_i, f(z_j))        P: the plan of least cost, held constant
    CE(y, f) = - sum_c y_c log softmax(f)_c

Source: Damodaran et al., "DeepJDOT: deep joint distribution optimal transport for unsupervised domain adaptation", ECCV 2018
(arXiv:1803.10081), with a = 0.001 and b = 0.0001. The plan is of the very cost that is made smaller, as in the paper; its
authors' code finds it under the squared distance of label and softmax instead.
Use it with large batches in which source classes are balanced: a batch's classes are matched as if their shares were equal.
It ignores that class shares differ: the plan carries all of the one batch onto all of the other.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_same_rows, check_same_width
from headstart.core.errors import ConfigError, ShapeError
from headstart.distances.wasserstein import optimal_plan
from headstart.objectives.dsan import class_shares
from headstart.objectives.layers import both_domains, check_layer, layer_needs, or_not_a_number
from headstart.objectives.objective import Batch, Objective
from headstart.objectives.precision import full_precision, widen

__all__ = ["DeepJDOT", "joint_transport_costs", "least_cost_plan"]


@full_precision
def joint_transport_costs(
    source_nd: Tensor,
    target_md: Tensor,
    labels_nk: Tensor,
    logits_mk: Tensor,
    *,
    feature_cost: float = 0.001,
    label_cost: float = 0.0001,
) -> Tensor:
    """Return what it costs to take each target row for each source row.

    Parameters
    ----------
    source_nd, target_md : Tensor of shape (n, d) and (m, d)
        Features. Half precision is computed in float32.
    labels_nk : Tensor of shape (n, k)
        How much of each class a source row is.
    logits_mk : Tensor of shape (m, k)
        The network's outputs on target rows.
    feature_cost, label_cost : float, at least 0
        a, of a squared distance of features, and b, of a nat.

    Returns
    -------
    Tensor of shape (n, m)
        At least 0.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Examples
    --------
    >>> source, target = torch.tensor([[0.0]]), torch.tensor([[2.0]])
    >>> joint_transport_costs(
    ...     source, target, torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2), feature_cost=1.0, label_cost=10.0
    ... )                                                                        # 4 + 10 log 2
    tensor([[10.9315]])
    """
    check_same_width("joint_transport_costs", source_nd, target_md)
    check_same_rows("joint_transport_costs", "source", source_nd, "labels", labels_nk)
    check_same_rows("joint_transport_costs", "target", target_md, "logits", logits_mk)
    if labels_nk.shape[1:] != logits_mk.shape[1:]:
        raise ShapeError(
            f"joint_transport_costs: labels and logits are over the same classes; got {tuple(labels_nk.shape)} and "
            f"{tuple(logits_mk.shape)}."
        )
    source_nd, target_md, logits_mk = widen(source_nd), widen(target_md), widen(logits_mk)
    both = source_nd.square().sum(1)[:, None] + target_md.square().sum(1)[None]
    squared_nm = (both - 2 * source_nd @ target_md.T).clamp_min(0)
    surprise_nm = -labels_nk.to(logits_mk.dtype) @ functional.log_softmax(logits_mk, dim=1).T
    return feature_cost * squared_nm + label_cost * surprise_nm


def least_cost_plan(costs_nm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the plan of least cost between rows of equal weight: exact, an assignment where both sides have as many rows.

    Parameters
    ----------
    costs_nm : float64 array of shape (n, m)
        What it costs to carry each row to each other one.

    Returns
    -------
    float64 array of shape (n, m)
        Rows sum to 1 / n, columns to 1 / m.

    Raises
    ------
    MissingExtra
        If the numbers of rows differ and POT (extra ``ot``) is not installed.

    Examples
    --------
    >>> least_cost_plan(np.array([[5.0, 1.0], [1.0, 5.0]])).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    num_source, num_target = costs_nm.shape
    if num_source != num_target:
        return optimal_plan("DeepJDOT", costs_nm)
    plan_nm = np.zeros_like(costs_nm)
    plan_nm[linear_sum_assignment(costs_nm)] = 1 / num_source
    return plan_nm


class DeepJDOT(Objective):
    """The cost of carrying source onto target rows by the best plan, as a loss term.

    Parameters
    ----------
    feature_cost, label_cost : float, at least 0
        a, of a squared distance of features, and b, of a nat; not both 0.
    layer : str
        ``"features"``, ``"logits"``, ``"probabilities"`` or ``"segments.NAME"``.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.
    ShapeError
        If labels are numbers, and no classes.

    Examples
    --------
    >>> source = Batch(labels=torch.tensor([0, 1]), features=torch.tensor([[0.0], [5.0]]))
    >>> target = Batch(features=torch.tensor([[5.0], [1.0]]), logits=torch.zeros(2, 2))
    >>> DeepJDOT(feature_cost=1.0, label_cost=0.0)(source, target)              # (0 + 1^2) / 2
    tensor(0.5000)
    """

    needs = frozenset({"labels", "features", "logits"})
    reads_classes = True

    def __init__(
        self,
        feature_cost: float = 0.001,
        label_cost: float = 0.0001,
        layer: str = "features",
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_layer("DeepJDOT", layer)
        if not (feature_cost >= 0 and label_cost >= 0 and feature_cost + label_cost > 0):
            raise ConfigError(
                f"DeepJDOT: feature_cost and label_cost are at least 0, one of them above; got {feature_cost} and {label_cost}."
            )
        self.feature_cost, self.label_cost, self.layer, self.weight = feature_cost, label_cost, layer, weight
        self.needs = layer_needs([layer]) | {"labels", "logits"}

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the cost under the plan."""
        (other,) = self.chosen("target", source, target)
        source_nd, target_md = both_domains(self, self.layer, source, target)
        logits_mk = self.take_logits(other, "main")
        labels_nk = class_shares(self, self.take(source, "labels"), logits_mk.shape[1])
        costs_nm = joint_transport_costs(
            source_nd,
            target_md,
            labels_nk,
            logits_mk,
            feature_cost=self.feature_cost,
            label_cost=self.label_cost,
        )
        return self.weight * or_not_a_number(partial(_least_cost, costs_nm), costs_nm)


def _least_cost(costs_nm: Tensor) -> Tensor:
    plan_nm = torch.from_numpy(least_cost_plan(costs_nm.detach().double().cpu().numpy())).to(costs_nm)
    return (plan_nm * costs_nm).sum()
