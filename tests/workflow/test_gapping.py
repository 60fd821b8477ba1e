"""`headstart gap`: the diagnosis of known gaps, what is printed and written, that target labels are not read, refusals."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import headstart
from headstart.core.errors import ConfigError, DomainError
from headstart.core.progress import Progress

QUIET: dict[str, Any] = {"progress": Progress(quiet=True), "store": False, "measures": ["energy", "coral"]}


def rows(num_rows: int = 300, seed: int = 0) -> tuple[Any, Any]:
    """Return rows of two classes and their names."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 2, size=num_rows)
    values = draws.normal(size=(num_rows, 3))
    values[:, 0] += 4 * labels
    return values, np.array(["ant", "bee"])[labels]


@pytest.mark.golden
def test_a_moved_column_is_named(tmp_path: Path) -> None:
    source, labels = rows()
    target = rows(seed=1)[0] + [0.0, 0.0, 2.0]
    columns = ["age", "weight", "rate"]
    found = headstart.gap(
        pd.DataFrame(source, columns=columns).assign(kind=labels),
        pd.DataFrame(target, columns=columns),
        label="kind",
        out=tmp_path / "gap",
        **QUIET,
    )
    assert found.diagnosis.kind in {"covariate shift", "support mismatch"}
    assert found.diagnosis.features[0].name == "rate"
    assert found.diagnosis.features[0].difference == pytest.approx(2.0, abs=0.3)
    about = json.loads((tmp_path / "gap" / "gap.json").read_text())
    assert about["features"][0]["name"] == "rate" and about["rows"] == {"source": 300, "target": 300}
    assert {"mk-mmd", "energy", "proxy-a", "coral"} == {item["name"] for item in about["measurements"]}
    page = (tmp_path / "gap" / "gap.html").read_text()
    assert "rate" in page and "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")
    HTMLParser().feed(page)


def test_nothing_moved_says_so_and_suggests_not_to_adapt() -> None:
    source, labels = rows()
    found = headstart.gap(source, rows(seed=1)[0], labels=labels, **QUIET)
    assert found.diagnosis.kind == "no shift"
    assert [name for name, _ in found.data.suggestions] == ["do-not-adapt"]
    assert str(found).startswith("No shift that matters") and "leverage" not in str(found)


@pytest.mark.golden
def test_changed_class_shares_are_told_from_moved_features() -> None:
    source, labels = rows(600)
    target, truth = rows(600, seed=1)
    kept = np.flatnonzero((truth == "bee") | (np.arange(600) % 8 == 0))
    found = headstart.gap(source, target[kept], labels=labels, **QUIET)
    assert found.diagnosis.kind == "label shift" and found.diagnosis.label_shift is not None
    share = np.mean(truth[kept] == "bee")
    np.testing.assert_allclose(found.diagnosis.label_shift.target_priors_k[1], share, atol=0.05)
    assert "bbse" in dict(found.data.suggestions)
    without = headstart.gap(source, target[kept], **QUIET)
    assert without.diagnosis.kind == "covariate shift" and without.diagnosis.label_shift is None


@pytest.mark.golden
def test_labels_of_the_target_are_not_read(tmp_path: Path) -> None:
    source, labels = rows()
    target, truth = rows(seed=1)
    pd.DataFrame(source, columns=list("abc")).assign(kind=labels).to_csv(tmp_path / "source.csv", index=False)
    said = []
    for given in (truth, truth[::-1]):
        pd.DataFrame(target + 1, columns=list("abc")).assign(kind=given).to_csv(tmp_path / "target.csv", index=False)
        said.append(str(headstart.gap(tmp_path / "source.csv", tmp_path / "target.csv", label="kind", **QUIET)))
    assert said[0] == said[1]


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    source, _ = rows()
    names = ["<script>alert(1)</script>", "b", "c"]
    headstart.gap(
        pd.DataFrame(source, columns=names), pd.DataFrame(source + 3.0, columns=names), out=tmp_path / "gap", **QUIET
    )
    assert "<script" not in (tmp_path / "gap" / "gap.html").read_text()


def test_one_column_makes_a_map_too() -> None:
    values = np.random.default_rng(0).normal(size=(60, 1))
    found = headstart.gap(values, values + 5, **QUIET)
    assert found.data.source_n2.shape == (60, 2) and found.data.explained == pytest.approx(1.0)


def test_what_will_not_do_is_refused() -> None:
    source, _ = rows()
    with pytest.raises(ConfigError, match="Did you mean 'energy'"):
        headstart.gap(source, source, **{**QUIET, "measures": ["energie"]})
    with pytest.raises(DomainError, match="3 feature columns but target has 2"):
        headstart.gap(source, source[:, :2], **QUIET)
    with pytest.raises(DomainError, match="vector rows but target text rows"):
        headstart.gap(source, ["a text", "another text"], **QUIET)
    with pytest.raises(headstart.core.errors.HeadstartError, match="rows"):
        headstart.gap(source[:3], source, **QUIET)


@pytest.mark.golden
def test_photos_and_sketches_are_far_apart_and_shown_as_pictures(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "pacs_subset"
    found = headstart.gap(
        folder / "photo", folder / "sketch", out=tmp_path / "gap", progress=Progress(quiet=True), measures=["frechet"]
    )
    assert found.diagnosis.kind == "support mismatch" and found.diagnosis.accuracy > 0.99
    page = (tmp_path / "gap" / "gap.html").read_text()
    assert page.count("data:image/jpeg") >= 20
    halves = sorted((folder / "photo").rglob("*.jpg"))
    same = headstart.gap(halves[::2], halves[1::2], progress=Progress(quiet=True), measures=["frechet"])
    assert same.diagnosis.kind == "no shift"
