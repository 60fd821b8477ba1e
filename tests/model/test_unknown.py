"""Models that may answer "unknown": the rule, and what is saved."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.backbones import vector_backbone
from headstart.core.errors import ConfigError, ModelError
from headstart.data import open_dataset
from headstart.features import extract_features
from headstart.methods import FeatureExtraction
from headstart.methods.adaptations import AdaptationRecipe
from headstart.model import Model, load_model
from headstart.model.predictions import entropy_above
from headstart.objectives import CrossEntropy
from headstart.training import Phase


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda row: sum(row) > 0.01), st.floats(0.1, 0.9))
def test_the_rule_is_the_entropy_of_the_probabilities(row: list[float], share: float) -> None:
    scores = [value / sum(row) for value in row]
    entropy = -sum(value * math.log(value) for value in scores if value > 0)
    edge = abs(entropy - share * math.log(len(row))) < 1e-9
    assert edge or entropy_above(np.array([scores]), share).tolist() == [entropy > share * math.log(len(row))]


def test_a_share_lies_between_none_and_all() -> None:
    with pytest.raises(ConfigError, match=r"unknown_above lies in \(0, 1\); got 1"):
        AdaptationRecipe((Phase((CrossEntropy(),)),), unknown_above=1.0)


@pytest.fixture
def model() -> Model:
    """Knows two classes far apart."""
    rows = np.repeat([[0.0, 0.0], [3.0, 3.0]], 30, axis=0) + np.random.default_rng(0).normal(size=(60, 2))
    data = open_dataset(rows.astype(np.float32), labels=["near"] * 30 + ["far"] * 30)
    assert data.targets is not None and data.task is not None
    backbone = vector_backbone(2)
    return FeatureExtraction().fit(backbone, extract_features(data, backbone, store=False), data.targets, data.task)


def test_a_model_answers_unknown_only_where_it_was_prepared_for_it(model: Model, tmp_path: Path) -> None:
    rows = np.array([[0.0, 0.0], [1.5, 1.5], [3.0, 3.0]], np.float32)
    plain = model.predict(rows, store=False)
    assert plain.unknown_n is None
    assert "unknown_above" not in (model.save(tmp_path / "plain") / "model.json").read_text()
    model.unknown_above = 0.9
    loaded = load_model(model.save(tmp_path / "prepared"))
    said = loaded.predict(rows, store=False)
    assert said.labels == ["near", "unknown", "far"]
    assert said.to_frame()["prediction"].tolist() == said.labels
    np.testing.assert_array_equal(said.scores, plain.scores)
    assert "above 90 % of the largest" in (tmp_path / "prepared" / "README.md").read_text()
    assert "unknown" not in (tmp_path / "plain" / "README.md").read_text().split("## Use")[0].split("## Classes")[1]


@pytest.mark.parametrize("value", [2.0, True])
def test_a_folder_with_another_share_is_refused(model: Model, tmp_path: Path, value: float) -> None:
    model.unknown_above = value
    folder = tmp_path / "model"
    model.save(folder)
    with pytest.raises(ModelError, match="lacks or misstates unknown_above"):
        load_model(folder)


def test_rows_of_other_classes_are_measured_where_a_model_may_say_so(model: Model) -> None:
    from headstart.workflow import evaluate

    rows = np.array([[0.0, 0.0], [3.0, 3.0], [3.0, 2.9], [1.5, 1.5], [1.55, 1.5]], np.float32)
    labels = ["near", "far", "near", "between", "between"]
    plain = evaluate(model, rows, labels=labels, store=False)
    assert plain.open_set is None and plain.rows == 3
    model.unknown_above = 0.9
    found = evaluate(model, rows, labels=labels, store=False)
    assert found.open_set is not None and found.rows == 3 and found.open_set.num_unknown == 2
    assert found.open_set.known.value == 0.75  # far: one of one; near: one of two
    assert found.open_set.unknown.value == 1.0
    assert found.open_set.both.value == pytest.approx(2 * 0.75 / 1.75)
    assert found.evaluation.metrics["accuracy"].value == plain.evaluation.metrics["accuracy"].value
    assert "2 rows of other classes answered unknown" in str(found)
    assert found.to_dict()["open_set"]["num_unknown"] == 2
