"""Figures of open sets against a literal twin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.errors import DataError
from headstart.evaluation.open_set import evaluate_open_set, open_set_scores

CODES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


@given(CODES)
def test_the_figures_are_those_of_the_paper(pairs: list[tuple[int, int]]) -> None:
    by_class: dict[int, list[bool]] = {}
    for truth, answer in pairs:
        by_class.setdefault(truth, []).append(truth == answer)
    shares = {code: sum(right) / len(right) for code, right in by_class.items()}
    known = [share for code, share in shares.items() if code < 3]
    found = open_set_scores(np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs]), 3)
    if not known or 3 not in shares:
        assert math.isnan(found[2])
        return
    wanted = sum(known) / len(known), shares[3]
    assert found[:2] == pytest.approx(wanted)
    assert found[2] == pytest.approx(2 / (1 / wanted[0] + 1 / wanted[1]) if min(wanted) > 0 else 0.0)


def test_answering_one_way_throughout_is_worth_nothing() -> None:
    truth = np.array([0, 1, 2, 2])
    assert open_set_scores(truth, np.full(4, 2), 2) == (0.0, 1.0, 0.0)
    assert open_set_scores(truth, np.array([0, 1, 0, 1]), 2) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("truth", [[0, 1, 1], [2, 2]])
def test_rows_of_one_kind_alone_are_refused(truth: list[int]) -> None:
    with pytest.raises(DataError, match="rows of known and of unknown classes"):
        evaluate_open_set(np.array(truth), np.array(truth), 2)
