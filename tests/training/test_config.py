"""Options are checked when they are given, written down and read back; what is exported is what is meant."""

from __future__ import annotations

import json
import math

import pytest

import headstart.training
from headstart.core.errors import ConfigError
from headstart.objectives import CrossEntropy
from headstart.training import History, Phase, TrainingConfig

WRONG = {
    "cpu_seconds": (0.0, -1.0, math.nan),
    "wall_seconds": (0.0, -1.0, math.nan),
    "learning_rate": (0.0, -1e-3, math.inf, math.nan, "1e-3"),
    "weight_decay": (-0.1, math.inf),
    "batch_size": (0, 1.5, True),
    "max_epochs": (0,),
    "patience": (0,),
    "accumulate": (0,),
    "optimiser": ("adamW", "lion"),
    "schedule": ("linear",),
    "balance": ("yes",),
    "precision": ("half",),
    "momentum": (1.0, -0.1),
    "betas": ((0.9, 1.0),),
    "warm_up": (1.0, -0.1),
    "clip": (0.0, -1.0),
    "label_smoothing": (1.0, -0.1),
    "mixup": (-1.0,),
    "cutmix": (math.nan,),
    "ema": (1.0,),
    "swa": (1.0,),
    "threads": (-1,),
    "validation_rows": (0,),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_named_with_its_rule(name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(ConfigError, match=f"TrainingConfig: {name} .*; got "):
            TrainingConfig(**{name: value})


def test_options_that_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="two ways to average"):
        TrainingConfig(ema=0.9, swa=0.5)
    with pytest.raises(ConfigError, match="nesterov needs momentum"):
        TrainingConfig(nesterov=True, momentum=0.0)


def test_a_configuration_survives_being_written_down() -> None:
    config = TrainingConfig(learning_rate=0.1, betas=(0.8, 0.9), clip=None, swa=0.5, optimiser="sgd")
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert TrainingConfig.from_dict({"cpu_seconds": 3.0}).cpu_seconds == 3.0
    waiting = TrainingConfig(wall_seconds=4.0)
    assert TrainingConfig.from_dict(json.loads(json.dumps(waiting.to_dict()))) == waiting


def test_a_history_survives_being_written_down() -> None:
    history = History([1.0], [2.0], [0.5], [0.4], {"a": [1.0]}, [0.1], [1.0], 3, notes=["said"], best=0)
    assert History.from_dict(json.loads(json.dumps(history.to_dict())) | {"unknown": 1}) == history


def test_phases_are_checked() -> None:
    term = CrossEntropy()
    for options, match in (
        ({"objectives": ()}, "at least one objective"),
        ({"objectives": (term,), "repeats": 0}, "one repeat"),
        ({"objectives": (term,), "trains": ()}, "got nothing"),
        ({"objectives": (term,), "trains": ("body",)}, "trains names segments, heads or objectives"),
        ({"objectives": (term,), "streams": ()}, "streams are among"),
        ({"objectives": (term,), "streams": ("both",)}, "streams are among"),
    ):
        with pytest.raises(ConfigError, match=match):
            Phase(**options)
    assert Phase([term]).needs == {"labels", "logits"}


def test_exports_are_sorted_complete_and_meant() -> None:
    names = headstart.training.__all__
    assert list(names) == sorted(names) and all(hasattr(headstart.training, name) for name in names)
    assert {"Network", "Phase", "Plan", "Run", "TrainingConfig", "TrainingRows", "train"} <= set(names)
    public = {
        name
        for name, value in vars(headstart.training).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("headstart.training")
    }
    assert public == set(names) - {"Rows"} | ({"Rows"} & public)
