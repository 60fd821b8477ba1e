"""A choice that fills classes "do not adapt" hardly finds comes with a caution; another does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headstart
from headstart.core.progress import Progress
from headstart.workflow.absent_classes import caution, filled_classes
from headstart.workflow.adaptations import NO_ADAPTATION

CLASSES = ("ant", "bee", "cat", "dog")
ANSWERS = st.lists(st.integers(0, 4), min_size=1, max_size=30)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_classes_are_filled_as_counted_one_by_one(pairs: list[tuple[int, int]]) -> None:
    before, after = (np.array(part) for part in zip(*pairs, strict=True))
    wanted = []
    for label in range(4):  # four classes: an even share is a quarter of the rows; 4 is a row of no class
        first, second = (sum(1 for one in part if one == label) for part in (before, after))
        if 8 * first < len(pairs) and 16 * (second - first) >= len(pairs):
            wanted.append(label)
    assert filled_classes(before, after, 4).tolist() == wanted


@given(ANSWERS)
def test_the_same_answers_fill_nothing(answers: list[int]) -> None:
    assert caution("coral", np.array(answers), np.array(answers), CLASSES) == ""


def test_many_classes_are_named_in_part() -> None:
    names = [f"c{number}" for number in range(10)]
    text = caution("coral", np.zeros(100, np.int64), np.arange(100) % 10, names)
    assert "c1, c2, c3, c4, c5 and 4 more, which do not adapt hardly finds" in text and "--method partial" in text


@pytest.mark.parametrize("absent", [True, False])
def test_a_choice_is_told_with_it_where_the_target_lacks_classes(absent: bool) -> None:
    random = np.random.default_rng(0)
    centres = 6 * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    source_labels, target_labels = np.arange(120) % 4, np.arange(80) % (2 if absent else 4)
    source = centres[source_labels] + random.normal(size=(120, 2))
    target = centres[target_labels] + random.normal(size=(80, 2)) + (0.0 if absent else 0.3)
    found = headstart.adapt(
        source, target, labels=[CLASSES[label] for label in source_labels], methods="class-transport",
        progress=Progress(quiet=True),
    )  # fmt: skip
    told = "which do not adapt hardly finds" in found.selection.reason
    assert told == (found.selection.chosen != NO_ADAPTATION and absent)
    if absent:
        assert found.selection.chosen == "class-transport" and "cat, dog" in found.selection.reason
