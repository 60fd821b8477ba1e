"""Floor 3: heads: solvers for frozen features, which end as one linear map, and small networks that training fills."""

from headstart.heads.head import LinearHead
from headstart.heads.layers import build_layers, describe_layers, parse_layers
from headstart.heads.logistic import LogisticHead
from headstart.heads.memo import head_key, recall_head, remember_head
from headstart.heads.nearest_mean import NearestMeanHead
from headstart.heads.network_head import NetworkHead, load_head
from headstart.heads.open_set_head import OpenSetHead
from headstart.heads.ridge import LinearRegressionHead, RidgeHead
from headstart.heads.rows import TrainingRows
from headstart.heads.scoring import Head
from headstart.heads.solve import solve_head
from headstart.heads.temperature import fit_temperature, to_probabilities

__all__ = [
    "Head",
    "LinearHead",
    "LinearRegressionHead",
    "LogisticHead",
    "NearestMeanHead",
    "NetworkHead",
    "OpenSetHead",
    "RidgeHead",
    "TrainingRows",
    "build_layers",
    "describe_layers",
    "fit_temperature",
    "head_key",
    "load_head",
    "parse_layers",
    "recall_head",
    "remember_head",
    "solve_head",
    "to_probabilities",
]
