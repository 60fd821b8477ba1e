"""Names of what networks learn from another domain by: loss terms, family by family, and recipes of several phases."""

from __future__ import annotations

from headstart.catalog.entry import Entry

__all__ = ["DEEP_OBJECTIVES", "RECIPES", "TRANSLATIONS"]


def _objective(name: str, attribute: str, summary: str) -> Entry:
    return Entry(name, "objective", f"headstart.objectives:{attribute}", summary)


def _recipe(name: str, target: str, summary: str) -> Entry:
    return Entry(name, "adaptation", f"headstart.methods.adaptations.{target}", summary)


_SPECIFICATION: tuple[Entry, ...] = (  # the mathematics every method is made of
    _objective(
        "multi-task",
        "MultiTask",
        "two labelled streams, a head for each, penalties on shared and on own layers",
    ),
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

_TARGET: tuple[Entry, ...] = (  # what target rows say of themselves
    _objective("entropy", "Entropy", "sure answers for rows without labels"),
    _objective("mcc", "MCC", "minimum class confusion: no row torn between two classes"),
    _objective("bnm", "BNM", "batch nuclear norm: sure answers that differ from each other; also the fast form"),
    _objective("infomax", "InfoMax", "information maximisation: sure answers that use all classes"),
    _objective(
        "shot", "SHOT", "information maximisation, and labels by the nearest class centre, renewed now and then"
    ),
    _objective("nrc", "NRC", "the answers of neighbours, above all of those that are neighbours in turn"),
    _objective("neighbourhood-density", "NeighbourhoodDensity", "dense neighbourhoods of like answers (SND as a loss)"),
    _objective("vat", "VAT", "virtual adversarial training: no change of the answer in its most changeable direction"),
    _objective("fixmatch", "FixMatch", "sure answers hold for strongly changed views too"),
    _objective("flexmatch", "FlexMatch", "FixMatch with a threshold for each class that rises as it is learned"),
    _objective("self-training", "SelfTraining", "the surest share of each class's rows keeps its answer as a label"),
    _objective("deep-co-training", "DeepCoTraining", "two heads on different features label rows for each other"),
    _objective("mean-teacher", "MeanTeacher", "the sure answers of the averaged network, with a weight that rises"),
    _objective("atdoc", "ATDOC", "labels by near target rows, or by the nearest centre of target rows"),
    _objective("eata", "EATA", "entropy of sure rows that are unlike those before, for test-time adaptation"),
    _objective("mme", "MME", "minimax entropy between head and features, where a few target rows have labels"),
)

_GENERALISATION: tuple[Entry, ...] = (  # several sources, no target
    _objective("domain-coral", "DomainCORAL", "covariances of all source domains alike"),
    _objective("irm", "IRM", "no source domain would scale the outputs otherwise"),
    _objective("vrex", "VREx", "the risks of all source domains alike"),
    _objective("groupdro", "GroupDRO", "the source domain of the largest risk counts most"),
    _objective("mixstyle", "MixStyle", "style of rows mixed inside the network"),
)

_SETTINGS: tuple[Entry, ...] = (  # several sources, unknown classes
    _objective("m3sda", "M3SDA", "moments of all sources and the target alike"),
    _objective("neighbourhood-clustering", "NeighbourhoodClustering", "target rows near few rows, or one class"),
    _objective("entropy-separation", "EntropySeparation", "target rows certain of a class, or of none"),
    _objective("class-weighted-ce", "ClassWeightedCrossEntropy", "source classes by their share in the target"),
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

_TARGET_RECIPES: tuple[Entry, ...] = (
    _recipe("entropy", "target_structure:entropy", "sure answers for target rows"),
    _recipe("mcc", "target_structure:mcc", "minimum class confusion on target rows"),
    _recipe("bnm", "target_structure:bnm", "batch nuclear-norm maximisation on target rows"),
    _recipe("infomax", "target_structure:infomax", "information maximisation on target rows"),
    _recipe(
        "shot",
        "target_structure:shot",
        "source-free: sure, diverse answers and labels by class centres; the head stays",
    ),
    _recipe(
        "nrc", "target_structure:nrc", "source-free: answers of neighbours and of their neighbours; the head stays"
    ),
    _recipe("vat", "target_structure:vat", "virtual adversarial training with entropy (VADA without its critic)"),
    _recipe("fixmatch", "target_structure:fixmatch", "sure answers hold for strongly changed views"),
    _recipe("flexmatch", "target_structure:flexmatch", "FixMatch with a rising threshold for each class"),
    _recipe(
        "self-training",
        "target_structure:self_training",
        "class-balanced self-training, from a fifth to half of the rows",
    ),
    _recipe("co-training", "target_structure:co_training", "two heads on different features label rows for each other"),
    _recipe("mean-teacher", "target_structure:mean_teacher", "the averaged network teaches what it is sure of"),
    _recipe("atdoc", "target_structure:atdoc", "target rows label each other through a memory"),
    _recipe("mme", "target_structure:mme", "minimax entropy; for a few labelled target rows"),
)

_SETTING_RECIPES: tuple[Entry, ...] = (
    _recipe("erm", "generalisation:erm", "several sources, no target: every domain equally often"),
    _recipe("dg-coral", "generalisation:dg_coral", "several sources, no target: covariances alike"),
    _recipe("groupdro", "generalisation:groupdro", "several sources, no target: the worst domain counts most"),
    _recipe("irm", "generalisation:irm", "several sources, no target: one classifier best for each"),
    _recipe("vrex", "generalisation:vrex", "several sources, no target: risks alike"),
    _recipe("m3sda", "multi_source:m3sda", "several sources: moments of all domains alike"),
    _recipe("mdan", "multi_source:mdan", "several sources: a critic for each, the hardest counts most"),
    _recipe("dance", "class_sets:dance", "open sets of classes: neighbourhoods, and answers of none"),
    _recipe("partial", "class_sets:partial", "absent classes: each by its share in the target"),
    _recipe("mixstyle", "generalisation:mixstyle", "several sources, no target: styles mixed"),
)

_MOMENT_RECIPES: tuple[Entry, ...] = (
    _recipe("domain-distance", "moments:domain_distance", "any differentiable distance of the features is made small"),
    _recipe("dan", "moments:dan", "means of features and logits under many kernels alike"),
    _recipe("jan", "moments:jan", "features and answers together have one mean under kernels"),
    _recipe("dsan", "moments:dsan", "means of every class under kernels alike"),
    _recipe("deep-coral", "moments:deep_coral", "covariances of the logits alike"),
    _recipe("homm", "moments:homm", "moments of order 3 or 4 alike"),
    _recipe("cmd", "moments:cmd", "central moments of every feature alike"),
    _recipe("deep-jdot", "moments:deep_jdot", "target rows learn from the source rows that transport gives them"),
    _recipe(
        "swd", "moments:swd", "two classifiers disagree on target rows by sliced transport, the features settle it"
    ),
    _recipe("afn", "moments:afn", "features of both domains grow longer"),
)

RECIPES = (
    _recipe("source-only", "recipe:source_only", "the task's loss on source rows: no adaptation"),
    *_MOMENT_RECIPES,
    *_ADVERSARIAL_RECIPES,
    *_TARGET_RECIPES,
    *_SETTING_RECIPES,
)

TRANSLATIONS = tuple(
    Entry(name, "translation", f"headstart.methods.image_translation:{attribute}", summary, modality="image")
    for name, attribute, summary in (
        ("fda", "FourierTranslation", "source images with the low-frequency amplitudes of target images"),
        ("cyclegan", "GeneratorTranslation", "source images as a generator trained against critics changes them"),
        ("cycada", "CyCADATranslation", "the same, classes kept by a classifier, and dann on top"),
    )
)
