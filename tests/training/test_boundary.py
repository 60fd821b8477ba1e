"""The freeze boundary: kept and computed activations are the same bits, so is training from them; whatever the disk does."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headstart.backbones import Backbone, vector_backbone
from headstart.core.errors import ConfigError, DataError
from headstart.core.preprocessing import View
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.data import Dataset, decode_image, open_dataset
from headstart.features import FeatureStore, ragged, table
from headstart.training.boundary import BoundaryRows, boundary_rows
from headstart.training.config import TrainingConfig
from headstart.training.loop import train
from headstart.training.network import Network
from headstart.training.rows import TrainingRows
from small_networks import IMAGE_FAMILIES, small_image_backbone, small_text_backbone

VIEWS = (View(), View(flip=True), View(crop_x=0.0, zoom=1.25))
TEXT_STAGE = "encoder.layer.0"
TASK = Task("classification", ("even", "odd"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.set_num_threads(1)
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


@pytest.fixture
def images(tmp_path: Path) -> Dataset:
    random = np.random.default_rng(0)
    for at in range(14):
        place = tmp_path / "photos" / ("odd" if at % 2 else "even")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 52, 3), dtype=np.uint8)).save(place / f"{at:02d}.png")
    return open_dataset(tmp_path / "photos")


def texts(count: int = 30) -> Dataset:
    random = np.random.default_rng(0)
    lines = [" ".join(f"w{word}" for word in random.integers(1, 50, size)) for size in random.integers(1, 60, count)]
    return open_dataset(lines, labels=["odd" if at % 2 else "even" for at in range(count)])


def both(dataset: Dataset, backbone: Backbone, stage: str, **options: Any) -> tuple[BoundaryRows, BoundaryRows]:
    kept = boundary_rows(dataset, backbone, stage, cached=True, **options)
    computed = boundary_rows(dataset, backbone, stage, cached=False, **options)
    assert (kept.cached, computed.cached) == (True, False)
    assert kept.identity() == computed.identity()
    return kept, computed


def batches(num_rows: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Shuffled batches of many sizes, one of them with a row twice, and draws."""
    random = np.random.default_rng(seed)
    rows = [random.permutation(num_rows)[:size] for size in (1, 2, 5, 8, 9, num_rows)] + [np.array([3, 1, 3])]
    return [(part, random.integers(0, 2**64, len(part), np.uint64)) for part in rows]


def assert_same_bits(kept: BoundaryRows, computed: BoundaryRows) -> None:
    for rows, draws in batches(len(kept)):
        for drawn in (draws, None):
            mine, other = kept.batch(rows, drawn), computed.batch(rows, drawn)
            assert len(mine) == len(other)
            for left, right in zip(mine, other, strict=True):
                assert torch.equal(left, right)
                assert left.stride() == right.stride()
                assert left.dtype == right.dtype


@pytest.mark.golden
@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_exact_images_are_the_same_bits_kept_or_computed(family: str, images: Dataset) -> None:
    backbone, stage = small_image_backbone(family)
    kept, computed = both(images, backbone, stage, views=VIEWS, exact=True)
    assert kept.num_views == 3
    assert_same_bits(kept, computed)
    draws = np.array([2, 4, 6], np.uint64)  # views 2, 1 and 0
    given = kept.batch(np.array([5, 0, 9]), draws)[0]
    prefix = backbone.cut(stage)[0]
    for row, view, mine in zip((5, 0, 9), (2, 1, 0), given, strict=True):
        pixels = decode_image(images.read(row), backbone.transform, VIEWS[view]).astype(np.float64) / 255
        scaled = ((pixels - backbone.transform.mean) / backbone.transform.std).transpose(2, 0, 1)
        with torch.no_grad():
            wanted = prefix(torch.from_numpy(scaled[None]).float())[0]
        np.testing.assert_allclose(mine.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    if given.ndim == 4:
        assert given.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("stage", ["embeddings", TEXT_STAGE, "encoder.layer.2", "features"])
def test_exact_texts_are_the_same_bits_kept_or_computed(stage: str) -> None:
    pytest.importorskip("transformers")
    backbone, rows = small_text_backbone(), texts()
    kept, computed = both(rows, backbone, stage, runtime="torch-fp32")
    assert_same_bits(kept, computed)
    given = kept.batch(np.array([7, 2, 11]))
    line = [str(rows.read(row)) for row in (7, 2, 11)]
    with torch.no_grad():
        wanted = backbone.module(*backbone.collate(backbone.tokenize(line)))
        suffix = backbone.cut(stage)[1]
        np.testing.assert_allclose(suffix(*given).numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)
    if stage != "features":
        assert given[1].sum(1).tolist() == [len(tokens) for tokens in backbone.tokenize(line)]
        assert not given[0][given[1] == 0].any()


@pytest.mark.golden
@pytest.mark.parametrize("runtime", ["auto", "torch"])
def test_fast_runtimes_give_the_same_bits_kept_or_computed(runtime: str, images: Dataset) -> None:
    backbone, stage = small_image_backbone("resnet")
    assert_same_bits(*both(images, backbone, stage, views=VIEWS, runtime=runtime))
    assert_same_bits(*both(images, backbone, "features", views=VIEWS, runtime=runtime))
    pytest.importorskip("transformers")
    assert_same_bits(*both(texts(), small_text_backbone(), TEXT_STAGE, runtime=runtime))


def tuned(rows: BoundaryRows, backbone: Backbone, stage: str) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Train everything after a stage, from its start, on a copy of the weights; return them and the losses."""
    prefix, suffix = backbone.cut(stage)
    before = {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}
    torch.manual_seed(0)
    head = nn.Linear(backbone.width, 2)
    network = Network({stage: prefix, "features": suffix}, {"main": head}, num_frozen=1, start=1)
    config = TrainingConfig(max_epochs=2, batch_size=4, precision="fp32", threads=1, learning_rate=1e-2)
    history = train(network, TASK, TrainingRows(rows, rows.dataset.targets), None, config)
    after = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    backbone.module.load_state_dict(before)
    return after, history.train_loss


def assert_trains_alike(kept: BoundaryRows, computed: BoundaryRows, backbone: Backbone, stage: str) -> None:
    (left, left_losses), (right, right_losses) = (tuned(rows, backbone, stage) for rows in (kept, computed))
    assert left_losses == right_losses
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name
    start = backbone.cut(stage)[1].state_dict()
    assert any(not torch.equal(left[f"segments.1.{name}"], tensor) for name, tensor in start.items())
    for name, tensor in backbone.cut(stage)[0].state_dict().items():
        assert torch.equal(left[f"segments.0.{name}"], tensor), name


@pytest.mark.golden
@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_training_from_kept_images_equals_training_from_computed_ones(family: str, images: Dataset) -> None:
    backbone, stage = small_image_backbone(family)
    assert_trains_alike(*both(images, backbone, stage, views=VIEWS, exact=True), backbone, stage)


@pytest.mark.golden
def test_training_from_kept_texts_equals_training_from_computed_ones() -> None:
    pytest.importorskip("transformers")
    backbone = small_text_backbone()
    assert_trains_alike(*both(texts(), backbone, TEXT_STAGE, exact=True), backbone, TEXT_STAGE)


@pytest.mark.golden
def test_what_trains_meanwhile_does_not_reach_the_prefix(images: Dataset) -> None:
    backbone, stage = small_image_backbone("resnet")
    kept, computed = both(images, backbone, stage, exact=True)
    backbone.module.train()  # whoever holds the network may do so
    with torch.no_grad():
        for parameter in backbone.module.parameters():
            parameter.mul_(1.5)
    assert_same_bits(kept, computed)


@pytest.mark.golden
def test_the_store_may_vanish_while_rows_are_read(
    images: Dataset, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_MOST_IN_MEMORY", 1000)
    backbone, stage = small_image_backbone("resnet")
    kept, computed = both(images, backbone, stage, views=VIEWS, exact=True, store=store)
    rows = np.arange(len(kept))
    before = kept.batch(rows)[0]
    store.clear()
    assert torch.equal(kept.batch(rows)[0], before)
    assert_same_bits(kept, computed)
    small = FeatureStore(store.folder, max_bytes=20_000)  # evicts while it is filled
    assert torch.equal(
        boundary_rows(images, backbone, stage, exact=True, cached=True, store=small).batch(rows)[0], before
    )


@pytest.mark.golden
def test_a_killed_extraction_goes_on_and_what_is_held_costs_nothing(images: Dataset, store: FeatureStore) -> None:
    class Interrupted(Progress):
        def _draw(self, stage: Any) -> None:
            if stage.done >= 20:
                raise KeyboardInterrupt

    backbone, stage = small_image_backbone("mobilenet")
    options: dict[str, Any] = {"views": VIEWS, "exact": True, "store": store, "cached": True}
    with pytest.raises(KeyboardInterrupt):
        boundary_rows(images, backbone, stage, progress=Interrupted(quiet=True), **options)
    again, third = Progress(quiet=True), Progress(quiet=True)
    kept = boundary_rows(images, backbone, stage, progress=again, **options)
    assert 8 <= again.costs[0].from_cache < 42
    rest = boundary_rows(images, backbone, stage, progress=third, **options)
    assert third.costs[0].from_cache == 42
    assert rest.plan.cpu_seconds_cached < kept.plan.cpu_seconds_cached
    assert_same_bits(rest, boundary_rows(images, backbone, stage, VIEWS, exact=True, cached=False))


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_full_disk_means_computing_and_one_line(
    kind: str, images: Dataset, monkeypatch: pytest.MonkeyPatch, store: FeatureStore
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if kind == "image":
        (backbone, stage), rows = small_image_backbone("resnet"), images
    else:
        pytest.importorskip("transformers")
        backbone, stage, rows = small_text_backbone(), TEXT_STAGE, texts()
    wanted = boundary_rows(rows, backbone, stage, cached=True, exact=True, store=False)
    monkeypatch.setattr(table, "_MOST_IN_MEMORY", 1000)
    monkeypatch.setattr(ragged, "MOST_IN_MEMORY", 1000)
    monkeypatch.setattr(*((os, "posix_fallocate") if kind == "image" else (tempfile, "TemporaryFile")), refuse)
    said = io.StringIO()
    got = boundary_rows(rows, backbone, stage, cached=True, exact=True, store=False, progress=Progress(said))
    assert not got.cached
    lines = [line for line in said.getvalue().splitlines() if "computed for each batch" in line]
    assert len(lines) == 1
    assert "No space left on device" in lines[0]
    assert_same_bits(wanted, got)


@pytest.mark.golden
def test_rows_that_cannot_be_read_are_named(images: Dataset, tmp_path: Path) -> None:
    (tmp_path / "photos" / "odd" / "03.png").write_bytes(b"no picture")
    backbone, stage = small_image_backbone("resnet")
    lost = images.ids.index("odd/03.png")
    kept, computed = both(images, backbone, stage, exact=True)
    assert [finding.rows for finding in kept.failures] == [("odd/03.png",)]
    others = np.array([row for row in range(len(images)) if row != lost])
    assert torch.equal(kept.batch(others)[0], computed.batch(others)[0])
    for rows in (kept, computed):
        with pytest.raises(DataError, match=r"odd/03\.png.*leave"):
            rows.batch(np.array([0, lost]))
    kept.close()
    with pytest.raises(ConfigError, match="were closed"):
        kept.batch(others)


@pytest.mark.golden
def test_the_arithmetic_decides_and_is_said(images: Dataset) -> None:
    backbone, stage = small_image_backbone("resnet")
    said = io.StringIO()
    rows = boundary_rows(images, backbone, stage, VIEWS, exact=True, max_bytes=1000, progress=Progress(said))
    assert not rows.cached
    assert rows.plan.reason in said.getvalue()
    assert "do not fit" in rows.plan.reason
    many = boundary_rows(images, backbone, stage, exact=True, epochs=100)
    assert many.cached
    few = boundary_rows(images, backbone, stage, VIEWS, exact=True, epochs=1)
    assert not few.cached


@pytest.mark.golden
def test_what_has_no_boundary_is_refused(images: Dataset) -> None:
    backbone, stage = small_image_backbone("resnet")
    with pytest.raises(ConfigError, match="nothing of small-resnet comes before 'input'"):
        boundary_rows(images, backbone, "input")
    with pytest.raises(ConfigError, match="nothing of vector"):
        boundary_rows(open_dataset(np.eye(3), unlabelled=True), vector_backbone(3), "features")
    with pytest.raises(DataError, match="reads image rows but the data set holds text rows"):
        boundary_rows(texts(), backbone, stage)
    with pytest.raises(ConfigError, match="one view or more"):
        boundary_rows(images, backbone, stage, ())
    with pytest.raises(DataError, match="there are no rows"):
        boundary_rows(images.subset([]), backbone, stage)
    with pytest.raises(ConfigError, match="only torch-fp32 is exact"):
        boundary_rows(images, backbone, stage, runtime="openvino", exact=True)
