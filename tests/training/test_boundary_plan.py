"""The arithmetic of the freeze boundary against the formula written out, and what it decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from headstart.backbones import Backbone
from headstart.core.errors import BackboneError, ConfigError
from headstart.features import Runtime, RuntimeChoice
from headstart.training import boundary_plan
from headstart.training.boundary_plan import plan_boundary
from small_networks import small_image_backbone, small_text_backbone

FAST = RuntimeChoice(Runtime("openvino", "bf16"), timings={"openvino-bf16": 125.0}, dtype="float16")


@pytest.fixture
def resnet() -> Backbone:
    torch.set_num_threads(1)
    return small_image_backbone("resnet")[0]


@pytest.mark.golden
def test_the_formula_written_out(resnet: Backbone) -> None:
    numbers = 16 * 4 * 4  # layer2 of this network at 32 pixels
    assert resnet.stage("layer2").shape == (16, 4, 4)
    plan = plan_boundary(resnet, "layer2", 1000, 3, 10, choice=FAST, num_held=500, free_disk=1e12)
    held, new = 500, 3000 - 500
    assert plan.bytes == 2 * numbers * (3000 + new)
    once = new * (boundary_plan._DECODE + 1 / 125 + 2 * numbers * boundary_plan._WRITE)
    again = held * 2 * numbers * boundary_plan._LOAD + 10 * 1000 * numbers * boundary_plan._READ
    assert plan.cpu_seconds_cached == pytest.approx(once + again)
    assert plan.cpu_seconds_uncached == pytest.approx(1000 * (3 * boundary_plan._DECODE + 10 / 125))
    assert plan.cached
    for words in (
        "layer2",
        "1,000 rows x 3 views (500 held already) x 256 numbers x 2 bytes x 2 =",
        "8.0 ms a row measured",
    ):
        assert words in plan.reason
    assert f"{plan.cpu_seconds_cached:,.1f} CPU s kept" in plan.reason
    assert f"{plan.cpu_seconds_uncached:,.1f} CPU s computed each time" in plan.reason
    assert plan.to_dict()["stage"] == "layer2"


@pytest.mark.golden
def test_number_types_and_copies(resnet: Backbone) -> None:
    def size(**options: Any) -> int:
        return plan_boundary(resnet, "layer2", 10, row_seconds=1.0, **options).bytes

    assert size() == 2 * 4 * 2560
    assert size(choice=FAST) == 2 * 2 * 2560
    assert size(choice=FAST, exact=True) == 2 * 4 * 2560
    assert size(store=False) == 4 * 2560
    assert plan_boundary(resnet, "features", 10, choice=FAST).bytes == 2 * 4 * 10 * resnet.width  # float32 always


def test_texts_take_their_mean_length() -> None:
    pytest.importorskip("transformers")
    bert = small_text_backbone()
    assert plan_boundary(bert, "encoder.layer.0", 100, row_seconds=0.01, tokens=7.5).bytes == 2 * 4 * 100 * 7.5 * 16
    short, long = (plan_boundary(bert, "encoder.layer.0", 100, tokens=tokens) for tokens in (8, 32))
    assert "estimated" in short.reason
    assert short.cpu_seconds_uncached < long.cpu_seconds_uncached


@pytest.mark.golden
def test_views_that_are_seen_once_are_not_worth_keeping(resnet: Backbone) -> None:
    assert not plan_boundary(resnet, "layer2", 100, 4, 4, choice=FAST).cached
    assert plan_boundary(resnet, "layer2", 100, 4, 5, choice=FAST).cached
    assert not plan_boundary(resnet, "layer2", 100, 1, 1, choice=FAST).cached
    held = plan_boundary(resnet, "layer2", 100, 4, 4, choice=FAST, num_held=400)
    assert held.cached
    assert held.cpu_seconds_cached < 0.1


@pytest.mark.golden
def test_pixels_that_do_not_fit_in_memory_are_decoded_each_time(resnet: Backbone) -> None:
    few, many = (plan_boundary(resnet, "layer2", 100, 1, 10, choice=FAST, max_pixel_bytes=size) for size in (1e9, 1e3))
    assert many.cpu_seconds_uncached - few.cpu_seconds_uncached == pytest.approx(9 * 100 * boundary_plan._DECODE)


@pytest.mark.golden
def test_what_does_not_fit_is_computed_and_what_would_fit_is_said(resnet: Backbone) -> None:
    whole = plan_boundary(resnet, "layer2", 100, 3, 10, choice=FAST)
    tight = plan_boundary(resnet, "layer2", 100, 3, 10, choice=FAST, disk_budget=whole.bytes - 1)
    assert whole.cached
    assert not tight.cached
    assert tight.suggestion == "2 views would fit"
    assert "computed each time, they do not fit: 100 rows x 3 views" in tight.reason
    assert tight.reason.endswith("; 2 views would fit")
    one = plan_boundary(resnet, "layer2", 100, 3, 10, choice=FAST, disk_budget=whole.bytes / 3)
    assert one.suggestion == "1 view would fit"
    later = plan_boundary(resnet, "layer2", 100, 1, 10, choice=FAST, disk_budget=whole.bytes / 3 - 1)
    assert later.suggestion.startswith("frozen up to layer3")
    full = plan_boundary(resnet, "layer2", 100, 3, 10, choice=FAST, free_disk=whole.bytes)
    assert not full.cached  # a tenth of the disk stays free


@pytest.mark.golden
def test_an_earlier_narrow_stage_is_suggested() -> None:
    mobilenet, _ = small_image_backbone("mobilenet")
    stages = mobilenet.stages
    wide = next(at for at in range(20, len(stages)) if stages[at].shape[0] > 2 * stages[at - 1].shape[0])
    budget = plan_boundary(mobilenet, wide, 10, 1, 10, choice=FAST).bytes - 1
    plan = plan_boundary(mobilenet, wide, 10, 1, 10, choice=FAST, disk_budget=budget)
    assert plan.suggestion.startswith(f"cut at {stages[wide - 1].name}, ")


def test_the_free_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert boundary_plan._free(tmp_path / "not" / "yet") == pytest.approx(boundary_plan._free(tmp_path), rel=0.1)


@pytest.mark.parametrize("name", ["num_rows", "num_views", "epochs"])
def test_counts_are_positive(resnet: Backbone, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is at least 1; got 0"):
        plan_boundary(resnet, "layer2", **{"num_rows": 5, name: 0})  # type: ignore[arg-type]


@pytest.mark.golden
def test_a_stage_that_is_none(resnet: Backbone) -> None:
    with pytest.raises(BackboneError, match="no stage 'layer9'"):
        plan_boundary(resnet, "layer9", 5)
