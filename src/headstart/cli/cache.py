"""The command that lists or clears the feature cache."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["cache_app"]

cache_app = typer.Typer(help="List or clear the feature cache.", no_args_is_help=True, rich_markup_mode=None)


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
