"""A model folder: it comes back the same, and every way of damaging or abusing it is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from headstart.backbones import vector_backbone
from headstart.core.digests import digest_json
from headstart.core.errors import DataError, ModelError
from headstart.data import open_dataset
from headstart.features import extract_features
from headstart.methods import FeatureExtraction
from headstart.model import Model, load_model


@pytest.fixture(scope="module")
def model() -> Model:
    random_rows = np.random.default_rng(0)
    rows = random_rows.normal(size=(60, 5)).astype(np.float32) + np.repeat([[0.0], [3.0]], 30, axis=0).astype(
        np.float32
    )
    data = open_dataset(rows, labels=["naïve"] * 30 + ["<b>bold</b>"] * 30)
    assert data.targets is not None and data.task is not None
    backbone = vector_backbone(5)
    return FeatureExtraction().fit(backbone, extract_features(data, backbone, store=False), data.targets, data.task)


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    return model.save(tmp_path / "model")


def _rewrite(folder: Path, **changes: object) -> None:
    """Change model.json the way an attacker would: with a matching digest."""
    content = json.loads((folder / "model.json").read_text())
    content |= changes
    content.pop("digest", None)
    content["digest"] = digest_json(content)
    (folder / "model.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def test_a_loaded_model_answers_the_same(model: Model, folder: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32)
    before, after = model.predict(rows, store=False), load_model(folder).predict(rows, store=False)
    assert after.labels == before.labels
    np.testing.assert_array_equal(after.scores, before.scores)
    np.testing.assert_allclose(after.novelty_n, before.novelty_n)
    assert after.task.classes == ("<b>bold</b>", "naïve")


def test_the_folder_holds_no_pickle_and_names_classes_in_order(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"model.json", "model.safetensors", "README.md"}
    assert json.loads((folder / "model.json").read_text())["task"]["classes"] == ["<b>bold</b>", "naïve"]
    assert "<b>" not in (folder / "README.md").read_text()  # a class name cannot act as HTML in the card


def test_every_flipped_byte_is_noticed(folder: Path, tmp_path: Path) -> None:
    dice = random.Random(0)
    for name in ("model.json", "model.safetensors", "README.md"):
        content = (folder / name).read_bytes()
        for _ in range(25):
            place, bit = dice.randrange(len(content)), 1 << dice.randrange(8)
            damaged = bytearray(content)
            damaged[place] ^= bit
            (folder / name).write_bytes(damaged)
            with pytest.raises(ModelError):
                load_model(folder)
        (folder / name).write_bytes(content)
    load_model(folder)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "README.md"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        load_model(folder)


@pytest.mark.parametrize("escape", ["../secret.txt", "/etc/passwd", "tokenizer/../../secret.txt", "..\\secret.txt"])
def test_a_path_out_of_the_folder_is_refused(folder: Path, escape: str) -> None:
    (folder.parent / "secret.txt").write_text("secret")
    files = json.loads((folder / "model.json").read_text())["files"]
    _rewrite(folder, files={**files, escape: "0" * 64})
    with pytest.raises(ModelError, match="outside the folder"):
        load_model(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    secret = folder.parent / "secret.txt"
    secret.write_text("secret")
    (folder / "link").symlink_to(secret)
    files = json.loads((folder / "model.json").read_text())["files"]
    _rewrite(folder, files={**files, "link": "0" * 64})
    with pytest.raises(ModelError, match="outside the folder"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 99}, "upgrade headstart"),
        ({"format": "one"}, "not a model description"),
        ({"files": {}}, "lists no model.safetensors"),
        ({"head": {"kind": "os.system"}}, "no head is called"),
    ],
)
def test_hostile_descriptions_are_refused(folder: Path, changes: dict[str, object], reason: str) -> None:
    _rewrite(folder, **changes)
    with pytest.raises(ModelError, match=reason):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "[" * 100_000, '{"format": NaN}'])
def test_a_description_that_is_no_description(folder: Path, content: str) -> None:
    (folder / "model.json").write_text(content)
    with pytest.raises(ModelError):
        load_model(folder)


def test_saving_replaces_an_older_model_whole(model: Model, folder: Path) -> None:
    (folder / "left over").write_text("x")
    model.save(folder)
    assert not (folder / "left over").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_saving_never_overwrites_what_is_no_model(model: Model, tmp_path: Path) -> None:
    place = tmp_path / "photos"
    place.mkdir()
    (place / "cat.jpg").write_text("precious")
    with pytest.raises(ModelError, match="not a model folder"):
        model.save(place)
    assert (place / "cat.jpg").read_text() == "precious"


def test_a_failed_save_keeps_the_old_model(model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headstart.model.folder.write_text", full)
    with pytest.raises(ModelError, match="No space left on device"):
        model.save(folder)
    monkeypatch.undo()
    load_model(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_saved_model_follows_the_umask_and_old_ones_that_were_set_aside_go(model: Model, tmp_path: Path) -> None:
    aside = tmp_path / ".model.abc.headstart.old"
    (aside / "old").mkdir(parents=True)
    for path in (aside / "old", aside):
        os.utime(path, (1, 1))
    other = tmp_path / ".other.abc.headstart.old"  # of a model of another name, which may be the only one there is
    other.mkdir()
    os.utime(other, (1, 1))
    before = os.umask(0o027)
    try:
        for _ in range(2):  # made new, and in an older one's place
            model.save(tmp_path / "model")
    finally:
        os.umask(before)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "model"]
    saved = [tmp_path / "model", *(tmp_path / "model").rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in saved if path.is_file()} == {0o640}
    assert {path.stat().st_mode & 0o777 for path in saved if path.is_dir()} == {0o750}


def test_a_run_folder_stands_for_its_model(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.move(folder, run / "model")
    assert load_model(run).task.kind == "classification"


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model\.json"):
        load_model(tmp_path)


def test_rows_of_another_kind_or_width_are_refused(model: Model) -> None:
    with pytest.raises(DataError, match="reads vector rows"):
        model.predict(["a text"])
    with pytest.raises(Exception, match="5"):
        model.predict(np.zeros((2, 7), np.float32), store=False)


def test_unusual_rows_are_flagged_and_the_table_names_every_class(model: Model, tmp_path: Path) -> None:
    rows = np.vstack([np.zeros((1, 5)), np.full((1, 5), 3.0), [[-90.0, 90.0, -90.0, 90.0, -90.0]]]).astype(np.float32)
    answers = model.predict(rows, store=False)
    assert answers.unusual_n.tolist()[2]
    frame = answers.to_frame()
    assert list(frame.columns) == [
        "row",
        "prediction",
        "confidence",
        "p(<b>bold</b>)",
        "p(naïve)",
        "novelty",
        "unusual",
        "problem",
    ]
    np.testing.assert_allclose(frame[["p(<b>bold</b>)", "p(naïve)"]].sum(axis=1), 1)
    written = answers.to_csv(tmp_path / "answers.csv").read_text(encoding="utf-8").splitlines()
    assert len(written) == 4


def test_a_head_becomes_the_layer_fine_tuning_starts_from(model: Model) -> None:
    rows = torch.randn(7, 5)
    layer = model.head.to_linear()
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        probabilities = torch.softmax(layer(rows), 1).numpy()
    np.testing.assert_allclose(probabilities, model.head.predict_proba(rows.numpy()), atol=1e-5)


def test_a_table_is_read_by_the_names_of_its_columns(model: Model, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32)
    table = pd.DataFrame(rows, columns=list("abcde"))
    named = load_model(replace(model, feature_names=tuple("abcde")).save(tmp_path / "named"))
    wanted = named.predict(rows, store=False).scores
    mixed = table[list("cbead")].assign(other=1.0)
    mixed.to_csv(tmp_path / "mixed.csv", index=False)
    for source in (table, mixed, tmp_path / "mixed.csv", open_dataset(mixed, unlabelled=True)):
        np.testing.assert_allclose(named.predict(source, store=False).scores, wanted, atol=1e-5)
    with pytest.raises(DataError, match="lacks 1 of the 5 feature columns asked for, such as 'e'"):
        named.predict(table[list("abcd")], store=False)
