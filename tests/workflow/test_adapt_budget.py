"""A budget for `adapt`: who starts, in which order, who is left out, that it is said, and that "do not adapt" always runs."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import headstart
from headstart.alignment import CORAL, AdaptedClassifier
from headstart.core.errors import GoalError
from headstart.core.progress import Progress, watched
from headstart.evaluation.selection import CandidateEvidence, CircularTest, FailedCandidate, select
from headstart.methods import AdaptedNetwork
from headstart.workflow import entrants as module
from headstart.workflow.adaptations import NO_ADAPTATION, make_candidates, try_entrants
from headstart.workflow.clock import Clock
from headstart.workflow.entrants import Entrant, Room, foretold_seconds, num_fits
from headstart.workflow.several_sources import ApartClassifier, SourceNumbers

QUIET = Progress(quiet=True)
NEEDS = CircularTest().wants


def rows(num_rows: int = 60) -> tuple[Any, Any, Any]:
    draws = np.random.default_rng(0)
    codes = draws.integers(0, 2, size=num_rows)
    source = draws.normal(size=(num_rows, 3)) + 3 * codes[:, None]
    return source, codes, 2 * source[::-1] + 4


def entrants(*names: str) -> tuple[list[Entrant], Any]:
    source, codes, target = rows()
    made = make_candidates(names, LogisticRegression())
    return [Entrant(name, one, source, target) for name, one in made.items()], codes


class Stopped(Clock):
    """A clock of which so many seconds are left, whatever happens."""

    def __init__(self, budget: float, left: float) -> None:
        super().__init__(budget)
        self._left = left

    @property
    def left(self) -> float:
        return self._left


def test_the_cheapest_learns_first_and_who_needs_more_than_is_left_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {"coral": 30.0, "moment-matching": 2.0, "linear-ot": 20.0, NO_ADAPTATION: 1e9}
    order: list[str] = []
    monkeypatch.setattr(module, "foretold_seconds", lambda one, *_: costs[one.name])
    fit = AdaptedClassifier.fit
    monkeypatch.setattr(
        AdaptedClassifier, "fit", lambda self, *rest: order.append(type(self.aligner).__name__) or fit(self, *rest)
    )
    given, codes = entrants("coral", "moment-matching", "linear-ot")
    rivals = try_entrants(given, codes, needs=NEEDS, room=Room(Stopped(100.0, 60.0)))
    assert order == ["NoneType", "MomentMatching", "LinearOT"]
    assert [rival.name for rival in rivals] == [NO_ADAPTATION, "coral", "moment-matching", "linear-ot"]
    left_out = rivals[1]
    assert isinstance(left_out.evidence, FailedCandidate) and not left_out.evidence.begun and left_out.fitted is None
    reason = "the budget is too small for it: about 1 min 0 s needed, 50 s left"  # two fits; a tenth of 100 s is kept
    assert left_out.evidence.reason == reason and left_out.cpu_seconds == 0
    choice = select({one.name: one.evidence for one in rivals}, CircularTest(), no_adaptation=NO_ADAPTATION)
    assert choice.scores["coral"].reason == reason  # not "failed": it was never begun


def test_time_is_kept_for_what_choosing_will_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "foretold_seconds", lambda *_: 5.0)
    given, codes = entrants("coral", "moment-matching")
    asked = [given[0], replace(given[1], later=5), given[2]]
    rivals = try_entrants(asked, codes, needs=frozenset(), room=Room(Stopped(100.0, 39.0)))
    assert rivals[2].fitted is not None and isinstance(rivals[1].evidence, FailedCandidate)
    assert rivals[1].evidence.reason.endswith("about 30 s needed, 29 s left")
    room = Room(Stopped(100.0, 60.0))
    try_entrants(asked, codes, needs=frozenset(), room=room)
    once = room.promised / 5
    assert 0 < once < 1.0  # coral is asked for five fits more, the others for none
    again = Room(Stopped(100.0, 60.0))
    try_entrants(given, codes, needs=frozenset(), room=again)
    assert again.promised == 0.0


def test_without_time_do_not_adapt_runs_alone() -> None:
    given, codes = entrants("coral", "moment-matching")
    rivals = try_entrants(given, codes, needs=NEEDS, room=Room(Stopped(1.0, -5.0)))
    assert [isinstance(rival.evidence, CandidateEvidence) for rival in rivals] == [True, False, False]
    assert all("0.0 s left" in rival.evidence.reason for rival in rivals[1:])  # type: ignore[union-attr]


def test_without_a_budget_nothing_is_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "foretold_seconds", lambda *_: 1 / 0)
    given, codes = entrants("coral")
    assert all(rival.fitted is not None for rival in try_entrants(given, codes, needs=NEEDS))


def test_time_for_ways_back_is_kept() -> None:
    room = Room(Stopped(100.0, 60.0))
    assert room.left == 50.0
    room.promise(45.0)
    assert room.left == 5.0 and room.refused(2.0, 2) is None and room.refused(3.0, 2) is not None
    assert not Room().has_end and Room().refused(1e12, 3) is None
    assert num_fits(NEEDS) == 2 and num_fits(frozenset({"target_probabilities_mk"})) == 1
    assert num_fits(frozenset({"refit", "source_probabilities_vk", "source_features_vr"})) == 3


def test_time_is_foretold_by_the_power_of_two_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def timed(estimator: Any, entrant: Entrant, labels: Any, source_rows: Any, target_rows: Any) -> float:
        asked.append((len(source_rows), len(target_rows)))
        assert set(labels[source_rows]) == {0, 1, 2}  # every class has rows in every trial
        return 1e-6 * (len(source_rows) + len(target_rows)) ** 2.5

    monkeypatch.setattr(module, "_timed", timed)
    codes = np.array([0] * 900 + [1] * 897 + [2] * 3)
    entrant = Entrant("paced", AdaptedClassifier(CORAL()), np.zeros((1800, 2)), np.zeros((600, 2)))
    assert foretold_seconds(entrant, codes) == pytest.approx(1e-6 * 2400**2.5)
    assert asked == [(100, 40), (400, 150)]


def test_a_network_is_foretold_by_a_few_steps() -> None:
    source, codes, target = rows()
    steps: list[int] = []

    class Counting(AdaptedNetwork):
        def fit(self, *given: Any, **more: Any) -> Any:
            steps.append(self.num_steps)
            time.sleep(0.01)
            return self

    seconds = foretold_seconds(Entrant("net", Counting(num_steps=600), source, target), codes)
    assert steps == [30, 30] and 20 * 0.01 <= seconds < 20 * 1.0


def test_a_trial_cut_short_is_judged_by_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    source, codes, target = rows()
    done: list[int] = []

    class Stepping(AdaptedNetwork):
        def fit(self, *given: Any, **more: Any) -> Any:
            with watched().stage("adapt") as stage:
                for _ in range(self.num_steps):
                    now[0] += 3.0
                    done.append(1)
                    stage.advance(1)
            return self

    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    entrant = Entrant("net", Stepping(num_steps=600), source, target)
    assert foretold_seconds(entrant, codes, 0, 20.0) == 600 * 3.0  # three seconds a step, ten of them allowed
    assert len(done) == 1 + 4  # a warm step, and those until more than ten seconds are over
    done.clear()
    assert foretold_seconds(entrant, codes) == 600 * 3.0 and len(done) == 60  # no limit: two whole trials
    monkeypatch.setattr(module, "foretold_seconds", lambda one, codes, seed, limit: done.append(limit) or 1e9)
    try_entrants([*entrants("coral")[0], entrant], codes, needs=NEEDS, room=Room(Stopped(100.0, 50.0)))
    assert done[-2:] == [5.0, 5.0]  # a tenth of the budget, shared by two


def test_who_cannot_be_tried_is_begun_and_says_why() -> None:
    class Broken(CORAL):
        def _align(self, domains: Any) -> None:
            raise ValueError("never works")

    source, codes, target = rows()
    broken = Entrant("broken", AdaptedClassifier(Broken()), source, target)
    assert foretold_seconds(broken, codes) == 0.0
    rivals = try_entrants([*entrants()[0], broken], codes, needs=NEEDS, room=Room(Clock(1000.0)))
    assert isinstance(rivals[1].evidence, FailedCandidate) and rivals[1].evidence.begun
    assert rivals[1].evidence.reason == "never works"


def test_a_network_that_has_begun_is_broken_off_and_an_aligner_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "foretold_seconds", lambda *_: 0.0)  # a forecast that errs
    source, codes, target = rows()
    network = AdaptedNetwork(layers="dense8-relu", num_steps=4)
    told = ApartClassifier(network, SourceNumbers(source, np.repeat(["a", "b"], 30)))
    given, _ = entrants("coral")
    given += [Entrant("net", network, source, target), Entrant("told", told, source, target)]
    rivals = try_entrants(given, codes, needs=NEEDS, room=Room(Stopped(100.0, 10.0 + 1e-9)))
    assert [rival.fitted is None for rival in rivals] == [False, False, True, True]
    for rival in rivals[2:]:
        assert isinstance(rival.evidence, FailedCandidate) and not rival.evidence.begun
        assert rival.evidence.reason == "the budget ran out in the middle of it"
    again = try_entrants(given, codes, needs=NEEDS, room=Room(Stopped(100.0, 99.0)))
    assert all(rival.fitted is not None for rival in again)


def test_a_way_back_that_the_budget_has_no_time_for_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "foretold_seconds", lambda *_: 0.0)
    source, codes, target = rows()
    network = AdaptedNetwork(layers="dense8-relu", num_steps=4)
    given = [*entrants("coral")[0], Entrant("net", network, source, target)]
    evidence = {one.name: one.evidence for one in try_entrants(given, codes, needs=NEEDS)}
    with Room().within(0.0):
        scores = select(evidence, CircularTest(), no_adaptation=NO_ADAPTATION).scores
    assert scores["coral"].is_judged and not scores["net"].is_judged
    assert scores["net"].reason.endswith("the budget is spent.")
    assert select(evidence, CircularTest(), no_adaptation=NO_ADAPTATION).scores["net"].is_judged


def limited(monkeypatch: pytest.MonkeyPatch, **more: Any) -> headstart.Adaptation:
    monkeypatch.setattr(module, "foretold_seconds", lambda one, *_: 1e6 if one.name == "linear-ot" else 0.0)
    source, codes, target = rows()
    options: dict[str, Any] = {"methods": ["coral", "linear-ot"], "progress": QUIET, "store": False, "budget": "2min"}
    return headstart.adapt(source, target, labels=[("ant", "bee")[code] for code in codes], **options, **more)


def test_who_was_left_out_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = limited(monkeypatch)
    assert found.left_out == ("linear-ot",) and found.budget == 120.0
    assert "left out: linear-ot: the budget is too small for it" in str(found)
    assert "--budget 2min" in found.command
    with pytest.raises(GoalError, match="not a duration"):
        headstart.adapt([[0.0]], [[0.0]], labels=[0], budget="soon", progress=QUIET)


@pytest.mark.golden
def test_who_was_left_out_is_on_the_page_and_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, out=tmp_path / "out")
    about = json.loads((tmp_path / "out" / "adapt.json").read_text())
    assert about["budget"] == {"seconds": 120.0, "left_out": ["linear-ot"]}
    assert about["candidates"][2]["note"].startswith("the budget is too small")
    page = (tmp_path / "out" / "adapt.html").read_text()
    assert "The budget of 2 min 0 s had no time for linear-ot" in page


def test_numbers_have_a_budget_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "foretold_seconds", lambda one, *_: 1e6 if one.name == "coral" else 0.0)
    source, _, target = rows()
    found = headstart.adapt(
        source,
        target,
        labels=source.sum(axis=1) + 0.5,
        methods=["moment-matching", "coral"],
        budget=60,
        progress=QUIET,
        store=False,
    )
    assert found.left_out == ("coral",) and len(found.predictions) == 60
