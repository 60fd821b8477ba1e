"""Options that several commands share, and what they make of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = [
    "BackboneOption",
    "Group",
    "Image",
    "Label",
    "RuntimeOption",
    "Seed",
    "SplitColumn",
    "TaskKindOption",
    "Text",
    "names",
    "new_progress",
]

Text = Annotated[str | None, typer.Option(help="Column of a table that holds the text.")]
Image = Annotated[str | None, typer.Option(help="Column of a table that holds the image path.")]
Label = Annotated[str | None, typer.Option(help="Label column; several joined by commas make a multi-label task.")]
Group = Annotated[str | None, typer.Option(help="Column whose equal values stay together when rows are split.")]
SplitColumn = Annotated[str | None, typer.Option("--split", help="Column that says train, val or test.")]
TaskKindOption = Annotated[str, typer.Option("--task", help="auto, classification, multilabel or regression.")]
BackboneOption = Annotated[
    str | None, typer.Option("--backbone", "-b", help="Base models to choose from, joined by commas: names or paths.")
]
RuntimeOption = Annotated[str, typer.Option(help="auto measures; or torch-fp32, torch-bf16, openvino-bf16, ...")]
Seed = Annotated[int, typer.Option(help="Of splits, folds and draws.")]


def names(joined: str | None) -> tuple[str, ...]:
    """Return the names in a list joined by commas."""
    return tuple(name.strip() for name in (joined or "").split(",") if name.strip())


def new_progress() -> Any:
    """Return what prints the stages of a command."""
    from headstart.core.progress import Progress

    return Progress()
