"""What tests of a few labelled target rows have in common, whether labels are classes or numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import headstart
from headstart.core.progress import Progress
from headstart.methods import DeepAdaptation

__all__ = ["count_few_learned", "heard", "saved_models_answer_alike", "write_tables"]


def heard() -> tuple[Progress, list[str]]:
    """Return a progress that prints nothing, and what it was told."""
    said: list[str] = []
    progress = Progress(quiet=True)
    progress.say = said.append  # type: ignore[method-assign]
    return progress, said


def write_tables(folder: Path, label: str, parts: Mapping[str, tuple[np.ndarray, Any]]) -> list[str]:
    """Write rows of three columns, with their labels where they have any, and return the paths."""
    paths = []
    for name, (rows, labels) in parts.items():
        table = pd.DataFrame(rows, columns=["a", "b", "c"])
        if labels is not None:
            table[label] = labels
        paths.append(str(folder / f"{name}.csv"))
        table.to_csv(paths[-1], index=False)
    return paths


def count_few_learned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets, for every training of stages, how many labelled target rows it learned from; all are short."""
    monkeypatch.setattr("headstart.methods.deep_adaptation.steps_to_epochs", lambda *_: 2)
    learned: list[int] = []
    fit = DeepAdaptation.fit

    def counted(self: DeepAdaptation, *args: Any, **options: Any) -> Any:
        few = options.get("few_labels")
        learned.append(0 if few is None else len(few))
        return fit(self, *args, **options)

    monkeypatch.setattr(DeepAdaptation, "fit", counted)
    return learned


def saved_models_answer_alike(
    found: headstart.Adaptation, names: list[str], target: Any, folder: Path, **close: float
) -> None:
    """Save each candidate as if it had been chosen, load it, and compare its answers for the target with its own."""
    for name in names:
        chosen = replace(found, selection=replace(found.selection, chosen=name))
        loaded = headstart.load_model(chosen.model.save(folder / name.replace(" ", "-")))
        fitted = chosen.rival.fitted
        assert fitted is not None
        np.testing.assert_allclose(loaded.predict(target, store=False).scores, fitted.target_scores, **close)
