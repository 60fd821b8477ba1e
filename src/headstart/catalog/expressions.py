"""Joint losses in words: ``"ce + 0.5*coral + mcc(temperature=2)"`` is a recipe of one phase.

    ce                     the task's own loss on labelled rows; it is there even when it is not written
    NAME                   an objective of the catalog, with the weight and options it has by default
    WEIGHT*NAME            times a number
    NAME(option=value)     with options; values are numbers, true, false, or words

Terms are added. Whoever needs phases, several heads or rows of one domain alone takes a recipe of the catalog by its name.
"""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.catalog.catalog import entries, find
from headstart.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from headstart.methods.adaptations import AdaptationRecipe, LossOf
    from headstart.objectives import Objective

__all__ = ["JointLoss", "read_objectives", "read_recipe"]

_TASK = "ce"
_TERM = re.compile(r"\s*(?:(?P<weight>[^*()+]+)\*)?\s*(?P<name>[\w-]+)\s*(?:\((?P<options>[^()]*)\))?\s*")


@dataclass(frozen=True)
class Term:
    """One term: a name of the catalog, the factor written before it, and its options."""

    name: str
    factor: float = 1.0
    options: tuple[tuple[str, Any], ...] = ()

    def make(self) -> Objective:
        """Return the objective, afresh."""
        kind, options = find(self.name, "objective").load(), dict(self.options)
        if self.factor != 1:
            known = inspect.signature(kind).parameters
            if "weight" not in known:
                raise ConfigError(f"objectives: {self.name} is no term of a sum and takes no weight; write it without.")
            options["weight"] = self.factor * options.get("weight", known["weight"].default)
        objective: Objective = kind(**options)
        return objective


@dataclass(frozen=True)
class JointLoss:
    """A recipe in words: the task's loss and further terms, minimised over everything at once.

    Parameters
    ----------
    text : str
        As it was written.
    terms : tuple of Term
        What is added to the task's loss.
    task_weight : float
        Factor of the task's loss.
    """

    text: str
    terms: tuple[Term, ...]
    task_weight: float = 1.0

    def __call__(self, loss: LossOf) -> AdaptationRecipe:
        """Return phases with objectives of their own."""
        from headstart.methods.adaptations import joint

        def weighted(head: str) -> Objective:
            objective = loss(head)
            objective.weight *= self.task_weight
            return objective

        return joint(weighted, [term.make() for term in self.terms])


def read_objectives(text: str) -> JointLoss:
    """Return the recipe that a sum of objectives stands for.

    Parameters
    ----------
    text : str
        Such as ``"ce + 0.5*coral + mcc"``.

    Raises
    ------
    ConfigError
        If a term cannot be read, or there is no such objective or option.

    Examples
    --------
    >>> read_objectives("ce + 0.5*classifier-discrepancy").terms
    (Term(name='classifier-discrepancy', factor=0.5, options=()),)
    >>> read_objectives("ce + 0.5 classifier-discrepancy")
    Traceback (most recent call last):
        ...
    headstart.core.errors.ConfigError: objectives: cannot read '0.5 classifier-discrepancy'; a term is NAME, WEIGHT*NAME or \
NAME(option=value), as in 'ce + 0.5*coral + mcc'.
    """
    terms, weights = [], []
    for part in _parts(text):
        term = _read(part)
        if term.name == _TASK:
            if term.options:
                raise ConfigError(f"objectives: {_TASK} is the task's own loss and takes no options; got {part!r}.")
            weights.append(term.factor)
        else:
            term.make()  # what is wrong with it is said now, not when training begins
            terms.append(term)
    if len(weights) > 1:
        raise ConfigError(f"objectives: {_TASK} is written {len(weights)} times in {text!r}; once is enough.")
    return JointLoss(text, tuple(terms), weights[0] if weights else 1.0)


def read_recipe(name: str) -> Any:
    """Return the recipe of a name: one of the catalog's, or an objective that is added to the task's loss.

    Raises
    ------
    ConfigError
        If there is neither.

    Examples
    --------
    >>> read_recipe("classifier-discrepancy").text
    'ce + classifier-discrepancy'
    >>> read_recipe("source-onyl")
    Traceback (most recent call last):
        ...
    headstart.core.errors.ConfigError: adapt: there is no method 'source-onyl'. Did you mean 'source-only'? \
`headstart methods` lists them.
    """
    recipes = [entry.name for entry in entries("adaptation")]
    if name in recipes:
        return find(name, "adaptation").load()
    objectives = [entry.name for entry in entries("objective")]
    if name in objectives:
        return read_objectives(f"{_TASK} + {name}")
    near = did_you_mean(name, [*recipes, *objectives])
    raise ConfigError(f"adapt: there is no method {name!r}.{near} `headstart methods` lists them.")


def _parts(text: str) -> list[str]:
    """Return the terms of a sum: plus signs within brackets and of exponents do not part."""
    parts, depth, start = [], 0, 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if sign == "+" and depth == 0 and not re.search(r"\d[eE]$", text[start:place]):
            parts.append(text[start:place])
            start = place + 1
    parts.append(text[start:])
    if not text.strip() or any(not part.strip() for part in parts):
        raise ConfigError(f"objectives: a sum of terms is missing one; got {text!r}. Write 'ce + 0.5*coral + mcc'.")
    return [part.strip() for part in parts]


def _read(part: str) -> Term:
    match = _TERM.fullmatch(part)
    if match is None:
        raise ConfigError(
            f"objectives: cannot read {part!r}; a term is NAME, WEIGHT*NAME or NAME(option=value), as in "
            "'ce + 0.5*coral + mcc'."
        )
    factor = 1.0
    if match["weight"] is not None:
        factor = _number(match["weight"], part)
    if match["name"] == _TASK:
        return Term(_TASK, factor, tuple(_options(match["options"] or "", part).items()))
    entry = find(match["name"], "objective")
    options = _options(match["options"] or "", part)
    known = list(inspect.signature(entry.load()).parameters)
    for name in options:
        if name not in known:
            raise ConfigError(
                f"objectives: {entry.name} has no {name!r}; it has {', '.join(known)}.{did_you_mean(name, known)}"
            )
    return Term(entry.name, factor, tuple(options.items()))


def _number(text: str, part: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"objectives: what stands before * is a number; got {text.strip()!r} in {part!r}.") from error
    if not math.isfinite(value):
        raise ConfigError(f"objectives: a weight is a finite number; got {text.strip()!r} in {part!r}.")
    return value


def _options(text: str, part: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for item in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in item.partition("="))
        if not equals or not name or not value:
            raise ConfigError(f"objectives: options are name=value; got {item!r} in {part!r}.")
        options[name] = _value(value)
    return options


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text.strip("'\"")
