"""What ImageNet knows of cats and dogs: a frozen ResNet-50, Flatten, Dense(1024, relu), softmax; then the same for their breeds.

    python examples/cats_and_dogs_resnet50.py cats_vs_dogs/ --breeds pets/ --base-model timm:resnet50

Both folders hold class folders, in ``train`` and ``test`` or not. The network's last map of activations is flattened,
as a network without its top gives it (``--pool mean`` averages it first, which makes the dense layer 49 times
smaller). Frozen layers run once a picture, not once an epoch. Beside it: the same network from random weights for as
much CPU time, a linear model on pixels, the majority class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import headstart
from side_by_side import SideBySide, frozen_and_from_scratch

HEAD = "flatten-dense1024-relu-softmax"


def main(argv: list[str] | None = None) -> list[SideBySide]:
    """Train every way on either task, print the tables, write the reports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of pictures of cats and dogs, in class folders")
    parser.add_argument("--breeds", type=Path, help="folder of pictures in a class folder for each breed")
    parser.add_argument("--base-model", default="timm:resnet50")
    parser.add_argument("--stage", help="where the network is cut; before its own average when left out")
    parser.add_argument("--pool", choices=["flatten", "mean"], default="flatten", help="what becomes of the map there")
    parser.add_argument("--rows", type=int, help="at most so many pictures to learn from")
    parser.add_argument("--test-rows", type=int, help="at most so many pictures to test on")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the dense layers")
    parser.add_argument("--out", type=Path, default=Path("runs/cats_and_dogs_resnet50"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)

    done = []
    for name, folder in (("cats_and_dogs", arguments.data), ("breeds", arguments.breeds)):
        if folder is None:
            continue
        ways = SideBySide(
            f"{arguments.base_model}, frozen, on {folder.name}",
            headstart.open_dataset(folder),
            most=arguments.rows,
            most_test=arguments.test_rows,
            seed=arguments.seed,
        )
        frozen_and_from_scratch(ways, HEAD, arguments)
        print(ways)
        print(f"Report: {ways.write(arguments.out / name)}\n")
        done.append(ways)
    return done


if __name__ == "__main__":
    main()
