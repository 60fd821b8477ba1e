"""From cats and dogs to other photographs of them, without a label there, and on to their breeds: joint loss and a domain critic.

    python examples/cats_and_dogs_adapted.py cats_vs_dogs/ pets.csv --base-model timm:resnet50

``pets.csv`` has a line for every picture: ``image`` (a path beside the table), ``species`` (cat or dog, looked at only
to say how well it went) and ``breed``; with a column ``split`` of ``train`` and ``test``. Two things are asked. Do
photographs from elsewhere need adapting at all: "do not adapt", the last stage trained on the source alone, and the
same with `--objectives`, chosen among without target labels. And do the features that came to serve both sets of
photographs know breeds better: a head solved on them, on the base model's own, and the network from random weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import headstart
from headstart.backbones import open_backbone
from headstart.methods import FineTuning
from headstart.training import TrainingConfig
from headstart.training.strategies import FRESH_HEAD
from side_by_side import SideBySide, some_rows

ADVERSARIAL = "ce + dann"
JOINT = "ce + 0.5*coral + 0.5*mcc"


def read_pets(table: Path, label: str) -> Any:
    """Return the pictures of a table with one of its columns as labels."""
    frame = pd.read_csv(table)
    frame["image"] = [str(table.parent / path) for path in frame["image"]]
    columns = ["image", label, *(["split"] if "split" in frame else [])]
    return headstart.open_dataset(frame[columns], image="image", label=label)


def main(argv: list[str] | None = None) -> tuple[list[Any], SideBySide]:
    """Adapt for the species by either loss, then learn the breeds every way; print tables, write reports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of pictures of cats and dogs, in class folders")
    parser.add_argument("target", type=Path, help="table of pictures: image, species, breed")
    parser.add_argument("--base-model", default="efficientnet-lite0")
    parser.add_argument("--strategy", default="last-stages:1", help="stages that train")
    parser.add_argument("--objectives", nargs="*", default=[ADVERSARIAL, JOINT], help="joint losses to try")
    parser.add_argument("--rows", type=int, help="at most so many pictures of either set to learn from")
    parser.add_argument("--test-rows", type=int, help="at most so many pictures to test on")
    parser.add_argument("--scratch-seconds", type=float, default=60, help="CPU time of training from scratch")
    parser.add_argument("--out", type=Path, default=Path("runs/cats_and_dogs_adapted"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)

    source = headstart.open_dataset(arguments.source)
    if source.given_split is not None:
        source = source.subset(source.given_split != "test")
    species = read_pets(arguments.target, "species")
    source, species = (some_rows(rows, arguments.rows, arguments.seed) for rows in (source, species))
    found = []
    for number, objectives in enumerate(arguments.objectives):
        found.append(
            headstart.adapt(
                source,
                species,
                objectives=objectives,
                strategy=arguments.strategy,
                backbones=[arguments.base_model],
                seed=arguments.seed,
                out=arguments.out / f"species_{number}",
            )
        )
        print(f"{objectives}\n{found[-1]}\n")

    breeds = SideBySide(
        f"Breeds, with what {arguments.base_model} knows of cats and dogs",
        read_pets(arguments.target, "breed"),
        most=arguments.rows,
        most_test=arguments.test_rows,
        seed=arguments.seed,
    )
    base = open_backbone(arguments.base_model)
    models = [headstart.load_model(arguments.out / f"species_{number}").backbone for number in range(len(found))]
    for number, adapted in enumerate(models):
        if adapted.weights_digest != base.weights_digest:
            breeds.solve_head(f"base model adapted by {arguments.objectives[number]}", adapted)
    breeds.solve_head("base model", base)
    config = TrainingConfig(
        learning_rate=1e-3 / FRESH_HEAD, max_epochs=50, cpu_seconds=arguments.scratch_seconds, seed=arguments.seed
    )
    method = FineTuning(strategy="full", head="linear", config=config, seed=arguments.seed)
    random = base.with_random_weights(arguments.seed)
    breeds.fine_tune("scratch", random, method, f"everything trained for {arguments.scratch_seconds:g} s of CPU time")
    breeds.add_baselines()
    print(breeds)
    print(f"Report: {breeds.write(arguments.out / 'breeds')}")
    assert np.isfinite(breeds.accuracy(breeds.ways[0].name))
    return found, breeds


if __name__ == "__main__":
    main()
