"""Rows as inputs: the same pixels as prediction, views by their draw, free crops that lie inside the picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headstart.backbones import Backbone, vector_backbone
from headstart.backbones.architecture import Architecture
from headstart.core.errors import ConfigError, DataError
from headstart.core.preprocessing import ImageTransform, View
from headstart.data import decode_image, open_dataset
from headstart.training import InputRows

TRANSFORM = ImageTransform(14, 14, 0.875, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
VIEWS = (View(), View(flip=True), View(crop_x=0.0, crop_y=1.0, zoom=1.5))


def image_backbone(transform: ImageTransform = TRANSFORM) -> Backbone:
    architecture = Architecture("timm", "none", {})
    return Backbone(architecture, nn.Flatten(), transform, name="pixels", width=3 * 14 * 14)


def pictures(number: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, 20, 24, 3), np.uint8)


def expected(pixels: np.ndarray, view: View) -> torch.Tensor:
    decoded = torch.from_numpy(decode_image(pixels, TRANSFORM, view).astype(np.float32)) / 255
    return ((decoded - torch.tensor(TRANSFORM.mean)) / torch.tensor(TRANSFORM.std)).permute(2, 0, 1)


@pytest.fixture
def dataset() -> object:
    return open_dataset(pictures(), unlabelled=True)


def test_draws_choose_among_the_fixed_views(dataset: object) -> None:
    rows = InputRows(dataset, image_backbone(), views=VIEWS)
    assert rows.num_views == 3 and len(rows) == 4
    draws = np.array([0, 4, 5, 3 * 2**61 + 1], np.uint64)
    (batch,) = rows.batch(np.array([3, 2, 0, 1]), draws)
    for row, (index, draw) in zip(batch, zip((3, 2, 0, 1), draws.tolist(), strict=True), strict=True):
        torch.testing.assert_close(row, expected(pictures()[index], VIEWS[draw % 3]), rtol=1e-6, atol=1e-6)
    (plain,) = rows.batch(np.array([1, 1]))
    torch.testing.assert_close(plain[1], expected(pictures()[1], View()), rtol=1e-6, atol=1e-6)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    rows.close()


def test_one_view_is_always_the_same(dataset: object) -> None:
    rows = InputRows(dataset, image_backbone())
    (drawn,) = rows.batch(np.array([0, 0]), np.array([1, 2**63 + 7], np.uint64))
    assert torch.equal(drawn[0], drawn[1])


def test_flips_mirror_about_half(dataset: object) -> None:
    rows = InputRows(dataset, image_backbone(), augment="flips")
    draws = np.random.default_rng(0).integers(0, 2**64, 200, np.uint64)
    (batch,) = rows.batch(np.zeros(200, int), draws)
    plain = expected(pictures()[0], View())
    same = [bool(torch.allclose(row, plain, atol=1e-6)) for row in batch]
    mirrored = [bool(torch.allclose(row, plain.flip(2), atol=1e-6)) for row in batch]
    assert all(one != other for one, other in zip(same, mirrored, strict=True)) and 70 < sum(same) < 130


def test_crops_lie_inside_the_larger_picture(dataset: object) -> None:
    rows = InputRows(dataset, image_backbone(), augment="crops")
    draws = np.random.default_rng(0).integers(0, 2**64, 300, np.uint64)
    (batch,) = rows.batch(np.full(300, 2), draws)
    larger = decode_image(pictures()[2], ImageTransform(16, 16))
    places = set()
    for row in batch:
        pixels = (
            (row.permute(1, 2, 0) * torch.tensor(TRANSFORM.std) + torch.tensor(TRANSFORM.mean)).mul(255).round().numpy()
        )
        found = [
            (top, left, flip)
            for top in range(3)
            for left in range(3)
            for flip in (False, True)
            if np.array_equal(pixels, larger[top : top + 14, left : left + 14][:, :: -1 if flip else 1])
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) == 18
    (plain,) = rows.batch(np.array([2]))
    torch.testing.assert_close(plain[0], expected(pictures()[2], View()), rtol=1e-6, atol=1e-6)


def test_pixels_beyond_the_limit_are_decoded_again(dataset: object) -> None:
    held, bare = (InputRows(dataset, image_backbone(), views=VIEWS, max_bytes=limit) for limit in (1 << 20, 700))
    draws = np.arange(8, dtype=np.uint64)
    indices = np.array([0, 1, 2, 3, 3, 2, 1, 0])
    for _ in range(2):
        assert torch.equal(held.batch(indices, draws)[0], bare.batch(indices, draws)[0])
    assert sum(item.nbytes for item in bare._kept.values()) <= 700 < sum(item.nbytes for item in held._kept.values())


def test_an_unreadable_row_is_named(tmp_path: object) -> None:
    folder = tmp_path / "pictures"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            buffer = io.BytesIO()
            Image.fromarray(pictures()[number]).save(buffer, "PNG")
            (folder / name / f"{name}{number}.png").write_bytes(buffer.getvalue())
    rows = InputRows(open_dataset(folder), image_backbone())
    (folder / "a" / "a1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a1\.png cannot be read .*leave it out"):
        rows.batch(np.arange(4))


def test_views_are_for_images_and_not_beside_augmentation(dataset: object) -> None:
    vectors = open_dataset(np.eye(3, dtype=np.float32), unlabelled=True)
    for rows, backbone, options, match in (
        (vectors, vector_backbone(3), {"augment": "flips"}, "flips and crops are for images"),
        (vectors, vector_backbone(3), {"views": VIEWS}, "flips and crops are for images"),
        (dataset, image_backbone(), {"views": VIEWS, "augment": "flips"}, "either fixed views or free augmentation"),
        (dataset, image_backbone(), {"augment": "flip"}, "augment is one of none, flips, crops"),
        (dataset, image_backbone(), {"views": ()}, "at least one view"),
    ):
        with pytest.raises(ConfigError, match=match):
            InputRows(rows, backbone, **options)
