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

_ADVERSARIAL: tuple[Entry, ...] = (  # a critic must not tell the domains apart
    _objective("dann", "DANN", "a critic of the domains, the features' gradient turned round"),
    _objective("multi-domain-dann", "MultiDomainDANN", "the same with several source domains, target or not"),
    _objective("domain-confusion", "DomainConfusion", "features on which a critic of the domains is undecided"),
    _objective("adda", "ADDA", "target features taken for those of the network that learned on the source"),
    _objective("cdan", "CDAN", "a critic of features and predictions together; CDAN+E with entropy"),
    _objective("mdd", "MDD", "a second classifier agrees on source rows and contradicts on target rows"),
    _objective("gvb", "GVB", "a critic of predictions, with bridges that vanish"),
    _objective("wdgrl", "WDGRL", "Wasserstein distance of the features by a critic of slope 1"),
    _objective("pada", "PADA", "source classes that the target does not show count less"),
    _objective("osbp", "OSBP", "one more class for target rows unlike any source class"),
)

_TARGET: tuple[Entry, ...] = ()  # what target rows say of themselves

_GENERALISATION: tuple[Entry, ...] = (  # several sources, no target
    _objective("domain-coral", "DomainCORAL", "covariances of all source domains alike"),
    _objective("irm", "IRM", "no source domain would scale the outputs otherwise"),
    _objective("vrex", "VREx", "the risks of all source domains alike"),
    _objective("groupdro", "GroupDRO", "the source domain of the largest risk counts most"),
    _objective("mixstyle", "MixStyle", "style of rows mixed inside the network"),
)

_SETTINGS: tuple[Entry, ...] = (  # several sources, unknown classes
    _objective("m3sda", "M3SDA", "moments of all sources and the target alike"),
    _objective("mdan", "MDAN", "a critic for each source, the hardest counts most"),
)

DEEP_OBJECTIVES = (*_SPECIFICATION, *_MOMENTS, *_ADVERSARIAL, *_TARGET, *_GENERALISATION, *_SETTINGS)

_ADVERSARIAL_RECIPES: tuple[Entry, ...] = (
    _recipe("dann", "adversarial:dann", "features on which a critic cannot tell the domains apart"),
    _recipe("multi-domain-dann", "adversarial:multi_domain_dann", "the same with several source domains"),
    _recipe(
        "domain-confusion", "adversarial:domain_confusion", "features on which a critic is undecided, in two phases"
    ),
    _recipe("adda", "adversarial:adda", "after learning on the source, an encoder of the target against a critic"),
    _recipe("cdan", "adversarial:cdan", "the critic sees features and predictions together"),
    _recipe("cdan-e", "adversarial:cdan_e", "the same, rows the classifier is sure of count more"),
    _recipe("mcd", "adversarial:mcd", "two classifiers that disagree on target rows, features that make them agree"),
    _recipe("mdd", "adversarial:mdd", "margin disparity discrepancy by a second classifier"),
    _recipe("gvb", "adversarial:gvb", "a critic of predictions, with bridges that vanish"),
    _recipe("wdgrl", "adversarial:wdgrl", "Wasserstein distance by a critic that takes five steps for one"),
    _recipe("pada", "adversarial:pada", "partial: the target has some of the source's classes only"),
    _recipe("osbp", "adversarial:osbp", "open set: the target has classes the source has not"),
)

_TARGET_RECIPES: tuple[Entry, ...] = ()

_SETTING_RECIPES: tuple[Entry, ...] = (
    _recipe("erm", "generalisation:erm", "several sources, no target: every domain equally often"),
    _recipe("dg-coral", "generalisation:dg_coral", "several sources, no target: covariances alike"),
    _recipe("groupdro", "generalisation:groupdro", "several sources, no target: the worst domain counts most"),
    _recipe("irm", "generalisation:irm", "several sources, no target: one classifier best for each"),
    _recipe("vrex", "generalisation:vrex", "several sources, no target: risks alike"),
    _recipe("m3sda", "multi_source:m3sda", "several sources: moments of all domains alike"),
    _recipe("mdan", "multi_source:mdan", "several sources: a critic for each, the hardest counts most"),
    _recipe("mixstyle", "generalisation:mixstyle", "several sources, no target: styles mixed"),
)

RECIPES = (
    _recipe("source-only", "recipe:source_only", "the task's loss on source rows: no adaptation"),
    *_ADVERSARIAL_RECIPES,
    *_TARGET_RECIPES,
    *_SETTING_RECIPES,
)
