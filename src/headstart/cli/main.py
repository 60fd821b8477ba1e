"""The ``headstart`` command.

Help, ``methods`` and ``backbones`` import no large library: every command imports what it needs when it runs.
User errors are one or two lines on standard error and exit status 2, never a traceback.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from headstart.cli.between_domains import adapt, gap
from headstart.cli.cache import cache_app
from headstart.cli.options import (
    BackboneOption,
    Group,
    Image,
    Label,
    RuntimeOption,
    Seed,
    SplitColumn,
    TaskKindOption,
    Text,
    names,
    new_progress,
)
from headstart.core.errors import HeadstartError

__all__ = ["app", "main"]

INTRODUCTION = """Transfer learning that proves whether it helped: labelled data in, an honestly tested model out.

\b
Start here:
  headstart fit photos/                                      a proven model from a folder of class folders
  headstart rank photos/                                     which base model suits your data, and its cost
  headstart predict runs/photos new/ --out predictions.csv   use the model
"""

app = typer.Typer(
    name="headstart",
    help=INTRODUCTION,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _before(context: typer.Context) -> None:
    """Let `fit` alone be started in several processes."""
    if _processes() > 1 and context.invoked_subcommand != "fit":
        raise HeadstartError(
            f"{context.invoked_subcommand}: torchrun started {_processes()} processes, which would all do the same; only fit "
            "shares its work out. Run it without torchrun."
        )


@app.command()
def fit(
    source: Annotated[
        str | None, typer.Argument(help="Folder of class folders, or a CSV, TSV, JSONL or Parquet file.")
    ] = None,
    text: Text = None,
    image: Image = None,
    label: Label = None,
    group: Group = None,
    split: SplitColumn = None,
    task: TaskKindOption = "auto",
    goal: Annotated[
        str | None, typer.Option(help='Requirement, such as "macro_f1 >= 0.95"; rungs are climbed until it is met.')
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time limit, such as 10m.")] = None,
    strategy: Annotated[
        str, typer.Option(help="auto, head, or one way to fine-tune: last-stages, full, lora, ..., search.")
    ] = "auto",
    unlabelled: Annotated[
        str | None,
        typer.Option(
            help="Rows without labels the model will meet (or the same table, for its own); adapted to where they moved."
        ),
    ] = None,
    max_size: Annotated[str | None, typer.Option(help="Largest saved model, such as 20MB.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Most memory while training, such as 4GB.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME when left out.")] = None,
    backbone: BackboneOption = None,
    head: Annotated[str, typer.Option(help="auto, or a head's name.")] = "auto",
    class_weight: Annotated[str, typer.Option(help="none, or balanced: every class counts the same.")] = "none",
    views: Annotated[int, typer.Option(help="2 adds the mirror image of every picture.")] = 1,
    scratch: Annotated[str, typer.Option(help="Training from scratch, to compare: auto, full or off.")] = "auto",
    runtime: RuntimeOption = "auto",
    test: Annotated[float, typer.Option(help="Share of rows sealed for the test.")] = 0.2,
    seed: Seed = 0,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of an earlier run; other options are not read then.")
    ] = None,
) -> None:
    """Make a proven model out of labelled rows.

    Example: headstart fit reviews.csv --text text --label stars --goal "macro_f1 >= 0.9" --budget 10m
    """
    from headstart.core.errors import ConfigError
    from headstart.workflow import FitConfig, fit_together, read_config

    if config is not None:
        stated, settings = read_config(config)
        source = source or stated
    else:
        settings = FitConfig(
            text=text,
            image=image,
            label=label,
            group=group,
            split=split,
            task=task,
            goal=goal,
            budget=budget,
            strategy=strategy,
            unlabelled=unlabelled,
            max_size=max_size,
            max_memory=max_memory,
            backbones=names(backbone),
            head=head,
            class_weight=class_weight,  # type: ignore[arg-type]
            views=views,
            scratch=scratch,  # type: ignore[arg-type]
            runtime=runtime,
            test=test,
            seed=seed,
        )
    if not source:
        raise ConfigError("fit: say what to learn from, for example: headstart fit photos/")
    run = fit_together(source, out=out, config=settings)
    if run is not None:  # under torchrun, in the first process
        print(run)


@app.command()
def rank(
    source: Annotated[str, typer.Argument(help="Labelled rows, as for fit.")],
    text: Text = None,
    image: Image = None,
    label: Label = None,
    task: TaskKindOption = "auto",
    backbone: BackboneOption = None,
    rows: Annotated[int, typer.Option(help="Size of the stratified subset that is embedded.")] = 500,
    out: Annotated[Path | None, typer.Option(help="Folder for the page with the table and the plot.")] = None,
    runtime: RuntimeOption = "auto",
    seed: Seed = 0,
) -> None:
    """Rank base models on your data, without training any.

    Example: headstart rank photos/ --out ranking
    """
    from headstart.workflow import rank as run_rank

    ranking = run_rank(
        source,
        text=text,
        image=image,
        label=label,
        task=task,
        backbones=names(backbone),
        rows=rows,
        out=out,
        runtime=runtime,
        seed=seed,
    )
    print(ranking)
    if ranking.folder is not None:
        print(f"Page: {ranking.folder / 'rank.html'}")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Run or model folder.")],
    source: Annotated[str, typer.Argument(help="New rows: a folder, a file, a table.")],
    text: Text = None,
    image: Image = None,
    out: Annotated[Path | None, typer.Option(help="CSV file; the table is printed when left out.")] = None,
    runtime: RuntimeOption = "auto",
) -> None:
    """Answer for new rows.

    Example: headstart predict runs/photos new/ --out predictions.csv
    """
    from headstart.workflow import predict as run_predict

    answers = run_predict(model, source, text=text, image=image, out=out, runtime=runtime, progress=new_progress())
    if out is None:
        print(answers.to_frame().to_csv(index=False), end="")
    else:
        unusual = int(answers.unusual_n.sum())
        print(f"{len(answers):,} rows answered, {unusual:,} unlike the training rows; written to {out}")
    for finding in answers.failures:
        print(finding, file=sys.stderr)


@app.command()
def check(
    source: Annotated[str, typer.Argument(help="Rows, labelled or not.")],
    text: Text = None,
    image: Image = None,
    label: Label = None,
    group: Group = None,
    split: SplitColumn = None,
    task: TaskKindOption = "auto",
    out: Annotated[Path | None, typer.Option(help="JSON file for everything found.")] = None,
) -> None:
    """Say what is wrong with your data.

    Example: headstart check photos/
    """
    from headstart.workflow import check as run_check

    columns = {"text": text, "image": image, "label": label, "group": group, "split": split}
    given: dict[str, Any] = {name: value for name, value in columns.items() if value is not None}
    found = run_check(source, out=out, progress=new_progress(), task=task, **given)
    for line in found.summary_lines():
        print(line)
    for finding in found.findings:
        print(finding)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Run or model folder.")],
    source: Annotated[str, typer.Argument(help="Labelled rows the model has not seen.")],
    text: Text = None,
    image: Image = None,
    label: Label = None,
    group: Group = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    runtime: RuntimeOption = "auto",
) -> None:
    """Measure a model on labelled rows it has not seen.

    Example: headstart evaluate runs/photos held_out/
    """
    from headstart.workflow import evaluate as run_evaluate

    print(
        run_evaluate(
            model,
            source,
            text=text,
            image=image,
            label=label,
            group=group,
            out=out,
            runtime=runtime,
            progress=new_progress(),
        )
    )


@app.command()
def runs(
    folder: Annotated[
        Path | None, typer.Argument(help="Only runs below this folder; all that are known when left out.")
    ] = None,
) -> None:
    """List finished runs, newest first.

    Example: headstart runs
    """
    from headstart.workflow import runs as list_runs

    print(list_runs(folder))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="Run folder, or a name that `headstart runs` lists.")],
    b: Annotated[str, typer.Argument(help="Another one, tested on the same rows.")],
    metric: Annotated[str | None, typer.Option(help="What to test; that of the first run when left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    """Set two runs side by side, with a paired test.

    Example: headstart compare runs/photos runs/photos-2
    """
    from headstart.core.files import write_json
    from headstart.workflow import compare as run_compare

    result = run_compare(a, b, metric=metric)
    print(result)
    if out is not None:
        write_json(out, result.to_dict())


app.command()(gap)
app.command()(adapt)


@app.command()
def backbones() -> None:
    """List base models."""
    from headstart.catalog import describe

    print(describe("backbone"))


@app.command()
def methods() -> None:
    """List every name: methods, strategies, objectives, heads, aligners, rules of choice, distances, scores, metrics."""
    from headstart.catalog import Kind, describe

    print("\n\n".join(describe(kind) for kind in get_args(Kind) if kind != "backbone"))


app.add_typer(cache_app, name="cache")


def _processes() -> int:
    """Return how many processes torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def _is_first() -> bool:
    """Return whether this process speaks for all that torchrun started."""
    return _processes() == 1 or os.environ.get("RANK", "0") == "0"


def main() -> None:
    """Run the command line; the entry point of the ``headstart`` script."""
    try:
        app()
    except HeadstartError as error:
        if _is_first():
            print(f"headstart: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
    except KeyboardInterrupt:
        if _is_first():
            print(
                "headstart: interrupted; features, heads and the last checkpoint are kept, the same command goes on from there",
                file=sys.stderr,
            )
        sys.exit(130)


if __name__ == "__main__":
    main()
