"""What is remembered of a runtime's choice, and for how long."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

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


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "wanted"), [(False, False, False), (True, False, True), (False, True, True)]
)
def test_bf16_that_is_imitated_is_no_unit(
    monkeypatch: pytest.MonkeyPatch, avx512_bf16: bool, amx: bool, wanted: bool
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(runtime.platform, "machine", lambda: "x86_64")
    assert runtime.has_bf16_unit.__wrapped__() is wanted
    monkeypatch.setattr(runtime.platform, "machine", lambda: "aarch64")  # those flags say nothing of other processors
    assert runtime.has_bf16_unit.__wrapped__() is True


def test_the_bf16_unit_is_what_the_processor_says_of_itself() -> None:
    flags = Path("/proc/cpuinfo")
    if not flags.exists() or "avx512" not in (told := flags.read_text(encoding="utf-8")):
        pytest.skip("no processor that says so")
    assert runtime.has_bf16_unit() is ("avx512_bf16" in told or "amx_tile" in told)
