"""SHOT: target rows learn sure and diverse answers, and labels that the classes' centres give them; no source row is needed.

    shot = infomax(z) + labels / b sum_i - log softmax(z_i)_y_i
    y_i = argmax over c of cos(f_i, mu_c),   mu_c = sum_i p_ic f_i / sum_i p_ic,   then once more with y for p      p = softmax(z)

Source: Liang, Hu & Feng, "Do We Really Need to Access the Source Data? Source Hypothesis Transfer for Unsupervised Domain
Adaptation", ICML 2020 (arXiv:2002.08546), section 3: f with a 1 appended and scaled to length 1, classes that no row is
answered with left out, labels anew 15 times, weight 0.3, as in the authors' code. They run the network over all rows for new
labels; here a row's features and answers are those of its last step, which costs no pass.
Use it after the network has learned from source rows, with the head frozen: it holds what the source knew.
It ignores that class shares may be uneven (`InfoMax`). A class lost once gets no label again.
Shapes: b rows, m rows of the target stream, d features, k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.errors import ConfigError
from headstart.objectives.information_maximisation import information_maximisation
from headstart.objectives.objective import Batch, Objective, Setup, check_positive
from headstart.objectives.precision import full_precision, widen
from headstart.objectives.target_memory import first_outputs

__all__ = ["SHOT", "centre_labels"]

_LEAST = 1e-8


@full_precision
def centre_labels(features_md: Tensor, probabilities_mk: Tensor) -> Tensor:
    """Return the class whose centre is nearest to each row by cosine; centres by the answers first, then by those labels.

    Parameters
    ----------
    features_md : Tensor of shape (m, d)
        Half precision is computed in float32. A 1 is appended, and rows are scaled to length 1.
    probabilities_mk : Tensor of shape (m, k)
        Answers.

    Returns
    -------
    Tensor of shape (m,)
        int64 class numbers, among those that some row is answered with.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Examples
    --------
    >>> features = torch.tensor([[9.0, 0.0], [9.0, 1.0], [0.0, 9.0], [1.0, 9.0]])
    >>> unsure = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.1, 0.9]])        # the second lies with the first
    >>> centre_labels(features, unsure).tolist()
    [0, 0, 1, 1]
    """
    check_matrix("centre_labels", "features", features_md)
    check_matrix("centre_labels", "probabilities", probabilities_mk)
    check_same_rows("centre_labels", "features", features_md, "probabilities", probabilities_mk)
    shares_mk, features_md = widen(probabilities_mk), widen(features_md)
    rows_me = functional.normalize(torch.cat([features_md, torch.ones_like(features_md[:, :1])], dim=1), dim=1)
    labels_m, num_classes = shares_mk.argmax(1), shares_mk.shape[1]
    for _ in range(2):
        centres_ke = shares_mk.T @ rows_me / (shares_mk.sum(0)[:, None] + _LEAST)
        similarity_mk = rows_me @ functional.normalize(centres_ke, dim=1).T
        absent_k = torch.bincount(labels_m, minlength=num_classes) == 0
        labels_m = similarity_mk.masked_fill(absent_k, -torch.inf).argmax(1)
        shares_mk = functional.one_hot(labels_m, num_classes).to(rows_me.dtype)
    return labels_m


class SHOT(Objective):
    """`information_maximisation` of target rows, and the cross-entropy with `centre_labels` that are renewed now and then.

    Labels, and each row's last features and answers, are buffers.

    Parameters
    ----------
    labels : float, at least 0
        Multiplies the cross-entropy with the labels.
    diversity : float, at least 0
        As in `InfoMax`.
    num_refreshes : int, at least 1
        How often labels are made in the training, the first time before it.
    weight : float
        Multiplies the sum.

    Raises
    ------
    ConfigError
        If an argument breaks its rule, or there is no second stream.

    Examples
    --------
    >>> import numpy as np
    >>> outputs = lambda: (np.eye(2, dtype=np.float32), 9 * np.eye(2, dtype=np.float32))
    >>> objective = SHOT(labels=1.0)
    >>> objective.prepare(Setup(torch.nn.Module(), task=None, num_target=2, target_outputs=outputs))
    >>> objective.labels_m.tolist()
    [0, 1]
    >>> batch = Batch(rows=torch.tensor([0]), features=torch.ones(1, 2), logits=torch.zeros(1, 2))
    >>> objective(Batch(), batch)                                     # log 2 - log 2 + log 2
    tensor(0.6931)
    """

    needs = frozenset({"features", "logits"})
    reads_classes = True
    features_md: Tensor
    probabilities_mk: Tensor
    labels_m: Tensor
    refreshed: Tensor

    def __init__(
        self, labels: float = 0.3, diversity: float = 1.0, num_refreshes: int = 15, weight: float = 1.0
    ) -> None:
        super().__init__()
        check_positive("SHOT", "num_refreshes", num_refreshes)
        if not (labels >= 0 and diversity >= 0):
            raise ConfigError(f"SHOT: labels and diversity are at least 0; got {labels} and {diversity}.")
        self.labels, self.diversity, self.num_refreshes, self.weight = labels, diversity, num_refreshes, weight
        self._share = 0.0
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def prepare(self, setup: Setup) -> None:
        """Fill the memory, and make the first labels."""
        features_md, logits_mk = first_outputs("SHOT", setup)
        self.register_buffer("features_md", features_md)
        self.register_buffer("probabilities_mk", functional.softmax(logits_mk, dim=1))
        self.register_buffer("labels_m", centre_labels(self.features_md, self.probabilities_mk))
        self.register_buffer("refreshed", torch.zeros((), dtype=torch.int64, device=features_md.device))

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the term; in training mode the rows' features and answers wait for `after_step`."""
        (batch,) = self.chosen("target", source, target)
        logits_bk, features_bd = self.take(batch, "logits"), self.take(batch, "features")
        rows_b = self.take(batch, "rows")
        labels_b = self.labels_m[rows_b]
        if self.training:
            self._share = batch.share
            self._waiting.append((rows_b, features_bd.detach(), functional.softmax(widen(logits_bk.detach()), dim=1)))
        term = information_maximisation(logits_bk, diversity=self.diversity)
        return self.weight * (term + self.labels * functional.cross_entropy(widen(logits_bk), labels_b))

    @torch.no_grad()
    def after_step(self) -> None:
        """Put the step's features and answers into the memory, and renew the labels when their time has come."""
        for waiting in self._waiting:
            rows_b, features_bd, answers_bk = self.together.rows(*waiting)
            self.features_md[rows_b] = features_bd.to(self.features_md.dtype)
            self.probabilities_mk[rows_b] = answers_bk.to(self.probabilities_mk.dtype)
        self._waiting = []
        due = min(int(self._share * self.num_refreshes), self.num_refreshes - 1)
        if due > int(self.refreshed):
            self.labels_m.copy_(centre_labels(self.features_md, self.probabilities_mk))
            self.refreshed.fill_(due)
