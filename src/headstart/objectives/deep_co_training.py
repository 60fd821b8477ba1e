"""Deep co-training: two heads label target rows for each other, and are kept from looking at the same features.

    labels = 1/2b sum_i ( 1[max p_i >= t] CE(q_i, argmax p_i) + 1[max q_i >= t] CE(p_i, argmax q_i) )    p, q: the heads' answers
    views  = sum_d ||W_.d||^2 ||V_.d||^2                       W, V: weights of the heads' first layers, column d reads feature d
    co-training = labels + difference * views

Source: Blum & Mitchell, "Combining labeled and unlabeled data with co-training", COLT 1998, for the exchange; Chen, Weinberger &
Blitzer, "Co-Training for Domain Adaptation", NeurIPS 2011, for the views: no feature may serve both heads (their u_d^2 v_d^2 = 0,
here for several classes and as a penalty). Threshold and weight are of the order with which Saito, Ushiku & Harada, "Asymmetric
Tri-training for Unsupervised Domain Adaptation", ICML 2017 (arXiv:1702.08400) keep two heads apart by |W'V|. Adversarial examples
(Qiao et al., "Deep Co-Training", ECCV 2018, arXiv:1803.05984) are another way to the same end, not taken here: they need both
heads' gradients at the input.
Use it with two heads that start apart, each with the loss of labelled rows; answers are the first head's.
It ignores rows that neither head is sure of, and errors both make.
Shapes: b rows, d features, k classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from headstart.core.errors import ConfigError, ShapeError
from headstart.objectives.fixmatch import check_share, confident_loss
from headstart.objectives.objective import Batch, Objective, Setup
from headstart.objectives.precision import widen

__all__ = ["DeepCoTraining", "exchanged_labels", "shared_features"]


def exchanged_labels(first_bk: Tensor, second_bk: Tensor, *, threshold: float = 0.9) -> Tensor:
    """Return the mean of both heads' cross-entropy with the other's sure answers as labels.

    Parameters
    ----------
    first_bk, second_bk : Tensor of shape (b, k)
        Logits of two heads. Half precision is computed in float32.
    threshold : float in [0, 1]
        Probability from which an answer is a label.

    Returns
    -------
    Tensor of shape ()
        Nats, over all rows; at least 0.

    Raises
    ------
    ShapeError
        If the shapes differ or are no matrices.

    Examples
    --------
    >>> import torch
    >>> exchanged_labels(torch.tensor([[200.0, 0.0]]), torch.zeros(1, 2))      # the first teaches the second: log 2 / 2
    tensor(0.3466)
    """
    return (confident_loss(first_bk, second_bk, threshold) + confident_loss(second_bk, first_bk, threshold)) / 2


def shared_features(first_kd: Tensor, second_kd: Tensor) -> Tensor:
    """Return how far two layers read the same features.

    Parameters
    ----------
    first_kd, second_kd : Tensor of shape (k, d) and (any, d)
        Weights of two linear layers on the same features.

    Returns
    -------
    Tensor of shape ()
        0 where every feature is read by one layer at most. Unit: weights to the fourth power.

    Raises
    ------
    ShapeError
        If the layers read different numbers of features.

    Examples
    --------
    >>> import torch
    >>> shared_features(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item()
    0.0
    >>> shared_features(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 1.0]])).item()          # 2^2 3^2
    36.0
    """
    if first_kd.ndim != 2 or second_kd.ndim != 2 or first_kd.shape[1] != second_kd.shape[1]:
        raise ShapeError(
            f"shared_features: both layers must read the same features; got weights of {tuple(first_kd.shape)} and "
            f"{tuple(second_kd.shape)}."
        )
    return (widen(first_kd).square().sum(0) * widen(second_kd).square().sum(0)).sum()


class DeepCoTraining(Objective):
    """`exchanged_labels` of two heads on target rows, and `shared_features` of their first layers.

    Parameters
    ----------
    first, second : str
        Names of the heads; each begins with a linear layer on the features.
    threshold : float in [0, 1]
        Probability from which an answer is a label.
    difference : float, at least 0
        Multiplies what keeps the views apart.
    weight : float
        Multiplies the sum.

    Raises
    ------
    ConfigError
        If an argument breaks its rule, a head is missing, or one does not begin with a linear layer.

    Examples
    --------
    >>> import torch
    >>> network = nn.Module()
    >>> network.heads = nn.ModuleDict({"main": nn.Linear(1, 2), "second": nn.Linear(1, 2)})
    >>> objective = DeepCoTraining(difference=0.0)
    >>> objective.prepare(Setup(network, task=None))
    >>> objective(Batch(), Batch(head_logits={"main": torch.tensor([[200.0, 0.0]]), "second": torch.zeros(1, 2)}))
    tensor(0.3466, grad_fn=<MulBackward0>)
    """

    needs = frozenset({"logits"})
    reads_classes = True

    def __init__(
        self,
        first: str = "main",
        second: str = "second",
        threshold: float = 0.9,
        difference: float = 0.01,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if first == second:
            raise ConfigError(f"DeepCoTraining: needs two different heads; got {first!r} twice.")
        check_share("DeepCoTraining", "threshold", threshold)
        if not difference >= 0:
            raise ConfigError(f"DeepCoTraining: difference is at least 0; got {difference}.")
        self.first, self.second, self.threshold, self.difference = first, second, threshold, difference
        self.weight = weight
        self._layers: list[nn.Linear] = []  # in a list: their parameters are the network's, not ours

    def prepare(self, setup: Setup) -> None:
        """Find the heads' first layers."""
        self._layers = [_first_linear(setup.heads().get(name), name) for name in (self.first, self.second)]

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the exchange on target rows and the penalty."""
        if not self._layers:
            raise ConfigError("DeepCoTraining: does not know the heads; call prepare before the first step.")
        (batch,) = self.chosen("target", source, target)
        first_bk, second_bk = self.take_logits(batch, self.first), self.take_logits(batch, self.second)
        labels = exchanged_labels(first_bk, second_bk, threshold=self.threshold)
        return self.weight * (labels + self.difference * shared_features(*(layer.weight for layer in self._layers)))


def _first_linear(head: nn.Module | None, name: str) -> nn.Linear:
    """Return the linear layer that reads the features, or refuse in words."""
    leaves = [] if head is None else [module for module in head.modules() if not list(module.children())]
    acting = [leaf for leaf in leaves if not isinstance(leaf, nn.Flatten | nn.Dropout | nn.Identity)]
    if not acting or not isinstance(acting[0], nn.Linear):
        raise ConfigError(
            f"DeepCoTraining: needs a head {name!r} that begins with a linear layer on the features; choose a linear head, or "
            "layers in words."
        )
    return acting[0]
