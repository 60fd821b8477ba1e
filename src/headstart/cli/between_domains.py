"""The commands that look at two domains: `gap` and `adapt`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.options import (
    BackboneOption,
    Image,
    Label,
    RuntimeOption,
    Seed,
    TaskKindOption,
    Text,
    names,
    new_progress,
)

__all__ = ["TEST_TIME", "adapt", "gap"]

TEST_TIME = "tent, eata, adabn, moments, lame"  # written out: asking the catalog would slow the start of every command


def gap(
    source: Annotated[str, typer.Argument(help="Rows of one domain; labels help.")],
    target: Annotated[str, typer.Argument(help="Rows of the other; labels are not read.")],
    text: Text = None,
    image: Image = None,
    label: Label = None,
    backbone: BackboneOption = None,
    measure: Annotated[
        str | None, typer.Option(help="Measures to print, joined by commas; see `headstart methods`.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for gap.html and gap.json.")] = None,
    runtime: RuntimeOption = "auto",
    seed: Seed = 0,
) -> None:
    """Say how far apart two domains are, and what that means.

    Example: headstart gap photos/ sketches/ --out gap
    """
    from headstart.workflow import gap as run_gap

    found = run_gap(
        source,
        target,
        text=text,
        image=image,
        label=label,
        backbones=names(backbone),
        measures=None if measure is None else names(measure),
        out=out,
        runtime=runtime,
        seed=seed,
        progress=new_progress(),
    )
    print(found)
    if found.folder is not None:
        print(f"Page: {found.folder / 'gap.html'}")


def adapt(
    source: Annotated[
        list[str],
        typer.Argument(help="Labelled rows, as for fit, several are several sources; or a saved model's folder."),
    ],
    target: Annotated[str, typer.Argument(help="Rows of the other domain; their labels, if any, choose nothing.")],
    few: Annotated[
        str | None, typer.Option(help="A few labelled rows of the target's domain, which are not among the target.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            help=f"Methods to try, joined by commas; see `headstart methods`. For a saved model: {TEST_TIME}.",
        ),
    ] = None,
    objectives: Annotated[
        str | None, typer.Option(help='A joint loss for a network to try, such as "ce + 0.5*coral + mcc".')
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="Stages of the base model that networks train: last-stages:1, full; none when left out."),
    ] = None,
    rule: Annotated[str | None, typer.Option(help="How to choose without target labels.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time limit, such as 2min; candidates that no longer fit are left out and named.")
    ] = None,
    text: Text = None,
    image: Image = None,
    label: Label = None,
    task: TaskKindOption = "auto",
    backbone: BackboneOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the model, predictions.csv and the page.")] = None,
    runtime: RuntimeOption = "auto",
    seed: Seed = 0,
) -> None:
    """Answer for an unlabelled domain with what a labelled one taught.

    \b
    Example: headstart adapt photos/ sketches/ --out adapted
    A saved model, whose training rows are gone:
             headstart adapt runs/photos dusk/ --method tent --out adapted
    """
    from headstart.workflow import adapt as run_adapt

    options: dict[str, Any] = {} if rule is None else {"rule": rule}
    found = run_adapt(
        source if len(source) > 1 else source[0],
        target,
        few=few,
        methods=names(method),
        objectives=objectives,
        strategy=strategy,
        budget=budget,
        backbones=names(backbone),
        text=text,
        image=image,
        label=label,
        task=None if task == "auto" else task,
        out=out,
        runtime=runtime,
        seed=seed,
        progress=new_progress(),
        **options,
    )
    print(found)
    if found.folder is not None:
        print(f"Predictions: {found.folder / 'predictions.csv'}")
        print(f"Page: {found.folder / 'adapt.html'}")
        print(f"Model: headstart predict {shlex.quote(str(found.folder))} NEW_ROWS --out answers.csv")
