"""Open-set adaptation: one more class for rows unlike any source class, and features that make target rows take a side.

    r(f) = u(f) - log sum_c exp(z_c(f))                               log odds of the unknown class beside the k known ones
    L = mean over source of log(1 + exp(r)) + mean over target of -t log s(r) - (1 - t) log(1 - s(r))
    at target rows the features' gradient is turned round               s(r) = 1 / (1 + exp(-r)), t = 1/2

Source: Saito, Yamamoto, Ushiku & Harada, "Open Set Domain Adaptation by Backpropagation", ECCV 2018 (arXiv:1804.10427), section
3, with the sign of L_adv turned so that it is the cross-entropy the text describes. The cross-entropy of source rows over
k + 1 classes is that over k, which stands beside this term, and the first mean here; so ``ce + osbp`` is the paper's sum.
Use it where target rows may belong to no source class. The output u, linear in the features, is the objective's own;
`unknown_logits` gives it for any features, and a row is unknown where it is above all of the head's logits. A model that is made
of the network takes it over (`unknown_layer`, `headstart.heads.OpenSetHead`).
It ignores how many unknown classes there are, and takes them for one. With no unknown rows it gives some away all the same.
Shapes: n source rows, m target rows, b rows in all, d features, k known classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core.checks import check_same_rows
from headstart.core.errors import ConfigError
from headstart.core.seeds import derive_seed
from headstart.objectives.critic import device_of, num_classes, reverse_gradient
from headstart.objectives.objective import Batch, Objective, Setup
from headstart.objectives.precision import full_precision, widen

__all__ = ["OSBP", "unknown_loss", "unknown_odds"]


@full_precision
def unknown_odds(logits_bk: Tensor, unknown_b: Tensor) -> Tensor:
    """Return the log odds of the unknown class beside the known ones.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Of the known classes. Half precision is computed in float32.
    unknown_b : Tensor of shape (b,)
        The unknown class's logit.

    Returns
    -------
    Tensor of shape (b,)
        Their sigmoid is the probability of the last of k + 1 classes.

    Raises
    ------
    ShapeError
        If the numbers of rows differ.

    Examples
    --------
    >>> unknown_odds(torch.zeros(1, 3), torch.zeros(1)).sigmoid()                # one of four equal classes
    tensor([0.2500])
    """
    check_same_rows("unknown_odds", "logits", logits_bk, "unknown", unknown_b)
    return widen(unknown_b) - widen(logits_bk).logsumexp(1)


@full_precision
def unknown_loss(odds_b: Tensor, share: float) -> Tensor:
    """Return the cross-entropy from a share of unknown rows to what the odds say of each row.

    Parameters
    ----------
    odds_b : Tensor of shape (b,)
        Log odds of the unknown class. Half precision is computed in float32.
    share : float in [0, 1]
        0 for rows that are known, which is the case of source rows.

    Returns
    -------
    Tensor of shape ()
        Nats a row.

    Examples
    --------
    >>> unknown_loss(torch.zeros(1), 0.25), unknown_loss(torch.tensor([100.0]), 0.25)          # log 2; 0.75 * 100
    (tensor(0.6931), tensor(75.))
    """
    odds_b = widen(odds_b)
    return (share * functional.softplus(-odds_b) + (1 - share) * functional.softplus(odds_b)).mean()


class OSBP(Objective):
    """`unknown_loss` of both domains; at target rows the features learn against the classifiers.

    Parameters
    ----------
    boundary : float in (0, 1)
        Probability of the unknown class that the classifiers give target rows, and that the features move away from.
    strength : float, at least 0
        Of the reversal.
    head : str
        Name of the classifier of the known classes.
    seed : int
        Of the unknown class's first weights.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If an argument breaks its rule, the task has no classes, or there is no such head.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> network = nn.Module()
    >>> network.segments, network.heads = nn.ModuleList(), nn.ModuleDict({"main": nn.Linear(5, 2)})
    >>> objective = OSBP()
    >>> objective.prepare(Setup(network, Task("classification", ("a", "b")), width=5))
    >>> objective.unknown_logits(torch.ones(3, 5)).shape
    torch.Size([3])
    """

    needs = frozenset({"features", "logits"})
    reads_classes = True

    def __init__(
        self, boundary: float = 0.5, strength: float = 1.0, head: str = "main", seed: int = 0, weight: float = 1.0
    ) -> None:
        super().__init__()
        if not 0 < boundary < 1:
            raise ConfigError(f"OSBP: boundary lies between 0 and 1; got {boundary}.")
        if not strength >= 0:
            raise ConfigError(f"OSBP: strength is at least 0; got {strength}.")
        self.boundary, self.strength, self.head, self.seed, self.weight = boundary, strength, head, seed, weight
        self._classifier: list[nn.Module] = []  # in a list: its parameters are the network's, not ours

    def prepare(self, setup: Setup) -> None:
        """Find the classifier and make the unknown class's output."""
        num_classes("OSBP", setup)
        head = setup.heads().get(self.head)
        if head is None:
            raise ConfigError(f"OSBP: the network has no head {self.head!r}; it has {', '.join(setup.heads())}.")
        self._classifier = [head]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "unknown class"))
            self.unknown = nn.Linear(setup.known_width("OSBP"), 1)
        self.unknown.to(device_of(setup))

    def unknown_layer(self) -> nn.Linear | None:
        """Return the unknown class's output, which belongs to the head ``"main"``; None for another head's."""
        return self.unknown if self.head == "main" and self._classifier else None

    @full_precision
    def unknown_logits(self, features_bd: Tensor) -> Tensor:
        """Return the unknown class's logit (b,) for features (b, d); it stands beside those of the head as one class more."""
        logits_b: Tensor = self.unknown(features_bd.to(self.unknown.weight.dtype))[:, 0]
        return logits_b

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the losses of both domains."""
        (other,) = self.chosen("target", source, target)
        if not self._classifier:
            raise ConfigError("OSBP: does not know the classifier; call prepare before the first step.")
        source_nd, logits_nk = self.take(source, "features"), self.take_logits(source, self.head)
        turned_md = reverse_gradient(self.take(other, "features"), self.strength)
        known = unknown_loss(unknown_odds(logits_nk, self.unknown_logits(source_nd)), 0.0)
        return self.weight * (known + unknown_loss(self._odds(turned_md), self.boundary))

    @full_precision
    def _odds(self, features_bd: Tensor) -> Tensor:
        """Run the head once more, on features whose gradient is turned round while its own parameters' is not."""
        parameter = next(self._classifier[0].parameters(), None)
        dtype = torch.float32 if parameter is None else parameter.dtype
        logits_bk: Tensor = self._classifier[0](features_bd.to(dtype))
        return unknown_odds(logits_bk, self.unknown_logits(features_bd))
