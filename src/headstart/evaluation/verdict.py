"""Whether transfer helped, in one sentence that the figures bear out.

Transfer *helped* when the model beats every baseline that used no transfer (majority, raw input, from scratch), each
in a paired test on the same test rows. All tests must agree, so no correction for several tests is needed (an
intersection-union test, Berger 1982). It *did not help* when one baseline beats the model; any one would do, so those
p-values are multiplied by the number of tests (Bonferroni). Everything else is *unclear*, and so is every run without
a from-scratch baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from headstart.core.errors import ConfigError, did_you_mean
from headstart.core.tasks import Task
from headstart.evaluation.paired import PairedTest
from headstart.evaluation.protocol import Evaluation
from headstart.evaluation.wording import format_interval, format_metric, format_p_value, is_share, metric_title

__all__ = ["Helped", "Verdict", "default_metric", "judge"]

Helped = Literal[True, False, "unclear"]

_TITLES = {"scratch": "from scratch", "raw": "raw input", "majority": "majority"}


@dataclass(frozen=True)
class Verdict:
    """The answer to "did transfer help?".

    Parameters
    ----------
    text : str
        One sentence with the figures, for the first line of a run.
    transfer_helped : True, False or "unclear"
        True: better than every baseline without transfer, beyond chance. False: worse than one of them, beyond chance.
    metric : str
        The metric it was judged by.
    reasons : tuple of str
        One line for each comparison, for whoever asks why.
    """

    text: str
    transfer_helped: Helped
    metric: str
    reasons: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value with the same names."""
        return {
            "text": self.text,
            "transfer_helped": self.transfer_helped,
            "metric": self.metric,
            "reasons": list(self.reasons),
        }


def default_metric(task: Task) -> str:
    """Return the metric a task is judged by unless the user names another.

    Examples
    --------
    >>> default_metric(Task("regression"))
    'rmse'
    """
    return {"classification": "accuracy", "multilabel": "f1_macro", "regression": "rmse"}[task.kind]


def judge(
    transfer: Evaluation,
    baselines: Mapping[str, Evaluation],
    paired: Mapping[str, PairedTest],
    *,
    metric: str | None = None,
    significance: float = 0.05,
) -> Verdict:
    """Say whether transfer helped.

    Parameters
    ----------
    transfer : Evaluation
        The model, on the sealed test rows.
    baselines : mapping of str to Evaluation
        ``"scratch"``, ``"raw"``, ``"majority"``: those that were run, on the same rows.
    paired : mapping of str to PairedTest
        For each baseline, the model against it (positive favours the model), all in ``metric``.
    metric : str, optional
        What to judge by; `default_metric` when left out.
    significance : float in (0, 1)
        Chance of a wrong claim that is accepted.

    Returns
    -------
    Verdict
        Its text is made for the first line of a run.

    Raises
    ------
    ConfigError
        If ``metric`` was not evaluated, or a baseline has no paired test in it.

    Examples
    --------
    >>> from headstart.evaluation.intervals import Interval
    >>> task = Task("classification", ("a", "b"))
    >>> def at(value): return Evaluation(task, 100, {"accuracy": Interval(value, value - 0.05, value + 0.05)})
    >>> def test(gap): return PairedTest("accuracy", "exact McNemar", gap, gap - 0.01, gap + 0.01, 0.0001)
    >>> judge(at(0.9), {"scratch": at(0.6)}, {"scratch": test(0.3)}).text
    'Transfer helped: accuracy 90.0 % (95 % CI 85.0 to 95.0), from scratch 60.0 %; paired test p < 0.001.'
    """
    metric = metric or default_metric(transfer.task)
    _check(transfer, baselines, paired, metric)
    helped = _decide({name: paired[name] for name in baselines}, significance)
    lead = {True: "Transfer helped", False: "Transfer did not help", "unclear": "Unclear whether transfer helped"}[
        helped
    ]
    deciding = _deciding(helped, baselines, paired)
    shown = [name for name in ("scratch", "raw", "majority") if name in baselines]
    if "scratch" in baselines and deciding != "raw":
        shown = [name for name in shown if name != "raw"]
    interval = transfer.metrics[metric]
    text = f"{lead}: {metric_title(metric)} {format_metric(metric, interval.value)}"
    text += f" (95 % CI {format_interval(metric, interval)})"
    for name in shown:
        text += (
            f", {baseline_title(name, transfer.task)} {format_metric(metric, baselines[name].metrics[metric].value)}"
        )
    if deciding is not None:
        against = "" if deciding == "scratch" else f" against {baseline_title(deciding, transfer.task)}"
        text += f"; paired test{against} {format_p_value(paired[deciding].p_value)}"
    if "scratch" not in baselines:
        text += "; not compared with training from scratch"
    return Verdict(text + ".", helped, metric, _reasons(transfer.task, baselines, paired, significance))


def baseline_title(name: str, task: Task) -> str:
    """Return a baseline's name for people.

    Examples
    --------
    >>> baseline_title("majority", Task("regression")), baseline_title("raw", Task("regression"))
    ('mean', 'raw input')
    """
    if name == "majority" and task.kind == "regression":
        return "mean"
    return _TITLES.get(name, name)


def _check(
    transfer: Evaluation, baselines: Mapping[str, Evaluation], paired: Mapping[str, PairedTest], metric: str
) -> None:
    if metric not in transfer.metrics:
        raise ConfigError(
            f"judge: the metric must be one that was evaluated; got {metric!r}.{did_you_mean(metric, transfer.metrics)}"
        )
    for name in baselines:
        if name not in paired or paired[name].metric != metric:
            raise ConfigError(f"judge: baseline {name!r} needs a paired test in {metric!r}; run paired_test first.")


def _decide(paired: Mapping[str, PairedTest], significance: float) -> Helped:
    worse = [t for t in paired.values() if t.difference < 0 and t.p_value * len(paired) < significance]
    if worse:
        return False
    better = [t for t in paired.values() if t.difference > 0 and t.p_value < significance]
    return True if "scratch" in paired and len(better) == len(paired) else "unclear"


def _deciding(helped: Helped, baselines: Mapping[str, Evaluation], paired: Mapping[str, PairedTest]) -> str | None:
    """Return the baseline whose test settled the matter: from scratch, unless another stood in the way."""
    if not baselines:
        return None
    closest = min(baselines, key=lambda name: paired[name].difference)
    if helped is True and "scratch" in baselines:
        return "scratch"
    return closest


def _reasons(
    task: Task, baselines: Mapping[str, Evaluation], paired: Mapping[str, PairedTest], significance: float
) -> tuple[str, ...]:
    lines = []
    for name in baselines:
        test = paired[name]
        if test.p_value >= significance or test.difference == 0:
            word = "not distinguishable from"
        else:
            word = "better than" if test.difference > 0 else "worse than"
        scale, unit = (100, " points of ") if is_share(test.metric) else (1, " ")
        sign = -1 if word == "worse than" else 1
        ends = sorted((sign * scale * test.low, sign * scale * test.high))
        gap = f"{sign * scale * test.difference:.3g}{unit}{metric_title(test.metric)}"
        lines.append(
            f"{word} {baseline_title(name, task)}: by {gap} "
            f"(95 % CI {ends[0]:.3g} to {ends[1]:.3g}), {test.test}, {format_p_value(test.p_value)}"
        )
    if "scratch" not in baselines:
        lines.append("no from-scratch run to compare with")
    return tuple(lines)
