"""The one type behind every base model: network, its own preprocessing, its width, its digest, its cost, its stages."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from headstart.backbones.architecture import Architecture, Pool, Truncation, build_network
from headstart.backbones.facts import BackboneInfo, Stage
from headstart.backbones.tokens import Tokenizer
from headstart.backbones.weights import digest_weights, is_counter
from headstart.core.errors import BackboneError, did_you_mean
from headstart.core.preprocessing import ImageTransform, TextTransform, Transform, VectorTransform
from headstart.core.tasks import Modality

__all__ = ["Backbone"]


class _Untouched(nn.Module):
    """The empty prefix: hands its input on, several tensors as a tuple."""

    def forward(self, *inputs: Tensor) -> Any:
        return inputs if len(inputs) > 1 else inputs[0]


class Backbone:
    """A base model.

    Use `open_backbone` rather than this constructor.

    Parameters
    ----------
    architecture : Architecture
        Rebuilds the network without weights.
    module : nn.Module
        The network, in evaluation mode. Images: float32 (n, 3, height, width), normalised, to (n, width).
        Texts: ``(input_ids, attention_mask)``, both int64 (n, t), to (n, width).
    transform : ImageTransform, TextTransform or VectorTransform
        The network's own preprocessing.
    name : str
        Name it was opened by.
    width : int
        Number of features.
    licence, origin : str
        Terms of the weights, and where they came from.
    tokenizer : Tokenizer, optional
        Texts only.
    source_head : nn.Linear, optional
        The source task's own classifier on these features, where it has one; some transferability scores need it.
    """

    def __init__(
        self,
        architecture: Architecture,
        module: nn.Module,
        transform: Transform,
        *,
        name: str,
        width: int,
        licence: str = "unknown",
        origin: str = "unknown",
        tokenizer: Tokenizer | None = None,
        source_head: nn.Linear | None = None,
    ) -> None:
        self.architecture = architecture
        self.module = module.eval()
        self.transform = transform
        self.name = name
        self.width = width
        self.licence = licence
        self.origin = origin
        self.tokenizer = tokenizer
        self.source_head = source_head.eval() if source_head is not None else None

    def __repr__(self) -> str:
        return f"Backbone({self.name!r}, {self.modality}, width={self.width})"

    @property
    def modality(self) -> Modality:
        """What a row is: ``"image"``, ``"text"`` or ``"vector"``."""
        if isinstance(self.transform, ImageTransform):
            return "image"
        return "text" if isinstance(self.transform, TextTransform) else "vector"

    @cached_property
    def weights_digest(self) -> str:
        """Digest of the network's definition and every tensor, taken when first asked for."""
        return digest_weights(self.architecture.to_dict(), self.module.state_dict())

    @cached_property
    def _multiply_adds(self) -> int:
        from headstart.backbones.cost import count_multiply_adds

        return count_multiply_adds(self.module, self.example_input(1))

    @cached_property
    def info(self) -> BackboneInfo:
        """Everything countable; the first call runs one row through the network to count its multiply-adds."""
        tensors = [tensor for name, tensor in self.module.state_dict().items() if not is_counter(name)]
        return BackboneInfo(
            name=self.name,
            source=self.architecture.source,
            architecture=self.architecture.name,
            arguments=self.architecture.arguments,
            modality=self.modality,
            licence=self.licence,
            origin=self.origin,
            parameters=sum(parameter.numel() for parameter in self.module.parameters()),
            multiply_adds=self._multiply_adds,
            width=self.width,
            size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            weights_digest=self.weights_digest,
        )

    def example_input(self, rows: int) -> tuple[Tensor, ...]:
        """Return arguments for `module` of the right shape and type: noise, or ``rows`` texts of 32 tokens."""
        device = next((parameter.device for parameter in self.module.parameters()), torch.device("cpu"))
        random = torch.Generator().manual_seed(0)
        if isinstance(self.transform, ImageTransform):
            shape = (rows, 3, self.transform.height, self.transform.width)
            return (torch.randn(shape, generator=random).to(device),)
        if isinstance(self.transform, VectorTransform):
            return (torch.randn((rows, self.transform.width), generator=random).to(device),)
        length = min(32, self.transform.max_tokens)
        vocabulary = self.tokenizer.vocabulary_size if self.tokenizer is not None else 2
        input_ids = torch.randint(0, vocabulary, (rows, length), generator=random)
        return input_ids.to(device), torch.ones_like(input_ids).to(device)

    @cached_property
    def _cuts(self) -> tuple[Any, tuple[Any, ...], str]:
        """What can cut this network, its cut points, and why there are none where there are none."""
        from headstart.backbones.graph import NetworkGraph
        from headstart.backbones.stack import LayerStack

        try:
            if self.architecture.source == "recurrent" and self.architecture.until is not None:
                return None, (), "it is the mean of word vectors"
            if self.architecture.source == "transformers":
                cutter: Any = LayerStack(self.module, self._uneven_rows())
            elif self.architecture.source == "recurrent":
                from headstart.backbones.recurrent import EmbeddingCut

                cutter = EmbeddingCut(self.module, self._uneven_rows())
            elif self.architecture.source == "vector":
                return None, (), "its rows are features already"
            else:
                cutter = NetworkGraph(self.module, tuple(self.example_input(1)[0].shape[1:]))
        except BackboneError as error:
            return None, (), str(error)
        return cutter, tuple(cutter.points), "no point in it leaves one tensor to hand over"

    def _uneven_rows(self) -> tuple[Tensor, ...]:
        """Return two example rows; of a text, the second is shorter."""
        inputs = self.example_input(2)
        if self.modality == "text":
            inputs[1][1, inputs[1].shape[1] // 2 :] = 0
        return inputs

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The points at which the network can be cut, in order: ``"input"`` first, ``"features"`` last.

        Discovered when first asked for; nothing is listed per architecture. A network that cannot be cut inside has
        these two alone. The shape of a text's stage holds -1 for the number of tokens.
        """
        _, points, _ = self._cuts
        total = max(1, self._multiply_adds)
        inside = [
            Stage(point.name, index, min(1.0, point.multiply_adds / total), point.shape)
            for index, point in enumerate(points, start=1)
        ]
        shape = (-1,) if self.modality == "text" else tuple(self.example_input(1)[0].shape[1:])
        return (Stage("input", 0, 0.0, shape), *inside, Stage("features", len(points) + 1, 1.0, (self.width,)))

    def stage(self, stage: str | int | Stage) -> Stage:
        """Return one of `stages` by its name or its index; negative indices count from the end.

        Raises
        ------
        BackboneError
            If there is no such stage.
        """
        names = [item.name for item in self.stages]
        wanted = stage.name if isinstance(stage, Stage) else stage
        if isinstance(wanted, str) and wanted in names:
            return self.stages[names.index(wanted)]
        if isinstance(wanted, int) and -len(names) <= wanted < len(names):
            return self.stages[wanted]
        why = f" ({self._cuts[2]})" if len(names) == 2 else ""
        raise BackboneError(
            f"Backbone.cut: {self.name} has no stage {wanted!r}; it has {len(names)}{why}, see `stages`."
            + (did_you_mean(wanted, names) if isinstance(wanted, str) else "")
        )

    @cached_property
    def blocks(self) -> tuple[Stage, ...]:
        """The network's natural coarse units in order, each named by the stage at its end: ``"features"`` last.

        Convolutional networks: the stem and every group of layers (ResNet: ``maxpool``, ``layer1`` to ``layer4``);
        transformers: embeddings and every layer. What is left after the last unit, a pooling, is a block without
        parameters. Found in the network; nothing is listed per architecture. A network that cannot be cut, or whose
        pieces would not train as the whole does, is one block.
        """
        cutter, points, _ = self._cuts
        names = {point.name for point in cutter.blocks()} if points and getattr(cutter, "trainable", True) else set()
        return (*(stage for stage in self.stages[1:-1] if stage.name in names), self.stages[-1])

    def cut(self, stage: str | int | Stage) -> tuple[nn.Module, nn.Module]:
        """Return the network in two halves, ``suffix(prefix(x))`` being exactly ``module(x)``; see `segments`.

        Parameters
        ----------
        stage : str, int or Stage
            A name or index of `stages`. ``"input"`` leaves everything to the suffix, ``"features"`` to the prefix.

        Raises
        ------
        BackboneError
            If there is no such stage, or the halves do not reproduce the whole.
        """
        prefix, suffix = self.segments([stage])
        return prefix, suffix

    def segments(self, stages: Sequence[str | int | Stage]) -> list[nn.Module]:
        """Return the network cut at all of these stages: modules whose chain is exactly ``module``, one more than stages.

        Their parameters are the network's own, under their own names: training a segment trains the network, and no two
        segments hold the same parameter. Inside a text encoder they speak ``(hidden, attention_mask)``; the last
        returns features. Cut again after moving the network to another device.

        Parameters
        ----------
        stages : sequence of str, int or Stage
            Names or indices of `stages`, in order, each once. ``"input"`` and ``"features"`` give segments that do nothing.

        Raises
        ------
        BackboneError
            If there is no such stage, they are out of order, or the chain does not reproduce the whole.
        """
        places = [self.stage(stage) for stage in stages]
        if any(first.index >= second.index for first, second in pairwise(places)):
            raise BackboneError(
                f"Backbone.segments: stages come in the network's order, each once; got "
                f"{', '.join(place.name for place in places)}."
            )
        cutter, points, _ = self._cuts
        inside = [points[place.index - 1] for place in places if 0 < place.index <= len(points)]
        segments: list[nn.Module] = cutter.segments(inside) if inside else [self.module]
        if inside:
            self._check(segments, [place.name for place in places])
        if places and places[0].name == "input":
            segments.insert(0, _Untouched())
        if places and places[-1].name == "features":
            segments.append(nn.Identity())
        return segments

    def until(self, stage: str | int | Stage, pool: Pool = "flatten") -> Backbone:
        """Return a base model that ends at a stage: its features are the activations there.

        It shares its weights with this one, saves only those it uses, and has a `weights_digest` of its own.

        Parameters
        ----------
        stage : str, int or Stage
            A name or index of `stages`.
        pool : {"flatten", "mean"}
            ``"flatten"``: all numbers of a row, as many as the stage's shape holds (ResNet-50's ``"layer4"`` has 2,048
            times 7 times 7). ``"mean"``: over places, one number a channel; over a text's real tokens.

        Raises
        ------
        BackboneError
            If there is no such stage, or it cannot be pooled so: texts differ in length and have no ``"flatten"``.
        """
        place = self.stage(stage)
        if pool not in get_args(Pool):
            raise BackboneError(f"Backbone.until: pool is one of {', '.join(get_args(Pool))}; got {pool!r}.")
        if place.name == "features":
            return self
        if place.name == "input":
            raise BackboneError(
                "Backbone.until: there is no network before 'input'; for features of your own, give vector rows."
            )
        if self.modality == "text" and pool == "flatten":
            raise BackboneError("Backbone.until: texts differ in length and cannot be flattened; use pool='mean'.")
        return self._until(place, pool)

    def _until(self, place: Stage, pool: Pool) -> Backbone:
        from headstart.backbones.truncation import pooled, truncate

        cutter, points, _ = self._cuts
        old, source = self.architecture.until, self.architecture.source
        image = self.modality == "image"
        row_shape = tuple(self.example_input(1)[0].shape[1:]) if image and source != "transformers" else ()
        without = cutter.closing() if source == "transformers" else ()
        until = Truncation(place.name, pool, row_shape, tuple(dict.fromkeys([*(old.without if old else ()), *without])))
        short = copy.copy(self)
        short.architecture = replace(self.architecture, until=until)
        short.module = truncate(self.module, source, until)
        short.source_head = None
        name = self.name.rpartition(" until ")[0] if old else self.name
        short.name = f"{name} until {place.name} ({'flattened' if pool == 'flatten' else 'mean'})"
        if isinstance(self.transform, TextTransform):
            short.transform = replace(self.transform, pooling="mean")
        short.refresh()
        rows = self._uneven_rows() if self.modality == "text" else self.example_input(1)
        with torch.no_grad():
            features = short.module(*rows)
            prefix = cutter.segments([points[place.index - 1]])[0]
            if not torch.equal(features, pooled(prefix(*rows), until)):
                raise BackboneError(
                    f"Backbone.until: {self.name} cannot end at {place.name!r} exactly; take another stage."
                )
        short.width = int(features.shape[1])
        return short

    def _check(self, segments: list[nn.Module], names: list[str]) -> None:
        """Refuse segments whose chain does not give exactly what the network gives."""
        rows = self._uneven_rows() if self.modality == "text" else self.example_input(1)
        with torch.no_grad():
            values: Any = rows
            for segment in segments:
                values = segment(*(values if isinstance(values, tuple) else (values,)))
            if not torch.equal(values, self.module(*rows)):
                raise BackboneError(
                    f"Backbone.cut: {self.name} cut at {', '.join(names)} does not give what the whole network gives; "
                    "cut at another stage."
                )

    def copy(self) -> Backbone:
        """Return an independent backbone with the same weights: training it leaves this one as it is.

        Nothing counted is carried over, so its `weights_digest` is taken when first asked for: ask after training, or
        call `refresh`.
        """
        twin = copy.copy(self)
        twin.module, twin.source_head = copy.deepcopy(self.module), copy.deepcopy(self.source_head)
        twin.refresh()
        return twin

    def refresh(self) -> None:
        """Forget what was counted and cut; call it after changing weights, or `weights_digest` names the old ones."""
        for memo in ("weights_digest", "info", "stages", "blocks", "_cuts", "_multiply_adds"):
            self.__dict__.pop(memo, None)

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Return the token numbers of each text, cut at the transform's ``max_tokens``."""
        tokenizer, transform = self._text("tokenize")
        return tokenizer.encode(texts, transform.max_tokens)

    def collate(self, token_lists: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Return ``(input_ids, attention_mask)``, padded to the longest of these rows."""
        return self._text("collate")[0].collate(token_lists)

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer into a folder; `build_backbone` reads it back."""
        self._text("save_tokenizer")[0].save(folder)

    def _text(self, what: str) -> tuple[Tokenizer, TextTransform]:
        if self.tokenizer is None or not isinstance(self.transform, TextTransform):
            raise BackboneError(f"Backbone.{what}: {self.name} reads rows of kind {self.modality}, not text.")
        return self.tokenizer, self.transform

    def spec(self) -> dict[str, Any]:
        """Return a JSON value from which `build_backbone` rebuilds all but the weights and the tokenizer's file."""
        value: dict[str, Any] = {
            "name": self.name,
            "architecture": self.architecture.to_dict(),
            "transform": self.transform.to_dict(),
            "width": self.width,
            "licence": self.licence,
            "origin": self.origin,
        }
        if self.tokenizer is not None:
            value["pad_id"] = self.tokenizer.pad_id
        return value

    def state_dict(self) -> dict[str, Tensor]:
        """Return every tensor of the network by name, contiguous and apart from one another; no batch counters."""
        return {
            name: tensor.detach().contiguous()
            for name, tensor in self.module.state_dict().items()
            if not is_counter(name)
        }

    def with_random_weights(self, seed: int) -> Backbone:
        """Return the same network freshly initialised, for training from scratch; this one stays as it is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build_network(self.architecture)
        fresh = copy.copy(self)
        fresh.module, fresh.source_head = module, None
        fresh.refresh()
        fresh.name, fresh.origin = f"{self.name} (random)", f"random initialisation, seed {seed}"
        return fresh
