"""Configurations survive their own TOML, refuse unknown names, and give back a command that repeats the run."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from headstart.core.errors import ConfigError
from headstart.workflow.config import FitConfig, make_config, read_config

OTHER = FitConfig(
    text='a "quoted"\ncolumn',
    image="i",
    label="x, y",
    group="g",
    split="s",
    domain="d",
    task="multilabel",
    goal="accuracy >= 0.9",
    budget="10m",
    strategy="last-stages:2",
    unlabelled="others/",
    max_size="20MB",
    max_memory="4GB",
    backbones=("one", "two"),
    head="ridge",
    class_weight="balanced",
    views=2,
    scratch="off",
    runtime="torch-fp32",
    test=0.3,
    seed=7,
)


@pytest.mark.parametrize("config", [FitConfig(), OTHER])
def test_toml_recreates_the_configuration(config: FitConfig, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(config.to_toml("päth/to data"), encoding="utf-8")
    assert read_config(path) == ("päth/to data", config)


def test_every_field_is_covered_by_these_tests() -> None:
    assert all(getattr(OTHER, field.name) != field.default for field in fields(FitConfig))


def test_an_unknown_key_suggests_the_near_name() -> None:
    with pytest.raises(ConfigError, match=r"no option 'lable'\. Did you mean 'label'"):
        make_config({"lable": "x"})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"views": 3}, "views is one of 1, 2"),
        ({"scratch": "ful"}, "Did you mean 'full'"),
        ({"test": 1.5}, "between 0 and 1"),
        ({"task": "regresion"}, "Did you mean 'regression'"),
    ],
)
def test_values_are_checked(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_config(options)


def test_a_broken_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("goal = [", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not a configuration"):
        read_config(path)


def test_the_command_names_only_what_differs() -> None:
    words = shlex.split(OTHER.command("my photos", "runs/x"))
    assert words[:3] == ["headstart", "fit", "my photos"]
    assert words[words.index("--backbone") + 1] == "one,two"
    assert words[words.index("--class-weight") + 1] == "balanced"
    assert FitConfig().command("photos") == "headstart fit photos"


def test_several_label_columns_become_a_list() -> None:
    assert OTHER.columns["label"] == ["x", "y"]
    assert FitConfig(label="x").columns == {"label": "x"}
