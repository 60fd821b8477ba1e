"""A model whose head is an adapted estimator: every aligner of the catalog comes back the same, and hostile files are refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from headstart.alignment import (
    CORAL,
    AdaptedClassifier,
    AdaptedRegressor,
    Committee,
    DomainClassifier,
    DomainRegressor,
    FeatureAligner,
    Reweighter,
    SelfTraining,
)
from headstart.backbones import vector_backbone
from headstart.catalog import entries
from headstart.core.errors import ConfigError, ModelError, ShapeError
from headstart.core.tasks import Task
from headstart.features.scale import FeatureScale
from headstart.model import Model, load_model
from headstart.model.adapted_head import AdaptedHead
from headstart.model.card import model_card
from headstart.model.estimator_file import read_estimator, write_estimator

THREE = Task("classification", ("ant", "bee", "wasp"))
ALIGNERS = {entry.name: entry.load() for entry in entries("aligner")}
CLASSIFIERS = [name for name, kind in ALIGNERS.items() if not issubclass(kind, DomainRegressor)]
NEEDS_CLASSES = {"jda", "bda", "class-transport", "bbse"}
REGRESSORS = [
    name for name, kind in ALIGNERS.items() if not issubclass(kind, DomainClassifier) and name not in NEEDS_CLASSES
]


def domains(dtype: Any = np.float32) -> tuple[Any, Any, Any, Any]:
    """Return source rows, their codes, target rows, and target rows that come later."""
    draws = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], 20)
    source = draws.normal(size=(60, 5)) + 1.5 * codes[:, None]
    target = draws.normal(size=(45, 5)) + 1.5 * np.repeat([0, 1, 2], 15)[:, None] + 0.3
    return source.astype(dtype), codes, target.astype(dtype), draws.normal(size=(13, 5)).astype(dtype) + 0.5


def fitted(name: str, numbers: bool = False, dtype: Any = np.float32) -> Any:
    source, codes, target, _ = domains(dtype)
    kind = ALIGNERS[name]
    estimator = kind()
    if issubclass(kind, FeatureAligner | Reweighter):
        estimator = AdaptedRegressor(kind()) if numbers else AdaptedClassifier(kind())
    return estimator.fit(source, source.sum(axis=1) if numbers else codes, target)


def there_and_back(estimator: Any) -> Any:
    tree, arrays = write_estimator(estimator)
    return read_estimator(json.loads(json.dumps(tree, allow_nan=False)), copy.deepcopy(arrays))


@pytest.mark.golden
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_of_the_catalog_comes_back_with_the_same_probabilities(name: str, dtype: Any) -> None:
    before = fitted(name, dtype=dtype)
    after = there_and_back(before)
    _, _, target, later = domains(dtype)
    for rows in (target, later):
        np.testing.assert_allclose(after.predict_proba(rows), before.predict_proba(rows), atol=1e-12)
    assert after.get_params(deep=False).keys() == before.get_params(deep=False).keys()


@pytest.mark.parametrize("name", REGRESSORS)
def test_every_regressor_of_the_catalog_comes_back_with_the_same_numbers(name: str) -> None:
    before = fitted(name, numbers=True)
    after = there_and_back(before)
    for rows in domains()[2:]:
        np.testing.assert_allclose(after.predict(rows), before.predict(rows), atol=1e-12)


@pytest.mark.golden
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_rows_answer_alone_as_they_do_together(name: str) -> None:
    """What is saved is asked for other rows than those it adapted to; no answer may hang on who else is asked for."""
    estimator = fitted(name)
    rows = domains()[3]
    alone = np.concatenate([estimator.predict_proba(row[None]) for row in rows])
    np.testing.assert_allclose(alone, estimator.predict_proba(rows), atol=1e-6)


@pytest.mark.parametrize("name", ["lame", "label-propagation"])
def test_who_answers_rows_of_the_adaptation_otherwise_says_so(name: str) -> None:
    estimator = fitted(name)
    target = domains()[2]
    moved = np.nextafter(target, np.float32(9), dtype=np.float32)  # the same rows, but for the last bit
    assert np.abs(estimator.predict_proba(target) - estimator.predict_proba(moved)).max() > 1e-3
    assert estimator.new_rows


@pytest.mark.golden
@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name not in {"lame", "label-propagation"}])
def test_nobody_else_remembers_rows(name: str) -> None:
    estimator = fitted(name, dtype=np.float64)
    target = domains(np.float64)[2]
    moved = target + 1e-9
    np.testing.assert_allclose(estimator.predict_proba(moved), estimator.predict_proba(target), atol=1e-5)
    assert not estimator.new_rows


def test_what_only_fitting_needs_stays_out() -> None:
    _, arrays = write_estimator(fitted("sinkhorn-transport"))
    assert max(array.size for array in arrays.values()) <= 15  # no plan of 60 x 45, no source row
    _, arrays = write_estimator(fitted("kmm"))
    assert set(arrays) == {"estimator_.coef_", "estimator_.intercept_", "estimator_.classes_"}


@pytest.mark.parametrize("learner", [SVC(kernel="linear"), DecisionTreeClassifier(max_depth=3)])
def test_learners_that_compiled_code_answers_for_come_back_too(learner: Any) -> None:
    source, codes, target, later = domains(np.float64)
    before = AdaptedClassifier(CORAL(), learner).fit(source, codes, target)
    np.testing.assert_array_equal(there_and_back(before).predict(later), before.predict(later))


def test_a_committee_comes_back_with_all_its_members() -> None:
    source, codes, target, later = domains()
    before = Committee([AdaptedClassifier(CORAL()), SelfTraining()]).fit(source, codes, target)
    np.testing.assert_allclose(there_and_back(before).predict_proba(later), before.predict_proba(later), atol=1e-12)


def test_a_learner_without_a_form_is_refused_by_name() -> None:
    source, codes, target, _ = domains()
    estimator = AdaptedClassifier(CORAL(), RandomForestClassifier(3)).fit(source, codes, target)
    with pytest.raises(ModelError, match=r"sklearn\.ensemble\._forest\.RandomForestClassifier has no form"):
        write_estimator(estimator)
    named = AdaptedClassifier(CORAL()).fit(source, np.array(["ant", "bee", "wasp"])[codes], target)
    with pytest.raises(ModelError, match="no finite numbers"):
        write_estimator(named)


# --- the head and its folder -----------------------------------------------------------------------------------------


def model(name: str = "coral", **provenance: Any) -> Model:
    source, codes, target, _ = domains()
    scale = FeatureScale.standardising(source)
    kind = ALIGNERS[name]
    estimator = AdaptedClassifier(kind()) if issubclass(kind, FeatureAligner | Reweighter) else kind()
    head = AdaptedHead(estimator.fit(scale(source), codes, scale(target)), scale, THREE)
    return Model(vector_backbone(5), head, THREE, provenance=provenance)


@pytest.mark.parametrize("name", ["coral", "meda", "democratic", "lame", "dasvm"])
def test_a_loaded_model_answers_the_same(name: str, tmp_path: Path) -> None:
    before = model(name)
    after = load_model(before.save(tmp_path / "model"))
    for rows in domains()[2:]:
        np.testing.assert_allclose(
            after.predict(rows, store=False).scores, before.predict(rows, store=False).scores, atol=1e-12
        )
    assert after.head.predict_proba(np.zeros((0, 5), np.float32)).shape == (0, 3)


def test_numbers_too(tmp_path: Path) -> None:
    source, _, target, later = domains()
    scale, task = FeatureScale("unit-length"), Task("regression", target_name="size")
    estimator = AdaptedRegressor(CORAL()).fit(scale(source), 3.0 * source[:, 0], scale(target))
    before = Model(vector_backbone(5), AdaptedHead(estimator, scale, task), task)
    after = load_model(before.save(tmp_path / "model")).predict(later, store=False)
    np.testing.assert_allclose(after.scores, estimator.predict(scale(later)), atol=1e-12)


def test_a_head_refuses_what_it_cannot_answer() -> None:
    head = model().head
    with pytest.raises(ShapeError, match="5 features but got 4"):
        head.predict_proba(np.zeros((2, 4)))
    with pytest.raises(ConfigError, match="no torch network"):
        head.to_module()
    with pytest.raises(ConfigError, match="must number the task's 2 classes"):
        AdaptedHead(fitted("coral"), FeatureScale("unit-length"), Task("classification", ("ant", "bee")))
    with pytest.raises(ConfigError, match="several labels at once"):
        AdaptedHead(fitted("coral"), FeatureScale("unit-length"), Task("multilabel", ("ant", "bee", "wasp")))


def test_the_card_says_between_which_domains_it_was_adapted_and_why() -> None:
    about = {
        "source": {"name": "photos", "rows": 60, "digest": "ab" * 32},
        "target": {"name": "sketches", "rows": 45, "digest": "cd" * 32},
        "method": "lame",
        "rule": "circular-validation",
        "score": 0.75,
        "margin": 0.0,
        "reason": "It scored best.",
        "new_rows": "an answer of their own",
    }
    card = model_card(model("lame", adaptation=about, train_rows=60))
    assert "- source: photos, 60 rows, digest abababababababab" in card
    assert "- target: sketches, 45 rows, digest cdcdcdcdcdcdcdcd" in card
    assert "chosen without target labels by the rule circular-validation, score 0.75" in card
    assert "rows that were not in the target above get an answer of their own" in card
    assert "- head: lame, learnt from 60 labelled source rows" in card


# --- hostile files ---------------------------------------------------------------------------------------------------


def parts(name: str = "coral") -> tuple[dict[str, Any], dict[str, Any]]:
    head = model(name).head
    return json.loads(json.dumps(head.config())), head.state()


def at(tree: Any, *path: str) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def put(*path: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(config: dict[str, Any], _: dict[str, Any]) -> None:
        at(config, *path[:-1])[path[-1]] = value

    return change


def array(name: str, make: Callable[[Any], Any]) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(_: dict[str, Any], state: dict[str, Any]) -> None:
        state[name] = make(state[name]) if name in state else make(None)

    return change


INNER = ("estimator", "fitted", "estimator_")
COEF = "estimator.estimator_.coef_"
HOSTILE = {
    "a class of no list": (put("estimator", "class", value="os.system"), "no class a model may hold"),
    "a class that is not a word": (put("estimator", "class", value=["CORAL"]), "no class a model may hold"),
    "an aligner that does not predict": (
        put("estimator", value={"class": "CORAL", "parameters": {"match_mean": True, "regularisation": 0.1}, "fitted": {}}),
        "does not predict|nothing names",
    ),
    "a method overwritten": (put("estimator", "fitted", "predict_proba", value="x"), "never learns"),
    "a private name": (put("estimator", "fitted", "__class__", value="x"), "never learns"),
    "an attribute too many": (put("estimator", "fitted", "other_", value=1), "never learns"),
    "an attribute too few": (lambda config, _: at(config, *INNER, "fitted").pop("coef_"), "instead of"),
    "an argument too many": (put("estimator", "parameters", "n_jobs", value=1), "arguments"),
    "an argument of another kind": (put(*INNER, "parameters", "C", value="much"), "does not fit together"),
    "an argument out of range": (put(*INNER, "parameters", "max_iter", value=-5), "does not fit together"),
    "a tag of no meaning": (put(*INNER, "fitted", "coef_", value={"pickle": "gASV"}), "no part of an estimator"),
    "two tags at once": (put(*INNER, "fitted", "coef_", value={"array": COEF, "list": []}), "no part of an estimator"),
    "a list without a tag": (put("estimator", "fitted", "classes_", value=[1, 2]), "no part of an estimator"),
    "an array that is not there": (put(*INNER, "fitted", "coef_", value={"array": "gone"}), "no part of an estimator"),
    "a number beyond counting": (put("estimator", "fitted", "n_features_in_", value=10**30), "no count"),
    "a width of another file": (put("estimator", "fitted", "n_features_in_", value=6), "features|incomplete|fit"),
    "a width without end": (put("estimator", "fitted", "n_features_in_", value=2**50), "no number of features"),
    "a width of no number": (put("estimator", "fitted", "n_features_in_", value="5"), "no number of features"),
    "an array too many": (array("estimator.other", lambda _: np.zeros(3)), "nothing names"),
    "a part too many": (array("more.other", lambda _: np.zeros(3)), "which none has"),
    "a key too many": (put("temperature", value=3.0), "which none has"),
    "weights of another shape": (array(COEF, lambda old: old[:, :4]), "do not fit each other"),
    "weights turned": (array(COEF, lambda old: old.T.copy()), "do not fit each other"),
    "weights that are not finite": (array(COEF, lambda old: old * np.nan), "no finite number"),
    "text for weights": (array(COEF, lambda old: old.astype(str)), "no finite number"),
    "a scale of another width": (array("scale.centre", lambda old: old[:3]), "one number a feature each"),
    "a scale of nothing": (array("scale.scale", lambda old: old * 0), "above 0"),
    "half a scale": (lambda _, state: state.pop("scale.scale"), "scale of the adapted head is damaged"),
    "a scale of no kind": (put("scale", value="log"), "kind is 'standardised'"),
    "other classes": (put("task", "classes", value=["ant", "bee"]), "must number the task's 2 classes"),
    "another task": (put("task", value={"kind": "multilabel", "classes": ["a", "b", "c"]}), "several labels"),
    "codes moved": (array("estimator.estimator_.classes_", lambda old: old + 1), "must number"),
}  # fmt: skip


@pytest.mark.parametrize("change, reason", HOSTILE.values(), ids=HOSTILE)
def test_hostile_heads_are_refused_in_words(change: Any, reason: str) -> None:
    config, state = parts()
    change(config, state)
    with pytest.raises(ModelError, match=reason):
        AdaptedHead.from_state(config, state)


@pytest.mark.golden
def test_nesting_without_end_is_refused() -> None:
    config, state = parts()
    nest: Any = 1
    for _ in range(900):
        nest = {"list": [nest]}
    config["estimator"]["fitted"]["classes_"] = nest
    with pytest.raises(ModelError, match="nested too deep"):
        AdaptedHead.from_state(config, state)
    config["estimator"]["fitted"]["classes_"] = {"list": [0] * 1_000_001}
    with pytest.raises(ModelError, match="too large"):
        AdaptedHead.from_state(config, state)


MACHINE = "estimator.estimators_.0"
COMPILED = {
    "a support vector too few": ("dasvm", array(f"{MACHINE}.support_vectors_", lambda old: old[:-1])),
    "a class with more support than there is": ("dasvm", array(f"{MACHINE}._n_support", lambda old: old + 1)),
    "negative support": ("dasvm", array(f"{MACHINE}._n_support", lambda old: old * [1, -1])),
    "weights of another number": ("dasvm", array(f"{MACHINE}._dual_coef_", lambda old: old[:, :1])),
    "vectors in single precision": ("dasvm", array(f"{MACHINE}.support_vectors_", lambda old: old.astype(np.float32))),
    "a kernel of rows": ("dasvm", put("estimator", "fitted", "estimators_", "list", value=None)),
    "neighbours without rows": ("democratic", array("estimator.estimators_.2.rows", lambda old: old[:1])),
}


@pytest.mark.parametrize("name, change", COMPILED.values(), ids=COMPILED)
def test_arrays_are_checked_before_compiled_code_sees_them(name: str, change: Any) -> None:
    config, state = parts(name)
    if change is COMPILED["a kernel of rows"][1]:
        config["estimator"]["fitted"]["estimators_"]["list"][0]["parameters"]["kernel"] = "precomputed"
    else:
        change(config, state)
    with pytest.raises(ModelError):
        AdaptedHead.from_state(config, state)


@pytest.mark.parametrize(
    "name, make",
    [
        ("left_child", lambda old: np.where(old >= 0, 10**6, old)),
        ("left_child", lambda old: np.where(old >= 0, 0, old)),  # a circle
        ("feature", lambda old: np.where(old >= 0, 99, old)),
        ("threshold", lambda old: old[:-1]),
        ("values", lambda old: old[:, :, :1]),
    ],
)
def test_a_tree_that_leads_astray_is_refused(name: str, make: Any) -> None:
    source, codes, target, _ = domains()
    tree, arrays = write_estimator(SelfTraining(DecisionTreeClassifier(max_depth=3)).fit(source, codes, target))
    arrays[f"estimator_.{name}"] = make(arrays[f"estimator_.{name}"])
    with pytest.raises(ModelError, match="is no tree"):
        read_estimator(tree, arrays)
