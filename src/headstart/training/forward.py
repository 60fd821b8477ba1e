"""From rows to what objectives see: the network's outputs, and of the base model and the teacher only what somebody needs.

    rows -> inputs (mixed) -> frozen prefix -> suffix and heads      -> features, logits, activations
                                            -> base suffix           -> base_*        (weights as they were before training)
    the same rows, another view             -> averaged network      -> teacher_*
    the same rows, strongly changed         -> prefix, suffix, heads -> strong_*

The frozen prefix is common to the network and the base model, and is run once a step however many phases look at it.
Shapes: b rows of a batch, d features, k outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.core.tasks import Task
from headstart.objectives import Batch
from headstart.training.losses import target_tensor
from headstart.training.mixing import Mix, mix_labels
from headstart.training.network import Network, Output
from headstart.training.sampler import Sample, Stream
from headstart.training.strong_views import strong_activations

__all__ = ["Forward", "Piece"]


@dataclass
class Piece:
    """Some rows of a step, with all that is the same in every phase."""

    stream: Stream
    sample: Sample
    labels: Tensor | None
    hidden: tuple[Tensor, ...]
    activations: dict[str, Tensor]
    teacher_inputs: tuple[Tensor, ...] = ()
    strong_hidden: tuple[Tensor, ...] = ()
    base: Output | None = None
    teacher: Output | None = None


@dataclass
class Forward:
    """Runs networks on rows.

    Parameters
    ----------
    network : Network
        The one in training.
    task : Task
        What labels mean.
    autocast : callable
        Gives the context in which networks run.
    base : Network, optional
        As the network was before training.
    source_head : nn.Module, optional
        The base model's own head.
    teacher : Network, optional
        The averaged one.
    suffix : callable, optional
        The network's suffix, compiled.
    share : float
        How much of the training is done.
    """

    network: Network
    task: Task
    autocast: Callable[[], contextlib.AbstractContextManager[object]]
    base: Network | None = None
    source_head: nn.Module | None = None
    teacher: Network | None = None
    suffix: Callable[..., Output] | None = None
    share: float = 0.0
    _labels: dict[int, Tensor | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parameter = next(self.network.parameters(), None)
        self.device = torch.device("cpu") if parameter is None else parameter.device

    def on_device(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return inputs where the network is."""
        if self.device.type == "cpu":
            return inputs
        return tuple(tensor.to(self.device, non_blocking=True) for tensor in inputs)

    def labels(self, stream: Stream) -> Tensor | None:
        """Return all labels of a stream's rows, made once."""
        if id(stream) not in self._labels:
            self._labels[id(stream)] = target_tensor(self.task, stream.rows.chosen)
        return self._labels[id(stream)]

    def piece(
        self, stream: Stream, whole: Sample, part: NDArray[np.int64] | None, mix: Mix | None, needs: frozenset[str]
    ) -> Piece:
        """Return some rows of a batch, as far as all phases share them.

        Parameters
        ----------
        stream : Stream
            Where the rows come from.
        whole : Sample
            The batch of all processes and pieces; partners of mixed rows are among it.
        part : int64 array, optional
            Which of its rows to take; all when left out.
        mix : Mix, optional
            How rows are mixed.
        needs : frozenset of str
            What objectives of all phases need.
        """
        sample = whole if part is None else whole.take(part)
        inputs, labels = self._look(stream, whole, part, mix, "view")
        kept: dict[str, Tensor] | None = {} if "activations" in needs or "base_activations" in needs else None
        with self.autocast():
            hidden = self.network.prefix(self.on_device(inputs), kept)
        piece = Piece(stream, sample, None if labels is None else labels.to(self.device), hidden, kept or {})
        if self.teacher is not None and any(need.startswith("teacher_") for need in needs):
            piece.teacher_inputs = self.on_device(self._look(stream, whole, part, mix, "teacher")[0])
        if stream.changed and any(need.startswith("strong_") for need in needs):
            piece.strong_hidden = self._strong(piece)
        return piece

    def _strong(self, piece: Piece) -> tuple[Tensor, ...]:
        """Return what enters the suffix for strongly changed views: of the rows, or of activations that were kept."""
        stream = piece.stream
        draws = stream.draws(piece.sample, "strong")
        change = getattr(stream.rows.inputs, "strong", None)
        if change is None:
            return strong_activations(piece.hidden, draws)
        with self.autocast():
            return self.network.prefix(self.on_device(change(stream.indices(piece.sample), draws)))

    def _look(
        self, stream: Stream, whole: Sample, part: NDArray[np.int64] | None, mix: Mix | None, look: str
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return inputs and labels, mixed with their partners'."""
        everything = self.labels(stream)
        sample = whole if part is None else whole.take(part)
        inputs = stream.rows.inputs.batch(stream.indices(sample), stream.draws(sample, look))
        labels = None if everything is None else everything[torch.from_numpy(sample.positions)]
        if mix is None:
            return inputs, labels
        if part is None:
            chosen = torch.from_numpy(mix.partners)
            others, partner = tuple(tensor[chosen] for tensor in inputs), sample.take(mix.partners)
        else:
            partner = whole.take(mix.partners[part])
            others = stream.rows.inputs.batch(stream.indices(partner), stream.draws(partner, look))
        inputs, keep = mix.inputs(inputs, others)
        if everything is not None and labels is not None:
            theirs = everything[torch.from_numpy(partner.positions)]
            labels = mix_labels(labels, theirs, keep, self.task.num_outputs)
        return inputs, labels

    def batch(self, piece: Piece, needs: frozenset[str], heads_only: bool) -> Batch:
        """Return what the objectives of a phase see of some rows.

        Parameters
        ----------
        piece : Piece
            The rows.
        needs : frozenset of str
            What these objectives need.
        heads_only : bool
            Record no gradient in the segments.
        """
        kept = dict(piece.activations) if "activations" in needs else None
        with self.autocast():
            output = (self.suffix or self.network.suffix)(piece.hidden, kept, heads_only=heads_only)
        batch = Batch(
            labels=piece.labels,
            rows=torch.from_numpy(piece.sample.positions).to(self.device),
            features=output.features,
            logits=output.logits,
            head_logits=output.head_logits,
            activations=output.activations if kept is not None else {},
            share=self.share,
        )
        if "domains" in needs:
            batch.domains = torch.from_numpy(piece.stream.domains(piece.sample)).to(self.device)
        if "hidden" in needs:
            batch.hidden, batch.run = piece.hidden, self._logits
        if piece.strong_hidden and needs & {"strong_features", "strong_logits"}:
            with self.autocast():
                changed = (self.suffix or self.network.suffix)(piece.strong_hidden, heads_only=heads_only)
            batch.strong_features, batch.strong_logits = changed.features, changed.logits
        self._see_base(piece, batch, needs)
        self._see_teacher(piece, batch, needs)
        return batch

    def _logits(self, hidden: tuple[Tensor, ...]) -> Tensor:
        """Return the main head's logits for what enters the suffix."""
        with self.autocast():
            logits: Tensor = self.network.suffix(hidden).logits
        return logits

    def _see_base(self, piece: Piece, batch: Batch, needs: frozenset[str]) -> None:
        if self.base is None or not needs & {"base_features", "base_logits", "base_activations"}:
            return
        if piece.base is None:
            with torch.no_grad(), self.autocast():
                piece.base = self.base.suffix(piece.hidden, dict(piece.activations))
        batch.base_features = piece.base.features
        batch.base_activations = piece.base.activations
        if self.source_head is not None and "base_logits" in needs:
            with torch.no_grad(), self.autocast():
                batch.base_logits = self.source_head(piece.base.features)

    def _see_teacher(self, piece: Piece, batch: Batch, needs: frozenset[str]) -> None:
        if self.teacher is None or not needs & {"teacher_features", "teacher_logits"}:
            return
        if piece.teacher is None:
            with torch.no_grad(), self.autocast():
                piece.teacher = self.teacher(*piece.teacher_inputs)
        batch.teacher_features, batch.teacher_logits = piece.teacher.features, piece.teacher.logits

    def outputs(self, network: Network, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return a network's logits for some inputs, in float32, without gradients."""
        with torch.no_grad(), self.autocast():
            output: Output = network(*self.on_device(inputs))
        return output.logits.float()

    def whole_outputs(
        self, network: Network, stream: Stream, batch_size: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return features (n, d) and main logits (n, k) of all rows of a stream by the plain view; evaluation mode is left on."""
        features, logits = [], []
        network.eval()
        for first in range(0, len(stream.rows), batch_size):
            inputs = stream.rows.inputs.batch(stream.rows.indices[first : first + batch_size], None)
            with torch.no_grad(), self.autocast():
                output: Output = network(*self.on_device(inputs))
            features.append(output.features.float().cpu().numpy())
            logits.append(output.logits.float().cpu().numpy())
        return np.concatenate(features), np.concatenate(logits)

    def source_logits(self, stream: Stream, base: Network, batch_size: int) -> Iterator[NDArray[np.float32]]:
        """Yield what the base model's own head says of a stream's rows, plain views, batch by batch."""
        assert self.source_head is not None
        indices = stream.rows.indices
        for first in range(0, len(indices), batch_size):
            inputs = self.on_device(stream.rows.inputs.batch(indices[first : first + batch_size], None))
            with torch.no_grad(), self.autocast():
                features = base(*inputs).features
                yield self.source_head(features).float().cpu().numpy()
