"""Every engine against a literal float64 forward pass, and the properties extraction leans on."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.backbones import Backbone
from headstart.core.errors import BackboneError, ConfigError, MissingExtra
from headstart.core.preprocessing import ImageTransform
from headstart.features import Runtime, engine, openvino_engine, probe
from headstart.features.engine import Batch, FrozenPart, borrowed_engine, open_engine, rows_per_batch
from headstart.features.fusion import fuse_normalisation
from headstart.features.probe import agreement, choose_runtime
from headstart.features.torch_engine import plain_features

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
NAMES = ["torch-fp32", "torch-bf16", *(["openvino-fp32", "openvino-bf16"] if HAS_OPENVINO else [])]
RUNTIMES = [Runtime.parse(name) for name in NAMES]
SIZE = 16
needs_openvino = pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")


def pixels(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, SIZE, SIZE, 3), dtype=np.uint8)


def batches_of(rows: np.ndarray, size: int) -> Iterator[Batch]:
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        padded = np.zeros((size, *rows.shape[1:]), np.uint8)
        padded[: len(part)] = part
        yield Batch((padded,), list(range(start, start + len(part))))


def run(backbone: Backbone, runtime: Runtime, rows: np.ndarray, size: int = 4, threads: int = 2) -> np.ndarray:
    made = open_engine(FrozenPart(backbone), runtime, threads=threads, batch_rows=size)
    results = list(made.run(batches_of(rows, size)))
    assert [tag for batch, _ in results for tag in batch.tags] == list(range(len(rows)))
    return np.concatenate([values for _, values in results])


def oracle(backbone: Backbone, rows: np.ndarray) -> np.ndarray:
    transform = backbone.transform
    assert isinstance(transform, ImageTransform)
    scaled = (rows.astype(np.float64) / 255 - transform.mean) / transform.std
    network = copy.deepcopy(backbone.module).double()
    with torch.no_grad():
        return np.asarray(network(torch.from_numpy(scaled.transpose(0, 3, 1, 2).copy())).numpy())


@pytest.mark.parametrize("runtime", RUNTIMES, ids=NAMES)
def test_gives_what_float64_gives_in_order(backbone: Backbone, runtime: Runtime) -> None:
    rows = pixels(11)
    values = run(backbone, runtime, rows)
    assert values.shape == (11, 12)
    assert values.dtype == np.float32
    tolerance = 2e-5 if runtime.precision == "fp32" else 3e-2
    np.testing.assert_allclose(values, oracle(backbone, rows), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("runtime", RUNTIMES, ids=NAMES)
def test_a_row_has_the_same_bits_wherever_it_stands(backbone: Backbone, runtime: Runtime) -> None:
    rows = pixels(13)
    order = np.random.default_rng(1).permutation(13)
    whole = run(backbone, runtime, rows)
    np.testing.assert_array_equal(run(backbone, runtime, rows[order]), whole[order])
    np.testing.assert_array_equal(run(backbone, runtime, rows[5:6]), whole[5:6])


@pytest.mark.parametrize("runtime", RUNTIMES, ids=NAMES)
def test_the_network_stays_as_it_is(backbone: Backbone, runtime: Runtime) -> None:
    parts = len(list(backbone.module.modules()))
    before = {name: item.clone() for name, item in backbone.module.state_dict().items()}
    run(backbone, runtime, pixels(2))
    after = backbone.module.state_dict()
    assert all(torch.equal(item, after[name]) and item.dtype == after[name].dtype for name, item in before.items())
    assert len(list(backbone.module.modules())) == parts


@pytest.mark.parametrize("runtime", RUNTIMES, ids=NAMES)
def test_a_caller_may_stop_early(backbone: Backbone, runtime: Runtime) -> None:
    made = open_engine(FrozenPart(backbone), runtime, threads=2, batch_rows=2)
    results = made.run(batches_of(pixels(20), 2))
    first = next(results)[1]
    results.close()  # type: ignore[attr-defined]
    again = next(made.run(batches_of(pixels(20), 2)))[1]
    np.testing.assert_array_equal(first, again)


def test_torch_threads_are_given_back(backbone: Backbone) -> None:
    torch.set_num_threads(1)
    run(backbone, Runtime(), pixels(5))
    assert torch.get_num_threads() == 1


@needs_openvino
def test_a_compiled_network_is_kept_and_found_without_the_network(backbone, forbid_network) -> None:
    runtime = Runtime("openvino", "fp32")
    wanted = run(backbone, runtime, pixels(4))
    part = FrozenPart(forbid_network(backbone))
    again = open_engine(part, runtime, threads=2, batch_rows=4)
    assert again.from_disk
    np.testing.assert_array_equal(next(again.run(batches_of(pixels(4), 4)))[1], wanted)


@needs_openvino
def test_a_damaged_compiled_network_is_compiled_again(backbone: Backbone, cache) -> None:
    runtime = Runtime("openvino", "fp32")
    wanted = run(backbone, runtime, pixels(4))
    (path,) = (cache / "openvino").glob("*.blob")
    path.write_bytes(b"nonsense")
    np.testing.assert_array_equal(run(backbone, runtime, pixels(4)), wanted)
    assert path.stat().st_size > 100


@pytest.mark.golden
@needs_openvino
def test_keeps_nothing_when_told_so_and_bounds_what_it_keeps(backbone, make_backbone, cache, monkeypatch) -> None:
    runtime = Runtime("openvino", "fp32")
    open_engine(FrozenPart(backbone), runtime, threads=1, batch_rows=2, keep=False)
    assert not list((cache / "openvino").glob("*")) if (cache / "openvino").exists() else True
    monkeypatch.setattr(openvino_engine, "_MOST_KEPT_BYTES", 1)
    for seed in range(3):
        open_engine(FrozenPart(make_backbone(seed)), runtime, threads=1, batch_rows=2)
    assert len(list((cache / "openvino").glob("*.blob"))) == 1


@needs_openvino
def test_different_weights_never_share_a_compiled_network(make_backbone) -> None:
    first, second = (run(make_backbone(seed), Runtime("openvino", "fp32"), pixels(4)) for seed in (0, 1))
    assert not np.allclose(first, second, atol=1e-2)


def test_without_openvino_the_extra_is_named(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    openvino_engine._core.cache_clear()
    try:
        with pytest.raises(MissingExtra, match=r"headstart\[fast\]"):
            open_engine(FrozenPart(backbone), Runtime("openvino"), threads=1)
        sample = next(batches_of(pixels(4), 4))
        choice = choose_runtime(FrozenPart(backbone), sample)
        assert choice.runtime.name == "torch"
        with pytest.raises(MissingExtra, match=r"headstart\[fast\]"):
            choose_runtime(FrozenPart(backbone), sample, want="openvino")
    finally:
        openvino_engine._core.cache_clear()


class Shared(nn.Module):
    """A convolution whose output is used besides its normalisation: fusing it would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.running_var, 9.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.norm(x)


class Repeated(nn.Module):
    """A convolution that runs twice, once in front of the normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.conv(x)))


def test_fusion_gives_the_same_function_without_normalisation(backbone: Backbone) -> None:
    network = backbone.module
    rows = (torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)),)
    fused = fuse_normalisation(network, rows)
    assert fused is not network
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    with torch.no_grad():
        torch.testing.assert_close(fused(*rows), network(*rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "network", [Shared(), Repeated(), nn.Sequential(nn.ReLU())], ids=["shared", "repeated", "none"]
)
def test_what_cannot_be_fused_stays_whole(network: nn.Module) -> None:
    assert fuse_normalisation(network.eval(), (torch.ones(1, 3, 4, 4),)) is network


def test_fusion_keeps_the_activation_timm_hides_in_its_normalisation() -> None:
    from timm.layers import BatchNormAct2d

    network = nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct2d(4)).eval()
    rows = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    fused = fuse_normalisation(network, (rows,))
    assert fused is not network
    with torch.no_grad():
        torch.testing.assert_close(fused(rows), network(rows), rtol=1e-5, atol=1e-6)
        assert float(fused(rows).min()) == 0


def test_agreement_against_its_formula() -> None:
    random = np.random.default_rng(0)
    reference, values = random.random((5, 7)), random.random((5, 7))
    cosines = [a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for a, b in zip(values, reference, strict=True)]
    gap = np.sqrt(((values - reference) ** 2).sum()) / np.sqrt((reference**2).sum())
    assert agreement(values, reference) == pytest.approx((np.mean(cosines), gap), abs=1e-12)
    assert agreement(np.zeros((2, 3)), np.zeros((2, 3))) == (1.0, 0.0)


def test_the_plain_reference_is_float64s(backbone: Backbone) -> None:
    rows = pixels(3)
    values, seconds = plain_features(FrozenPart(backbone), next(batches_of(rows, 4)))
    np.testing.assert_allclose(values, oracle(backbone, rows), rtol=1e-5, atol=1e-5)
    assert seconds > 0


class Lying:
    """An engine whose answers are off by a factor, or of another direction, or not numbers."""

    def __init__(self, runtime: Runtime, part: FrozenPart, lie: str) -> None:
        self.runtime, self.part, self.lie = runtime, part, lie

    def run(self, batches):
        for batch in batches:
            values = plain_features(self.part, batch)[0]
            if self.lie == "scale":
                values = values * 1.2
            elif self.lie == "direction":
                values = np.roll(values, 1, axis=1)
            else:
                values[0, 0] = np.nan
            yield batch, values


@pytest.mark.parametrize("lie", ["scale", "direction", "nan"])
def test_a_runtime_that_disagrees_is_refused_by_name(backbone, monkeypatch, lie: str) -> None:
    honest = open_engine

    def dishonest(part, runtime, **options):
        return honest(part, runtime, **options) if runtime == Runtime() else Lying(runtime, part, lie)

    monkeypatch.setattr(probe, "open_engine", dishonest)
    sample = next(batches_of(pixels(4), 4))
    choice = choose_runtime(FrozenPart(backbone), sample)
    assert choice.runtime == Runtime()
    assert choice.cosine == pytest.approx(1)
    expected = "not finite" if lie == "nan" else "disagrees with float32"
    assert choice.refused
    assert all(expected in reason for reason in choice.refused.values())
    with pytest.raises(ConfigError, match=r"torch-bf16 cannot run tiny .*use runtime='auto'"):
        choose_runtime(FrozenPart(backbone), sample, want="torch-bf16")


def test_a_network_that_cannot_be_converted_is_run_by_torch(backbone: Backbone) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.eigh(x.mean(1))[0]

    backbone.module = Odd().eval()
    choice = choose_runtime(FrozenPart(backbone), next(batches_of(pixels(4), 4)))
    assert choice.runtime == Runtime()
    if HAS_OPENVINO:
        assert (
            "cannot run tiny"
            in choice.refused["openvino-bf16" if "openvino-bf16" in choice.refused else "openvino-fp32"]
        )


def test_a_choice_is_remembered_without_the_network(backbone, make_backbone, forbid_network, monkeypatch) -> None:
    sample = next(batches_of(pixels(4), 4))
    first = choose_runtime(FrozenPart(backbone), sample, threads=1)
    assert not first.remembered
    assert first.seconds > 0
    assert first.timings[first.runtime.label] == max(first.timings.values())
    again = choose_runtime(FrozenPart(forbid_network(backbone)), sample, threads=1)
    assert again.remembered
    assert again.to_dict() | {"remembered": False} == first.to_dict()
    asked = []
    monkeypatch.setattr(probe._Probe, "choose", lambda self, want: asked.append(want) or first)
    choose_runtime(FrozenPart(make_backbone(1)), sample, threads=1)
    choose_runtime(FrozenPart(backbone), sample, threads=2)
    choose_runtime(FrozenPart(backbone), sample, threads=1, want="torch")
    assert asked == ["auto", "auto", "torch"]


def test_damaged_weights_are_named(backbone: Backbone) -> None:
    with torch.no_grad():
        backbone.module.second.weight[0] = float("nan")  # type: ignore[union-attr, index]
    with pytest.raises(BackboneError, match="not finite in float32"):
        choose_runtime(FrozenPart(backbone), next(batches_of(pixels(4), 4)))


def test_wide_ranges_are_kept_in_float32() -> None:
    bf16, fp32 = Runtime("torch", "bf16"), Runtime()
    ones = np.ones((2, 3), np.float32)
    assert probe._number_type(bf16, ones) == "float16"
    assert probe._number_type(fp32, ones) == "float32"
    assert probe._number_type(bf16, ones * 1e5) == "float32"
    assert probe._number_type(bf16, ones * 1e-5) == "float32"


def test_an_engine_is_borrowed_again_but_never_by_two(backbone, make_backbone) -> None:
    part, options = FrozenPart(backbone), {"threads": 1, "batch_rows": 4, "keep": False}
    with borrowed_engine(part, Runtime(), **options) as first, borrowed_engine(part, Runtime(), **options) as second:
        assert second is not first
    with borrowed_engine(part, Runtime(), **options) as third:
        assert third is first
    with pytest.raises(ZeroDivisionError), borrowed_engine(part, Runtime(), **options):
        raise ZeroDivisionError
    assert not engine._idle
    with borrowed_engine(FrozenPart(make_backbone(1)), Runtime(), **options) as other:
        assert other is not first


def test_batches_suit_the_size_of_the_image(backbone: Backbone) -> None:
    part = FrozenPart(backbone)
    assert rows_per_batch(part, Runtime("openvino")) == 32
    backbone.transform = ImageTransform(224, 224)
    assert rows_per_batch(part, Runtime("openvino")) == 4
    backbone.transform = ImageTransform(1000, 1000)
    assert rows_per_batch(part, Runtime("openvino")) == 1


@pytest.mark.parametrize("label", ["openvin", "torch-fp16", "cuda", ""])
def test_unknown_runtimes_are_refused(backbone: Backbone, label: str) -> None:
    with pytest.raises(ConfigError, match="runtime: one of auto, torch, openvino"):
        choose_runtime(FrozenPart(backbone), next(batches_of(pixels(4), 4)), want=label)


def test_every_label_is_read_back() -> None:
    from headstart.features.runtime import all_runtimes

    assert [Runtime.parse(item.label) for item in all_runtimes()] == all_runtimes()
    assert len({item.label for item in all_runtimes()}) == 6
