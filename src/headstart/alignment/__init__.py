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
from headstart.alignment.bbse import BBSE
from headstart.alignment.coral import CORAL
from headstart.alignment.density_ratio import KLIEP, ULSIF, RuLSIF
from headstart.alignment.gfk import GFK
from headstart.alignment.jda import BDA, JDA
from headstart.alignment.kmm import KMM
from headstart.alignment.linear_ot import LinearOT
from headstart.alignment.meda import MEDA
from headstart.alignment.moments import MomentMatching
from headstart.alignment.monge_alignment import MongeAlignment
from headstart.alignment.reweighting import DiscriminatorRatio, GaussianRatio, NearestNeighbourWeighting
from headstart.alignment.subspace import SubspaceAlignment
from headstart.alignment.tca import TCA
from headstart.alignment.tjm import TJM
from headstart.alignment.transport import EMDTransport, PartialTransport, SinkhornTransport, UnbalancedTransport
from headstart.alignment.transport_regularised import ClassRegularisedTransport, LaplaceTransport

__all__ = [
    "BBSE",
    "BDA",
    "CORAL",
    "GFK",
    "JDA",
    "KLIEP",
    "KMM",
    "MEDA",
    "TCA",
    "TJM",
    "ULSIF",
    "AdaptedClassifier",
    "AdaptedRegressor",
    "Aligner",
    "ClassRegularisedTransport",
    "DiscriminatorRatio",
    "DomainClassifier",
    "DomainRegressor",
    "Domains",
    "EMDTransport",
    "FeatureAligner",
    "GaussianRatio",
    "LaplaceTransport",
    "LinearOT",
    "MomentMatching",
    "MongeAlignment",
    "NearestNeighbourWeighting",
    "PartialTransport",
    "Reweighter",
    "RuLSIF",
    "SinkhornTransport",
    "SubspaceAlignment",
    "UnbalancedTransport",
    "effective_sample_size",
]
