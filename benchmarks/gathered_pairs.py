"""What `adaptation_evidence` gathered, pair by pair, as rules of choice see it.

The way back of a candidate is read from the folder, not fitted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.evaluation.selection import CandidateEvidence, CircularTest
from headstart.workflow.adaptations import NO_ADAPTATION

__all__ = ["Pair", "load"]

Matrix = NDArray[Any]


@dataclass
class Pair:
    """One ordered pair of domains with what was gathered of every candidate."""

    data_set: str
    name: str
    labels: Matrix
    learn: Matrix
    judge: Matrix
    truth: Matrix
    rows: tuple[Matrix, Matrix]
    candidates: dict[str, dict[str, Matrix]]
    known: dict[Any, Any] = field(default_factory=dict)

    def accuracy(self, table: Matrix) -> float:
        """Return the share of target rows named rightly."""
        return float((table.argmax(axis=1) == self.truth).mean())

    def single(self, name: str, way: str = "back") -> tuple[float, Matrix]:
        """Return a candidate's accuracy, and which source labels returned: by its own recipe, or by a ridge on features."""
        return self._once((name,), way)

    def committee(self, names: Sequence[str], way: str = "back") -> tuple[float, Matrix] | None:
        """Return the same of the committee of "do not adapt" and those of the names that came through."""
        here = self.returning(names)
        return self._once((NO_ADAPTATION, *sorted(here)), way) if len(here) >= 2 else None

    def returning(self, names: Sequence[str]) -> list[str]:
        """Return the names that went there and back."""
        return [name for name in names if "back" in self.candidates.get(name, {})]

    def _once(self, names: tuple[str, ...], way: str) -> tuple[float, Matrix]:
        if (names, way) not in self.known:
            target = np.mean([self.candidates[name]["target"] for name in names], axis=0)
            back = np.mean([self._returned(name, way) for name in names], axis=0)
            labels = self.labels if way == "back" else self.labels[self.judge]
            self.known[names, way] = (self.accuracy(target), (back.argmax(axis=1) == labels).astype(np.float64))
        return self.known[names, way]

    def _returned(self, name: str, way: str) -> Matrix:
        if way == "back":
            return self.candidates[name]["back"]
        if (name, "table") not in self.known:
            self.known[name, "table"] = CircularTest().returned(
                CandidateEvidence(
                    target_probabilities_mk=self.candidates[name]["target"],
                    source_labels_v=self.labels[self.judge],
                    source_features_vr=self.rows[0][self.judge],
                    target_features_mr=self.rows[1],
                )
            )
        return self.known[name, "table"]

    def evidence(self, name: str) -> CandidateEvidence:
        """Return a candidate as rules see it; its way back reads what was gathered."""
        part = self.candidates[name]
        source, target = self.rows
        given: dict[str, Any] = {
            "target_probabilities_mk": part["target"],
            "source_rows_vd": source[self.judge],
            "source_labels_v": self.labels[self.judge],
            "source_training_nd": source[self.learn],
            "source_training_labels_n": self.labels[self.learn],
            "target_rows_md": target,
        }
        if "source" in part:
            given["source_probabilities_vk"] = part["source"]
        if "back" in part:
            back = part["back"]
            tables = {len(self.judge): back[self.judge], len(back): back[np.r_[self.judge, self.learn]]}
            given["refit"] = lambda *_: Returned(tables)
        return CandidateEvidence(**given)


class Returned:
    """A predictor that answers for held-out rows, or for these and those trained on, as it once did."""

    def __init__(self, tables: dict[int, Matrix]) -> None:
        self.tables = tables
        self.classes_ = np.arange(next(iter(tables.values())).shape[1])

    def predict_proba(self, rows: Matrix) -> Matrix:
        """Return what was gathered for that many rows."""
        return self.tables[len(rows)]

    def predict(self, rows: Matrix) -> Matrix:
        """Return the likeliest classes."""
        return np.asarray(self.tables[len(rows)].argmax(axis=1))


def load(folder: Path) -> list[Pair]:
    """Read every pair of which "do not adapt" went there and back."""
    pairs = []
    for place in sorted(folder.glob("*/*")):
        stored = {path.stem: dict(np.load(path)) for path in sorted(place.glob("*.npz"))}
        about = stored.pop("pair", None)
        candidates = {name: part for name, part in stored.items() if "cpu" in part}
        if about is None or "back" not in candidates.get(NO_ADAPTATION, {}):
            continue
        pairs.append(
            Pair(
                place.parent.name,
                place.name,
                about["codes"],
                about["learn"],
                about["judge"],
                about["truth"],
                (about["source"], about["target"]),
                candidates,
            )
        )
    return pairs
