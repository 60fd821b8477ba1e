"""Bi-tuning: beside the cross-entropy, rows of one class are pulled together, against the classifier and against each other.

    cce = - 1/b sum_i 1/|P_i| sum over k in P_i of log ( exp(w_yi . h_k / T) / sum over all keys of exp(w_yi . h / T) )
    ccl = - 1/b sum_i 1/|P_i| sum over k in P_i of log ( exp(z_i . z_k / T) / sum over all keys of exp(z_i . z / T) )

Source: Zhong, Wang, Kou, Wang & Long, "Bi-tuning of Pre-trained Representations", 2020 (arXiv:2011.06182), section 3: contrastive
cross-entropy and categorical contrastive learning. w are the classifier's rows, h features, z projections, all of length 1; h of
a row itself stands among the keys of cce, its z by the averaged network among those of ccl. Other keys come from a queue for each
class, filled by the averaged network; P_i are the keys of the row's own class. A published version (Transfer-Learning-Library)
cuts the gradient to w and starts with random keys; here, as in the formula, w learns, and queues start empty.
Use it to fine-tune models that were pretrained with or without labels. Its authors use T 0.07, 40 keys a class and an averaged
network that keeps 0.999 of itself at each step (the engine's averaging is set in its configuration).
Both losses are means over rows; of several processes each keeps the keys of all, so that losses and queues are those of one.
It ignores rows with several labels, and numbers.
Shapes: b rows, d features, e entries of a projection, k classes, q keys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.errors import ConfigError, ShapeError
from headstart.objectives.feature_mapping import seeded_linear
from headstart.objectives.objective import Batch, Objective, Setup, check_positive
from headstart.objectives.precision import full_precision, widen

__all__ = ["BiTuning", "contrastive_loss"]


@full_precision
def contrastive_loss(
    queries_bd: Tensor,
    own_bd: Tensor,
    keys_qd: Tensor,
    labels_b: Tensor,
    key_labels_q: Tensor,
    *,
    temperature: float = 0.07,
) -> Tensor:
    """Return how badly each query tells keys of its class from the others.

    Both of bi-tuning's losses: with classifier rows as queries it is the contrastive cross-entropy, with projections the
    categorical contrastive loss.

    Parameters
    ----------
    queries_bd : Tensor of shape (b, d)
        Of any length; scaled to length 1. Half precision is computed in float32.
    own_bd : Tensor of shape (b, d)
        Each row's own key, of its class and no other row's; scaled to length 1.
    keys_qd : Tensor of shape (q, d)
        Keys all rows share; q may be 0. Scaled to length 1.
    labels_b, key_labels_q : Tensor of shapes (b,), (q,)
        Class numbers.
    temperature : float, above 0
        Divides the products.

    Returns
    -------
    Tensor of shape ()
        Nats a row; at least 0.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Examples
    --------
    >>> query = own = torch.tensor([[1.0, 0.0]])
    >>> other = torch.tensor([[1.0, 0.0]])                                     # the same direction, another class
    >>> contrastive_loss(query, own, other, torch.tensor([0]), torch.tensor([1]))      # log 2
    tensor(0.6931)
    """
    check_matrix("contrastive_loss", "queries", queries_bd)
    check_same_rows("contrastive_loss", "queries", queries_bd, "labels", labels_b)
    check_same_rows("contrastive_loss", "keys", keys_qd, "key labels", key_labels_q)
    if own_bd.shape != queries_bd.shape or keys_qd.ndim != 2 or keys_qd.shape[1] != queries_bd.shape[1]:
        raise ShapeError(
            f"contrastive_loss: queries, own keys and keys must have one width; got {tuple(queries_bd.shape)}, "
            f"{tuple(own_bd.shape)} and {tuple(keys_qd.shape)}."
        )
    queries_bd, own_bd, keys_qd = (functional.normalize(widen(each), dim=1) for each in (queries_bd, own_bd, keys_qd))
    own_b1 = (queries_bd * own_bd).sum(1, keepdim=True)
    logits_bq = torch.cat([own_b1, queries_bd @ keys_qd.to(queries_bd.dtype).T], dim=1) / temperature
    positive_bq = torch.cat([torch.ones_like(own_b1, dtype=torch.bool), labels_b[:, None] == key_labels_q[None]], dim=1)
    log_bq = functional.log_softmax(logits_bq, dim=1)
    return -(log_bq.masked_fill(~positive_bq, 0.0).sum(1) / positive_bq.sum(1)).mean()


class BiTuning(Objective):
    """The sum of bi-tuning's two contrastive losses. Add it to the cross-entropy of the same head.

    The head must be one linear layer on the features. The projection is the objective's own parameter; its slow copy and the
    queues are buffers, filled in `after_step`.

    Parameters
    ----------
    temperature : float, above 0
        Divides the products.
    num_keys : int, at least 1
        Keys in the queue of each class.
    width : int, at least 1
        Entries of a projection.
    momentum : float in [0, 1]
        How much of itself the slow copy of the projection keeps at each step.
    head : str
        Name of the classifier.
    seed : int
        Of the projection's first weights.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.

    Examples
    --------
    >>> network = nn.Module()
    >>> network.segments, network.heads = nn.ModuleList(), nn.ModuleDict({"main": nn.Linear(2, 3)})
    >>> objective = BiTuning(width=4)
    >>> objective.prepare(Setup(network, task=None))
    >>> batch = Batch(labels=torch.tensor([0]), features=torch.ones(1, 2), teacher_features=torch.ones(1, 2))
    >>> round(abs(objective(batch).item()), 3)                                 # its own key is the only one yet
    0.0
    >>> objective.after_step()
    >>> objective.lengths_k.tolist()
    [1, 0, 0]
    """

    needs = frozenset({"labels", "features", "teacher_features"})
    reads_classes = True
    features_kqd: Tensor
    projections_kqe: Tensor
    lengths_k: Tensor
    next_k: Tensor
    slow_ed: Tensor

    def __init__(
        self,
        temperature: float = 0.07,
        num_keys: int = 40,
        width: int = 128,
        momentum: float = 0.999,
        head: str = "main",
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive("BiTuning", "temperature", temperature)
        check_positive("BiTuning", "num_keys", num_keys)
        check_positive("BiTuning", "width", width)
        if not 0 <= momentum <= 1:
            raise ConfigError(f"BiTuning: momentum lies between 0 and 1; got {momentum}.")
        self.temperature, self.num_keys, self.width, self.momentum = temperature, num_keys, width, momentum
        self.head, self.seed, self.weight = head, seed, weight
        self._classifier: list[nn.Linear] = []  # in a list: its parameters are the network's, not ours
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def prepare(self, setup: Setup) -> None:
        """Find the classifier, and make the projection and empty queues."""
        linear = _only_linear(setup.heads().get(self.head))
        if linear is None:
            raise ConfigError(
                f"BiTuning: needs a head {self.head!r} of one linear layer on the features; choose a linear head."
            )
        self._classifier, device = [linear], linear.weight.device
        num_classes, width = linear.out_features, linear.in_features
        self.projection = seeded_linear(width, self.width, self.seed).to(device)
        self.register_buffer("slow_ed", self.projection.weight.detach().clone())
        self.register_buffer("features_kqd", torch.zeros(num_classes, self.num_keys, width + 1, device=device))
        self.register_buffer("projections_kqe", torch.zeros(num_classes, self.num_keys, self.width, device=device))
        self.register_buffer("lengths_k", torch.zeros(num_classes, dtype=torch.int64, device=device))
        self.register_buffer("next_k", torch.zeros(num_classes, dtype=torch.int64, device=device))

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the sum of both losses; in training mode the keys wait for `after_step`."""
        if not self._classifier:
            raise ConfigError("BiTuning: does not know the classifier; call prepare before the first step.")
        labels_b = self.take(source, "labels")
        if labels_b.ndim != 1 or labels_b.is_floating_point():
            raise ShapeError("BiTuning: labels must be class numbers; leave out what mixes rows.")
        features_bd, teacher_bd = self.take(source, "features"), self.take(source, "teacher_features").detach()
        classifier = self._classifier[0]
        rows_kd = _with_offset(classifier.weight, classifier.bias)
        projected_be = _product(features_bd, self.projection.weight)
        slow_be = _product(teacher_bd, self.slow_ed)
        keys_qd, keys_qe, key_labels_q = self._keys()
        one = torch.ones_like(features_bd[:, 0])
        own_bd = _with_offset(features_bd, one)
        cce = contrastive_loss(rows_kd[labels_b], own_bd, keys_qd, labels_b, key_labels_q, temperature=self.temperature)
        ccl = contrastive_loss(projected_be, slow_be, keys_qe, labels_b, key_labels_q, temperature=self.temperature)
        if self.training:
            self._waiting.append((labels_b, _with_offset(teacher_bd, one.detach()), slow_be))
        return self.weight * (cce + ccl)

    @torch.no_grad()
    def after_step(self) -> None:
        """Put the step's keys into the queues, and let the slow projection follow."""
        if self._waiting:
            seen = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
            labels_b, features_bd, projections_be = self.together.rows(*seen)
            for row, label in enumerate(labels_b.tolist()):
                place = int(self.next_k[label])
                self.features_kqd[label, place] = features_bd[row]
                self.projections_kqe[label, place] = projections_be[row]
                self.next_k[label] = (place + 1) % self.num_keys
                self.lengths_k[label] = min(int(self.lengths_k[label]) + 1, self.num_keys)
        self._waiting = []
        self.slow_ed.lerp_(self.projection.weight.to(self.slow_ed.dtype), 1 - self.momentum)

    def _keys(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the keys that the queues hold, and their labels."""
        filled_kq = torch.arange(self.num_keys, device=self.lengths_k.device)[None] < self.lengths_k[:, None]
        return self.features_kqd[filled_kq], self.projections_kqe[filled_kq], filled_kq.nonzero()[:, 0]


def _only_linear(head: nn.Module | None) -> nn.Linear | None:
    """Return the one linear layer of a head that has nothing else acting on features in evaluation mode."""
    leaves = [] if head is None else [module for module in head.modules() if not list(module.children())]
    linear = [leaf for leaf in leaves if isinstance(leaf, nn.Linear)]
    inert = [leaf for leaf in leaves if isinstance(leaf, nn.Flatten | nn.Dropout | nn.Identity)]
    return linear[0] if len(linear) == 1 and len(linear) + len(inert) == len(leaves) else None


def _with_offset(rows_bd: Tensor, offset_b: Tensor | None) -> Tensor:
    """Return rows with their offset as a last column, so that products with (features, 1) are the classifier's logits."""
    rows_bd = widen(rows_bd)
    column_b = torch.zeros_like(rows_bd[:, 0]) if offset_b is None else offset_b.to(rows_bd.dtype)
    return torch.cat([rows_bd, column_b[:, None]], dim=1)


@full_precision
def _product(rows_bd: Tensor, weight_ed: Tensor) -> Tensor:
    rows_bd = widen(rows_bd)
    return rows_bd @ weight_ed.T.to(rows_bd.dtype)
