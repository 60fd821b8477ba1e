"""What torchrun starts in tests of the crew: ``crew_worker.py FOLDER``; every process writes down what happened to it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart.core.errors import ConfigError, HeadstartError, TrainingError
from headstart.training.crew import Crew
from headstart.training.distributed import World


def steps(world: World, count: int) -> float:
    """Add up gradients of 1 and 2, step after step, and return the last sum."""
    parameter = nn.Parameter(torch.zeros(1))
    for _ in range(count):
        parameter.grad = torch.tensor([world.rank + 1.0])
        world.sum_gradients([parameter])
    assert parameter.grad is not None
    return float(parameter.grad)


def lead(crew: Crew) -> list[Any]:
    """Four calls: a good one, one that the first process leaves, one that another refuses, a good one again."""
    happened: list[Any] = []
    with crew.call() as world:
        happened.append([steps(world, 3), World.current().size])
    happened.append(World.current().size)
    try:
        with crew.call() as world:
            steps(world, 2)
            raise ConfigError("the budget is spent")
    except ConfigError as error:
        happened.append(str(error))
    try:
        with crew.call() as world:
            steps(world, 5)
    except TrainingError as error:
        happened.append(str(error))
    with crew.call() as world:
        happened.append(steps(world, 1))
    return happened


def help_out(crew: Crew) -> list[Any]:
    """Take part until dismissed."""
    happened: list[Any] = []
    for number in crew.calls():
        with crew.answer() as world:
            try:
                if number == 3:
                    steps(world, 2)
                    raise ConfigError("sees other rows")
                happened.append(steps(world, {1: 3, 2: 50, 4: 1}[number]))
            except HeadstartError as error:
                happened.append(type(error).__name__)
                raise
    return happened


def main() -> None:
    folder = Path(sys.argv[1])
    rank = -1
    try:
        with Crew.assembled() as crew:
            rank = crew.rank
            happened = lead(crew) if crew.first else help_out(crew)
            (folder / f"{rank}.json").write_text(json.dumps(happened))
            if crew.first:
                raise ConfigError("at the end")
    except ConfigError as error:
        (folder / f"{rank}-error.txt").write_text(str(error))


if __name__ == "__main__":
    main()
