"""`headstart adapt`: who is chosen, that labels of the target choose nothing, what is printed and written, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import headstart
from headstart.alignment import CORAL, AdaptedClassifier, Committee
from headstart.core.errors import ConfigError, DataError, DomainError
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.evaluation.selection import CandidateEvidence, CircularTest, FailedCandidate
from headstart.model.adapted_head import AdaptedHead
from headstart.workflow.adaptations import (
    NO_ADAPTATION,
    base_classifier,
    make_candidates,
    try_candidates,
)
from headstart.workflow.committee import COMMITTEE, FittedCommittee, add_committee
from headstart.workflow.domains import open_two_domains
from headstart.workflow.rivals import FittedEstimator, Rival


def stretched(num_rows: int = 160, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Return a source, its labels, a target whose columns are stretched and moved, and the target's labels."""
    draws = np.random.default_rng(seed)
    labels, truth = draws.integers(0, 2, size=(2, num_rows))
    source, target = draws.normal(size=(2, num_rows, 3))
    source[:, 0] += 4 * labels
    target[:, 0] += 4 * truth
    names = np.array(["ant", "bee"])
    return source, names[labels], target * [3.0, 0.3, 1.0] + [20.0, -2.0, 0.0], names[truth]


def adapted(**options: Any) -> headstart.Adaptation:
    source, labels, target, _ = stretched()
    given: dict[str, Any] = {"labels": labels, "methods": ["coral"], "progress": Progress(quiet=True), "store": False}
    return headstart.adapt(source, target, **{**given, **options})


def test_an_aligner_that_undoes_the_shift_is_chosen_and_helps() -> None:
    truth = stretched()[3]
    found = adapted(target_labels=truth)
    assert found.selection.chosen == "coral" and found.hindsight is not None
    assert found.hindsight.selected.value > 0.9
    assert found.hindsight.source_only.value < 0.7
    assert np.mean(np.array(found.predictions) == truth) == found.hindsight.selected.value
    shown = str(found)
    assert shown.startswith("Selected: coral.") and "Adapting helped" in shown
    assert "Oracle, unreachable without target labels: coral" in shown


def test_without_a_shift_nothing_is_adapted() -> None:
    source, labels, _, _ = stretched()
    found = headstart.adapt(
        source, source.copy(), labels=labels, methods=["coral"], progress=Progress(quiet=True), store=False
    )
    assert found.selection.chosen == NO_ADAPTATION and found.hindsight is None
    assert "accuracy" not in str(found)


@pytest.mark.golden
def test_labels_of_the_target_choose_nothing() -> None:
    truth = stretched()[3]
    right, wrong, none = adapted(target_labels=truth), adapted(target_labels=truth[::-1]), adapted()
    for other in (wrong, none):
        assert other.selection == right.selection
        np.testing.assert_array_equal(other.probabilities_mk, right.probabilities_mk)
    assert getattr(right.domains.target, "targets", None) is None
    assert right.domains.truth is not None and right.domains.truth.opened_for


def test_adapting_that_hurts_is_said() -> None:
    """Other class proportions: matching moments mixes the classes, and without labels the rule cannot know."""
    draws = np.random.default_rng(1)
    labels, truth = np.repeat([0, 1], [80, 80]), np.repeat([0, 1], [150, 10])
    source, target = draws.normal(size=(160, 2)), draws.normal(size=(160, 2))
    source[:, 0] += 4 * labels
    target[:, 0] += 4 * truth
    found = headstart.adapt(
        source,
        target,
        labels=labels,
        target_labels=truth,
        methods=["coral"],
        rule="infomax",
        progress=Progress(quiet=True),
        store=False,
    )
    assert found.selection.chosen == "coral" and found.hindsight is not None
    assert found.hindsight.selected.value < found.hindsight.source_only.value
    assert "Adapting hurt (negative transfer)" in str(found)
    assert found.hindsight.oracle_name == NO_ADAPTATION


def test_classes_the_source_lacks_count_as_wrong_and_are_said() -> None:
    truth = stretched()[3].astype(object)
    truth[:16] = "wasp"
    found = adapted(target_labels=list(truth))
    assert found.hindsight is not None and found.hindsight.unknown == 16
    assert found.hindsight.selected.value <= 0.9
    assert "16 of these rows belong to classes the source does not have" in str(found)


@pytest.mark.parametrize("method", ["coral", "jda", "kmm", "source-free"])
def test_the_chosen_candidate_is_a_model_that_answers_alike(method: str) -> None:
    source, labels, _, _ = stretched()
    target = source[::-1] + 0.3  # near enough for weights too
    two = open_two_domains("adapt", source, target, labelled=True, labels=labels, store=False)
    task = Task("classification", ("ant", "bee"))
    codes = (labels == "bee").astype(int)
    for rival in try_candidates(
        make_candidates([method], LogisticRegression()), two.source_nd, codes, two.target_md, needs=frozenset()
    ):
        assert rival.fitted is not None
        answers = rival.fitted.to_model(two, task).predict(target, store=False)
        np.testing.assert_allclose(answers.scores, rival.fitted.target_scores, atol=1e-12)
        seen = rival.fitted.source_seen_nr, rival.fitted.target_seen_mr
        assert seen[0] is not None and seen[1] is not None and seen[0].shape[1] == seen[1].shape[1]
        assert len(seen[0]) == len(seen[1]) == 160


@pytest.mark.golden
def test_files_hold_what_was_found(tmp_path: Path) -> None:
    found = adapted(out=tmp_path / "out", target_labels=stretched()[3])
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(table.columns) == ["row", "class", "p(ant)", "p(bee)"] and len(table) == 160
    assert tuple(table["class"]) == found.predictions
    about = json.loads((tmp_path / "out" / "adapt.json").read_text())
    assert about["selection"]["chosen"] == "coral" and about["hindsight"]["oracle_unreachable"]["name"] == "coral"
    assert [line["name"] for line in about["candidates"]] == [NO_ADAPTATION, "coral"]


def test_tables_whose_target_has_no_label_column(tmp_path: Path) -> None:
    source, labels, target, _ = stretched()
    columns = ["a", "b", "c"]
    pd.DataFrame(source, columns=columns).assign(kind=labels).to_csv(tmp_path / "source.csv", index=False)
    pd.DataFrame(target, columns=columns).to_csv(tmp_path / "target.csv", index=False)
    found = headstart.adapt(
        tmp_path / "source.csv",
        tmp_path / "target.csv",
        label="kind",
        methods=["coral"],
        progress=Progress(quiet=True),
        store=False,
    )
    assert found.hindsight is None and found.selection.chosen == "coral"
    pd.DataFrame(target[:, :2], columns=columns[:2]).to_csv(tmp_path / "narrow.csv", index=False)
    with pytest.raises(DataError, match="lacks 1 of the 3 feature columns asked for, such as 'c'"):
        headstart.adapt(tmp_path / "source.csv", tmp_path / "narrow.csv", label="kind", progress=Progress(quiet=True))


def test_columns_are_matched_by_name_not_by_place(tmp_path: Path) -> None:
    source, labels, target, _ = stretched()
    first = pd.DataFrame(source, columns=["a", "b", "c"]).assign(kind=labels)
    second = pd.DataFrame(target, columns=["a", "b", "c"])[["c", "a", "b"]].assign(other=1.0)
    straight = open_two_domains(
        "gap", first, second[["a", "b", "c"]], labelled=True, columns={"label": "kind"}, store=False
    )
    mixed = open_two_domains("gap", first, second, labelled=True, columns={"label": "kind"}, store=False)
    np.testing.assert_array_equal(mixed.target_md, straight.target_md)
    assert any("columns that were not asked for are not used: other" in note for note in mixed.notes)
    with pytest.raises(DomainError, match="source has 3 feature columns but target has 2"):
        open_two_domains("gap", source, target[:, :2], labelled=False, store=False)


def test_target_rows_without_a_label_stay_and_those_with_one_measure(tmp_path: Path) -> None:
    source, labels, target, truth = stretched()
    columns = ["a", "b", "c"]
    first = pd.DataFrame(source, columns=columns).assign(kind=labels)
    some = [str(name) if place < 30 else None for place, name in enumerate(truth)]
    second = pd.DataFrame(target, columns=columns).assign(kind=some)
    second.to_csv(tmp_path / "target.csv", index=False)
    quiet = {"label": "kind", "methods": ["coral"], "progress": Progress(quiet=True), "store": False}
    for rows in (second, tmp_path / "target.csv"):
        found = headstart.adapt(first, rows, **quiet)
        assert len(found.predictions) == 160 and found.hindsight is not None and found.hindsight.rows == 30
        right = np.mean(np.array(found.predictions[:30]) == truth[:30])
        assert found.hindsight.selected.value == right
        assert found.truth is not None and found.truth[29] == truth[29] and found.truth[30] is None
    given = headstart.adapt(source, target, labels=labels, target_labels=some, methods=["coral"], store=False)
    assert given.hindsight is not None and given.hindsight.rows == 30
    np.testing.assert_allclose(given.probabilities_mk, found.probabilities_mk, atol=1e-6)


def test_cells_that_are_no_numbers_cost_their_row_and_not_the_table(tmp_path: Path) -> None:
    source, labels, target, _ = stretched()
    columns = ["a", "b", "c"]
    first = pd.DataFrame(source, columns=columns).assign(kind=labels)
    second = pd.DataFrame(target, columns=columns)
    second.loc[5, "a"], second.loc[9, "c"] = np.nan, np.inf
    second.to_csv(tmp_path / "target.csv", index=False)
    said: list[str] = []
    progress = Progress(quiet=True)
    progress.say = said.append  # type: ignore[method-assign,assignment]
    two = open_two_domains(
        "adapt",
        first,
        tmp_path / "target.csv",
        labelled=True,
        columns={"label": "kind"},
        progress=progress,
        store=False,
    )
    assert len(two.target_md) == 158 and two.target.ids[5] == "row 7"
    assert any(
        line.startswith("target: 158 vector rows; left out: 2 rows lack a number: 'a' in 1, 'c' in 1") for line in said
    )


@pytest.mark.golden
def test_a_table_of_pictures_and_a_folder_of_pictures(tmp_path: Path) -> None:
    from PIL import Image

    draws = np.random.default_rng(0)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for number in range(6):
            picture = draws.integers(0, 255, size=(40, 40, 3)).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "two" / "broken.png").write_bytes(b"no picture")
    names = [f"one/{number}.png" for number in range(6)]
    pd.DataFrame({"file": names, "kind": ["ant", "bee"] * 3}).to_csv(tmp_path / "one.csv", index=False)
    two = open_two_domains(
        "adapt", tmp_path / "one.csv", tmp_path / "two", labelled=True, columns={"label": "kind"}, store=False
    )
    assert len(two.source_nd) == len(two.target_md) == 6 and two.truth is None
    assert any("broken.png" in finding.rows for finding in two.findings)


def test_vectors_are_scaled_by_the_source_alone() -> None:
    source, labels, target, _ = stretched()
    two = open_two_domains("adapt", source, target, labelled=True, labels=labels, store=False)
    np.testing.assert_allclose(two.source_nd.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(two.target_md, (target - source.mean(0)) / source.std(0), rtol=1e-4, atol=1e-4)


def test_a_candidate_that_breaks_off_stays_with_its_reason() -> None:
    class Broken(CORAL):
        def _align(self, domains: Any) -> None:
            raise DomainError("Broken: never works; none; choose another.")

    source, labels, target, _ = stretched()
    codes = (labels == "bee").astype(int)
    candidates = {NO_ADAPTATION: AdaptedClassifier(), "broken": AdaptedClassifier(Broken())}
    rivals = try_candidates(candidates, source, codes, target, needs=frozenset({"refit"}))
    assert isinstance(rivals[0].evidence, CandidateEvidence)
    assert isinstance(rivals[1].evidence, FailedCandidate) and "never works" in rivals[1].evidence.reason


def test_evidence_holds_what_a_rule_needs_and_source_rows_it_was_not_trained_on() -> None:
    source, labels, target, _ = stretched()
    codes = (labels == "bee").astype(int)
    needs = frozenset({"source_probabilities_vk", "source_features_vr", "target_features_mr", "predict_target"})
    rival = try_candidates(make_candidates(["coral"], LogisticRegression()), source, codes, target, needs=needs)[1]
    evidence = rival.evidence
    assert isinstance(evidence, CandidateEvidence) and needs <= evidence.available
    assert evidence.source_rows_vd is not None and evidence.source_training_nd is not None
    held_out = {tuple(row) for row in evidence.source_rows_vd}
    assert len(held_out) == 40 and not held_out & {tuple(row) for row in evidence.source_training_nd}
    learnt = AdaptedClassifier(CORAL(), LogisticRegression()).fit(
        evidence.source_training_nd, codes[[tuple(row) not in held_out for row in source]], target
    )
    as_source = np.ones(40, dtype=int)
    np.testing.assert_allclose(
        evidence.source_probabilities_vk, learnt.predict_proba(evidence.source_rows_vd, sample_domain=as_source)
    )


@pytest.mark.parametrize("method", ["subspace-alignment", "tca", "coral"])
def test_features_of_both_domains_lie_in_one_space(method: str) -> None:
    """Axes found on part of the source may be turned; a rule that compares both domains must not see that as a shift."""
    source, labels, target, _ = stretched()
    codes = (labels == "bee").astype(int)
    needs = frozenset({"source_probabilities_vk", "source_features_vr", "target_features_mr"})
    rival = try_candidates(make_candidates([method], LogisticRegression()), source, codes, target, needs=needs)[1]
    assert isinstance(rival.evidence, CandidateEvidence) and rival.evidence.source_rows_vd is not None
    assert isinstance(rival.fitted, FittedEstimator)
    aligner = rival.fitted.estimator.aligner_
    as_source = np.ones(len(rival.evidence.source_rows_vd), dtype=int)
    seen = aligner.transform(rival.evidence.source_rows_vd, sample_domain=as_source)
    np.testing.assert_allclose(rival.evidence.source_features_vr, seen)
    np.testing.assert_allclose(rival.evidence.target_features_mr, aligner.transform(target, sample_domain=None))


def test_two_adaptations_and_more_form_a_committee() -> None:
    truth = stretched()[3]
    found = adapted(methods=["coral", "moment-matching"], target_labels=truth)
    assert [line.name for line in found.lines] == [NO_ADAPTATION, "coral", "moment-matching", COMMITTEE]
    assert found.selection.chosen == COMMITTEE
    fitted = found.rival.fitted
    assert isinstance(fitted, FittedCommittee)
    tables = [member.estimator.predict_proba(found.domains.target_md) for member in fitted.members]
    assert len(tables) == 3
    head = found.model.head
    assert isinstance(head, AdaptedHead) and isinstance(head.estimator, Committee)  # one scale, one head
    np.testing.assert_allclose(head.predict_proba(stretched()[2]), found.probabilities_mk, atol=1e-6)
    np.testing.assert_allclose(found.probabilities_mk, np.mean(tables, axis=0), atol=1e-6)
    assert COMMITTEE not in [line.name for line in adapted(methods=["coral"]).lines]


def test_a_committee_has_no_seat_for_what_broke_off() -> None:
    source, labels, target, _ = stretched()
    codes = (labels == "bee").astype(int)
    candidates = make_candidates(["coral", "moment-matching", "linear-ot"], LogisticRegression())
    rivals = try_candidates(candidates, source, codes, target, needs=CircularTest().wants)
    broken = Rival("broken", None, FailedCandidate("never works"), 0.0)
    found = add_committee([*rivals[:2], broken, *rivals[2:]])
    assert [rival.name for rival in found[-2:]] == ["linear-ot", COMMITTEE]
    assert isinstance(found[-1].evidence, CandidateEvidence) and found[-1].evidence.members is not None
    assert len(found[-1].evidence.members) == 4
    assert len(add_committee([rivals[0], broken, rivals[1]])) == 3  # one adaptation is no committee


def test_the_penalty_is_chosen_by_the_source() -> None:
    draws = np.random.default_rng(0)
    rows = draws.normal(size=(200, 30))
    clear, noise = (rows[:, 0] > 0).astype(int), draws.integers(0, 2, 200)
    assert base_classifier(rows, clear).C > base_classifier(rows, noise).C


def test_what_will_not_do_is_refused() -> None:
    source, labels, target, _ = stretched()
    quiet = Progress(quiet=True)
    with pytest.raises(ConfigError, match="Did you mean 'coral'"):
        headstart.adapt(source, target, labels=labels, methods=["corall"], progress=quiet)
    with pytest.raises(ConfigError, match="no rule"):
        headstart.adapt(source, target, labels=labels, rule="luck", progress=quiet)
    with pytest.raises(ConfigError, match="Did you mean 'label'"):
        headstart.adapt(source, target, lable="kind", progress=quiet)
    with pytest.raises(ConfigError, match="multilabel task"):
        headstart.adapt(source, target, labels=[("ant", "bee")] * len(source), progress=quiet)
    with pytest.raises(DataError, match="has no labels"):
        headstart.adapt(source, target, progress=quiet)
    with pytest.raises(DomainError, match="vector rows but target text rows"):
        headstart.adapt(source, ["one text", "another"], labels=labels, progress=quiet)
    with pytest.raises(DataError, match=r"two classes|one class"):
        headstart.adapt(source, target, labels=["ant"] * len(source), progress=quiet)
    with pytest.raises(DataError, match="at least 4 labelled rows"):
        headstart.adapt(source[:2], target, labels=["ant", "bee"], progress=quiet)
