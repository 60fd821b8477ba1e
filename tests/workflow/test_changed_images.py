"""`headstart adapt --method fda,cyclegan,cycada`: source images are changed, judged there and back, and kept in no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import headstart
from headstart.backbones import Backbone, vector_backbone
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Progress
from headstart.data import Dataset, decode_image, open_dataset
from headstart.methods.image_translation import (
    CyCADATranslation,
    FourierTranslation,
    GeneratorTranslation,
    SourceTranslation,
    swap_amplitude,
)
from headstart.workflow.candidates_of_adapt import read_candidates
from headstart.workflow.changed_images import ChangedImages, TracedRows
from headstart.workflow.clock import BudgetSpent
from headstart.workflow.domains import open_two_domains
from headstart.workflow.entrants import Room
from headstart.workflow.features_to_rows import RowsOfFeatures
from striped_pictures import a_killed_adapt_ends_as_a_whole_one, small_residual, striped

QUIET = Progress(quiet=True)
SHORT = {"side": 8, "num_steps": 4, "width": 4, "num_blocks": 1}


def domains(num_source: int = 24, num_target: int = 20) -> tuple[Dataset, Dataset]:
    source, labels = striped(num_source, 0, 0)
    return open_dataset(source, labels=labels), open_dataset(striped(num_target, 60, 1)[0], unlabelled=True)


@pytest.fixture(scope="module")
def network() -> Backbone:
    return small_residual()


def test_a_fourier_row_has_a_target_row_s_amplitudes_and_all_else_its_own(network: Backbone) -> None:
    source, target = domains()
    change = FourierTranslation(0.1, seed=3).learn(source, target, network)
    changed = change(source)
    assert changed.ids == source.ids and changed.task == source.task
    assert changed.targets is not None and np.array_equal(changed.targets, source.targets)  # type: ignore[arg-type]
    transform = network.transform
    whole = type(transform)(**{**vars(transform), "height": transform.resize_height, "width": transform.resize_width})  # type: ignore[union-attr]
    whole = type(transform)(**{**vars(whole), "crop_fraction": 1.0})

    def unit(rows: Dataset, place: int) -> torch.Tensor:
        return torch.from_numpy(decode_image(rows.read(place), whole)).permute(2, 0, 1)[None] / 255  # type: ignore[arg-type]

    for place in (0, 5):
        found = torch.from_numpy(np.asarray(changed.read(place))).permute(2, 0, 1)[None] / 255
        options = [
            swap_amplitude(unit(source, place), unit(target, other), 0.1).clamp(0, 1) for other in range(len(target))
        ]
        assert min(float((found - option).abs().max()) for option in options) < 0.5 / 255 + 1e-6


def test_of_an_enlarged_image_the_share_is_that_of_its_own_frequencies(network: Backbone) -> None:
    random = np.random.default_rng(0)
    small = open_dataset(random.integers(0, 255, (6, 12, 16, 3)).astype(np.uint8), labels=["a", "b"] * 3)
    large = open_dataset(striped(5, 60, 1)[0], unlabelled=True)
    transform = network.transform
    whole = type(transform)(**{**vars(transform), "height": transform.resize_height, "width": transform.resize_width})  # type: ignore[union-attr]
    whole = type(transform)(**{**vars(whole), "crop_fraction": 1.0})

    def seen(rows: Dataset, place: int) -> np.ndarray:
        return decode_image(rows.read(place), whole).transpose(2, 0, 1)[None] / 255  # type: ignore[arg-type]

    def twin(source: np.ndarray, target: np.ndarray, reach: int) -> np.ndarray:
        first, second = np.fft.fft2(source), np.fft.fft2(target)
        height, width = source.shape[-2:]
        rows, columns = (np.abs(np.fft.fftfreq(size) * size).round() <= reach for size in (height, width))
        low = rows[:, None] & columns[None, :]
        mixed = np.where(low, np.abs(second), np.abs(first)) * np.exp(1j * np.angle(first))
        return np.fft.ifft2(mixed).real.clip(0, 1)

    for size, reach in ((0.05, 0), (0.25, 3)):  # of 12 pixels, in either direction
        for source, target in ((small, large), (large, small)):
            change = FourierTranslation(size, seed=3).learn(source, target, network)
            found = np.asarray(change(source).read(2)).transpose(2, 0, 1)[None] / 255
            options = [twin(seen(source, 2), seen(target, other), reach) for other in range(len(target))]
            assert min(float(np.abs(found - option).max()) for option in options) < 0.5 / 255 + 1e-5


@pytest.mark.parametrize(
    "translation",
    [
        FourierTranslation(),
        pytest.param(GeneratorTranslation(**SHORT), marks=pytest.mark.golden),
        pytest.param(CyCADATranslation(**SHORT), marks=pytest.mark.golden),
    ],
)
def test_rows_are_changed_the_same_under_a_seed_and_others_are_known_apart(
    translation: SourceTranslation, network: Backbone
) -> None:
    from dataclasses import replace

    source, target = domains()
    first, again, other = (replace(translation, seed=seed).learn(source, target, network)(source) for seed in (0, 0, 1))
    assert first.digests() == again.digests()
    assert first.digests() != other.digests() and not set(first.digests()) & set(source.digests())
    rows = [np.stack([np.asarray(item.read(place)) for place in range(4)]) for item in (first, again, other)]
    assert np.array_equal(rows[0], rows[1]) and not np.array_equal(rows[0], rows[2])
    part = first.subset([2, 0])
    assert np.array_equal(np.asarray(part.read(0)), rows[0][2])


def test_grey_images_stay_grey_and_coloured_ones_of_a_grey_translation_keep_their_colours(network: Backbone) -> None:
    random = np.random.default_rng(0)
    source, target = (
        open_dataset(np.repeat(random.integers(low, low + 100, (12, 40, 40, 1)), 3, axis=3).astype(np.uint8))
        for low in (0, 150)
    )
    change = GeneratorTranslation(**SHORT).learn(source, target, network)
    changed = np.asarray(change(source).read(3))
    assert (changed == changed[..., :1]).all()
    coloured = domains()[0].unlabelled()
    transform: Any = network.transform
    size = {"height": transform.resize_height, "width": transform.resize_width}
    whole = type(transform)(**{**vars(transform), **size, "crop_fraction": 1.0})
    before, after = (decode_image(rows.read(0), whole).astype(np.int64) for rows in (coloured, change(coloured)))  # type: ignore[arg-type]
    moves = after - before
    inside = ((after > 0) & (after < 255)).all(axis=2)
    assert np.ptp(moves, axis=2)[inside].max() <= 1 and np.abs(moves).max() > 0


def test_what_is_no_image_or_no_class_is_refused(network: Backbone) -> None:
    source, target = domains()
    table = open_dataset(np.eye(4, dtype=np.float32), labels=["a", "b", "a", "b"])
    with pytest.raises(ConfigError, match="fda: changes the pixels of images, and these rows are vector rows"):
        FourierTranslation().learn(table, table, vector_backbone(4))
    with pytest.raises(ConfigError, match="fda changes the pixels of images, and these rows are vector rows"):
        headstart.adapt(
            np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), labels=list("abab"), methods="fda", progress=QUIET
        )
    with pytest.raises(ConfigError, match="cycada: keeps classes, and the source has no labels; use cyclegan"):
        CyCADATranslation(**SHORT).learn(source.unlabelled(), target, network)
    with pytest.raises(ConfigError, match="size is a share"):
        FourierTranslation(0.5)
    with pytest.raises(ConfigError, match="side is at least 8"):
        GeneratorTranslation(side=4)
    with pytest.raises(DataError, match="needs target images"):
        FourierTranslation().learn(source, target.subset([]), network)


def test_a_budget_breaks_a_generator_off(network: Backbone) -> None:
    source, labels = striped(8, 0, 0)
    options: dict[str, Any] = {"backbones": [network], "labels": labels, "store": False, "progress": QUIET}
    two = open_two_domains("adapt", source, striped(8, 60, 1)[0], labelled=True, **options)
    aligner = ChangedImages(GeneratorTranslation(**SHORT), TracedRows(two, False, False))
    with Room().within(0.0), pytest.raises(BudgetSpent):
        aligner.fit(two.source_nd, None, two.target_md)


def test_names_of_translations_are_candidates_with_stages_and_without() -> None:
    assert list(read_candidates(["fda", "coral"], None, None).translations) == ["fda"]
    assert list(read_candidates(["cycada"], None, "full").stages) == ["source-only", "cycada"]
    with pytest.raises(ConfigError, match="Did you mean 'cycada'"):
        read_candidates(["cycade"], None, None)


def test_features_lead_back_to_rows_of_one_domain() -> None:
    source, target = open_dataset(["a", "b"], unlabelled=True), open_dataset(["c", "b"], unlabelled=True)
    features = np.array([[1.0], [2.0], [3.0], [2.0]], np.float32)
    find = RowsOfFeatures(source, target, features[:2], features[2:])
    assert find(np.array([[2.0], [1.0]])).ids == [source.ids[1], source.ids[0]]
    assert find(np.array([[2.0], [3.0]])).read(1) == "c"
    with pytest.raises(DataError, match="cannot be traced back"):
        find(np.array([[1.0], [3.0]]))


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every training end after two passes."""
    for module in ("image_translation.source_rows", "deep_adaptation"):
        monkeypatch.setattr(f"headstart.methods.{module}.steps_to_epochs", lambda *_, **__: 2)


@pytest.mark.golden
@pytest.mark.usefixtures("briefly")
def test_translations_compete_on_features_and_answer_as_the_model_does(network: Backbone, tmp_path: Path) -> None:
    from dataclasses import replace

    source, labels = striped(36, 0, 0)
    target, truth = striped(30, 60, 1)
    found = headstart.adapt(
        source,
        target,
        labels=labels,
        target_labels=truth,
        methods=["fda", "cycada"],
        backbones=[network],
        progress=QUIET,
        store=False,
        out=tmp_path / "out",
    )
    assert [line.name for line in found.lines] == ["do not adapt", "fda", "cycada", "committee"]
    assert all(line.score is not None for line in found.lines), [line.note for line in found.lines]
    for name in ("fda", "cycada", "committee"):
        chosen = replace(found, selection=replace(found.selection, chosen=name))
        loaded = headstart.load_model(chosen.model.save(tmp_path / name))
        fitted = chosen.rival.fitted
        assert fitted is not None and (fitted.source_seen_nr is not None or name == "committee")
        np.testing.assert_allclose(loaded.predict(target, store=False).scores, fitted.target_scores, atol=1e-5)


@pytest.mark.golden
@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize(("name", "kills"), [("fda", {3}), ("cycada", {4, 8})])
def test_with_stages_a_killed_command_goes_on_to_the_same_answers(
    name: str, kills: set[int], network: Backbone, tmp_path: Path
) -> None:
    names = a_killed_adapt_ends_as_a_whole_one(tmp_path, network, kills, methods=name)
    assert names == ["do not adapt", "source-only", name]


@pytest.mark.golden
def test_a_trial_has_a_share_of_the_steps(network: Backbone) -> None:
    from headstart.workflow.changed_images import translation_entrants
    from headstart.workflow.domains import open_two_domains

    source, labels = striped(8, 0, 0)
    two = open_two_domains(
        "adapt",
        source,
        striped(6, 60, 1)[0],
        labelled=True,
        labels=labels,
        backbones=[network],
        store=False,
        progress=QUIET,
    )
    plan = read_candidates(["fda", "cycada"], None, None)
    fda, cycada = translation_entrants(plan.translations, LogisticRegression(), two, 0, False, None)
    assert fda.estimator.trial(30) is None  # type: ignore[attr-defined]
    few, longer = cycada.estimator.trial(30)  # type: ignore[attr-defined]
    assert few.aligner.translation.num_steps == 30 and longer == 20.0
    assert few.estimator.num_steps == 10  # of 200


@pytest.mark.golden
@pytest.mark.usefixtures("briefly")
def test_translations_serve_numbers_where_they_keep_no_classes(network: Backbone, tmp_path: Path) -> None:
    from dataclasses import replace

    source, target = striped(24, 0, 0)[0], striped(20, 60, 1)[0]
    numbers = list(100.0 + source.mean(axis=(1, 2, 3)) + np.arange(24))
    options: dict[str, Any] = {"labels": numbers, "task": "regression", "backbones": [network], "progress": QUIET}
    found = headstart.adapt(source, target, methods=["fda", "cyclegan"], store=False, **options)
    assert [line.name for line in found.lines] == ["do not adapt", "fda", "cyclegan"]
    assert all(line.score is not None for line in found.lines), [line.note for line in found.lines]
    chosen = replace(found, selection=replace(found.selection, chosen="fda"))
    loaded = headstart.load_model(chosen.model.save(tmp_path / "fda"))
    fitted = chosen.rival.fitted
    assert fitted is not None and fitted.source_seen_nr is not None
    np.testing.assert_allclose(loaded.predict(target, store=False).scores, fitted.target_scores, rtol=1e-5)
    with pytest.raises(ConfigError, match="cycada keeps classes, and the labels are numbers; take cyclegan or fda"):
        headstart.adapt(source, target, methods="cycada", store=False, **options)
