"""What the training loop costs over bare forward, backward and step on the same tensors.

    python benchmarks/loop_overhead.py [--rounds 15] [--only last-stage]

Both sides train copies of one network with the same fused AdamW, in the same process on one thread, a few steps of one and then
of the other, in turn; the ratio of their CPU seconds is taken each round, and its median counts. The tensors are made beforehand,
so decoding is in neither. The loop's side does all that a training does in a step: order, schedule, seeds, losses, the measure on
training rows, the watch for losses that explode. Shortening gradients is measured on its own, as "clipped", against the same with
torch's own function.

Shapes are those of ResNet-18: all of it on 64 x 64 pictures, and its last stage on activations that were kept (256 x 14 x 14). A
linear head is there to show the cost of a step in microseconds, since next to nothing is computed there.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.core.tasks import Task
from headstart.training import Network, Run, TrainingConfig, TrainingRows
from record import ROOT, store_result

RESULTS = ROOT / "benchmarks" / "results" / "loop_overhead.json"
NUM_CLASSES = 37
BATCH = 32
TASK = Task("classification", tuple(str(number) for number in range(NUM_CLASSES)))


class Ready:
    """Batches that were made beforehand, one after the other."""

    num_views = 1

    def __init__(self, batches: list[Tensor]) -> None:
        self.batches, self.next = batches, 0

    def __len__(self) -> int:
        return BATCH * len(self.batches)

    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[Tensor, ...]:
        """Return the next one."""
        self.next = (self.next + 1) % len(self.batches)
        return (self.batches[self.next],)

    def close(self) -> None:
        """Nothing to let go."""


def network_of(case: str) -> tuple[Network, tuple[int, ...]]:
    """Return a network with random weights, and the shape of a row."""
    import torchvision

    torch.manual_seed(0)
    body = torchvision.models.resnet18(weights=None)
    pooled = nn.Sequential(body.avgpool, nn.Flatten())
    head = nn.Linear(512, NUM_CLASSES)
    if case == "head":
        return Network({"features": nn.Identity()}, {"main": head}), (512,)
    if case.startswith("last-stage"):
        return Network({"features": nn.Sequential(body.layer4, pooled)}, {"main": head}), (256, 14, 14)
    stem = nn.Sequential(body.conv1, body.bn1, body.relu, body.maxpool)
    segments = {"stem": stem, "layer1": body.layer1, "layer2": body.layer2, "layer3": body.layer3}
    return Network({**segments, "features": nn.Sequential(body.layer4, pooled)}, {"main": head}), (3, 64, 64)


def bare_steps(network: Network, batches: list[Tensor], labels: list[Tensor], clip: float | None) -> Callable[[], None]:
    """Return a function that takes one step the plain way."""
    network.to(memory_format=torch.channels_last).train()
    parameters = list(network.parameters())
    optimiser = torch.optim.AdamW(
        [
            {"params": [item for item in parameters if item.ndim > 1], "weight_decay": 0.05},
            {"params": [item for item in parameters if item.ndim == 1], "weight_decay": 0.0},
        ],
        lr=1e-4,
        betas=(0.9, 0.99),
        fused=True,
    )
    done = 0

    def step() -> None:
        nonlocal done
        done = (done + 1) % len(batches)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(batches[done]).logits, labels[done])
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimiser.step()

    return step


def measure(case: str, rounds: int) -> dict[str, Any]:
    """Return the median ratio of CPU seconds, and microseconds a step of either side."""
    network, shape = network_of(case)
    clip = 5.0 if case.endswith("clipped") else None
    random = np.random.default_rng(0)
    batches = [torch.from_numpy(random.normal(size=(BATCH, *shape)).astype(np.float32)) for _ in range(8)]
    if len(shape) == 3:
        batches = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]
    targets = random.integers(0, NUM_CLASSES, BATCH * len(batches))
    labels = list(torch.from_numpy(targets).split(BATCH))
    bare = bare_steps(copy.deepcopy(network), batches, labels, clip)
    config = TrainingConfig(learning_rate=1e-4, max_epochs=10**6, clip=clip, precision="fp32")
    run = Run(network, TASK, TrainingRows(Ready(batches), targets), None, config)
    run._check_due = lambda over: False  # type: ignore[method-assign]  # steps, not checks
    timed(bare, 3)
    each = min(
        2000, max(1, round(0.5 / timed(bare, 3)))
    )  # half a second: short turns, so that both sides meet the same machine
    ratios, ours, theirs = [], [], []
    with run.random_numbers():
        timed(run.step, 3)
        for number in range(rounds):
            order = (bare, run.step) if number % 2 else (run.step, bare)
            seconds = {side: timed(side, each) for side in order}
            ours.append(seconds[run.step])
            theirs.append(seconds[bare])
            ratios.append(seconds[run.step] / seconds[bare])
    return {
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [float(value) for value in np.quantile(ratios, [0.25, 0.75])],
        "ratio_of_least": min(ours) / min(theirs),
        "loop_microseconds_a_step": 1e6 * statistics.median(ours),
        "bare_microseconds_a_step": 1e6 * statistics.median(theirs),
        "steps_a_round": each,
        "rounds": rounds,
        "batch": BATCH,
        "row_shape": list(shape),
    }


def timed(step: Callable[[], Any], times: int) -> float:
    """Return CPU seconds a step."""
    started = time.process_time()
    for _ in range(times):
        step()
    return (time.process_time() - started) / times


def main() -> None:
    """Measure every case and store it."""
    parser = argparse.ArgumentParser(description="Cost of the training loop.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="whole,last-stage,last-stage clipped,head")
    parser.add_argument("--to", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for case in arguments.only.split(","):
        result = measure(case, arguments.rounds)
        print(
            f"{case}: {result['ratio']:.4f} x bare ({result['loop_microseconds_a_step']:.0f} against "
            f"{result['bare_microseconds_a_step']:.0f} microseconds a step)",
            flush=True,
        )
        store_result(arguments.to, case, result)


if __name__ == "__main__":
    main()
