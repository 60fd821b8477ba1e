"""Floor 2: differentiable loss terms. Each file is one formula: a pure function, and a thin `Objective` over it."""

from headstart.objectives.adda import ADDA, inverted_label_loss
from headstart.objectives.afn import AFN, hard_feature_norm, stepwise_feature_norm
from headstart.objectives.atdoc import (
    ATDOC,
    centre_vote,
    neighbour_vote,
    sharpened,
    weighted_cross_entropy,
)
from headstart.objectives.bi_tuning import BiTuning, contrastive_loss
from headstart.objectives.bsp import BSP, batch_spectral_penalty
from headstart.objectives.cdan import (
    CDAN,
    certainty_weights,
    multilinear_map,
    randomised_map,
)
from headstart.objectives.class_weighted_cross_entropy import (
    ClassWeightedCrossEntropy,
    class_weighted_cross_entropy,
    class_weights_of,
)
from headstart.objectives.classifier_discrepancy import (
    ClassifierDiscrepancy,
    classifier_discrepancy,
)
from headstart.objectives.cmd import (
    CMD,
    central_moment_discrepancy,
)
from headstart.objectives.co_tuning import (
    CoTuning,
    direct_relationship,
    reverse_relationship,
)
from headstart.objectives.consistency import (
    Consistency,
    consistency_loss,
)
from headstart.objectives.critic import (
    Critic,
    domain_loss,
    gradient_penalty,
    reverse_gradient,
)
from headstart.objectives.dan import (
    DAN,
)
from headstart.objectives.dann import (
    DANN,
    MultiDomainDANN,
    multi_domain_loss,
)
from headstart.objectives.deep_co_training import (
    DeepCoTraining,
    exchanged_labels,
    shared_features,
)
from headstart.objectives.deep_coral import (
    CORAL,
)
from headstart.objectives.deep_jdot import (
    DeepJDOT,
    joint_transport_costs,
)
from headstart.objectives.delta import (
    DELTA,
    channel_increases,
    channel_weights,
    feature_map_distance,
    probe_channels,
)
from headstart.objectives.distillation import (
    Distillation,
    distillation_loss,
    kl_divergence,
)
from headstart.objectives.domain_confusion import (
    DomainConfusion,
    confusion_loss,
)
from headstart.objectives.domain_coral import (
    DomainCORAL,
    domain_coral_distance,
)
from headstart.objectives.domain_distance import (
    DomainDistance,
)
from headstart.objectives.domain_risks import (
    domain_risks,
)
from headstart.objectives.dsan import (
    DSAN,
    local_mmd,
)
from headstart.objectives.eata import (
    EATA,
    reliable_entropy,
    reliable_rows,
)
from headstart.objectives.embedding import (
    Embedding,
    embedding_loss,
    gaussian_affinity,
)
from headstart.objectives.entropy import (
    Entropy,
    mean_entropy,
    row_entropies,
)
from headstart.objectives.entropy_separation import (
    EntropySeparation,
    entropy_separation,
)
from headstart.objectives.feature_mapping import (
    FeatureMapping,
    OutputMapping,
    feature_mapping_loss,
)
from headstart.objectives.fixmatch import (
    FixMatch,
    confident_loss,
)
from headstart.objectives.flexmatch import (
    FlexMatch,
    curriculum_thresholds,
)
from headstart.objectives.group_dro import (
    GroupDRO,
    exponential_update,
)
from headstart.objectives.gvb import (
    GVB,
)
from headstart.objectives.homm import (
    HoMM,
    moment_distance,
    moment_kernel_distance,
    sampled_moment_distance,
)
from headstart.objectives.information_maximisation import (
    InfoMax,
    entropy_of_mean,
    information_maximisation,
)
from headstart.objectives.irm import IRM, irm_penalty
from headstart.objectives.jan import (
    JAN,
    joint_mmd,
)
from headstart.objectives.l2_sp import (
    L2SP,
    l2_sp_penalty,
)
from headstart.objectives.learning_without_forgetting import (
    LwF,
    lwf_loss,
)
from headstart.objectives.mdan import (
    MDAN,
    smoothed_maximum,
)
from headstart.objectives.mdd import (
    MDD,
    margin_disparity,
)
from headstart.objectives.mean_teacher import (
    MeanTeacher,
    gaussian_ramp,
    teacher_loss,
)
from headstart.objectives.minimax_entropy import (
    MME,
)
from headstart.objectives.minimum_class_confusion import (
    MCC,
    class_confusion,
)
from headstart.objectives.mixstyle import (
    MixStyle,
    mix_style,
    with_mixstyle,
    without_mixstyle,
)
from headstart.objectives.moment_matching import (
    M3SDA,
    domain_moment_distance,
)
from headstart.objectives.multi_task import (
    MultiTask,
)
from headstart.objectives.neighbourhood_clustering import (
    NeighbourhoodClustering,
    neighbourhood_entropy,
)
from headstart.objectives.neighbourhood_density import (
    NeighbourhoodDensity,
    neighbourhood_density,
)
from headstart.objectives.neighbourhood_reciprocity import (
    NRC,
    neighbourhood_agreement,
)
from headstart.objectives.nuclear_norm import (
    BNM,
    batch_nuclear_norm,
)
from headstart.objectives.objective import (
    NEEDS,
    Batch,
    Objective,
    Setup,
    joint_loss,
)
from headstart.objectives.osbp import (
    OSBP,
    unknown_loss,
    unknown_odds,
)
from headstart.objectives.pada import (
    PADA,
    partial_loss,
)
from headstart.objectives.schedules import (
    linear,
    ramp,
)
from headstart.objectives.self_training import (
    SelfTraining,
    balanced_thresholds,
    self_training_loss,
)
from headstart.objectives.shot import (
    SHOT,
    centre_labels,
)
from headstart.objectives.spectral_shrinkage import (
    BSS,
    batch_spectral_shrinkage,
)
from headstart.objectives.stochastic_normalisation import (
    StochasticBatchNorm,
    StochasticNormalisation,
    with_stochastic_normalisation,
    without_stochastic_normalisation,
)
from headstart.objectives.supervised import (
    BinaryCrossEntropy,
    CrossEntropy,
    SquaredError,
    balanced_class_weights,
    binary_cross_entropy,
    cross_entropy,
    squared_error,
    supervised_objective,
)
from headstart.objectives.swd import SWD, sliced_discrepancy
from headstart.objectives.together import Together
from headstart.objectives.virtual_adversarial import (
    VAT,
    adversarial_direction,
    virtual_adversarial_loss,
)
from headstart.objectives.vrex import VREx, risk_variance
from headstart.objectives.wdgrl import (
    WDGRL,
)

__all__ = [
    "ADDA",
    "AFN",
    "ATDOC",
    "BNM",
    "BSP",
    "BSS",
    "CDAN",
    "CMD",
    "CORAL",
    "DAN",
    "DANN",
    "DELTA",
    "DSAN",
    "EATA",
    "GVB",
    "IRM",
    "JAN",
    "L2SP",
    "M3SDA",
    "MCC",
    "MDAN",
    "MDD",
    "MME",
    "NEEDS",
    "NRC",
    "OSBP",
    "PADA",
    "SHOT",
    "SWD",
    "VAT",
    "WDGRL",
    "Batch",
    "BiTuning",
    "BinaryCrossEntropy",
    "ClassWeightedCrossEntropy",
    "ClassifierDiscrepancy",
    "CoTuning",
    "Consistency",
    "Critic",
    "CrossEntropy",
    "DeepCoTraining",
    "DeepJDOT",
    "Distillation",
    "DomainCORAL",
    "DomainConfusion",
    "DomainDistance",
    "Embedding",
    "Entropy",
    "EntropySeparation",
    "FeatureMapping",
    "FixMatch",
    "FlexMatch",
    "GroupDRO",
    "HoMM",
    "InfoMax",
    "LwF",
    "MeanTeacher",
    "MixStyle",
    "MultiDomainDANN",
    "MultiTask",
    "NeighbourhoodClustering",
    "NeighbourhoodDensity",
    "Objective",
    "OutputMapping",
    "SelfTraining",
    "Setup",
    "SquaredError",
    "StochasticBatchNorm",
    "StochasticNormalisation",
    "Together",
    "VREx",
    "adversarial_direction",
    "balanced_class_weights",
    "balanced_thresholds",
    "batch_nuclear_norm",
    "batch_spectral_penalty",
    "batch_spectral_shrinkage",
    "binary_cross_entropy",
    "central_moment_discrepancy",
    "centre_labels",
    "centre_vote",
    "certainty_weights",
    "channel_increases",
    "channel_weights",
    "class_confusion",
    "class_weighted_cross_entropy",
    "class_weights_of",
    "classifier_discrepancy",
    "confident_loss",
    "confusion_loss",
    "consistency_loss",
    "contrastive_loss",
    "cross_entropy",
    "curriculum_thresholds",
    "direct_relationship",
    "distillation_loss",
    "domain_coral_distance",
    "domain_loss",
    "domain_moment_distance",
    "domain_risks",
    "embedding_loss",
    "entropy_of_mean",
    "entropy_separation",
    "exchanged_labels",
    "exponential_update",
    "feature_map_distance",
    "feature_mapping_loss",
    "gaussian_affinity",
    "gaussian_ramp",
    "gradient_penalty",
    "hard_feature_norm",
    "information_maximisation",
    "inverted_label_loss",
    "irm_penalty",
    "joint_loss",
    "joint_mmd",
    "joint_transport_costs",
    "kl_divergence",
    "l2_sp_penalty",
    "linear",
    "local_mmd",
    "lwf_loss",
    "margin_disparity",
    "mean_entropy",
    "mix_style",
    "moment_distance",
    "moment_kernel_distance",
    "multi_domain_loss",
    "multilinear_map",
    "neighbour_vote",
    "neighbourhood_agreement",
    "neighbourhood_density",
    "neighbourhood_entropy",
    "partial_loss",
    "probe_channels",
    "ramp",
    "randomised_map",
    "reliable_entropy",
    "reliable_rows",
    "reverse_gradient",
    "reverse_relationship",
    "risk_variance",
    "row_entropies",
    "sampled_moment_distance",
    "self_training_loss",
    "shared_features",
    "sharpened",
    "sliced_discrepancy",
    "smoothed_maximum",
    "squared_error",
    "stepwise_feature_norm",
    "supervised_objective",
    "teacher_loss",
    "unknown_loss",
    "unknown_odds",
    "virtual_adversarial_loss",
    "weighted_cross_entropy",
    "with_mixstyle",
    "with_stochastic_normalisation",
    "without_mixstyle",
    "without_stochastic_normalisation",
]
