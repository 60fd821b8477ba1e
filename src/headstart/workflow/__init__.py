"""Floor 9: the loop. Rank, fit, gap, adapt, check, predict, evaluate, runs, compare: one function for each command.

What is asked for is imported when it is asked for: listing runs needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.workflow.adaptation import Adaptation as Adaptation
    from headstart.workflow.adapting import adapt as adapt
    from headstart.workflow.applying import Assessment as Assessment
    from headstart.workflow.applying import check as check
    from headstart.workflow.applying import evaluate as evaluate
    from headstart.workflow.applying import predict as predict
    from headstart.workflow.comparing import Comparison as Comparison
    from headstart.workflow.comparing import compare as compare
    from headstart.workflow.config import FitConfig as FitConfig
    from headstart.workflow.config import read_config as read_config
    from headstart.workflow.fitting import fit as fit
    from headstart.workflow.gapping import Gap as Gap
    from headstart.workflow.gapping import gap as gap
    from headstart.workflow.goal import parse_budget as parse_budget
    from headstart.workflow.goal import parse_goal as parse_goal
    from headstart.workflow.index import RunLine as RunLine
    from headstart.workflow.index import RunList as RunList
    from headstart.workflow.index import runs as runs
    from headstart.workflow.ranking import Ranking as Ranking
    from headstart.workflow.ranking import rank as rank
    from headstart.workflow.run import Run as Run
    from headstart.workflow.together import fit_together as fit_together

_HOMES = {
    "Adaptation": "adaptation",
    "Assessment": "applying",
    "Comparison": "comparing",
    "FitConfig": "config",
    "Gap": "gapping",
    "Ranking": "ranking",
    "Run": "run",
    "RunLine": "index",
    "RunList": "index",
    "adapt": "adapting",
    "check": "applying",
    "compare": "comparing",
    "evaluate": "applying",
    "fit": "fitting",
    "fit_together": "together",
    "gap": "gapping",
    "parse_budget": "goal",
    "parse_goal": "goal",
    "predict": "applying",
    "rank": "ranking",
    "read_config": "config",
    "runs": "index",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"headstart.workflow.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'headstart.workflow' has no attribute {name!r}")
