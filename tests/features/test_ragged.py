"""Texts kept at a stage inside an encoder: one vector a token, no padding, any company, any interruption."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.backbones import Backbone
from headstart.core.digests import digest_bytes
from headstart.core.errors import ShapeError, StoreError
from headstart.data import open_dataset
from headstart.features import FeatureStore, Space, extract_features, ragged
from headstart.features.ragged import RaggedTable, as_ragged
from headstart.features.segments import read_segment, write_segment
from small_networks import small_text_backbone

PLAIN = "torch-fp32"
STAGE = "encoder.layer.1"


@pytest.fixture
def bert() -> Backbone:
    pytest.importorskip("transformers")
    return small_text_backbone()


def texts(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in random.integers(1, 50, length)) for length in random.integers(1, 60, count)]


def oracle(backbone: Backbone, line: str) -> np.ndarray:
    """One text alone, without padding."""
    with torch.no_grad():
        hidden, mask = backbone.cut(STAGE)[0](*backbone.collate(backbone.tokenize([line])))
    assert bool(mask.all())
    return hidden[0].numpy()


@pytest.mark.golden
@pytest.mark.parametrize("runtime", ["auto", "torch", PLAIN])
def test_every_token_of_every_text(bert: Backbone, store: FeatureStore, runtime: str, forbid_network: Any) -> None:
    lines = texts(60)
    rows = open_dataset(lines, unlabelled=True)
    found = extract_features(rows, bert, stage=STAGE, store=store, runtime=runtime)
    assert found.ragged is not None
    assert found.ragged.lengths_n.tolist() == [min(48, len(line.split())) for line in lines]
    assert found.values_nd is found.ragged.values_md
    assert len(found.values_nd) == found.ragged.lengths_n.sum()
    tolerance = 2e-5 if found.runtime.precision == "fp32" else 5e-2
    for at, line in enumerate(lines):
        np.testing.assert_allclose(found.ragged.row(at), oracle(bert, line), rtol=tolerance, atol=tolerance)
    again = extract_features(rows, forbid_network(bert), stage=STAGE, store=store, runtime=runtime)
    assert (again.computed, again.from_cache) == (0, 60)
    assert again.ragged is not None
    for at in range(60):
        np.testing.assert_array_equal(again.ragged.row(at), found.ragged.row(at))


def test_the_suffix_of_a_padded_batch_gives_the_features(bert: Backbone) -> None:
    lines = texts(20)
    rows = open_dataset(lines, unlabelled=True)
    found = extract_features(rows, bert, stage=STAGE, store=False, runtime=PLAIN).ragged
    assert found is not None
    hidden_btd, mask_bt = found.batch([3, 17, 0])
    assert hidden_btd.dtype == np.float32
    assert mask_bt.sum(1).tolist() == found.lengths_n[[3, 17, 0]].tolist()
    assert hidden_btd.shape == (3, mask_bt.sum(1).max(), 16)
    assert not hidden_btd[mask_bt == 0].any()
    wanted = extract_features(rows, bert, store=False, runtime=PLAIN).values_nd[[3, 17, 0]]
    with torch.no_grad():
        given = bert.cut(STAGE)[1](torch.from_numpy(hidden_btd), torch.from_numpy(mask_bt)).numpy()
    np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-5)


def test_exact_texts_have_the_same_bits_in_any_company(bert: Backbone) -> None:
    lines = texts(80)
    whole = extract_features(open_dataset(lines, unlabelled=True), bert, stage=STAGE, store=False, exact=True)
    assert whole.runtime.label == PLAIN
    for part in ([3], [79, 5, 40], list(range(30, 61))):
        rows = open_dataset([lines[at] for at in part], unlabelled=True)
        alone = extract_features(rows, bert, stage=STAGE, store=False, exact=True)
        assert whole.ragged is not None
        assert alone.ragged is not None
        for at, row in enumerate(part):
            np.testing.assert_array_equal(alone.ragged.row(at), whole.ragged.row(row))


def test_equal_texts_are_kept_once_and_those_that_are_not_numbers_left_out(
    bert: Backbone, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["w1 w2 w3", "w4", "w1 w2 w3", "w5 w6"]
    rows = open_dataset(lines, unlabelled=True)
    honest = ragged.finite_rows
    monkeypatch.setattr(
        "headstart.features.extract.finite_rows", lambda values: honest(values) & [len(row) > 1 for row in values]
    )
    found = extract_features(rows, bert, stage=STAGE, store=store, runtime=PLAIN)
    assert found.kept.tolist() == [0, 2, 3]
    assert [finding.kind for finding in found.failures] == ["non-finite"]
    assert found.ragged is not None
    assert found.ragged.lengths_n.tolist() == [3, 3, 2]
    assert found.ragged.starts_n[0] == found.ragged.starts_n[1]
    np.testing.assert_array_equal(found.ragged.row(0), found.ragged.row(1))


def test_many_texts_are_mapped_from_a_file_without_a_name(
    bert: Backbone, monkeypatch: pytest.MonkeyPatch, cache: Path, store: FeatureStore
) -> None:
    rows = open_dataset(texts(50), unlabelled=True)
    plain = extract_features(rows, bert, stage=STAGE, store=store, exact=True).ragged
    monkeypatch.setattr(ragged, "MOST_IN_MEMORY", 3000)
    mapped = extract_features(rows, bert, stage=STAGE, store=store, exact=True).ragged
    assert mapped is not None
    assert plain is not None
    assert isinstance(mapped.values_md, np.memmap)
    assert not list((cache / "rows").iterdir())
    store.clear()
    for at in range(50):
        np.testing.assert_array_equal(mapped.row(at), plain.row(at))


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ragged, "MOST_IN_MEMORY", 10)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(StoreError, match=r"need 0.0 GB in .*No space left"):
        RaggedTable(1, np.float32, tmp_path).set([0], 0, as_ragged([np.ones((4, 3))]))


SPACE = Space("weights", "stage", "transform", "centre", PLAIN, "float16")


def some_rows(lengths: list[int], seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return as_ragged([random.random((length, 3)).astype(np.float16) for length in lengths])


def test_the_store_keeps_rows_of_unequal_length(store: FeatureStore) -> None:
    keys = [digest_bytes(bytes([at])) for at in range(40)]
    values = some_rows([1 + at % 5 for at in range(40)])
    for at in range(40):
        store.put(SPACE, keys[at : at + 1], values[at : at + 1])  # so many small files that they are merged
    assert len(list((store.folder / SPACE.digest()).glob("*.safetensors"))) < 40
    found_n, got = store.get(SPACE, [keys[7], "f" * 64, keys[39], keys[0]])
    assert found_n.tolist() == [True, False, True, True]
    for mine, wanted in zip(got, (7, 39, 0), strict=True):
        np.testing.assert_array_equal(mine, values[wanted])
    assert store.holds(SPACE, [keys[7], "f" * 64]).tolist() == [True, False]
    assert store.list()[0].rows == 40
    with pytest.raises(ShapeError, match="2 keys for 1 rows"):
        store.put(SPACE, keys[:2], values[:1])


def test_a_damaged_segment_is_refused(tmp_path: Path) -> None:
    keys_nb = np.zeros((2, 32), np.uint8)
    path = tmp_path / "a.safetensors"
    write_segment(path, keys_nb, some_rows([2, 3]))
    assert read_segment(path).read(np.array([1]))[0].shape == (3, 3)
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    content[8 + length + 30] += 1  # the first length
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="do not add up"):
        read_segment(path)
    path.write_bytes(bytes(content[:-1]))
    with pytest.raises(ValueError, match="not a whole segment"):
        read_segment(path)
