"""Which strategy suits an amount of data, when the user names none: a rule, its reasons, and its words for the log.

The fewer rows, the less of the body can learn more than those rows by heart; the more rows, the more a body that may move gains
over its frozen features (Kornblith et al., "Do better ImageNet models transfer better?", CVPR 2019, arXiv:1805.08974, figure 7:
the two are alike up to some 10 rows a class, then fine-tuning leads). Last stages belong most to the source task (Yosinski et
al., NeurIPS 2014, arXiv:1411.1792). A body that trains starts from the solved head, or forgets (Kumar et al., ICLR 2022,
arXiv:2202.10054), and its first stages are slowed (Howard & Ruder, ACL 2018, arXiv:1801.06146). Very large bodies get adapters
(Hu et al., ICLR 2022, arXiv:2106.09685).

Without a GPU the price counts too: stages behind a frozen prefix that is kept cost a fraction of the whole network, and what the
whole one brings beyond its last third is seldom known before. A default must not take hours that nobody asked for: where all
stages would take longer than ten minutes of one core, the last third trains, and the reason names the strategy that trains all.
"""

from __future__ import annotations

from typing import NamedTuple

from headstart.core.errors import ConfigError
from headstart.core.progress import format_seconds
from headstart.training.adapters import LowRankAdapters
from headstart.training.strategies import (
    HeadOnly,
    LastStages,
    LayerwiseDecay,
    LinearProbeThenFineTune,
    Strategy,
)

__all__ = ["StrategyChoice", "choose_strategy"]

_FEW_ROWS = 40
_FEW_A_CLASS = 5
_SOME_ROWS = 1000
_LARGE_BODY = 300_000_000
_LONG = 600.0  # CPU seconds


class StrategyChoice(NamedTuple):
    """A strategy and, in words, why it."""

    strategy: Strategy
    reason: str


def choose_strategy(
    num_rows: int, num_classes: int, *, parameters: int, num_stages: int, cpu_seconds: float = 0.0
) -> StrategyChoice:
    """Return the strategy for an amount of data.

    ===================================================  =========================================================
    data and base model                                  strategy
    ===================================================  =========================================================
    rows that are features already                       head only: nothing else has parameters
    fewer than 40 rows, or than 5 a class                head only
    fewer than 1,000 rows                                from the solved head, the last third of the stages
    more, and a body of more than 300 million numbers    from the solved head, low-rank adapters
    more, and more than ten minutes of one core          from the solved head, the last third of the stages
    more                                                 from the solved head, all stages, each slower than the next
    ===================================================  =========================================================

    Parameters
    ----------
    num_rows : int
        Labelled training rows.
    num_classes : int
        Number of classes (or labels); 1 for regression.
    parameters : int
        Numbers in the body that could train.
    num_stages : int
        Stages of the body that hold parameters.
    cpu_seconds : float
        What training all stages would take about, of one core; 0 where a GPU computes.

    Raises
    ------
    ConfigError
        If there are no rows.

    Examples
    --------
    >>> choose_strategy(600, 37, parameters=25_000_000, num_stages=5)
    StrategyChoice(strategy=LinearProbeThenFineTune(then=LastStages(num_stages=2), probe=0.3), \
reason='600 rows, 16 a class: enough for the last 2 of 5 stages, too few for all')
    """
    if num_rows < 1:
        raise ConfigError(f"choose_strategy: needs at least one row; got {num_rows}.")
    if parameters == 0 or num_stages == 0:
        return StrategyChoice(HeadOnly(), "the rows are features already: only the head has parameters")
    per_class = num_rows // max(1, num_classes)
    amount = f"{num_rows:,} rows" + (f", {per_class:,} a class" if num_classes > 1 else "")
    if num_rows < _FEW_ROWS or (num_classes > 1 and per_class < _FEW_A_CLASS):
        return StrategyChoice(HeadOnly(), f"{amount}: too few to train the body without learning them by heart")
    last = max(1, round(num_stages / 3))
    if num_rows < _SOME_ROWS and num_stages > 1:
        why = f"{amount}: enough for the last {last} of {num_stages} stages, too few for all"
        return StrategyChoice(LinearProbeThenFineTune(LastStages(last)), why)
    if parameters > _LARGE_BODY:
        why = f"{amount}, and a body of {parameters / 1e6:,.0f} million numbers: adapters move it at a fraction of the memory"
        return StrategyChoice(LinearProbeThenFineTune(LowRankAdapters()), why)
    if cpu_seconds > _LONG and num_stages > 1:
        why = (
            f"{amount}: enough for every stage, which would take about {format_seconds(cpu_seconds)} of one core; the last "
            f"{last} of {num_stages} stages cost a fraction of it (strategy='layerwise-decay' trains all)"
        )
        return StrategyChoice(LinearProbeThenFineTune(LastStages(last)), why)
    return StrategyChoice(LinearProbeThenFineTune(LayerwiseDecay()), f"{amount}: enough for every stage")
