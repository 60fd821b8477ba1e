"""Which runtime is fastest for a network here, and agrees with float32: measured on the first few rows.

    cosine = mean_i <f_i, r_i> / (|f_i| |r_i|)        relative error = ||F - R|| / ||R||

R are the features of the untouched network in float32, F a candidate's. A candidate below cosine 0.999, above relative error
0.05, or with a value that is not finite, is refused. The most promising are tried first, and a slow one is not tried at all where
a fast one has already won by far: compiling and timing must cost less than they save.
Shapes: n rows, d features.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import BackboneError, ConfigError, HeadstartError, MissingExtra
from headstart.features.engine import Batch, Engine, FrozenPart, lend_engine, open_engine
from headstart.features.runtime import Runtime, RuntimeChoice, default_threads, has_bf16_unit, recall, remember

__all__ = ["LEAST_COSINE", "MOST_RELATIVE_ERROR", "agreement", "choose_runtime"]

LEAST_COSINE = 0.999
MOST_RELATIVE_ERROR = 0.05
_WON_BY_FAR = 2.5
_LEAST_SECONDS = 0.05
_FEW_ROUNDS, _MOST_ROUNDS = 3, 16
_FLOAT16_RANGE = (1e-2, 6e3)  # largest absolute feature of the probe's rows: float16 holds ten times as much


def choose_runtime(
    part: FrozenPart,
    sample: Batch,
    *,
    want: str = "auto",
    threads: int | None = None,
    keep: bool = True,
) -> RuntimeChoice:
    """Choose how to run a network, or say why what was wanted cannot be had.

    Parameters
    ----------
    part : FrozenPart
        The network.
    sample : Batch
        A few real rows, ready for an engine.
    want : str
        ``"auto"`` for the fastest, ``"torch"`` or ``"openvino"`` for the fastest of one library, or a runtime's label.
    threads : int, optional
        Processor threads; all that this process may use when left out.
    keep : bool
        Keep the compiled network on disk. The choice is remembered in any case.

    Returns
    -------
    RuntimeChoice
        Remembered from an earlier call where there was one.

    Raises
    ------
    ConfigError
        If ``want`` is no runtime, or the wanted one is refused.
    """
    threads = threads or default_threads()
    if (known := recall(choice_key(part, want, threads))) is not None:
        return known
    probe = _Probe(part, sample, threads, keep)
    choice = probe.choose(want)
    part.graphs.clear()
    remember(choice_key(part, want, threads), choice, lasting=not probe.broken)
    return choice


def choice_key(part: FrozenPart, want: str, threads: int) -> dict[str, Any]:
    """Return what a choice is remembered under; `machine` is added to it."""
    if want not in {"auto", "torch", "openvino"}:
        Runtime.parse(want)
    return {**part.key(), "want": want, "threads": threads}


def agreement(values_nd: NDArray[Any], reference_nd: NDArray[Any]) -> tuple[float, float]:
    """Return the mean cosine between matching rows, and the relative error of the whole.

    Examples
    --------
    >>> agreement(np.array([[3.0, 4.0]]), np.array([[3.0, 4.0]]))
    (1.0, 0.0)
    >>> agreement(np.array([[0.0, 2.0]]), np.array([[2.0, 0.0]]))[0]
    0.0
    """
    values = np.asarray(values_nd, np.float64).reshape(len(values_nd), -1)
    reference = np.asarray(reference_nd, np.float64).reshape(len(reference_nd), -1)
    lengths = np.linalg.norm(values, axis=1) * np.linalg.norm(reference, axis=1)
    same = (np.abs(values).max(axis=1) == 0) & (np.abs(reference).max(axis=1) == 0)
    products = (values * reference).sum(axis=1)
    cosines = np.where(same, 1.0, products / np.where(lengths > 0, lengths, 1.0))
    error = np.linalg.norm(values - reference) / max(float(np.linalg.norm(reference)), 1e-30)
    return float(min(1.0, cosines.mean())), float(error)


@dataclass
class _Probe:
    """Tries candidates one after another and keeps the account."""

    part: FrozenPart
    sample: Batch
    threads: int
    keep: bool
    timings: dict[str, float] = field(default_factory=dict)
    agreements: dict[str, tuple[float, float]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    engines: dict[str, Engine] = field(default_factory=dict)
    broken: bool = False

    def choose(self, want: str) -> RuntimeChoice:
        started = time.process_time()
        plain = Runtime()
        if want == plain.label:
            return RuntimeChoice(plain)
        reference, cost = self._reference(want)
        if not np.isfinite(reference).all():
            raise BackboneError(
                f"extract_features: {self.part.backbone.name} gives features that are not finite in float32, on the first "
                "rows already; its weights are damaged, or do not belong to its preprocessing."
            )
        auto = want in {"auto", "torch", "openvino"}
        fastest = 0.0
        base = 1 / cost
        for runtime in self._candidates(want) if auto else iter([Runtime.parse(want)]):
            if fastest <= _WON_BY_FAR * base:
                self._try(runtime, reference)
            elif runtime == plain:  # lost by far: what the reference took says enough
                self.timings[runtime.label], self.agreements[runtime.label] = base, (1.0, 0.0)
            fastest = max(fastest, self.timings.get(runtime.label, 0.0))
        if not self.timings:
            reasons = "; ".join(f"{label}: {reason}" for label, reason in self.refused.items())
            raise ConfigError(f"runtime: {want} cannot run {self.part.backbone.name} ({reasons}); use runtime='auto'.")
        best = Runtime.parse(max(self.timings, key=lambda label: self.timings[label]))
        cosine, error = self.agreements[best.label]
        if best.label in self.engines:
            lend_engine(self.part, self.engines[best.label], threads=self.threads, batch_rows=self._rows)
        return RuntimeChoice(
            runtime=best,
            timings={label: round(speed, 2) for label, speed in self.timings.items()},
            cosine=cosine,
            relative_error=error,
            refused=self.refused,
            dtype=_number_type(best, reference),
            seconds=time.process_time() - started,
        )

    def _reference(self, want: str) -> tuple[NDArray[np.float32], float]:
        """Return float32 features of the sample, and CPU seconds a row; images record the pass where it can be of use."""
        from headstart.features.torch_engine import plain_features

        converts = want in {"auto", "openvino"} or want.startswith("openvino-")
        if converts and self.part.backbone.modality == "image" and next(self._candidates(want)).name == "openvino":
            from headstart.features.openvino_engine import traced_features

            with contextlib.suppress(Exception):  # torch raises whatever the recorded code raises
                return traced_features(self.part, self.sample)
        return plain_features(self.part, self.sample)

    @property
    def _rows(self) -> int:
        """Rows of the batch, padding included: it costs what the others cost."""
        return int(self.sample.arrays[0].shape[0])

    def _candidates(self, want: str) -> Iterator[Runtime]:
        """Yield runtimes worth trying, the most promising first; what comes later sees how earlier ones did."""
        import torch

        if want != "openvino" and torch.cuda.is_available():
            yield Runtime("torch", "bf16", "cuda")
            yield Runtime("torch", "fp32", "cuda")
            if self.timings:
                return
        if want != "torch":
            from headstart.features.openvino_engine import openvino_precisions

            for precision in openvino_precisions():
                label = f"openvino-{precision}"
                yield Runtime.parse(label)
                if label in self.timings:
                    break
            else:
                if want == "openvino" and not self.refused:
                    raise MissingExtra("runtime", "openvino", "fast")
        if want != "openvino":
            if has_bf16_unit():
                yield Runtime("torch", "bf16")
            yield Runtime()

    def _try(self, runtime: Runtime, reference: NDArray[np.float32]) -> None:
        label = runtime.label
        try:
            engine = open_engine(self.part, runtime, threads=self.threads, batch_rows=self._rows, keep=self.keep)
            values = next(iter(engine.run([self.sample])))[1]
        except (HeadstartError, RuntimeError) as error:
            self.refused[label] = str(error)
            self.broken = True
            return
        if values.shape != reference.shape or not np.isfinite(values).all():
            self.refused[label] = (
                f"gives shape {values.shape} instead of {reference.shape}, or numbers that are not finite"
            )
            return
        cosine, gap = agreement(values, reference)
        if cosine < LEAST_COSINE or gap > MOST_RELATIVE_ERROR:
            self.refused[label] = f"disagrees with float32: cosine {cosine:.4f}, relative error {gap:.1%}"
            return
        self.agreements[label] = cosine, gap
        clock = time.process_time if runtime.device == "cpu" else time.perf_counter
        for rounds in (_FEW_ROUNDS, _MOST_ROUNDS):
            started = clock()
            for _ in engine.run(itertools.repeat(self.sample, rounds)):
                pass
            spent = max(clock() - started, 1e-6)
            if spent > _LEAST_SECONDS:
                break
        self.timings[label] = rounds * self._rows / spent
        self.engines = {label: engine} if self.timings[label] >= max(self.timings.values()) else self.engines


def _number_type(runtime: Runtime, reference: NDArray[np.float32]) -> Literal["float16", "float32"]:
    """Return float16 where bf16 computed the features and float16, with more digits, holds their range easily."""
    least, most = _FLOAT16_RANGE
    largest = float(np.abs(reference).max(initial=0.0))
    return "float16" if runtime.precision == "bf16" and least < largest < most else "float32"
