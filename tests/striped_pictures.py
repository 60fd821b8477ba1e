"""Pictures whose class and domain a small network can see, the network, and commands on them that are killed and go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import headstart
from headstart.backbones import Backbone, open_backbone
from headstart.core.progress import Progress
from headstart.training.checkpoint import Checkpoint

__all__ = ["a_killed_adapt_ends_as_a_whole_one", "killed_after", "small_residual", "striped"]


def striped(num_rows: int, tint: float, seed: int) -> tuple[np.ndarray, list[str]]:
    """Return pictures (n, 40, 40, 3) striped across or down, with a tint of their domain, and which they are."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(num_rows):
        stripes = 60 * np.sin(np.arange(40) / random.uniform(2, 4))
        picture = random.normal(120, 30, (40, 40, 3)) + (stripes[:, None, None] if i % 2 else stripes[None, :, None])
        picture[:, :, 2] += tint
        rows.append(picture.clip(0, 255).astype(np.uint8))
    return np.stack(rows), ["across" if i % 2 else "down" for i in range(num_rows)]


def small_residual() -> Backbone:
    """Return a small residual network at random weights."""
    torch.manual_seed(0)
    return open_backbone(timm.create_model("test_resnet", num_classes=10), input_size=32)


@contextmanager
def killed_after(saves: set[int]) -> Iterator[None]:
    """Within it the state is kept after every step, and a training is interrupted after so many of them."""
    saved: list[int] = []
    save = Checkpoint.after_step

    def stop(self: Checkpoint, step: int, state: Callable[[], Any]) -> None:
        self.every_steps = 1
        save(self, step, state)
        saved.append(step)
        if len(saved) in saves:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "after_step", stop)
        yield


def a_killed_adapt_ends_as_a_whole_one(folder: Path, network: Backbone, saves: set[int], **options: Any) -> list[str]:
    """Adapt stages to tinted pictures, whole and with kills, and compare; return the names of the candidates."""
    source, labels = striped(24, 0, 0)
    target, _ = striped(20, 60, 1)

    def run(out: Path) -> headstart.Adaptation:
        return headstart.adapt(
            source,
            target,
            labels=labels,
            strategy="last-stages:1",
            rule="source-accuracy",
            backbones=[network],
            runtime="torch-fp32",
            progress=Progress(quiet=True),
            store=False,
            out=out,
            **options,
        )

    whole = run(folder / "whole")
    with killed_after(saves):
        for _ in saves:
            with pytest.raises(KeyboardInterrupt):
                run(folder / "killed")
            assert (folder / "killed" / "checkpoint").is_dir()
        resumed = run(folder / "killed")
    assert [line.score for line in resumed.lines] == [line.score for line in whole.lines]
    first, second = ((folder / name / "predictions.csv").read_bytes() for name in ("whole", "killed"))
    assert first == second
    return [line.name for line in whole.lines]
