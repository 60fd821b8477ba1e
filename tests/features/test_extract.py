"""Extraction end to end: every row once, whatever is cached, damaged, doubled, full or interrupted."""

from __future__ import annotations

import errno
import io
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.backbones import Backbone, vector_backbone
from headstart.core.errors import BackboneError, ConfigError, DataError, ShapeError, StoreError
from headstart.core.preprocessing import View
from headstart.core.progress import Progress
from headstart.data import decode_image, open_dataset
from headstart.features import FeatureStore, extract_features, table, writer
from headstart.features.batches import padded_length
from headstart.features.table import RowTable

PLAIN = "torch-fp32"
FLIP = View(flip=True)


def oracle(dataset: Any, backbone: Backbone, view: View | None = None) -> np.ndarray:
    """Decode, normalise and run one row after another, in float64 where it matters."""
    rows = []
    for at in range(len(dataset)):
        pixels = decode_image(dataset.read(at), backbone.transform, view).astype(np.float64)
        scaled = ((pixels / 255 - backbone.transform.mean) / backbone.transform.std).transpose(2, 0, 1)
        with torch.no_grad():
            rows.append(backbone.module(torch.from_numpy(scaled[None]).float())[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("runtime", ["auto", "torch", PLAIN])
def test_equals_one_row_after_another(
    image_folder: Path, backbone: Backbone, store: FeatureStore, runtime: str
) -> None:
    rows = open_dataset(image_folder)
    features = extract_features(rows, backbone, store=store, runtime=runtime)
    tolerance = 1e-5 if features.runtime.precision == "fp32" else 5e-2
    np.testing.assert_allclose(features.values_nd, oracle(rows, backbone), rtol=tolerance, atol=tolerance)
    assert features.values_nd.dtype == np.float32
    assert features.kept.tolist() == list(range(24))
    assert (features.from_cache, features.computed, features.failures, features.notes) == (0, 24, (), ())
    assert features.cpu_seconds > 0
    assert features.wall_seconds > 0


@pytest.mark.parametrize("runtime", ["auto", "torch-bf16", PLAIN])
def test_a_second_run_is_the_same_bits_without_the_network(
    image_folder: Path, backbone: Backbone, store: FeatureStore, runtime: str, forbid_network: Any
) -> None:
    rows = open_dataset(image_folder)
    first = extract_features(rows, backbone, store=store, runtime=runtime)
    second = extract_features(open_dataset(image_folder), forbid_network(backbone), store=store, runtime=runtime)
    np.testing.assert_array_equal(second.values_nd, first.values_nd)
    assert (second.from_cache, second.computed) == (24, 0)
    assert second.runtime == first.runtime
    nothing = extract_features(rows, backbone, store=False, runtime=runtime)
    np.testing.assert_array_equal(nothing.values_nd, first.values_nd)
    assert nothing.computed == 24


def test_rows_added_cost_only_themselves_and_data_sets_share_rows(
    image_folder: Path, backbone: Backbone, store: FeatureStore, make_images: Any, tmp_path: Path
) -> None:
    extract_features(open_dataset(image_folder), backbone, store=store, runtime=PLAIN)
    make_images(image_folder / "new", 5, seed=9)
    grown = open_dataset(image_folder, unlabelled=True)
    features = extract_features(grown, backbone, store=store, runtime=PLAIN)
    assert (features.from_cache, features.computed) == (24, 5)
    np.testing.assert_allclose(features.values_nd, oracle(grown, backbone), rtol=1e-5, atol=1e-5)
    copies = make_images(tmp_path / "elsewhere", 24)
    assert extract_features(open_dataset(copies), backbone, store=store, runtime=PLAIN).computed == 0


def test_equal_rows_are_computed_once(image_folder: Path, backbone: Backbone, store: FeatureStore) -> None:
    content = (image_folder / "even" / "0000.png").read_bytes()
    for name in ("a", "b", "z"):
        (image_folder / "odd" / f"{name}.png").write_bytes(content)
    rows = open_dataset(image_folder)
    features = extract_features(rows, backbone, store=store, runtime=PLAIN)
    assert (features.from_cache, features.computed, len(features.kept)) == (3, 24, 27)
    np.testing.assert_allclose(features.values_nd, oracle(rows, backbone), rtol=1e-5, atol=1e-5)


def test_views_are_cached_apart(image_folder: Path, backbone: Backbone, store: FeatureStore) -> None:
    rows = open_dataset(image_folder)
    corner = View(crop_x=0, zoom=1.5)
    assert extract_features(rows, backbone, views=[FLIP], store=store, runtime=PLAIN).values_nd.shape == (24, 12)
    both = extract_features(rows, backbone, views=(View(), FLIP, corner), store=store, runtime=PLAIN)
    assert (both.values_nd.shape, both.from_cache, both.computed) == ((24, 3, 12), 24, 48)
    for at, view in enumerate((View(), FLIP, corner)):
        np.testing.assert_allclose(both.values_nd[:, at], oracle(rows, backbone, view), rtol=1e-5, atol=1e-5)
    assert not np.allclose(both.values_nd[:, 0], both.values_nd[:, 1])


def damaged(folder: Path) -> list[str]:
    """Put five unreadable files among the good ones; return their ids."""
    good = (folder / "even" / "0000.png").read_bytes()
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(stream, "JPEG")
    files = {
        "a_cut.png": good[: len(good) // 2],
        "empty.png": b"",
        "text.jpg": b"not an image at all",
        "zz_cut.jpg": stream.getvalue()[:900],
    }
    for name, content in files.items():
        (folder / "even" / name).write_bytes(content)
    (folder / "odd" / "again.png").write_bytes(files["a_cut.png"])
    return [*(f"even/{name}" for name in files), "odd/again.png"]


@pytest.mark.parametrize("runtime", ["auto", PLAIN])
def test_unreadable_rows_are_left_out_and_named(
    image_folder: Path, backbone: Backbone, store: FeatureStore, runtime: str, forbid_network: Any
) -> None:
    bad = damaged(image_folder)
    rows = open_dataset(image_folder)
    for at, used in enumerate((backbone, forbid_network(backbone))):
        features = extract_features(rows, used, store=store, runtime=runtime)
        found = {finding.rows[0]: finding for finding in features.failures}
        named = {finding.rows[0] for finding in (*features.failures, *rows.quarantine)}
        assert named == set(bad)
        assert all(finding.severity == "error" and finding.message for finding in found.values())
        assert features.computed == (0 if at else 24)
        assert [rows.ids[row] for row in features.kept] == [name for name in rows.ids if name not in found]
        kept = rows.subset(features.kept)
        np.testing.assert_allclose(features.values_nd, oracle(kept, backbone), rtol=5e-2, atol=5e-2)


def test_nothing_readable_is_one_clear_error(tmp_path: Path, backbone: Backbone, store: FeatureStore) -> None:
    for name in ("a", "b"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + name.encode() * 50)
    rows = open_dataset(tmp_path / "bad")
    for runtime in ("auto", PLAIN):
        with pytest.raises(DataError, match=r"none of the 2 rows of .* can be read; for instance a/x.png: "):
            extract_features(rows, backbone, store=store, runtime=runtime)


def test_no_rows_give_no_features(image_folder: Path, backbone: Backbone) -> None:
    features = extract_features(open_dataset(image_folder).subset([]), backbone)
    assert features.values_nd.shape == (0, 12)


def test_a_file_that_changes_meanwhile_is_stored_under_what_it_became(
    image_folder: Path, backbone: Backbone, store: FeatureStore
) -> None:
    rows = open_dataset(image_folder)
    rows.digests()
    path = image_folder / "even" / "0000.png"
    before = path.read_bytes()
    path.write_bytes((image_folder / "odd" / "0001.png").read_bytes())
    extract_features(rows, backbone, store=store, runtime=PLAIN)
    path.write_bytes(before)
    fresh = open_dataset([str(path)], unlabelled=True)
    features = extract_features(fresh, backbone, store=store, runtime=PLAIN)
    np.testing.assert_allclose(features.values_nd, oracle(fresh, backbone), rtol=1e-5, atol=1e-5)


def test_a_stage_inside_the_network(
    image_folder: Path, backbone: Backbone, store: FeatureStore, forbid_network: Any
) -> None:
    rows = open_dataset(image_folder)
    stage = next(item for item in backbone.stages if item.name == "first")
    suffix = backbone.cut(stage)[1]
    inside = extract_features(rows, backbone, stage=stage, store=store, runtime=PLAIN)
    assert inside.values_nd.shape == (24, *stage.shape)
    with torch.no_grad():
        ends = suffix(torch.from_numpy(np.array(inside.values_nd))).numpy()
    np.testing.assert_allclose(ends, oracle(rows, backbone), rtol=1e-5, atol=1e-5)
    again = extract_features(rows, forbid_network(backbone), stage="first", store=store, runtime=PLAIN)
    np.testing.assert_array_equal(again.values_nd, inside.values_nd)
    by_number = extract_features(rows, backbone, stage=stage.index, store=store, runtime=PLAIN)
    assert by_number.computed == 0


def test_large_rows_are_mapped_from_disk_and_leave_no_file(
    image_folder: Path, backbone: Backbone, store: FeatureStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_MOST_IN_MEMORY", 1000)
    damaged(image_folder)
    rows = open_dataset(image_folder)
    mapped = extract_features(rows, backbone, stage="first", store=store, runtime=PLAIN)
    base = mapped.values_nd
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not list((cache / "rows").iterdir())
    monkeypatch.undo()
    os.environ["HEADSTART_CACHE"] = str(cache)
    plain = extract_features(rows, backbone, stage="first", store=store, runtime=PLAIN)
    np.testing.assert_array_equal(mapped.values_nd, plain.values_nd)


def test_rows_that_do_not_fit_on_the_disk_are_refused_before_any_work(
    image_folder: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(table, "_MOST_IN_MEMORY", 1000)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(StoreError, match=r"need 0.0 GB in .*No space left"):
        extract_features(open_dataset(image_folder), backbone, stage="first", store=False, runtime=PLAIN)


def test_the_table_moves_rows_in_place() -> None:
    rows = RowTable(3000, 1, np.float32)
    values = np.arange(6000, dtype=np.float32).reshape(3000, 2)
    owners = np.arange(3000)
    owners[2500] = 7
    owners[2999] = 2500 - 1
    rows.set(np.flatnonzero(owners == np.arange(3000)), 0, values[owners == np.arange(3000)])
    kept = np.flatnonzero(np.arange(3000) % 3 != 1)
    np.testing.assert_array_equal(rows.finish(owners, kept), values[owners[kept]])


def test_a_disk_that_is_full_ends_the_caching_not_the_work(
    image_folder: Path, backbone: Backbone, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_FLUSH_BYTES", 1)
    calls = []

    def refuse(handle: int) -> None:
        calls.append(handle)
        raise OSError(errno.ENOSPC, "No space left on device")

    rows = open_dataset(image_folder)
    said = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        features = extract_features(rows, backbone, store=store, runtime=PLAIN, batch_size=4, progress=Progress(said))
    assert len(calls) == 1  # asked once, then left alone
    np.testing.assert_allclose(features.values_nd, oracle(rows, backbone), rtol=1e-5, atol=1e-5)
    assert "going on without the cache" in features.notes[0]
    assert "No space left on device" in features.notes[0]
    assert features.notes[0] in said.getvalue()
    assert extract_features(rows, backbone, store=store, runtime=PLAIN).computed == 24


def test_a_really_full_disk(
    image_folder: Path, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a file system cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        monkeypatch.setenv("HEADSTART_CACHE", str(disk / "cache"))  # store, remembered choices and compiled networks
        (disk / "filler").write_bytes(bytes(48_000))
        rows = open_dataset(image_folder)
        first = extract_features(rows, backbone, stage="first")
        wanted = extract_features(rows, backbone, stage="first", store=False)
        np.testing.assert_array_equal(first.values_nd, wanted.values_nd)
        assert "No space left on device" in first.notes[0]
        assert not list(disk.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_interrupted_run_keeps_what_it_computed(
    image_folder: Path, backbone: Backbone, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Progress):
        def _draw(self, stage: Any) -> None:
            if stage.done >= 12:
                raise KeyboardInterrupt

    rows = open_dataset(image_folder)
    with pytest.raises(KeyboardInterrupt):
        extract_features(rows, backbone, store=store, runtime=PLAIN, batch_size=4, progress=Interrupted(quiet=True))
    again = extract_features(rows, backbone, store=store, runtime=PLAIN, batch_size=4)
    assert (again.from_cache, again.computed) == (12, 12)
    np.testing.assert_allclose(again.values_nd, oracle(rows, backbone), rtol=1e-5, atol=1e-5)


def test_a_row_whose_features_are_not_numbers_is_left_out(
    image_folder: Path, backbone: Backbone, store: FeatureStore
) -> None:
    rows = open_dataset(image_folder)
    wanted = oracle(rows, backbone)
    limit = float(np.sort(wanted[:, 0])[-3:].min()) - 1e-4

    class Exploding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = backbone.module

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            values = self.inner(pixels)
            return torch.where(values[:, :1] > limit, torch.inf, values)

    exploding = Backbone(backbone.architecture, Exploding(), backbone.transform, name="exploding", width=12)
    features = extract_features(rows, exploding, store=store, runtime=PLAIN)
    assert [finding.kind for finding in features.failures] == ["non-finite"] * 3
    assert (len(features.kept), features.computed, features.from_cache) == (21, 21, 0)
    np.testing.assert_allclose(features.values_nd, wanted[features.kept], rtol=1e-5, atol=1e-5)
    assert len(extract_features(rows, exploding, store=store, runtime=PLAIN).failures) == 3


def test_progress_counts_rows_and_the_cache(image_folder: Path, backbone: Backbone, store: FeatureStore) -> None:
    damaged(image_folder)
    rows = open_dataset(image_folder)
    account = Progress(quiet=True)
    for _ in range(2):
        extract_features(rows, backbone, store=store, runtime=PLAIN, progress=account)
    assert [cost.name for cost in account.costs] == ["embed", "embed"]
    assert [cost.rows for cost in account.costs] == [len(rows)] * 2
    assert account.costs[0].from_cache <= 1  # the copy of the damaged file
    assert account.costs[1].from_cache >= 24


def texts(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in random.integers(1, 50, length)) for length in random.integers(1, 90, count)]


@pytest.mark.parametrize("runtime", ["auto", "torch", PLAIN])
def test_texts_of_any_length(text_backbone: Backbone, store: FeatureStore, runtime: str, forbid_network: Any) -> None:
    lines = texts(150)
    rows = open_dataset(lines, unlabelled=True)
    features = extract_features(rows, text_backbone, store=store, runtime=runtime)
    with torch.no_grad():
        wanted = torch.cat(
            [text_backbone.module(*text_backbone.collate(text_backbone.tokenize([line]))) for line in lines]
        )
    tolerance = 1e-5 if features.runtime.precision == "fp32" else 2e-2
    np.testing.assert_allclose(features.values_nd, wanted.numpy(), rtol=tolerance, atol=tolerance)
    again = extract_features(rows, forbid_network(text_backbone), store=store, runtime=runtime)
    np.testing.assert_array_equal(again.values_nd, features.values_nd)


def test_a_text_has_the_same_bits_in_any_company(text_backbone: Backbone) -> None:
    lines = texts(100)
    for runtime in ("auto", PLAIN):
        whole = extract_features(open_dataset(lines, unlabelled=True), text_backbone, store=False, runtime=runtime)
        for part in ([3], [99, 5, 40], list(range(50, 80))):
            rows = open_dataset([lines[at] for at in part], unlabelled=True)
            alone = extract_features(rows, text_backbone, store=False, runtime=runtime)
            np.testing.assert_array_equal(alone.values_nd, whole.values_nd[part])


def test_texts_stream_in_chunks(text_backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = open_dataset(texts(300), unlabelled=True)
    whole = extract_features(rows, text_backbone, store=False, runtime=PLAIN)
    monkeypatch.setattr("headstart.features.batches._TEXTS_AHEAD", 17)
    chunked = extract_features(rows, text_backbone, store=False, runtime=PLAIN)
    np.testing.assert_array_equal(chunked.values_nd, whole.values_nd)


def test_lengths_round_up_and_never_beyond_the_limit() -> None:
    lengths = [padded_length(tokens, 500) for tokens in range(1, 501)]
    assert all(length >= tokens for tokens, length in enumerate(lengths, 1))
    assert lengths == sorted(lengths)
    assert max(lengths) == 500
    assert all(length <= max(4, 1.5 * tokens + 3) for tokens, length in enumerate(lengths, 1))


def test_vectors_are_features_already() -> None:
    matrix = np.random.default_rng(0).random((6, 3), dtype=np.float32)
    matrix[2, 1] = np.nan
    rows = open_dataset(matrix, unlabelled=True)
    features = extract_features(rows, vector_backbone(3))
    assert features.runtime.label == "none"
    assert features.choice is None
    np.testing.assert_array_equal(features.values_nd, rows.matrix()[features.kept])
    assert np.isfinite(features.values_nd).all()
    with pytest.raises(ShapeError, match="reads 4 numbers a row but the rows hold 3"):
        extract_features(rows, vector_backbone(4))


def test_what_cannot_be_done_is_refused(image_folder: Path, backbone: Backbone, text_backbone: Backbone) -> None:
    rows = open_dataset(image_folder)
    with pytest.raises(DataError, match="tiny-text reads text rows but the data set holds image rows"):
        extract_features(rows, text_backbone)
    with pytest.raises(ConfigError, match="at least one view"):
        extract_features(rows, backbone, views=())
    with pytest.raises(ConfigError, match="flips and crops are for images"):
        extract_features(open_dataset(["w1"], unlabelled=True), text_backbone, views=[FLIP])
    with pytest.raises(ConfigError, match="token numbers are no activations"):
        extract_features(open_dataset(["w1"], unlabelled=True), text_backbone, stage="input")
    with pytest.raises(ConfigError, match="there is no stage inside vector,"):
        extract_features(open_dataset(np.eye(3), unlabelled=True), vector_backbone(3), stage="vectors")
    with pytest.raises(ConfigError, match="only torch-fp32 is exact; got runtime='openvino'"):
        extract_features(rows, backbone, runtime="openvino", exact=True)
    for name in ("batch_size", "threads"):
        with pytest.raises(ConfigError, match=f"{name} is at least 1; got 0"):
            extract_features(rows, backbone, **{name: 0})
    with pytest.raises(BackboneError, match="Did you mean 'first'"):
        extract_features(rows, backbone, stage="frist", runtime=PLAIN, store=False)


@pytest.mark.parametrize("option", [{"batch_size": 3}, {"threads": 1}, {"threads": 3}])
def test_batch_size_and_threads_change_no_feature(image_folder: Path, backbone: Backbone, option: Any) -> None:
    rows = open_dataset(image_folder)
    plain = extract_features(rows, backbone, store=False, runtime=PLAIN)
    other = extract_features(rows, backbone, store=False, runtime=PLAIN, **option)
    np.testing.assert_allclose(other.values_nd, plain.values_nd, rtol=1e-5, atol=1e-5)


def test_decoding_stays_a_few_batches_ahead(
    image_folder: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.features.batches import Job, image_batches

    rows = open_dataset(image_folder)
    read: list[int] = []
    honest = rows.read
    rows.read = lambda at: (read.append(at), honest(at))[1]  # type: ignore[method-assign]
    batches = image_batches(
        rows,
        backbone.transform,
        [Job(at, 0) for at in range(24)],
        [View()],
        batch_rows=2,
        threads=1,
        on_failure=lambda *_: None,
    )
    next(batches)
    assert len(read) <= 16
    batches.close()
