"""`headstart.adapt` on a saved model: what is delivered and why, figures against literal twins, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch

import headstart
from headstart.backbones import open_backbone, vector_backbone
from headstart.core.errors import ConfigError, DataError, DomainError, HeadstartError
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.data import open_dataset
from headstart.heads import NetworkHead, RidgeHead
from headstart.methods import TestTimeAdaptation
from headstart.model import Model, find_model, load_model
from headstart.model.novelty import NoveltyScorer
from headstart.workflow import evaluate, predict
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.saved_adaptation import SavedAdaptation
from small_networks import small_text_backbone

QUIET = Progress(quiet=True)
TASK = Task("classification", ("ant", "bee", "cat"))
CENTRES = np.array([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
STRETCH, MOVE = np.array([3.0, 0.4]), np.array([4.0, -2.0])


def rows_of(seed: int, moved: bool, per_class: int = 30) -> tuple[np.ndarray, list[str]]:
    """Return three clouds, as they were or stretched and moved, and their classes."""
    draws = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], per_class)
    rows = CENTRES[labels] + 0.5 * draws.normal(size=(len(labels), 2))
    rows = rows * STRETCH + MOVE if moved else rows
    return rows.astype(np.float32), [TASK.classes[label] for label in labels]


@pytest.fixture
def model() -> Model:
    """A model of the clouds as they were, which keeps the moments of its training rows."""
    head = NetworkHead("linear", 2, TASK)
    with torch.no_grad():
        head.module[0].weight.copy_(torch.from_numpy(CENTRES))
        head.module[0].bias.copy_(torch.from_numpy(-0.5 * (CENTRES**2).sum(1)))
    novelty = NoveltyScorer("standardised").fit(rows_of(0, False)[0])
    provenance = {
        "title": "clouds",
        "verdict": "It was good.",
        "metrics": {"accuracy": {"value": 1, "low": 1, "high": 1}},
    }
    return Model(vector_backbone(2), head, TASK, novelty, provenance=provenance)


def run(model: Any, target: Any, methods: Any = "moments", **options: Any) -> SavedAdaptation:
    found = headstart.adapt(model, target, methods=methods, progress=QUIET, **{"store": False, **options})
    assert isinstance(found, SavedAdaptation)
    return found


def test_one_method_is_delivered_with_its_figures(model: Model, tmp_path: Path) -> None:
    target, labels = rows_of(1, True)
    model.save(tmp_path / "run" / "model")
    found = run(tmp_path / "run", target, target_labels=labels)
    direct = TestTimeAdaptation("moments").fit(model, open_dataset(target, unlabelled=True), store=False)
    before, after = (item.predict(target, store=False) for item in (model, direct))
    np.testing.assert_array_equal(found.answered.target_scores, after.scores)
    assert found.selection.chosen == "moments" and "was asked for" in found.selection.reason
    right = [float(np.mean(np.array(item.labels) == labels)) for item in (before, after)]
    assert right[1] > right[0] + 0.2
    stays, line = found.lines
    assert (stays.name, line.name, stays.changed) == (NO_ADAPTATION, "moments", 0.0)
    assert line.changed == np.mean([a != b for a, b in zip(before.labels, after.labels, strict=True)])
    twin = -np.mean([sum(p * np.log(p) for p in row if p > 0) for row in after.scores])
    assert line.entropy == pytest.approx(twin, rel=1e-9)
    train = rows_of(0, False)[0].astype(np.float64)
    back = (target - target.mean(0)) / target.std(0) * train.std(0) + train.mean(0)
    for seen, share in ((target, stays.unlike), (back, line.unlike)):
        gaps = np.linalg.norm(seen[:, None] / train.std(0) - train / train.std(0), axis=2).min(1)
        assert share == pytest.approx(np.mean(gaps > model.novelty.threshold), abs=2 / 90)  # type: ignore[union-attr]
    assert stays.unlike is not None and line.unlike is not None and line.unlike < stays.unlike - 0.3
    assert found.hindsight is not None and found.hindsight.word == "Adapting helped"
    assert (found.hindsight.source_only.value, found.hindsight.selected.value) == tuple(map(pytest.approx, right))
    assert "the model as it was" in str(found) and "unlike training" in str(found) and "source only" not in str(found)


@pytest.mark.golden
def test_what_is_saved_answers_and_says_where_it_came_from(model: Model, tmp_path: Path) -> None:
    target, labels = rows_of(1, True)
    out = tmp_path / "out"
    found = run(model.save(tmp_path / "clouds"), target, target_labels=labels, out=out)
    stated = pd.read_csv(out / "predictions.csv")
    again = predict(out, target, progress=QUIET, store=False)
    np.testing.assert_allclose(again.scores, stated[[f"p({name})" for name in TASK.classes]], atol=1e-6)
    assert again.labels == list(stated["class"]) == list(found.predictions)
    assert (
        evaluate(out, *rows_of(2, True)[:1], labels=rows_of(2, True)[1], store=False)
        .evaluation.metrics["accuracy"]
        .value
        > 0.9
    )
    about = load_model(out).provenance
    assert about["test_time"]["method"] == "moments" and about["test_time"]["target"]["rows"] == 90
    assert about["metrics"]["accuracy"]["value"] == found.hindsight.selected.value  # type: ignore[union-attr]
    card = (out / "model" / "README.md").read_text()
    assert (
        "clouds, adapted to target" in card
        and "then adapted: `moments` on 90 rows" in card
        and "It was good" not in card
    )
    page, contract = (out / "adapt.html").read_text(), json.loads((out / "adapt.json").read_text())
    assert "a saved model" in page and "source rows are gone" in page and "How far apart</h2>" not in page
    assert contract["rows"] == {"source": None, "target": 90} and contract["gap"] == []
    assert contract["saved_model"]["unlike_training"]["after"] == found.lines[1].unlike
    assert contract["command"].startswith("headstart adapt ") and "--method moments" in contract["command"]
    assert model.provenance["title"] == "clouds"  # the one that was given stays


@pytest.mark.golden
def test_of_several_none_is_chosen_and_all_are_reported(model: Model, tmp_path: Path) -> None:
    target, labels = rows_of(1, True)
    found = run(model, target, ["moments", "lame"], target_labels=labels, out=tmp_path / "out")
    assert found.selection.chosen == NO_ADAPTATION and "None of moments, lame was chosen" in found.selection.reason
    assert [line.name for line in found.lines] == [NO_ADAPTATION, "moments", "lame"]
    assert found.hindsight is not None and found.hindsight.oracle_name == "moments"
    np.testing.assert_array_equal(found.answered.target_scores, model.predict(target, store=False).scores)
    saved = load_model(tmp_path / "out")
    np.testing.assert_array_equal(saved.predict(target, store=False).scores, found.answered.target_scores)
    assert saved.provenance == model.provenance and "test_time" not in saved.provenance
    assert "The model is the model as it was." in (tmp_path / "out" / "adapt.html").read_text()


def test_a_method_that_does_not_suit_the_model_is_named_beside_one_that_does(model: Model) -> None:
    found = run(model, rows_of(1, True)[0], ["tent", "moments"])
    assert [item.found is None for item in found.candidates] == [False, True, False]
    assert "left out: tent: TestTimeAdaptation: tent trains scale and shift" in str(found)


def test_few_labelled_rows_choose(model: Model) -> None:
    target, (few, kinds) = rows_of(1, True)[0], rows_of(5, True, per_class=10)
    found = run(model, target, ["lame", "moments"], few=few, few_labels=kinds)
    assert found.selection.chosen == "moments" and found.selection.rule == "FewLabelTest"
    moved = TestTimeAdaptation("moments").fit(model, open_dataset(target, unlabelled=True), store=False)
    assert found.selection.scores["moments"].value == np.mean(np.array(moved.predict(few, store=False).labels) == kinds)
    assert "by labelled target rows" in found.selection.reason and found.chosen_by == "by 30 labelled target rows"
    assert "score" in str(found).splitlines()[2]
    assert found.model.provenance["test_time"]["labelled_target_rows"] == 30
    same, (few, kinds) = rows_of(1, False)[0], rows_of(5, False, per_class=10)
    stays = run(model, same, "moments", few=few, few_labels=kinds)
    assert stays.selection.chosen == NO_ADAPTATION


def test_too_few_labelled_rows_do_not_choose(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    few, kinds = rows_of(5, True, per_class=4)
    found = headstart.adapt(
        model, rows_of(1, True)[0], methods="moments", few=few, few_labels=kinds, store=False, progress=Progress()
    )
    assert found.selection.chosen == "moments"
    said = capsys.readouterr()
    assert (
        "do not choose: 4 labelled target rows of class 'ant', and 5 of every class could choose" in said.out + said.err
    )


def test_labelled_rows_that_will_not_do_are_refused(model: Model) -> None:
    target, labels = rows_of(1, True)
    with pytest.raises(DataError, match="among the target rows too"):
        run(model, target, target_labels=labels, few=target[:30], few_labels=labels[:30])
    with pytest.raises(DataError, match="name 'dog', a class the source does not have"):
        run(model, target, few=target[:2], few_labels=["ant", "dog"])
    with pytest.raises(DataError, match="no labels"):
        run(model, target, few=open_dataset(target[:5], unlabelled=True))


def test_rows_of_other_classes_count_as_wrong(model: Model) -> None:
    target, labels = rows_of(1, True)
    found = run(model, target, target_labels=[*labels[:-30], *["dog"] * 30])
    assert found.hindsight is not None and found.hindsight.unknown == 30 and found.hindsight.selected.value < 0.68


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"objectives": "ce + coral"}, "--objectives is not for a saved model: a joint loss reads source rows"),
        ({"strategy": "full"}, "--strategy is not for a saved model"),
        ({"rule": "infomax"}, "--rule is not for a saved model: rules judge by source rows"),
        ({"budget": "1min"}, "--budget is not for a saved model"),
        ({"backbones": ["resnet18"]}, "--backbone is not for a saved model: the model has its own"),
        ({"labels": ["ant"]}, "--labels is not for a saved model"),
        ({"task": "regression"}, "the model answers classification"),
        ({"split": "part"}, "there is no option 'split'"),
        (
            {"methods": ()},
            r"say how to adapt a saved model.*tent, eata, adabn, moments or lame \(tent: scale and shift.*lame: near",
        ),
        ({"methods": "coral"}, "coral learns from source rows with labels"),
        ({"methods": "dann"}, "dann learns from source rows with labels"),
        ({"methods": "moment"}, "Did you mean 'moments'"),
        ({"methods": "tent"}, "has none; use 'lame'"),
        ({"methods": "adabn"}, "statistics of batch normalisation"),
    ],
)
def test_what_cannot_be_without_source_rows_is_refused_by_name(
    model: Model, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        run(model, rows_of(1, True)[0], **options)


def test_rows_that_the_model_cannot_read_are_refused(model: Model, tmp_path: Path) -> None:
    target = rows_of(1, True)[0]
    with pytest.raises(DomainError, match="reads vector rows but target holds text rows"):
        run(model, ["a text", "another"])
    with pytest.raises(DomainError, match="reads 2 feature columns but target has 3"):
        run(model, np.ones((5, 3), np.float32))
    with pytest.raises(DataError, match="at least two target rows"):
        run(model, target[:1])
    named = replace(model, feature_names=("a", "b"))
    pd.DataFrame(target, columns=["b", "c"]).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match="'a'"):
        run(named, tmp_path / "rows.csv")
    turned = pd.DataFrame(target[:, ::-1], columns=["b", "a"])  # columns are read by name
    np.testing.assert_array_equal(run(named, turned).answered.target_scores, run(model, target).answered.target_scores)


def test_two_rows_are_enough(model: Model) -> None:
    assert len(run(model, rows_of(1, True)[0][:2], ["moments", "lame"]).ids) == 2


def test_a_model_is_known_by_its_folder_and_stands_alone(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "run" / "model")
    assert find_model(tmp_path / "run") == find_model(str(tmp_path / "run" / "model")) == tmp_path / "run" / "model"
    assert find_model(tmp_path) is None and find_model("x" * 9000) is None
    (tmp_path / "photos").mkdir()
    with pytest.raises(ConfigError, match="adapted by itself"):
        headstart.adapt([tmp_path / "run", tmp_path / "photos"], tmp_path / "photos", progress=QUIET)


def test_a_model_without_kept_rows_says_so(model: Model) -> None:
    bare = replace(model, novelty=None)
    with pytest.raises(ConfigError, match="keeps none of its training rows"):
        run(bare, rows_of(1, True)[0])
    found = run(bare, rows_of(1, True)[0], "lame")
    assert [line.unlike for line in found.lines] == [None, None]


@pytest.mark.golden
def test_a_model_that_adapt_saved_is_corrected_once(tmp_path: Path) -> None:
    source, labels = rows_of(0, False)
    headstart.adapt(
        source, rows_of(1, False)[0], labels=labels, methods="coral", out=tmp_path / "first", progress=QUIET
    )
    target = rows_of(3, False)[0]
    found = run(tmp_path / "first", target, "lame", out=tmp_path / "second")
    np.testing.assert_allclose(
        load_model(tmp_path / "second").predict(target, store=False).scores, found.answered.target_scores, atol=1e-6
    )
    with pytest.raises(ConfigError, match="no torch network"):
        run(tmp_path / "first", target, "moments")
    with pytest.raises(ConfigError, match="corrected by target rows already"):
        run(tmp_path / "second", target, "lame")


def test_numbers_are_adapted_by_statistics_alone(model: Model) -> None:
    rows = rows_of(0, False)[0]
    head = RidgeHead().fit(rows, rows @ np.array([1.0, 2.0], np.float32), Task("regression"))
    numbers = Model(vector_backbone(2), head, head.task, NoveltyScorer("standardised").fit(rows))
    for method in ("tent", "lame", "moments"):
        with pytest.raises(ConfigError, match="answers regression"):
            run(numbers, rows, method)


# --- networks


def image_model(task: Task) -> tuple[Model, np.ndarray]:
    """Return a small network with batch normalisation and a linear head, and pictures."""
    torch.manual_seed(0)
    backbone = open_backbone(timm.create_model("test_resnet", num_classes=10), input_size=32)
    pictures = np.random.default_rng(0).integers(0, 255, size=(24, 32, 32, 3)).astype(np.uint8)
    made = Model(backbone, NetworkHead("linear", backbone.width, task), task)
    rows = open_dataset(pictures, unlabelled=True)
    made.novelty = NoveltyScorer().fit(made.features(rows, store=False, runtime="torch-fp32").values_nd)
    return made, (pictures * 0.4).astype(np.uint8)


@pytest.mark.golden
@pytest.mark.parametrize("method", ["tent", "eata", "adabn", "moments", "lame"])
def test_a_network_with_fewer_rows_than_a_batch(method: str, tmp_path: Path) -> None:
    model, target = image_model(TASK)
    before = {name: tensor.clone() for name, tensor in model.backbone.module.state_dict().items()}
    found = run(model, target, method, runtime="torch-fp32", out=tmp_path / "out")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.backbone.module.state_dict().items())
    again = load_model(tmp_path / "out").predict(target, store=False, runtime="torch-fp32")
    np.testing.assert_allclose(again.scores, found.answered.target_scores, atol=1e-6)
    moved = load_model(tmp_path / "out").backbone.weights_digest != model.backbone.weights_digest
    assert moved == (method in {"tent", "eata", "adabn"})
    assert found.lines[1].unlike is not None and found.folder == tmp_path / "out"


@pytest.mark.golden
def test_a_solved_head_on_a_frozen_base_is_carried_along() -> None:
    model, target = image_model(TASK)
    features = model.features(open_dataset(target, unlabelled=True), store=False).values_nd
    solved = RidgeHead().fit(features, np.arange(24) % 3, TASK)
    found = run(replace(model, head=solved), target, "tent", runtime="torch-fp32")
    assert found.answered.model.head is solved and found.answered.model.provenance["test_time"]["steps"] > 0
    assert "learned nothing from the training rows" in found.selection.reason
    model.backbone.origin = "fine-tuned from a network"
    assert "learned nothing" not in run(replace(model, head=solved), target, "adabn").selection.reason


@pytest.mark.golden
def test_numbers_and_several_labels_a_row(tmp_path: Path) -> None:
    model, target = image_model(Task("regression"))
    draws = np.random.default_rng(1)
    found = run(
        model, target, "adabn", runtime="torch-fp32", target_labels=draws.normal(size=24), out=tmp_path / "numbers"
    )
    assert found.hindsight is not None and found.hindsight.metric == "rmse" and found.lines[1].changed is None
    assert pd.read_csv(tmp_path / "numbers" / "predictions.csv").columns.tolist() == ["row", "value"]
    few = (target[:12] // 2, found.stays.target_scores[:12] + draws.normal(size=12))
    chosen = run(model, target, "adabn", runtime="torch-fp32", few=few[0], few_labels=few[1])
    assert chosen.selection.rule == "FewValueTest" and chosen.selection.scores["adabn"].is_judged
    several = Task("multilabel", ("dark", "round"))
    model, target = image_model(several)
    found = run(
        model,
        target,
        "adabn",
        runtime="torch-fp32",
        target_labels=draws.integers(0, 2, size=(24, 2)),
        out=tmp_path / "several",
    )
    assert found.hindsight is None or found.hindsight.metric == "f1_macro"
    assert found.lines[1].changed is not None
    with pytest.raises(ConfigError, match=r"answers multilabel.*Only 'adabn'"):
        run(model, target, "tent", runtime="torch-fp32")
    with pytest.raises(ConfigError, match="gives several labels"):
        run(model, target, "adabn", runtime="torch-fp32", few=target[:2], few_labels=[[0, 1], [1, 0]])


@pytest.mark.golden
def test_texts_train_layer_normalisation_and_have_no_statistics() -> None:
    backbone = small_text_backbone()
    model = Model(backbone, NetworkHead("linear", backbone.width, TASK), TASK)
    texts = [f"w{place} w{place + 1} w{(place * 7) % 40 + 1}" for place in range(1, 13)]
    found = run(model, texts, "tent", runtime="torch-fp32")
    assert found.answered.model.provenance["test_time"]["layers"] == "layer"
    with pytest.raises(HeadstartError, match="use 'tent'"):
        run(model, texts, "adabn", runtime="torch-fp32")
