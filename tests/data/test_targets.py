"""Label values to tasks and targets: the documented rule, class order, missing labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.errors import ConfigError, DataError
from headstart.data.targets import class_order, is_missing, label_rows, natural_key


def test_class_order_is_natural_and_kept_as_text() -> None:
    assert class_order(["10", "9", "2"]) == ("2", "9", "10")
    assert class_order(["fold 10", "fold 9", "éclair", "Apple"]) == ("Apple", "fold 9", "fold 10", "éclair")
    assert class_order(["-1", "0.5", "1"]) == ("-1", "0.5", "1")


@pytest.mark.golden
@given(st.lists(st.text(max_size=6), max_size=12))
def test_natural_order_is_total_and_does_not_depend_on_the_order_given(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)
    assert class_order(names) == class_order(backwards)


@pytest.mark.parametrize("value", [None, float("nan"), np.float32("nan"), "", "  ", "nan", "NaN", "NA", "N/A", "null"])
def test_missing(value: object) -> None:
    assert is_missing(value)


@pytest.mark.parametrize("value", ["None", "no", 0, False, [], "0", np.int64(0)])
def test_not_missing(value: object) -> None:
    assert not is_missing(value)


def test_pandas_missing_values() -> None:
    import pandas as pd

    assert is_missing(pd.NA) and is_missing(pd.NaT)
    labelled = label_rows(pd.Series(["a", None, "b"], dtype="string").tolist())
    assert labelled.present.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        (["b", "a"], "classification", ("a", "b")),
        ([1.0, 0.0, float("nan")], "classification", ("0", "1")),
        (["1.0", "10.0", "9"], "classification", ("1", "9", "10")),
        (["01", "02"], "classification", ("01", "02")),
        ([True, False], "classification", ("False", "True")),
        ([*range(150)] * 2, "classification", tuple(map(str, range(150)))),
        ([*range(1, 150)] * 2, "classification", tuple(map(str, range(1, 150)))),
        ([*range(18, 90)] * 2, "regression", ()),
        ([*range(30)], "regression", ()),
        ([i / 10 for i in range(50)], "regression", ()),
        ([1, 1.5, 2, 2.5], "classification", ("1", "1.5", "2", "2.5")),
        (["1_000", "2"], "classification", ("1_000", "2")),
        (["a|b", "b", "a"], "multilabel", ("a", "b")),
        (["a;b", "b;c", "a"], "multilabel", ("a", "b", "c")),
        ([["x"], [], ["x", "y"]], "multilabel", ("x", "y")),
        (["not|a list", "of;things"], "classification", ("not|a list", "of;things")),
        (["café", "cafe\u0301"], "classification", ("café",)),
        ([" cat", "cat ", "dog"], "classification", ("cat", "dog")),
    ],
)
def test_the_rule(values: list[object], kind: str, classes: tuple[str, ...]) -> None:
    task = label_rows(values).task
    assert (task.kind, task.classes) == (kind, classes)


def test_guesses_are_said_and_can_be_overruled() -> None:
    numbers = [i / 10 for i in range(50)]
    assert 'task="classification"' in label_rows(numbers).notes[0].message
    assert label_rows(numbers, task="classification").task.num_outputs == 50
    assert label_rows(["1", "2"], task="regression").targets.tolist() == [1.0, 2.0]
    assert label_rows(["a|b", "b", "a"], task="classification").task.classes == ("a", "a|b", "b")
    assert label_rows(["a,b", "b"], task="multilabel").targets.tolist() == [[1, 1], [0, 1]]


def test_given_classes_keep_their_order_and_refuse_others() -> None:
    labelled = label_rows(["b", "a"], classes=["z", "b", "a"])
    assert labelled.targets.tolist() == [1, 2] and labelled.task.classes == ("z", "b", "a")
    assert label_rows([7, 9], classes=["9", "7"]).targets.tolist() == [1, 0]
    with pytest.raises(DataError, match="Did you mean 'cats'"):
        label_rows(["cat"], classes=["cats", "dogs"])


def test_refusals() -> None:
    with pytest.raises(DataError, match="missing in all 2 rows"):
        label_rows([None, "nan"])
    with pytest.raises(DataError, match="finite numbers"):
        label_rows(["1", "x"], task="regression")
    with pytest.raises(DataError, match="multilabel"):
        label_rows([["a"], ["b"]], task="classification")
    with pytest.raises(ConfigError, match="Did you mean 'classification'"):
        label_rows(["a"], task="classificaton")


def test_names_that_differ_only_in_case_are_pointed_out() -> None:
    notes = label_rows(["Cat", "cat", "dog"]).notes
    assert [note.kind for note in notes] == ["class-name"] and "'Cat'" in notes[0].message


def test_targets_have_the_documented_types() -> None:
    assert label_rows(["a", "b"]).targets.dtype == np.int64
    assert label_rows([["a"], ["b"]]).targets.dtype == np.uint8
    assert label_rows([0.5, 0.25], task="regression").targets.dtype == np.float64
