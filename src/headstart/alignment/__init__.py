"""Floor 3: bringing two domains together on arrays of features, as scikit-learn estimators."""

from headstart.alignment.adapted import AdaptedClassifier, AdaptedRegressor
from headstart.alignment.aligner import (
    Aligner,
    DomainClassifier,
    DomainRegressor,
    Domains,
    FeatureAligner,
    Reweighter,
    effective_sample_size,
)
from headstart.alignment.balanced_weighting import BalancedWeighting, BalancedWeightingRegressor
from headstart.alignment.bbse import BBSE
from headstart.alignment.co_training import CoTraining
from headstart.alignment.coda import CODA
from headstart.alignment.committee import Committee
from headstart.alignment.coral import CORAL
from headstart.alignment.dasvm import DASVM
from headstart.alignment.democratic import DemocraticCoLearning
from headstart.alignment.density_ratio import KLIEP, ULSIF, RuLSIF
from headstart.alignment.feature_augmentation import AugmentedClassifier, AugmentedRegressor, FeatureAugmentation
from headstart.alignment.fusion import Fusion, FusionRegressor
from headstart.alignment.gfk import GFK
from headstart.alignment.gradual_co_training import GradualCoTraining
from headstart.alignment.jcpot import JCPOT
from headstart.alignment.jda import BDA, JDA
from headstart.alignment.jdot import JDOTClassifier, JDOTRegressor
from headstart.alignment.kmm import KMM
from headstart.alignment.label_propagation import LabelPropagation
from headstart.alignment.lame import LAME, lame_probabilities, neighbour_affinity
from headstart.alignment.linear_ot import LinearOT
from headstart.alignment.meda import MEDA
from headstart.alignment.moments import MomentMatching
from headstart.alignment.monge_alignment import MongeAlignment
from headstart.alignment.prototypes import Prototypes
from headstart.alignment.reweighting import DiscriminatorRatio, GaussianRatio, NearestNeighbourWeighting
from headstart.alignment.selective_labelling import SPL
from headstart.alignment.self_training import SelfTraining
from headstart.alignment.source_free import SourceFree
from headstart.alignment.source_prior import SourcePriorLogistic, SourcePriorRidge
from headstart.alignment.subspace import SubspaceAlignment
from headstart.alignment.tca import TCA
from headstart.alignment.tjm import TJM
from headstart.alignment.tradaboost import TrAdaBoost, TrAdaBoostR2
from headstart.alignment.transport import EMDTransport, PartialTransport, SinkhornTransport, UnbalancedTransport
from headstart.alignment.transport_regularised import ClassRegularisedTransport, LaplaceTransport

__all__ = [
    "BBSE",
    "BDA",
    "CODA",
    "CORAL",
    "DASVM",
    "GFK",
    "JCPOT",
    "JDA",
    "KLIEP",
    "KMM",
    "LAME",
    "MEDA",
    "SPL",
    "TCA",
    "TJM",
    "ULSIF",
    "AdaptedClassifier",
    "AdaptedRegressor",
    "Aligner",
    "AugmentedClassifier",
    "AugmentedRegressor",
    "BalancedWeighting",
    "BalancedWeightingRegressor",
    "ClassRegularisedTransport",
    "CoTraining",
    "Committee",
    "DemocraticCoLearning",
    "DiscriminatorRatio",
    "DomainClassifier",
    "DomainRegressor",
    "Domains",
    "EMDTransport",
    "FeatureAligner",
    "FeatureAugmentation",
    "Fusion",
    "FusionRegressor",
    "GaussianRatio",
    "GradualCoTraining",
    "JDOTClassifier",
    "JDOTRegressor",
    "LabelPropagation",
    "LaplaceTransport",
    "LinearOT",
    "MomentMatching",
    "MongeAlignment",
    "NearestNeighbourWeighting",
    "PartialTransport",
    "Prototypes",
    "Reweighter",
    "RuLSIF",
    "SelfTraining",
    "SinkhornTransport",
    "SourceFree",
    "SourcePriorLogistic",
    "SourcePriorRidge",
    "SubspaceAlignment",
    "TrAdaBoost",
    "TrAdaBoostR2",
    "UnbalancedTransport",
    "effective_sample_size",
    "lame_probabilities",
    "neighbour_affinity",
]
