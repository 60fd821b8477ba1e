"""Floor 3: the one visible training loop, and what it trains: networks in segments, on rows, by phases, as a plan says."""

from headstart.training.array_rows import ArrayRows
from headstart.training.averaging import Average, recompute_statistics
from headstart.training.checkpoint import Checkpoint
from headstart.training.config import TrainingConfig, fitting_batch_size
from headstart.training.distributed import World
from headstart.training.history import History
from headstart.training.inputs import InputRows
from headstart.training.loop import Run, train
from headstart.training.network import Network, Output
from headstart.training.optimiser import rate_share
from headstart.training.phases import Phase, supervised_phase
from headstart.training.plan import ParameterGroup, Plan, whole_plan
from headstart.training.probes import sweep_rates
from headstart.training.rate_finder import RateSweep
from headstart.training.rows import Rows, TrainingRows
from headstart.training.sampler import row_draws

__all__ = [
    "ArrayRows",
    "Average",
    "Checkpoint",
    "History",
    "InputRows",
    "Network",
    "Output",
    "ParameterGroup",
    "Phase",
    "Plan",
    "RateSweep",
    "Rows",
    "Run",
    "TrainingConfig",
    "TrainingRows",
    "World",
    "fitting_batch_size",
    "rate_share",
    "recompute_statistics",
    "row_draws",
    "supervised_phase",
    "sweep_rates",
    "train",
    "whole_plan",
]
