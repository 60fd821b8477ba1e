"""Floor 8: the loop. Rank, fit, check, predict, evaluate: one function for each command."""

from headstart.workflow.applying import Assessment, check, evaluate, predict
from headstart.workflow.comparing import Comparison, compare
from headstart.workflow.config import FitConfig, read_config
from headstart.workflow.fitting import fit
from headstart.workflow.goal import parse_budget, parse_goal
from headstart.workflow.index import RunLine, RunList, runs
from headstart.workflow.ranking import Ranking, rank
from headstart.workflow.run import Run

__all__ = [
    "Assessment",
    "Comparison",
    "FitConfig",
    "Ranking",
    "Run",
    "RunLine",
    "RunList",
    "check",
    "compare",
    "evaluate",
    "fit",
    "parse_budget",
    "parse_goal",
    "predict",
    "rank",
    "read_config",
    "runs",
]
