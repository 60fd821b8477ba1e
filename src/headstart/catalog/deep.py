"""Names of what networks learn from another domain by: loss terms, family by family, and recipes of several phases."""

from __future__ import annotations

from headstart.catalog.entry import Entry

__all__ = ["DEEP_OBJECTIVES", "RECIPES"]


def _objective(name: str, attribute: str, summary: str) -> Entry:
    return Entry(name, "objective", f"headstart.objectives:{attribute}", summary)


def _recipe(name: str, target: str, summary: str) -> Entry:
    return Entry(name, "adaptation", f"headstart.methods.adaptations.{target}", summary)


_SPECIFICATION: tuple[Entry, ...] = (  # the mathematics every method is made of
    _objective("domain-distance", "DomainDistance", "any differentiable distance between the domains, on any layer"),
)

_MOMENTS: tuple[Entry, ...] = (  # moments of the features are matched
    _objective("coral", "CORAL", "covariances of both domains agree"),
    _objective("dan", "DAN", "means of several layers under many kernels agree"),
    _objective("jan", "JAN", "means of several layers under one product of kernels agree"),
    _objective("dsan", "DSAN", "means of every class under several kernels agree, by guessed classes of target rows"),
    _objective("homm", "HoMM", "moments of order 3 or 4 agree, all or drawn, or under a kernel"),
    _objective("cmd", "CMD", "means and central moments of every feature agree"),
    _objective("deep-jdot", "DeepJDOT", "target rows learn from the source rows that optimal transport gives them"),
    _objective("swd", "SWD", "how far two heads' answers are apart as clouds of points, for two phases"),
    _objective("afn", "AFN", "features of both domains grow longer, step by step or to one length"),
    _objective("bsp", "BSP", "the largest singular values of the features are held down; beside a critic"),
)

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
