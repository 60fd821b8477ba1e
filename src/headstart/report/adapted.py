"""What competed for the target, and what the target's labels say of it afterwards, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from headstart.evaluation import Interval, PairedTest, format_interval, format_metric, format_p_value, metric_title
from headstart.evaluation.wording import is_share

__all__ = ["AdaptedLine", "Hindsight"]


@dataclass(frozen=True)
class AdaptedLine:
    """One candidate in the table.

    Parameters
    ----------
    name : str
        As in the catalog, or "do not adapt".
    score : float, optional
        The rule's; None where there is none.
    note : str
        Why not, then.
    changed : float, optional
        Share of target rows that it answers otherwise than "do not adapt" does.
    cpu_seconds : float
        What fitting it and gathering the evidence took.
    measured : Interval, optional
        On the target's labels, where some came with it; looked at after the choice.
    further : dict of str to Interval
        Other figures on the same labels, by metric; numbers have them.
    entropy : float, optional
        Mean entropy of its answers in nats, where a saved model was adapted.
    unlike : float, optional
        Share of target rows that are unlike the model's training rows as it sees them, likewise.
    """

    name: str
    score: float | None
    note: str
    changed: float | None
    cpu_seconds: float
    measured: Interval | None = None
    further: dict[str, Interval] = field(default_factory=dict)
    entropy: float | None = None
    unlike: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value with the same names."""
        return {
            **vars(self),
            "measured": None if self.measured is None else self.measured.to_dict(),
            "further": {name: value.to_dict() for name, value in self.further.items()},
        }


@dataclass(frozen=True)
class Hindsight:
    """What the target's labels say once the choice is made.

    Parameters
    ----------
    rows : int
        Target rows with a label.
    unknown : int
        Of these, rows of classes the source does not have: no candidate can name them.
    source_only, selected, oracle : Interval
        The figure without adaptation, of what was chosen, and of the best candidate, which only these labels can name.
    oracle_name : str
        That candidate.
    test : PairedTest, optional
        Selected against source only; None where they are the same.
    metric : str
        What the figure is.
    further : dict of str to pair of Interval
        Other figures of source only and of what was chosen, by metric.
    stays : str
        What not adapting is called: "source only", or the model as it was.
    """

    rows: int
    unknown: int
    source_only: Interval
    selected: Interval
    oracle: Interval
    oracle_name: str
    test: PairedTest | None
    metric: str = "accuracy"
    further: dict[str, tuple[Interval, Interval]] = field(default_factory=dict)
    stays: str = "source only"

    @property
    def word(self) -> str:
        """What these labels say of the choice, in a few words."""
        if self.test is None:
            return "Nothing was adapted"
        if self.test.p_value >= 0.05:
            return "No difference beyond chance"
        return "Adapting helped" if self.test.difference > 0 else "Adapting hurt (negative transfer)"

    @property
    def titles(self) -> list[str]:
        """Heads of the columns that `cells` fills."""
        return [metric_title(self.metric), "95 % interval", *map(metric_title, self.further)]

    def cells(self, line: AdaptedLine) -> list[str]:
        """Return a candidate's figures on these labels, as `titles` has them; empty where it has none."""
        value = line.measured
        own = (
            ["", ""]
            if value is None
            else [format_metric(self.metric, value.value), format_interval(self.metric, value)]
        )
        others = [
            format_metric(name, line.further[name].value) if name in line.further else "" for name in self.further
        ]
        return [*own, *others]

    @property
    def kind(self) -> Literal["good", "bad", "unsure"]:
        """Whether that is good news."""
        if self.test is None or self.test.p_value >= 0.05:
            return "unsure"
        return "good" if self.test.difference > 0 else "bad"

    @property
    def sentence(self) -> str:
        """Selected beside source only, with intervals and the paired test."""
        gain = ""
        if self.test is not None:
            points = (
                f"{100 * self.test.difference:+.1f} points" if is_share(self.metric) else f"{self.test.difference:+.3g}"
            )
            gain = f"; {points}, paired test {format_p_value(self.test.p_value)}"
        return (
            f"{self.word}: selected {self._shown(self.selected)}, {self.stays} {self._shown(self.source_only)}{gain}, "
            f"on {self.rows:,} labelled target rows that chose nothing."
        )

    def _shown(self, value: Interval, metric: str = "") -> str:
        metric = metric or self.metric
        name = "" if metric == "accuracy" else f"{metric_title(metric)} "
        return f"{name}{format_metric(metric, value.value)} (95 % CI {format_interval(metric, value)})"

    def __str__(self) -> str:
        also = [
            f"selected {self._shown(chosen, name)}, {self.stays} {self._shown(stays, name)}"
            for name, (stays, chosen) in self.further.items()
        ]
        lines = [
            self.sentence,
            *([f"Also: {'; '.join(also)}."] if also else []),
            f"Oracle, unreachable without target labels: {self.oracle_name} {self._shown(self.oracle)}.",
        ]
        if self.unknown:
            lines.append(
                f'{self.unknown:,} of these rows belong to classes the source does not have; "unknown" is the one right answer '
                "to them, and only methods for open sets give it."
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value; the oracle's name says that nobody can reach it."""
        return {
            "metric": self.metric,
            "verdict": self.word,
            "rows": self.rows,
            "unknown": self.unknown,
            "source_only": self.source_only.to_dict(),
            "selected": self.selected.to_dict(),
            "oracle_unreachable": {"name": self.oracle_name, **self.oracle.to_dict()},
            "paired_test": None if self.test is None else self.test.to_dict(),
            "further": {
                name: {"source_only": stays.to_dict(), "selected": chosen.to_dict()}
                for name, (stays, chosen) in self.further.items()
            },
        }
