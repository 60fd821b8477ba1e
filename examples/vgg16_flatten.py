"""The first network everybody transfers: VGG-16 from ImageNet, frozen, Flatten, Dense(512, relu), Dropout(0.5), softmax.

    python examples/vgg16_flatten.py photos/ --base-model timm:vgg16

The folder holds class folders, in ``train`` and ``test`` or not. The last map of the convolutions is flattened,
25,088 numbers a picture at 224 pixels. Frozen layers run once a picture, not once an epoch. Beside it: the same
network from random weights for as much CPU time, a linear model on pixels, the majority class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import headstart
from side_by_side import SideBySide, frozen_and_from_scratch

HEAD = "flatten-dense512-relu-dropout0.5-softmax"


def main(argv: list[str] | None = None) -> SideBySide:
    """Train every way, print the table, write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of pictures in class folders")
    parser.add_argument("--base-model", default="timm:vgg16")
    parser.add_argument("--stage", default="features.30", help="where the network is cut; after its last convolutions")
    parser.add_argument("--pool", choices=["flatten", "mean"], default="flatten", help="what becomes of the map there")
    parser.add_argument("--rows", type=int, help="at most so many pictures to learn from")
    parser.add_argument("--test-rows", type=int, help="at most so many pictures to test on")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the dense layers")
    parser.add_argument("--out", type=Path, default=Path("runs/vgg16_flatten"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)

    ways = SideBySide(
        f"{arguments.base_model}, frozen, on {arguments.data.name}",
        headstart.open_dataset(arguments.data),
        most=arguments.rows,
        most_test=arguments.test_rows,
        seed=arguments.seed,
    )
    frozen_and_from_scratch(ways, HEAD, arguments)
    print(ways)
    print(f"Report: {ways.write(arguments.out)}")
    return ways


if __name__ == "__main__":
    main()
