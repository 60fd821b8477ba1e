"""The check: every kind of finding, what is dropped, and that a second run costs nothing."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import ShapeError, UnreadableRow
from headstart.core.places import cache_folder
from headstart.core.progress import Progress
from headstart.data import DataCheck, check_dataset, fingerprints, memo, open_dataset, rows
from headstart.data.findings import Finding

SETTLED = memo._settled


def noise(seed: int, side: int = 64) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture(autouse=True)
def fresh_memo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memo, "_settled", lambda stamp, now: True)


@pytest.fixture
def bad_folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for part, name, seed in [
        ("train", "cat", 1), ("train", "cat", 2), ("train", "dog", 3), ("train", "dog", 4), ("test", "cat", 5),
        ("test", "dog", 6), ("test", "owl", 7),
    ]:  # fmt: skip
        (root / part / name).mkdir(parents=True, exist_ok=True)
        noise(seed).save(root / part / name / f"{seed}.png")
    shutil.copy(root / "train" / "cat" / "1.png", root / "train" / "dog" / "copy of 1.png")
    noise(2).save(root / "test" / "cat" / "near 2.jpg", quality=90)
    whole = io.BytesIO()
    noise(8).save(whole, "JPEG")
    (root / "train" / "cat" / "cut.jpg").write_bytes(whole.getvalue()[:-200])
    (root / "train" / "cat" / "empty.jpg").write_bytes(b"")
    (root / "train" / "dog" / "text.jpg").write_text("no picture")
    return root


def findings(check: DataCheck) -> dict[str, tuple[str, ...]]:
    return {finding.kind: finding.rows for finding in check.findings}


def test_everything_wrong_is_found(bad_folder: Path) -> None:
    dataset = open_dataset(bad_folder)
    check = check_dataset(dataset)
    found = findings(check)
    assert found["truncated"] == ("train/cat/cut.jpg",)
    assert found["empty-file"] == ("train/cat/empty.jpg",)
    assert found["not-an-image"] == ("train/dog/text.jpg",)
    assert found["conflicting-labels"] == found["exact-duplicates"] == ("train/cat/1.png", "train/dog/copy of 1.png")
    assert found["near-duplicates"] == ("test/cat/near 2.jpg", "train/cat/2.png")
    assert found["split-leak"] == ("train/cat/2.png",) == tuple(dataset.ids[i] for i in check.leaking_rows)
    assert check.classes == {"cat": 4, "dog": 4, "owl": 1}
    messages = " ".join(finding.message for finding in check.findings)
    assert "classes with a single row, which cannot be both learnt and tested: 'owl'" in messages
    assert "classes without a training row in the given split: 'owl'" in messages
    assert [finding.severity for finding in check.findings] == sorted(
        (finding.severity for finding in check.findings), key=["error", "warning", "note"].index
    )
    pair = check.duplicate_group[[dataset.ids.index("test/cat/near 2.jpg"), dataset.ids.index("train/cat/2.png")]]
    assert pair[0] == pair[1] and len(np.unique(check.duplicate_group)) == len(dataset) - 2
    json.dumps(check.to_dict())


def test_clean_moves_unreadable_rows_to_quarantine_and_nothing_else(bad_folder: Path) -> None:
    dataset = open_dataset(bad_folder)
    check = check_dataset(dataset)
    clean = check.clean(dataset)
    assert len(clean) == len(dataset) - 3 == len(check.kept)
    gone = {row for finding in clean.quarantine for row in finding.rows}
    assert gone == {"train/cat/cut.jpg", "train/cat/empty.jpg", "train/dog/text.jpg"}
    again = check_dataset(clean)
    assert not len(again.unreadable) and again.clean(clean) is clean
    with pytest.raises(ShapeError):
        check.clean(clean)


def test_summary_lines_are_short_and_name_the_rows(bad_folder: Path) -> None:
    lines = check_dataset(open_dataset(bad_folder)).summary_lines()
    assert lines[0] == "12 rows, 3 classes (smallest 'owl': 1, largest 'cat': 4)"
    assert lines[1].startswith(
        "unreadable: 3; exact duplicates: 2 rows in 1 groups; near-duplicates: 2 rows in 1 groups"
    )
    assert any("train/cat/cut.jpg" in line for line in lines)


def test_the_second_run_opens_no_file_and_says_the_same(bad_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = check_dataset(open_dataset(bad_folder)).to_dict()

    def never(*args: object) -> None:
        pytest.fail("a file was read again")

    monkeypatch.setattr(rows.FileRows, "read_bytes", never)
    monkeypatch.setattr(fingerprints, "fingerprint", never)
    monkeypatch.setattr("headstart.data.scan.near_pictures", never)
    progress = Progress(quiet=True)
    assert check_dataset(open_dataset(bad_folder), progress=progress).to_dict() == first
    assert progress.costs[0].name == "scan" and progress.costs[0].from_cache == progress.costs[0].rows == 12


def test_a_changed_file_is_read_again(bad_folder: Path) -> None:
    before = open_dataset(bad_folder).digests()
    path = bad_folder / "test" / "cat" / "5.png"
    noise(99).save(path)
    after = open_dataset(bad_folder).digests()
    assert [one != two for one, two in zip(before, after, strict=True)].count(True) == 1
    assert check_dataset(open_dataset(bad_folder)).to_dict()["rows"] == 12


def test_a_damaged_memo_is_replaced_and_a_locked_one_ignored(bad_folder: Path) -> None:
    first = check_dataset(open_dataset(bad_folder)).to_dict()
    path = cache_folder() / "scan.sqlite"
    for leftover in path.parent.glob("scan.sqlite-*"):
        leftover.unlink()
    path.write_bytes(b"this is no database" * 1000)
    assert check_dataset(open_dataset(bad_folder)).to_dict() == first
    assert check_dataset(open_dataset(bad_folder)).to_dict() == first
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone()[0] == 12
        connection.execute("UPDATE scans SET result = x'2b00'")  # results cut short
    assert check_dataset(open_dataset(bad_folder)).to_dict() == first
    shutil.rmtree(path.parent)
    path.parent.write_text("a file where the folder should be")
    assert check_dataset(open_dataset(bad_folder)).to_dict() == first


def test_files_written_a_moment_ago_are_not_remembered() -> None:
    now, second = 10**18 + 1, 10**9
    for age, trusted in [(second, True), (second // 100, False)]:
        assert SETTLED(memo.FileStamp("x", 1, now - age, now - age), now) is trusted
        assert SETTLED(memo.FileStamp("x", 1, 0, now - age), now) is trusted
    whole = 10**18  # a clock of whole seconds may hide a change for as long
    assert SETTLED(memo.FileStamp("x", 1, whole, whole), whole + 2 * second) is False
    assert SETTLED(memo.FileStamp("x", 1, whole, whole), whole + 3 * second) is True


@pytest.mark.golden
def test_two_processes_share_the_memo(bad_folder: Path) -> None:
    program = (
        "import sys; from headstart.data import check_dataset, open_dataset; "
        "print(len(check_dataset(open_dataset(sys.argv[1])).unreadable))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(bad_folder)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate()[0].strip() for process in running] == ["3"] * 3


def test_data_does_not_import_torch_or_pandas() -> None:
    program = (
        "import sys, headstart.data; print(sorted({'torch', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_texts() -> None:
    texts = [
        "the first text of them all",
        "THE FIRST TEXT, of them all!",
        "another text",
        "another text",
        "  ",
        "one more text",
    ]
    dataset = open_dataset(texts, labels=list("abcdee"), split=["train", "test", "train", "train", "train", "test"])
    check = check_dataset(dataset)
    assert check.exact_groups == [(2, 3)] and check.near_groups == [(0, 1)]
    assert check.unreadable.tolist() == [4] and check.leaking_rows.tolist() == [0]
    assert [finding.kind for finding in check.findings].count("conflicting-labels") == 2
    assert check_dataset(dataset, near=False).near_groups == []


def test_vectors_and_arrays_of_images() -> None:
    vectors = np.array([[1.0, 2], [3, 4], [1, 2]])
    assert check_dataset(open_dataset(vectors)).exact_groups == [(0, 2)]
    images = np.array([np.asarray(noise(seed)) for seed in (1, 2, 1)])
    check = check_dataset(open_dataset(images, labels=["a", "a", "a"]))
    assert check.exact_groups == [(0, 2)] and check.near_groups == []
    assert "one-class" in findings(check)


def test_multilabel_and_regression_rows() -> None:
    check = check_dataset(open_dataset(["a b", "c d", "a b"], labels=np.array([[1, 0], [1, 0], [1, 1]])))
    assert check.classes == {"0": 3, "1": 1} and "conflicting-labels" in findings(check)
    check = check_dataset(open_dataset(["a b", "c d", "a b"], labels=[0.5, 1.0, 0.5], task="regression"))
    assert check.classes == {} and "conflicting-labels" not in findings(check)


def test_a_file_that_vanishes_is_a_finding(bad_folder: Path) -> None:
    dataset = open_dataset(bad_folder)
    (bad_folder / "test" / "cat" / "5.png").unlink()
    check = check_dataset(dataset)
    assert findings(check)["missing-file"] == ("test/cat/5.png",)
    with pytest.raises(UnreadableRow):
        dataset.read(dataset.ids.index("test/cat/5.png"))


def test_findings_print_and_serialise() -> None:
    finding = Finding("bomb", "error", tuple("abcde"), "too large")
    assert str(finding) == "error    bomb: too large [a, b, c and 2 more]"
    assert finding.to_dict()["rows"] == list("abcde")
