"""The catalog: every name resolves, the listing is complete, and nothing heavy is imported to show it."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from headstart.catalog import Entry, Kind, describe, entries, find, resolve
from headstart.core.errors import ConfigError

ALL = [entry for kind in get_args(Kind) for entry in entries(kind)]


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_every_entry_loads_and_is_described(entry: Entry) -> None:
    loaded = entry.load()
    assert callable(loaded) or callable(loaded.open)
    assert entry.name in describe(entry.kind)
    assert entry.summary
    assert entry.summary in describe(entry.kind)
    assert resolve(entry.name, entry.kind) is loaded


def test_names_of_a_kind_differ() -> None:
    for kind in get_args(Kind):
        names = [entry.name for entry in entries(kind)]
        assert len(set(names)) == len(names) > 0


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from typing import get_args\n"
        "from headstart.catalog import Kind, describe\n"
        "print(len([describe(kind) for kind in get_args(Kind)]))\n"
        "heavy = {'torch', 'timm', 'transformers', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "13"


def test_importing_the_catalog_does_not_import_numpy() -> None:
    code = "import sys, headstart.catalog\nassert 'numpy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_family_answers_for_its_names() -> None:
    assert find("timm:resnet50", "backbone").name == "timm:NAME"
    assert find("transformers:google-bert/bert-base-uncased", "backbone").is_family
    assert not find("minilm-l6", "backbone").is_family


@pytest.mark.parametrize(
    ("name", "kind", "suggestion"),
    [
        ("efficientnet-lite-0", "backbone", "efficientnet-lite0"),
        ("log_me", "score", "logme"),
        ("acuracy", "metric", "accuracy"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest(name: str, kind: Kind, suggestion: str) -> None:
    with pytest.raises(ConfigError, match=f"Did you mean '{suggestion}'"):
        resolve(name, kind)


def test_a_wrong_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="kind is one of"):
        entries("model")  # type: ignore[arg-type]


def test_what_is_not_installed_is_said_with_the_command_to_install_it() -> None:
    absent = Entry("x", "backbone", "a:b", "nothing", needs="no_such_module", install="no-such-package")
    assert not absent.installed
    assert find("timm:NAME", "backbone").installed


def test_heads_are_those_that_exist() -> None:
    from headstart.heads import LinearHead

    assert {entry.name for entry in entries("head")} - {"auto"} == {*LinearHead.kinds, "network"}


def test_strategies_are_those_that_exist() -> None:
    from headstart.training.strategies import Strategy

    named = {entry.name: entry for entry in entries("strategy") if entry.name != "auto"}
    assert named.keys() == Strategy.kinds.keys()
    assert all(resolve(name, "strategy") is kind for name, kind in Strategy.kinds.items())


def test_scores_are_those_that_exist() -> None:
    from headstart import transferability

    functions = {name for name in transferability.__all__ if name.islower()}
    assert {entry.name for entry in entries("score")} <= functions


def test_objectives_are_those_that_exist() -> None:
    from headstart import objectives

    there = {
        value
        for value in vars(objectives).values()
        if isinstance(value, type) and issubclass(value, objectives.Objective) and value is not objectives.Objective
    }
    assert {entry.load() for entry in entries("objective")} == there


def test_packaged_base_models_are_those_that_exist() -> None:
    from headstart.backbones.packages import PACKAGES

    packaged = {
        entry.name: entry for entry in entries("backbone") if entry.target.startswith("headstart.backbones.packages")
    }
    assert packaged.keys() == PACKAGES.keys()
    for name, package in PACKAGES.items():
        assert resolve(name, "backbone") is package
        assert package.module in packaged[name].needs
        assert packaged[name].details["licence"] == package.licence


def test_every_aligner_measure_and_rule_has_a_name() -> None:
    import inspect

    from headstart import alignment
    from headstart.alignment import Aligner, DomainClassifier, DomainRegressor, FeatureAligner, Reweighter
    from headstart.distances import MEASURES
    from headstart.evaluation import selection

    wrappers = {"AdaptedClassifier", "AdaptedRegressor", "Committee", "FeatureAugmentation"}
    bases = {Aligner, DomainClassifier, DomainRegressor, FeatureAligner, Reweighter}
    exported = [getattr(alignment, name) for name in alignment.__all__ if name not in wrappers]
    aligners = {item for item in exported if inspect.isclass(item) and issubclass(item, Aligner) and item not in bases}
    assert {entry.load() for entry in entries("aligner")} == aligners
    assert [entry.name for entry in entries("distance")] == list(MEASURES)
    rules = {getattr(selection, name) for name in selection.__all__}
    rules = {item for item in rules if inspect.isclass(item) and issubclass(item, selection.SelectionRule)}
    abstract = {selection.SelectionRule, selection.CandidateRule}
    counterparts = {
        type(entry.load()().for_values()) for entry in entries("rule")
    }  # numbers are judged by the same names
    assert {entry.load() for entry in entries("rule")} == rules - abstract - counterparts
