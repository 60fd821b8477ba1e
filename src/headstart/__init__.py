"""headstart: transfer learning that proves whether it helped.

    import headstart
    run = headstart.fit("photos/")          # a folder of class folders
    print(run)                              # the verdict, with its figures
    headstart.load_model(run.folder).predict("new/").to_csv("predictions.csv")

Importing headstart imports neither torch nor any other large library; the functions below do when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headstart.core.version import VERSION

if TYPE_CHECKING:
    from headstart.backbones import open_backbone as open_backbone
    from headstart.data import check_dataset as check_dataset
    from headstart.data import open_dataset as open_dataset
    from headstart.model import Model as Model
    from headstart.model import Predictions as Predictions
    from headstart.model import load_model as load_model
    from headstart.workflow import Adaptation as Adaptation
    from headstart.workflow import Comparison as Comparison
    from headstart.workflow import Gap as Gap
    from headstart.workflow import Ranking as Ranking
    from headstart.workflow import Run as Run
    from headstart.workflow import adapt as adapt
    from headstart.workflow import compare as compare
    from headstart.workflow import evaluate as evaluate
    from headstart.workflow import fit as fit
    from headstart.workflow import gap as gap
    from headstart.workflow import rank as rank
    from headstart.workflow import runs as runs

__version__ = VERSION

_HOMES = {
    "Adaptation": "headstart.workflow",
    "Comparison": "headstart.workflow",
    "Gap": "headstart.workflow",
    "Model": "headstart.model",
    "Predictions": "headstart.model",
    "Ranking": "headstart.workflow",
    "Run": "headstart.workflow",
    "adapt": "headstart.workflow",
    "check_dataset": "headstart.data",
    "compare": "headstart.workflow",
    "evaluate": "headstart.workflow",
    "fit": "headstart.workflow",
    "gap": "headstart.workflow",
    "load_model": "headstart.model",
    "open_backbone": "headstart.backbones",
    "open_dataset": "headstart.data",
    "rank": "headstart.workflow",
    "runs": "headstart.workflow",
}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'headstart' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
