"""Every measure by name, with its value, interval, p-value, unit and meaning.

    measure("mk-mmd", source, target)  ->  Measurement(name, value, low, high, p_value, unit, meaning, note)

The interval is one of half samples and the p-value one of permutations (`permutation`); where a domain is larger than the measure
can be permuted on, both come from rows drawn under the seed, the interval shrunk to the rows of the value, and the note says so.
What permutations need in common (a kernel matrix, projections) is computed once. The proxy A-distance and linear-time MMD have
normal approximations of their own instead.
Shapes: n source rows, m target rows, N pooled rows, d features.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from headstart.core.errors import ConfigError, DomainError, did_you_mean
from headstart.core.seeds import generator
from headstart.distances.cka import alignment_of_kernels, kernel_cka, linear_cka
from headstart.distances.coral import coral_distance
from headstart.distances.discrepancy import linear_discrepancy
from headstart.distances.divergences import (
    js_divergence,
    kl_divergence,
    label_js_divergence,
    label_kl_divergence,
    label_shares,
)
from headstart.distances.energy import energy_distance
from headstart.distances.frechet import gaussian_frechet_distance
from headstart.distances.mmd import linear_time_mmd_error, mean_kernel, mk_mmd
from headstart.distances.pairs import median_apart, squared_distances
from headstart.distances.permutation import (
    half_samples,
    interval_of_half_samples,
    pair_matrix_half_samples,
    pair_matrix_test,
    permutation_p_value,
    permutation_test,
)
from headstart.distances.proxy_a import DomainClassification, classify_domains
from headstart.distances.rows import as_numpy, read_domains, read_pairs
from headstart.distances.shared_work import (
    PAIR_MATRICES,
    Prepare,
    plain,
    prepare_discrepancy,
    prepare_exact,
    prepare_sinkhorn,
    prepare_sliced,
)
from headstart.distances.sinkhorn import sinkhorn_divergence
from headstart.distances.wasserstein import (
    exact_wasserstein,
    max_sliced_wasserstein,
    sliced_wasserstein,
)

__all__ = ["MEASURES", "Measure", "Measurement", "measure", "measure_domains", "measurement_of_classifier"]

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measurement:
    """One measure of one pair of domains.

    Parameters
    ----------
    name : str
        Key of `MEASURES`.
    value : float
        The measure.
    low, high : float
        Its 95 % interval of noise; NaN where it has none.
    p_value : float or None
        How often equal domains are as far apart; None where the measure has no null.
    unit : str
        Unit of value, low and high.
    meaning : str
        What it says, in one line.
    note : str
        What was done otherwise than on all rows; empty for nothing.
    """

    name: str
    value: float
    low: float
    high: float
    p_value: float | None
    unit: str
    meaning: str
    note: str = ""


@dataclass(frozen=True)
class Measure:
    """One entry of `MEASURES`.

    Parameters
    ----------
    name : str
        What a user types.
    function : callable
        ``function(first, second) -> float``.
    unit, meaning : str
        For people.
    takes : {"domains", "labels", "representations"}
        Two domains' features, two domains' labels, or two representations of the same rows.
    has_null : bool
        Whether a p-value belongs to it.
    resampled_rows : int
        Rows of each domain at most that are permuted and halved.
    whole_rows : int or None
        Rows of each domain at most that the value is computed on; None for all, whatever their number.
    prepare : callable, optional
        ``prepare(pooled rows, n) -> statistic of places``, where permutations share work.
    needs : str
        Library to install; empty for none.
    min_rows : int
        Rows each domain needs, so that half of them can be measured too.
    """

    name: str
    function: Callable[..., Any]
    unit: str
    meaning: str
    takes: Literal["domains", "labels", "representations"] = "domains"
    has_null: bool = True
    resampled_rows: int = 200
    whole_rows: int | None = None
    prepare: Prepare | None = None
    needs: str = ""
    min_rows: int = 4


def measure(
    name: str,
    source: Any,
    target: Any,
    *,
    num_permutations: int = 199,
    num_half_samples: int = 100,
    resampled_rows: int | None = None,
    seed: int = 0,
) -> Measurement:
    """Measure one pair of domains by name.

    Parameters
    ----------
    name : str
        Key of `MEASURES`.
    source, target : array-like
        Features of shape (n, d) and (m, d); for measures of labels, labels of shape (n,) and (m,); for measures of
        representations, two representations of the same rows.
    num_permutations, num_half_samples : int, at least 1
        Draws for the p-value and the interval.
    resampled_rows : int, at least 4, optional
        Rows of each domain at most that are permuted and halved, in place of the measure's own.
    seed : int
        Draws everything that is drawn.

    Raises
    ------
    HeadstartError
        If the name is unknown, or as the measure itself.

    Examples
    --------
    >>> rows = np.linspace(0, 1, 40)[:, None]
    >>> found = measure("energy", rows, rows + 3.0)
    >>> found.p_value, found.low < found.value < found.high
    (0.005, True)
    """
    if name not in MEASURES:
        raise ConfigError(
            f"measure: no measure is called {name!r}.{did_you_mean(name, MEASURES)} Known: {', '.join(MEASURES)}."
        )
    if num_permutations < 1 or num_half_samples < 1 or (resampled_rows is not None and resampled_rows < 4):
        raise ConfigError("measure: num_permutations and num_half_samples are at least 1, resampled_rows at least 4.")
    entry = MEASURES[name]
    if entry.takes == "labels":
        return _measure_labels(entry, source, target, num_permutations, num_half_samples, seed)
    if entry.takes == "representations":
        first, second = (as_numpy(rows) for rows in read_pairs("measure", source, target, min_rows=4)[1:])
        most = resampled_rows or entry.resampled_rows
        return _measure_representations(entry, first, second, num_permutations, num_half_samples, most, seed)
    source, target = (
        as_numpy(rows) for rows in read_domains(f"measure {name}", source, target, min_rows=entry.min_rows)[1:]
    )
    if name == "proxy-a":
        return measurement_of_classifier(classify_domains(source, target, seed=seed))
    if name == "linear-mmd":
        return _measure_linear_mmd(entry, source, target, seed)
    most = resampled_rows or entry.resampled_rows
    return _measure_domains(entry, source, target, num_permutations, num_half_samples, most, seed)


def measure_domains(
    source: Any, target: Any, *, names: Iterable[str] | None = None, num_permutations: int = 199, seed: int = 0
) -> list[Measurement]:
    """Measure two domains' features by several names: by default all for which rows and installed libraries suffice.

    Raises
    ------
    HeadstartError
        As `measure`.

    Examples
    --------
    >>> rows = np.linspace(0, 1, 40)[:, None]
    >>> [found.name for found in measure_domains(rows, rows, names=["coral", "energy"])]
    ['coral', 'energy']
    """
    if names is None:
        names = [
            name
            for name, entry in MEASURES.items()
            if entry.takes == "domains"
            and (not entry.needs or importlib.util.find_spec(entry.needs))
            and min(len(source), len(target)) >= entry.min_rows
        ]
    return [measure(name, source, target, num_permutations=num_permutations, seed=seed) for name in names]


def measurement_of_classifier(found: DomainClassification) -> Measurement:
    """Return the proxy A-distance of a domain classifier that has been trained, as `measure` gives it."""
    entry = MEASURES["proxy-a"]
    low, high = 2 * (1 - 2 * found.error_high), 2 * (1 - 2 * found.error_low)
    chance = f"by chance between {2 * (1 - 2 * found.chance_high):.2f} and {2 * (1 - 2 * found.chance_low):.2f}"
    return Measurement(entry.name, found.distance, low, high, found.p_value, entry.unit, entry.meaning, chance)


def _measure_domains(
    entry: Measure, source: Array, target: Array, num_permutations: int, num_half_samples: int, most: int, seed: int
) -> Measurement:
    """Value on all rows (or as many as the measure can), null and interval on as many as can be resampled."""
    notes = []
    if entry.name in _DENSITIES and source.shape[1] > 20:
        notes.append(
            f"densities of {source.shape[1]} features cannot be estimated well: read it as a test, not as an amount"
        )
    all_rows = (len(source), len(target))
    if entry.whole_rows is not None:
        source, target = (_draw(rows, entry.whole_rows, seed, part) for rows, part in ((source, "s"), (target, "t")))
        if (len(source), len(target)) != all_rows:
            notes.append(f"value from {len(source)} + {len(target)} of {all_rows[0]} + {all_rows[1]} rows")
    small = [_draw(rows, most, seed, part) for rows, part in ((source, "s"), (target, "t"))]
    resampled = (len(small[0]), len(small[1]))
    if resampled != (len(source), len(target)):
        notes.append(f"interval and p-value from {resampled[0]} + {resampled[1]} rows")
    shrink = ((1 / len(source) + 1 / len(target)) / (1 / resampled[0] + 1 / resampled[1])) ** 0.5
    value = float(entry.function(source, target))
    pooled = (
        _rotated(np.concatenate(small).astype(np.float64)) if entry.name not in _NOT_ROTATED else np.concatenate(small)
    )
    if entry.name in PAIR_MATRICES:
        matrix = PAIR_MATRICES[entry.name](pooled, resampled[0])
        unbiased = entry.name == "mk-mmd"
        test = pair_matrix_test(matrix, resampled[0], unbiased=unbiased, num_permutations=num_permutations, seed=seed)
        p_value = test.p_value
        halves = pair_matrix_half_samples(
            matrix, resampled[0], unbiased=unbiased, num_samples=num_half_samples, seed=seed
        )
    else:
        statistic = (entry.prepare or plain(entry.function))(pooled, resampled[0])
        p_value = permutation_test(statistic, *resampled, num_permutations=num_permutations, seed=seed).p_value
        halves = half_samples(statistic, *resampled, num_samples=num_half_samples, seed=seed)
    low, high = interval_of_half_samples(value, halves, shrink=shrink)
    return Measurement(entry.name, value, low, high, p_value, entry.unit, entry.meaning, "; ".join(notes))


def _measure_linear_mmd(entry: Measure, source: Array, target: Array, seed: int) -> Measurement:
    value, error = linear_time_mmd_error(source, target, seed=seed)
    p_value = float(special.ndtr(-value / error)) if error > 0 else (1.0 if value <= 0 else 0.0)
    low, high = value - 1.96 * error, value + 1.96 * error
    return Measurement(entry.name, value, low, high, p_value, entry.unit, entry.meaning)


def _measure_labels(
    entry: Measure, source: Any, target: Any, num_permutations: int, num_half_samples: int, seed: int
) -> Measurement:
    """Permute and halve class numbers."""
    value = float(entry.function(source, target))
    classes = label_shares(source, target)[2]
    codes = np.searchsorted(classes, np.concatenate([np.ravel(as_numpy(source)), np.ravel(as_numpy(target))]))
    num_source = len(np.ravel(as_numpy(source)))
    sizes = (num_source, len(codes) - num_source)

    def statistic(source_places: IntArray, target_places: IntArray) -> float:
        return float(entry.function(codes[source_places], codes[target_places]))

    p_value = permutation_test(statistic, *sizes, num_permutations=num_permutations, seed=seed).p_value
    low = high = float("nan")
    if min(sizes) >= 2:
        halves = half_samples(statistic, *sizes, num_samples=num_half_samples, seed=seed)
        low, high = interval_of_half_samples(value, halves)
    return Measurement(entry.name, value, low, high, p_value, entry.unit, entry.meaning)


def _measure_representations(
    entry: Measure, first: Array, second: Array, num_permutations: int, num_half_samples: int, most: int, seed: int
) -> Measurement:
    """Null: rows of one representation permuted, so that nothing belongs together. Interval: half of the rows."""
    value = float(entry.function(first, second))
    num_rows = len(first)
    if num_rows > most:
        places = np.sort(generator(seed, "measure").choice(num_rows, most, replace=False))
        first, second = first[places], second[places]
    kernels = [_kernel(entry.name, rows.astype(np.float64)) for rows in (first, second)]

    def alignment(mine: IntArray, other: IntArray) -> float:
        one, two = kernels[0][np.ix_(mine, mine)], kernels[1][np.ix_(other, other)]
        return float(alignment_of_kernels(entry.name, np, one, two, debiased=False))

    random, places = generator(seed, "permutation"), np.arange(len(first))
    null = [alignment(places, random.permutation(places)) for _ in range(num_permutations)]
    p_value = permutation_p_value(alignment(places, places), null)
    halves = [random.permutation(places)[: (len(places) + 1) // 2] for _ in range(num_half_samples)]
    low, high = interval_of_half_samples(
        value, [alignment(half, half) for half in halves], shrink=(len(first) / num_rows) ** 0.5
    )
    note = f"interval and p-value from {len(first)} of {num_rows} rows" if len(first) < num_rows else ""
    return Measurement(entry.name, value, low, high, p_value, entry.unit, entry.meaning, note)


def _kernel(name: str, rows: Array) -> Array:
    rows = rows - rows.mean(axis=0)
    size = float(np.abs(rows).max())
    if size == 0:
        raise DomainError(f"{name}: a representation is the same for all {len(rows)} rows, so that nothing can align.")
    rows = rows / size
    if name == "linear-cka":
        return np.asarray(rows @ rows.T)
    squared = squared_distances(np, rows, rows)
    return np.asarray(mean_kernel(np, squared, [median_apart(squared)]))


def _draw(rows: Array, most: int, seed: int, part: str) -> Array:
    if len(rows) <= most:
        return rows
    return np.asarray(rows[np.sort(generator(seed, "measure", part).choice(len(rows), most, replace=False))])


def _rotated(pooled: Array) -> Array:
    """Return rows in a basis of their own, where that is smaller: no rotation changes these measures."""
    if pooled.shape[1] <= len(pooled):
        return pooled
    pooled = pooled - pooled.mean(axis=0)
    basis = np.linalg.qr(pooled.T)[0]
    return np.asarray(pooled @ basis)


def _max_sliced(source: Any, target: Any) -> float:
    return float(max_sliced_wasserstein(source, target, num_starts=2, num_steps=15))


_DENSITIES = frozenset({"kl-gaussian", "kl-neighbours", "js-gaussian", "js-neighbours"})
_NOT_ROTATED = _DENSITIES | {"linear-discrepancy"}


def _density(function: Callable[..., float], estimator: str) -> Callable[[Any, Any], float]:
    return lambda source, target: function(source, target, estimator=estimator)


def _exact(order: int) -> Callable[[Any, Any], float]:
    return lambda source, target: float(exact_wasserstein(source, target, order=order))


def _table() -> dict[str, Measure]:
    unit, squared = "feature unit", "feature unit squared"
    entries = [
        Measure("mk-mmd", mk_mmd, "none", "any difference of the distributions, under five Gaussian kernels; 0 when equal",
                resampled_rows=1000, whole_rows=5000),
        Measure("linear-mmd", linear_time_mmd_error, "none", "as mk-mmd, in one pass over domains of any size; noisier"),
        Measure("energy", energy_distance, unit, "any difference of the distributions, without a bandwidth; 0 when equal",
                resampled_rows=1000, whole_rows=5000),
        Measure("proxy-a", classify_domains, "none", "whether a linear classifier tells the domains apart; 0 chance, 2 always",
                min_rows=5),
        Measure("coral", coral_distance, "feature unit to the fourth power", "difference of the covariances; blind to the means"),
        Measure("frechet", gaussian_frechet_distance, unit, "difference of means and covariances: what moving them can remove"),
        Measure("linear-discrepancy", linear_discrepancy, squared,
                "how much more two linear predictors can disagree in one domain than in the other",
                prepare=prepare_discrepancy),
        Measure("sliced-wasserstein", sliced_wasserstein, unit, "how far rows must move, averaged over directions",
                resampled_rows=500, prepare=prepare_sliced),
        Measure("max-sliced-wasserstein", _max_sliced, unit, "how far rows must move along the direction that differs most"),
        Measure("sinkhorn", sinkhorn_divergence, squared, "how far rows must move, squared, smoothed by entropy",
                resampled_rows=100, whole_rows=1000, prepare=prepare_sinkhorn),
        Measure("wasserstein-1", _exact(1), unit, "how far rows must move on average, at the least",
                whole_rows=2000, prepare=prepare_exact(1), needs="ot"),
        Measure("wasserstein-2", _exact(2), unit, "how far rows must move, root mean square, at the least",
                whole_rows=2000, prepare=prepare_exact(2), needs="ot"),
        Measure("kl-gaussian", _density(kl_divergence, "gaussian"), "nats",
                "surprise at source rows under the target's Gaussian"),
        Measure("kl-neighbours", _density(kl_divergence, "neighbours"), "nats",
                "surprise at source rows under the target's density, from nearest neighbours", whole_rows=2000,
                min_rows=12),
        Measure("js-gaussian", _density(js_divergence, "gaussian"), "nats",
                "how far apart two Gaussian densities are; 0.693 when nothing is shared"),
        Measure("js-neighbours", _density(js_divergence, "neighbours"), "nats",
                "how far apart the densities are, from nearest neighbours; 0.693 when nothing is shared", whole_rows=2000,
                min_rows=12),
        Measure("label-kl", label_kl_divergence, "nats", "surprise at source classes under the target's shares", "labels"),
        Measure("label-js", label_js_divergence, "nats", "how far apart the class shares are; 0.693 when no class is shared",
                "labels"),
        Measure("linear-cka", linear_cka, "none", "whether two representations of the same rows agree; 1 the same geometry",
                "representations", resampled_rows=500),
        Measure("kernel-cka", kernel_cka, "none", "as linear-cka, under a Gaussian kernel: nearer rows count more",
                "representations", resampled_rows=500),
    ]  # fmt: skip
    return {entry.name: entry for entry in entries}


MEASURES: Mapping[str, Measure] = MappingProxyType(_table())
