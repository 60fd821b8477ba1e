"""One network for pictures and texts: shared convolutions, a stem for either kind of row, a fully connected head for either task.

    python examples/shared_layers_image_text.py digits.npz questions.parquet --label coarse --vectors glove.6B.100d.txt

    L = L_source(pictures) + L_target(texts) + L_shared + L_specific

Pictures enter as pixels, texts as one channel of (length x width of a word vector); every step takes a batch of both.
The last two terms hold the shared and the specific weights small. Each task alone is beside it: the same network, as
many steps on that task. The pictures are a folder of class folders, or an ``.npz`` file with ``images`` and
``labels``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import headstart
from headstart.backbones.recurrent import recurrent_backbone
from headstart.core.preprocessing import ImageTransform
from headstart.core.tasks import Task
from headstart.data import Dataset, decode_image
from headstart.heads.layers import build_layers, parse_layers
from headstart.objectives import Batch, CrossEntropy, Objective, Setup, cross_entropy
from headstart.training import History, Network, Phase, TrainingConfig, TrainingRows, train
from side_by_side import SideBySide

HEAD = "dense128-relu-dropout0.5-softmax"
SIZE, LENGTH, CHANNELS, BATCH = 32, 48, 64, 64


class Pictures:
    """Rows of pictures, squashed to one size, as float32 (b, 3, SIZE, SIZE) in [-1, 1]."""

    num_views = 1

    def __init__(self, rows: Dataset) -> None:
        transform = ImageTransform(SIZE, SIZE, fit="squash", interpolation="bilinear")
        self.pixels = np.stack([decode_image(rows.read(i), transform) for i in range(len(rows))])

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[Tensor, ...]:
        """Return the pixels of some rows."""
        return (torch.from_numpy(self.pixels[indices]).permute(0, 3, 1, 2).float() / 127.5 - 1,)

    def close(self) -> None:
        """Let nothing go; there are no threads."""


class Texts:
    """Rows of texts as int64 (b, LENGTH) word numbers, 0 after the last word."""

    num_views = 1

    def __init__(self, rows: Dataset, reader: Any) -> None:
        self.words = np.zeros((len(rows), LENGTH), np.int64)
        for row, words in enumerate(reader.tokenize([str(rows.read(i)) for i in range(len(rows))])):
            self.words[row, : len(words[:LENGTH])] = words[:LENGTH]

    def __len__(self) -> int:
        return len(self.words)

    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[Tensor, ...]:
        """Return the word numbers of some rows."""
        return (torch.from_numpy(self.words[indices]),)

    def close(self) -> None:
        """Let nothing go; there are no threads."""


class Stems(nn.Module):
    """What differs between the kinds of rows: either becomes maps of CHANNELS channels."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.pictures = nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1)
        self.texts = nn.Conv2d(1, CHANNELS, (3, embedding.embedding_dim), padding=(1, 0))

    def forward(self, rows: Tensor) -> Tensor:
        """Return maps: (b, CHANNELS, SIZE / 2, SIZE / 2) of pictures, (b, CHANNELS, LENGTH, 1) of texts."""
        if rows.is_floating_point():
            return torch.relu(self.pictures(rows))
        return torch.relu(self.texts(self.embedding(rows)[:, None]))


def build_network(embedding: nn.Embedding, tasks: dict[str, Task], seed: int) -> Network:
    """Return the network: stems, shared convolutions, and a head for each task; the first head is the main one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stems = Stems(embedding)
        shared = nn.Sequential(
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, padding=1),
            nn.GroupNorm(8, 2 * CHANNELS),
            nn.ReLU(),
            nn.Conv2d(2 * CHANNELS, 2 * CHANNELS, 3, padding=1),
            nn.GroupNorm(8, 2 * CHANNELS),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
    heads = {name: build_layers(parse_layers(HEAD, task), 2 * CHANNELS, seed) for name, task in tasks.items()}
    return Network({"stems": stems, "shared": shared}, heads)


class SmallWeights(Objective):
    """The squared length of the weights of some parts of the network: ``weight * sum theta^2``."""

    def __init__(self, parts: tuple[str, ...], weight: float) -> None:
        super().__init__()
        self.parts, self.weight = parts, weight
        self.theirs: list[Tensor] = []

    def prepare(self, setup: Setup) -> None:
        """Find the weights: matrices and kernels, no biases."""
        named = setup.network.named_parameters()
        self.theirs = [item for name, item in named if name.startswith(self.parts) and item.ndim > 1]

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return the term."""
        return self.weight * torch.stack([item.square().sum() for item in self.theirs]).sum()


class SecondTask(Objective):
    """Cross-entropy of the second stream's rows under their own head, and its curves: the loop's are the first task's."""

    needs = frozenset({"labels", "logits"})

    def __init__(self, head: str, validation: TrainingRows, every: int, weight: float = 1.0) -> None:
        super().__init__()
        self.head, self.validation, self.every, self.weight = head, validation, every, weight
        self.history = History()
        self.seen: list[tuple[float, float]] = []
        self.network: list[Network] = []  # in a list: it is no part of this objective

    def prepare(self, setup: Setup) -> None:
        """Remember the network."""
        self.network = [setup.network]  # type: ignore[list-item]

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return the term."""
        assert target is not None and target.labels is not None
        logits_bk = self.take_logits(target, self.head)
        loss = cross_entropy(logits_bk, target.labels)
        self.seen.append((float(loss.detach()), accuracy(logits_bk, target.labels)))
        return self.weight * loss

    def after_step(self) -> None:
        """Look at the validation rows at the end of every epoch."""
        if len(self.seen) < self.every:
            return
        logits_nk = answers(self.network[0], self.head, self.validation)
        labels = torch.from_numpy(np.asarray(self.validation.chosen))
        loss, share = np.mean(self.seen, axis=0)
        self.history.train_loss.append(float(loss))
        self.history.train_measure.append(float(share))
        self.history.validation_loss.append(float(cross_entropy(logits_nk, labels)))
        self.history.validation_measure.append(accuracy(logits_nk, labels))
        self.seen = []


def accuracy(logits_bk: Tensor, labels: Tensor) -> float:
    """Return the share of right answers."""
    return float((logits_bk.argmax(1) == labels).float().mean())


def answers(network: Network, head: str, rows: TrainingRows) -> Tensor:
    """Return what a head says of rows; the network is left as it is."""
    training = network.training
    network.eval()
    with torch.no_grad():
        parts = np.array_split(rows.indices, max(1, len(rows) // 256))
        logits = [network(*rows.inputs.batch(part)).head_logits[head] for part in parts]
    network.train(training)
    return torch.cat(logits)


def open_pictures(path: Path) -> Dataset:
    """Return pictures from class folders, or from the arrays of an ``.npz`` file (``split`` 1 marks test rows)."""
    if path.suffix != ".npz":
        return headstart.open_dataset(path)
    with np.load(path, allow_pickle=False) as arrays:
        split = None
        if "split" in arrays:
            split = np.where(arrays["split"] == 1, "test", "train").tolist()
        labels = [str(label) for label in arrays["labels"]]
        return headstart.open_dataset(arrays["images"], labels=labels, split=split)


class Side:
    """One task: its rows in three parts, as the network reads them."""

    def __init__(self, ways: SideBySide, read: Any) -> None:
        self.ways = ways
        self.train, self.validation, self.test = (
            TrainingRows(read(part), part.targets) for part in (ways.train, ways.validation, ways.test)
        )
        assert ways.train.task is not None
        self.task = ways.train.task

    def add(self, name: str, network: Network, head: str, history: History, seconds: float, trained: str) -> None:
        """Add what a network says of the test rows; the curve of the training loss is that of this task alone."""
        own = history.losses.get("train.CrossEntropy", history.train_loss)
        scores = torch.softmax(answers(network, head, self.test), 1).double().numpy()
        self.ways.add(name, scores, cpu_seconds=seconds, trained=trained, history=replace(history, train_loss=own))


def main(argv: list[str] | None = None) -> list[SideBySide]:
    """Train both tasks together, then each alone; print the tables, write the reports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", type=Path, help="folder of class folders, or .npz with images and labels")
    parser.add_argument("texts", type=Path, help="table of labelled texts")
    parser.add_argument("--text", default="text", help="its column of texts")
    parser.add_argument("--label", default="label", help="its column of labels")
    parser.add_argument("--vectors", required=True, help="word vectors: a folder with vocab.txt, or a GloVe text file")
    parser.add_argument("--rows", type=int, help="at most so many rows of each kind to learn from")
    parser.add_argument("--test-rows", type=int, help="at most so many rows of each kind to test on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=1e-5, help="weight of L_shared and of L_specific")
    parser.add_argument("--out", type=Path, default=Path("runs/shared_layers_image_text"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)

    reader = recurrent_backbone(arguments.vectors)
    tables = {
        "pictures": open_pictures(arguments.pictures),
        "texts": headstart.open_dataset(
            arguments.texts, text=arguments.text, label=arguments.label, task="classification"
        ),
    }
    sides = {}
    for name, rows in tables.items():
        options = {"most": arguments.rows, "most_test": arguments.test_rows, "seed": arguments.seed}
        ways = SideBySide(f"Layers shared by pictures and texts: the {name}", rows, **options)
        sides[name] = Side(ways, Pictures if name == "pictures" else lambda part: Texts(part, reader))
    steps = train_together(sides, reader, arguments)
    for name, side in sides.items():
        train_alone(name, side, steps, reader, arguments)
        side.ways.add_baselines()
        print(side.ways)
        print(f"Report: {side.ways.write(arguments.out / name)}\n")
    return [side.ways for side in sides.values()]


def embedding(reader: Any) -> nn.Embedding:
    """Return the pretrained word vectors, as a layer of its own."""
    table = reader.module.get_parameter("embedding.words.weight").detach().clone()
    return nn.Embedding.from_pretrained(table, freeze=False, padding_idx=0)


def penalties(heads: tuple[str, ...], decay: float) -> tuple[Objective, ...]:
    """Return L_shared and L_specific."""
    specific = tuple(f"{part}.{name}." for name in heads for part in ("segments.0", "heads"))
    return SmallWeights(("segments.1.",), decay), SmallWeights(specific, decay)


def batches(side: Side) -> int:
    """Return the number of steps of an epoch on one task."""
    return max(1, len(side.train) // BATCH)


def configure(epochs: int, arguments: argparse.Namespace) -> TrainingConfig:
    """Return how all networks train; the last weights are kept, since two tasks have no common best."""
    return TrainingConfig(
        learning_rate=arguments.learning_rate,
        weight_decay=0.0,
        batch_size=BATCH,
        max_epochs=epochs,
        patience=epochs,
        restore_best=False,
        precision="fp32",
        seed=arguments.seed,
    )


def train_together(sides: dict[str, Side], reader: Any, arguments: argparse.Namespace) -> int:
    """Train one network on both tasks, add it to both tables, return the number of steps."""
    first, second = sides["pictures"], sides["texts"]
    network = build_network(embedding(reader), {"pictures": first.task, "texts": second.task}, arguments.seed)
    config = configure(arguments.epochs, arguments)
    every = max(batches(side) for side in sides.values())
    texts = SecondTask("texts", second.validation, every)
    phase = Phase((CrossEntropy(head="pictures"), texts, *penalties(("pictures", "texts"), arguments.decay)))
    history = train(
        network,
        first.task,
        first.train,
        first.validation,
        config,
        unlabelled=second.train,
        phases=[phase],
        progress=first.ways.progress,
        stage="both",
    )
    trained = (
        f"stems, shared convolutions and two heads, {history.steps:,} steps on a batch of pictures and one of texts"
    )
    first.add("shared layers", network, "pictures", history, history.cpu_seconds, trained)
    second.add("shared layers", network, "texts", texts.history, history.cpu_seconds, trained)
    return history.steps


def train_alone(name: str, side: Side, steps: int, reader: Any, arguments: argparse.Namespace) -> None:
    """Train the same network on one task, as many steps, and add it to the task's table."""
    network = build_network(embedding(reader), {name: side.task}, arguments.seed)
    config = configure(max(1, round(steps / batches(side))), arguments)
    phase = Phase((CrossEntropy(head=name), *penalties((name,), arguments.decay)))
    history = train(
        network, side.task, side.train, side.validation, config, phases=[phase], progress=side.ways.progress, stage=name
    )
    side.add(
        "scratch",
        network,
        name,
        history,
        history.cpu_seconds,
        f"the same network on {name} alone, {history.steps:,} steps",
    )


if __name__ == "__main__":
    main()
