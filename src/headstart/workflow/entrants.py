"""Candidates of `adapt` before they have learnt, and the time that a budget leaves them: the cheapest first, until it is spent.

    needed  = seconds of one fit * fits       fits: all rows; part of the source and the way back where the rule asks for them
    one fit = t (rows / sample)^p             p from the times of two samples, 1 to 3; a network: a few steps, times all its steps

Trials of networks and generators together get a tenth of the budget; one that needs more is judged by the steps it has done.

A candidate that needs more than is left is not begun, and says so; "do not adapt" always learns. Forecasts err: a network, or a
generator of images, that has begun is broken off when its share of what is left is over; an aligner is not, so a budget may be
overrun by the fit of one. Without a budget nothing is foretold and all of them learn.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from headstart.alignment import Aligner
from headstart.core.errors import HeadstartError
from headstart.core.progress import Progress, Stage, format_seconds, watching
from headstart.evaluation.selection import CandidateEvidence, FailedCandidate, ValueEvidence
from headstart.methods.adapted_network import NetworkOnFeatures
from headstart.workflow.clock import BudgetSpent, Clock, with_deadline
from headstart.workflow.rivals import FittedEstimator, Rival

__all__ = ["FOLDS", "OUT_OF_TIME", "Entrant", "Room", "carry_through", "foretold_seconds"]

Array = NDArray[Any]
FOLDS = 5
"""Of labelled target rows, where those choose; and the fewest rows of a class that may."""
OUT_OF_TIME = "the budget ran out in the middle of it"
Evidence = CandidateEvidence | ValueEvidence

_PARTIAL = {
    "source_probabilities_vk",
    "source_features_vr",
    "source_values_v",
}  # worked out by a fit on part of the source
_RESERVE = 0.1  # of the budget, for the choice itself and the page
_LARGEST_SAMPLE = 400  # rows of each domain
_SMALLEST_SAMPLE = 40
_TRIAL_STEPS = 30
_TRIALS = 0.1  # of the budget
_FAILURES = (HeadstartError, ValueError, ArithmeticError, np.linalg.LinAlgError)


@dataclass(frozen=True)
class Entrant:
    """A candidate on features that has not learnt yet.

    Parameters
    ----------
    name : str
        As in the catalog, or "do not adapt".
    estimator : Aligner
        Unfitted.
    source_nd, target_md : arrays of shape (n, d) and (m, d)
        The rows as it sees them.
    fitted_as : type
        What it becomes once it is fitted.
    later : int
        Fits that choosing will ask of it, beside its way back.
    """

    name: str
    estimator: Aligner
    source_nd: Array
    target_md: Array
    fitted_as: type[FittedEstimator] = FittedEstimator
    later: int = 0


class Room:
    """What is left of a budget for candidates, less what choosing will ask of those who have learnt.

    Parameters
    ----------
    clock : Clock, optional
        Budget, and what went before; endless when left out.
    reserve : float, optional
        Seconds kept for what comes after; a tenth of the budget when left out.

    Examples
    --------
    >>> room = Room(Clock(100.0))
    >>> room.refused(20.0, 2) is None
    True
    >>> room.promise(60.0)
    >>> room.refused(20.0, 2).reason
    'the budget is too small for it: about 40 s needed, 30 s left'
    """

    def __init__(self, clock: Clock | None = None, reserve: float | None = None) -> None:
        self.clock = clock or Clock(math.inf)
        share = _RESERVE * self.clock.budget if self.has_end else 0.0
        self.reserve = share if reserve is None else reserve
        self.promised = 0.0

    @property
    def has_end(self) -> bool:
        """Whether there is a budget."""
        return math.isfinite(self.clock.budget)

    @property
    def left(self) -> float:
        """Seconds that may still be spent; never below 0."""
        return max(0.0, self.clock.left - self.promised - self.reserve)

    def promise(self, seconds: float) -> None:
        """Keep time for fits to come."""
        self.promised += seconds

    def within(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Return a context in which trainings that report to nobody else end in `BudgetSpent` after so many seconds."""
        return watching(with_deadline(Progress(quiet=True), seconds))

    def refused(self, seconds: float, fits: int) -> FailedCandidate | None:
        """Return why a candidate is not begun; None where there is time for so many fits."""
        needed = seconds * fits
        if needed <= self.left:
            return None
        return FailedCandidate(
            f"the budget is too small for it: about {format_seconds(needed)} needed, {format_seconds(self.left)} left",
            begun=False,
        )


def num_fits(needs: frozenset[str]) -> int:
    """Return how often a candidate learns until a rule has judged it.

    Examples
    --------
    >>> num_fits(frozenset({"refit"})), num_fits(frozenset({"source_probabilities_vk", "target_features_mr"}))
    (2, 2)
    """
    return 1 + bool(needs & _PARTIAL) + ("refit" in needs)


def carry_through(
    entrants: Sequence[Entrant],
    labels_n: Array,
    gather: Callable[[Entrant, FittedEstimator], Evidence],
    *,
    needs: frozenset[str],
    seed: int = 0,
    room: Room | None = None,
    progress: Progress | None = None,
) -> list[Rival]:
    """Let every entrant learn that there is time for, and gather what a rule may see of it.

    Parameters
    ----------
    entrants : sequence of Entrant
        The first does not adapt, and always learns.
    labels_n : array of shape (n,)
        Class numbers, or numbers, of the source rows.
    gather : callable
        Evidence of an entrant and what it became.
    needs : frozenset of str
        Fields of the evidence that the rule reads.
    seed : int
        Of the samples that time is foretold by.
    room : Room, optional
        Time there is; endless when left out.
    progress : Progress, optional
        One stage, "adapt".

    Returns
    -------
    list of Rival
        In the order of the entrants; one that broke off, or was not begun, with its reason.
    """
    room = room or Room()
    rivals: dict[str, Rival] = {}
    with (progress or Progress(quiet=True)).stage("adapt", len(entrants)) as stage:
        for entrant, seconds in _in_order(entrants, labels_n, room, seed):
            refused = room.refused(seconds, num_fits(needs) + entrant.later) if rivals else None
            rivals[entrant.name] = (
                Rival(entrant.name, None, refused, 0.0) if refused else _carried(entrant, labels_n, gather, needs, room)
            )
            stage.advance(1)
    return [rivals[entrant.name] for entrant in entrants]


def _in_order(entrants: Sequence[Entrant], labels_n: Array, room: Room, seed: int) -> list[tuple[Entrant, float]]:
    """Return entrants with the seconds of a fit, the cheapest first; as they came where nothing asks for it."""
    if not room.has_end:
        return [(entrant, 0.0) for entrant in entrants]
    limit = _TRIALS * room.clock.budget / max(1, len(entrants) - 1)
    timed = [(entrant, foretold_seconds(entrant, labels_n, seed, limit)) for entrant in entrants[1:]]
    return [(entrants[0], 0.0), *sorted(timed, key=lambda item: item[1])] if entrants else []


def _carried(
    entrant: Entrant,
    labels_n: Array,
    gather: Callable[[Entrant, FittedEstimator], Evidence],
    needs: frozenset[str],
    room: Room,
) -> Rival:
    started, cpu_started = time.perf_counter(), time.process_time()
    fitted: FittedEstimator | None = None
    evidence: Evidence | FailedCandidate
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with room.within(room.left / (num_fits(needs) + entrant.later)):
                learnt = clone(entrant.estimator).fit(entrant.source_nd, labels_n, entrant.target_md)
            room.promise((time.perf_counter() - started) * (("refit" in needs) + entrant.later))
            fitted = entrant.fitted_as(learnt, entrant.source_nd, entrant.target_md)
            with room.within(room.left):
                evidence = gather(entrant, fitted)
    except BudgetSpent:
        fitted, evidence = None, FailedCandidate(OUT_OF_TIME, begun=False)
    except _FAILURES as error:
        fitted, evidence = None, FailedCandidate(str(error))
    return Rival(entrant.name, fitted, evidence, time.process_time() - cpu_started)


def foretold_seconds(entrant: Entrant, labels_n: Array, seed: int = 0, limit: float = math.inf) -> float:
    """Return about how many wall-clock seconds one fit on all rows will take; 0 where a trial breaks off, as the fit then will.

    Parameters
    ----------
    entrant : Entrant
        Is left unfitted.
    labels_n : array of shape (n,)
        As for `carry_through`.
    seed : int
        Of the samples.
    limit : float
        Seconds after which the trial of a network or a generator is broken off.
    """
    estimator: Any = entrant.estimator
    every = np.arange(len(entrant.source_nd)), np.arange(len(entrant.target_md))
    try:
        if isinstance(estimator, NetworkOnFeatures):
            few = clone(estimator).set_params(num_steps=min(_TRIAL_STEPS, estimator.num_steps))
            longer = float(estimator.num_steps / few.num_steps)
            return _paced(few, longer, entrant, labels_n, limit / 2, tries=2)  # the first one warms up
        trial = getattr(estimator, "trial", lambda num_steps: None)(_TRIAL_STEPS)
        if trial is not None:
            return _paced(trial[0], float(trial[1]), entrant, labels_n, limit)
        large = [_sample(rows, labels_n if side == 0 else None, seed) for side, rows in enumerate(every)]
        small = [_sample(rows, labels_n[rows] if side == 0 else None, seed) for side, rows in enumerate(large)]
        times = [_timed(clone(estimator), entrant, labels_n, *sample) for sample in (small, large)]
    except _FAILURES:
        return 0.0
    sizes = [len(sample[0]) + len(sample[1]) for sample in (small, large)]
    return _extrapolated(times, sizes, len(every[0]) + len(every[1]))


class _Pace(Progress):
    """Times the steps of a trial after the first, which warms up, and breaks it off when they have taken so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(quiet=True)
        self.limit, self.steps, self.started = seconds, -1, 0.0

    @property
    def seconds_a_step(self) -> float:
        return (time.perf_counter() - self.started) / self.steps

    def _draw(self, stage: Stage) -> None:
        self.steps += 1
        if not self.steps:
            self.started = time.perf_counter()
        elif time.perf_counter() - self.started > self.limit:
            raise BudgetSpent(f"{stage.name}: the trial is over.")


def _paced(few: Any, longer: float, entrant: Entrant, labels_n: Array, limit: float, tries: int = 1) -> float:
    """Return the seconds of a training so many times as long as its trial: by the best of some, or the pace of one cut short."""
    every, best = (np.arange(len(entrant.source_nd)), np.arange(len(entrant.target_md))), math.inf
    for _ in range(tries):
        pace = _Pace(limit)
        try:
            with watching(pace):
                best = min(best, _timed(clone(few), entrant, labels_n, *every))
        except BudgetSpent:
            return longer * pace.seconds_a_step * _TRIAL_STEPS
    return longer * best


def _extrapolated(times: Sequence[float], sizes: Sequence[int], size: int) -> float:
    """Return the time for ``size`` rows by the power law through two times, its power between 1 and 3.

    Examples
    --------
    >>> _extrapolated([1.0, 4.0], [100, 200], 400)      # (400 / 200)^2
    16.0
    """
    power = 1.0
    if sizes[1] > sizes[0]:
        power = math.log(max(times[1], 1e-9) / max(times[0], 1e-9)) / math.log(sizes[1] / sizes[0])
    return float(times[1] * (size / sizes[1]) ** min(max(power, 1.0), 3.0))


def _sample(rows: Array, labels_n: Array | None, seed: int) -> Array:
    """Return places of a quarter of the rows, or as many as a trial needs; of classes two rows of each where it has them."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(rows))
    most = min(len(rows), max(_SMALLEST_SAMPLE, min(_LARGEST_SAMPLE, len(rows) // 4)))
    if labels_n is not None and labels_n.dtype.kind in "iu":
        firsts = np.concatenate([order[labels_n[order] == label][:2] for label in np.unique(labels_n)])
        order = np.concatenate([firsts, order[~np.isin(order, firsts)]])
        most = max(most, len(firsts))
    return np.sort(rows[order[:most]])


def _timed(estimator: Any, entrant: Entrant, labels_n: Array, source_rows: Array, target_rows: Array) -> float:
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(entrant.source_nd[source_rows], labels_n[source_rows], entrant.target_md[target_rows])
    return time.perf_counter() - started
