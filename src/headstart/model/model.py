"""A trained model: backbone, head, task, and a sense of what the training rows were like."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.core.errors import DataError
from headstart.core.preprocessing import View
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.data import Dataset, is_table, open_dataset
from headstart.features import Features, FeatureStore, extract_features
from headstart.heads import Head
from headstart.model.novelty import NoveltyScorer
from headstart.model.predictions import Predictions, entropy_above, last_is_largest

__all__ = ["Model", "head_scores"]


@dataclass
class Model:
    """What `headstart.fit` makes and `headstart.load_model` reads back.

    Parameters
    ----------
    backbone : Backbone
        The base model, with its own preprocessing.
    head : Head
        Solved on the training rows' features (`LinearHead`), or trained (`NetworkHead`).
    task : Task
        What is predicted; class names in model order.
    novelty : NoveltyScorer, optional
        Knows the training rows' features.
    views : tuple of View
        Looks taken at every row; scores are averaged over them.
    runtime : str
        Label of the runtime the features were computed with, such as ``"openvino-bf16"``.
    provenance : dict
        Where it came from: data digest, rows, versions, command, figures.
    folder : Path, optional
        Where it was loaded from or saved to.
    unknown_above : float in (0, 1), optional
        Where training has prepared for classes that are none of the task's: the share of the largest entropy, log k, above
        which a row is answered "unknown". A head with an output for such rows (`headstart.heads.OpenSetHead`) needs none.
    feature_names : tuple of str
        Columns of the training table, in the order of the features: new tables are read by name, wherever their columns
        stand. Empty for rows that are no table's.
    content_column : str
        Column of texts or image paths of the training table, which is read from new tables that have it.
    """

    backbone: Backbone
    head: Head
    task: Task
    novelty: NoveltyScorer | None = None
    views: tuple[View, ...] = (View(),)
    runtime: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    unknown_above: float | None = None
    feature_names: tuple[str, ...] = ()
    content_column: str = ""

    def __repr__(self) -> str:
        return f"Model({self.backbone.name} + {type(self.head).__name__}, {self.task.kind}, {len(self.task.classes)} classes)"

    def features(
        self,
        rows: Dataset,
        *,
        runtime: str = "auto",
        store: FeatureStore | bool | None = None,
        progress: Progress | None = None,
    ) -> Features:
        """Return the rows' features, as training computed them."""
        if rows.modality != self.backbone.modality:
            raise DataError(
                f"Model: {self.backbone.name} reads {self.backbone.modality} rows, but {rows.root or 'these'} are "
                f"{rows.modality} rows; give rows of the kind the model was trained on."
            )
        return extract_features(rows, self.backbone, views=self.views, store=store, runtime=runtime, progress=progress)

    def predict(
        self,
        source: Any,
        *,
        text: str | None = None,
        image: str | None = None,
        runtime: str = "auto",
        store: FeatureStore | bool | None = None,
        progress: Progress | None = None,
    ) -> Predictions:
        """Return answers for rows of any form `open_dataset` takes; labels among them are not looked at.

        Parameters
        ----------
        source : path, DataFrame, array, list of texts or paths, or Dataset
            The rows: a folder (of images, or of class folders), one file, a table, an array.
        text, image : str, optional
            Column of a table that holds the text or the image path.
        runtime : str
            ``"auto"`` takes what is fastest here; answers agree between runtimes within bf16's tolerance.
        store : FeatureStore or bool, optional
            Feature cache; False computes everything anew.
        progress : Progress, optional
            Gets one stage.

        Raises
        ------
        DataError
            If the rows cannot be opened, or are of another kind than the model reads.
        """
        rows = self.open_rows(source, text=text, image=image)
        features = self.features(rows, runtime=runtime, store=store, progress=progress)
        return self.predict_features(features, [rows.ids[i] for i in features.kept])

    def predict_features(self, features: Features, ids: list[str]) -> Predictions:
        """Return answers for rows whose features are known already."""
        values = features.values_nd
        scores = head_scores(self.head, values)
        centre_nd = values if values.ndim == 2 else values[:, 0]
        if self.novelty is None:
            novelty_n = np.zeros(len(centre_nd))
        else:
            distances_n = self.novelty.distances(centre_nd).astype(np.float64)
            novelty_n = distances_n / max(self.novelty.threshold, 1e-12)
        return Predictions(
            self.task,
            ids,
            scores,
            novelty_n,
            novelty_n > 1,
            np.asarray(features.kept),
            features.failures,
            self._unknown(values, scores),
        )

    def _unknown(self, values: NDArray[np.float32], scores_nk: NDArray[np.float64]) -> NDArray[np.bool_] | None:
        """Return which rows are of none of the classes; None for a model that was not prepared to tell."""
        views = [values] if values.ndim == 2 else [values[:, view] for view in range(values.shape[1])]
        open_views = [found for found in map(self.head.open_probabilities, views) if found is not None]
        if open_views:
            return last_is_largest(np.mean(open_views, axis=0))
        if self.unknown_above is not None and self.task.kind == "classification":
            return entropy_above(scores_nk, float(self.unknown_above))
        return None

    def save(self, folder: str | Path) -> Path:
        """Write the model as a folder and return its path."""
        from headstart.model.folder import save_model

        return save_model(self, Path(folder))

    def columns_of(self, source: Any) -> dict[str, Any]:
        """Return what `open_dataset` must be told of a table's columns, so that the model's features are read by name."""
        if not is_table(source):
            return {}
        return {"features": self.feature_names or None, "prefer": self.content_column or None}

    def open_rows(self, source: Any, *, text: str | None = None, image: str | None = None) -> Dataset:
        """Return rows without labels, a table's columns in the order of the training table's.

        Parameters
        ----------
        source, text, image
            As for `predict`.
        """
        if isinstance(source, Dataset):
            names = source.feature_names
            return source.select_features(self.feature_names) if self.feature_names and names else source
        if self.backbone.modality == "text" and isinstance(source, (list, str)) and not _is_path(source):
            source = [source] if isinstance(source, str) else source
        return open_dataset(source, text=text, image=image, unlabelled=True, **self.columns_of(source))


def _is_path(source: list[str] | str) -> bool:
    return isinstance(source, str) and len(source) < 4096 and "\n" not in source and Path(source).exists()


def head_scores(head: Head, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return probabilities (n, k), or numbers (n,), averaged over the views where there are several.

    ``values`` has shape (n, d), or (n, views, d).
    """
    if values.ndim == 3:
        return np.asarray(np.mean([head_scores(head, values[:, v]) for v in range(values.shape[1])], axis=0))
    return np.asarray(head.predict_scores(values), np.float64)
