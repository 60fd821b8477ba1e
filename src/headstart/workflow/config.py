"""What a run was asked for: the arguments of `fit`, written as TOML that recreates it."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from headstart.core.errors import ConfigError, HeadstartError, did_you_mean
from headstart.workflow.limits import Limits, parse_size

__all__ = ["FitConfig", "ScratchBudget", "check_strategy", "make_config", "read_config"]

ScratchBudget = Literal["auto", "full", "off"]


@dataclass(frozen=True)
class FitConfig:
    """How to fit, apart from the rows themselves; every field is an option of ``headstart fit``.

    Parameters
    ----------
    text, image, label, group, split, domain : str, optional
        Columns of a table. Several label columns are joined by commas.
    task : {"auto", "classification", "multilabel", "regression"}
        Kind of target.
    goal : str, optional
        Requirement, such as ``"macro_f1 >= 0.95"``; judged on validation predictions, reported on test rows too.
    budget : str, optional
        Wall-clock limit, such as ``"10m"``.
    strategy : str
        How far the base model may be changed. ``"auto"``: with a goal, rung after rung until it is met; without one, a
        solved head. ``"head"``: never. ``"last-stages"``, ``"full"``, ``"layerwise-decay"``, ``"gradual-unfreezing"``,
        ``"lp-ft"``, ``"lora"`` (a number may follow: ``"last-stages:2"``) or ``"search"``: this and no other.
    unlabelled : str, optional
        Rows without labels that the model will meet: a folder, file or table; the labelled table again for its rows without one.
    max_size, max_memory : str, optional
        Most bytes of the saved model (``"20MB"``), and of the process's memory (``"4GB"``).
    backbones : tuple of str
        Base models to choose from; empty for every one that is at hand.
    head : str
        ``"auto"``, or a head's name.
    class_weight : {"none", "balanced"}
        "balanced" makes every class count the same.
    views : {1, 2}
        2 adds the mirror image of every row.
    scratch : {"auto", "full", "off"}
        The from-scratch baseline: "auto" trains it for as much CPU time as the transfer run took (30 s to 2 minutes),
        "full" until it stops improving, "off" leaves it out (and the verdict then says so).
    runtime : str
        ``"auto"`` measures; or a label such as ``"torch-fp32"``.
    test : float in (0, 1)
        Share of rows sealed for the test, where the data brings no test part.
    seed : int
        Splits, folds, draws.
    """

    text: str | None = None
    image: str | None = None
    label: str | None = None
    group: str | None = None
    split: str | None = None
    domain: str | None = None
    task: str = "auto"
    goal: str | None = None
    budget: str | None = None
    strategy: str = "auto"
    unlabelled: str | None = None
    max_size: str | None = None
    max_memory: str | None = None
    backbones: tuple[str, ...] = ()
    head: str = "auto"
    class_weight: Literal["none", "balanced"] = "none"
    views: int = 1
    scratch: ScratchBudget = "auto"
    runtime: str = "auto"
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {
            "task": (self.task, ("auto", "classification", "multilabel", "regression")),
            "class_weight": (self.class_weight, ("none", "balanced")),
            "scratch": (self.scratch, ("auto", "full", "off")),
            "views": (self.views, (1, 2)),
        }
        for name, (value, known) in choices.items():
            if value not in known:
                hint = did_you_mean(str(value), map(str, known))
                raise ConfigError(f"fit: {name} is one of {', '.join(map(str, known))}; got {value!r}.{hint}")
        if not 0 < self.test < 1:
            raise ConfigError(f"fit: test is a share of the rows between 0 and 1; got {self.test}.")

    @property
    def columns(self) -> dict[str, Any]:
        """The arguments `open_dataset` takes."""
        label: str | list[str] | None = self.label
        if self.label is not None and "," in self.label:
            label = [name.strip() for name in self.label.split(",")]
        named = {
            "text": self.text,
            "image": self.image,
            "label": label,
            "group": self.group,
            "split": self.split,
            "domain": self.domain,
        }
        found = {name: value for name, value in named.items() if value is not None}
        return found if self.task == "auto" else {**found, "task": self.task}

    @property
    def limits(self) -> Limits:
        """What the model may need at most."""
        size = math.inf if self.max_size is None else parse_size(self.max_size, "max_size")
        memory = math.inf if self.max_memory is None else parse_size(self.max_memory, "max_memory")
        return Limits(size=size, memory=memory)

    def to_toml(self, source: str) -> str:
        """Return TOML that ``headstart fit --config`` runs again; fields left at their defaults are written too."""
        lines = ["# headstart fit --config THIS_FILE", f"source = {_toml(source)}"]
        lines += [f"{name} = {_toml(value)}" for name, value in asdict(self).items() if value is not None]
        return "\n".join(lines) + "\n"

    def command(self, source: str, out: str | None = None) -> str:
        """Return the command line that repeats the run: what differs from the defaults."""
        import shlex

        parts = ["headstart", "fit", source]
        for field in fields(self):
            value = getattr(self, field.name)
            if value in (field.default, ()):
                continue
            flag = {"backbones": "--backbone"}.get(field.name, "--" + field.name.replace("_", "-"))
            parts += [flag, ",".join(value) if isinstance(value, tuple) else str(value)]
        if out is not None:
            parts += ["--out", out]
        return shlex.join(parts)


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def read_config(path: Path) -> tuple[str, FitConfig]:
    """Return the source and the configuration a TOML file holds.

    Raises
    ------
    ConfigError
        If it cannot be read, or names something that is no option of ``fit``.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"fit: {path} is not a configuration: {error}; give a TOML file such as run.toml.") from error
    return str(content.pop("source", "")), make_config(content, str(path))


def make_config(options: Mapping[str, Any], where: str = "fit") -> FitConfig:
    """Return a configuration from options by name; an unknown name is an error that suggests the near one."""
    known = {field.name for field in fields(FitConfig)}
    for name in options:
        if name not in known:
            raise ConfigError(f"fit: {where} has no option {name!r}.{did_you_mean(name, known)}")
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    try:
        return FitConfig(**given)
    except TypeError as error:
        raise ConfigError(f"fit: {where} holds a value of the wrong kind ({error}).") from error


def check_strategy(name: str) -> None:
    """Refuse a strategy that there is not, before any work."""
    if name in {"auto", "head", "search"}:
        return
    from headstart.training.strategies import read_strategy

    try:
        read_strategy(name)
    except HeadstartError as error:
        raise ConfigError(f"fit: {error} Or auto, head, search.") from error
