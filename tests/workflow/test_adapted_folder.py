"""What `headstart adapt` leaves behind: a model that answers as the predictions say, and a folder that is whole or unfinished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import headstart
from headstart.core.errors import ConfigError, ModelError
from headstart.core.progress import Progress
from headstart.workflow import evaluate, predict
from headstart.workflow.adaptation_folder import check_folder
from headstart.workflow.adaptations import NO_ADAPTATION

QUIET = Progress(quiet=True)


def tables(folder: Path, seed: int = 0) -> tuple[Path, Path, Path]:
    """Write a source with labels, a target that is stretched and moved, and more of the target with labels."""
    draws = np.random.default_rng(seed)
    paths = []
    for name, size in (("source", 160), ("target", 120), ("held_out", 90)):
        labels = draws.integers(0, 2, size=size)
        rows = draws.normal(size=(size, 3))
        rows[:, 0] += 4 * labels
        if name != "source":
            rows = rows * [3.0, 0.3, 1.0] + [20.0, -2.0, 0.0]
        table = pd.DataFrame(rows, columns=["a", "b", "c"])
        if name != "target":
            table["kind"] = np.array(["ant", "bee"])[labels]
        paths.append(folder / f"{name}.csv")
        table.to_csv(paths[-1], index=False)
    return paths[0], paths[1], paths[2]


def pictures(folder: Path, dark: float, labelled: bool, per_class: int = 8, seed: int = 0) -> Path:
    """Write pictures of two kinds, stripes across and stripes down; ``dark`` takes light away."""
    draws = np.random.default_rng(seed)
    for name, axis in (("across", 0), ("down", 1)):
        inside = folder / name if labelled else folder
        inside.mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            stripes = np.sin(np.arange(96) / draws.uniform(2, 5) + draws.uniform(0, 6)) * 60
            picture = np.full((96, 96, 3), 140.0) + (stripes[:, None, None] if axis == 0 else stripes[None, :, None])
            picture = picture * dark + draws.normal(0, 12, (96, 96, 3))
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(inside / f"{name}{number}.png")
    return folder


def texts(folder: Path) -> tuple[Path, Path]:
    """Write short texts of two kinds, about films and about kitchens."""
    good, bad = ["wonderful", "lovely", "a joy", "brilliant"], ["awful", "dull", "a waste", "broken"]
    films = (
        [f"a {word} film, {more}" for word in good for more in good],
        [f"{word}, {more} film" for word in bad for more in bad],
    )
    pans = [f"this pan is {word}" for word in [*good, *bad]]
    both = [*films[0], *films[1]]
    pd.DataFrame({"text": both, "kind": ["good"] * 16 + ["bad"] * 16}).to_csv(folder / "films.csv", index=False)
    pd.DataFrame({"text": pans}).to_csv(folder / "pans.csv", index=False)
    return folder / "films.csv", folder / "pans.csv"


def check_same_answers(out: Path, target: Any, **columns: Any) -> None:
    """The saved model says of the target's rows what predictions.csv says."""
    stated = pd.read_csv(out / "predictions.csv")
    names = [name for name in stated.columns if name.startswith("p(")]
    again = headstart.load_model(out).predict(target, **columns)
    assert list(again.task.classes) == [name[2:-1] for name in names]
    np.testing.assert_allclose(again.scores, stated[names].to_numpy(), atol=1e-6)
    assert again.labels == list(stated["class"])
    written = predict(out, target, out=out / "again.csv", **columns)
    np.testing.assert_allclose(pd.read_csv(out / "again.csv")[names], stated[names], atol=1e-6)
    assert len(written) == len(stated)
    (out / "again.csv").unlink()


@pytest.mark.parametrize(
    "method", ["moment-matching", "class-transport", "jda", "meda", "gradual-co-training", "source-free", "lame"]
)
def test_tables(method: str, tmp_path: Path) -> None:
    source, target, held_out = tables(tmp_path)
    out = tmp_path / "out"
    found = headstart.adapt(source, target, label="kind", methods=[method], rule="infomax", out=out, progress=QUIET)
    check_same_answers(out, target)
    measured = evaluate(out, held_out, label="kind", progress=QUIET)
    assert measured.rows == 90 and measured.evaluation.metrics["accuracy"].value > 0.4
    about = json.loads((out / "model" / "model.json").read_text())["provenance"]
    assert about["adaptation"]["method"] == found.selection.chosen and about["adaptation"]["rule"] == "InfoMax"
    assert about["adaptation"]["source"]["rows"] == 160 and about["adaptation"]["target"]["name"] == "target.csv"
    assert "metrics" not in about
    assert "Without labels of the target nobody has measured" in (out / "model" / "README.md").read_text()


@pytest.mark.golden
def test_a_model_for_the_target_answers_new_rows_of_it(tmp_path: Path) -> None:
    source, target, held_out = tables(tmp_path)
    headstart.adapt(source, target, label="kind", methods=["moment-matching"], out=tmp_path / "out", progress=QUIET)
    measured = evaluate(tmp_path / "out", held_out, label="kind", progress=QUIET)
    assert measured.evaluation.metrics["accuracy"].value > 0.9 and measured.unusual < 20


@pytest.mark.golden
def test_what_labels_said_afterwards_stands_in_the_card(tmp_path: Path) -> None:
    source, _, held_out = tables(tmp_path)
    found = headstart.adapt(
        source, held_out, label="kind", methods=["moment-matching"], out=tmp_path / "out", progress=QUIET
    )
    assert found.hindsight is not None
    about = headstart.load_model(tmp_path / "out").provenance
    assert about["metrics"]["accuracy"]["value"] == found.hindsight.selected.value
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert "it had seen the rows, not their labels" in card and "Adapting helped" in card


@pytest.mark.golden
def test_pictures(tmp_path: Path) -> None:
    source, target = pictures(tmp_path / "light", 1.0, True), pictures(tmp_path / "dark", 0.4, False, seed=1)
    found = headstart.adapt(source, target, methods=["coral", "prototypes"], out=tmp_path / "out", progress=QUIET)
    assert len(found.predictions) == 16
    check_same_answers(tmp_path / "out", target)


@pytest.mark.golden
def test_texts(tmp_path: Path) -> None:
    source, target = texts(tmp_path)
    headstart.adapt(
        source,
        target,
        text="text",
        label="kind",
        methods=["moment-matching", "source-free"],
        out=tmp_path / "out",
        progress=QUIET,
    )
    check_same_answers(tmp_path / "out", target, text="text")


def test_not_adapting_is_a_model_too(tmp_path: Path) -> None:
    source, out = tables(tmp_path)[0], tmp_path / "out"
    rows = pd.read_csv(source)
    same = rows.drop(columns="kind")
    found = headstart.adapt(rows, same, label="kind", methods=["coral"], out=out, progress=QUIET)
    assert found.selection.chosen == NO_ADAPTATION
    check_same_answers(out, same)


@pytest.mark.golden
def test_a_second_run_replaces_the_first_whole(tmp_path: Path) -> None:
    source, target, held_out = tables(tmp_path)
    out = tmp_path / "out"
    headstart.adapt(source, target, label="kind", methods=["coral"], out=out, progress=QUIET)
    headstart.adapt(source, held_out, label="kind", methods=["coral"], out=out, progress=QUIET)
    check_same_answers(out, held_out)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    source, target, _ = tables(tmp_path)
    with pytest.raises(ConfigError, match=r"holds files that are no earlier adaptation, such as 'held_out\.csv'"):
        headstart.adapt(source, target, label="kind", out=tmp_path, progress=QUIET)
    with pytest.raises(ConfigError, match="is a file"):
        headstart.adapt(source, target, label="kind", out=source, progress=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held_out.csv", "source.csv", "target.csv"]


def test_a_folder_that_holds_a_stopped_training_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "out" / "checkpoint").mkdir(parents=True)
    assert check_folder(tmp_path / "out") == tmp_path / "out"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    source, target, _ = tables(tmp_path)
    (tmp_path / "shut").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="cannot be written"):
        headstart.adapt(source, target, label="kind", out=tmp_path / "shut" / "out", progress=QUIET)


@pytest.mark.golden
def test_a_full_disk_is_said_and_leaves_no_finished_folder(tmp_path: Path) -> None:
    """No file of this process may grow beyond 3000 bytes: writing the model breaks off as on a full disk."""
    source, target, _ = tables(tmp_path)
    out = tmp_path / "out"
    headstart.adapt(source, target, label="kind", methods=["coral"], out=out, progress=QUIET)
    code = f"""
        import resource, signal, headstart
        from headstart.core.errors import ModelError
        from headstart.core.progress import Progress
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        try:
            headstart.adapt({str(source)!r}, {str(target)!r}, label="kind", methods=["coral"], out={str(out)!r},
                            store=False, progress=Progress(quiet=True))
        except ModelError as error:
            print("refused:", error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert "cannot be written" in done.stdout and "free space" in done.stdout, done.stderr
    assert not (out / "adapt.json").exists()  # unfinished, and said to be
    headstart.load_model(out)  # the older model still stands, whole
    headstart.adapt(source, target, label="kind", methods=["coral"], out=out, progress=QUIET)
    check_same_answers(out, target)


@pytest.mark.golden
@pytest.mark.parametrize("place", ["save_model", "atomic_path", "write_adapt_report"])
def test_a_killed_process_leaves_nothing_half_written(place: str, tmp_path: Path) -> None:
    source, target, _ = tables(tmp_path)
    out = tmp_path / "out"
    code = f"""
        import os, headstart
        from headstart.core.progress import Progress
        from headstart.workflow import adaptation_folder
        def killed(*_, **__):
            os._exit(9)
        setattr(adaptation_folder, {place!r}, killed)
        headstart.adapt({str(source)!r}, {str(target)!r}, label="kind", methods=["coral"], out={str(out)!r},
                        progress=Progress(quiet=True))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    assert not (out / "adapt.json").exists()
    if place == "save_model":
        with pytest.raises(ModelError, match="holds no model"):
            headstart.load_model(out)
    headstart.adapt(source, target, label="kind", methods=["coral"], out=out, progress=QUIET)
    check_same_answers(out, target)
