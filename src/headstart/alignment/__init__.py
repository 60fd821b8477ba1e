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

__all__ = [
    "CORAL",
    "AdaptedClassifier",
    "AdaptedRegressor",
    "Aligner",
    "DomainClassifier",
    "DomainRegressor",
    "Domains",
    "FeatureAligner",
    "Reweighter",
    "effective_sample_size",
]
