"""A BERT for text classification, as its paper fine-tunes it: Adam at 2e-5, 32 texts a step, a few epochs.

    python examples/bert_text.py reviews.csv --text text --label stars --base-model transformers:bert-base-uncased

Any BERT-like encoder will do: a name of transformers, or a folder as transformers saves it; the default is the small
encoder that the extra ``text`` installs. Beside it: the same encoder frozen under a solved head, the same network
from random weights for the same number of steps (at a rate that suits it), tf-idf with a linear model, the majority
class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import headstart
from headstart.methods import FineTuning
from headstart.training import TrainingConfig
from side_by_side import SideBySide


def main(argv: list[str] | None = None) -> SideBySide:
    """Train every way, print the table, write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="table of labelled texts")
    parser.add_argument("--text", default="text", help="its column of texts")
    parser.add_argument("--label", default="label", help="its column of labels")
    parser.add_argument("--base-model", default="minilm-l6", help="a BERT-like encoder")
    parser.add_argument("--rows", type=int, help="at most so many rows to learn from")
    parser.add_argument("--test-rows", type=int, help="at most so many rows to test on")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument(
        "--scratch-learning-rate", type=float, default=5e-4, help="2e-5 would teach random weights nothing"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bert_text"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)

    ways = SideBySide(
        f"{arguments.base_model} on {arguments.data.name}",
        headstart.open_dataset(arguments.data, text=arguments.text, label=arguments.label, task="classification"),
        most=arguments.rows,
        most_test=arguments.test_rows,
        seed=arguments.seed,
    )
    encoder = headstart.open_backbone(arguments.base_model)
    ways.fine_tune("fine-tuned", encoder, method(arguments.learning_rate, arguments))
    ways.solve_head("frozen, solved head", encoder)
    random = encoder.with_random_weights(arguments.seed)
    ways.fine_tune("scratch", random, method(arguments.scratch_learning_rate, arguments))
    ways.add_baselines()
    print(ways)
    print(f"Report: {ways.write(arguments.out)}")
    return ways


def method(learning_rate: float, arguments: argparse.Namespace) -> FineTuning:
    """Return the recipe of the paper."""
    config = TrainingConfig(
        optimiser="adam",
        learning_rate=learning_rate,
        betas=(0.9, 0.999),
        weight_decay=0.0,
        batch_size=32,
        max_epochs=arguments.epochs,
        warm_up=0.1,
        clip=1.0,
        seed=arguments.seed,
    )
    return FineTuning(strategy="full", config=config, head="dropout0.1-softmax", seed=arguments.seed)


if __name__ == "__main__":
    main()
