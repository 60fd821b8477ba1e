"""The worked examples on pictures, on small slices of real data with real weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pq_weights import decode_pq
from vgg_weights import vgg16_folder

pytestmark = pytest.mark.golden


def test_cats_and_dogs_with_a_frozen_resnet50(
    example: Callable[[str], Any], shared_data: Path, shared_weights: Path, tmp_path: Path
) -> None:
    base = decode_pq(next((shared_weights / "imagenet").glob("resnet50_pqf.pq.safetensors")))
    (species,) = example("cats_and_dogs_resnet50").main(
        [
            *(str(shared_data / "cats_vs_dogs"), "--base-model", str(base), "--pool", "mean"),
            *("--rows", "20", "--test-rows", "20", "--epochs", "6", "--out", str(tmp_path)),
        ]
    )
    assert [way.name for way in species.ways] == ["frozen network", "scratch", "raw", "majority"]
    assert species.accuracy("frozen network") > 0.85
    assert (tmp_path / "cats_and_dogs" / "report.html").is_file()


def test_vgg16_flattened(example: Callable[[str], Any], shared_data: Path, tmp_path: Path) -> None:
    ways = example("vgg16_flatten").main(
        [
            *(str(shared_data / "hymenoptera"), "--base-model", str(vgg16_folder())),
            *("--rows", "20", "--test-rows", "16", "--epochs", "3", "--out", str(tmp_path)),
        ]
    )
    assert [way.name for way in ways.ways] == ["frozen network", "scratch", "raw", "majority"]
    assert "25,088 features" in ways.ways[0].trained
    assert (tmp_path / "report.html").is_file()


def test_a_third_animal(example: Callable[[str], Any], shared_data: Path) -> None:
    results = example("third_animal").main(
        [str(shared_data / "cats_vs_dogs"), str(shared_data / "pacs_subset" / "photo"), "--most", "16", "--few", "4"]
    )
    chosen = next(name for name in results if name.startswith("pretrained") and "chosen" in name)
    assert results[chosen]["new"] > 0.8 > results["majority"]["new"]
    assert any(name.startswith("random features") for name in results)


def test_cats_and_dogs_adapted(
    example: Callable[[str], Any], shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    pets = pd.read_csv(shared_data / "pets_oxford37" / "labels.csv").rename(columns={"file": "image"})
    pets = pets[pets["breed"].isin(["Abyssinian", "american_bulldog"])].groupby(["breed", "split"]).head(8)
    pets["image"] = [str(shared_data / "pets_oxford37" / path) for path in pets["image"]]
    pets[["image", "species", "breed", "split"]].to_csv(tmp_path / "pets.csv", index=False)
    found, breeds = example("cats_and_dogs_adapted").main(
        [
            *(str(shared_data / "cats_vs_dogs"), str(tmp_path / "pets.csv"), "--rows", "16", "--test-rows", "16"),
            *("--objectives", "ce + coral", "--scratch-seconds", "2", "--strategy", "head-only"),
            *("--out", str(tmp_path / "out")),
        ]
    )
    assert [line.name for line in found[0].lines] == ["do not adapt", "source-only", "ce + coral"]
    assert breeds.ways[0].name.startswith("base model")
    assert {"scratch", "raw", "majority"} < {way.name for way in breeds.ways}
    assert (tmp_path / "out" / "breeds" / "report.html").is_file()
