"""What a loss term is: it sees one batch of each domain and returns one number to be made smaller.

    joint loss = sum_k weight_k * L_k            (`joint_loss`; nothing else adds losses)

An objective says what it ``needs``, and the loop computes only that: no second network runs and no inner activation is kept
unless some objective asks for it. Whatever it has to remember between steps (queues, starting weights, relations of classes) is a
buffer, so that ``state_dict()`` saves it and a killed run goes on where it was.
Shapes: b rows in a batch, d features, k outputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.core.errors import ConfigError, did_you_mean
from headstart.core.tasks import Task
from headstart.objectives.together import Together

Rows = Literal["source", "target", "both"]

__all__ = ["NEEDS", "Batch", "Objective", "Rows", "Setup", "check_choice", "check_positive", "joint_loss"]

NEEDS = frozenset(
    {
        "labels",
        "features",
        "logits",
        "activations",
        "base_features",
        "base_logits",
        "base_activations",
        "teacher_features",
        "teacher_logits",
        "strong_features",
        "strong_logits",
        "hidden",
        "domains",
    }
)


@dataclass
class Batch:
    """What objectives see of one domain's mini-batch. What no objective needs stays ``None`` or empty.

    Parameters
    ----------
    labels : Tensor, optional
        int64 (b,) class numbers; float (b, k) soft labels or indicators; float (b,) numbers. ``None``: rows without labels.
    rows : Tensor of shape (b,), optional
        int64 row numbers in their stream.
    features : Tensor of shape (b, d), optional
        Output of the last segment of the network in training.
    logits : Tensor of shape (b, k), optional
        Output of the head ``"main"``.
    head_logits : mapping of str to Tensor
        Output of every head by its name, ``"main"`` included.
    activations : mapping of str to Tensor
        Output of every segment by its name.
    base_features, base_logits, base_activations
        The same of the frozen base model, as it was before training; ``base_logits`` are those of *its own* head, over the
        classes of the source task.
    teacher_features, teacher_logits
        The same of the averaged network (its weights follow those in training slowly), on another view of the same rows.
    strong_features, strong_logits
        The same of the network in training, with its gradient, on a strongly changed view of the same rows (colours and shapes of
        images, words left out, noise). Where there is a second stream, of that stream alone.
    hidden : tuple of Tensor, optional
        What enters the part of the network that is run with its gradient; ``run`` continues from it.
    run : callable, optional
        ``run(hidden)`` gives the logits (b, k) of the head ``"main"`` for changed ``hidden``; comes with it.
    domains : Tensor of shape (b,), optional
        int64 number of the domain each row comes from, 0 to `Setup.num_domains` - 1.
    share : float
        How much of the training is done, from 0 to 1, for schedules; always filled.
    """

    labels: Tensor | None = None
    rows: Tensor | None = None
    features: Tensor | None = None
    logits: Tensor | None = None
    head_logits: Mapping[str, Tensor] = field(default_factory=dict)
    activations: Mapping[str, Tensor] = field(default_factory=dict)
    base_features: Tensor | None = None
    base_logits: Tensor | None = None
    base_activations: Mapping[str, Tensor] = field(default_factory=dict)
    teacher_features: Tensor | None = None
    teacher_logits: Tensor | None = None
    strong_features: Tensor | None = None
    strong_logits: Tensor | None = None
    hidden: tuple[Tensor, ...] | None = None
    run: Callable[[tuple[Tensor, ...]], Tensor] | None = None
    domains: Tensor | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Setup:
    """What an objective may look at once, before the first step.

    Parameters
    ----------
    network : nn.Module
        The network to be trained, with ``segments`` and ``heads``, at its starting weights.
    task : Task
        What the labels mean.
    targets : array of shape (n,) or (n, k), optional
        Targets of the training rows.
    base_logits : callable, optional
        Returns float32 (n, k_source): what the base model's own head says of the training rows, in the order of ``targets``.
    width : int, optional
        Features d of the network.
    num_target : int
        Rows m of the second stream; 0 where there is none. ``Batch.rows`` of that stream lie in 0..m - 1.
    target_outputs : callable, optional
        Returns features float32 (m, d) and main logits float32 (m, k) of all rows of the second stream, by the network as it is
        at the start.
    source_outputs : callable, optional
        The same of the labelled stream, (n, d) and (n, k), in the order of ``targets``.
    num_domains : int
        Domains that the labelled rows come from.
    """

    network: nn.Module
    task: Task
    targets: NDArray[Any] | None = None
    base_logits: Callable[[], NDArray[np.float32]] | None = None
    width: int | None = None
    num_target: int = 0
    target_outputs: Callable[[], tuple[NDArray[np.float32], NDArray[np.float32]]] | None = None
    source_outputs: Callable[[], tuple[NDArray[np.float32], NDArray[np.float32]]] | None = None
    num_domains: int = 1

    def known_width(self, who: str) -> int:
        """Return the number of features, or refuse in words.

        Raises
        ------
        ConfigError
            If it is not known.
        """
        if self.width is None:
            raise ConfigError(f"{who}: needs to know how many features the network gives; set width in the Setup.")
        return self.width

    def segments(self) -> dict[str, nn.Module]:
        """Return the segments that may train, by name; the frozen ones at the beginning are left out."""
        segments = list(cast(nn.ModuleList, self.network.segments))
        names = getattr(self.network, "names", None) or tuple(str(number) for number in range(len(segments)))
        first = int(getattr(self.network, "num_frozen", 0))
        return dict(list(zip(names, segments, strict=True))[first:])

    def heads(self) -> dict[str, nn.Module]:
        """Return the heads by name."""
        return dict(cast(nn.ModuleDict, self.network.heads).items())


class Objective(nn.Module):
    """One differentiable term of the joint loss.

    A subclass names what it ``needs``, keeps every constructor argument under its own name (that is its configuration), and
    returns its value times ``weight`` from `forward`. Parameters of its own (a critic, a projection) train in phases whose
    ``trains`` names ``"objectives"``.
    """

    needs: frozenset[str] = frozenset()  # of the class; of the instance where the configuration decides
    weight: float
    reads_classes: bool = (
        False  # whether it is nothing without classes: probabilities of them, or labels that are classes
    )
    labels_both: bool = False  # whether rows of the second stream need labels, too
    compares_sources: bool = False  # whether it does nothing where all labelled rows are of one domain
    together: Together = Together()  # the processes that train together; the loop says which

    def prepare(self, setup: Setup) -> None:
        """Look once at the network and the training targets, before the first step. The default looks at nothing."""

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the term, a tensor of shape ().

        Parameters
        ----------
        source : Batch
            Rows of the labelled stream; in plain fine-tuning the only one.
        target : Batch, optional
            Rows of a second stream, normally without labels.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        """Do what has to happen once after each optimiser step (queues, momentum encoders). The default does nothing."""

    def unknown_layer(self) -> nn.Linear | None:
        """Return the layer that scores, beside the head ``"main"``, rows of no class; None for all that learn no such thing."""
        return None

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments as a JSON value: ``type(self)(**self.config())`` is the same objective.

        Examples
        --------
        >>> from headstart.objectives.supervised import CrossEntropy
        >>> CrossEntropy(label_smoothing=0.1).config()
        {'label_smoothing': 0.1, 'class_weights': None, 'head': 'main', 'weight': 1.0}
        """
        named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        every = inspect.signature(
            type(self).__init__
        ).parameters.values()  # without one of its own: what Module takes, unnamed
        names = [item.name for item in every if item.kind in named and item.name != "self"]
        return {name: _as_json(getattr(self, name)) for name in names}

    def extra_repr(self) -> str:
        """Return the configuration, for ``repr``."""
        return ", ".join(f"{name}={value!r}" for name, value in self.config().items())

    def chosen(self, rows: Rows, source: Batch, target: Batch | None) -> tuple[Batch, ...]:
        """Return the batches that ``rows`` names; ``"both"`` is content where there is only the first.

        Raises
        ------
        ConfigError
            If ``rows`` is ``"target"`` and there is no second stream.
        """
        if rows == "source":
            return (source,)
        if target is None:
            if rows == "both":
                return (source,)
            raise ConfigError(f"{type(self).__name__}: needs a second stream of rows; give rows of the target domain.")
        return (target,) if rows == "target" else (source, target)

    def take(self, batch: Batch, name: str, key: str | None = None) -> Tensor:
        """Return a field of a batch, or refuse in words where it was not filled.

        Raises
        ------
        ConfigError
            If the field is empty, or has no entry ``key``.
        """
        value = getattr(batch, name)
        if isinstance(value, Mapping):
            if key in value:
                found: Tensor = value[key]
                return found
            known = ", ".join(value) or "nothing"
            raise ConfigError(f"{type(self).__name__}: needs {name}[{key!r}] of the batch; there is {known}.")
        if value is None:
            raise ConfigError(
                f"{type(self).__name__}: needs {name} of the batch, which is empty; the loop fills what `needs` names where "
                f"the run has it."
            )
        tensor: Tensor = value
        return tensor

    def take_logits(self, batch: Batch, head: str) -> Tensor:
        """Return the outputs of a head by its name; ``"main"`` is ``batch.logits``.

        Raises
        ------
        ConfigError
            If the batch holds no outputs of that head.
        """
        if head == "main" and batch.logits is not None:
            return batch.logits
        return self.take(batch, "head_logits", head)


def joint_loss(objectives: Iterable[Objective], source: Batch, target: Batch | None = None) -> Tensor:
    """Return the sum of objectives, each already multiplied by its weight.

    Raises
    ------
    ConfigError
        If there is no objective.

    Examples
    --------
    >>> import torch
    >>> from headstart.objectives.supervised import SquaredError
    >>> batch = Batch(labels=torch.tensor([3.0]), logits=torch.tensor([[1.0]]))
    >>> joint_loss([SquaredError(), SquaredError(weight=0.5)], batch)       # 4 + 0.5 * 4
    tensor(6.)
    """
    terms: list[Tensor] = [objective(source, target) for objective in objectives]
    if not terms:
        raise ConfigError("joint_loss: needs at least one objective; got none.")
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def check_choice(who: str, name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a word that is not one of those allowed.

    Raises
    ------
    ConfigError
        With what is allowed, and the nearest of it.
    """
    if value not in allowed:
        raise ConfigError(f"{who}: {name} is one of {', '.join(allowed)}; got {value!r}.{did_you_mean(value, allowed)}")


def check_positive(who: str, name: str, value: float) -> None:
    """Refuse a number that is not above 0.

    Raises
    ------
    ConfigError
        With what came.
    """
    if not value > 0:
        raise ConfigError(f"{who}: {name} is above 0; got {value}.")


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_json(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value
