"""Names of what measures the distance of two domains, brings them together, and chooses among the results."""

from __future__ import annotations

from headstart.catalog.entry import Entry

__all__ = ["ALIGNERS", "DISTANCES", "RULES"]


def _aligner(name: str, attribute: str, summary: str, needs: str = "", labels: str = "", task: str = "") -> Entry:
    facts = {"needs": labels, "for": task}
    return Entry(
        name,
        "aligner",
        f"headstart.alignment:{attribute}",
        summary,
        needs=needs,
        install='"headstart[ot]"' if needs else "",
        details={name: fact for name, fact in facts.items() if fact},
    )


def _rule(name: str, attribute: str, summary: str) -> Entry:
    return Entry(name, "rule", f"headstart.evaluation.selection:{attribute}", summary)


def _distance(name: str, attribute: str, summary: str, needs: str = "") -> Entry:
    return Entry(
        name,
        "distance",
        f"headstart.distances:{attribute}",
        summary,
        needs=needs,
        install='"headstart[ot]"' if needs else "",
    )


ALIGNERS = (
    _aligner("linear-ot", "LinearOT", "Monge map between two Gaussians"),
    _aligner("subspace-alignment", "SubspaceAlignment", "the source's principal axes turned to the target's"),
    _aligner("coral", "CORAL", "the source takes the target's mean and covariance"),
    _aligner(
        "moment-matching", "MomentMatching", "the source takes the target's mean and variance, feature by feature"
    ),
    _aligner(
        "monge-alignment", "MongeAlignment", "every domain moves to the barycentre of their Gaussians; several sources"
    ),
    _aligner("tca", "TCA", "transfer components: a projection under which the means agree"),
    _aligner("jda", "JDA", "one projection under which means and class means agree"),
    _aligner("bda", "BDA", "JDA with a balance between both, and class weights"),
    _aligner("tjm", "TJM", "transfer joint matching: agreeing means, fewer source rows"),
    _aligner("gfk", "GFK", "kernel along the geodesic between two subspaces"),
    _aligner("meda", "MEDA", "manifold features, both distributions and a graph in one classifier"),
    _aligner(
        "selective-labelling", "SPL", "discriminative projection learnt with the surest target answers, round by round"
    ),
    _aligner("emd-transport", "EMDTransport", "exact optimal transport of source rows", needs="ot"),
    _aligner("sinkhorn-transport", "SinkhornTransport", "entropic optimal transport"),
    _aligner("class-transport", "ClassRegularisedTransport", "entropic transport that keeps source classes together"),
    _aligner("laplace-transport", "LaplaceTransport", "exact transport under which neighbours move alike", needs="ot"),
    _aligner("unbalanced-transport", "UnbalancedTransport", "entropic transport that may leave rows behind"),
    _aligner("partial-ot", "PartialTransport", "exact transport of the cheapest share of the rows", needs="ot"),
    _aligner("jdot", "JDOTClassifier", "transport of rows and answers at once, with the classifier", needs="ot"),
    _aligner("jcpot", "JCPOT", "class shares and transport from several sources"),
    _aligner("kmm", "KMM", "source rows weighted so that kernel means match"),
    _aligner("kliep", "KLIEP", "density ratio by likelihood"),
    _aligner("ulsif", "ULSIF", "density ratio by least squares"),
    _aligner("rulsif", "RuLSIF", "relative density ratio, which stays bounded"),
    _aligner(
        "discriminator-ratio", "DiscriminatorRatio", "odds of a classifier that tells the domains apart; sparse rows"
    ),
    _aligner("nearest-neighbours", "NearestNeighbourWeighting", "target rows counted around each source row"),
    _aligner("gaussian-ratio", "GaussianRatio", "ratio of two Gaussian densities"),
    _aligner("bbse", "BBSE", "class shares of the target from a source classifier's confusions"),
    _aligner("dasvm", "DASVM", "a support vector machine that moves from source to target rows"),
    _aligner("self-training", "SelfTraining", "a classifier learns from its own surest target rows"),
    _aligner("co-training", "CoTraining", "two classifiers label target rows for each other"),
    _aligner("coda", "CODA", "co-training that splits and chooses features while it labels target rows; sparse rows"),
    _aligner("gradual-co-training", "GradualCoTraining", "co-training that begins with features both domains agree on"),
    _aligner("democratic", "DemocraticCoLearning", "several kinds of learners vote on target rows"),
    _aligner("label-propagation", "LabelPropagation", "source labels spread over a graph of both domains"),
    _aligner("lame", "LAME", "neighbouring target rows get like answers, after training"),
    _aligner("prototypes", "Prototypes", "class means moved to the target's rows"),
    _aligner("source-free", "SourceFree", "a source model alone learns from target rows (SHOT on features)"),
    _aligner(
        "jdot-regression",
        "JDOTRegressor",
        "transport of rows and values at once, with the regressor",
        needs="ot",
        task="numbers",
    ),
    _aligner("tradaboost", "TrAdaBoost", "boosting that doubts source rows", labels="some target labels"),
    _aligner("tradaboost-r2", "TrAdaBoostR2", "the same for numbers", labels="some target labels", task="numbers"),
    _aligner(
        "balanced-weighting",
        "BalancedWeighting",
        "both domains' losses, the target's with a weight",
        labels="some target labels",
    ),
    _aligner(
        "balanced-weighting-regression",
        "BalancedWeightingRegressor",
        "the same for numbers",
        labels="some target labels",
        task="numbers",
    ),
    _aligner(
        "feature-augmentation",
        "AugmentedClassifier",
        "features in three blocks: shared, the source's, the target's",
        labels="some target labels",
    ),
    _aligner(
        "feature-augmentation-regression",
        "AugmentedRegressor",
        "the same for numbers",
        labels="some target labels",
        task="numbers",
    ),
    _aligner(
        "source-prior",
        "SourcePriorLogistic",
        "logistic regression drawn towards the source's weights",
        labels="some target labels",
    ),
    _aligner(
        "source-prior-regression",
        "SourcePriorRidge",
        "ridge regression drawn towards the source's weights",
        labels="some target labels",
        task="numbers",
    ),
    _aligner(
        "fusion",
        "Fusion",
        "both domains' rows, mixed by a weight the target's labels choose",
        labels="some target labels",
    ),
    _aligner(
        "fusion-regression", "FusionRegressor", "the same for numbers", labels="some target labels", task="numbers"
    ),
)

DISTANCES = (
    _distance("mk-mmd", "mk_mmd", "any difference of the distributions, under five Gaussian kernels"),
    _distance("linear-mmd", "linear_time_mmd", "as mk-mmd, in one pass; noisier"),
    _distance("energy", "energy_distance", "any difference of the distributions, without a bandwidth"),
    _distance("proxy-a", "proxy_a_distance", "whether a linear classifier tells the domains apart"),
    _distance("coral", "coral_distance", "difference of the covariances; blind to the means"),
    _distance("frechet", "gaussian_frechet_distance", "difference of means and covariances"),
    _distance(
        "linear-discrepancy", "linear_discrepancy", "how much more two linear predictors can disagree in one domain"
    ),
    _distance("sliced-wasserstein", "sliced_wasserstein", "how far rows must move, averaged over directions"),
    _distance(
        "max-sliced-wasserstein",
        "max_sliced_wasserstein",
        "how far rows must move along the direction that differs most",
    ),
    _distance("sinkhorn", "sinkhorn_divergence", "how far rows must move, squared, smoothed by entropy"),
    _distance("wasserstein-1", "exact_wasserstein", "how far rows must move on average, at the least", needs="ot"),
    _distance(
        "wasserstein-2", "exact_wasserstein", "how far rows must move, root mean square, at the least", needs="ot"
    ),
    _distance("kl-gaussian", "kl_divergence", "surprise at source rows under the target's Gaussian"),
    _distance("kl-neighbours", "kl_divergence", "surprise at source rows, from nearest neighbours"),
    _distance("js-gaussian", "js_divergence", "how far apart two Gaussian densities are"),
    _distance("js-neighbours", "js_divergence", "how far apart the densities are, from nearest neighbours"),
    _distance("label-kl", "label_kl_divergence", "surprise at source classes under the target's shares"),
    _distance("label-js", "label_js_divergence", "how far apart the class shares are"),
    _distance("linear-cka", "linear_cka", "whether two representations of the same rows agree"),
    _distance("kernel-cka", "kernel_cka", "the same under a Gaussian kernel"),
)

RULES = (
    _rule(
        "circular-test", "CircularTest", "adapt there and back: do more source labels return than chance would explain?"
    ),
    _rule("circular-validation", "CircularValidation", "adapt there and back: do the source labels return?"),
    _rule("importance-weighted", "ImportanceWeighted", "held-out source rows, weighted by how target-like they are"),
    _rule("dev", "DeepEmbeddedValidation", "importance-weighted risk with a control variate, on adapted features"),
    _rule("source-accuracy", "SourceAccuracy", "accuracy on held-out source rows: ignores the target"),
    _rule("entropy", "PredictionEntropy", "how sure the answers on the target are; rewards collapse"),
    _rule("bnm", "BatchNuclearNorm", "nuclear norm of the target's probabilities: sure and diverse"),
    _rule("infomax", "InfoMax", "mutual information between target rows and answers"),
    _rule("class-ami", "ClassAMI", "do clusters of target features agree with the answers?"),
    _rule("snd", "SoftNeighbourhoodDensity", "do near target rows get equal answers?"),
    _rule("mixval", "MixVal", "do mixtures of target rows get mixtures of answers?"),
    _rule("rankme", "RankMe", "effective rank of the adapted target features"),
    _rule("ensemble-agreement", "EnsembleAgreement", "who agrees most with the mean of all candidates?"),
    _rule("rank-consensus", "RankConsensus", "several rules vote by ranks, with a margin for not adapting"),
)
