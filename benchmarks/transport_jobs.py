"""Sides of `alignment_speed.py` for kernel mean matching and entropic transport, on the same problem as the peers'.

    python benchmarks/alignment_speed.py --peers PATH --only kmm,sinkhorn

KMM is solved without our ridge; skada's solver takes no upper bound, which does not hold here. Sinkhorn stops for both at 1e-8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Timed = Callable[[], Arrays]
REGULARISATION, TOLERANCE = 0.05, 1e-8


def spread(source: np.ndarray, target: np.ndarray) -> float:
    """Return the root mean squared distance of all rows from their mean: the width of the kernel."""
    rows = np.concatenate([source, target])
    return float(np.sqrt(np.square(rows - rows.mean(axis=0)).sum(axis=1).mean()))


def kmm_headstart(source: np.ndarray, target: np.ndarray) -> Timed:
    from headstart.alignment import KMM

    def timed() -> Arrays:
        aligner = KMM(ridge=0.0, min_effective_rows=1).fit(source, None, target)
        return {"weights": aligner.weights_, "objective": np.array(aligner.objective_)}

    return timed


def kmm_skada(source: np.ndarray, target: np.ndarray) -> Timed:
    from skada import KMMReweightAdapter

    rows, domains = np.concatenate([source, target]), np.repeat([1, -1], [len(source), len(target)])
    gamma = 1 / (2 * spread(source, target) ** 2)
    return lambda: {"weights": KMMReweightAdapter(gamma=gamma).fit(rows, sample_domain=domains).source_weights_}


def same_objective(source: np.ndarray, target: np.ndarray, ours: Arrays, theirs: Arrays) -> dict[str, Any]:
    """Compare 1/2 w'Kw - k'w of both answers: the lower is the better one."""
    width, squares = spread(source, target), [np.square(rows).sum(axis=1) for rows in (source, target)]

    def kernel(other: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        distances = squares[0][:, None] + lengths - 2 * source @ other.T
        return np.asarray(np.exp(-np.maximum(distances, 0) / (2 * width**2)))

    weights, towards = theirs["weights"], len(source) * kernel(target, squares[1]).mean(axis=1)
    value, best = float(weights @ (kernel(source, squares[0]) @ weights / 2 - towards)), float(ours["objective"])
    gap = (value - best) / abs(best)
    return {"objective_ours": best, "objective_theirs": value, "theirs_above_ours": gap, "agrees": abs(gap) < 1e-6}


def sinkhorn_headstart(source: np.ndarray, target: np.ndarray) -> Timed:
    from headstart.alignment import SinkhornTransport

    options: dict[str, Any] = {"normalise": "median", "tolerance": TOLERANCE}
    return lambda: {"source": SinkhornTransport(REGULARISATION, **options).fit_transform(source, None, target)}


def sinkhorn_pot(source: np.ndarray, target: np.ndarray) -> Timed:
    from ot.da import SinkhornTransport

    def timed() -> Arrays:
        aligner = SinkhornTransport(reg_e=REGULARISATION, norm="median", tol=TOLERANCE, max_iter=1000)
        return {"source": aligner.fit(Xs=source, Xt=target).transform(Xs=source)}

    return timed
