"""`fit` in several processes: the first does the job, the others take part in its trainings.

    torchrun --nproc-per-node 2 -m headstart fit photos/ --strategy last-stages:2

Only fine-tuning is shared out, which is where the time goes; reading, heads, baselines, files and prints are the first process's.
The result is that of one process up to rounding, as far as `headstart.training.distributed` says.
It ignores CPU seconds and memory of the other processes: the report shows those of the first, and says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headstart.training.crew import Crew
from headstart.workflow.config import FitConfig
from headstart.workflow.fitting import fit
from headstart.workflow.run import Run
from headstart.workflow.sharing import Helper

__all__ = ["fit_together"]


def fit_together(source: Any, *, out: str | Path | None = None, config: FitConfig | None = None) -> Run | None:
    """Do `fit` with all processes that torchrun started; in one process, plain `fit`.

    Parameters
    ----------
    source : path, DataFrame, array, list or Dataset
        As for `fit`; the same in every process.
    out : path, optional
        Folder of the run; the first process alone writes there.
    config : FitConfig, optional
        Every option; the same in every process.

    Returns
    -------
    Run or None
        The run in the first process; None in the others, once they are no longer needed.

    Raises
    ------
    HeadstartError
        As `fit`, in the first process.
    """
    config = config or FitConfig()
    with Crew.assembled() as crew:
        if crew.first:
            return fit(source, out=out, config=config)
        helper = Helper(source, config)
        for _ in crew.calls():
            helper.answer(crew)
    return None
