"""Floor 1: how well will a base model serve the target? Arrays in, numbers out; nothing is trained, no torch."""

from headstart.transferability.h_score import h_score
from headstart.transferability.leave_one_out import linear_probe_loo
from headstart.transferability.leep import leep
from headstart.transferability.logme import logme
from headstart.transferability.nce import nce
from headstart.transferability.transrate import transrate

__all__ = ["h_score", "leep", "linear_probe_loo", "logme", "nce", "transrate"]
