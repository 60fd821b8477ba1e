"""The frozen part of a network as a function of row numbers: what `extract_features` would keep, computed when it is asked for.

The rows go through in the same runtime, in batches of the same shape, and are rounded to the same number type as rows that are
kept, so that it makes no difference which of the two a training reads.
Shapes: b rows asked for, t tokens of a row, d numbers a token.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError
from headstart.core.preprocessing import ImageTransform, View
from headstart.data import Dataset, Finding
from headstart.features.batches import EXACT_TEXTS, Job, KeptPixels, image_batches, text_batches
from headstart.features.engine import Batch, FrozenPart, open_engine, rows_per_batch
from headstart.features.ragged import as_ragged, finite_rows, real_tokens, round_rows
from headstart.features.runtime import RuntimeChoice, default_threads

__all__ = ["PrefixRows"]


class PrefixRows:
    """Runs the rows that are asked for through a frozen part.

    Parameters
    ----------
    dataset : Dataset
        Images or texts.
    part : FrozenPart
        What they go through.
    views : sequence of View
        Images: looks to choose from.
    choice : RuntimeChoice
        How it is run, and the number type of what it gives.
    threads : int, optional
        Processor threads; all that this process may use when left out.
    max_pixel_bytes : float
        Decoded images kept in memory.
    keep : bool
        Keep the compiled network on disk.

    Raises
    ------
    HeadstartError
        If the runtime cannot run this network.
    """

    def __init__(
        self,
        dataset: Dataset,
        part: FrozenPart,
        views: Sequence[View],
        choice: RuntimeChoice,
        *,
        threads: int | None = None,
        max_pixel_bytes: float = 1e9,
        keep: bool = True,
    ) -> None:
        self.dataset, self.part, self.views, self.choice = dataset, part, tuple(views), choice
        self._threads = threads or default_threads()
        self._batch_rows = rows_per_batch(part, choice.runtime)
        self._pixels = KeptPixels(max_pixel_bytes)
        self._keys = [""] * len(dataset)
        self._engine = open_engine(part, choice.runtime, threads=self._threads, batch_rows=self._batch_rows, keep=keep)

    def rows(self, indices: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[Any]:
        """Return what some rows give, each through one view.

        Parameters
        ----------
        indices : int64 array of shape (b,)
            Row numbers; a row may be asked for more than once.
        views : int64 array of shape (b,)
            Number of the view of each.

        Returns
        -------
        array of shape (b, ...), or object array (b,) of arrays (t, d) inside a text encoder
            In the number type that rows are kept in; float32 at the stage "features".

        Raises
        ------
        DataError
            If a row cannot be read, or gives numbers that are not finite.
        """
        wanted = [Job(int(row), int(view)) for row, view in zip(indices, views, strict=True)]
        found: dict[Job, NDArray[Any]] = {}
        for batch, values in self._engine.run(self._batches(list(dict.fromkeys(wanted)))):
            for tag, value in zip(batch.tags, self._rounded(batch, values), strict=True):
                found[Job(tag.row, tag.view)] = value
        rows = [found[job] for job in wanted]
        return as_ragged(rows) if self.part.ragged else np.stack(rows)

    def _batches(self, jobs: list[Job]) -> Generator[Batch, None, None]:
        transform, backbone = self.part.backbone.transform, self.part.backbone
        if isinstance(transform, ImageTransform):
            return image_batches(
                self.dataset,
                transform,
                jobs,
                self.views,
                batch_rows=self._batch_rows,
                threads=self._threads,
                on_failure=self._refuse,
                kept=self._pixels,
            )
        return text_batches(
            self.dataset,
            backbone,
            jobs,
            self._keys,
            whole=self.choice.runtime.name == "torch",
            most=EXACT_TEXTS if self.part.exact else None,
            on_failure=self._refuse,
        )

    def _rounded(self, batch: Batch, values: NDArray[Any]) -> NDArray[Any]:
        values = real_tokens(batch, values) if self.part.ragged else values
        rounded = round_rows(values, self.choice.dtype)
        fits_n = finite_rows(rounded)
        if self.part.stage == "features":  # what is too large for the number type stays as it is
            rounded = np.where(fits_n[:, None], rounded.astype(np.float32), values)
            fits_n = finite_rows(rounded)
        if not fits_n.all():
            row = self.dataset.ids[batch.tags[int(np.argmin(fits_n))].row]
            raise DataError(
                f"the frozen part of {self.part.backbone.name}: {row} gives numbers that are not finite; leave it out."
            )
        return rounded

    def _refuse(self, row: int, finding: Finding) -> None:
        raise DataError(
            f"the frozen part of {self.part.backbone.name}: {self.dataset.ids[row]} cannot be read ({finding.message}); "
            "leave it out first."
        )
