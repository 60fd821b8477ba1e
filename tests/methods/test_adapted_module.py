"""A module of one's own, adapted: the same as the estimator on features where both can be had, and what it refuses."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from headstart.catalog import resolve
from headstart.core.errors import ConfigError, DataError, ShapeError
from headstart.core.seeds import derive_seed
from headstart.core.tasks import Task
from headstart.heads import NetworkHead
from headstart.methods import AdaptedNetwork, adapt_module
from headstart.methods.adaptations.heads import split_head, steps_to_epochs
from headstart.training import ArrayRows, TrainingConfig

SHORT = TrainingConfig(batch_size=16, max_epochs=2, restore_best=False, precision="fp32", learning_rate=0.01)


def shifted(num_rows: int = 64, width: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(num_rows) % 3
    centres = random.normal(size=(3, width)) * 2
    source = (centres[labels] + random.normal(size=(num_rows, width)) * 0.5).astype(np.float32)
    return source, labels, (source[::-1] + 0.7).astype(np.float32)


@pytest.mark.parametrize("method", ["source-only", "dann", "mcc", "mcd"])
def test_equals_the_estimator_on_features_from_the_same_weights(method: str) -> None:
    source, labels, target = shifted()
    source = source - source.mean(axis=0)
    source /= np.sqrt(source.var(axis=0).mean())  # on the scale the estimator would bring them to
    recipe, words = resolve(method, "adaptation"), "dense8-relu"
    there = AdaptedNetwork(recipe, words, num_steps=4, batch_size=16, seed=3).fit(source, labels, target)

    start = NetworkHead(words, 4, Task("classification", ("0", "1", "2")), seed=derive_seed(3, "head") % 2**31)
    hidden, last = split_head(start)
    assert hidden is not None
    config = TrainingConfig(
        learning_rate=1e-3,
        weight_decay=0.01,
        batch_size=16,
        max_epochs=steps_to_epochs(4, 64, 64, 16),
        precision="fp32",
        restore_best=False,
        seed=3,
    )
    here = adapt_module({"hidden": hidden}, source, labels, target, recipe=recipe, head=last, config=config)
    np.testing.assert_allclose(here.predict_proba(target), there.predict_proba(target), atol=1e-5)
    np.testing.assert_allclose(here.features(target), there.hidden(target), atol=1e-5)


def test_pictures_labels_and_classes_come_back_and_the_module_stays_as_it_was() -> None:
    random = np.random.default_rng(1)
    labels = np.array(["ant", "bee"])[np.arange(40) % 2]
    source = random.normal(size=(40, 1, 6, 6)) + 2 * (labels == "bee")[:, None, None, None]
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    before = copy.deepcopy(body.state_dict())
    model = adapt_module(body, source, labels, source + 0.3, config=replace(SHORT, max_epochs=6))
    assert model.features(source[:3]).shape == (3, 64) and set(model.predict(source)) <= {"ant", "bee"}
    np.testing.assert_allclose(model.predict_proba(source).sum(axis=1), 1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in body.state_dict().items())
    assert (model.predict(source) == labels).mean() > 0.9


def test_source_only_never_sees_the_target_not_even_in_batch_statistics() -> None:
    source, labels, target = shifted()
    body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU())
    models = [adapt_module(body, source, labels, other, config=SHORT) for other in (target, 100 + 3 * target)]
    first, second = (model.network.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_head_of_ones_own_answers() -> None:
    source, labels, target = shifted()
    head = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    body = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    model = adapt_module(body, source, labels, target, head=head, config=SHORT)
    assert [type(part) for part in model.network.heads["main"]] == [nn.Linear, nn.Tanh, nn.Linear]
    assert not torch.equal(model.network.heads["main"][0].weight, head[0].weight)
    with pytest.raises(ConfigError, match="needs the heads main, second"):
        adapt_module(body, source, labels, target, head=head, recipe=resolve("mcd", "adaptation"), config=SHORT)


def test_refuses_what_does_not_fit() -> None:
    source, labels, target = shifted()
    body = nn.Linear(4, 6)
    with pytest.raises(ShapeError, match="one shape"):
        adapt_module(body, source, labels, target[:, :3])
    with pytest.raises(ShapeError, match="one class a source row"):
        adapt_module(body, source, labels[:-1], target)
    with pytest.raises(ShapeError, match=r"End it with nn.Flatten"):
        adapt_module(nn.Conv1d(1, 2, 3), source[:, None], labels, target[:, None])
    with pytest.raises(DataError, match="at least 2 target rows"):
        adapt_module(body, source, labels, target[:1])
    with pytest.raises(DataError, match="two classes"):
        adapt_module(body, source, np.zeros(64), target)


def test_array_rows_give_rows_in_order_and_refuse_what_is_no_row() -> None:
    values = np.random.default_rng(0).integers(0, 255, (5, 3, 4, 4)).astype(np.uint8)
    (found,) = ArrayRows(values).batch(np.array([4, 0, 4]))
    assert found.dtype == torch.float32 and found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(found.numpy(), values[[4, 0, 4]])
    with pytest.raises(ShapeError, match="at least two extents"):
        ArrayRows(np.zeros(3))
    with pytest.raises(DataError, match="numbers"):
        ArrayRows(np.array([["a"], ["b"]]))
    with pytest.raises(DataError, match="finite"):
        ArrayRows(np.array([[0.0], [np.nan]]))
