"""Folders of files: layouts, class names, links in circles, locked folders, and what is left out."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import ConfigError, DataError
from headstart.data import check_dataset, open_dataset


def picture(path: Path, grey: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), grey, np.uint8)).save(path)
    return path


def kinds(dataset: object) -> list[str]:
    return [finding.kind for finding in (*dataset.quarantine, *dataset.notes)]  # type: ignore[attr-defined]


def test_class_folders_with_blanks_accents_and_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "Löwe und Maus", "a|b", "NA"):
        picture(tmp_path / name / "x.png")
    dataset = open_dataset(tmp_path)
    assert dataset.task is not None
    assert dataset.task.classes == ("9", "10", "a|b", "Löwe und Maus", "NA")
    assert [dataset.task.classes[target] for target in dataset.targets] == [row.split("/")[0] for row in dataset.ids]
    assert dataset.path(0) == tmp_path / dataset.ids[0]


def test_composed_and_decomposed_accents_are_one_class(tmp_path: Path) -> None:
    picture(tmp_path / "café" / "1.png")
    picture(tmp_path / "cafe\u0301" / "2.png")
    picture(tmp_path / "tea" / "3.png")
    dataset = open_dataset(tmp_path)
    assert dataset.task is not None and dataset.task.classes == ("café", "tea")
    assert "class-name" in kinds(dataset)


@pytest.mark.parametrize(
    ("names", "parts"), [(("train", "test"), ["test", "train"]), (("Training", "valid"), ["train", "val"])]
)
def test_split_folders(tmp_path: Path, names: tuple[str, str], parts: list[str]) -> None:
    for name in names:
        picture(tmp_path / name / "cat" / "1.png")
        picture(tmp_path / name / "dog" / "deep" / "2.png")
    picture(tmp_path / "masks" / "1.png")
    dataset = open_dataset(tmp_path)
    assert sorted(set(dataset.given_split)) == parts
    assert dataset.task is not None and dataset.task.classes == ("cat", "dog") and len(dataset) == 4
    assert any("masks: 1 files left out" in note.message for note in dataset.notes)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "bus", "car"):
        picture(tmp_path / name / "1.png")
    dataset = open_dataset(tmp_path)
    assert dataset.task is not None and dataset.task.classes == ("bus", "car", "train")
    assert dataset.given_split is None


def test_domain_folders_and_a_folder_around_everything(tmp_path: Path) -> None:
    for domain in ("photo", "sketch"):
        for name in ("cat", "dog", "owl"):
            picture(tmp_path / "images" / domain / name / "1.png")
    dataset = open_dataset(tmp_path)
    assert dataset.task is not None and dataset.task.classes == ("cat", "dog", "owl")
    assert sorted(set(dataset.domains)) == ["photo", "sketch"]
    assert dataset.ids[0] == "images/photo/cat/1.png"
    assert kinds(dataset).count("layout") == 2


def test_empty_folders_loose_files_and_others_are_told(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "dog" / "1.JPG")
    picture(tmp_path / "loose.png")
    (tmp_path / "owl").mkdir()
    (tmp_path / "cat" / "notes.md").write_text("x")
    (tmp_path / "cat" / ".DS_Store").write_text("x")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 2
    assert [(finding.kind, finding.rows) for finding in dataset.quarantine] == [
        ("no-class", ("loose.png",)),
        ("empty-class", ("owl",)),
    ]
    assert [note.message for note in dataset.notes] == ["files that are no image rows, left out: 1 hidden, 1 .md"]


def test_folders_that_hold_no_classes_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image"):
        open_dataset(tmp_path)
    picture(tmp_path / "1.png")
    with pytest.raises(DataError, match="unlabelled=True"):
        open_dataset(tmp_path)
    unlabelled = open_dataset(tmp_path, unlabelled=True)
    assert unlabelled.ids == ["1.png"] and unlabelled.task is None and unlabelled.targets is None
    assert len(open_dataset(tmp_path / "1.png", unlabelled=True)) == 1
    with pytest.raises(DataError, match="single image"):
        open_dataset(tmp_path / "1.png")
    with pytest.raises(DataError, match="Did you mean"):
        open_dataset(tmp_path.parent / (tmp_path.name + "s"))
    with pytest.raises(ConfigError, match="folder"):
        open_dataset(tmp_path, label="x")
    with pytest.raises(ConfigError, match="table"):
        open_dataset(tmp_path, task="regression")


def test_one_class_only_opens(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png")
    dataset = open_dataset(tmp_path)
    assert dataset.task is not None and dataset.task.classes == ("cat",)


def test_links_in_circles_are_told_and_links_elsewhere_are_followed(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    picture(root / "cat" / "1.png")
    picture(other / "2.png")
    (root / "cat" / "again").symlink_to(root)
    (root / "dog").symlink_to(other)
    (other / "back").symlink_to(other)
    (root / "cat" / "self.png").symlink_to(root / "cat" / "self.png")
    (root / "cat" / "gone.png").symlink_to(root / "nothing.png")
    dataset = open_dataset(root)
    assert dataset.ids == ["cat/1.png", "dog/2.png"]
    told = {finding.rows[0]: finding.kind for finding in dataset.quarantine}
    assert told == {
        "cat/again": "symlink-loop",
        "cat/self.png": "symlink-loop",
        "cat/gone.png": "missing-file",
        "dog/back": "symlink-loop",
    }


@contextlib.contextmanager
def someone_else() -> Iterator[None]:
    """Root may read everything, so that the test becomes nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_locked_folders_and_files(open_folder: Path) -> None:
    picture(open_folder / "cat" / "1.png")
    locked = picture(open_folder / "cat" / "2.png", 9)
    picture(open_folder / "dog" / "1.png")
    locked.chmod(0)
    (open_folder / "dog").chmod(0)
    with someone_else():
        dataset = open_dataset(open_folder)
        assert [(finding.kind, finding.rows) for finding in dataset.quarantine] == [("permission", ("dog",))]
        assert dataset.digests()[1] == ""
        problems = [
            (finding.kind, finding.rows) for finding in check_dataset(dataset).findings if "cat" in str(finding.rows)
        ]
        assert problems == [("permission", ("cat/2.png",))]
        with pytest.raises(DataError, match="Permission"):
            dataset.read(1)
        with pytest.raises(DataError, match=r"2\.png"):
            dataset.digest(1)


def test_text_files_in_class_folders(tmp_path: Path) -> None:
    for name, text in (("pos", "schön"), ("neg", "bad")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_text(text, encoding="utf-8")
    (tmp_path / "neg" / "2.txt").write_bytes("schön".encode("latin-1"))
    dataset = open_dataset(tmp_path)
    assert dataset.modality == "text"
    assert [dataset.read(i) for i in range(3)] == ["bad", "schön", "schön"]


def test_files_without_ending_are_told_by_their_content(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png").rename(tmp_path / "cat" / "picture")
    (tmp_path / "cat" / "README").write_text("x")
    picture(tmp_path / "dog" / "1.png")
    assert open_dataset(tmp_path).ids == ["cat/picture", "dog/1.png"]


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "dog" / "1.png")
    os.rename(os.fsencode(tmp_path / "dog" / "1.png"), os.fsencode(tmp_path / "dog") + b"/\xff\xfe.png")  # noqa: PTH104
    dataset = open_dataset(tmp_path)
    assert len(dataset.digests()) == 2 and all(dataset.digests())
