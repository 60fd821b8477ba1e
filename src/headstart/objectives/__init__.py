"""Floor 2: differentiable loss terms. Each file is one formula: a pure function, and a thin `Objective` over it."""

from headstart.objectives.adda import (
    ADDA,
    inverted_label_loss,
)
from headstart.objectives.afn import (
    AFN,
    hard_feature_norm,
    stepwise_feature_norm,
)
from headstart.objectives.bi_tuning import (
    BiTuning,
    contrastive_loss,
)
from headstart.objectives.bsp import (
    BSP,
    batch_spectral_penalty,
)
from headstart.objectives.cdan import (
    CDAN,
    certainty_weights,
    multilinear_map,
    randomised_map,
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
from headstart.objectives.embedding import (
    Embedding,
    embedding_loss,
    gaussian_affinity,
)
from headstart.objectives.feature_mapping import (
    FeatureMapping,
    OutputMapping,
    feature_mapping_loss,
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
from headstart.objectives.irm import (
    IRM,
    irm_penalty,
)
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
from headstart.objectives.swd import (
    SWD,
    sliced_discrepancy,
)
from headstart.objectives.vrex import (
    VREx,
    risk_variance,
)
from headstart.objectives.wdgrl import (
    WDGRL,
)

__all__ = [
    "ADDA",
    "AFN",
    "BSP",
    "BSS",
    "CDAN",
    "CMD",
    "CORAL",
    "DAN",
    "DANN",
    "DELTA",
    "DSAN",
    "GVB",
    "IRM",
    "JAN",
    "L2SP",
    "M3SDA",
    "MDAN",
    "MDD",
    "NEEDS",
    "OSBP",
    "PADA",
    "SWD",
    "WDGRL",
    "Batch",
    "BiTuning",
    "BinaryCrossEntropy",
    "ClassifierDiscrepancy",
    "CoTuning",
    "Consistency",
    "Critic",
    "CrossEntropy",
    "DeepJDOT",
    "Distillation",
    "DomainCORAL",
    "DomainConfusion",
    "DomainDistance",
    "Embedding",
    "FeatureMapping",
    "GroupDRO",
    "HoMM",
    "LwF",
    "MixStyle",
    "MultiDomainDANN",
    "Objective",
    "OutputMapping",
    "Setup",
    "SquaredError",
    "StochasticBatchNorm",
    "StochasticNormalisation",
    "VREx",
    "balanced_class_weights",
    "batch_spectral_penalty",
    "batch_spectral_shrinkage",
    "binary_cross_entropy",
    "central_moment_discrepancy",
    "certainty_weights",
    "channel_increases",
    "channel_weights",
    "classifier_discrepancy",
    "confusion_loss",
    "consistency_loss",
    "contrastive_loss",
    "cross_entropy",
    "direct_relationship",
    "distillation_loss",
    "domain_coral_distance",
    "domain_loss",
    "domain_moment_distance",
    "domain_risks",
    "embedding_loss",
    "exponential_update",
    "feature_map_distance",
    "feature_mapping_loss",
    "gaussian_affinity",
    "gradient_penalty",
    "hard_feature_norm",
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
    "mix_style",
    "moment_distance",
    "moment_kernel_distance",
    "multi_domain_loss",
    "multilinear_map",
    "partial_loss",
    "probe_channels",
    "ramp",
    "randomised_map",
    "reverse_gradient",
    "reverse_relationship",
    "risk_variance",
    "sampled_moment_distance",
    "sliced_discrepancy",
    "smoothed_maximum",
    "squared_error",
    "stepwise_feature_norm",
    "supervised_objective",
    "unknown_loss",
    "unknown_odds",
    "with_mixstyle",
    "with_stochastic_normalisation",
    "without_mixstyle",
    "without_stochastic_normalisation",
]
