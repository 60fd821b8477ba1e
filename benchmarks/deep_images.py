"""Images changed before a network sees them, and models adapted to the rows they are used on: every method beside none.

    python benchmarks/deep_images.py changed [--seeds 2] [--only mnist-m] [--show FOLDER]       translations of source digits
    python benchmarks/deep_images.py digits [--seeds 3] [--only usps]         a saved model, adapted at test time to digits
    python benchmarks/deep_images.py pets [--seeds 3] [--only night]      the same of a pretrained network, shifted photos
    python benchmarks/deep_images.py summary                                  of what is stored

changed: 1,000 labelled digits of a source and 1,000 unlabelled ones of a target, 1,000 others of it judged. Each translation,
at its defaults, learns from both and changes the source. Two learn from what it leaves: a network of two convolutions from random
weights, on 32 x 32 pixels, and a logistic head on EfficientNet-Lite0, frozen, to which digits of 128 pixels are shown. On top of
digits as they are, and of those that `cycada` leaves, `dann` trains the small network, and a network on the frozen features.
USPS is framed as MNIST is (`deep_published.py`); MNIST-M is made of patches of other photographs (`shifts.py`).
digits, pets: a model learns from source rows, is saved, read back, and adapted to 300 digits or 200 photographs, which are
judged, and 1,000 other digits. A small residual network with batch normalisation learns digits whole; EfficientNet-Lite0 at
128 pixels gets a head of 37 breeds. Methods keep their defaults, but for photographs tent and eata take ten steps of 40.
Target labels judge and never choose. A seed draws rows, weights and order. One thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn

from adaptation_grid import DATA
from deep_published import interval, right
from headstart.backbones import Backbone, open_backbone
from headstart.catalog import read_recipe
from headstart.core.errors import HeadstartError
from headstart.core.places import cache_folder
from headstart.data import Dataset, open_dataset
from headstart.features import extract_features
from headstart.methods import AdaptedNetwork, FeatureExtraction, FineTuning, TestTimeAdaptation, adapt_module
from headstart.methods.adaptations.heads import steps_to_epochs
from headstart.methods.image_translation import (
    CyCADATranslation,
    FourierTranslation,
    GeneratorTranslation,
    SourceTranslation,
)
from headstart.model import Model, load_model
from headstart.training import TrainingConfig
from record import ROOT, store_result
from shifts import SHIFTS, digits_on_photos, photos, shift_folder

Matrix = NDArray[Any]
Run = dict[str, float]
RESULTS = ROOT / "benchmarks" / "results" / "deep_images.json"
NONE, IMAGES = "none", "cycada, images"
RECIPES = ("source-only", "dann")
PAIRS = ("mnist>usps", "usps>mnist", "mnist>mnist-m")
TEST_TIME = ("adabn", "moments", "tent", "eata", "lame")
_BORDER = 4  # pixels of 28 that MNIST leaves free around its digits, and USPS does not


def drawn(count: int, seed: int, *sizes: int) -> list[Matrix]:
    """Return so many rows each, none twice."""
    order = np.random.default_rng(seed).permutation(count)
    return np.split(order[: sum(sizes)], np.cumsum(sizes)[:-1])


def digit_rows(domain: str, seed: int, *sizes: int) -> list[tuple[Matrix, Matrix]]:
    """Return parts of a domain as pixels (n, h, w, 3) and classes; MNIST and MNIST-M share no digit."""
    file = "usps.npz" if domain == "usps" else "mnist_t10k.npz"
    with np.load(DATA / "digits" / file) as stored:
        pixels, labels = stored["images"], stored["labels"].astype(np.int64)
    half = len(labels) // 2
    if domain != "usps":
        own = slice(half) if domain == "mnist" else slice(half, None)
        pixels, labels = pixels[own], labels[own]
    parts = []
    for places in drawn(len(labels), seed, *sizes):
        if domain == "mnist-m":
            rows = digits_on_photos(pixels[places], photos(), seed)
        else:
            rows = np.repeat(pixels[places][..., None], 3, axis=3)
        parts.append((rows, labels[places]))
    return parts


def framed(pixels_nhwc: Matrix) -> Matrix:
    """Return digits that fill their pixels with a border as MNIST has it; others as they are."""
    if pixels_nhwc.shape[1] != 16:
        return pixels_nhwc
    side = 28 - 2 * _BORDER
    found = np.zeros((len(pixels_nhwc), 28, 28, 3), np.uint8)
    inner = slice(_BORDER, 28 - _BORDER)
    large = torch.from_numpy(pixels_nhwc).permute(0, 3, 1, 2).float()
    large = torch.nn.functional.interpolate(large, size=(side, side), mode="bilinear", align_corners=False)
    found[:, inner, inner] = large.permute(0, 2, 3, 1).round().to(torch.uint8).numpy()
    return found


def named(pixels: Matrix, labels: Matrix) -> Dataset:
    """Return digits as labelled rows."""
    return open_dataset(pixels, labels=[f"digit {label}" for label in labels])


def accuracy(model: Model, rows: Dataset, truth: Matrix) -> float:
    """Return the share of rows whose class number the model names; classes of digits are in the order of their numbers."""
    return right(model.predict(rows, store=False).scores, truth)


TRANSLATIONS: dict[str, SourceTranslation | None] = {
    NONE: None,
    "fda": FourierTranslation(),
    "cyclegan": GeneratorTranslation(),
    IMAGES: CyCADATranslation(),
}
ROWS = 1000  # of the source, of the target, and of the target to judge
SIDE = 128  # what the frozen base model reads


def small_network(width: int = 16) -> tuple[nn.Module, nn.Module]:
    """Return two convolutions with a hidden layer, and a head, from random weights."""
    body = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2 * width * 64, 4 * width), nn.ReLU(),
    )  # fmt: skip
    return body, nn.Linear(4 * width, 10)


def pictures(rows: Dataset) -> Matrix:
    """Return rows as 32 x 32 pixels, channels first, from -1 to 1."""
    found = []
    for place in range(len(rows)):
        image = Image.fromarray(np.asarray(rows.read(place)))
        resized = image.resize((32, 32), Image.Resampling.BILINEAR)
        found.append(np.asarray(resized, np.float32).transpose(2, 0, 1) / 127.5 - 1)
    return np.stack(found)


def by_small_network(source: Matrix, labels: Matrix, target: Matrix, recipe: str, seed: int) -> Any:
    """Return the small network, trained on source pictures by a recipe that may look at target pictures."""
    torch.manual_seed(seed)
    body, head = small_network()
    config = TrainingConfig(
        weight_decay=0.01,
        batch_size=64,
        max_epochs=steps_to_epochs(200, len(source), len(target), 64),
        precision="fp32",
        restore_best=False,
        seed=seed,
        threads=1,
    )
    return adapt_module(body, source, labels, target, recipe=read_recipe(recipe), head=head, config=config)


def embedded(rows: Dataset, backbone: Backbone) -> Matrix:
    """Return features of length 1."""
    values = extract_features(rows.unlabelled(), backbone, store=False).values_nd
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


def changed_pair(name: str, seed: int, backbone: Backbone, show: Path | None) -> Run:
    """Translate a source by every method, and let both learners learn from what it leaves."""
    first, second = name.split(">")
    ((pixels, labels),) = digit_rows(first, seed, ROWS)
    (here, _), (others, answers) = digit_rows(second, seed + 100, ROWS, ROWS)
    source = named(framed(pixels), labels)
    target, test = (open_dataset(framed(rows), unlabelled=True) for rows in (here, others))
    small, frozen = [pictures(rows) for rows in (target, test)], [embedded(rows, backbone) for rows in (target, test)]
    run, looks = Run(), [pictures(target.subset(list(range(16))))]
    for method, translation in TRANSLATIONS.items():
        started, rows = time.process_time(), source
        if translation is not None:
            rows = replace(translation, seed=seed).learn(source, target, backbone)(source)
            run[f"{method}, CPU s"] = round(time.process_time() - started, 1)
        images, features = pictures(rows), embedded(rows, backbone)
        looks.append(images[:16])
        for recipe in RECIPES if method in {NONE, IMAGES} else RECIPES[:1]:
            model = by_small_network(images, labels, small[0], recipe, seed)
            run[f"small, {method}, {recipe}"] = right(model.predict_proba(small[1]), answers)
            if recipe == "dann":
                head = AdaptedNetwork(read_recipe(recipe), seed=seed).fit(features, labels, frozen[0])
            else:
                head = LogisticRegression(C=10.0, max_iter=1000).fit(features, labels)
            run[f"frozen, {method}, {recipe}"] = right(head.predict_proba(frozen[1]), answers)
        print(name, seed, method, shown({k: v for k, v in run.items() if f"{method}," in k}), flush=True)
    if show is not None:
        lines = [np.concatenate(list((127.5 * (line + 1)).astype(np.uint8)), axis=2) for line in looks]
        Image.fromarray(np.concatenate(lines, axis=1).transpose(1, 2, 0)).save(show / f"{first}_{second}_{seed}.png")
    return run


def changed(seeds: int, only: str, show: Path | None) -> None:
    """Run the pairs of digits, and store each run as it comes."""
    backbone = open_backbone("efficientnet-lite0", input_size=SIDE)
    for name in PAIRS:
        runs: list[Run] = []
        for seed in range(seeds if only in name else 0):
            runs.append(changed_pair(name, seed, backbone, show))
            keep("changed_runs", {name: runs})


def digit_model(source: Dataset, seed: int) -> Model:
    """Return a small residual network with batch normalisation, trained on source digits from random weights."""
    torch.manual_seed(seed)
    backbone: Backbone = open_backbone(timm.create_model("test_resnet", num_classes=10), input_size=32)
    config = TrainingConfig(
        learning_rate=3e-3, max_epochs=8, batch_size=64, restore_best=False, precision="fp32", seed=seed, threads=1
    )
    method = FineTuning(
        strategy="full", head="linear", batch_norm="train", validation=0.0, refit=False, config=config, seed=seed
    )
    return method.fit(source, backbone, store=False).model


def adapted(
    model: Model, source: Dataset, target: Dataset, seed: int, config: TrainingConfig | None = None
) -> Iterator[tuple[str, Model, float]]:
    """Give the model itself, then what each method makes of it after it was saved and read back, with its CPU seconds."""
    yield NONE, model, 0.0
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_model(model.save(Path(folder) / "model"))
        for name in TEST_TIME:
            started = time.process_time()
            chosen = config if name in {"tent", "eata"} else None
            method = TestTimeAdaptation(name, config=chosen, seed=seed)  # type: ignore[arg-type]
            given = source.unlabelled() if name in {"moments", "eata"} else None
            try:
                found = method.fit(loaded, target, source_rows=given, store=False)
            except HeadstartError as error:
                print(f"{name}: broke off: {str(error)[:100]}", flush=True)
                continue
            yield name, found, time.process_time() - started


def test_time_digits(seeds: int, only: str) -> None:
    """Adapt a saved model of MNIST to USPS and to MNIST-M, and of USPS to MNIST."""
    runs: dict[str, list[Run]] = {}
    for name in PAIRS:
        if only not in name:
            continue
        runs[name] = []
        for seed in range(seeds):
            first, second = name.split(">")
            ((pixels, labels),) = digit_rows(first, seed, 1500)
            (here, truth), (others, answers) = digit_rows(second, seed + 100, 300, 1000)
            source = named(framed(pixels), labels)
            target, rest = (open_dataset(framed(rows), unlabelled=True) for rows in (here, others))
            run: Run = {}
            for method, model, spent in adapted(digit_model(source, seed), source, target, seed):
                run[method], run[f"{method}, others"] = accuracy(model, target, truth), accuracy(model, rest, answers)
                run[f"{method}, CPU s"] = round(spent, 1)
            runs[name].append(run)
            keep("digits_runs", runs)
            print(name, seed, shown(run), flush=True)


def test_time_pets(seeds: int, only: str) -> None:
    """Adapt a saved model of 37 breeds to photographs as they are, drawn in pencil, at night and out of focus."""
    folder = cache_folder() / "pets_shifts"
    backbone = open_backbone("efficientnet-lite0", input_size=128)
    source = open_dataset(DATA / "pets_oxford37" / "train")
    assert source.targets is not None and source.task is not None
    model = FeatureExtraction().fit(backbone, extract_features(source, backbone), source.targets, source.task)
    runs: dict[str, list[Run]] = {}
    photographs = DATA / "pets_oxford37" / "test"
    for shift in ("photo", *SHIFTS):
        if only not in shift:
            continue
        if shift in SHIFTS:
            shift_folder(photographs, folder / shift, shift)
        rows, runs[shift] = open_dataset(folder / shift if shift in SHIFTS else photographs), []
        assert rows.targets is not None and rows.task is not None
        assert rows.task.classes == source.task.classes
        for seed in range(seeds):
            (places,) = drawn(len(rows), seed, 200)
            target, truth = rows.subset(list(places)).unlabelled(), np.asarray(rows.targets)[places]
            config = TrainingConfig(
                learning_rate=1e-3,
                weight_decay=0.0,
                betas=(0.9, 0.999),
                batch_size=40,
                max_epochs=2,
                schedule="constant",
                restore_best=False,
                seed=seed,
                threads=1,
            )
            run: Run = {}
            for method, found, spent in adapted(model, source, target, seed, config):
                run[method], run[f"{method}, CPU s"] = accuracy(found, target, truth), round(spent, 1)
            runs[shift].append(run)
            keep("pets_runs", runs)
            print(shift, seed, shown(run), flush=True)


def keep(name: str, runs: dict[str, list[Run]]) -> None:
    """Store runs beside those of other pairs."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")).get(name, {}) if RESULTS.exists() else {}
    store_result(RESULTS, name, {"runs": {**known.get("runs", {}), **runs}})


def shown(run: Run) -> Run:
    """Return a run in percent, times as they are."""
    return {key: value if key.endswith("CPU s") else round(100 * value, 1) for key, value in run.items()}


def compared(runs: dict[str, list[Run]], plain: dict[str, str]) -> dict[str, Any]:
    """Return for each pair, and for each method of it beside what it is compared with, means and intervals over seeds.

    "All" counts each pair once, and draws pairs with all their seeds.
    """
    found: dict[str, Any] = {}
    for name, base in plain.items():
        lines = {pair: [run for run in line if name in run] for pair, line in runs.items()}
        lines = {pair: line for pair, line in lines.items() if line}
        gains = {pair: np.array([run[name] - run[base] for run in line]) for pair, line in lines.items()}
        for pair, line in lines.items():
            values = np.array([run[name] for run in line])
            found.setdefault(pair, {})[name] = {"mean": interval(values), "gain": interval(gains[pair])}
        means = [np.array([np.mean([run[name] for run in line]) for line in lines.values()])]
        means.append(np.array([values.mean() for values in gains.values()]))
        found.setdefault("all", {})[name] = dict(zip(("mean", "gain"), map(interval, means), strict=True))
        found["all"][name]["worst"] = float(min(values.min() for values in gains.values()))
    return found


def summary() -> None:
    """Print and store the tables of what is stored."""
    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    plain = dict.fromkeys((NONE, *TEST_TIME), NONE)
    plain_of = {
        "changed": {
            f"{learner}, {method}, {recipe}": f"{learner}, {NONE}, {recipe}"
            for learner in ("small", "frozen")
            for recipe in RECIPES
            for method in (TRANSLATIONS if recipe == RECIPES[0] else (NONE, IMAGES))
        },
        "digits": plain | {f"{name}, others": f"{NONE}, others" for name in plain},
        "pets": plain,
    }
    for part, names in plain_of.items():
        if f"{part}_runs" not in stored:
            continue
        found = compared(stored[f"{part}_runs"]["runs"], names)
        for pair, methods in found.items():
            for name, line in methods.items():
                cells = ["{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * np.array(line[k]))) for k in ("mean", "gain")]
                print(f"{pair:14s} {name:32s} {cells[0]:28s} gain {cells[1]}")
        store_result(RESULTS, part, found)


def main() -> None:
    """Run what is asked for, then the tables."""
    parser = argparse.ArgumentParser(description="Changed images, and models adapted to the rows they are used on.")
    parser.add_argument("which", choices=("changed", "digits", "pets", "summary"))
    parser.add_argument("--seeds", type=int, default=0, help="2 for changed images and 3 for models when left out")
    parser.add_argument("--only", default="", help="pairs or shifts whose name contains this")
    parser.add_argument("--show", type=Path, help="folder for pictures of changed digits")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.which == "changed":
        changed(arguments.seeds or 2, arguments.only, arguments.show)
    if arguments.which == "digits":
        test_time_digits(arguments.seeds or 3, arguments.only)
    if arguments.which == "pets":
        test_time_pets(arguments.seeds or 3, arguments.only)
    summary()


if __name__ == "__main__":
    main()
