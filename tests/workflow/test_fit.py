"""The main job on small real-shaped data: every kind of target and input, what it writes, and what it refuses."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import headstart
from headstart.core.errors import BackboneError, ConfigError, DataError, GoalError
from headstart.core.progress import Progress

QUIET = Progress(quiet=True)


def _vectors(num_rows: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, num_rows)
    return (random.normal(size=(num_rows, 6)) + 2.0 * np.eye(6)[labels]).astype(np.float32), labels


def _photos(folder: Path, per_class: int = 12, seed: int = 0) -> Path:
    """Write pictures of two kinds: warm with stripes across, cold with stripes down."""
    random = np.random.default_rng(seed)
    for name, colour, axis in (("warm across", (200, 90, 40), 0), ("café", (40, 90, 200), 1)):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            stripes = np.sin(np.arange(96) / random.uniform(2, 5) + random.uniform(0, 6)) * 40
            picture = np.full((96, 96, 3), colour, float) + (
                stripes[:, None, None] if axis == 0 else stripes[None, :, None]
            )
            picture += random.normal(0, 25, (96, 96, 3))
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def _fit(source: Any, out: Path, **options: Any) -> headstart.Run:
    return headstart.fit(source, out=out, progress=Progress(quiet=True), **options)


@pytest.mark.golden
def test_vectors_become_a_model_a_report_and_a_verdict(tmp_path: Path) -> None:
    vectors, labels = _vectors()
    run = _fit(vectors, tmp_path / "run", labels=[f"class {i}" for i in labels])
    assert run.metrics["accuracy"] > 0.6  # majority is near 0.33
    assert str(run).splitlines()[0] == run.verdict
    assert {path.name for path in run.folder.iterdir()} == {
        "report.html",
        "report.json",
        "model",
        "run.toml",
        "quarantine.json",
        "rungs.json",
        "test_predictions.csv",
    }
    report = json.loads((run.folder / "report.json").read_text())
    assert report["metrics"]["accuracy"]["value"] == pytest.approx(run.metrics["accuracy"])
    frame = pd.read_csv(run.folder / "test_predictions.csv")
    assert (frame["truth"] == frame["prediction"]).mean() == pytest.approx(run.metrics["accuracy"])
    assert len(frame) == report["rows"]["test"] if isinstance(report["rows"], dict) else True


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_other_targets(kind: str, tmp_path: Path) -> None:
    vectors, _ = _vectors(160)
    if kind == "regression":
        labels: Any = vectors[:, 0] * 2 - vectors[:, 1] + 0.1
        run = _fit(vectors, tmp_path / "run", labels=labels)
        assert run.metrics["r2"] > 0.95
        answers = run.model.predict(vectors[:5])
        np.testing.assert_allclose(answers.scores, labels[:5], atol=0.3)
    else:
        labels = (vectors[:, :2] > 0).astype(int)
        run = _fit(vectors, tmp_path / "run", labels=labels, classes=["right", "up"])
        assert run.metrics["f1_macro"] > 0.85
        assert set().union(*run.model.predict(vectors[:20]).labels) <= {"right", "up"}
    assert run.report.task.kind == kind
    headstart.load_model(run.folder)


@pytest.mark.golden
def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    vectors, labels = _vectors()
    first = _fit(vectors, tmp_path / "a", labels=labels, seed=3)
    second = _fit(vectors, tmp_path / "b", labels=labels, seed=3)
    other = _fit(vectors, tmp_path / "c", labels=labels, seed=4)
    np.testing.assert_array_equal(first.predictions.scores, second.predictions.scores)
    assert first.predictions.ids == second.predictions.ids != other.predictions.ids


@pytest.mark.golden
def test_test_labels_cannot_reach_the_model(tmp_path: Path) -> None:
    """Scrambling the labels of the test rows changes the figures and nothing else."""
    vectors, labels = _vectors()
    part = np.array(["train"] * 90 + ["test"] * 30)
    scrambled = labels.copy()
    scrambled[90:] = np.random.default_rng(5).permutation((labels[90:] + 1) % 3)
    honest = _fit(vectors, tmp_path / "a", labels=labels, split=part)
    fooled = _fit(vectors, tmp_path / "b", labels=scrambled, split=part)
    np.testing.assert_array_equal(honest.model.head.weight, fooled.model.head.weight)
    np.testing.assert_array_equal(honest.predictions.scores, fooled.predictions.scores)
    assert fooled.metrics["accuracy"] < honest.metrics["accuracy"]


@pytest.mark.golden
def test_test_labels_cannot_reach_a_rung(tmp_path: Path) -> None:
    """With a goal, too: every figure and decision of the climb stays when the labels of the test rows are scrambled."""
    vectors, labels = _vectors()
    part = np.array(["train"] * 90 + ["test"] * 30)
    scrambled = labels.copy()
    scrambled[90:] = (labels[90:] + 1) % 3
    honest = _fit(vectors, tmp_path / "a", labels=labels, split=part, goal="accuracy >= 0.8")
    fooled = _fit(vectors, tmp_path / "b", labels=scrambled, split=part, goal="accuracy >= 0.8")
    climbs = [run.report.climb for run in (honest, fooled)]
    assert climbs[0] is not None and climbs[1] is not None
    for one, two in zip(climbs[0].rungs, climbs[1].rungs, strict=True):
        assert (one.value, one.low, one.high, one.decision, one.reason) == (
            two.value,
            two.low,
            two.high,
            two.decision,
            two.reason,
        )
    assert honest.report.goal is not None and fooled.report.goal is not None
    assert honest.report.goal.met and not fooled.report.goal.met


@pytest.mark.golden
def test_negative_transfer_is_said_in_verdict_report_and_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class lies in the raw input, and a base model that throws it away does worse."""
    import torch

    from headstart.backbones import Architecture, Backbone
    from headstart.core.preprocessing import ImageTransform

    random = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 160)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(40):
            picture = np.full((32, 32, 3), level) + random.normal(0, 25, (32, 32, 3))
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / "photos" / name / f"{number}.png")

    class Blind(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            corner = images[:, 0, :2, :2].flatten(1)
            return self.scale * torch.sign(corner - corner.mean(1, keepdim=True))

    blind = Backbone(Architecture("timm", "blind"), Blind().eval(), ImageTransform(32, 32), name="blind", width=4)
    run = headstart.fit(
        tmp_path / "photos",
        out=tmp_path / "run",
        backbones=[blind],
        scratch="off",
        runtime="torch-fp32",
        test=0.4,
        progress=QUIET,
    )
    assert run.transfer_helped is False
    assert run.verdict.startswith("Transfer did not help (negative transfer): ")
    assert run.report.negative_transfer.startswith("Negative transfer: raw input is better by ")
    assert run.report.negative_transfer in str(run)
    report = json.loads((run.folder / "report.json").read_text())
    assert report["negative_transfer"] == run.report.negative_transfer
    assert 'class="goal harm"' in (run.folder / "report.html").read_text()


@pytest.mark.golden
def test_random_labels_are_not_called_a_success(tmp_path: Path) -> None:
    vectors, _ = _vectors(200)
    noise = np.random.default_rng(1).integers(0, 2, 200)
    run = _fit(vectors, tmp_path / "run", labels=noise)
    assert run.transfer_helped is not True
    assert "did not help" in run.verdict or "Unclear" in run.verdict


@pytest.mark.golden
@pytest.mark.parametrize("goal", ["accuracy >= 0.2", "accuracy >= 0.999 and log_loss <= 0.0001"])
def test_a_goal_is_judged_and_said(goal: str, tmp_path: Path) -> None:
    vectors, labels = _vectors()
    run = _fit(vectors, tmp_path / "run", labels=labels, goal=goal)
    assert run.report.goal is not None
    assert run.report.goal.met is (goal == "accuracy >= 0.2")
    assert goal in str(run)


def test_nonsense_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    vectors, labels = _vectors(40)
    for options, error in (
        ({"goal": "be good"}, GoalError),
        ({"budget": "soon"}, GoalError),
        ({"haed": "ridge"}, ConfigError),
        ({"head": "rigde"}, ConfigError),
    ):
        with pytest.raises(error):
            _fit(vectors, tmp_path / "run", labels=labels, **options)
    assert not (tmp_path / "run").exists()


def test_an_output_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    vectors, labels = _vectors(40)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="no earlier run"):
        _fit(vectors, tmp_path, labels=labels)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [(["same"] * 40, "at least two classes"), (None, "no labels")],
)
def test_rows_that_cannot_teach_are_refused(labels: list[str] | None, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason):
        _fit(_vectors(40)[0], tmp_path / "run", labels=labels)


def test_an_empty_folder_and_a_missing_one(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError):
            _fit(place, tmp_path.parent / f"{tmp_path.name}-run")


@pytest.mark.golden
def test_photos_end_to_end(tmp_path: Path) -> None:
    photos = _photos(tmp_path / "photos")
    (photos / "café" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (photos / "warm across" / "twin.png").write_bytes((photos / "warm across" / "0.png").read_bytes())
    run = _fit(photos, tmp_path / "run", scratch="off", test=0.4)
    assert run.metrics["accuracy"] == 1.0
    quarantine = json.loads((run.folder / "quarantine.json").read_text())
    assert any("broken.jpg" in row for finding in quarantine for row in finding["rows"])
    new = tmp_path / "new"
    _photos(new, per_class=3, seed=9)
    answers = headstart.load_model(run.folder).predict(new)
    assert [label for label, row in zip(answers.labels, answers.ids, strict=True) if label in row] == answers.labels
    result = headstart.evaluate(run.folder, new, progress=QUIET)
    assert result.evaluation.metrics["accuracy"].value == 1.0
    config = tomllib.loads((run.folder / "run.toml").read_text())
    assert (config["source"], config["scratch"]) == (str(photos), "off")


@pytest.mark.golden
def test_a_second_run_reads_the_cache_and_gives_the_same_figures(tmp_path: Path) -> None:
    photos = _photos(tmp_path / "photos", seed=3)
    first = _fit(photos, tmp_path / "a", scratch="off")
    second = _fit(photos, tmp_path / "b", scratch="off")
    assert second.report.cost.from_cache == 24
    assert second.metrics == first.metrics
    np.testing.assert_array_equal(first.predictions.scores, second.predictions.scores)


@pytest.mark.golden
def test_models_agree_between_runtimes(tmp_path: Path) -> None:
    photos = _photos(tmp_path / "photos", seed=4)
    run = _fit(photos, tmp_path / "run", scratch="off", runtime="torch-fp32")
    plain = run.model.predict(photos, runtime="torch-fp32", store=False)
    fast = run.model.predict(photos, runtime="openvino-bf16", store=False)
    assert plain.labels == fast.labels
    np.testing.assert_allclose(plain.scores, fast.scores, atol=0.05)


@pytest.mark.golden
def test_a_base_model_for_other_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="reads image rows"):
        _fit(
            [f"text {n}" for n in range(20)], tmp_path / "run", labels=["a", "b"] * 10, backbones=["efficientnet-lite0"]
        )


@pytest.mark.golden
def test_rows_from_one_template_can_still_be_tested(tmp_path: Path) -> None:
    """A chain of near-duplicates that takes in everything must not swallow the test rows; it is said instead."""
    sentence = "dear customer, your order with the number {} has reached the warehouse in the north and looks {}"
    texts = [sentence.format(n, "broken" if n % 2 else "whole") for n in range(60)]
    run = _fit(texts, tmp_path / "run", labels=["bad" if n % 2 else "good" for n in range(60)], scratch="off")
    assert run.report.rows.test == 12
    assert any("nearly the same" in line for line in run.report.preflight)
