"""The freeze boundary: rows as the activations that the frozen part of a network gives, computed once or for every batch.

    kept        every view of every row through the prefix once, onto the disk; a batch is read back
    computed    the rows of a batch through the prefix, whenever they are asked for

Both give the same numbers, since both run the prefix alike: the same runtime, batches of the same shape (the last padded),
rounded to the same number type. In exact mode (float32, the untouched network) a row's activations are a function of that row
alone to the last bit, so training from one equals training from the other bit for bit.
Which of them pays is arithmetic (`plan_boundary`), and the arithmetic is printed. What the store holds costs nothing, a killed
extraction goes on where it was, and what happens to the store later does not reach rows that are being read: they come from a
private copy. Reading ahead in a thread does not pay: reading a batch takes a fiftieth of the step that follows it.
Shapes: b rows of a batch, v views, t tokens, d numbers a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones import Backbone, Stage
from headstart.backbones.blocks import channels_last
from headstart.core.errors import ConfigError, DataError, StoreError
from headstart.core.preprocessing import View
from headstart.core.progress import Progress
from headstart.data import Dataset, Finding
from headstart.features import Features, FeatureStore, FrozenPart, RuntimeChoice, chosen_runtime, extract_features
from headstart.features.extract import feature_space
from headstart.features.prefix import PrefixRows
from headstart.features.ragged import pad_rows
from headstart.features.runtime import Runtime, default_threads
from headstart.training.boundary_plan import BoundaryPlan, plan_boundary

__all__ = ["BoundaryPlan", "BoundaryRows", "boundary_rows", "plan_boundary"]

_TEXTS_MEASURED = 256


class BoundaryRows:
    """Activations at the freeze boundary by row number; what a `Network` whose ``start`` lies behind it takes.

    Made by `boundary_rows`.

    Parameters
    ----------
    dataset : Dataset
        The rows.
    part : FrozenPart
        What gives the activations.
    views : tuple of View
        Fixed looks; the first is the plain one wherever nothing is drawn.
    choice : RuntimeChoice
        How they are computed.
    plan : BoundaryPlan
        Why they are kept or not.
    source : Features or PrefixRows
        Where they come from.

    Attributes
    ----------
    cached : bool
        Whether they are kept.
    failures : tuple of Finding
        Rows that cannot be read, as far as that is known.
    """

    def __init__(
        self,
        dataset: Dataset,
        part: FrozenPart,
        views: tuple[View, ...],
        choice: RuntimeChoice,
        plan: BoundaryPlan,
        source: Features | PrefixRows,
    ) -> None:
        self.dataset, self.part, self.views, self.choice, self.plan = dataset, part, views, choice, plan
        self.cached = isinstance(source, Features)
        self.failures: tuple[Finding, ...] = ()
        self._features = self._prefix = None
        if isinstance(source, Features):
            self._features, self.failures = source, source.failures
            self._place_n = np.full(len(dataset), -1, np.int64)
            self._place_n[source.kept] = np.arange(len(source.kept))
        else:
            self._prefix = source

    def __len__(self) -> int:
        return len(self.dataset)

    def __repr__(self) -> str:
        how = "kept" if self.cached else "computed"
        return f"BoundaryRows({len(self):,} rows at {self.part.stage}, {how}, {self.part.label(self.choice.runtime)})"

    @property
    def num_views(self) -> int:
        """How many fixed views a row has."""
        return len(self.views)

    def identity(self) -> dict[str, Any]:
        """Return what the numbers depend on, as a JSON value; whether they are kept is no part of it."""
        views = [view.name for view in self.views]
        return {**self.part.key(), "views": views, "runtime": self.choice.runtime.label, "dtype": self.choice.dtype}

    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[Tensor, ...]:
        """Return the activations of some rows.

        Parameters
        ----------
        indices : int64 array of shape (b,)
            Row numbers.
        draws : uint64 array of shape (b,), optional
            One random number a row: the view is ``draw % num_views``. The first view when left out.

        Returns
        -------
        tuple of Tensor
            One float32 tensor (b, ...), in channels_last memory where it has channels; or, inside a text encoder, hidden states
            float32 (b, t, d), padded to the longest of these rows, and their mask int64 (b, t).

        Raises
        ------
        DataError
            If a row cannot be read.
        """
        rows = np.asarray(indices, np.int64)
        views = np.zeros(len(rows), np.int64)
        if draws is not None:
            views = (np.asarray(draws, np.uint64) % np.uint64(self.num_views)).astype(np.int64)
        values = self._prefix.rows(rows, views) if self._prefix is not None else self._kept(rows, views)
        if self.part.ragged:
            return tuple(torch.from_numpy(array) for array in pad_rows(list(values)))
        tensor = torch.from_numpy(values)
        if values.ndim == 4 and not channels_last(values.shape[1:], self.part.backbone.stages[0].shape):
            tensor = tensor.contiguous(memory_format=torch.channels_last)  # while it takes half the bytes
        return (tensor.float(),)

    def _kept(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> Any:
        if self._features is None:
            raise ConfigError("BoundaryRows: these rows were closed; open them again.")
        places = self._place_n[rows]
        if (places < 0).any():
            row = self.dataset.ids[int(rows[np.argmin(places)])]
            why = next((item.message for item in self.failures if row in item.rows), "cannot be read")
            raise DataError(f"BoundaryRows: {row} has no activations ({why}); leave it out first.")
        if self._features.ragged is not None:
            return [self._features.ragged.row(place) for place in places]
        values = self._features.values_nd
        return values[places] if self.num_views == 1 else values[places, views]

    def close(self) -> None:
        """Let go of the private copy or the network."""
        self._features = self._prefix = None


def boundary_rows(
    dataset: Dataset,
    backbone: Backbone,
    stage: str | int | Stage,
    views: Sequence[View] = (View(),),
    *,
    epochs: int = 10,
    cached: bool | None = None,
    runtime: str = "auto",
    exact: bool = False,
    store: FeatureStore | bool | None = None,
    max_bytes: float = 20e9,
    max_pixel_bytes: float = 1e9,
    threads: int | None = None,
    progress: Progress | None = None,
) -> BoundaryRows:
    """Return rows as activations at the freeze boundary.

    Parameters
    ----------
    dataset : Dataset
        Labels are not looked at.
    backbone : Backbone
        With the weights that the frozen part keeps; what becomes of the rest does not matter.
    stage : str, int or Stage
        The last stage of the frozen part; ``"features"`` where only a head trains.
    views : sequence of View
        Images: fixed looks, of which training draws one each time. The first is the plain one.
    epochs : int
        How often training will see every row, which decides whether keeping them pays.
    cached : bool, optional
        Keep them, or compute them for each batch; decided by `plan_boundary` when left out.
    runtime : str
        As for `extract_features`; ``"torch-fp32"`` is exact.
    exact : bool
        Run the untouched network in float32, so that kept and computed rows are equal bit for bit.
    store : FeatureStore or bool, optional
        Where they are kept for other runs, too; the user's cache when left out or True, nowhere for False.
    max_bytes : float
        Disk that may be taken.
    max_pixel_bytes : float
        Memory for decoded images where activations are computed each time.
    threads : int, optional
        Processor threads; all that this process may use when left out.
    progress : Progress, optional
        Is told the arithmetic, and gets a stage "embed" where rows are kept.

    Raises
    ------
    ConfigError
        If rows are features already, or the stage, a view or the runtime breaks its rule.
    DataError
        If the modalities differ, or no row can be read.
    """
    exact = exact or runtime == Runtime().label
    _check(dataset, backbone, stage, views)
    said = progress or Progress(quiet=True)
    if store is None or isinstance(store, bool):
        store = None if store is False else FeatureStore()
    part = FrozenPart(backbone, stage, exact=exact)
    choice = chosen_runtime(dataset, part, runtime=runtime, store=store, threads=threads)
    plan = plan_boundary(
        backbone,
        stage,
        len(dataset),
        len(views),
        epochs,
        disk_budget=max_bytes if store is None else min(max_bytes, 2 * store.max_bytes),
        choice=choice,
        tokens=_mean_tokens(dataset, backbone),
        num_held=_num_held(dataset, part, views, choice, store, threads),
        store=store is not None,
        exact=exact,
        max_pixel_bytes=max_pixel_bytes,
    )
    if cached is None or cached == plan.cached:
        said.say(plan.reason)
    if plan.cached if cached is None else cached:
        try:
            features = extract_features(
                dataset,
                backbone,
                stage=part.stage,
                views=views,
                store=store if store is not None else False,
                runtime=runtime,
                exact=exact,
                threads=threads,
                progress=said,
            )
            return BoundaryRows(dataset, part, tuple(views), choice, plan, features)
        except StoreError as error:
            said.say(f"activations at {part.stage} are computed for each batch: {error}")
    prefix = PrefixRows(
        dataset, part, views, choice, threads=threads, max_pixel_bytes=max_pixel_bytes, keep=store is not None
    )
    return BoundaryRows(dataset, part, tuple(views), choice, plan, prefix)


def _check(dataset: Dataset, backbone: Backbone, stage: str | int | Stage, views: Sequence[View]) -> None:
    if backbone.modality == "vector" or backbone.stage(stage).name == "input":
        raise ConfigError(
            f"boundary_rows: nothing of {backbone.name} comes before {backbone.stage(stage).name!r}; "
            "train from the rows themselves (InputRows)."
        )
    if dataset.modality != backbone.modality:
        raise DataError(
            f"boundary_rows: {backbone.name} reads {backbone.modality} rows but the data set holds {dataset.modality} "
            f"rows; choose a base model for {dataset.modality}."
        )
    if not len(dataset):
        raise DataError("boundary_rows: there are no rows; give at least one.")
    if not views or (backbone.modality != "image" and tuple(views) != (View(),)):
        raise ConfigError("boundary_rows: images have one view or more, other rows the plain one alone.")


def _mean_tokens(dataset: Dataset, backbone: Backbone) -> float | None:
    """Return the mean length of the first texts."""
    if backbone.modality != "text":
        return None
    texts = [str(dataset.read(row)) for row in range(min(len(dataset), _TEXTS_MEASURED))]
    return float(np.mean([len(tokens) for tokens in backbone.tokenize(texts)]))


def _num_held(
    dataset: Dataset,
    part: FrozenPart,
    views: Sequence[View],
    choice: RuntimeChoice,
    store: FeatureStore | None,
    threads: int | None,
) -> int:
    """Return how many rows, times views, the store holds."""
    if store is None:
        return 0
    keys = [key for key in dataset.digests(threads or default_threads()) if key]
    return sum(int(store.holds(feature_space(part, view, choice), keys).sum()) for view in views)
