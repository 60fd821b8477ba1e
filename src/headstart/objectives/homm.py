"""HoMM: source and target agree in moments of a higher order, all of them or some that are drawn.

    L      = 1/d^p || mean_i x_i^(p) - mean_j y_j^(p) ||^2         x^(p): outer product of x with itself, p times, d^p entries
           = 1/d^p ( mean_ij (x_i'x_j)^p + mean_ij (y_i'y_j)^p - 2 mean_ij (x_i'y_j)^p )
    drawn  = 1/r sum over r tuples (c_1 .. c_p) of ( mean_i prod_l x_i,c_l - mean_j prod_l y_j,c_l )^2
    kernel = MMD^2 under exp(-g || x^(p) - y^(p) ||^2),            || x^(p) - y^(p) ||^2 = (x'x)^p + (y'y)^p - 2 (x'y)^p

Source: Chen et al., "HoMM: higher-order moment matching for unsupervised domain adaptation", AAAI 2020 (arXiv:1912.11976). The
second line is ours: the whole tensor is never made, so that moments need not be drawn. Each domain is centred by its own mean, as
in the authors' code; the paper's formula is not (``centred=False``). p = 1 without centring is MMD with a linear kernel, p = 2
with it is CORAL but for constants.
Use it where means and covariances agree and classes still do not; p = 3 or 4.
It ignores classes. Moments grow with the power p of the features: features should be of about unit size.
Shapes: n source rows, m target rows, d features, r tuples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.core.checks import check_same_width
from headstart.core.errors import ConfigError
from headstart.core.seeds import generator
from headstart.objectives.layers import StepDraws, both_domains, check_layer, layer_needs
from headstart.objectives.objective import Batch
from headstart.objectives.precision import widen

__all__ = ["HoMM", "moment_distance", "moment_kernel_distance", "sampled_moment_distance"]


def moment_distance(source_nd: Tensor, target_md: Tensor, *, order: int = 3, centred: bool = True) -> Tensor:
    """Return the mean squared difference of all mixed moments of one order.

    Parameters
    ----------
    source_nd, target_md : Tensor of shape (n, d) and (m, d)
        Features. Inner products are computed in float64.
    order : int, at least 1
        p.
    centred : bool
        Whether each domain's own mean is taken away first.

    Returns
    -------
    Tensor of shape ()
        At least 0. Unit: feature unit to the power 2 p.

    Raises
    ------
    ShapeError
        If an input is no matrix, or the widths differ.

    Examples
    --------
    >>> source, target = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    >>> moment_distance(source, target, order=3, centred=False)        # 1^2 and 8^2 differ from 0, of 2^3 moments
    tensor(8.1250)
    """
    source, target, dtype = _prepared("moment_distance", source_nd, target_md, centred)
    sums = [(first @ second.T).pow(order).mean() for first, second in _pairs(source, target)]
    width = source.shape[1]
    gap: Tensor = (sums[0] + sums[1] - 2 * sums[2]) / width**order
    return gap.clamp_min(0).to(dtype)


def moment_kernel_distance(
    source_nd: Tensor, target_md: Tensor, *, gamma: float, order: int = 3, centred: bool = True
) -> Tensor:
    """Return the squared maximum mean discrepancy under a Gaussian kernel between rows' moment tensors.

    Parameters
    ----------
    source_nd, target_md : Tensor of shape (n, d) and (m, d)
        Features. Computed in float64.
    gamma : float, above 0
        Multiplies the squared distance of two tensors; its inverse has the feature unit to the power 2 p.
    order : int, at least 1
        p.
    centred : bool
        Whether each domain's own mean is taken away first.

    Returns
    -------
    Tensor of shape ()
        At least 0, below 2. No unit.

    Raises
    ------
    ShapeError
        If an input is no matrix, or the widths differ.

    Examples
    --------
    >>> source, target = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    >>> moment_kernel_distance(source, target, gamma=0.1, order=1, centred=False)       # 2 - 2 exp(-0.1 * 5)
    tensor(0.7869)
    """
    source, target, dtype = _prepared("moment_kernel_distance", source_nd, target_md, centred)
    means = []
    for first, second in _pairs(source, target):
        lengths_i, lengths_j = (rows.square().sum(1).pow(order) for rows in (first, second))
        squared_ij = lengths_i[:, None] + lengths_j[None] - 2 * (first @ second.T).pow(order)
        means.append(torch.exp(-gamma * squared_ij).mean())
    return (means[0] + means[1] - 2 * means[2]).clamp_min(0).to(dtype)


def sampled_moment_distance(
    source_nd: Tensor, target_md: Tensor, *, num_moments: int, order: int = 3, centred: bool = True, seed: int = 0
) -> Tensor:
    """Return the mean squared difference of mixed moments drawn at random.

    Parameters
    ----------
    source_nd, target_md : Tensor of shape (n, d) and (m, d)
        Features. Half precision is computed in float32.
    num_moments : int, at least 1
        r: how many tuples of p features are drawn, each feature from all d.
    order : int, at least 1
        p.
    centred : bool
        Whether each domain's own mean is taken away first.
    seed : int
        Of the draw.

    Returns
    -------
    Tensor of shape ()
        At least 0; `moment_distance` on average over the draws. Unit: feature unit to the power 2 p.

    Raises
    ------
    ShapeError
        If an input is no matrix, or the widths differ.

    Examples
    --------
    >>> source, target = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    >>> sampled_moment_distance(source, target, num_moments=5, order=3, centred=False)     # one feature: (1 - 8)^2
    tensor(49.)
    """
    check_same_width("sampled_moment_distance", source_nd, target_md)
    drawn_rp = generator(seed, "moments").integers(source_nd.shape[1], size=(num_moments, order))
    places_rp = torch.from_numpy(drawn_rp).to(source_nd.device)
    means = []
    for rows in (widen(source_nd), widen(target_md)):
        centre_d = rows.mean(0) if centred else torch.zeros_like(rows[0])
        means.append((rows - centre_d)[:, places_rp].prod(2).mean(0))
    return (means[0] - means[1]).square().mean()


class HoMM(StepDraws):
    """Difference of higher moments of a layer, as a loss term.

    Parameters
    ----------
    order : int, at least 1
        p of the moments.
    num_moments : int, at least 0
        How many are drawn, anew in every step; 0: all of them, exactly.
    gamma : float, at least 0
        Above 0: moments are compared under a Gaussian kernel of this width (the paper's 1e-4, its code's 1e-5).
    centred : bool
        Whether each domain's own mean is taken away first.
    layer : str
        ``"features"``, ``"logits"``, ``"probabilities"`` or ``"segments.NAME"``.
    seed : int
        Of the draws.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If an argument breaks its rule, or moments are drawn and compared under a kernel at once.

    Examples
    --------
    >>> source, target = Batch(features=torch.tensor([[1.0, 0.0]])), Batch(features=torch.tensor([[0.0, 2.0]]))
    >>> HoMM(centred=False)(source, target)
    tensor(8.1250)
    """

    needs = frozenset({"features"})

    def __init__(
        self,
        order: int = 3,
        num_moments: int = 0,
        gamma: float = 0.0,
        centred: bool = True,
        layer: str = "features",
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_layer("HoMM", layer)
        if order < 1 or num_moments < 0 or not gamma >= 0:
            raise ConfigError(
                f"HoMM: order is at least 1, num_moments and gamma at least 0; got {order}, {num_moments} and {gamma}."
            )
        if num_moments and gamma:
            raise ConfigError("HoMM: under a kernel all moments are compared; leave num_moments or gamma at 0.")
        self.order, self.num_moments, self.gamma, self.centred = order, num_moments, gamma, centred
        self.layer, self.seed, self.weight = layer, seed, weight
        self.needs = layer_needs([layer])

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the difference of the moments."""
        source_nd, target_md = both_domains(self, self.layer, source, target)
        if self.num_moments:
            value = sampled_moment_distance(
                source_nd,
                target_md,
                num_moments=self.num_moments,
                order=self.order,
                centred=self.centred,
                seed=self.step_seed(),
            )
        elif self.gamma:
            value = moment_kernel_distance(
                source_nd, target_md, gamma=self.gamma, order=self.order, centred=self.centred
            )
        else:
            value = moment_distance(source_nd, target_md, order=self.order, centred=self.centred)
        return self.weight * value


def _pairs(source: Tensor, target: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    return (source, source), (target, target), (source, target)


def _prepared(who: str, source_nd: Tensor, target_md: Tensor, centred: bool) -> tuple[Tensor, Tensor, torch.dtype]:
    """Return both domains in float64, and the type of the answer: sums of powers nearly cancel."""
    check_same_width(who, source_nd, target_md)
    dtype = torch.promote_types(source_nd.dtype, torch.float32)
    source, target = source_nd.double(), target_md.double()
    if centred:
        source, target = source - source.mean(0), target - target.mean(0)
    return source, target, dtype
