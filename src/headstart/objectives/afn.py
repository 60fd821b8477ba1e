"""Adaptive feature norm (AFN): the features of both domains become long, and equally so.

    stepwise   mean_i ( |x_i|_0 + r - |x_i| )^2 + the same of y           |x|_0: the length now, a constant; r: the step
    hard       ( mean_i |x_i| - R )^2 + the same of y                     R: one length for all

Source: Xu et al., "Larger norm more transferable: an adaptive feature norm approach for unsupervised domain adaptation", ICCV
2019 (arXiv:1811.07456), with r = 1, R = 25 and a weight of 0.05. The stepwise value is 2 r^2 whatever the features:
only its gradient works, which makes every row longer at the same rate.
Use it against target features that are short, so that the classifier is unsure of them; it goes with any other term.
It ignores what the features say. Weight decay holds against it.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from headstart.core.checks import check_matrix
from headstart.objectives.layers import both_domains, check_layer, layer_needs
from headstart.objectives.objective import Batch, Objective, check_choice, check_positive
from headstart.objectives.precision import widen

__all__ = ["AFN", "hard_feature_norm", "stepwise_feature_norm"]

Form = Literal["stepwise", "hard"]


def stepwise_feature_norm(features_nd: Tensor, *, step: float = 1.0) -> Tensor:
    """Return the mean squared gap between rows' lengths and a step more than they are.

    Parameters
    ----------
    features_nd : Tensor of shape (n, d)
        Features. Half precision is computed in float32.
    step : float, above 0
        How much longer each row is to be.

    Returns
    -------
    Tensor of shape ()
        The squared step; its gradient at each row is ``-2 step x / (n |x|)``.

    Raises
    ------
    ShapeError
        If the features are no matrix.

    Examples
    --------
    >>> features = torch.tensor([[3.0, 4.0]], requires_grad=True)
    >>> stepwise_feature_norm(features).backward()
    >>> features.grad                                                # -2 (3, 4) / 5
    tensor([[-1.2000, -1.6000]])
    """
    check_matrix("stepwise_feature_norm", "features", features_nd)
    lengths_n = torch.linalg.vector_norm(widen(features_nd), dim=1)
    gap_n: Tensor = lengths_n.detach() + step - lengths_n
    return gap_n.square().mean()


def hard_feature_norm(features_nd: Tensor, *, radius: float = 25.0) -> Tensor:
    """Return the squared gap between the rows' mean length and one length.

    Parameters
    ----------
    features_nd : Tensor of shape (n, d)
        Features. Half precision is computed in float32.
    radius : float, above 0
        R.

    Returns
    -------
    Tensor of shape ()
        At least 0; the squared unit of the features.

    Raises
    ------
    ShapeError
        If the features are no matrix.

    Examples
    --------
    >>> hard_feature_norm(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), radius=4.0)       # (3 - 4)^2
    tensor(1.)
    """
    check_matrix("hard_feature_norm", "features", features_nd)
    lengths_n: Tensor = torch.linalg.vector_norm(widen(features_nd), dim=1)
    return (lengths_n.mean() - radius).square()


class AFN(Objective):
    """The feature norm of both domains' rows, as a loss term.

    Parameters
    ----------
    form : {"stepwise", "hard"}
        A step more than now, or one length for all.
    step : float, above 0
        r of the stepwise form.
    radius : float, above 0
        R of the hard form.
    layer : str
        ``"features"``, ``"logits"``, ``"probabilities"`` or ``"segments.NAME"``.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.

    Examples
    --------
    >>> source, target = Batch(features=torch.tensor([[3.0, 4.0]])), Batch(features=torch.tensor([[0.0, 1.0]]))
    >>> AFN("hard", radius=4.0, weight=1.0)(source, target)                        # (5 - 4)^2 + (1 - 4)^2
    tensor(10.)
    """

    needs = frozenset({"features"})

    def __init__(
        self,
        form: Form = "stepwise",
        step: float = 1.0,
        radius: float = 25.0,
        layer: str = "features",
        weight: float = 0.05,
    ) -> None:
        super().__init__()
        check_choice("AFN", "form", form, ("stepwise", "hard"))
        check_positive("AFN", "step", step)
        check_positive("AFN", "radius", radius)
        check_layer("AFN", layer)
        self.form, self.step, self.radius, self.layer, self.weight = form, step, radius, layer, weight
        self.needs = layer_needs([layer])

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the sum over both domains."""
        rows = both_domains(self, self.layer, source, target)
        if self.form == "hard":
            first, second = (hard_feature_norm(each, radius=self.radius) for each in rows)
        else:
            first, second = (stepwise_feature_norm(each, step=self.step) for each in rows)
        return self.weight * (first + second)
