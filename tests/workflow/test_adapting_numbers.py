"""`headstart adapt` where labels are numbers: who is chosen, what the seal hides, what is printed and written, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import headstart
from headstart.catalog import entries
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Progress
from headstart.evaluation.selection import FailedCandidate, ValueEvidence
from headstart.metrics import root_mean_squared_error
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.value_adaptations import try_value_candidates
from headstart.workflow.value_candidates import base_regressor, make_value_candidates, value_aligners

QUIET = Progress(quiet=True)


def stretched(num_rows: int = 160, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Return a source, its numbers, the same kind of rows measured by another instrument (gain and offset), and their numbers."""
    draws = np.random.default_rng(seed)
    source, target = draws.normal(size=(2, num_rows, 3))
    direction = np.array([2.0, -1.0, 0.5])
    values, truth = (rows @ direction + 0.2 * draws.normal(size=num_rows) for rows in (source, target))
    return source, values, target * [1.8, 0.6, 1.0] + [1.5, -1.0, 0.0], truth


def adapted(**options: Any) -> headstart.Adaptation:
    source, values, target, _ = stretched()
    given: dict[str, Any] = {"labels": list(values), "methods": ["coral"], "progress": QUIET, "store": False}
    return headstart.adapt(source, target, **{**given, **options})


def bent(num_rows: int = 300, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Return rows of one curve, seen mostly at its beginning by the source and at its end by the target: covariate shift."""
    draws = np.random.default_rng(seed)
    source, target = draws.normal(0.0, 1.0, size=(num_rows, 1)), draws.normal(1.2, 0.5, size=(num_rows, 1))
    values, truth = (np.sinc(rows[:, 0]) + 0.05 * draws.normal(size=num_rows) for rows in (source, target))
    return source, values, target, truth


@pytest.mark.golden
def test_a_straight_line_is_laid_where_the_target_is() -> None:
    """The textbook case of reweighting (Sugiyama et al. 2007): a line through a curve must lie where the target's rows are."""
    source, values, target, truth = bent()
    found = headstart.adapt(
        source,
        target,
        labels=list(values),
        target_labels=list(truth),
        methods=["ulsif", "coral"],
        rule="importance-weighted",
        progress=QUIET,
        store=False,
    )
    assert found.selection.chosen == "ulsif" and found.hindsight is not None
    assert found.values_m is not None and found.predictions == tuple(found.values_m.tolist())
    assert found.hindsight.metric == "rmse"
    assert found.hindsight.selected.value == pytest.approx(root_mean_squared_error(truth, found.values_m))
    assert found.hindsight.selected.value < 0.7 * found.hindsight.source_only.value
    assert found.hindsight.test is not None and found.hindsight.test.difference > 0
    assert set(found.hindsight.further) == {"mae", "r2"}
    shown = str(found)
    assert "RMSE" in shown and "R²" in shown and "Adapting helped" in shown and "changes" not in shown


def test_an_instrument_of_another_gain_is_seen_by_no_rule_and_hindsight_says_so() -> None:
    """A linear source model explains the source wholly, there and back: nothing without labels shows that the target is bent."""
    truth = stretched()[3]
    for rule in ("circular-validation", "importance-weighted", "dev", "source-accuracy"):
        found = adapted(target_labels=list(truth), rule=rule, methods=["moment-matching"])
        assert found.selection.chosen == NO_ADAPTATION and found.hindsight is not None
        assert found.hindsight.oracle_name == "moment-matching"
        assert found.hindsight.oracle.value < 0.5 * found.hindsight.source_only.value


def test_numbers_of_the_target_choose_nothing() -> None:
    truth = list(stretched()[3])
    right, wrong, none = adapted(target_labels=truth), adapted(target_labels=truth[::-1]), adapted()
    for other in (wrong, none):
        assert other.selection == right.selection
        np.testing.assert_array_equal(other.values_m, right.values_m)
    assert none.hindsight is None and "RMSE" not in str(none)
    assert right.domains.truth is not None and right.domains.truth.opened_for


@pytest.mark.parametrize("rule", ["circular-validation", "importance-weighted", "dev", "source-accuracy"])
def test_without_a_shift_no_rule_adapts_for_a_gain_that_is_not_there(rule: str) -> None:
    source, values, _, _ = stretched()
    found = headstart.adapt(
        source,
        source.copy(),
        labels=list(values),
        methods=["coral", "gaussian-ratio"],
        rule=rule,
        progress=QUIET,
        store=False,
    )
    assert found.selection.chosen == NO_ADAPTATION
    assert all(line.score is not None for line in found.lines)


@pytest.mark.golden
def test_the_folder_holds_numbers_and_a_model_that_predicts_them(tmp_path: Path) -> None:
    _, _, target, truth = stretched()
    found = adapted(out=tmp_path / "out", target_labels=list(truth), rule="dev")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(table.columns) == ["row", "value"] and len(table) == 160
    np.testing.assert_allclose(table["value"], found.values_m)
    about = json.loads((tmp_path / "out" / "adapt.json").read_text())
    assert about["hindsight"]["metric"] == "rmse" and set(about["hindsight"]["further"]) == {"mae", "r2"}
    assert (tmp_path / "out" / "adapt.html").read_text().count("RMSE") > 0
    model = headstart.load_model(tmp_path / "out" / "model")
    assert model.task.kind == "regression"
    again = model.predict(target)
    np.testing.assert_allclose(again.scores, found.values_m, rtol=1e-4, atol=1e-4)


@pytest.mark.golden
def test_every_aligner_that_serves_numbers_competes_or_says_why() -> None:
    source, values, target, _ = stretched(80)
    rivals = try_value_candidates(
        make_value_candidates(value_aligners(), base_regressor(source, values)),
        source,
        values,
        target,
        needs=frozenset({"source_values_v", "source_features_vr", "target_features_mr", "refit", "target_rows_md"}),
    )
    assert rivals[0].name == NO_ADAPTATION and len(rivals) == len(value_aligners()) + 1
    held_out = None
    for rival in rivals:
        if isinstance(rival.evidence, FailedCandidate):
            assert rival.evidence.reason
            continue
        assert isinstance(rival.evidence, ValueEvidence)
        assert {"source_values_v", "source_features_vr", "refit"} <= rival.evidence.available
        rows = {tuple(row) for row in rival.evidence.source_rows_vd}
        assert len(rows) == 20 and not rows & {tuple(row) for row in rival.evidence.source_training_nd}
        held_out = held_out or rows
        assert rows == held_out
    assert sum(isinstance(rival.evidence, ValueEvidence) for rival in rivals) >= 15


@pytest.mark.golden
def test_red_and_white_wines(shared_data: Path) -> None:
    """Quality as a number, 500 of each: R2 hardly exceeds 0 either way, and what is chosen is never much worse than staying."""
    table = pd.read_parquet(shared_data / "tab_wine_quality" / "wine_quality.parquet")
    parts = {colour: part.drop(columns="color").head(500) for colour, part in table.groupby("color")}
    for one, other in (("red", "white"), ("white", "red")):
        found = headstart.adapt(
            parts[one], parts[other], label="quality", task="regression", progress=QUIET, store=False
        )
        assert found.hindsight is not None
        assert found.hindsight.selected.value <= found.hindsight.source_only.value * 1.05
        assert found.hindsight.oracle.value <= found.hindsight.source_only.value
        r2 = found.hindsight.further["r2"][0]
        assert r2.low < r2.value < r2.high


def test_what_will_not_do_is_refused_with_what_will() -> None:
    with pytest.raises(
        ConfigError, match=r"judges probabilities of classes.*circular-validation.*importance-weighted"
    ) as error:
        adapted(rule="entropy")
    named = [entry.name for entry in entries("rule") if entry.load()().for_values() is not None]
    assert all(name in str(error.value) for name in named) and "snd" not in str(error.value)
    with pytest.raises(ConfigError, match=r"jda reads classes.*coral"):
        adapted(methods=["jda"])
    with pytest.raises(ConfigError, match="adapt: mcc: MCC reads probabilities of classes, and the labels are numbers"):
        adapted(methods=["mcc"])
    with pytest.raises(ConfigError, match=r"ce \+ entropy: Entropy reads probabilities of classes"):
        adapted(methods=[], objectives="ce + entropy")
    with pytest.raises(ConfigError, match="tradaboost-r2 learns from labelled target rows"):
        adapted(methods=["tradaboost-r2"])
    with pytest.raises(DataError, match="two different numbers"):
        adapted(labels=[0.5] * 160, task="regression")


@pytest.mark.golden
@pytest.mark.parametrize("rule", ["circular-validation", "dev"])
def test_networks_compete_for_numbers_and_become_models(rule: str, tmp_path: Path) -> None:
    from dataclasses import replace

    source, values, target, truth = stretched(60)
    found = headstart.adapt(
        source,
        target,
        labels=list(values),
        target_labels=list(truth),
        methods=["coral", "cmd"],
        objectives="ce + 0.5*coral",
        rule=rule,
        progress=QUIET,
        store=False,
    )
    assert [line.name for line in found.lines] == [NO_ADAPTATION, "coral", "cmd", "ce + 0.5*coral"]
    assert all(line.score is not None for line in found.lines), [line.note for line in found.lines]
    chosen = replace(found, selection=replace(found.selection, chosen="cmd"))
    loaded = headstart.load_model(chosen.model.save(tmp_path / "cmd"))
    fitted = chosen.rival.fitted
    assert fitted is not None and fitted.target_scores.shape == (60,)
    np.testing.assert_allclose(loaded.predict(target, store=False).scores, fitted.target_scores, rtol=1e-5)


@pytest.mark.golden
def test_stages_compete_for_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import timm
    import torch

    from headstart.backbones import open_backbone

    torch.manual_seed(0)
    network = open_backbone(timm.create_model("test_resnet", num_classes=10), input_size=32)
    monkeypatch.setattr("headstart.methods.deep_adaptation.steps_to_epochs", lambda *_: 2)
    light = np.linspace(20, 200, 24)
    draws = np.random.default_rng(0)
    pictures = (light[:, None, None, None] + draws.normal(0, 10, (24, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    found = headstart.adapt(
        pictures[::2],
        pictures[1::2],
        labels=list(1000 + light[::2]),
        task="regression",
        methods=["dan", "fda"],
        strategy="last-stages:1",
        backbones=[network],
        runtime="torch-fp32",
        progress=QUIET,
        store=False,
        out=tmp_path / "out",
    )
    assert [line.name for line in found.lines] == [NO_ADAPTATION, "source-only", "dan", "fda"]
    assert all(line.score is not None for line in found.lines), [line.note for line in found.lines]
    assert found.values_m is not None and 900 < found.values_m.mean() < 1300


def test_some_target_rows_may_have_a_number() -> None:
    """The others are answered all the same, and count for nothing afterwards."""
    source, values, target, truth = stretched()
    table = pd.DataFrame(source, columns=list("abc")).assign(value=values)
    some = pd.DataFrame(target, columns=list("abc")).assign(value=truth)
    some.loc[some.index % 4 > 0, "value"] = np.nan
    found = headstart.adapt(table, some, label="value", methods=["coral"], progress=QUIET, store=False)
    assert found.values_m is not None and len(found.values_m) == 160 and found.hindsight is not None
    assert found.hindsight.rows == 40
    known = found.rivals[0].fitted
    assert known is not None
    expected = root_mean_squared_error(truth[::4], known.target_scores[::4])
    assert found.hindsight.source_only.value == pytest.approx(expected)
    assert found.truth is not None and found.truth[0] == f"{truth[0]:g}" and found.truth[1:4] == (None, None, None)
