"""Floor 3: solvers for frozen features. Each ends as one linear map with calibrated probabilities."""

from headstart.heads.head import LinearHead
from headstart.heads.logistic import LogisticHead
from headstart.heads.memo import head_key, recall_head, remember_head
from headstart.heads.nearest_mean import NearestMeanHead
from headstart.heads.ridge import LinearRegressionHead, RidgeHead
from headstart.heads.rows import TrainingRows
from headstart.heads.solve import solve_head
from headstart.heads.temperature import fit_temperature, to_probabilities

__all__ = [
    "LinearHead",
    "LinearRegressionHead",
    "LogisticHead",
    "NearestMeanHead",
    "RidgeHead",
    "TrainingRows",
    "fit_temperature",
    "head_key",
    "recall_head",
    "remember_head",
    "solve_head",
    "to_probabilities",
]
