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

_GENERALISATION: tuple[Entry, ...] = (  # several sources, no target
    _objective("domain-coral", "DomainCORAL", "covariances of all source domains alike"),
    _objective("irm", "IRM", "no source domain would scale the outputs otherwise"),
    _objective("vrex", "VREx", "the risks of all source domains alike"),
    _objective("groupdro", "GroupDRO", "the source domain of the largest risk counts most"),
    _objective("mixstyle", "MixStyle", "style of rows mixed inside the network"),
)

DEEP_OBJECTIVES = (*_SPECIFICATION, *_MOMENTS, *_ADVERSARIAL, *_TARGET, *_GENERALISATION)

_ADVERSARIAL_RECIPES: tuple[Entry, ...] = ()

_TARGET_RECIPES: tuple[Entry, ...] = ()

_SETTING_RECIPES: tuple[Entry, ...] = (
    _recipe("erm", "generalisation:erm", "several sources, no target: every domain equally often"),
    _recipe("dg-coral", "generalisation:dg_coral", "several sources, no target: covariances alike"),
    _recipe("groupdro", "generalisation:groupdro", "several sources, no target: the worst domain counts most"),
    _recipe("irm", "generalisation:irm", "several sources, no target: one classifier best for each"),
    _recipe("vrex", "generalisation:vrex", "several sources, no target: risks alike"),
    _recipe("mixstyle", "generalisation:mixstyle", "several sources, no target: styles mixed"),
)

RECIPES = (
    _recipe("source-only", "recipe:source_only", "the task's loss on source rows: no adaptation"),
    *_ADVERSARIAL_RECIPES,
    *_TARGET_RECIPES,
    *_SETTING_RECIPES,
)
