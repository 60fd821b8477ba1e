"""The ``headstart`` command.

Help, ``methods`` and ``backbones`` import no large library: every command imports what it needs when it runs.
User errors are one or two lines on standard error and exit status 2, never a traceback.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

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
            backbones=_names(backbone),
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
        backbones=_names(backbone),
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

    answers = run_predict(model, source, text=text, image=image, out=out, runtime=runtime, progress=_progress())
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
    found = run_check(source, out=out, progress=_progress(), task=task, **given)
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
            progress=_progress(),
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


@app.command()
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
        backbones=_names(backbone),
        measures=None if measure is None else _names(measure),
        out=out,
        runtime=runtime,
        seed=seed,
        progress=_progress(),
    )
    print(found)
    if found.folder is not None:
        print(f"Page: {found.folder / 'gap.html'}")


@app.command()
def adapt(
    source: Annotated[list[str], typer.Argument(help="Labelled rows, as for fit; several are several sources.")],
    target: Annotated[str, typer.Argument(help="Rows of the other domain; their labels, if any, choose nothing.")],
    few: Annotated[
        str | None, typer.Option(help="A few labelled rows of the target's domain, which are not among the target.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="Methods to try, joined by commas; see `headstart methods`.")
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

    Example: headstart adapt photos/ sketches/ --out adapted
    """
    from headstart.workflow import adapt as run_adapt

    options: dict[str, Any] = {} if rule is None else {"rule": rule}
    found = run_adapt(
        source if len(source) > 1 else source[0],
        target,
        few=few,
        methods=_names(method),
        objectives=objectives,
        strategy=strategy,
        budget=budget,
        backbones=_names(backbone),
        text=text,
        image=image,
        label=label,
        task=None if task == "auto" else task,
        out=out,
        runtime=runtime,
        seed=seed,
        progress=_progress(),
        **options,
    )
    print(found)
    if found.folder is not None:
        print(f"Predictions: {found.folder / 'predictions.csv'}")
        print(f"Page: {found.folder / 'adapt.html'}")
        print(f"Model: headstart predict {shlex.quote(str(found.folder))} NEW_ROWS --out answers.csv")


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


cache_app = typer.Typer(help="List or clear the feature cache.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(cache_app, name="cache")


@cache_app.command("list")
def cache_list() -> None:
    """Show what is cached, by base model and stage."""
    from headstart.features import FeatureStore

    store = FeatureStore()
    lines = store.list()
    for line in lines:
        print(line)
    print(f"{len(lines)} spaces, {store.size() / 1e6:.1f} MB in {store.folder}")


@cache_app.command("clear")
def cache_clear(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove every cached feature, solved head and from-scratch result; they are computed again when needed."""
    import shutil

    from headstart.core.places import cache_folder
    from headstart.features import FeatureStore

    store = FeatureStore()
    size = store.size()
    if not yes:
        typer.confirm(f"Remove {size / 1e6:.1f} MB of cached features in {store.folder}?", abort=True)
    store.clear()
    for name in ("heads", "scratch"):
        shutil.rmtree(cache_folder() / name, ignore_errors=True)
    print(f"{size / 1e6:.1f} MB removed")


def _names(joined: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (joined or "").split(",") if name.strip())


def _processes() -> int:
    """Return how many processes torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def _is_first() -> bool:
    """Return whether this process speaks for all that torchrun started."""
    return _processes() == 1 or os.environ.get("RANK", "0") == "0"


def _progress() -> Any:
    from headstart.core.progress import Progress

    return Progress()


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
