"""`headstart adapt` with networks: on features and with stages, beside "do not adapt", judged, saved, and after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import headstart
from headstart.backbones import Backbone
from headstart.catalog import entries, read_recipe
from headstart.core.errors import ConfigError, DataError, DomainError
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.evaluation.selection import CandidateEvidence, CircularTest, CircularValidation
from headstart.methods import AdaptedNetwork
from headstart.model.committee_head import CommitteeHead
from headstart.report.adapt import render_adapt
from headstart.workflow import staged_rivals
from headstart.workflow.adaptation_page import page_data
from headstart.workflow.adaptations import (
    DEFAULT_CANDIDATES,
    DEFAULT_NETWORKS,
    NO_ADAPTATION,
    make_candidates,
    try_entrants,
)
from headstart.workflow.candidates_of_adapt import read_candidates, try_all
from headstart.workflow.clock import BudgetSpent, Clock
from headstart.workflow.committee import COMMITTEE, FittedCommittee, add_committee
from headstart.workflow.domains import open_two_domains
from headstart.workflow.entrants import Entrant, Room
from headstart.workflow.network_rivals import FittedNetwork, make_network, raw_features
from headstart.workflow.staged_rivals import FittedStages, StagedTraining, check_judge, try_stages
from striped_pictures import a_killed_adapt_ends_as_a_whole_one, small_residual, striped

QUIET = Progress(quiet=True)


def moved(num_rows: int = 120, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Return a source of two classes, its names, a target of the same classes elsewhere, and the target's names."""
    random = np.random.default_rng(seed)
    labels, truth = random.integers(0, 2, size=(2, num_rows))
    source, target = random.normal(size=(2, num_rows, 3)).astype(np.float32)
    source[:, 0] += 4 * labels
    target[:, 0] += 4 * truth
    names = np.array(["ant", "bee"])
    return source, names[labels], target + np.float32([1.0, 8.0, 0.0]), names[truth]


@pytest.fixture(scope="module")
def network() -> Backbone:
    return small_residual()


def shows_before_and_after(found: headstart.Adaptation, name: str, note: str = "") -> None:
    """Check that the page has all its parts where this candidate is chosen."""
    found = replace(found, selection=replace(found.selection, chosen=name))
    data = page_data(found)
    assert data.before is not None and data.after is not None
    assert len(data.after.target_m2) == len(data.before.target_m2) == len(found.ids)
    assert len(data.after.source_n2) == len(data.after.source_classes_n)
    assert {before.name for before, _ in data.gaps} == {"proxy-a", "mk-mmd", "energy"}
    assert all(after is not None for _, after in data.gaps)
    assert any(after is not None and after.value != before.value for before, after in data.gaps)
    assert [shift.name for shift in data.shifts] == list(found.classes)
    assert sum(shift.right_after or 0 for shift in data.shifts) == np.sum(np.array(found.predictions) == found.truth)
    assert all(data.summaries[line.name] for line in found.lines)
    page = render_adapt(data)
    for part in (
        "Gains and losses, class by class",
        "Both domains in two dimensions",
        "How far apart",
        f"After {name}",
    ):
        assert part in page
    assert note in " ".join(data.notes)


@pytest.mark.golden
def test_a_network_on_features_competes_and_becomes_a_model(tmp_path: Path) -> None:
    source, labels, target, truth = moved()
    found = headstart.adapt(
        source,
        target,
        labels=labels,
        target_labels=truth,
        methods=["coral", "source-only"],
        objectives="ce + classifier-discrepancy",
        progress=QUIET,
        store=False,
        out=tmp_path / "out",
    )
    names = [line.name for line in found.lines]
    assert names == ["do not adapt", "coral", "source-only", "ce + classifier-discrepancy", "committee"]
    assert all(line.score is not None for line in found.lines)
    assert "--objectives 'ce + classifier-discrepancy'" in found.command
    page = (tmp_path / "out" / "adapt.html").read_text()
    assert (
        "a network trained by this joint loss" in page
        and "the mean of the answers of all candidates on features" in page
    )
    loaded = headstart.load_model(tmp_path / "out")
    np.testing.assert_allclose(loaded.predict(target, store=False).scores, found.probabilities_mk, atol=1e-5)
    for name in ("source-only", "ce + classifier-discrepancy", COMMITTEE):
        shows_before_and_after(found, name)


@pytest.mark.golden
def test_members_of_a_committee_see_rows_and_go_back_each_their_own_way(tmp_path: Path) -> None:
    source, labels, target, _ = moved(40)
    two = open_two_domains("adapt", source, target, labelled=True, labels=labels, store=False, progress=QUIET)
    network = make_network(read_recipe("source-only"), two, 0).set_params(num_steps=4)
    scaled, raw = (two.source_nd, two.target_md), raw_features(two)
    aligners = make_candidates(["coral", "label-propagation"], LogisticRegression())
    entrants = [Entrant(name, one, *scaled) for name, one in aligners.items()]
    entrants.append(Entrant("network", network, *raw, FittedNetwork))
    codes = (labels == "bee").astype(np.int64)
    rivals = add_committee(try_entrants(entrants, codes, needs=CircularTest().wants))
    members, committee = rivals[:4], rivals[4]
    assert committee.name == COMMITTEE and isinstance(committee.fitted, FittedCommittee)
    voices = [
        rival.fitted.estimator.predict_proba(raw[1] if rival.name == "network" else scaled[1]) for rival in members
    ]  # type: ignore[union-attr]
    np.testing.assert_allclose(committee.fitted.target_scores, np.mean(voices, axis=0), atol=1e-7)
    np.testing.assert_allclose(committee.evidence.target_probabilities_mk, np.mean(voices, axis=0), atol=1e-7)  # type: ignore[union-attr]
    rule = CircularTest()
    returns = [rule.returned(rival.evidence) for rival in members]  # type: ignore[arg-type]
    np.testing.assert_allclose(rule.returned(committee.evidence), np.mean(returns, axis=0), atol=1e-7)  # type: ignore[arg-type]
    assert CircularValidation().judge(committee.evidence).is_judged  # type: ignore[arg-type]
    before = committee.fitted.to_model(two, Task("classification", ("ant", "bee")))
    assert isinstance(before.head, CommitteeHead) and before.head.seats == (3, 1)
    after = headstart.load_model(before.save(tmp_path / "model"))
    grams = []  # of what each member sees, about its mean and of one size
    for rival in members:
        both = np.concatenate([rival.fitted.source_seen_nr, rival.fitted.target_seen_mr]).astype(np.float64)  # type: ignore[union-attr,arg-type]
        centred = both - both.mean(axis=0)
        grams.append(centred @ centred.T / np.mean(np.sum(centred**2, axis=1)))
    assert committee.fitted.source_seen_nr is not None and committee.fitted.target_seen_mr is not None
    joined = np.concatenate([committee.fitted.source_seen_nr, committee.fitted.target_seen_mr]).astype(np.float64)
    np.testing.assert_allclose(joined @ joined.T, np.sum(grams, axis=0), atol=1e-3)
    assert joined.shape[1] == 3 + 3 + 64  # what two members see as it came stands there once
    for model in (before, after):
        np.testing.assert_allclose(model.predict(target, store=False).scores, committee.fitted.target_scores, atol=1e-5)


@pytest.mark.golden
def test_a_network_competes_where_nobody_names_any_and_the_committee_is_kept(tmp_path: Path) -> None:
    source, labels, target, truth = moved(200)
    found = headstart.adapt(
        source, target, labels=labels, target_labels=truth, progress=QUIET, store=False, out=tmp_path / "out"
    )
    names = [line.name for line in found.lines]
    assert names == [NO_ADAPTATION, *DEFAULT_CANDIDATES, *DEFAULT_NETWORKS, COMMITTEE]
    assert all(line.score is not None for line in found.lines), [line.note for line in found.lines]
    stays, together = (found.lines[place].measured for place in (0, -1))
    assert stays is not None and together is not None and together.value > stays.value
    committee = found.rivals[-1].fitted
    assert isinstance(committee, FittedCommittee) and "of its member LabelPropagation" in committee.new_rows
    loaded = headstart.load_model(committee.to_model(found.domains, found.task).save(tmp_path / "committee"))
    assert isinstance(loaded.head, CommitteeHead) and sum(loaded.head.seats) == len(names) - 1
    np.testing.assert_allclose(loaded.predict(target, store=False).scores, committee.target_scores, atol=1e-5)


@pytest.mark.golden
def test_every_network_answers_as_the_model_it_becomes() -> None:
    source, labels, target, _ = moved()
    two = open_two_domains("adapt", source, target, labelled=True, labels=labels, store=False, progress=QUIET)
    codes = (labels == "bee").astype(np.int64)
    needs = frozenset({"source_probabilities_vk", "source_features_vr", "target_features_mr", "refit"})
    rivals = try_all(
        read_candidates(["source-only"], None, None),
        two,
        codes,
        ("ant", "bee"),
        StagedTraining(""),
        needs=needs,
        seed=0,
        progress=QUIET,
    )
    rival = rivals[-1]
    assert isinstance(rival.fitted, FittedNetwork) and isinstance(rival.evidence, CandidateEvidence)
    assert rival.evidence.source_features_vr is not None and rival.evidence.source_features_vr.shape[1] == 64
    assert rival.evidence.target_features_mr is not None and rival.fitted.target_seen_mr.shape == (120, 64)
    scores = rival.fitted.to_model(two, Task("classification", ("ant", "bee"))).predict(target, store=False).scores
    np.testing.assert_allclose(scores, rival.fitted.target_scores, atol=1e-5)


@pytest.mark.golden
def test_stages_compete_with_the_same_stages_without_adaptation(network: Backbone, tmp_path: Path) -> None:
    source, labels = striped(36, 0, 0)
    target, truth = striped(30, 60, 1)
    options: dict[str, Any] = {
        "labels": labels,
        "target_labels": truth,
        "objectives": "ce + classifier-discrepancy",
        "strategy": "last-stages:1",
        "backbones": [network],
        "progress": QUIET,
        "store": False,
    }
    found = headstart.adapt(source, target, out=tmp_path / "out", **options)
    assert [line.name for line in found.lines] == ["do not adapt", "source-only", "ce + classifier-discrepancy"]
    assert all(line.score is not None for line in found.lines), [line.note for line in found.lines]
    assert not (tmp_path / "out" / "checkpoint").exists()
    assert (tmp_path / "out" / "adapt.json").is_file()
    shows_before_and_after(found, "ce + classifier-discrepancy", "train on")
    again = headstart.adapt(source, target, **options)
    assert [line.score for line in again.lines] == [line.score for line in found.lines]


@pytest.mark.golden
def test_stages_are_broken_off_when_the_budget_ends(network: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    class Over(Progress):
        def _draw(self, stage: Any) -> None:
            raise BudgetSpent("the budget is spent")

    ends: list[float] = []
    monkeypatch.setattr(
        staged_rivals, "with_deadline", lambda progress, seconds: ends.append(seconds) or Over(quiet=True)
    )
    source, labels = striped(24, 0, 0)
    target, _ = striped(20, 60, 1)
    found = headstart.adapt(
        source,
        target,
        labels=labels,
        strategy="last-stages:1",
        budget="1h",
        backbones=[network],
        progress=QUIET,
        store=False,
    )
    assert found.selection.chosen == NO_ADAPTATION and found.left_out == ("source-only",)
    assert found.lines[1].note == "the budget ran out in the middle of it"
    assert len(ends) == 1 and 0.8 * 1800 < ends[0] <= 0.9 * 1800  # half of what is left: the way back takes as long


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_stages_are_not_begun_where_those_before_were_broken_off(
    kind: str, network: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter([100.0, 100.0, 50.0, 50.0, 50.0])

    class Slow(Progress):
        def _draw(self, stage: Any) -> None:
            monkeypatch.setattr(staged_rivals.time, "perf_counter", lambda: 1e9)  # it has taken very long
            raise BudgetSpent("the budget is spent")

    monkeypatch.setattr(Room, "left", property(lambda self: next(left, 50.0)))
    monkeypatch.setattr(staged_rivals, "with_deadline", lambda *_: Slow(quiet=True))
    source, labels = striped(24, 0, 0)
    target, _ = striped(20, 60, 1)
    two = open_two_domains("adapt", source, target, labelled=True, labels=labels, backbones=[network], store=False)
    recipes = {name: read_recipe(name) for name in ("source-only", "mcc")}
    if kind == "classification":
        task, answers = Task(kind, ("across", "down")), np.array([label == "down" for label in labels], dtype=np.int64)
    else:
        task, answers = Task("regression"), np.array([float(label == "down") for label in labels])
    rivals = try_stages(
        recipes,
        two.source.relabelled(task, answers),
        two,
        StagedTraining("last-stages:1"),
        np.arange(6),
        needs=CircularTest().wants,
        room=Room(Clock(1000.0)),
    )
    reasons = [rival.evidence.reason for rival in rivals]  # type: ignore[union-attr]
    assert reasons[0] == "the budget ran out in the middle of it"
    assert reasons[1].startswith("the budget is too small for it") and rivals[1].cpu_seconds == 0


@pytest.mark.golden
def test_a_killed_command_goes_on_to_the_same_answers(network: Backbone, tmp_path: Path) -> None:
    a_killed_adapt_ends_as_a_whole_one(tmp_path, network, {7})


@pytest.mark.golden
@pytest.mark.parametrize("num_target", [2, 5])
def test_every_network_takes_a_target_smaller_than_a_batch(num_target: int) -> None:
    """Batches of 64 source rows beside two target rows, of one class: partial, too."""
    source, labels, target, _ = moved(70)
    for entry in entries("adaptation"):
        if entry.name == "mixstyle":  # which needs a segment more than these networks have
            continue
        network = AdaptedNetwork(read_recipe(entry.name), "dense8-relu", num_steps=4)
        scores = network.fit(source, labels, target[:num_target]).predict_proba(target)
        assert scores.shape == (70, 2) and np.isfinite(scores).all(), entry.name


@pytest.mark.golden
def test_what_networks_are_told_of_a_target_that_will_not_do() -> None:
    source, labels, target, truth = moved(60)
    options: dict[str, Any] = {"methods": ["mcc"], "labels": labels, "progress": QUIET, "store": False}
    one = headstart.adapt(source, target[:1], **options)
    assert one.selection.chosen == NO_ADAPTATION
    assert "at least 2 rows in each domain; got 60 source and 1 target rows" in one.lines[1].note
    with pytest.raises(DataError, match="the array has no rows"):
        headstart.adapt(source, target[:0], **options)
    with pytest.raises(DomainError, match="source has 3 feature columns but target has 2"):
        headstart.adapt(source, target[:, :2], **options)
    with pytest.raises(DomainError, match="vector rows but target text rows"):
        headstart.adapt(source, ["a text", "another"], **options)
    strange = headstart.adapt(source, target, target_labels=np.where(truth == "bee", "wasp", "ant"), **options)
    assert strange.hindsight is not None and strange.hindsight.unknown == int((truth == "bee").sum())
    assert "classes the source does not have" in str(strange)
    assert "target rows that chose nothing" in str(strange)


def test_names_are_aligners_first_and_networks_with_a_strategy() -> None:
    plan = read_candidates(["coral", "source-only"], "ce + bss", None)
    assert plan.aligners == ("coral",) and list(plan.networks or ()) == ["source-only", "ce + bss"] and not plan.stages
    staged = read_candidates([], "ce + bss", "full")
    assert staged.aligners == () and list(staged.stages) == ["source-only", "ce + bss"]


@pytest.mark.parametrize(
    ("methods", "objectives", "strategy", "words"),
    [
        (["corall"], None, None, "no method 'corall'"),
        (["tca"], None, "full", "aligns features and trains no stages"),
        ([], "ce + nothing", None, "no objective 'nothing'"),
        (["multi-task"], None, None, r"multi-task: MultiTask learns from labels of both streams.*\(few\) to mme"),
        ([], "ce + 0.1*multi-task", "full", "MultiTask learns from labels of both streams"),
        ([], "ce + domain-distance(distance=kl-neighbours)", None, "take 'energy' or 'mk-mmd'"),
        ([], None, "fulll", "Did you mean 'full'"),
    ],
)
def test_what_cannot_compete_is_refused_before_rows_are_read(
    methods: list[str], objectives: str | None, strategy: str | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        read_candidates(methods, objectives, strategy)


def test_a_rule_that_can_judge_no_stages_is_refused_before_any_is_trained() -> None:
    with pytest.raises(ConfigError, match=r"MixVal needs predict_target.*choose --rule from .*circular-test") as told:
        headstart.adapt("no such folder", "nor this", strategy="full", rule="mixval", progress=QUIET)
    offered = str(told.value).split("choose --rule from ")[1].split(", or leave")[0].split(", ")
    rules = {entry.name: entry.load()() for entry in entries("rule")}
    for name, rule in rules.items():
        if name in offered:
            check_judge(rule)
        else:
            with pytest.raises(ConfigError, match=f"adapt: {rule.name} needs "):
                check_judge(rule)
    assert {"mixval", "dev"} & set(offered) == set() and len(offered) >= 5
    with pytest.raises(ConfigError, match=r"ValueDeepEmbeddedValidation needs source_features_vr") as told:
        check_judge(rules["dev"].for_values())  # type: ignore[arg-type]
    assert "circular-validation" in str(told.value) and "entropy" not in str(told.value)


@pytest.mark.golden
def test_a_committee_with_a_network_is_judged_by_mixing() -> None:
    source, labels, target, _ = moved(40)
    found = headstart.adapt(
        source, target, labels=labels, methods=["coral", "mcc"], rule="mixval", progress=QUIET, store=False
    )
    assert [line.name for line in found.lines][-1] == "committee"
    assert all(line.score is not None for line in found.lines), [line.note for line in found.lines]


@pytest.mark.golden
def test_rows_that_are_features_have_no_stages() -> None:
    source, labels, target, _ = moved(40)
    with pytest.raises(ConfigError, match="features already and have no stages"):
        headstart.adapt(source, target, labels=labels, strategy="full", progress=QUIET, store=False)
    assert FittedStages.__doc__


@pytest.mark.golden
def test_rows_of_no_class_are_told_and_counted_as_told(tmp_path: Path) -> None:
    from dataclasses import replace

    from headstart.workflow.adaptation_page import page_data

    source, labels, target, truth = moved()
    strange = np.random.default_rng(5).normal(size=(60, 3)).astype(np.float32) + np.float32([2.0, -6.0, 6.0])
    rows, names = np.concatenate([target[:, :], strange]), [*truth, *["wasp"] * 60]
    found = headstart.adapt(
        source, rows, labels=labels, target_labels=names, methods=["osbp", "dance"], progress=QUIET, store=False
    )
    assert found.hindsight is not None and found.hindsight.unknown == 60
    for name in ("osbp", "dance"):
        chosen = replace(found, selection=replace(found.selection, chosen=name))
        said = np.array(chosen.predictions)
        line = next(line for line in found.lines if line.name == name)
        wanted = np.where(np.array(names) == "wasp", "unknown", names)
        assert line.measured is not None and line.measured.value == np.mean(said == wanted)
        loaded = headstart.load_model(chosen.model.save(tmp_path / name))
        assert loaded.predict(rows, store=False).labels == said.tolist()
        shift = page_data(chosen).shifts[-1]
        assert (shift.name, shift.rows) == ("wasp", 60)
        assert shift.right_after == (said[120:] == "unknown").sum()
