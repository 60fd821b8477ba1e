"""Which base models are opened for some rows, and what every command says of one that does not go with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.backbones import vector_backbone
from headstart.core.errors import BackboneError, ConfigError
from headstart.core.progress import Progress
from headstart.data import open_dataset
from headstart.workflow.candidates import open_candidates

QUIET = Progress(quiet=True)
ROWS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
LABELS = ["ant", "bee"] * 20


@pytest.mark.parametrize(
    ("who", "run"),
    [
        ("adapt", lambda out, **given: headstart.adapt(ROWS, ROWS + 1, labels=LABELS, **given)),
        ("gap", lambda out, **given: headstart.gap(ROWS, ROWS + 1, **given)),
        ("fit", lambda out, **given: headstart.fit(ROWS, labels=LABELS, out=out, **given)),
        ("rank", lambda out, **given: headstart.rank(ROWS, labels=LABELS, **given)),
    ],
)
def test_a_base_model_named_for_rows_that_are_features_is_refused(
    who: str, run: Callable[..., Any], tmp_path: Path
) -> None:
    words = rf"{who}: minilm-l6 embeds images or texts, and the rows of .* are features already; leave --backbone out"
    with pytest.raises(BackboneError, match=words):
        run(tmp_path / "out", backbones=["minilm-l6"], progress=QUIET, store=False)


@pytest.mark.parametrize(
    ("who", "run"),
    [
        ("adapt", lambda **given: headstart.adapt("no such folder", "nor this", **given)),
        ("gap", lambda **given: headstart.gap("no such folder", "nor this", **given)),
    ],
)
def test_one_base_model_embeds_two_domains(who: str, run: Callable[..., Any]) -> None:
    words = rf"{who}: one base model embeds both domains; got 2 \(resnet18, vector\). Name one with --backbone"
    with pytest.raises(ConfigError, match=words):
        run(backbones=["resnet18", vector_backbone(3)], progress=QUIET, store=False)


def test_one_name_needs_no_list() -> None:
    found = headstart.gap(ROWS, ROWS + 1, backbones="vector", measures=["energy"], progress=QUIET, store=False)
    assert found.data.source_rows == len(ROWS)


def test_what_takes_features_as_they_are_may_be_named() -> None:
    rows = open_dataset(ROWS, labels=LABELS)
    for wanted in ([], ["vector"], [vector_backbone(3)]):
        opened, left_out = open_candidates("fit", wanted, rows, QUIET)
        assert [backbone.modality for backbone in opened] == ["vector"] and not left_out


def test_a_base_model_for_other_rows_is_refused_by_the_command_s_name() -> None:
    with pytest.raises(BackboneError, match=r"adapt: .* reads vector rows, but .* holds text rows"):
        open_candidates("adapt", [vector_backbone(3)], open_dataset(["a", "b"], labels=["x", "y"]), QUIET)
