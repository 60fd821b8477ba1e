"""Layers of a head in words: ``"flatten-dense1024-relu-dropout0.5-softmax"``.

Words are read from left to right, with ``-`` between them:

    flatten                 whatever shape a row has becomes one vector
    denseN                  N units, each joined to every input
    relu gelu silu tanh sigmoid
    dropoutP                in training, each input is left out with probability P
    batchnorm layernorm
    softmax sigmoid linear  the end: a dense layer with one unit for each output, and what its scores become

The last word may be left out, and its dense layer is there without being written (``dense37-softmax`` with 37 classes is not
given a second one). ``softmax`` is for one class of several, ``sigmoid`` for several at once, ``linear`` for any task. The module
that is built returns scores; losses and heads apply the softmax or the sigmoid themselves.
Shapes: b rows in a batch, d inputs, k outputs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.core.errors import ConfigError, did_you_mean
from headstart.core.tasks import Task

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Layer", "build_layers", "describe_layers", "hidden_layers", "parse_layers"]

_PLAIN = ("flatten", "relu", "gelu", "silu", "tanh", "sigmoid", "batchnorm", "layernorm")
_NUMBERED = {"dense": "dense512", "dropout": "dropout0.5"}
_ENDS = {"softmax": "classification", "sigmoid": "multilabel", "linear": ""}
_KNOWN = ("flatten", "denseN", "relu", "gelu", "silu", "tanh", "dropoutP", "batchnorm", "layernorm", *_ENDS)
_MOST_UNITS = 1 << 17


@dataclass(frozen=True)
class Layer:
    """One word: its name, and its number where it has one."""

    name: str
    number: float | None = None

    def __str__(self) -> str:
        return self.name if self.number is None else f"{self.name}{self.number:g}"


def parse_layers(text: str, task: Task) -> tuple[Layer, ...]:
    """Return the layers a text stands for, the last dense layer and the end included.

    Parameters
    ----------
    text : str
        Such as ``"dense512-relu"``; ``""`` or ``"linear"`` is a single dense layer.
    task : Task
        How many outputs there are, and which end suits them.

    Raises
    ------
    ConfigError
        If a word is not known, its number breaks its rule, or the end does not suit the task.

    Examples
    --------
    >>> task = Task("classification", ("ant", "bee"))
    >>> "-".join(map(str, parse_layers("flatten-dense512-relu", task)))
    'flatten-dense512-relu-dense2-softmax'
    >>> parse_layers("dense512-rulu", task)
    Traceback (most recent call last):
        ...
    headstart.core.errors.ConfigError: head 'dense512-rulu': 'rulu' is no layer; there are flatten, denseN, relu, gelu, silu, \
tanh, dropoutP, batchnorm, layernorm, softmax, sigmoid, linear. Did you mean 'relu'?
    """
    words, suited = _words(text), _suited(task)
    end = words.pop() if words and words[-1] in _ENDS else suited
    if _ENDS[end] not in {"", task.kind}:
        raise ConfigError(
            f"head {text!r}: {end} is for {_ENDS[end]}, this task is {task.kind}; end it with {suited}, or leave the end out."
        )
    layers = [_read(word, text) for word in words]
    if not layers or layers[-1] != Layer("dense", task.num_outputs):
        layers.append(Layer("dense", task.num_outputs))
    return (*layers, Layer(end))


def hidden_layers(text: str, task: Task) -> str:
    """Return the words of layers below a head: a last word that also ends heads of another task is an activation here.

    Parameters
    ----------
    text : str
        Such as ``"dense64-sigmoid"``.
    task : Task
        What the head above answers.

    Examples
    --------
    >>> task = Task("classification", ("ant", "bee"))
    >>> hidden_layers("dense64-sigmoid", task), hidden_layers("dense64-relu", task)
    ('dense64-sigmoid-softmax', 'dense64-relu')
    """
    last = _words(text)[-1:]
    is_activation = bool(last) and last[0] in _PLAIN and last[0] in _ENDS and _ENDS[last[0]] != task.kind
    return f"{text}-{_suited(task)}" if is_activation else text


def _words(text: str) -> list[str]:
    return [word.strip().lower() for word in text.split("-")] if text.strip() else []


def _suited(task: Task) -> str:
    """Return the end that a task has."""
    return next((end for end, kind in _ENDS.items() if kind == task.kind), "linear")


def _read(word: str, text: str) -> Layer:
    match = re.fullmatch(r"([a-z]+)(\d*\.?\d*)", word)
    name, digits = match.groups() if match is not None else (word, "")
    if name in _PLAIN and not digits:
        return Layer(name)
    if name not in _NUMBERED:
        near = did_you_mean(name, [*_PLAIN, *_NUMBERED, *_ENDS])
        why = "stands at the end alone" if name in _ENDS and not digits else "is no layer"
        why = "takes no number" if name in _PLAIN else why
        raise ConfigError(f"head {text!r}: {word!r} {why}; there are {', '.join(_KNOWN)}.{near}")
    number = float(digits) if digits.strip(".") else math.nan
    fits = 1 <= number <= _MOST_UNITS and number == int(number) if name == "dense" else 0 <= number < 1
    if not fits:
        rule = f"a whole number from 1 to {_MOST_UNITS}" if name == "dense" else "a number from 0 up to, but not, 1"
        raise ConfigError(f"head {text!r}: {name} needs {rule}, as in {_NUMBERED[name]}; got {word!r}.")
    return Layer(name, number)


def build_layers(layers: tuple[Layer, ...], width: int, seed: int | None = 0) -> nn.Sequential:
    """Return the module of parsed layers: features (b, d) to scores (b, k).

    Parameters
    ----------
    layers : tuple of Layer
        What `parse_layers` returned.
    width : int
        Number of features d.
    seed : int, optional
        Of the starting weights; the last layer starts near zero, so that at first every answer is as likely. None leaves
        the random state as it is (and is what building on the meta device needs).

    Examples
    --------
    >>> task = Task("classification", ("ant", "bee"))
    >>> build_layers(parse_layers("dense8-relu-dropout0.5", task), width=4)
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): ReLU()
      (2): Dropout(p=0.5, inplace=False)
      (3): Linear(in_features=8, out_features=2, bias=True)
    )
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        parts: list[nn.Module] = []
        for layer in layers[:-1]:
            parts.append(_build(layer, width))
            if layer.name == "dense" and layer.number is not None:
                width = int(layer.number)
        last: Any = parts[-1]
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        return nn.Sequential(*parts)


def _build(layer: Layer, width: int) -> nn.Module:
    from torch import nn

    if layer.name == "dense":
        return nn.Linear(width, int(layer.number or 0))
    if layer.name == "dropout":
        return nn.Dropout(float(layer.number or 0))
    if layer.name == "batchnorm":
        return nn.BatchNorm1d(width)
    if layer.name == "layernorm":
        return nn.LayerNorm(width)
    plain: dict[str, type[nn.Module]] = {
        "flatten": nn.Flatten,
        "relu": nn.ReLU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
    }
    return plain[layer.name]()


def describe_layers(module: nn.Module) -> str | None:
    """Return the words for a plain ``nn.Sequential`` of layers that have words, None for any other module.

    A softmax at its end is left out: scores are what a head returns.

    Examples
    --------
    >>> from torch import nn
    >>> describe_layers(nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2), nn.Softmax(1)))
    'flatten-dense8-relu-dense2'
    >>> describe_layers(nn.Linear(4, 2))
    'dense2'
    >>> describe_layers(nn.Bilinear(4, 4, 2)) is None
    True
    """
    from torch import nn

    parts = _without_end(list(module)) if type(module) is nn.Sequential else [module]
    if not parts or type(parts[-1]) is not nn.Linear:
        return None
    words = [_word(part) for part in parts]
    return None if None in words else "-".join(str(word) for word in words)


def _without_end(parts: list[nn.Module]) -> list[nn.Module]:
    from torch import nn

    return parts[:-1] if parts and isinstance(parts[-1], nn.Softmax | nn.LogSoftmax | nn.Sigmoid) else parts


def _word(part: nn.Module) -> str | None:
    """Return the word for a layer, None where its settings are not the ones that the word stands for."""
    from torch import nn

    if type(part) is nn.Linear:
        return f"dense{part.out_features}" if part.bias is not None else None
    if type(part) is nn.Dropout:
        return f"dropout{part.p:g}" if 0 <= part.p < 1 else None
    if type(part) is nn.BatchNorm1d:
        return "batchnorm" if repr(part) == repr(nn.BatchNorm1d(part.num_features)) else None
    if type(part) is nn.LayerNorm:
        return "layernorm" if repr(part) == repr(nn.LayerNorm(part.normalized_shape[-1])) else None
    plain = {
        nn.Flatten: "flatten",
        nn.ReLU: "relu",
        nn.GELU: "gelu",
        nn.SiLU: "silu",
        nn.Tanh: "tanh",
        nn.Sigmoid: "sigmoid",
    }
    word = plain.get(type(part))
    if word in {"gelu", "flatten"} and repr(part) != repr(type(part)()):
        return None
    return word
