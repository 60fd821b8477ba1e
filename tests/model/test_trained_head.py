"""A model whose head was trained: it comes back with the same answers, and its card says what was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from headstart.backbones import vector_backbone
from headstart.core.errors import ModelError
from headstart.core.tasks import Task
from headstart.heads import NetworkHead
from headstart.model import Model, load_model
from headstart.model.card import model_card

SINGLE = Task("classification", ("ant", "bee"))
TUNED = {
    "strategy": {"name": "last-stages", "num_stages": 1},
    "plan": "layer4 and the head train on 60 rows",
    "base_weights_digest": "ab" * 32,
    "head": "dense8-relu-dense2-softmax",
}

ABOUT = {
    "source": {"name": "photos", "rows": 60, "digest": "ab" * 32},
    "target": {"name": "sketches", "rows": 45, "digest": "cd" * 32},
    "method": "mcc",
    "rule": "circular-test",
    "score": 0.75,
    "margin": 0.0,
    "reason": "It scored best.",
    "new_rows": "",
}


def _model(head: NetworkHead, **provenance: object) -> Model:
    return Model(vector_backbone(5), head, head.task, provenance=provenance)


@pytest.mark.parametrize(
    "task", [SINGLE, Task("multilabel", ("red", "round")), Task("regression")], ids=lambda t: t.kind
)
def test_it_is_loaded_with_the_same_answers(task: Task, tmp_path: Path) -> None:
    head = NetworkHead("dense8-relu-batchnorm", 5, task, seed=1)
    head.temperature, head.centre, head.scale = 0.7, 5.0, 2.0
    folder = _model(head).save(tmp_path / "model")
    rows = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    loaded = load_model(folder)
    np.testing.assert_array_equal(loaded.predict(rows).scores, _model(head).predict(rows).scores)
    assert repr(loaded.head) == repr(head)


def test_a_module_without_words_predicts_but_is_not_saved(tmp_path: Path) -> None:
    model = _model(NetworkHead(nn.Sequential(nn.Linear(5, 2), nn.Hardtanh()), 5, SINGLE))
    assert len(model.predict(np.zeros((3, 5), np.float32))) == 3
    with pytest.raises(ModelError, match="give the head in words"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []  # nothing half-written is left


def test_the_card_says_what_was_trained_for_another_domain() -> None:
    head = NetworkHead("dense8-relu", 5, SINGLE)
    deep = {**TUNED, "method": "mcc", "source_rows": 60, "target_rows": 45}
    card = model_card(_model(head, deep_adaptation=deep, adaptation=ABOUT))
    assert "trained for another domain with strategy `last-stages`" in card and "frozen" not in card
    assert "started from weights abababababababab" in card and "layer4 and the head train on 60 rows" in card
    assert "trained by mcc on 60 labelled rows and 45 rows without labels" in card
    assert "- source: photos, 60 rows" in card  # what `adapt` says of the choice stays beside it
    deep["base_weights_digest"] = vector_backbone(5).weights_digest
    assert ", frozen (" in model_card(_model(head, deep_adaptation=deep))


def test_the_card_says_what_was_trained_and_from_which_weights() -> None:
    head = NetworkHead("dense8-relu", 5, SINGLE)
    card = model_card(_model(head, fine_tuning=TUNED, train_rows=60))
    assert "fine-tuned with strategy `last-stages`" in card and "frozen" not in card
    assert "started from weights abababababababab" in card
    assert "layer4 and the head train on 60 rows" in card
    assert "dense8-relu-dense2-softmax, trained on 60 labelled rows" in card
    assert "NetworkHead, trained on 60" in model_card(_model(head, train_rows=60))
