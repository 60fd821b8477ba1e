"""Tables, data frames, arrays and lists: columns, encodings, missing values, targets."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from headstart.core.errors import ConfigError, DataError, ShapeError
from headstart.data import Dataset, UnlabelledDataset, open_dataset

TEXTS = ["what a fine day it is", "this is rather bad", "could be a little better", "never again, thank you"]
LABELS = ["good", "bad", "bad", "bad"]


def write(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


def told(dataset: Dataset, kind: str) -> list[str]:
    return [finding.message for finding in (*dataset.quarantine, *dataset.notes) if finding.kind == kind]


def table(separator: str = ",") -> str:
    rows = [f'"{text}"{separator}{label}' for text, label in zip(TEXTS, LABELS, strict=True)]
    return "\n".join([f"text{separator}label", *rows]) + "\n"


@pytest.mark.parametrize(
    ("name", "encoding", "separator"),
    [
        ("a.csv", "utf-8", ","),
        ("a.csv", "utf-8-sig", ","),
        ("a.csv", "utf-16", ","),
        ("a.csv", "utf-16-le", ","),
        ("a.csv", "utf-8", ";"),
        ("a.csv", "utf-8", "|"),
        ("a.tsv", "utf-8", "\t"),
    ],
)
def test_encodings_and_separators(tmp_path: Path, name: str, encoding: str, separator: str) -> None:
    dataset = open_dataset(write(tmp_path / name, table(separator), encoding))
    assert [dataset.read(i) for i in range(4)] == TEXTS
    assert dataset.task is not None and dataset.task.classes == ("bad", "good")
    assert dataset.targets.tolist() == [1, 0, 0, 0]
    assert dataset.ids == ["row 1", "row 2", "row 3", "row 4"]


def test_mixed_encodings_are_read_line_by_line_and_said(tmp_path: Path) -> None:
    lines = ["text,label", "schön und gut ist es,a", "schön und schlecht ist es,b", "ganz normal ist es,b"]
    encoded = [lines[0].encode(), lines[1].encode("utf-8"), lines[2].encode("cp1252"), lines[3].encode()]
    (tmp_path / "a.csv").write_bytes(b"\n".join(encoded))
    dataset = open_dataset(tmp_path / "a.csv")
    assert [dataset.read(i) for i in range(2)] == ["schön und gut ist es", "schön und schlecht ist es"]
    assert told(dataset, "encoding") == [
        "1 of 4 lines are no UTF-8 and were read as Windows-1252; save the file as UTF-8"
    ]


def test_quote_marks_that_are_plain_text_in_a_tsv(tmp_path: Path) -> None:
    content = 'text\tlabel\nhe said "hello to them\ta\nshe said nothing at all\tb\nan inch is 1" long\ta\n'
    dataset = open_dataset(write(tmp_path / "a.tsv", content))
    assert [dataset.read(i) for i in range(3)] == [
        'he said "hello to them',
        "she said nothing at all",
        'an inch is 1" long',
    ]


def test_blanks_in_column_names_are_bridged_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", table().replace("text,label", "text , label"))
    dataset = open_dataset(path, text="text", label="label")
    assert len(told(dataset, "column-name")) == 2
    assert any("' label'" in message for message in told(dataset, "column-name"))
    with pytest.raises(DataError, match=r"no column 'lable'.*Did you mean ' label'"):
        open_dataset(path, label="lable")


@pytest.mark.golden
def test_ten_thousand_columns_are_quick(tmp_path: Path) -> None:
    names = [f"f{i}" for i in range(10_000)]
    rows = [",".join(["0.5"] * 10_000) + ",yes", ",".join(["1.5"] * 10_000) + ",no"] * 10
    path = write(tmp_path / "wide.csv", "\n".join([",".join([*names, "label"]), *rows]))
    started = time.process_time()
    dataset = open_dataset(path)
    assert dataset.modality == "vector" and dataset.matrix().shape == (20, 10_000)
    with pytest.raises(DataError, match="its 10,001 columns are f0, f1"):
        open_dataset(path, label="nothing")
    assert time.process_time() - started < 5


def test_missing_labels_and_texts_go_to_quarantine(tmp_path: Path) -> None:
    content = "text,label\na fine day,x\n ,y\nanother fine day,nan\nyet another,\nthe last one of them,y\n"
    dataset = open_dataset(write(tmp_path / "a.csv", content))
    assert dataset.ids == ["row 1", "row 5"] and dataset.targets.tolist() == [0, 1]
    assert {finding.kind: finding.rows for finding in dataset.quarantine} == {
        "missing-text": ("row 2",),
        "missing-label": ("row 3", "row 4"),
    }


def test_ragged_and_damaged_rows_go_to_quarantine(tmp_path: Path) -> None:
    content = "text,label\na fine day,x\ntoo,many,fields\ntoo few\nanother fine day,y\n"
    dataset = open_dataset(write(tmp_path / "a.csv", content))
    assert dataset.ids == ["row 1", "row 4"]
    assert [finding.rows for finding in dataset.quarantine] == [("row 2", "row 3")]
    lines = [json.dumps({"text": text, "label": label}) for text, label in zip(TEXTS, LABELS, strict=True)]
    dataset = open_dataset(write(tmp_path / "a.jsonl", "\n".join([*lines[:2], "{not json", "", *lines[2:]])))
    assert dataset.ids == ["row 1", "row 2", "row 4", "row 5"]
    assert [finding.kind for finding in dataset.quarantine] == ["ragged-row"]


def test_tables_without_rows_are_refused(tmp_path: Path) -> None:
    for name, content in (("a.csv", ""), ("a.csv", "\ufeff"), ("a.csv", "text,label\n"), ("a.jsonl", "nonsense")):
        with pytest.raises(DataError):
            open_dataset(write(tmp_path / name, content), text="text", label="label")
    with pytest.raises(DataError, match="Parquet"):
        open_dataset(write(tmp_path / "a.parquet", "nonsense"))
    with pytest.raises(DataError, match="can be used"):
        open_dataset(write(tmp_path / "a.csv", "text,label\n ,x\n"), text="text")


def test_parquet_jsonl_and_frames_agree(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": TEXTS, "stars": [5, 1, 2, 1], "split": ["train", "train", "dev", "test"]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_csv(tmp_path / "a.csv", index=False)
    for source in (frame, *(tmp_path / f"a.{ending}" for ending in ("parquet", "jsonl", "csv"))):
        dataset = open_dataset(source, label="stars")
        assert dataset.task is not None and dataset.task.classes == ("1", "2", "5")
        assert dataset.given_split.tolist() == ["train", "train", "val", "test"]
        assert dataset.digest(0) == open_dataset([TEXTS[0]]).digest(0)


def test_frame_with_nan_labels_and_doubled_columns() -> None:
    frame = pd.DataFrame({"text": TEXTS, "label": [1.0, np.nan, 0.0, 1.0]}, index=[9, 9, 9, 9])
    dataset = open_dataset(frame)
    assert dataset.task is not None and dataset.task.classes == ("0", "1")
    assert dataset.ids == ["row 1", "row 3", "row 4"]
    with pytest.raises(DataError, match="two columns"):
        open_dataset(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_image_columns_are_relative_to_the_table(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "one.png")
    path = write(tmp_path / "a.csv", "file,label,note\none.png,x,n\nmissing.png,y,n\n,x,n\none.png,y,n\n")
    dataset = open_dataset(path)
    assert dataset.modality == "image" and dataset.ids == ["one.png", "one.png"]
    assert dataset.path(0) == tmp_path / "one.png"
    assert [finding.rows for finding in dataset.quarantine] == [("missing.png", "row 3")]


def test_what_cannot_be_guessed_is_asked(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": TEXTS, "coarse": LABELS, "fine": LABELS})
    with pytest.raises(DataError, match="candidates are coarse, fine"):
        open_dataset(frame)
    with pytest.raises(DataError, match="not both"):
        open_dataset(frame, text="text", image="fine")
    assert open_dataset(frame, unlabelled=True).task is None
    path = write(tmp_path / "a.txt", "x")
    with pytest.raises(DataError, match=r"no table and no image"):
        open_dataset(path)


def test_multilabel_columns_groups_and_domains() -> None:
    frame = pd.DataFrame({
        "text": TEXTS, "toxic": [1, 0, 1, None], "rude": [True, False, False, True],
        "author": ["ann", "ann", "bob", "bob"], "site": ["a", "b", "a", "b"],
    })  # fmt: skip
    dataset = open_dataset(frame, label=["toxic", "rude"], group="author", domain="site")
    assert dataset.task is not None and dataset.task.kind == "multilabel" and dataset.task.classes == ("toxic", "rude")
    assert dataset.targets.tolist() == [[1, 1], [0, 0], [1, 0]] and dataset.targets.dtype == np.uint8
    assert dataset.groups.tolist() == ["ann", "ann", "bob"] and dataset.domains.tolist() == ["a", "b", "a"]
    frame["toxic"] = [1, 2, 1, 0]
    with pytest.raises(DataError, match="'toxic' holds '2'"):
        open_dataset(frame, label=["toxic", "rude"])


def test_split_columns_are_checked() -> None:
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS, "part": ["train", "tset", "", None]})
    with pytest.raises(DataError, match=r"'part' holds tset.*Did you mean 'test'"):
        open_dataset(frame, split="part")
    frame["part"] = ["Train", "TEST", "", None]
    assert open_dataset(frame, split="part").given_split.tolist() == ["train", "test", "", ""]


def test_features_with_missing_numbers_go_to_quarantine() -> None:
    frame = pd.DataFrame({"id": [1, 2, 3], "a": [1.0, np.nan, 3.0], "b": [1, 2, 3], "label": ["x", "y", "y"]})
    dataset = open_dataset(frame)
    assert dataset.matrix().tolist() == [[1, 1], [3, 3]]
    assert [finding.kind for finding in dataset.quarantine] == ["missing-value"]
    assert dataset.quarantine[0].message == (
        "1 rows lack a number: 'a' in 1; fill such cells in, or leave these columns out"
    )


def test_arrays_and_lists() -> None:
    vectors = np.arange(6.0).reshape(3, 2)
    dataset = open_dataset(vectors, labels=[0, 1, 0], group=["a", "b", "b"], split=["train", "val", ""])
    assert dataset.modality == "vector" and dataset.matrix().dtype == np.float32
    assert dataset.groups.tolist() == ["a", "b", "b"] and dataset.given_split.tolist() == ["train", "val", ""]
    images = open_dataset(np.zeros((2, 4, 4), np.uint8), labels=np.array([[1, 0], [1, 1]]), classes=["a", "b"])
    assert images.modality == "image" and images.task is not None and images.task.kind == "multilabel"
    vectors[1, 1] = np.inf
    assert open_dataset(vectors, labels=["x", "y", None]).ids == ["row 1"]
    assert open_dataset(["a", "b"], labels=pd.Series([0.5, 1.5]), task="regression").targets.tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("source", "options", "error"),
    [
        (np.zeros((2, 4, 4)), {}, DataError),
        (np.zeros(3), {}, ShapeError),
        ([], {}, DataError),
        (np.zeros((0, 3)), {}, DataError),
        ([1, 2], {}, DataError),
        (None, {}, DataError),
        (["a"], {"labels": ["x", "y"]}, ShapeError),
        (["a"], {"group": ["x", "y"]}, ShapeError),
        (["a"], {"label": "x"}, ConfigError),
        (["a"], {"labels": ["x"], "task": "clasification"}, ConfigError),
        (pd.DataFrame({"text": TEXTS, "label": LABELS}), {"labels": LABELS}, ConfigError),
        (pd.DataFrame({"text": TEXTS, "label": LABELS}), {"group": LABELS}, ConfigError),
    ],
)
def test_wrong_sources_are_refused(source: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        open_dataset(source, **options)


def test_lists_of_paths_and_datasets(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "one.png")
    dataset = open_dataset([tmp_path / "one.png"], labels=["x"])
    assert dataset.modality == "image" and dataset.path(0) == tmp_path / "one.png"
    assert open_dataset([str(tmp_path / "one.png")]).modality == "image"
    assert open_dataset(["no such file.png"]).modality == "text"
    assert open_dataset(dataset) is dataset
    assert open_dataset(dataset, unlabelled=True).targets is None


def test_an_unlabelled_set_holds_no_labels() -> None:
    dataset = open_dataset(["a", "b"], labels=["secret one", "secret two"])
    hidden = dataset.unlabelled()
    assert isinstance(hidden, UnlabelledDataset) and hidden.task is None and hidden.targets is None
    assert isinstance(hidden.subset([1]), UnlabelledDataset) and hidden.subset([1]).read(0) == "b"
    seen: list[Any] = [hidden]
    for thing in seen:
        assert "secret" not in repr(thing)
        if isinstance(thing, dict | list | tuple):
            seen += list(thing.values() if isinstance(thing, dict) else thing)
        elif hasattr(thing, "__dict__") and not isinstance(thing, type):
            seen += list(vars(thing).values())


def test_subsets_share_content_and_digests() -> None:
    dataset = open_dataset(list("abcd"), labels=[0, 1, 0, 1])
    part = dataset.subset([3, 1]).subset(np.array([False, True]))
    assert part.ids == ["row 2"] and part.digest(0) == dataset.digest(1) and part.targets.tolist() == [1]
    with pytest.raises(ShapeError):
        dataset.subset(np.array([True]))
    with pytest.raises(DataError, match="only vectors"):
        dataset.matrix()
    with pytest.raises(ShapeError, match="targets"):
        dataset.relabelled(dataset.task, np.zeros(3, np.int64))  # type: ignore[arg-type]


def test_a_preferred_column_is_taken_where_the_table_has_it_and_none_is_named() -> None:
    words = pd.DataFrame(
        {"opinion": TEXTS, "shop": ["a name that is longer than any opinion, number " + text for text in TEXTS]}
    )
    assert open_dataset(words, unlabelled=True).content_column == "shop"  # the longest texts, when nobody says more
    taken = open_dataset(words, unlabelled=True, prefer="opinion")
    assert taken.content_column == "opinion" and taken.read(0) == TEXTS[0]
    assert "'opinion' for text" in told(taken, "column-choice")[0]
    assert taken.subset([2]).content_column == taken.unlabelled().content_column == "opinion"
    assert open_dataset(words, unlabelled=True, prefer="note").content_column == "shop"
    assert open_dataset(words, unlabelled=True, prefer="opinion", text="shop").content_column == "shop"
    short = words.assign(opinion=["a", "b", "a", "b"])  # no prose, and yet what was asked for
    assert open_dataset(short, unlabelled=True, prefer="opinion").read(1) == "b"
    assert open_dataset(TEXTS, unlabelled=True).content_column == ""
