"""Heads with an output for rows of no class: what they answer, and what a folder gives back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.core.errors import ConfigError, ModelError
from headstart.core.tasks import Task
from headstart.heads import NetworkHead, OpenSetHead, load_head

TWO = Task("classification", ("ant", "bee"))


def opened(words: str = "dense3-tanh", width: int = 4) -> tuple[NetworkHead, nn.Linear, OpenSetHead]:
    """Return a head of two classes, an output beside it, and both together; weights of some size."""
    torch.manual_seed(3)
    head = NetworkHead(words, width, TWO, seed=1)
    last = list(head.module.children())[-1]
    nn.init.normal_(last.weight)  # type: ignore[arg-type]
    head.temperature = 2.0
    unknown = nn.Linear(last.in_features, 1)  # type: ignore[arg-type]
    return head, unknown, OpenSetHead.beside(head, unknown)


@pytest.mark.parametrize("words", ["linear", "dense3-tanh", "dense5-relu-dense3", "layernorm-dense6-gelu"])
def test_known_scores_are_the_head_s_and_the_last_one_is_the_output_beside_it(words: str) -> None:
    head, unknown, both = opened(words)
    rows = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    np.testing.assert_allclose(both.decision(rows), head.decision(rows), atol=1e-6)
    np.testing.assert_allclose(both.predict_proba(rows), head.predict_proba(rows), atol=1e-6)
    hidden = nn.Sequential(*list(head.module.children())[:-1])(torch.from_numpy(rows))
    logits = np.concatenate([head.decision(rows), unknown(hidden).detach().numpy()], axis=1).astype(np.float64) / 2.0
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(both.open_probabilities(rows), wanted, atol=1e-6)
    assert head.open_probabilities(rows) is None


def test_a_folder_gives_back_the_same_head() -> None:
    _, _, both = opened()
    rows = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    loaded = load_head(both.config(), both.state())
    assert isinstance(loaded, OpenSetHead) and loaded.temperature == 2.0 and loaded.task == TWO
    np.testing.assert_array_equal(loaded.open_probabilities(rows), both.open_probabilities(rows))


def test_its_module_answers_for_the_known_classes() -> None:
    _, _, both = opened()
    rows = torch.randn(5, 4)
    np.testing.assert_allclose(
        both.to_module()(rows).softmax(1).detach().numpy(), both.predict_proba(rows.numpy()), atol=1e-6
    )


def test_what_does_not_fit_is_refused() -> None:
    head, _, both = opened()
    with pytest.raises(ConfigError, match="one output for each class and one more"):
        OpenSetHead(head, TWO)
    broken: Any = [
        {**both.config(), "network": {}},
        {**both.config(), "task": Task("classification", ("a", "b", "c")).to_dict()},
    ]
    for config in broken:
        with pytest.raises(ModelError, match="fetch the model again"):
            load_head(config, both.state())


def test_a_class_called_unknown_stays_a_class() -> None:
    head = NetworkHead("linear", 2, Task("classification", ("known", "unknown")))
    assert OpenSetHead.beside(head, nn.Linear(2, 1)).network.task.classes == ("known", "unknown", "unknown?")
