"""Temperature scaling: one number that makes probabilities mean what they say.

    p = softmax(scores / T)   (several labels at once: p = sigmoid(scores / T))
    T minimises the log loss of held-out rows

Source: Guo et al., "On calibration of modern neural networks", ICML 2017 (arXiv:1706.04599), section 4.2. True labels
are drawn in by 1 / (n + 2), after Platt, "Probabilistic outputs for support vector machines", 1999, so that rows which
are all right do not ask for certainty.
Use it on scores of rows the solver has not seen. It ignores errors of order: the predicted class never changes.
Shapes: n rows, k outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.tasks import Task

__all__ = ["fit_temperature", "log_losses", "to_probabilities"]

Array = npt.NDArray[Any]


def to_probabilities(task: Task, scores_nk: Array, temperature: float = 1.0) -> Array:
    """Return probabilities (n, k): a softmax over classes, or a sigmoid for each label.

    Examples
    --------
    >>> to_probabilities(Task("classification", ("a", "b")), np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]])
    """
    scaled = np.asarray(scores_nk) / temperature
    if task.kind == "multilabel":
        positive = np.exp(-np.abs(scaled))
        probabilities: Array = np.where(scaled >= 0, 1.0, positive) / (1.0 + positive)
        return probabilities
    raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities = raised / raised.sum(axis=1, keepdims=True)
    return probabilities


def log_losses(task: Task, scores_nk: Array, targets: Array, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Return the surprise of every row in nats, shape (n,); with several labels at once the mean over labels."""
    scaled = np.asarray(scores_nk, dtype=np.float64) / temperature
    if task.kind == "multilabel":
        losses: npt.NDArray[np.float64] = (np.logaddexp(0.0, scaled) - scaled * targets).mean(axis=1)
        return losses
    highest = scaled.max(axis=1)
    total = np.log(np.exp(scaled - highest[:, None]).sum(axis=1)) + highest
    return np.asarray(total - scaled[np.arange(len(targets)), targets], dtype=np.float64)


def fit_temperature(
    task: Task, scores_nk: Array, targets: Array, weights_n: Array, start: float | None = None
) -> float:
    """Return the temperature that minimises the weighted log loss of held-out scores.

    Parameters
    ----------
    task : Task
        Classification or several labels at once.
    scores_nk : ndarray of shape (n, k)
        Of rows the solver has not seen.
    targets : ndarray of shape (n,) or (n, k)
        In the task's own type.
    weights_n : ndarray of shape (n,)
        Positive.
    start : float, optional
        A temperature near by; saves steps.

    Returns
    -------
    float
        Positive. 1 when the scores do not vary.

    Examples
    --------
    >>> task = Task("classification", ("a", "b"))
    >>> scores = np.tile([1.0, 0.0], (4, 1))                   # always equally sure, right 3 times of 4
    >>> smoothed = (3 * (1 - 1 / 6) + 1 / 6) / 4               # 2 of 3
    >>> temperature = fit_temperature(task, scores, np.array([0, 0, 0, 1]), np.ones(4))
    >>> bool(abs(temperature - 1 / np.log(smoothed / (1 - smoothed))) < 1e-6)
    True
    """
    scores = np.asarray(scores_nk, dtype=np.float64)
    weights = weights_n / weights_n.sum()
    spread = float(scores.std())
    if not spread > 0:
        return 1.0
    drawn_in = 1.0 / (len(scores) + 2.0)
    if task.kind == "multilabel":
        wanted_n = ((targets * (1 - 2 * drawn_in) + drawn_in) * scores).sum(axis=1)
    else:
        others = (scores.sum(axis=1) - scores[np.arange(len(scores)), targets]) / max(scores.shape[1] - 1, 1)
        wanted_n = (1 - drawn_in) * scores[np.arange(len(scores)), targets] + drawn_in * others
    wanted = float(weights @ wanted_n)
    inverse = 1.0 / start if start else 1.0 / spread
    for _ in range(50):
        slope, curvature = _derivatives(task, scores, weights, inverse)
        step = (slope - wanted) / max(curvature, 1e-300)
        following = float(np.clip(inverse - step, inverse / 4, inverse * 4))
        following = float(np.clip(following, 1e-4 / spread, 1e4 / spread))
        if abs(following - inverse) <= 1e-4 * inverse:
            return 1.0 / following
        inverse = following
    return 1.0 / inverse


def _derivatives(task: Task, scores: Array, weights: Array, inverse: float) -> tuple[float, float]:
    """Return the mean and the variance of the scores under the model: the log partition's two derivatives."""
    probabilities = to_probabilities(task, scores * inverse)
    if task.kind == "multilabel":
        slope = (probabilities * scores).sum(axis=1)
        curvature = (probabilities * (1 - probabilities) * scores**2).sum(axis=1)
    else:
        weighted = probabilities * scores
        slope = weighted.sum(axis=1)
        curvature = (weighted * scores).sum(axis=1) - slope**2
    return float(weights @ slope), float(weights @ curvature)
