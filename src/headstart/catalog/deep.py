"""Names of what networks learn from another domain by: loss terms, family by family, and recipes of several phases."""

from __future__ import annotations

from headstart.catalog.entry import Entry

__all__ = ["DEEP_OBJECTIVES", "RECIPES"]


def _objective(name: str, attribute: str, summary: str) -> Entry:
    return Entry(name, "objective", f"headstart.objectives:{attribute}", summary)


def _recipe(name: str, target: str, summary: str) -> Entry:
    return Entry(name, "adaptation", f"headstart.methods.adaptations.{target}", summary)


_SPECIFICATION: tuple[Entry, ...] = ()  # the mathematics every method is made of

_MOMENTS: tuple[Entry, ...] = ()  # moments of the features are matched

_ADVERSARIAL: tuple[Entry, ...] = ()  # a critic must not tell the domains apart

_TARGET: tuple[Entry, ...] = ()  # what target rows say of themselves

_GENERALISATION: tuple[Entry, ...] = ()  # several sources, no target

DEEP_OBJECTIVES = (*_SPECIFICATION, *_MOMENTS, *_ADVERSARIAL, *_TARGET, *_GENERALISATION)

_ADVERSARIAL_RECIPES: tuple[Entry, ...] = ()

_TARGET_RECIPES: tuple[Entry, ...] = ()

_SETTING_RECIPES: tuple[Entry, ...] = ()

RECIPES = (
    _recipe("source-only", "recipe:source_only", "the task's loss on source rows: no adaptation"),
    *_ADVERSARIAL_RECIPES,
    *_TARGET_RECIPES,
    *_SETTING_RECIPES,
)
