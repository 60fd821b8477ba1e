"""Source images that look like the target's: rows, labels and order stay, pixels change before any network sees them.

    fda        the amplitudes of low frequencies are those of one target image, drawn for the row      (`swap_amplitude`)
    cyclegan   x + up(G(down x) - down x)                     G: a generator trained on both domains' images, made small
    cycada     the same, and a small classifier of the source says which classes G has to keep; a recipe (`dann`) goes on top

Source: of each, the modules `fourier`, `terms` and `cycada` of this package. That a row keeps one partner, and that a generator
of small images moves large ones by its change alone, is ours: a row changed once is read, embedded and cached like any other.
What the share of frequencies is taken of is ours, too: an image that a base model enlarges has no more of them than before, and a
share of the enlarged one would be most of a digit.
Use them where domains differ in light, colour, texture or the way they are drawn. They ignore rows that are no images.
Shapes: n source rows, m target rows, h x w pixels of an image before the crop, s the longer side of a small image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.backbones import Backbone
from headstart.core.digests import digest_array, digest_json, digest_many
from headstart.core.errors import ConfigError, DataError
from headstart.core.preprocessing import ImageTransform
from headstart.core.progress import Progress
from headstart.core.seeds import derive_seed
from headstart.core.tasks import Modality, Task
from headstart.data import Dataset, decode_image, sniff
from headstart.methods.adaptations import RecipeOf, source_only
from headstart.methods.adaptations.adversarial import dann
from headstart.methods.adaptations.carry_out import Adapting, adapt_network, loss_of, make_recipe
from headstart.methods.adaptations.heads import steps_to_epochs
from headstart.methods.image_translation.fourier import swap_amplitude
from headstart.methods.image_translation.thumbnails import (
    LEAST_SIDE,
    Thumbnails,
    are_grey,
    resized,
    small_size,
    thumbnails,
    to_bytes,
    to_unit,
)
from headstart.methods.image_translation.translating import ImageTranslation, Translator
from headstart.methods.tuning_rows import readable_rows
from headstart.training import Network, TrainingConfig, TrainingRows

__all__ = ["CyCADATranslation", "FourierTranslation", "GeneratorTranslation", "SourceTranslation"]

Pixels = NDArray[np.uint8]
Change = Callable[[Dataset], Dataset]

_BATCH = 32


@dataclass(frozen=True)
class SourceTranslation(ABC):
    """A way to change source images into images of the target. Its constructor is its configuration.

    Parameters
    ----------
    seed : int
        Of all that is drawn.
    """

    name: ClassVar[str]

    seed: int = field(default=0, kw_only=True)

    @property
    def recipe(self) -> RecipeOf:
        """What a network learns by on changed rows; nothing but the task's loss unless a method says otherwise."""
        return source_only

    def learn(
        self,
        source: Dataset,
        target: Dataset,
        backbone: Backbone,
        *,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> Change:
        """Learn from both domains, and return what changes source rows.

        Parameters
        ----------
        source : Dataset
            Images; with labels where the method keeps classes.
        target : Dataset
            Images; labels are not looked at.
        backbone : Backbone
            Whose preprocessing says how large images are read.
        checkpoint : Path, optional
            Folder to go on from after a kill, and to save to.
        progress : Progress, optional
            Gets a stage for each training.

        Returns
        -------
        callable
            Takes source rows, those learned from or others, and returns them changed, with all else they had.

        Raises
        ------
        ConfigError
            If rows are no images.
        DataError
            If there is no target row.
        """
        transform = backbone.transform
        if source.modality != "image" or not isinstance(transform, ImageTransform):
            raise ConfigError(
                f"{self.name}: changes the pixels of images, and these rows are {source.modality} rows; name a method that works "
                "on features, such as coral or mcc (`headstart methods`)."
            )
        if not len(target):
            raise DataError(f"{self.name}: needs target images to learn from; got none.")
        source, target = (readable_rows(rows, backbone, False, None, None)[0] for rows in (source, target.unlabelled()))
        whole = replace(
            transform, height=transform.resize_height, width=transform.resize_width, crop_fraction=1.0
        )  # what the crop is taken from
        return self._learn(source, target, whole, checkpoint, progress)

    @abstractmethod
    def _learn(
        self,
        source: Dataset,
        target: Dataset,
        transform: ImageTransform,
        checkpoint: Path | None,
        progress: Progress | None,
    ) -> Change: ...


@dataclass(frozen=True)
class FourierTranslation(SourceTranslation):
    """Every source image takes on the low-frequency amplitudes of one target image; nothing is trained.

    Parameters
    ----------
    size : float in [0, 0.5)
        How many frequencies, as a share of the shorter side of the smaller of the two images as they came (or of what the base
        model reads, where that is smaller); the middle one of the paper's three when left out.
    seed : int
        Draws the partners.

    Examples
    --------
    >>> FourierTranslation().name
    'fda'
    """

    name: ClassVar[str] = "fda"

    size: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.size < 0.5:
            raise ConfigError(f"FourierTranslation: size is a share of the shorter side in [0, 0.5); got {self.size}.")

    def _learn(
        self,
        source: Dataset,
        target: Dataset,
        transform: ImageTransform,
        checkpoint: Path | None,
        progress: Progress | None,
    ) -> Change:
        del source, checkpoint, progress
        others = target.digests()

        def partner(digest: str) -> int:
            return derive_seed(self.seed, "partner", digest) % len(others)

        def change(content: Any, digest: str) -> Pixels:
            other = _content(target, partner(digest))
            own, theirs = (to_unit(decode_image(image, transform)) for image in (content, other))
            read = min(own.shape[-2:])
            side = min(_shorter_side(content), _shorter_side(other), read)
            return to_bytes(swap_amplitude(own, theirs, self.size * side / read).clamp(0, 1))

        def identity(digest: str) -> str:
            return digest_json({"fda": self.size, "of": "own side", "partner": others[partner(digest)]})

        return lambda rows: _changed(rows, transform, change, identity)


@dataclass(frozen=True)
class GeneratorTranslation(SourceTranslation):
    """A generator, trained against critics on both domains' images made small, changes every source image.

    Parameters
    ----------
    side : int, at least 8
        Longer side of the small images, in pixels; images that are no larger are changed as they are.
    num_steps : int
        Steps of the game, about.
    width, num_blocks : int
        Of generators and critics.
    seed : int
        Of weights and every draw.

    Examples
    --------
    >>> GeneratorTranslation().name, CyCADATranslation().name
    ('cyclegan', 'cycada')
    """

    name: ClassVar[str] = "cyclegan"
    keeps_classes: ClassVar[bool] = False

    side: int = 32
    num_steps: int = 600
    width: int = 16
    num_blocks: int = 2

    def __post_init__(self) -> None:
        if self.side < LEAST_SIDE or self.num_steps < 1:
            raise ConfigError(
                f"{type(self).__name__}: side is at least {LEAST_SIDE} pixels and num_steps at least 1; got {self.side} and "
                f"{self.num_steps}."
            )

    def _learn(
        self,
        source: Dataset,
        target: Dataset,
        transform: ImageTransform,
        checkpoint: Path | None,
        progress: Progress | None,
    ) -> Change:
        if self.keeps_classes and (source.task is None or source.task.kind != "classification"):
            kind = "no" if source.task is None else source.task.kind
            raise ConfigError(f"{self.name}: keeps classes, and the source has {kind} labels; use cyclegan instead.")
        small = small_size(transform, self.side)
        images = [thumbnails(rows, transform, small) for rows in (source, target)]
        channels = 1 if are_grey(images) else 3
        labels = source.targets if self.keeps_classes else None
        rows, others = (
            TrainingRows(Thumbnails(part[:, :channels]), known)
            for part, known in zip(images, (labels, None), strict=True)
        )
        task = source.task if source.task is not None and self.keeps_classes else Task("classification", ("a", "b"))
        identity = {
            "translation": [self.name, self.side, self.num_steps, self.width, self.num_blocks, self.seed],
            "rows": [digest_many(part.digests()) for part in (source, target)],
            "labels": "" if labels is None else digest_array(labels),
        }
        classifier = None
        if self.keeps_classes:
            classifier = self._classifier(rows, others, task, (channels, *small), checkpoint, identity, progress)
        config = ImageTranslation().config
        epochs = steps_to_epochs(self.num_steps, len(rows), len(others), config.batch_size)
        config = replace(config, max_epochs=epochs, seed=self.seed)
        translator = ImageTranslation(
            config, width=self.width, num_blocks=self.num_blocks, seed=derive_seed(self.seed, "translation") % 2**31
        ).fit(rows, others, task, classifier=classifier, checkpoint=checkpoint, identity=identity, progress=progress)
        return _by_generator(translator, transform, small, grey=channels == 1)

    def _classifier(
        self,
        rows: TrainingRows,
        others: TrainingRows,
        task: Task,
        shape: tuple[int, int, int],
        checkpoint: Path | None,
        identity: dict[str, Any],
        progress: Progress | None,
    ) -> Network:
        """Return a small network that has learned the source's classes on small images."""
        config = TrainingConfig(
            learning_rate=2e-3,
            weight_decay=0.0,
            batch_size=_BATCH,
            max_epochs=steps_to_epochs(self.num_steps, len(rows), 1, _BATCH),
            precision="fp32",
            restore_best=False,
            seed=self.seed,
        )
        network = _small_network(shape, task.num_outputs, self.width, derive_seed(self.seed, "classifier") % 2**31)
        recipe = make_recipe(source_only, task, config, rows)
        job = Adapting(network, task, rows, others, recipe, config, loss_of(task, config, rows))
        folder = None if checkpoint is None else checkpoint / "classifier"
        adapt_network(job, checkpoint=folder, identity=identity, progress=progress)
        return network


@dataclass(frozen=True)
class CyCADATranslation(GeneratorTranslation):
    """As `GeneratorTranslation`, with a classifier of the source that the generators must not confuse, and `dann` on top."""

    name: ClassVar[str] = "cycada"
    keeps_classes: ClassVar[bool] = True

    @property
    def recipe(self) -> RecipeOf:
        """The paper's: features on which a critic cannot tell changed source rows from target rows."""
        return dann


class _ChangedImages:
    """Content of rows whose pixels a function changes; each is changed when it is read."""

    modality: Modality = "image"

    def __init__(
        self,
        rows: Dataset,
        transform: ImageTransform,
        change: Callable[[Any, str], Pixels],
        identity: Callable[[str], str],
    ) -> None:
        self._rows, self._transform, self._change, self._identity = rows, transform, change, identity
        self._digests = rows.digests()

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, position: int) -> Pixels:
        """Return changed pixels, as large as what the base model's crop is taken from."""
        return self._change(_content(self._rows, position), self._digests[position])

    def path(self, position: int) -> Path | None:
        """Return None: no file holds these pixels."""
        del position
        return None

    def digests(self, positions: Sequence[int], threads: int = 2) -> list[str]:
        """Return digests of what the rows were and of what changed them."""
        del threads
        return [
            digest_json({"row": own, "changed": self._identity(own), "size": self._transform.digest()}) if own else ""
            for own in (self._digests[position] for position in positions)
        ]


def _changed(
    rows: Dataset,
    transform: ImageTransform,
    change: Callable[[Any, str], Pixels],
    identity: Callable[[str], str],
) -> Dataset:
    """Return the rows with changed content and everything else they had."""
    return Dataset(
        _ChangedImages(rows, transform, change, identity),
        ids=rows.ids,
        task=rows.task,
        targets=rows.targets,
        groups=rows.groups,
        domains=rows.domains,
        given_split=rows.given_split,
        quarantine=rows.quarantine,
        notes=rows.notes,
        root=rows.root,
    )


def _by_generator(translator: Translator, transform: ImageTransform, small: tuple[int, int], *, grey: bool) -> Change:
    generator = translator.to_target.cpu().eval()
    own = digest_many(
        [digest_array(tensor.numpy()) for _, tensor in sorted(generator.state_dict().items())] + [str(small)]
    )

    @torch.no_grad()
    def change(content: Any, digest: str) -> Pixels:
        del digest
        image = 2 * to_unit(decode_image(content, transform)) - 1
        reduced = resized(image.mean(1, keepdim=True) if grey else image, small)
        moved: Tensor = generator(reduced) - reduced  # of a grey one the same for all channels
        return to_bytes(((image + resized(moved, tuple(image.shape[-2:])) + 1) / 2).clamp(0, 1))

    return lambda rows: _changed(rows, transform, change, lambda digest: own)


def _content(rows: Dataset, place: int) -> Any:
    return rows.read(place)


def _shorter_side(content: Any) -> int:
    """Return the shorter side of an image as it came, in pixels: bytes of a file, or pixels."""
    return min(sniff(content)[1:]) if isinstance(content, bytes) else min(content.shape[:2])


def _small_network(shape: tuple[int, int, int], num_outputs: int, width: int, seed: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        maps = nn.Sequential(
            nn.Conv2d(shape[0], width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        features = nn.Sequential(
            nn.Flatten(), nn.Linear(2 * width * (shape[1] // 4) * (shape[2] // 4), 4 * width), nn.ReLU()
        )
        return Network({"maps": maps, "features": features}, {"main": nn.Linear(4 * width, num_outputs)})
