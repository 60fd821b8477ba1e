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
from headstart.alignment.coral import CORAL
from headstart.alignment.transport import EMDTransport, PartialTransport, SinkhornTransport, UnbalancedTransport
from headstart.alignment.transport_regularised import ClassRegularisedTransport, LaplaceTransport

__all__ = [
    "CORAL",
    "AdaptedClassifier",
    "AdaptedRegressor",
    "Aligner",
    "ClassRegularisedTransport",
    "DomainClassifier",
    "DomainRegressor",
    "Domains",
    "EMDTransport",
    "FeatureAligner",
    "LaplaceTransport",
    "PartialTransport",
    "Reweighter",
    "SinkhornTransport",
    "UnbalancedTransport",
    "effective_sample_size",
]
