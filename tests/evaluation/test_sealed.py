"""Sealed rows are opened once, and say what for."""

from __future__ import annotations

import copy
import pickle

import pytest

from headstart.core.errors import DataError
from headstart.evaluation import SealedTest


def test_opens_once() -> None:
    rows = ["a", "b", "c"]
    sealed = SealedTest(rows)
    assert len(sealed) == 3
    assert sealed.opened_for == ()
    assert sealed.open("final evaluation") is rows
    assert sealed.opened_for == ("final evaluation",)
    with pytest.raises(DataError, match=r"opened once.*'final evaluation'.*'another look'"):
        sealed.open("another look")
    assert sealed.opened_for == ("final evaluation",)


def test_nothing_leaks_before() -> None:
    sealed = SealedTest(["secret row"])
    assert "secret" not in repr(sealed)
    public = [getattr(sealed, name) for name in dir(sealed) if not name.startswith("_") and name != "open"]
    assert "secret" not in repr(public)


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps])
def test_no_second_seal(copier: object) -> None:
    with pytest.raises(TypeError, match="not copied"):
        copier(SealedTest([1]))  # type: ignore[operator]
