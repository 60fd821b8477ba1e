"""Feature mapping: bring the network's features, or its answers, near those of the base model.

    loss = 1/b sum_i || m(f_i) - g_i ||^2           f of the network in training, g of the base model, m a learned linear map

Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015 (arXiv:1412.6550), the loss of the hint layer (equation 3),
without its factor 1/2; implementations in use take the mean over features too, which is this over e. Ba & Caruana, "Do Deep Nets
Really Need to be Deep?", NeurIPS 2014 (arXiv:1312.6184), for outputs.
Use it to hand over what lies below the answers. Where widths differ a linear map is learned along (its parameters are the
objective's own).
It ignores which directions of the features matter for the task.
Shapes: b rows, d features of the network, e features of the base model, k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core.errors import ConfigError
from headstart.core.seeds import derive_seed
from headstart.objectives.distillation import same_shape
from headstart.objectives.objective import Batch, Objective, Rows, check_choice
from headstart.objectives.precision import full_precision, widen

__all__ = ["FeatureMapping", "OutputMapping", "feature_mapping_loss", "seeded_linear"]


def feature_mapping_loss(features_be: Tensor, base_be: Tensor) -> Tensor:
    """Return the mean over rows of the squared distance between two rows of features.

    Parameters
    ----------
    features_be, base_be : Tensor of shape (b, e)
        Half precision is computed in float32.

    Returns
    -------
    Tensor of shape ()
        At least 0; the squared unit of the features.

    Raises
    ------
    ShapeError
        If the shapes differ or are no matrices.

    Examples
    --------
    >>> feature_mapping_loss(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.zeros(2, 2))     # (25 + 0) / 2
    tensor(12.5000)
    """
    features_be, base_be = same_shape("feature_mapping_loss", features_be, base_be)
    return (features_be - base_be).square().sum(1).mean()


class FeatureMapping(Objective):
    """`feature_mapping_loss` between the network's features and those of the base model.

    Parameters
    ----------
    width, base_width : int, optional
        Numbers of features of the network and of the base model. With both, a linear map from one to the other is learned; with
        neither, features are compared as they are.
    rows : {"source", "target", "both"}
        Of which stream.
    seed : int
        Of the map's first weights.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If only one width is given, or a choice is unknown.

    Examples
    --------
    >>> FeatureMapping()(Batch(features=torch.tensor([[3.0, 4.0]]), base_features=torch.zeros(1, 2)))
    tensor(25.)
    """

    needs = frozenset({"features", "base_features"})

    def __init__(
        self,
        width: int | None = None,
        base_width: int | None = None,
        rows: Rows = "source",
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("FeatureMapping", "rows", rows, ("source", "target", "both"))
        if (width is None) != (base_width is None):
            raise ConfigError("FeatureMapping: give both width and base_width, or neither.")
        self.width, self.base_width, self.rows, self.seed, self.weight = width, base_width, rows, seed, weight
        self.mapping = None if width is None or base_width is None else seeded_linear(width, base_width, seed)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the squared distance from the base model's features."""
        batches = self.chosen(self.rows, source, target)
        features_be = torch.cat([self.take(batch, "features") for batch in batches])
        base_be = torch.cat([self.take(batch, "base_features") for batch in batches])
        if self.mapping is not None:
            features_be = _mapped(features_be, self.mapping.weight)
        return self.weight * feature_mapping_loss(features_be, base_be.detach())


class OutputMapping(Objective):
    """`feature_mapping_loss` between two softmax outputs: the source-task head's and the base model's.

    Parameters
    ----------
    head : str
        Name of the head that answers for the source task.
    rows : {"source", "target", "both"}
        Of which stream.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If a choice is unknown.

    Examples
    --------
    >>> even, sure = torch.zeros(1, 2), torch.tensor([[100.0, 0.0]])
    >>> OutputMapping()(Batch(head_logits={"source": even}, base_logits=sure))      # 0.5^2 + 0.5^2
    tensor(0.5000)
    """

    needs = frozenset({"logits", "base_logits"})

    def __init__(self, head: str = "source", rows: Rows = "source", weight: float = 1.0) -> None:
        super().__init__()
        check_choice("OutputMapping", "rows", rows, ("source", "target", "both"))
        self.head, self.rows, self.weight = head, rows, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the squared distance between the two softmax outputs."""
        batches = self.chosen(self.rows, source, target)
        logits_bk = torch.cat([self.take_logits(batch, self.head) for batch in batches])
        base_bk = torch.cat([self.take(batch, "base_logits") for batch in batches]).detach()
        probability_bk = functional.softmax(widen(logits_bk), dim=1)
        return self.weight * feature_mapping_loss(probability_bk, functional.softmax(widen(base_bk), dim=1))


@full_precision
def _mapped(features_bd: Tensor, weight_ed: Tensor) -> Tensor:
    features_bd = widen(features_bd)
    return features_bd @ weight_ed.T.to(features_bd.dtype)


def seeded_linear(num_inputs: int, num_outputs: int, seed: int) -> nn.Linear:
    """Return a linear map without offset whose first weights depend on the seed alone.

    Examples
    --------
    >>> first, again = seeded_linear(3, 2, seed=0), seeded_linear(3, 2, seed=0)
    >>> bool((first.weight == again.weight).all())
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "linear map"))
        return nn.Linear(num_inputs, num_outputs, bias=False)
