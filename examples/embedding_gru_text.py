"""Word vectors and a recurrent unit for a new text classification: what do vectors know that labels alone do not teach?

    python examples/embedding_gru_text.py reviews.csv --text text --label stars --vectors glove.6B.100d.txt

The encoder is an embedding with pretrained word vectors (a folder or a GloVe text file) and a bidirectional GRU, at
most 512 words a text. Vectors, GRU and classifier are trained together, 128 texts a step. With ``--first other.csv``
the encoder learns another text classification before, and brings that along too. Beside it: the vectors left as they
are, the same network from random weights, tf-idf with a linear model, the majority class.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import headstart
from headstart.backbones import Backbone
from headstart.backbones.recurrent import recurrent_backbone
from headstart.methods import FineTuning
from headstart.training import TrainingConfig
from side_by_side import SideBySide

HEAD = "dropout0.5-softmax"


def main(argv: list[str] | None = None) -> SideBySide:
    """Train every way, print the table, write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="table of labelled texts")
    parser.add_argument("--text", default="text", help="its column of texts")
    parser.add_argument("--label", default="label", help="its column of labels")
    parser.add_argument("--vectors", required=True, help="word vectors: a folder with vocab.txt, or a GloVe text file")
    parser.add_argument("--first", type=Path, help="another table of labelled texts to learn before")
    parser.add_argument("--first-label", default="label", help="its column of labels")
    parser.add_argument("--first-rows", type=int, help="at most so many of its rows")
    parser.add_argument("--rows", type=int, help="at most so many rows to learn from")
    parser.add_argument("--test-rows", type=int, help="at most so many rows to test on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=128, help="numbers in a hidden state of the GRU")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--out", type=Path, default=Path("runs/embedding_gru_text"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)

    ways = SideBySide(
        f"Word vectors and a GRU on {arguments.data.name}",
        headstart.open_dataset(arguments.data, text=arguments.text, label=arguments.label, task="classification"),
        most=arguments.rows,
        most_test=arguments.test_rows,
        seed=arguments.seed,
    )
    encoder = recurrent_backbone(arguments.vectors, hidden=arguments.hidden, max_tokens=512, seed=arguments.seed)
    if arguments.first is not None:
        knowing = learn_before(encoder, arguments)
        ways.fine_tune(f"{arguments.first.stem} learnt before", knowing, method("full", arguments))
    ways.fine_tune("word vectors, trained on", encoder, method("full", arguments))
    ways.fine_tune("word vectors, left as they are", encoder, method("last-stages:1", arguments))
    ways.fine_tune("scratch", encoder.with_random_weights(arguments.seed), method("full", arguments))
    ways.add_baselines()
    print(ways)
    print(f"Report: {ways.write(arguments.out)}")
    return ways


def method(strategy: str, arguments: argparse.Namespace) -> FineTuning:
    """Return the recipe all ways share; only what trains differs."""
    config = TrainingConfig(
        learning_rate=arguments.learning_rate,
        batch_size=128,
        max_epochs=arguments.epochs,
        seed=arguments.seed,
    )
    return FineTuning(strategy=strategy, config=config, head=HEAD, seed=arguments.seed)


def learn_before(encoder: Backbone, arguments: argparse.Namespace) -> Any:
    """Return the encoder after it has learnt the other table."""
    rows = headstart.open_dataset(
        arguments.first, text=arguments.text, label=arguments.first_label, task="classification"
    )
    other = SideBySide(arguments.first.name, rows, most=arguments.first_rows, seed=arguments.seed)
    return other.fine_tune(arguments.first.stem, encoder, method("full", arguments)).model.backbone


if __name__ == "__main__":
    main()
