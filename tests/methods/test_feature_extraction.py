"""Feature extraction: a solved head must not live on the rounding noise of a network's dead features."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.backbones import Backbone, vector_backbone
from headstart.core.tasks import Task
from headstart.data import open_dataset
from headstart.features import Features, extract_features
from headstart.heads import RidgeHead
from headstart.methods import FeatureExtraction


def _rows() -> tuple[np.ndarray, np.ndarray]:
    """Return 16 features of which the third is dead: it holds 1.19e-7 or its neighbour in float32."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, 80)
    features = random.normal(size=(80, 16)).astype(np.float32) + 0.5 * targets[:, None].astype(np.float32)
    dead = np.float32(1.19e-7)
    features[:, 3] = np.where((targets + (random.random(80) < 0.2)) % 2, dead, np.nextafter(dead, np.float32(1)) * 1.02)
    return features, targets


def test_dead_features_are_not_looked_at(encoder: Backbone) -> None:
    features, targets = _rows()
    task = Task("classification", ("a", "b"))
    method = FeatureExtraction(head="ridge", memo=False)
    plain = method.solve(features, targets, task)
    assert np.abs(plain.weight[:, 3]).max() > 1e5  # what it would be
    model = method.fit(encoder, Features(features, np.arange(80)), targets, task)
    elsewhere = features.copy()
    elsewhere[:, 3] = 0.0  # another runtime rounds otherwise
    here, there = model.head.predict_proba(features), model.head.predict_proba(elsewhere)
    np.testing.assert_allclose(here, there, atol=1e-6)
    assert np.abs(plain.predict_proba(features) - plain.predict_proba(elsewhere)).max() > 0.2
    rest = np.delete(np.arange(16), 3)
    np.testing.assert_array_equal(model.head.state()["weight"][:, rest], plain.weight[:, rest])


def test_columns_of_a_table_keep_their_scales() -> None:
    features, targets = _rows()
    rows = open_dataset(features, labels=[f"c{i}" for i in targets])
    backbone = vector_backbone(16)
    assert rows.task is not None and rows.targets is not None
    head = (
        FeatureExtraction(head="ridge", memo=False)
        .fit(backbone, extract_features(rows, backbone, store=False), rows.targets, rows.task)
        .head
    )
    assert np.abs(head.state()["weight"][:, 3]).max() > 1e5


def test_a_head_without_noise_is_the_same_head() -> None:
    features, targets = _rows()
    features = np.delete(features, 3, axis=1)
    head = RidgeHead().fit(features, targets, Task("classification", ("a", "b")))
    quiet = head.without_noise(features)
    np.testing.assert_array_equal(quiet.weight, head.weight)
    assert quiet.bias == pytest.approx(head.bias) and quiet.report == head.report
