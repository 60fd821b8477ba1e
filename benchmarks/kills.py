"""Kill short trainings with SIGKILL at random moments, again and again, let them go on, and compare how they end.

    python benchmarks/kills.py [--trainings 100] [--no-store]

Four recipes take turns; between them they use every kind of state a training has. Each training saves after every step or two, is
killed at a random moment at least once (some several times: while it goes on, or while it writes), and goes on in a new process
until it ends. Its end (every tensor of the network, every figure of its history but seconds) must be that of the undisturbed run.
The parent imports torch once and forks a child for every process that is to be killed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
import torch._dynamo  # the first optimiser of a process imports it: seconds that would be spent in every child
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

from headstart.core.digests import digest_array, digest_bytes
from headstart.core.files import write_text
from headstart.core.tasks import Task
from headstart.objectives import BiTuning, Consistency, CrossEntropy
from headstart.training.checkpoint import Checkpoint, network_identity
from headstart.training.checkpoint_file import tensors_digest
from headstart.training.config import TrainingConfig
from headstart.training.loop import train
from headstart.training.network import Network
from headstart.training.phases import Phase
from headstart.training.plan import ParameterGroup, Plan
from headstart.training.rows import TrainingRows

RESULT = Path(__file__).resolve().parent / "results" / "kills.json"
CLASSES = ("a", "b", "c", "d")


class NoisyImages:
    """Small made-up images; a draw gives each its own noise, so that a wrong draw would be seen."""

    num_views = 1

    def __init__(self, num_rows: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.labels = random.integers(0, len(CLASSES), num_rows)
        self.images = random.normal(size=(num_rows, 3, 10, 10)).astype(np.float32)
        self.images[np.arange(num_rows), self.labels % 3] += 0.4

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[Tensor, ...]:
        images = torch.from_numpy(self.images[indices])
        if draws is not None:
            noise = [np.random.default_rng(int(draw)).normal(size=(3, 10, 10)) for draw in draws]
            images = images + 0.1 * torch.from_numpy(np.stack(noise).astype(np.float32))
        return (images.contiguous(memory_format=torch.channels_last),)

    def close(self) -> None:
        """Nothing is open."""


def build_network() -> Network:
    """Return convolutions with batch normalisation, dropout, and a linear head."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
    body = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Dropout2d(0.2))
    last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3))
    return Network({"stem": stem, "body": body, "features": last}, {"main": nn.Linear(12, len(CLASSES))})


def named(network: Network, *starts: str) -> tuple[str, ...]:
    return tuple(name for name, _ in network.named_parameters() if name.startswith(starts))


def recipe(name: str, network: Network, seed: int) -> dict[str, Any]:
    """Return the arguments of `train` that make a recipe."""
    common: dict[str, Any] = {"batch_size": 16, "max_epochs": 6, "seed": seed, "precision": "fp32", "threads": 1}
    if name == "unfreezing":  # the head first, then from the top down, with a rate so high that patience ends it
        config = TrainingConfig(
            optimiser="sgd",
            nesterov=True,
            learning_rate=2.0,
            schedule="constant",
            clip=None,
            ema=0.5,
            mixup=0.1,
            patience=2,
            label_smoothing=0.1,
            **common | {"max_epochs": 8},
        )
        groups = (
            ParameterGroup(named(network, "heads")),
            ParameterGroup(named(network, "segments.1"), rate=0.5, begins=0.1),
            ParameterGroup(named(network, "segments.0"), rate=0.1, begins=0.3),
        )
        return {"config": config, "plan": Plan(groups)}
    if name == "averaging":  # equal averages late, balanced sampling, steps in pieces
        config = TrainingConfig(
            learning_rate=0.02, swa=0.5, restore_best=False, balance="sampling", accumulate=2, cutmix=1.0, **common
        )
        return {"config": config}
    if name == "teacher":  # two streams, two phases, a queue that lives in an objective
        config = TrainingConfig(optimiser="adam", learning_rate=0.02, ema=0.8, schedule="one-cycle", **common)
        phases = (
            Phase((CrossEntropy(), BiTuning(num_keys=4)), name="labelled"),
            Phase((Consistency(rows="both"),), trains=("segments", "heads"), repeats=2, name="agree"),
        )
        other = NoisyImages(40, 2)
        return {"config": config, "phases": phases, "unlabelled": TrainingRows(other, None)}
    config = TrainingConfig(learning_rate=0.01, schedule="constant", restore_best=False, **common)
    groups = (ParameterGroup(named(network, "heads", "segments.1")),)
    return {"config": config, "plan": Plan(groups, num_frozen=1)}


RECIPES = ("unfreezing", "averaging", "teacher", "frozen-stem")


def work(name: str, folder: Path, seed: int = 0, every_steps: int = 1) -> None:
    """Train from where the folder's checkpoint stands, and write down how it ended."""
    torch.set_num_threads(1)
    network = build_network()
    rows, checks = NoisyImages(80, 0), NoisyImages(32, 1)
    arguments = recipe(name, network, seed)
    config: TrainingConfig = arguments["config"]
    identity = {
        "data": {"rows": digest_array(rows.images), "labels": digest_array(rows.labels)},
        "config": config.to_dict(),
        "network": network_identity(network),
    }
    with Checkpoint(folder / "state", every_steps=every_steps, identity=identity) as checkpoint:
        history = train(
            network,
            Task("classification", CLASSES),
            TrainingRows(rows, rows.labels),
            TrainingRows(checks, checks.labels),
            **arguments,
            checkpoint=checkpoint,
        )
    told = history.to_dict() | {"cpu_seconds": 0}
    end = digest_bytes((tensors_digest(network.state_dict()) + json.dumps(told)).encode())
    write_text(folder / "end.json", json.dumps({"end": end, "steps": history.steps, "losses": history.validation_loss}))


def in_child(job: Callable[[], None], kill_after: float | None = None) -> bool:
    """Run a job in a child process; return whether it ended by itself, rather than by the kill."""
    child = os.fork()
    if not child:
        status = 1
        try:
            job()
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in {0, -signal.SIGKILL}:
        raise SystemExit(f"a child ended with {status}")
    return status == 0


def undisturbed(name: str, folder: Path, seed: int = 0) -> tuple[dict[str, Any], float]:
    """Return how a recipe ends when nobody disturbs it, and the seconds it takes."""
    started = time.perf_counter()
    in_child(lambda: work(name, folder, seed))
    return json.loads((folder / "end.json").read_text(encoding="utf-8")), time.perf_counter() - started


def disturbed(name: str, folder: Path, seconds: float, random: np.random.Generator) -> tuple[dict[str, Any], list[int]]:
    """Return how it ends when it is killed at least once, and after each kill the step from which it goes on."""
    kills: list[int] = []
    every_steps = int(random.integers(1, 3))
    while not kills or random.random() < 0.3:
        if in_child(lambda: work(name, folder, every_steps=every_steps), float(random.uniform(0.02, 0.9)) * seconds):
            if kills:
                break
            shutil.rmtree(folder)  # ended before the kill: begin anew, and kill sooner
            folder.mkdir()
            seconds *= 0.8
            continue
        kills.append(saved_step(folder))
    if not (folder / "end.json").exists():
        in_child(lambda: work(name, folder, every_steps=every_steps))
    return json.loads((folder / "end.json").read_text(encoding="utf-8")), kills


def saved_step(folder: Path) -> int:
    """Return the step of the checkpoint that a killed training left, 0 where it left none."""
    for name in ("newest", "previous"):
        path = folder / "state" / f"{name}.safetensors"
        if path.exists():
            with safe_open(path, "pt") as stored:
                return int(json.loads(stored.metadata()["header"])["step"])
    return 0


def kill_trainings(place: Path, wanted_trainings: int) -> tuple[dict[str, Any], list[str]]:
    """Return the account, and which trainings did not end as they should have."""
    random = np.random.default_rng(0)
    wanted: dict[str, tuple[dict[str, Any], float]] = {}
    for name in RECIPES:
        (place / name).mkdir()
        wanted[name] = undisturbed(name, place / name)
        (place / f"{name} other seed").mkdir()
        other, _ = undisturbed(name, place / f"{name} other seed", seed=1)
        if other["end"] == wanted[name][0]["end"]:
            raise SystemExit(f"{name}: another seed ends alike, so the comparison says nothing")
        print(f"{name}: {wanted[name][0]['steps']} steps, {wanted[name][1]:.2f} s", flush=True)
    trainings = identical = num_kills = saved = 0
    differing: list[str] = []
    while trainings < wanted_trainings:
        name = RECIPES[trainings % len(RECIPES)]
        folder = place / f"{trainings}"
        folder.mkdir()
        end, kills = disturbed(name, folder, wanted[name][1], random)
        trainings += 1
        num_kills += len(kills)
        saved += sum(step > 0 for step in kills)
        same = end["end"] == wanted[name][0]["end"]
        identical += same
        if not same:
            differing.append(f"{name} {folder} killed after steps {kills}")
        shutil.rmtree(folder)
    result = {
        "kills": num_kills,
        "kills after a checkpoint": saved,
        "trainings": trainings,
        "identical ends": identical,
        "steps": {name: end["steps"] for name, (end, _) in wanted.items()},
    }
    return result, differing


def main() -> None:
    """Kill, compare, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainings", type=int, default=100)
    parser.add_argument("--no-store", action="store_true")
    options = parser.parse_args()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # what a kill leaves behind is the same there
    with tempfile.TemporaryDirectory(prefix="kills-", dir=memory) as place:
        result, differing = kill_trainings(Path(place), options.trainings)
    print(json.dumps(result))
    for line in differing:
        print(line)
    if differing:
        raise SystemExit(1)
    if not options.no_store:
        from record import store_result

        store_result(RESULT, "kills", result)


if __name__ == "__main__":
    main()
