"""Translation between two domains' images on the training loop, and rows seen through it: CycleGAN, CyCADA's image level.

    step:   translate   the generators' loss, over the segments            criticise   the critics' loss, over the critics

A translated source keeps its labels, so whatever trains on labelled rows (a plain classifier, or any recipe of adaptation: with
``dann`` it is CyCADA's feature level) trains on `TranslatedRows`.
Source: `headstart.methods.image_translation.terms`.
Use it for small images whose domains differ in how they are drawn. It ignores which classes there are, so it may exchange them; a
classifier of the source (``semantic``) holds against that as far as it is right.
Shapes: b images of a batch, c channels, h x w pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headstart.core.errors import ConfigError, ShapeError
from headstart.core.files import atomic_path
from headstart.core.progress import Progress
from headstart.core.seeds import derive_seed
from headstart.core.tasks import Task
from headstart.methods.image_translation.networks import Generator, Generators
from headstart.methods.image_translation.terms import GENERATORS, CycleTranslation, PatchCritics
from headstart.training import History, Network, Phase, TrainingConfig, TrainingRows, train
from headstart.training.checkpoint import Checkpoint
from headstart.training.rows import Rows

__all__ = ["ImageTranslation", "TranslatedRows", "Translator"]

_CONFIG = TrainingConfig(
    learning_rate=3e-3,
    betas=(0.5, 0.9),
    weight_decay=0.0,
    batch_size=16,
    max_epochs=10,
    precision="fp32",
)


@dataclass(frozen=True)
class Translator:
    """Two trained generators.

    Parameters
    ----------
    to_target, to_source : Generator
        From source images to target images, and back; in evaluation mode.
    history : History
        Of their training.
    """

    to_target: Generator
    to_source: Generator
    history: History = field(default_factory=History)

    def save(self, path: Path) -> Path:
        """Write the weights as one safetensors file and return its path."""
        parts = {"to_target": self.to_target, "to_source": self.to_source}
        tensors = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
        with atomic_path(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        return path

    def load(self, path: Path) -> Translator:
        """Take the weights that `save` wrote, for generators of the same size, and return this translator."""
        tensors = load_file(path)
        for name, part in (("to_target", self.to_target), ("to_source", self.to_source)):
            part.load_state_dict(
                {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
            )
        return self


@dataclass(frozen=True)
class ImageTranslation:
    """How to train a `Translator`.

    Parameters
    ----------
    config : TrainingConfig
        Of the loop; batches of 16, a rate of 3e-3 that falls to 0, and betas (0.5, 0.9), as such games need a short memory,
        when left out.
    cycle, identity, semantic : float, at least 0
        Weights of the generators' terms; ``semantic`` counts where a classifier is given.
    width, num_blocks : int
        Of the generators; the critics have the same width.
    seed : int
        Of all first weights.

    Examples
    --------
    >>> ImageTranslation().cycle
    10.0
    """

    config: TrainingConfig = field(default_factory=lambda: _CONFIG)
    cycle: float = 10.0
    identity: float = 0.0
    semantic: float = 1.0
    width: int = 16
    num_blocks: int = 2
    seed: int = 0

    def fit(
        self,
        source: TrainingRows,
        target: TrainingRows,
        task: Task,
        *,
        classifier: Network | None = None,
        checkpoint: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Translator:
        """Train both generators and their critics.

        Parameters
        ----------
        source, target : TrainingRows
            Images of one size, whose sides are multiples of 4. Labels are not looked at.
        task : Task
            What source labels mean.
        classifier : Network, optional
            Trained on the source, for the semantic terms.
        checkpoint : Path, optional
            Folder to go on from after a kill, and to save to.
        identity : mapping, optional
            What the checkpoint belongs to, as a JSON value.
        progress : Progress, optional
            Gets one stage.

        Raises
        ------
        ShapeError
            If images have no size that will do.
        TrainingError
            If a loss cannot be believed.
        """
        channels = self._channels(source, target)
        generators = [
            Generator(channels, self.width, self.num_blocks, derive_seed(self.seed, name))
            for name in ("to_target", "to_source")
        ]
        network = Network({GENERATORS: Generators(*generators)}, {"main": _Silent(task.num_outputs)})
        critics = PatchCritics(channels, self.width, self.seed)
        semantic = 0.0 if classifier is None else self.semantic
        translation = CycleTranslation(critics, classifier, self.cycle, self.identity, semantic)
        phases = [
            Phase((translation,), trains=("segments",), name="translate"),
            Phase((critics,), trains=("objectives",), name="criticise"),
        ]
        kept: Any = contextlib.nullcontext()
        if checkpoint is not None:
            kept = Checkpoint(checkpoint / "translate", identity=identity)
        with kept as saved:
            history = train(
                network,
                task,
                TrainingRows(source.inputs, None, source.indices),
                None,
                replace(self.config, restore_best=False),
                unlabelled=TrainingRows(target.inputs, None, target.indices),
                phases=phases,
                checkpoint=saved,
                progress=progress,
                stage="translate",
            )
        return Translator(generators[0], generators[1], history)

    @staticmethod
    def _channels(source: TrainingRows, target: TrainingRows) -> int:
        shapes = [tuple(rows.inputs.batch(rows.indices[:1], None)[0].shape[1:]) for rows in (source, target)]
        if shapes[0] != shapes[1] or len(shapes[0]) != 3 or any(side % 4 for side in shapes[0][1:]):
            raise ShapeError(
                "ImageTranslation: needs images (c, h, w) of one size whose sides are multiples of 4; got "
                f"{shapes[0]} and {shapes[1]}. Resize them first."
            )
        return int(shapes[0][0])


class TranslatedRows:
    """Rows as a generator changes them; never more than one batch at a time.

    Parameters
    ----------
    rows : Rows
        Images as network inputs.
    generator : nn.Module
        Changes them.

    Raises
    ------
    ConfigError
        If the generator is in training mode.
    """

    def __init__(self, rows: Rows, generator: nn.Module) -> None:
        if generator.training:
            raise ConfigError("TranslatedRows: the generator is still in training mode; call eval() first.")
        self.rows, self.generator = rows, generator
        self.dataset = getattr(rows, "dataset", None)

    @property
    def num_views(self) -> int:
        """How many fixed views a row has."""
        return self.rows.num_views

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[Tensor, ...]:
        """Return the network's arguments for some rows; see `headstart.training.rows.Rows`."""
        images, *others = self.rows.batch(indices, draws)
        device = next(self.generator.parameters()).device
        changed: Tensor = self.generator(images.to(device))
        return (changed.cpu(), *others)

    def close(self) -> None:
        """Let go of the rows."""
        self.rows.close()


class _Silent(nn.Module):
    """A head that a network must have, and that nothing here listens to."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    def forward(self, features: Tensor) -> Tensor:
        return features.new_zeros(len(features), self.num_outputs)
