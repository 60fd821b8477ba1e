"""What costs next to nothing, to stand beside a model: the majority class, and raw input with a linear model.

The third baseline, *from scratch*, needs a training loop and lives with it. Shapes: n rows, d features, k classes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import ConfigError
from headstart.core.preprocessing import ImageTransform
from headstart.core.seeds import derive_seed, generator
from headstart.core.tasks import Task

if TYPE_CHECKING:
    from headstart.data import Dataset

__all__ = ["RawBaseline", "majority_scores"]

Array = NDArray[Any]
_PIXELS = ImageTransform(32, 32, fit="squash", interpolation="bilinear")
_PENALTIES = (1.0, 10.0, 100.0)
_TUNING_ROWS = 3000


def majority_scores(task: Task, training_targets: Array, num_rows: int) -> NDArray[np.float64]:
    """Return the scores of a model that has only seen the training labels.

    Parameters
    ----------
    task : Task
        What is predicted.
    training_targets : array of shape (n,) or (n, k)
        Targets of the training rows.
    num_rows : int
        Rows to answer for.

    Returns
    -------
    float64 array of shape (num_rows, k), or (num_rows,) for regression
        Every row the same: the classes' shares (so the largest class is the answer, and the log-loss is the
        labels' entropy), or the mean.

    Examples
    --------
    >>> majority_scores(Task("classification", ("a", "b")), np.array([0, 0, 0, 1]), 2).tolist()
    [[0.75, 0.25], [0.75, 0.25]]
    >>> majority_scores(Task("regression"), np.array([1.0, 3.0]), 1).tolist()
    [2.0]
    """
    if task.kind == "regression":
        return np.full(num_rows, float(np.mean(training_targets)))
    if task.kind == "multilabel":
        share_k = np.asarray(training_targets, dtype=np.float64).mean(axis=0)
    else:
        share_k = np.bincount(training_targets, minlength=len(task.classes)) / len(training_targets)
    return np.tile(share_k, (num_rows, 1))


class RawBaseline:
    """The raw input with a linear model: what can be had without any base model.

    Images are squashed to 32 x 32 pixels, vectors taken as they are; both get the same head solver as the model.
    Texts become tf-idf weights of words and word pairs with logistic regression, one class against the rest, its penalty
    chosen on a held-out fifth of the training rows.

    Parameters
    ----------
    seed : int
        Splits for choosing the penalty.

    Attributes
    ----------
    trained : str
        How it was trained, in one sentence; for the report.
    cpu_seconds : float
        What fitting cost.

    Examples
    --------
    >>> from headstart.data import open_dataset
    >>> texts = ["good film", "bad film", "good play", "bad play"] * 5
    >>> rows = open_dataset(texts, labels=["yes", "no"] * 10)
    >>> RawBaseline().fit(rows).scores(rows).argmax(axis=1)[:2].tolist() == rows.targets[:2].tolist()
    True
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.trained = ""
        self.cpu_seconds = 0.0
        self._task = Task("regression")
        self._vectorizer: Any = None
        self._model: Any = None

    def fit(self, dataset: Dataset, groups: Array | None = None) -> RawBaseline:
        """Fit the linear model on labelled rows.

        Parameters
        ----------
        dataset : Dataset
            Training rows, all readable.
        groups : array of shape (n,), optional
            Rows of one group stay on one side when a penalty is chosen.
        """
        if dataset.task is None or dataset.targets is None:
            raise ConfigError("RawBaseline.fit: needs labelled rows; open the dataset with its labels.")
        started = time.process_time()
        self._task = dataset.task
        if dataset.modality == "text":
            self._fit_text(dataset, dataset.targets)
        else:
            from headstart.heads import solve_head

            self._model = solve_head(
                self._features(dataset),
                dataset.targets,
                dataset.task,
                seed=derive_seed(self.seed, "raw"),
                groups=groups,
            )
            what = "pixels of the image at 32 x 32" if dataset.modality == "image" else "raw columns"
            self.trained = f"{what}, with the same head solver as the model"
        self.cpu_seconds = time.process_time() - started
        return self

    def scores(self, dataset: Dataset) -> NDArray[np.float64]:
        """Return probabilities (m, k), or numbers (m,) for regression."""
        features = self._features(dataset)
        if dataset.modality != "text":
            return np.asarray(self._model.predict_scores(features), dtype=np.float64)
        if self._task.kind == "regression":
            return np.asarray(self._model.predict(features), dtype=np.float64)
        probabilities = np.asarray(self._model.predict_proba(features), dtype=np.float64)
        if self._task.kind == "classification" and probabilities.shape[1] != len(self._task.classes):
            full_mk = np.zeros((len(dataset), len(self._task.classes)))
            full_mk[:, self._model.classes_] = probabilities
            return full_mk
        return probabilities

    def _features(self, dataset: Dataset) -> Any:
        if dataset.modality == "vector":
            return dataset.matrix()
        if dataset.modality == "text":
            return self._vectorizer.transform(_texts(dataset))
        from headstart.data import decode_image

        pixels_nd = np.empty((len(dataset), 3 * _PIXELS.height * _PIXELS.width), dtype=np.float32)
        for index in range(len(dataset)):
            content = dataset.read(index)
            assert not isinstance(content, str)
            pixels_nd[index] = decode_image(content, _PIXELS).reshape(-1) / np.float32(255)
        return pixels_nd

    def _fit_text(self, dataset: Dataset, targets: Array) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(
            sublinear_tf=True, ngram_range=(1, 2), max_features=30_000, token_pattern=r"(?u)\b\w+\b|[^\w\s]"
        )
        features = self._vectorizer.fit_transform(_texts(dataset))
        penalty = self._choose_penalty(features, targets)
        self._model = _linear_model(self._task, penalty).fit(features, targets)
        kind = "ridge" if self._task.kind == "regression" else "logistic"
        self.trained = f"tf-idf of words and word pairs, {kind} regression (inverse penalty {penalty:g})"

    def _choose_penalty(self, features: Any, targets: Array) -> float:
        from headstart.evaluation.verdict import default_metric
        from headstart.metrics import METRICS

        rows = generator(self.seed, "raw penalty").permutation(len(targets))[:_TUNING_ROWS]
        held, train = rows[: len(rows) // 5], rows[len(rows) // 5 :]
        if len(held) < 2 or (self._task.kind == "classification" and len(np.unique(targets[train])) < 2):
            return _PENALTIES[1]
        metric = METRICS["accuracy" if self._task.kind == "classification" else default_metric(self._task)]
        best, best_value = _PENALTIES[1], -np.inf
        for penalty in _PENALTIES:
            self._model = _linear_model(self._task, penalty).fit(features[train], targets[train])
            answers = self._answers(features[held])
            value = metric(self._task, targets[held], answers) * (1 if metric.higher_is_better else -1)
            if value > best_value:
                best, best_value = penalty, value
        return best

    def _answers(self, features: Any) -> Array:
        """Return class indices or numbers (m,), or probabilities (m, k) where a row has several classes."""
        answers = (
            self._model.predict_proba(features) if self._task.kind == "multilabel" else self._model.predict(features)
        )
        return np.asarray(answers)


class _QuietModel:
    """A scikit-learn estimator whose slow convergence is no news: a baseline stops after 100 steps."""

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator

    def fit(self, features: Any, targets: Array) -> _QuietModel:
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", message="Label .* is present in all|Label not")
            self._estimator.fit(features, targets)
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._estimator, name)


def _linear_model(task: Task, penalty: float) -> _QuietModel:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    if task.kind == "regression":
        return _QuietModel(Ridge(alpha=1 / penalty, solver="sparse_cg"))
    # One class against the rest by liblinear: as accurate as the multinomial form here, in a tenth of its time.
    return _QuietModel(OneVsRestClassifier(LogisticRegression(C=penalty, max_iter=100, solver="liblinear")))


def _texts(dataset: Dataset) -> Iterable[str]:
    return [str(dataset.read(index)) for index in range(len(dataset))]
