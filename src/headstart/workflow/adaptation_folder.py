"""The folder `adapt` leaves behind: a model that can be used, answers for the target, a page, and the same for programs.

model/             answers for new rows of the target (`headstart predict`, `headstart evaluate`, `load_model`)
predictions.csv    answers for the target rows that were given
adapt.html         what was chosen, why, and what it changed
adapt.json         the same for programs; it comes last, so that a folder without it is an unfinished one
checkpoint/        while networks train with stages of the base model: a killed command goes on from there
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from headstart.core.digests import digest_many
from headstart.core.errors import ConfigError, ModelError
from headstart.core.files import atomic_path
from headstart.model import Model, save_model
from headstart.report.adapt import AdaptData, write_adapt_report
from headstart.workflow.adaptation_page import page_data
from headstart.workflow.versions import now, versions

if TYPE_CHECKING:
    from headstart.workflow.adaptation import Adaptation

__all__ = ["check_folder", "provenance", "write_adaptation", "write_parts"]

_OURS = {"model", "predictions.csv", "adapt.html", "adapt.json", "checkpoint"}


def check_folder(folder: Path) -> Path:
    """Refuse, before anything is computed, an output folder that holds other things or cannot be written.

    Raises
    ------
    ConfigError
        If it is a file, holds what is no earlier adaptation, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"adapt: out must be a folder; {folder} is a file. Choose another name.")
    try:
        if folder.is_dir() and not (folder / "adapt.json").is_file():
            others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
            if strange := [name for name in others if name not in _OURS]:
                raise ConfigError(
                    f"adapt: {folder} holds files that are no earlier adaptation, such as {strange[0]!r}; choose another --out "
                    "or empty it."
                )
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"adapt: {folder} cannot be written: {error.strerror or error}; choose another --out."
        ) from error
    return folder


def provenance(found: Adaptation) -> dict[str, Any]:
    """Return where the model came from: both domains, what was chosen, by which rule, and what labels said afterwards."""
    two, selection, seen = found.domains, found.selection, found.hindsight
    assert found.rival.fitted is not None
    rows = {"source": two.source, "target": two.target}
    domains = {
        which: {"name": name, "rows": len(dataset), "digest": digest_many(sorted(dataset.digests()))}
        for name, (which, dataset) in zip(found.names, rows.items(), strict=True)
    }
    score = selection.scores[selection.chosen]
    known = versions()
    about: dict[str, Any] = {
        "title": f"{found.names[1]}, answered with what {found.names[0]} taught",
        "verdict": _verdict(found),
        "train_rows": len(two.source),
        "train_digest": digest_many(two.source.digests()),
        "adaptation": {
            **domains,
            "method": selection.chosen,
            "rule": selection.rule,
            "score": score.value if score.is_judged else None,
            "margin": selection.margin,
            "reason": selection.reason,
            "chosen": found.chosen_by,
            "labelled_target_rows": found.num_few,
            "new_rows": found.rival.fitted.new_rows,
        },
        "like": "target rows above" if selection.adapts else "source rows above",
        "created": now(),
        "command": found.command,
        "headstart": known.get("headstart", ""),
        "versions": known,
    }
    if seen is not None and seen.selected.finite:
        about["metrics"] = {seen.metric: seen.selected.to_dict()}
        about["measured_on"] = "target rows whose labels chose nothing; it had seen the rows, not their labels"
    return about


def _verdict(found: Adaptation) -> str:
    if found.hindsight is not None:
        return found.hindsight.sentence
    if found.chosen_by != "without target labels":
        return f"It was chosen {found.chosen_by}, each held out in turn; no other labels have measured it."
    return "Without labels of the target nobody has measured this model there."


def write_adaptation(found: Adaptation, folder: Path) -> None:
    """Write the folder of what `adapt` found, as `write_parts` does."""
    write_parts(folder, lambda: found.model, lambda: _answers(found), lambda: page_data(found))


def write_parts(
    folder: Path, model: Callable[[], Model], answers: Callable[[], pd.DataFrame], page: Callable[[], AdaptData]
) -> None:
    """Write the folder, each file whole or not at all, ``adapt.json`` last.

    Parameters
    ----------
    folder : Path
        Where to.
    model, answers, page : callable
        Each makes its part when its turn has come.

    Raises
    ------
    ModelError
        If it cannot be written (full disk, no permission); what stood there before is then marked as unfinished.
    """
    try:
        (folder / "adapt.json").unlink(missing_ok=True)
        save_model(model(), folder / "model")
        with atomic_path(folder / "predictions.csv") as temporary:
            answers().to_csv(temporary, index=False)
        write_adapt_report(page(), folder)
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    except OSError as error:
        raise ModelError(
            f"adapt: {folder} cannot be written: {error.strerror or error}; free space or choose another --out."
        ) from error


def _answers(found: Adaptation) -> pd.DataFrame:
    if found.values_m is not None:
        return pd.DataFrame({"row": list(found.ids), "value": found.values_m})
    table: dict[str, Any] = {"row": list(found.ids), "class": list(found.predictions)}
    table |= {f"p({name})": found.probabilities_mk[:, place] for place, name in enumerate(found.classes)}
    return pd.DataFrame(table)
