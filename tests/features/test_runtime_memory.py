"""What is remembered of a runtime's choice, and for how long."""

from __future__ import annotations

import time

import pytest

from headstart.features import runtime
from headstart.features.runtime import Runtime, RuntimeChoice, recall, remember


@pytest.mark.parametrize("lasting", [True, False])
def test_a_choice_made_while_something_was_broken_is_forgotten_after_a_day(
    lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"network": f"test {lasting}"}
    remember(key, RuntimeChoice(Runtime("torch", "bf16")), lasting=lasting)
    monkeypatch.setattr(runtime, "_chosen", {})  # as in a new process
    known = recall(key)
    assert known is not None and known.runtime == Runtime("torch", "bf16") and known.remembered
    tomorrow = time.time() + 90_000
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    assert (recall(key) is not None) is lasting
