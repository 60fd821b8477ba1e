"""The network in training: segments in a chain, the frozen ones first, and heads on the features that the last one gives.

    inputs -> segment 1 -> ... -> segment n -> features -> head "main", head "...", ...

Segments come from the places where a backbone can be cut, so that what is frozen is a prefix: it is run without autograd, in
evaluation mode, and its tensors and buffers are proven unchanged by a digest. A normalisation layer follows its own parameters:
where they do not train, its running statistics do not move either, wherever in the network it is.
Shapes: b rows in a batch, d features, k outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from headstart.backbones import Backbone
from headstart.core.errors import ConfigError

__all__ = ["Network", "Output"]


@dataclass
class Output:
    """What a forward pass gives.

    Parameters
    ----------
    features : Tensor of shape (b, d)
        Output of the last segment.
    logits : Tensor of shape (b, k)
        Output of the head ``"main"``, or of the first where none has that name.
    head_logits : dict of str to Tensor
        Output of every head.
    activations : dict of str to Tensor
        Output of every segment that was run, by name; empty unless asked for. Of texts, the hidden states.
    """

    features: Tensor
    logits: Tensor
    head_logits: dict[str, Tensor] = field(default_factory=dict)
    activations: dict[str, Tensor] = field(default_factory=dict)


class Network(nn.Module):
    """Segments and heads.

    Parameters
    ----------
    segments : mapping of str to nn.Module
        In order; the name is that of the stage at the segment's end. Each takes what the one before returns (several tensors
        as a tuple); the last returns features (b, d).
    heads : mapping of str to nn.Module
        Each takes features. The one named ``"main"``, or the first, answers the task.
    num_frozen : int
        Leading segments that never train.
    start : int
        The first segment that is run on what the rows give: 0 for raw inputs, more for activations that were kept.

    Raises
    ------
    ConfigError
        If a name cannot name a part, there is no head, or a segment before ``start`` would train.

    Examples
    --------
    >>> network = Network({"hidden": nn.Linear(2, 3), "features": nn.Tanh()}, {"main": nn.Linear(3, 1)})
    >>> network(torch.zeros(4, 2)).logits.shape
    torch.Size([4, 1])
    """

    def __init__(
        self,
        segments: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        *,
        num_frozen: int = 0,
        start: int = 0,
    ) -> None:
        super().__init__()
        self.names = tuple(segments)
        self.segments = nn.ModuleList(segments.values())
        if not heads or any(not name.isidentifier() for name in heads):
            raise ConfigError(
                f"Network: needs at least one head, each with a name of letters, digits and underscores; got {list(heads)}."
            )
        self.heads = nn.ModuleDict(dict(heads))
        self.start = start
        self.rest_statistics = False
        self._freeze(num_frozen, ())
        self.settle()

    @classmethod
    def of(cls, backbone: Backbone, heads: Mapping[str, nn.Module], *, stages: Sequence[str] | None = None) -> Network:
        """Return a backbone's network, cut at some stages, with heads. Parameters are the backbone's own.

        Parameters
        ----------
        backbone : Backbone
            Give a copy where the backbone itself must stay as it is.
        heads : mapping of str to nn.Module
            Each takes ``backbone.width`` features.
        stages : sequence of str, optional
            Where to cut; the backbone's natural blocks when left out, nowhere when empty. ``"input"`` and ``"features"`` are
            no cuts.

        Raises
        ------
        BackboneError
            If there is no such stage.
        """
        wanted = [block.name for block in backbone.blocks] if stages is None else list(stages)
        cuts = [name for name in wanted if name not in {"input", "features"}]
        parts = backbone.segments(cuts) if cuts else [backbone.module]
        return cls(dict(zip([*cuts, "features"], parts, strict=True)), heads)

    @property
    def main(self) -> str:
        """Name of the head that answers the task."""
        return "main" if "main" in self.heads else next(iter(self.heads))

    @property
    def frozen_names(self) -> frozenset[str]:
        """Names of the parameters and buffers that never change."""
        return self._frozen_names

    def freeze(self, num_frozen: int, parameters: Iterable[str] = ()) -> None:
        """Say what never trains; everything else may.

        Parameters
        ----------
        num_frozen : int
            Leading segments, with all their tensors and buffers.
        parameters : iterable of str
            Names of further parameters.

        Raises
        ------
        ConfigError
            If there are not so many segments, or a segment before ``start`` would train.
        """
        self._freeze(num_frozen, parameters)
        for name, parameter in self.named_parameters(remove_duplicate=False):
            parameter.requires_grad_(name not in self._frozen_names)
        for parameter in self.segments[: self.num_frozen].parameters():
            parameter.requires_grad_(False)  # shared with a later segment: frozen wins
        self.settle()

    def _freeze(self, num_frozen: int, parameters: Iterable[str]) -> None:
        if not 0 <= num_frozen <= len(self.segments):
            raise ConfigError(f"Network: 0 to {len(self.segments)} leading segments can be frozen; got {num_frozen}.")
        if self.start > num_frozen:
            raise ConfigError(
                f"Network: rows are activations after segment {self.start}, so at least {self.start} segments must be "
                f"frozen; got {num_frozen}."
            )
        self.num_frozen = num_frozen
        inside = tuple(f"segments.{index}." for index in range(num_frozen))
        frozen = {id(tensor) for name, tensor in self._tensors() if name.startswith(inside)} if inside else set()
        chosen = set(parameters)
        self._frozen_names = frozenset(
            name for name, tensor in self._tensors() if name in chosen or id(tensor) in frozen
        )

    def _tensors(self) -> Iterable[tuple[str, Tensor]]:
        yield from self.named_parameters(remove_duplicate=False)
        yield from self.named_buffers(remove_duplicate=False)

    def settle(self) -> None:
        """Look again at which parameters train, after some were frozen or let go."""
        parts = [*self.segments, *self.heads.values()]
        trains = [any(item.requires_grad for item in part.parameters()) for part in parts]
        resting = self.num_frozen
        while resting < len(self.segments) and not trains[resting]:
            resting += 1
        self.num_resting = resting
        self.still: list[nn.Module] = []
        for place, (part, moves) in enumerate(zip(parts, trains, strict=True)):
            in_body = place < len(self.segments)
            for module in part.modules():
                if isinstance(module, _NormBase):
                    own = list(module.parameters(recurse=False))
                    learns = any(item.requires_grad for item in own) if own else moves
                    if not learns or (self.rest_statistics and in_body):
                        self.still.append(module)

    def train(self, mode: bool = True) -> Network:
        """Set training mode where something trains; what rests stays in evaluation mode."""
        super().train(mode)
        if mode:
            for segment in self.segments[: self.num_resting]:
                segment.eval()
            for module in self.still:
                module.eval()
        return self

    def forward(self, *inputs: Tensor, activations: bool = False) -> Output:
        """Return features, logits, and the output of every segment if asked for."""
        kept: dict[str, Tensor] | None = {} if activations else None
        return self.suffix(self.prefix(inputs, kept), kept)

    def prefix(self, inputs: tuple[Tensor, ...], kept: dict[str, Tensor] | None = None) -> tuple[Tensor, ...]:
        """Run the segments that never train, without autograd.

        Parameters
        ----------
        inputs : tuple of Tensor
            What the rows give.
        kept : dict, optional
            Gets the output of every segment by its name.
        """
        if self.start >= self.num_frozen:
            return inputs
        with torch.no_grad():
            return self._chain(inputs, self.start, self.num_frozen, kept)

    def suffix(
        self, hidden: tuple[Tensor, ...], kept: dict[str, Tensor] | None = None, *, heads_only: bool = False
    ) -> Output:
        """Run the other segments and the heads on what `prefix` gave.

        Parameters
        ----------
        hidden : tuple of Tensor
            What `prefix` returned.
        kept : dict, optional
            Gets the output of every segment by its name.
        heads_only : bool
            Record no gradient in the segments.
        """
        count = len(self.segments)
        resting = count if heads_only else max(self.num_frozen, self.num_resting)
        if resting > self.num_frozen:
            with torch.no_grad():
                hidden = self._chain(hidden, self.num_frozen, resting, kept)
        features = self._chain(hidden, resting, count, kept)[0]
        head_logits = {name: head(features) for name, head in self.heads.items()}
        return Output(features, head_logits[self.main], head_logits, kept or {})

    def _chain(
        self, hidden: tuple[Tensor, ...], first: int, last: int, kept: dict[str, Tensor] | None
    ) -> tuple[Tensor, ...]:
        for index in range(first, last):
            output = self.segments[index](*hidden)
            hidden = output if isinstance(output, tuple) else (output,)
            if kept is not None:
                kept[self.names[index]] = hidden[0]
        return hidden

    def twin(self) -> Network:
        """Return a copy in evaluation mode that never trains; tensors that never change are shared, all others are its own."""
        shared: dict[int, Any] = {id(item): item for name, item in self._tensors() if name in self._frozen_names}
        copied = copy.deepcopy(self, shared)
        for name, parameter in copied.named_parameters():
            if name not in self._frozen_names:
                parameter.requires_grad_(False)
        return copied.eval()

    def frozen_digest(self) -> str:
        """Return the digest of everything that must not change: names, types, shapes and bytes.

        Examples
        --------
        >>> network = Network({"features": nn.Linear(2, 2)}, {"main": nn.Linear(2, 1)}, num_frozen=1)
        >>> before = network.frozen_digest()
        >>> _ = nn.init.zeros_(network.heads["main"].weight)
        >>> network.frozen_digest() == before
        True
        >>> _ = nn.init.zeros_(network.segments[0].weight)
        >>> network.frozen_digest() == before
        False
        """
        hasher = blake3()
        seen = set()
        for name, tensor in self._tensors():
            if name in self._frozen_names and id(tensor) not in seen:
                seen.add(id(tensor))
                plain = tensor.detach().cpu().contiguous()
                hasher.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
                hasher.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        return hasher.hexdigest()
