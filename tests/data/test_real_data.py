"""Real data sets: counts, splits, duplicates that are truly there, and none where there are none."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from headstart.core.preprocessing import ImageTransform
from headstart.data import check_dataset, decode_image, open_dataset, split_dataset

pytestmark = pytest.mark.golden


@pytest.mark.parametrize(
    ("name", "rows", "classes", "train", "test"),
    [
        ("pets_oxford37", 1029, 37, 616, 413),
        ("cats_vs_dogs", 2200, 2, 1600, 600),
        ("hymenoptera", 397, 2, 244, 153),
        ("pacs_subset/photo", 490, 7, 392, 98),
    ],
)
def test_image_folders(shared_data: Path, name: str, rows: int, classes: int, train: int, test: int) -> None:
    dataset = open_dataset(shared_data / name)
    assert dataset.task is not None
    assert (len(dataset), len(dataset.task.classes), dataset.modality) == (rows, classes, "image")
    split = split_dataset(dataset)
    assert (len(split.train), len(split.test)) == (train, test)
    assert not dataset.quarantine


@pytest.mark.parametrize(
    ("name", "label", "rows", "classes", "test"),
    [
        ("text_sentence_cls/sst2.parquet", None, 9613, 2, 1821),
        ("text_sentence_cls/trec.parquet", "coarse", 5952, 6, 500),
        ("text_clinc150/clinc150.parquet", None, 23700, 151, 5500),
        ("text_sms_spam/sms_spam.parquet", None, 5574, 2, 1114),
    ],
)
def test_text_tables(shared_data: Path, name: str, label: str | None, rows: int, classes: int, test: int) -> None:
    dataset = open_dataset(shared_data / name, label=label)
    assert dataset.task is not None
    assert (len(dataset), len(dataset.task.classes), dataset.modality) == (rows, classes, "text")
    assert len(split_dataset(dataset).test) == test


def test_pacs_has_domains(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "pacs_subset")
    assert sorted(set(dataset.domains)) == ["art_painting", "cartoon", "photo", "sketch"]
    assert dataset.task is not None and len(dataset.task.classes) == 7


def test_a_table_beside_its_pictures(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "pets_oxford37" / "labels.csv", label="species")
    assert dataset.task is not None and dataset.task.classes == ("cat", "dog") and len(dataset) == 1029
    assert (dataset.given_split == "train").sum() == 616


def test_pets_hold_five_near_duplicate_pairs_three_of_them_across_the_split(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "pets_oxford37")
    check = check_dataset(dataset)
    groups = [{dataset.ids[row].rsplit("_", 1)[1] for row in group} for group in check.near_groups]
    assert groups == [
        {"11.jpg", "177.jpg"},
        {"24.jpg", "56.jpg"},
        {"40.jpg", "63.jpg"},
        {"5.jpg", "87.jpg"},
        {"122.jpg", "172.jpg"},
    ]
    assert len(check.leaking_rows) == 3 and not len(check.unreadable)
    started = time.process_time()
    again = check_dataset(open_dataset(shared_data / "pets_oxford37"))
    assert again.to_dict() == check.to_dict()
    assert time.process_time() - started < 0.25


def test_handwritten_digits_are_not_near_duplicates(shared_data: Path) -> None:
    with np.load(shared_data / "digits" / "mnist_t10k.npz") as digits:
        assert check_dataset(open_dataset(digits["images"][:3000])).near_groups == []
    with np.load(shared_data / "digits" / "usps.npz") as digits:
        assert check_dataset(open_dataset(digits["images"][:3000])).near_groups == []


def test_real_texts_that_leak(shared_data: Path) -> None:
    check = check_dataset(open_dataset(shared_data / "text_sentence_cls" / "trec.parquet", label="coarse"))
    assert len(check.exact_groups) == 73 and len(check.leaking_rows) == 11


def test_decoding_keeps_pace_with_the_bare_libraries(shared_data: Path) -> None:
    import simplejpeg
    from PIL import Image

    dataset = open_dataset(shared_data / "cats_vs_dogs").subset(range(200))
    contents = [content for i in range(200) if isinstance(content := dataset.read(i), bytes)]
    transform = ImageTransform(112, 112, 0.875)

    def bare(content: bytes) -> None:
        pixels = simplejpeg.decode_jpeg(content, "RGB", min_height=128, min_width=128)
        scale = 128 / min(pixels.shape[:2])
        size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
        np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

    def cost(decode: object) -> float:
        started = time.process_time()
        for content in contents:
            decode(content)  # type: ignore[operator]
        return time.process_time() - started

    ours = min(cost(lambda content: decode_image(content, transform)) for _ in range(3))
    theirs = min(cost(bare) for _ in range(3))
    assert ours < 1.25 * theirs
