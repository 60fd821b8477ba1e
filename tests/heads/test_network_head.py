"""Heads in words and heads of modules: what is built, what they answer, how they come back, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from headstart.core.errors import ConfigError, ModelError, ShapeError
from headstart.core.tasks import Task
from headstart.heads import NetworkHead, RidgeHead, build_layers, describe_layers, load_head, parse_layers

SINGLE = Task("classification", ("ant", "bee", "cat"))
MULTI = Task("multilabel", ("red", "round"))
NUMBER = Task("regression")


def _rows(num_rows: int = 9, width: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_rows, width)).astype(np.float32)


def test_a_head_in_words_computes_what_its_layers_say() -> None:
    head = NetworkHead("flatten-dense4-relu-dropout0.5-softmax", 5, SINGLE, seed=3)
    state, rows = head.state(), _rows().astype(np.float64)
    hidden = np.maximum(rows @ state["1.weight"].T + state["1.bias"], 0)
    scores = hidden @ state["4.weight"].T + state["4.bias"]
    np.testing.assert_allclose(head.decision(rows), scores, atol=1e-6)
    head.temperature = 0.5
    raised = np.exp(scores / 0.5)
    np.testing.assert_allclose(head.predict_proba(rows), raised / raised.sum(1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(head.predict(rows), scores.argmax(1))


@pytest.mark.parametrize(
    ("text", "task", "words"),
    [
        ("", SINGLE, "dense3-softmax"),
        ("linear", SINGLE, "dense3-linear"),
        ("Dense8 - ReLU", MULTI, "dense8-relu-dense2-sigmoid"),
        ("dense8-gelu-dense3-softmax", SINGLE, "dense8-gelu-dense3-softmax"),
        ("batchnorm-dense8-tanh-layernorm-silu", NUMBER, "batchnorm-dense8-tanh-layernorm-silu-dense1-linear"),
        ("dense8-sigmoid-dense2-sigmoid", MULTI, "dense8-sigmoid-dense2-sigmoid"),
        ("dropout.5", NUMBER, "dropout0.5-dense1-linear"),
    ],
)
def test_the_last_layer_and_the_end_are_implied(text: str, task: Task, words: str) -> None:
    assert "-".join(map(str, parse_layers(text, task))) == words


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("dense512-rulu", r"'rulu' is no layer.*Did you mean 'relu'\?"),
        ("dens512", r"'dens512' is no layer.*Did you mean 'dense'\?"),
        ("dense-relu", "dense needs a whole number from 1 to 131072, as in dense512; got 'dense'"),
        ("dense0", "whole number"),
        ("dense1.5", "whole number"),
        ("dense99999999999", "whole number"),
        ("dropout1", "from 0 up to, but not, 1, as in dropout0.5"),
        ("dropout1.2.3", "is no layer"),
        ("relu6", "'relu6' takes no number"),
        ("softmax-dense3", "'softmax' stands at the end alone"),
        ("dense8-sigmoid", "sigmoid is for multilabel, this task is classification; end it with softmax"),
        ("dense8--relu", "'' is no layer"),
        ("import os", "is no layer"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_layers(text, SINGLE)


_WORDS = st.sampled_from(
    ["flatten", "dense7", "relu", "gelu", "silu", "tanh", "sigmoid", "dropout0.25", "batchnorm", "layernorm"]
)


@settings(deadline=None, max_examples=40)
@given(st.lists(_WORDS, max_size=5))
def test_words_become_a_module_and_a_module_its_words(words: list[str]) -> None:
    layers = parse_layers("-".join([*words, "linear"]), SINGLE)
    module = build_layers(layers, 6)
    described = describe_layers(module)
    assert described is not None and described + "-linear" == "-".join(map(str, layers))
    assert module.eval()(torch.zeros(2, 6)).shape == (2, 3)


@pytest.mark.parametrize("task", [SINGLE, MULTI, NUMBER], ids=lambda task: task.kind)
def test_saved_and_loaded_it_predicts_the_same_bits(task: Task) -> None:
    head = NetworkHead("dense6-batchnorm-relu-layernorm", 5, task, seed=1)
    head.module.train()
    head.module(torch.from_numpy(_rows(64, seed=4)) * 3 + 1)  # moves the running statistics
    head.temperature, head.centre, head.scale = 1.7, 20.0, 3.0
    config = json.loads(json.dumps(head.config(), allow_nan=False))
    loaded = load_head(config, {name: array.copy() for name, array in head.state().items()})
    assert isinstance(loaded, NetworkHead) and loaded.config() == head.config()
    np.testing.assert_array_equal(loaded.predict_scores(_rows()), head.predict_scores(_rows()))
    if task.kind == "regression":
        scores = head.module(torch.from_numpy(_rows())).detach().numpy()[:, 0]
        np.testing.assert_allclose(head.predict(_rows()), scores * 3 + 20, rtol=1e-6)


@pytest.mark.parametrize("task", [SINGLE, MULTI, NUMBER], ids=lambda task: task.kind)
@pytest.mark.parametrize("form", ["words", "module"])
def test_as_one_module_it_gives_the_same_answers(task: Task, form: str) -> None:
    given_ = nn.Sequential(nn.Linear(5, task.num_outputs), nn.Tanh())
    head = NetworkHead("dense6-relu" if form == "words" else given_, 5, task)
    head.temperature, head.centre, head.scale = (1.0, 20.0, 3.0) if task.kind == "regression" else (0.4, 0.0, 1.0)
    with torch.no_grad():
        outputs = head.to_module()(torch.from_numpy(_rows()))
    outputs = {"classification": outputs.softmax(1), "multilabel": outputs.sigmoid(), "regression": outputs[:, 0]}[
        task.kind
    ]
    np.testing.assert_allclose(outputs.numpy(), head.predict_scores(_rows()), rtol=1e-4, atol=1e-5)


def test_calibration_sets_the_temperature_that_other_heads_would() -> None:
    head = NetworkHead(nn.Sequential(nn.Linear(1, 2, bias=True)), 1, Task("classification", ("a", "b")))
    with torch.no_grad():
        head.module[0].weight.copy_(torch.tensor([[1.0], [0.0]]))
        head.module[0].bias.zero_()
    head.calibrate(np.ones((4, 1)), np.array([0, 0, 0, 1]))  # always equally sure, right 3 times of 4
    smoothed = (3 * (1 - 1 / 6) + 1 / 6) / 4
    assert head.temperature == pytest.approx(1 / np.log(smoothed / (1 - smoothed)), rel=1e-4)
    number = NetworkHead("linear", 1, NUMBER).calibrate(np.ones((4, 1)), np.arange(4.0))
    assert number.temperature == 1.0


def test_a_plain_sequential_is_put_into_words_and_keeps_its_weights() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.Softmax(dim=1))
    head = NetworkHead(module, 5, SINGLE)
    assert head.layers == "flatten-dense4-relu-dense3-softmax"
    with torch.no_grad():
        expected = module(torch.from_numpy(_rows())).numpy()
    np.testing.assert_allclose(head.predict_proba(_rows()), expected, atol=1e-6)
    assert head.module[1].weight is not module[1].weight  # the user's own stays as it is
    loaded = load_head(json.loads(json.dumps(head.config())), head.state())
    np.testing.assert_array_equal(loaded.decision(_rows()), head.decision(_rows()))


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(5, 3, bias=False)),
        nn.Sequential(nn.BatchNorm1d(5, eps=0.1), nn.Linear(5, 3)),
        nn.Sequential(nn.GELU(approximate="tanh"), nn.Linear(5, 3)),
        nn.Sequential(nn.Sequential(nn.Linear(5, 3))),
        nn.Sequential(nn.Linear(5, 3), nn.ReLU()),
    ],
)
def test_other_modules_predict_but_say_what_saving_needs(module: nn.Module) -> None:
    head = NetworkHead(module, 5, SINGLE)
    assert head.layers == "" and head.predict(_rows()).shape == (9,)
    with pytest.raises(ModelError, match="give the head in words, such as"):
        head.config()


def test_a_module_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Give its last layer 3 units"):
        NetworkHead(nn.Linear(5, 4), 5, SINGLE)
    with pytest.raises(ConfigError, match=r"must take features \(n, 5\)"):
        NetworkHead(nn.Linear(6, 3), 5, SINGLE)
    with pytest.raises(ShapeError, match="made for 5 features but got 7"):
        NetworkHead("linear", 5, SINGLE).decision(np.zeros((2, 7)))


def test_a_damaged_description_is_refused_before_anything_large_is_built() -> None:
    head = NetworkHead("dense6-relu", 5, SINGLE)
    config, state = head.config(), head.state()
    huge = {**config, "parameters": {"layers": "dense131072-dense131072", "width": 5}}
    for wrong, arrays in [
        (huge, state),
        (config, {**state, "9.weight": np.zeros(1, np.float32)}),
        (config, {name: array for name, array in state.items() if name != "0.bias"}),
        ({**config, "parameters": {}}, state),
        ({**config, "temperature": "hot"}, state),
        ({**config, "kind": "os.system"}, state),
        ({**config, "parameters": {"layers": "rulu", "width": 5}}, state),
    ]:
        with pytest.raises(ModelError, match="from_state"):
            load_head(wrong, arrays)


def test_a_solved_head_is_still_loaded() -> None:
    rows = _rows(40)
    head = RidgeHead().fit(rows, (rows[:, 0] > 0).astype(int), Task("classification", ("a", "b")))
    loaded = load_head(head.config(), head.state())
    np.testing.assert_array_equal(loaded.decision(rows), head.decision(rows))
    torch.testing.assert_close(head.to_module().weight, head.to_linear().weight)


def test_the_seed_says_where_it_starts_and_nothing_else_is_stirred() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first, second, other = (NetworkHead("dense6-relu", 5, SINGLE, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    np.testing.assert_array_equal(first.decision(_rows()), second.decision(_rows()))
    assert not np.array_equal(first.decision(_rows()), other.decision(_rows()))
