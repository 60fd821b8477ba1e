"""The store: what goes in comes out, whatever other processes, full disks and small limits do meanwhile."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from headstart.core.digests import digest_bytes
from headstart.core.errors import ShapeError, StoreError
from headstart.features import FeatureStore, Space, segments
from headstart.features import store as store_module
from headstart.features.segments import read_segment

SPACE = Space("weights", "features", "transform", "centre", "torch-fp32", "float32", "tiny")


def keys(*names: object) -> list[str]:
    return [digest_bytes(str(name).encode()) for name in names]


def row(name: object, width: int = 3) -> np.ndarray:
    return np.random.default_rng(int(keys(name)[0][:8], 16)).random(width, dtype=np.float32)


def fill(store: FeatureStore, names: range | list[int], space: Space = SPACE) -> None:
    store.put(space, keys(*names), np.stack([row(name) for name in names]))


def test_returns_what_was_put_in_the_order_asked(store: FeatureStore) -> None:
    fill(store, range(10))
    fill(store, range(10, 15))
    found, values = store.get(SPACE, keys(12, "absent", 3))
    assert found.tolist() == [True, False, True]
    np.testing.assert_array_equal(values, [row(12), row(3)])


def test_an_unknown_space_and_no_keys_find_nothing(store: FeatureStore) -> None:
    assert store.get(SPACE, keys(1, 2))[0].tolist() == [False, False]
    assert store.get(SPACE, [])[0].shape == (0,)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True), min_size=1, max_size=6))
def test_behaves_as_a_dictionary(tmp_path_factory: pytest.TempPathFactory, puts: list[list[int]]) -> None:
    store = FeatureStore(tmp_path_factory.mktemp("store"))
    for names in puts:
        fill(store, names)
    stored = {name for names in puts for name in names}
    found, values = store.get(SPACE, keys(*range(31)))
    assert found.tolist() == [name in stored for name in range(31)]
    np.testing.assert_array_equal(values, [row(name) for name in sorted(stored)])


def test_spaces_never_mix(store: FeatureStore) -> None:
    fill(store, [1])
    fields = {
        "weights_digest": "w2",
        "stage": "s",
        "transform_digest": "t",
        "view": "flip",
        "runtime": "r",
        "dtype": "float16",
    }
    for name, value in fields.items():
        other = Space(**{**SPACE.__dict__, name: value})
        assert other.digest() != SPACE.digest()
        assert not store.get(other, keys(1))[0].any()


def test_the_name_of_the_base_model_is_no_part_of_the_key() -> None:
    assert Space(**{**SPACE.__dict__, "backbone": "renamed"}).digest() == SPACE.digest()


def test_keeps_the_number_type_and_shape_of_a_row(store: FeatureStore) -> None:
    space = Space(**{**SPACE.__dict__, "dtype": "float16", "stage": "layer3"})
    store.put(space, keys(1, 2), np.arange(24, dtype=np.float64).reshape(2, 3, 4))
    _, values = store.get(space, keys(2))
    assert values.dtype == np.float16
    np.testing.assert_array_equal(values, np.arange(12, 24).reshape(1, 3, 4))


def test_a_segment_is_an_ordinary_safetensors_file(store: FeatureStore) -> None:
    fill(store, range(4))
    (path,) = (store.folder / SPACE.digest()).glob("*.safetensors")
    tensors = load_file(path)
    assert [bytes(item).hex() for item in tensors["keys"]] == keys(*range(4))
    np.testing.assert_array_equal(tensors["values"], [row(name) for name in range(4)])


def test_two_stores_on_one_folder_see_each_other(store: FeatureStore) -> None:
    other = FeatureStore(store.folder)
    assert not other.get(SPACE, keys(1))[0].any()
    fill(store, [1])
    assert other.get(SPACE, keys(1))[0].all()


def test_as_many_keys_as_values(store: FeatureStore) -> None:
    with pytest.raises(ShapeError, match="2 keys for 1 rows"):
        store.put(SPACE, keys(1, 2), np.zeros((1, 3), np.float32))


def test_lists_sizes_and_clears(store: FeatureStore) -> None:
    other = Space(**{**SPACE.__dict__, "view": "flip"})
    fill(store, range(5))
    fill(store, [1, 2, 77])  # two of them known already
    fill(store, range(3), other)
    listings = {listing.space: listing for listing in store.list()}
    assert listings[SPACE].rows == 6
    assert listings[other].rows == 3
    assert "tiny  features  centre  torch-fp32  6 rows" in str(listings[SPACE])
    assert store.size() >= listings[SPACE].bytes + listings[other].bytes > 0
    store.clear(other)
    assert [listing.space for listing in store.list()] == [SPACE]
    assert store.get(SPACE, keys(1))[0].all()
    store.clear()
    assert store.list() == []
    assert store.size() == 0
    assert not store.get(SPACE, keys(1))[0].any()
    fill(store, [1])
    assert store.get(SPACE, keys(1))[0].all()


def test_the_least_recently_used_segment_goes_first(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_TOUCH_SECONDS", 0)
    spaces = [Space(**{**SPACE.__dict__, "view": f"view-{at}"}) for at in range(3)]
    for at, space in enumerate(spaces[:2]):
        fill(store, range(200), space)
        (path,) = (store.folder / space.digest()).glob("*.safetensors")
        os.utime(path, (1000 + at, 1000 + at))
    assert store.get(spaces[0], keys(5))[0].all()  # now the older one has been used last
    store.max_bytes = store.size() + 1500  # room for less than one more
    fill(store, range(200), spaces[2])
    assert [store.get(space, keys(5))[0].all() for space in spaces] == [True, False, True]
    assert store.size() <= store.max_bytes


def test_many_small_segments_become_one(store: FeatureStore) -> None:
    for name in range(80):
        fill(store, [name, name // 2])
    folder = store.folder / SPACE.digest()
    assert len(list(folder.glob("*.safetensors"))) <= store_module._MOST_SMALL + 1
    found, values = store.get(SPACE, keys(*range(80)))
    assert found.all()
    np.testing.assert_array_equal(values, [row(name) for name in range(80)])


def test_a_reader_survives_the_merging_of_what_it_listed(store: FeatureStore) -> None:
    for name in range(10):
        fill(store, [name])
    reader = FeatureStore(store.folder)
    assert reader.get(SPACE, keys(*range(10)))[0].all()
    folder = store.folder / SPACE.digest()
    listed = reader._index(SPACE)
    store_module._merge(list(folder.glob("*.safetensors")))
    reader._index = lambda space, first=[listed]: first.pop() if first else FeatureStore._index(reader, space)  # type: ignore[method-assign, misc]
    found, values = reader.get(SPACE, keys(*range(10)))
    assert found.all()
    np.testing.assert_array_equal(values, [row(name) for name in range(10)])


@pytest.mark.parametrize("damage", ["cut", "longer", "garbage", "empty", "header"])
def test_a_damaged_segment_is_removed_and_its_rows_are_missing(store: FeatureStore, damage: str) -> None:
    fill(store, range(5))
    (path,) = (store.folder / SPACE.digest()).glob("*.safetensors")
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-1],
            "longer": content + b"x",
            "garbage": b"\xff" * len(content),
            "empty": b"",
            "header": content[:8] + content[8:].replace(b"values", b"valued", 1),
        }[damage]
    )
    fresh = FeatureStore(store.folder)
    assert not fresh.get(SPACE, keys(1))[0].any()
    assert not path.exists()
    fill(fresh, range(5))
    assert fresh.get(SPACE, keys(1))[0].all()


def test_a_half_written_file_is_never_read_and_is_swept_later(store: FeatureStore) -> None:
    fill(store, [1])
    left = store.folder / SPACE.digest() / ".0001.safetensors.abc.headstart.tmp"
    left.mkdir()
    (left / "content.tmp").write_bytes(b"half")
    assert store.get(SPACE, keys(1, 2))[0].tolist() == [True, False]
    for path in (left / "content.tmp", left):
        os.utime(path, (1, 1))
    fill(store, [2])
    assert not left.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_refuses_is_one_error_and_leaves_nothing(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fill(store, [1])
    before = sorted(store.folder.rglob("*"))

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match=r"cannot write to .*; free some space, or set HEADSTART_CACHE"):
        fill(store, [2])
    assert sorted(store.folder.rglob("*")) == before
    assert store.get(SPACE, keys(1, 2))[0].tolist() == [True, False]


def test_a_really_full_disk(tmp_path: Path) -> None:
    """On a file system of 300 kB, so that writing fails in the middle."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a file system cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        store = FeatureStore(disk / "store")
        fill(store, [1])
        with pytest.raises(StoreError, match="No space left on device"):
            store.put(SPACE, keys(*range(100, 200)), np.zeros((100, 2000), np.float32))
        assert store.get(SPACE, keys(1, 100))[0].tolist() == [True, False]
        fill(store, [2])  # what fits is still taken
        assert store.get(SPACE, keys(1, 2))[0].all()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_damage_is_told_from_absence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_segment(tmp_path / "absent.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match="not a segment"):
        read_segment(tmp_path / "bad.safetensors")


def test_a_segment_is_flushed_to_disk_before_it_takes_its_name(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("replace"), replace(*names))[1])
    segments.write_segment(store.folder / "x.safetensors", segments.pack_keys(keys(1)), np.zeros((1, 2), np.float32))
    assert order == ["fsync", "replace"]


def _work(folder: Path, worker: int, max_bytes: float) -> None:
    """Put and get at random, checking every value that is found."""
    store = FeatureStore(folder, max_bytes=max_bytes)
    random = np.random.default_rng(worker)
    for _ in range(60):
        fill(store, random.choice(400, 5, replace=False).tolist())
        asked = random.choice(400, 40, replace=False).tolist()
        found, values = store.get(SPACE, keys(*asked))
        wanted = [row(name) for name, known in zip(asked, found, strict=True) if known]
        if wanted:
            np.testing.assert_array_equal(values, wanted)


@pytest.mark.golden
@pytest.mark.parametrize("max_bytes", [20e9, 20_000])
def test_processes_write_merge_and_evict_at_once(
    store: FeatureStore, max_bytes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))  # where a spawned process finds this module
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(store.folder, worker, max_bytes)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    found, values = store.get(SPACE, keys(*range(400)))
    np.testing.assert_array_equal(values, [row(name) for name, known in zip(range(400), found, strict=True) if known])
    assert found.sum() > 300 if max_bytes > 1e9 else store.size() <= max_bytes + 8000
    assert not list(store.folder.rglob("*.tmp"))
