"""Feature extraction: every row through the frozen part of a base model, once ever.

    digests -> what the store knows -> decode (threads) -> network (runtime) -> store

Decoding, computing and writing overlap; memory does not grow with the number of rows beyond the features themselves. Rows of
equal content are computed once. What the store holds is not computed again, and where it holds everything the network is not even
asked for. Rows that cannot be read are left out and reported.
Shapes: n rows kept, v views, d features, t tokens of a row, m tokens of all rows.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone, Stage
from headstart.core.errors import ConfigError, DataError, ShapeError
from headstart.core.places import cache_folder
from headstart.core.preprocessing import ImageTransform, View
from headstart.core.progress import Progress
from headstart.core.progress import Stage as ProgressStage
from headstart.data import Dataset, Finding
from headstart.features.batches import EXACT_TEXTS, Job, Tag, image_batches, text_batches
from headstart.features.engine import Batch, FrozenPart, borrowed_engine, rows_per_batch
from headstart.features.probe import choice_key, choose_runtime
from headstart.features.ragged import RaggedRows, RaggedTable, finite_rows, real_tokens, round_rows
from headstart.features.runtime import Runtime, RuntimeChoice, default_threads, recall
from headstart.features.store import FeatureStore, Space
from headstart.features.table import RowTable
from headstart.features.writer import StoreWriter

__all__ = ["Features", "chosen_runtime", "exact_runtime", "extract_features", "feature_space"]

_LOOKED_UP_AT_ONCE, _LARGE_LOOKED_UP_AT_ONCE = 2048, 64
_PROBE_TEXTS = 8
_PROBE_TEXTS_READ = 256


@dataclass(frozen=True)
class Features:
    """Features of a data set's rows, and what they cost.

    Parameters
    ----------
    values_nd : array of shape (n, d), or (n, v, d) for several views
        float32. At a stage inside the network (n, *shape) or (n, v, *shape), in the number type of the store, mapped from disk
        where large. At a stage inside a text encoder (m, d): the tokens of all rows, which ``ragged`` tells apart.
    kept : int64 array of shape (n,)
        Which rows of the data set these are.
    failures : tuple of Finding
        Rows left out, and why.
    runtime : Runtime
        What computed them.
    choice : RuntimeChoice or None
        Why that runtime; None where nothing was chosen (rows that are features already).
    from_cache, computed : int
        Rows (times views) that cost nothing (found in the store, or equal to another row), and those computed now.
    cpu_seconds, wall_seconds : float
        What this call took; CPU seconds of all threads of this process.
    notes : tuple of str
        What a person should know, such as a cache that could not be written.
    ragged : RaggedRows or None
        Rows of unequal length: at a stage inside a text encoder, and only there.
    """

    values_nd: NDArray[Any]
    kept: NDArray[np.int64]
    failures: tuple[Finding, ...] = ()
    runtime: Runtime = field(default_factory=Runtime)
    choice: RuntimeChoice | None = None
    from_cache: int = 0
    computed: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    ragged: RaggedRows | None = None


def extract_features(
    dataset: Dataset,
    backbone: Backbone,
    *,
    stage: str | int | Stage = "features",
    views: Sequence[View] = (View(),),
    store: FeatureStore | bool | None = None,
    runtime: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    exact: bool = False,
    progress: Progress | None = None,
) -> Features:
    """Return the features of every readable row.

    Parameters
    ----------
    dataset : Dataset
        Labels are not looked at.
    backbone : Backbone
        Of the same modality.
    stage : str, int or Stage
        Where the network is cut: the last stage, or one inside. Texts have one vector a token there, kept without padding.
    views : sequence of View
        Looks taken at every image.
    store : FeatureStore or bool, optional
        Where features are kept; the user's cache when left out or True, nothing is kept for False.
    runtime : str
        ``"auto"`` measures and remembers the fastest; or ``"torch"``, ``"openvino"``, or a label such as ``"torch-fp32"``.
    batch_size : int, optional
        Images at once; what suits the runtime when left out. Memory and speed depend on it, features do not beyond rounding.
    threads : int, optional
        Processor threads; all that this process may use when left out.
    exact : bool
        Run the untouched network in float32, always on the same number of rows: what a row gives is then a function of that row
        alone, to the last bit, whatever rows are computed with it. Slower.
    progress : Progress, optional
        Gets one stage, "embed".

    Raises
    ------
    DataError
        If the modalities differ, or no row at all can be read.
    ConfigError
        If a stage, view, runtime, batch size or number of threads breaks its rule.
    StoreError
        If the rows at a stage inside the network do not fit on the disk.

    Examples
    --------
    >>> from headstart.backbones import vector_backbone
    >>> from headstart.data import open_dataset
    >>> rows = open_dataset(np.eye(3, dtype=np.float32), unlabelled=True)
    >>> extract_features(rows, vector_backbone(3)).values_nd.tolist()[0]
    [1.0, 0.0, 0.0]
    """
    started = time.perf_counter(), time.process_time()
    _check(dataset, backbone, views, batch_size, threads)
    if exact:
        runtime = exact_runtime(runtime)
    if backbone.modality == "vector":
        return _vectors(dataset, backbone, stage, started)
    if store is None or isinstance(store, bool):
        store = None if store is False else FeatureStore()
    part = FrozenPart(backbone, stage, exact=exact)
    extraction = _Extraction(dataset, part, tuple(views), store, batch_size, threads or default_threads())
    with (progress or Progress(quiet=True)).stage("embed", len(dataset) * len(views)) as line:
        return extraction.run(runtime, line, started)


def _check(
    dataset: Dataset, backbone: Backbone, views: Sequence[View], batch_size: int | None, threads: int | None
) -> None:
    if dataset.modality != backbone.modality:
        raise DataError(
            f"extract_features: {backbone.name} reads {backbone.modality} rows but the data set holds {dataset.modality} "
            f"rows; choose a base model for {dataset.modality}."
        )
    if not views:
        raise ConfigError("extract_features: views needs at least one view; leave it out for the plain one.")
    if backbone.modality != "image" and tuple(views) != (View(),):
        raise ConfigError(f"extract_features: flips and crops are for images; {backbone.modality} rows have one view.")
    for name, value in (("batch_size", batch_size), ("threads", threads)):
        if value is not None and value < 1:
            raise ConfigError(f"extract_features: {name} is at least 1; got {value}.")


def chosen_runtime(
    dataset: Dataset,
    part: FrozenPart,
    *,
    runtime: str = "auto",
    store: FeatureStore | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
) -> RuntimeChoice:
    """Return what `extract_features` would compute these rows with; measured on the first of them if it is not known yet.

    Raises
    ------
    ConfigError
        If the wanted runtime cannot run this network.
    DataError
        If no row can be read.
    """
    want = exact_runtime(runtime) if part.exact else runtime
    return _Extraction(dataset, part, (View(),), store, batch_size, threads or default_threads())._choose(want)


def exact_runtime(runtime: str) -> str:
    """Return the one runtime that is exact; refuse another that was asked for by name."""
    plain = Runtime().label
    if runtime not in {"auto", "torch", plain}:
        raise ConfigError(f"extract_features: only {plain} is exact; got runtime={runtime!r}: leave it out, or exact.")
    return plain


def _vectors(dataset: Dataset, backbone: Backbone, stage: str | int | Stage, started: tuple[float, float]) -> Features:
    """Return rows that are features already; one with a number that is not finite is left out."""
    FrozenPart(backbone, stage)  # refuses a stage inside
    values_nd = dataset.matrix()
    if values_nd.shape[1] != backbone.width:
        raise ShapeError(
            f"extract_features: {backbone.name} reads {backbone.width} numbers a row but the rows hold {values_nd.shape[1]}; "
            "give rows of the width the model was made for."
        )
    finite_n = np.isfinite(values_nd).all(axis=1)
    failures = tuple(_not_finite(dataset.ids[row]) for row in np.flatnonzero(~finite_n))
    kept = np.flatnonzero(finite_n)
    return Features(
        values_nd=values_nd if finite_n.all() else values_nd[kept],
        kept=kept,
        failures=failures,
        runtime=Runtime("none"),
        computed=len(kept),
        cpu_seconds=time.process_time() - started[1],
        wall_seconds=time.perf_counter() - started[0],
    )


def _not_finite(row: str) -> Finding:
    return Finding("non-finite", "error", (row,), "its features are not finite numbers")


class _Extraction:
    """One call of `extract_features` on images or texts."""

    def __init__(
        self,
        dataset: Dataset,
        part: FrozenPart,
        views: tuple[View, ...],
        store: FeatureStore | None,
        batch_size: int | None,
        threads: int,
    ) -> None:
        self.dataset, self.part, self.views = dataset, part, views
        self.store, self.batch_size, self.threads = store, batch_size, threads
        self.keys = dataset.digests(threads)
        first: dict[str, int] = {}
        # a row without a digest cannot be read; decoding it says why
        owners = [first.setdefault(key, row) if key else row for row, key in enumerate(self.keys)]
        self.owners_n = np.array(owners, np.int64)
        self.owned = np.flatnonzero(self.owners_n == np.arange(len(owners)))
        self.failed: dict[int, Finding] = {}
        self.done: list[int] = []
        self.notes: list[str] = []

    def run(self, want: str, line: ProgressStage, started: tuple[float, float]) -> Features:
        if not len(self.dataset):
            return Features(np.zeros((0, self.part.backbone.width), np.float32), np.zeros(0, np.int64))
        choice = self._choose(want)
        line.note = choice.runtime.label
        table = self._table(choice)
        spaces = [self._space(view, choice) for view in self.views]
        missing = [job for at, space in enumerate(spaces) for job in self._from_store(table, at, space)]
        missing.sort()  # the views of a row one after another, while its file is at hand
        free = len(self.dataset) * len(self.views) - len(missing)
        line.advance(free, free)
        if missing:
            self._compute(missing, table, spaces, choice, line)
        computed = sum(row not in self.failed for row in self.done)
        lost_n = np.isin(self.owners_n, list(self.failed))
        kept = np.flatnonzero(~lost_n)
        if not len(kept):
            raise self._none_readable()
        values = table.finish(self.owners_n, kept)
        ragged = values if isinstance(values, RaggedRows) else None
        return Features(
            values_nd=values.values_md if isinstance(values, RaggedRows) else values,
            kept=kept,
            failures=tuple(self._failure(int(row)) for row in np.flatnonzero(lost_n)),
            runtime=choice.runtime,
            choice=choice,
            from_cache=len(kept) * len(self.views) - computed,
            computed=computed,
            cpu_seconds=time.process_time() - started[1],
            wall_seconds=time.perf_counter() - started[0],
            notes=tuple(self.notes),
            ragged=ragged,
        )

    def _choose(self, want: str) -> RuntimeChoice:
        known = recall(choice_key(self.part, want, self.threads))
        if known is not None or want == Runtime().label:
            return known or RuntimeChoice(Runtime())
        sample = self._sample()
        if sample is None:
            raise self._none_readable()
        return choose_runtime(self.part, sample, want=want, threads=self.threads, keep=self.store is not None)

    def _sample(self) -> Batch | None:
        """Return the first readable images, or a few texts of middling length, for the probe."""
        if self.part.backbone.modality == "image":
            jobs = (Job(int(row), 0) for row in self.owned)
            rows = self.batch_size or rows_per_batch(self.part, Runtime("openvino"))
        else:
            texts = [Job(int(row), 0) for row in self.owned[:_PROBE_TEXTS_READ]]
            lengths = sorted(
                (batch.arrays[0].shape[1], tag.row)
                for batch in self._text_batches(texts, whole=False)
                for tag in batch.tags
            )
            middle = max(0, len(lengths) // 2 - _PROBE_TEXTS // 2)
            jobs, rows = (Job(row, 0) for _, row in lengths[middle : middle + _PROBE_TEXTS]), 0
        with contextlib.closing(self._batches(jobs, Runtime("openvino"), rows)) as batches:
            return next(batches, None)

    def _batches(self, jobs: Iterable[Job], runtime: Runtime, rows: int) -> Generator[Batch, None, None]:
        transform = self.part.backbone.transform
        if not isinstance(transform, ImageTransform):
            # torch's bits depend on how many rows a batch has, OpenVINO's do not
            return self._text_batches(jobs, whole=runtime.name == "torch")
        return image_batches(
            self.dataset,
            transform,
            jobs,
            self.views,
            batch_rows=rows,
            threads=self.threads,
            on_failure=self.failed.__setitem__,
        )

    def _text_batches(self, jobs: Iterable[Job], whole: bool) -> Generator[Batch, None, None]:
        return text_batches(
            self.dataset,
            self.part.backbone,
            jobs,
            self.keys,
            whole=whole,
            most=EXACT_TEXTS if self.part.exact else None,
            on_failure=self.failed.__setitem__,
        )

    def _table(self, choice: RuntimeChoice) -> RowTable | RaggedTable:
        size = len(self.dataset), len(self.views)
        if self.part.ragged:
            return RaggedTable(len(self.dataset), choice.dtype, cache_folder() / "rows")
        if self.part.stage == "features":
            return RowTable(*size, np.float32)
        return RowTable(*size, choice.dtype, cache_folder() / "rows")

    def _space(self, view: View, choice: RuntimeChoice) -> Space:
        return feature_space(self.part, view, choice)

    def _from_store(self, table: RowTable | RaggedTable, view: int, space: Space) -> Iterator[Job]:
        """Fill in what the store holds of one view; yield what it does not."""
        at_once = _LOOKED_UP_AT_ONCE if self.part.stage == "features" else _LARGE_LOOKED_UP_AT_ONCE
        for start in range(0, len(self.owned), at_once):
            rows = self.owned[start : start + at_once]
            known_n = np.array([bool(self.keys[row]) for row in rows])
            if self.store is not None and known_n.any():
                found_n, values = self.store.get(space, [self.keys[row] for row in rows[known_n]])
                if found_n.any():
                    table.set(rows[known_n][found_n], view, values)
                known_n[known_n] = found_n
            else:
                known_n[:] = False
            yield from (Job(int(row), view) for row in rows[~known_n])

    def _compute(
        self,
        missing: list[Job],
        table: RowTable | RaggedTable,
        spaces: list[Space],
        choice: RuntimeChoice,
        line: ProgressStage,
    ) -> None:
        """Run what is missing through the network, into the table and the store."""
        rows = self.batch_size or rows_per_batch(self.part, choice.runtime)
        writer = StoreWriter(self.store, spaces)
        with contextlib.closing(self._batches(missing, choice.runtime, rows)) as batches:
            first = next(batches, None)
            if first is None:  # nothing is readable: no need for a network
                line.advance(len(missing))
                return
            borrowed = borrowed_engine(
                self.part, choice.runtime, threads=self.threads, batch_rows=rows, keep=self.store is not None
            )
            try:
                with borrowed as engine:
                    for batch, values in engine.run(itertools.chain([first], batches)):
                        self._take(batch.tags, self._unpadded(batch, values), table, writer, choice)
                        line.advance(len(batch.tags))
            finally:
                writer.flush()  # what was computed is kept, whatever ended the run
        if writer.trouble:
            self.notes.append(f"going on without the cache: {writer.trouble}")
            line.progress.say(self.notes[-1])
        line.advance(len(missing) - len(self.done))

    def _unpadded(self, batch: Batch, values: NDArray[Any]) -> NDArray[Any]:
        return real_tokens(batch, values) if self.part.ragged else values

    def _take(
        self,
        tags: list[Tag],
        values: NDArray[Any],
        table: RowTable | RaggedTable,
        writer: StoreWriter,
        choice: RuntimeChoice,
    ) -> None:
        """Put a batch where it belongs; what is returned is rounded as what is stored, so that a repeat gives the same."""
        stored = round_rows(values, choice.dtype)
        sound_n, fits_n = finite_rows(values), finite_rows(stored)
        if (
            self.part.stage == "features" and not fits_n.all()
        ):  # too large for the store's number type: returned as it is
            rounded = np.where(fits_n[:, None], stored.astype(np.float32), values)
        else:
            rounded, sound_n = stored, fits_n
        for view in sorted({tag.view for tag in tags}):
            mine = np.array([tag.view == view for tag in tags])
            table.set([tag.row for tag in tags if tag.view == view], view, rounded[mine])
            chosen = np.flatnonzero(mine & fits_n)
            writer.add(view, [tags[at].key for at in chosen], stored[chosen])
        for at in np.flatnonzero(~sound_n):
            self.failed[tags[at].row] = _not_finite(self.dataset.ids[tags[at].row])
        self.done.extend(tag.row for tag in tags)

    def _failure(self, row: int) -> Finding:
        """Return what is wrong with a row: what is wrong with the row that has its content."""
        finding = self.failed[int(self.owners_n[row])]
        return Finding(finding.kind, finding.severity, (self.dataset.ids[row],), finding.message)

    def _none_readable(self) -> DataError:
        row, finding = next(iter(self.failed.items()))
        return DataError(
            f"extract_features: none of the {len(self.dataset)} rows of {self.dataset.root or 'the data set'} can be read; "
            f"for instance {self.dataset.ids[row]}: {finding.message}"
        )


def feature_space(part: FrozenPart, view: View, choice: RuntimeChoice) -> Space:
    """Return where the store keeps what a part gives for one view, computed by one runtime."""
    key = part.key()
    return Space(
        weights_digest=key["weights"],
        stage=key["stage"],
        transform_digest=key["transform"],
        view=view.name,
        runtime=part.label(choice.runtime),
        dtype=choice.dtype,
        backbone=part.backbone.name,
    )
