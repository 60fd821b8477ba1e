"""Filling networks to the last tensor, and digests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from headstart.backbones.weights import digest_tensors, digest_weights, fill, read_safetensors
from headstart.core.errors import BackboneError


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_all_tensors_are_copied_and_halves_become_floats() -> None:
    given = {name: torch.rand_like(tensor) for name, tensor in network().state_dict().items() if tensor.ndim}
    filled = network()
    fill(filled, {name: tensor.half() for name, tensor in given.items()}, "here")
    for name, tensor in given.items():
        assert filled.state_dict()[name].dtype == torch.float32
        assert torch.equal(filled.state_dict()[name], tensor.half().float())


def test_every_kind_of_mismatch_is_listed_at_once() -> None:
    given = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    del given["0.bias"]
    given["head.weight"] = torch.zeros(2)
    given["0.weight"] = torch.zeros(3, 5)
    given["1.running_mean"][0] = float("nan")
    untouched = network()
    before = untouched.state_dict()["1.bias"].clone()
    with pytest.raises(BackboneError) as refusal:
        fill(untouched, given, "broken.safetensors")
    said = str(refusal.value)
    for part in ("broken.safetensors", "1 tensor missing (0.bias)", "1 tensor left over (head.weight)"):
        assert part in said
    assert "0.weight: file (3, 5), network (3, 2)" in said
    assert "not finite (1.running_mean)" in said
    assert torch.equal(untouched.state_dict()["1.bias"], before)


def test_long_lists_are_cut_short() -> None:
    many = nn.Sequential(*[nn.Linear(1, 1) for _ in range(5)])
    with pytest.raises(BackboneError, match=r"10 tensors missing \(.*, and 5 more\)"):
        fill(many, {}, "nothing")


def test_the_digest_sees_names_values_types_and_shapes_but_not_order_or_counters() -> None:
    base = {"a": torch.arange(4.0), "b": torch.ones(2)}
    same = {"b": torch.ones(2), "a": torch.arange(4.0), "bn.num_batches_tracked": torch.tensor(3)}
    assert digest_tensors(base) == digest_tensors(same)
    others = [
        {"a": torch.arange(4.0), "c": torch.ones(2)},
        {"a": torch.arange(4.0) + 1e-6, "b": torch.ones(2)},
        {"a": torch.arange(4.0).half(), "b": torch.ones(2)},
        {"a": torch.arange(4.0).reshape(2, 2), "b": torch.ones(2)},
    ]
    assert len({digest_tensors(item) for item in [base, *others]}) == 5
    assert digest_weights({"name": "x"}, base) != digest_weights({"name": "y"}, base)


def test_a_bfloat16_tensor_has_a_digest() -> None:
    assert digest_tensors({"a": torch.ones(3, dtype=torch.bfloat16)}) != digest_tensors({"a": torch.ones(3)})


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(100)}, path, metadata={"arch": "x"})
    assert read_safetensors(path)[1] == {"arch": "x"}
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(BackboneError, match="not a readable safetensors file"):
        read_safetensors(path)
    with pytest.raises(BackboneError, match="not a readable safetensors file"):
        read_safetensors(tmp_path / "absent.safetensors")
