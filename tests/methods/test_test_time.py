"""Test-time adaptation: statistics, Fisher weights and corrected answers against literal twins, and gains on corrupted digits."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from sklearn.datasets import load_digits
from torch import nn

from headstart.alignment.lame import lame_probabilities, neighbour_affinity
from headstart.backbones import Backbone, open_backbone, vector_backbone
from headstart.core.errors import ConfigError, DataError, ModelError
from headstart.core.tasks import Task
from headstart.data import Dataset, open_dataset
from headstart.heads import NetworkHead
from headstart.methods import FineTuning, TestTimeAdaptation
from headstart.methods.fisher_anchor import FisherAnchor, diagonal_fisher
from headstart.methods.target_statistics import affine_parameters, batch_normalisations, replace_statistics
from headstart.model import Model, load_model
from headstart.model.lame_head import LAMEHead
from headstart.model.novelty import NoveltyScorer
from headstart.objectives import EATA, Batch, Setup, reliable_entropy, reliable_rows
from headstart.training import Network, TrainingConfig
from small_networks import small_image_backbone

TASK = Task("classification", ("a", "b", "c"))


def normed(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5), nn.BatchNorm1d(5))
    return Network({"features": body}, {"main": nn.Linear(5, 3)})


def batches_of(rows: np.ndarray, size: int = 8) -> list[tuple[torch.Tensor]]:
    return [(torch.from_numpy(rows[start : start + size]).float(),) for start in range(0, len(rows), size)]


@pytest.mark.parametrize("prior", [0.0, 16.0])
def test_statistics_are_the_means_over_batches_and_the_sources_share(prior: float) -> None:
    network = normed()
    first, second = batch_normalisations(network)
    nn.init.constant_(first.running_mean, 7.0)
    nn.init.constant_(first.running_var, 9.0)
    rows = np.random.default_rng(0).normal(2.0, 3.0, size=(48, 4))
    weight, bias = (
        tensor.detach().double().numpy() for tensor in (network.segments[0][0].weight, network.segments[0][0].bias)
    )
    hidden = [part @ weight.T + bias for part in np.split(rows, 6)]
    mean = np.mean([part.mean(0) for part in hidden], axis=0)
    variance = np.mean([part.var(0, ddof=1) for part in hidden], axis=0)
    count = replace_statistics(network, batches_of(rows), num_rows=48, prior=prior)
    share = prior / (prior + 48)
    assert count == 2
    np.testing.assert_allclose(first.running_mean.numpy(), (1 - share) * mean + share * 7, rtol=1e-5)
    np.testing.assert_allclose(first.running_var.numpy(), (1 - share) * variance + share * 9, rtol=1e-5)
    assert first.momentum == second.momentum == 0.1 and not first.training
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), normed().parameters(), strict=True))


def test_layers_with_scale_and_shift_are_found() -> None:
    kind, names = affine_parameters(normed())
    assert kind == "batch" and names == [f"segments.0.{i}.{name}" for i in (1, 4) for name in ("weight", "bias")]
    layered = Network({"features": nn.Sequential(nn.LayerNorm(2), nn.GroupNorm(1, 2))}, {"main": nn.LayerNorm(2)})
    kind, names = affine_parameters(layered)
    assert kind == "layer" and len(names) == 4
    assert affine_parameters(Network({"features": nn.Linear(2, 2)}, {"main": nn.BatchNorm1d(2)})) == ("", [])


def test_fisher_is_the_mean_squared_slope_of_the_networks_own_answers() -> None:
    network, rows = normed().double().eval(), np.random.default_rng(1).normal(size=(12, 4))
    names = ["segments.0.4.weight", "heads.main.bias"]
    batches = [(torch.from_numpy(part),) for part in np.split(rows, 3)]
    fisher = diagonal_fisher(network, names, batches)

    def loss(batch: tuple[torch.Tensor], labels: torch.Tensor) -> float:
        with torch.no_grad():
            log_probabilities = network(*batch).logits.log_softmax(1)
        return float(-np.mean([log_probabilities[i, label].item() for i, label in enumerate(labels)]))

    for name in names:
        parameter, expected = dict(network.named_parameters())[name], []
        for place in range(parameter.numel()):
            slopes = []
            for batch in batches:
                labels = network(*batch).logits.argmax(1)
                values = []
                for step in (1e-5, -1e-5):
                    with torch.no_grad():
                        parameter.view(-1)[place] += step
                    values.append(loss(batch, labels))
                    with torch.no_grad():
                        parameter.view(-1)[place] -= step
                slopes.append(((values[0] - values[1]) / 2e-5) ** 2)
            expected.append(np.mean(slopes))
        np.testing.assert_allclose(fisher[name].view(-1).numpy(), expected, rtol=1e-4, atol=1e-10)
    assert all((value == 0).all() for value in diagonal_fisher(network, names, []).values())


def test_the_anchor_is_a_weighted_square_and_pulls_back() -> None:
    network = normed()
    names = affine_parameters(network)[1]
    known = dict(network.named_parameters())
    matters = {name: torch.rand_like(known[name]) for name in names}
    anchor = FisherAnchor(network, matters, 5.0)
    assert anchor(Batch()).item() == 0.0 and list(anchor.parameters()) == []
    with torch.no_grad():
        for name in names:
            known[name].add_(0.3)
    anchor(Batch()).backward()
    for name in names:
        assert torch.allclose(known[name].grad, 2 * 5 * 0.3 * matters[name], atol=1e-5)
    assert anchor(Batch()).item() == pytest.approx(
        5 * 0.09 * sum(float(item.sum()) for item in matters.values()), rel=1e-5
    )


def test_eata_is_its_formula_and_remembers_what_it_took() -> None:
    random = np.random.default_rng(3)
    objective = EATA(margin=0.6, similarity=1.2, weight=2.0)
    objective.prepare(Setup(nn.Linear(1, 1), TASK))
    limit, mean = 0.6 * math.log(3), None
    for _ in range(3):
        logits = 3 * random.normal(size=(10, 3))
        rows = [np.exp(row) / np.exp(row).sum() for row in logits]
        entropies = [-float((row * np.log(row)).sum()) for row in rows]
        taken = []
        for i, row in enumerate(rows):
            cosine = 0.0 if mean is None else float(row @ mean) / math.sqrt(row @ row) / math.sqrt(mean @ mean)
            if entropies[i] < limit and abs(cosine) < 1.2 / math.sqrt(3):
                taken.append(i)
        expected = sum(math.exp(limit - entropies[i]) * entropies[i] for i in taken) / max(1, len(taken))
        tensor = torch.from_numpy(logits).requires_grad_()
        value = objective(Batch(), Batch(logits=tensor))
        assert value.item() == pytest.approx(2 * expected, rel=1e-6)
        value.backward()
        assert set(np.flatnonzero(tensor.grad.abs().sum(1).numpy() > 0)) <= set(taken)
        objective.after_step()
        if taken:
            now = np.mean([rows[i] for i in taken], axis=0)
            mean = now if mean is None else 0.9 * mean + 0.1 * now
    np.testing.assert_allclose(objective.mean_k.numpy(), mean, rtol=1e-5)
    assert reliable_rows(torch.zeros(2, 3), None).tolist() == [False, False]
    assert reliable_entropy(torch.zeros(2, 3), torch.tensor([False, False])).item() == 0.0


# --- answers that near rows correct


def cloud_model(seed: int = 0) -> tuple[Model, np.ndarray, np.ndarray]:
    """Return a model of three clouds, and target rows of two of them, moved, with their classes."""
    random = np.random.default_rng(seed)
    centres = np.array([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    head = NetworkHead("linear", 2, TASK)
    with torch.no_grad():
        head.module[0].weight.copy_(torch.from_numpy(centres))
        head.module[0].bias.copy_(torch.from_numpy(-0.5 * (centres**2).sum(1)))
    labels = np.repeat([0, 1], 60)
    rows = centres[labels] + [-0.8, -1.2] + 0.7 * random.normal(size=(120, 2))
    return Model(vector_backbone(2), head, TASK), rows.astype(np.float32), labels


def test_lame_corrects_a_model_and_travels_with_it(tmp_path: Path) -> None:
    model, rows, labels = cloud_model()
    adapted = TestTimeAdaptation("lame", num_neighbours=7, agreement=0.5).fit(
        model, open_dataset(rows, labels=[TASK.classes[label] for label in labels])
    )
    given = model.head.predict_proba(rows)
    expected = lame_probabilities(given, neighbour_affinity(rows.astype(np.float64), 7), 0.5)
    order = np.random.default_rng(0).permutation(120)
    answers = adapted.predict(rows[order]).scores
    np.testing.assert_allclose(answers, expected[order], atol=1e-6)
    before, after = (float((item.argmax(1) == labels).mean()) for item in (given, expected))
    assert after > before + 0.04  # measured: 0.81 to 0.87
    assert adapted.provenance["test_time"]["answers_changed"] == (given.argmax(1) != expected.argmax(1)).sum()
    other = np.array([[0.4, 0.1]], np.float32)
    near = np.argsort(((rows - other) ** 2).sum(1))[:7]
    pulled = model.head.predict_proba(other)[0] * np.exp(0.5 * expected[near].sum(0))
    np.testing.assert_allclose(adapted.predict(other).scores[0], pulled / pulled.sum(), atol=1e-6)
    loaded = load_model(adapted.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(rows).scores, adapted.predict(rows).scores)
    assert "then adapted: `lame` on 120 rows" in (tmp_path / "model" / "README.md").read_text()
    assert model.head.kind == "network" and "test_time" not in model.provenance


@pytest.mark.parametrize("layers", ["linear", "dense8-tanh"])
def test_moments_give_target_features_the_sources_mean_and_deviation(layers: str, tmp_path: Path) -> None:
    model, source, labels = cloud_model()
    if layers != "linear":
        model = Model(model.backbone, NetworkHead(layers, 2, TASK, seed=3), TASK)
    target = source * np.array([3.0, 0.4], np.float32) + np.array([5.0, -2.0], np.float32)
    known = open_dataset(source, unlabelled=True)
    method = TestTimeAdaptation("moments")
    adapted = method.fit(model, open_dataset(target, unlabelled=True), source_rows=known, store=False)
    back = (target - target.mean(0)) / target.std(0) * source.std(0) + source.mean(0)
    np.testing.assert_allclose(adapted.predict(target).scores, model.head.predict_proba(back), atol=1e-4)
    np.testing.assert_allclose(adapted.predict(target).scores, model.predict(source).scores, atol=1e-4)
    if layers == "linear":
        before, after = (float((item.predict(target).scores.argmax(1) == labels).mean()) for item in (model, adapted))
        assert after > before + 0.2
    loaded = load_model(adapted.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(target).scores, adapted.predict(target).scores)
    still = np.concatenate(
        [target[:, :1], np.ones_like(target[:, :1])], axis=1
    )  # one feature never changes: only moved
    adapted = method.fit(model, open_dataset(still, unlabelled=True), source_rows=known, store=False)
    assert np.isfinite(adapted.predict(still).scores).all()
    with pytest.raises(ConfigError, match="give source_rows"):
        method.fit(model, open_dataset(target, unlabelled=True))
    kept = replace(
        model, novelty=NoveltyScorer("standardised").fit(source)
    )  # a model keeps what is needed of its training rows
    again = method.fit(kept, open_dataset(target, unlabelled=True), store=False)
    np.testing.assert_allclose(again.predict(target).scores, model.head.predict_proba(back), atol=1e-4)
    assert "source_rows" not in again.provenance["test_time"]


def test_a_damaged_lame_head_is_refused() -> None:
    model, rows, _ = cloud_model()
    head = LAMEHead.fitted(model.head, rows)
    config, state = json.loads(json.dumps(head.config())), head.state()
    assert np.array_equal(LAMEHead.from_state(config, state).predict_proba(rows), head.predict_proba(rows))
    for name in ("features", "answers", "head.0.weight"):
        with pytest.raises(ModelError, match="fetch the model again"):
            LAMEHead.from_state(config, {key: value for key, value in state.items() if key != name})
    for wrong in (state["answers"][:, :2], state["answers"] * np.nan, state["answers"][:5], state["answers"].ravel()):
        with pytest.raises((ModelError, DataError, Exception), match="LAME"):
            LAMEHead.from_state(config, {**state, "answers": wrong})
    with pytest.raises(ModelError):
        LAMEHead.from_state({**config, "weight": None}, state)
    with pytest.raises(ModelError, match="within a LAME head"):
        LAMEHead.from_state({**config, "head": config}, state)
    with pytest.raises(ConfigError, match="corrected by target rows already"):
        LAMEHead.fitted(head, rows)
    with pytest.raises(ConfigError, match="neither be fine-tuned nor exported"):
        head.to_module()
    assert head.predict(rows[:0]).shape == (0,)


# --- refusals


def test_a_model_without_what_a_method_adapts_is_refused_in_words() -> None:
    model, rows, _ = cloud_model()
    target = open_dataset(rows, unlabelled=True)
    with pytest.raises(ConfigError, match="has none; use 'lame'"):
        TestTimeAdaptation("tent").fit(model, target)
    with pytest.raises(ConfigError, match=r"statistics of batch normalisation.*use 'lame'"):
        TestTimeAdaptation("adabn").fit(model, target)
    with pytest.raises(DataError, match="at least two target rows"):
        TestTimeAdaptation("lame").fit(model, open_dataset(rows[:1], unlabelled=True))
    with pytest.raises(DataError, match="reads vector rows"):
        TestTimeAdaptation("lame").fit(model, open_dataset(["a text", "another"], unlabelled=True))
    numbers = Model(vector_backbone(2), NetworkHead("linear", 2, Task("regression")), Task("regression"))
    with pytest.raises(ConfigError, match=r"answers regression.*Only 'adabn'"):
        TestTimeAdaptation("lame").fit(numbers, target)
    for wrong in (
        {"method": "shot"},
        {"margin": 2.0},
        {"similarity": 0.0},
        {"anchor": -1.0},
        {"prior": math.inf},
        {"agreement": -1.0},
        {"num_neighbours": 0},
    ):
        with pytest.raises(ConfigError):
            TestTimeAdaptation(**wrong)  # type: ignore[arg-type]


@pytest.mark.golden
def test_a_transformer_trains_its_layer_normalisation() -> None:
    backbone, _ = small_image_backbone("vit")
    model = Model(backbone, NetworkHead("linear", backbone.width, TASK), TASK)
    pixels = np.random.default_rng(0).integers(0, 255, size=(24, 32, 32, 3)).astype(np.uint8)
    rows = open_dataset(pixels, unlabelled=True)
    with pytest.raises(ConfigError, match="use 'tent'"):
        TestTimeAdaptation("adabn").fit(model, rows)
    config = TrainingConfig(learning_rate=1e-2, batch_size=8, max_epochs=2, restore_best=False, precision="fp32")
    adapted = TestTimeAdaptation("tent", config=config).fit(model, rows)
    before, after = model.backbone.module.state_dict(), adapted.backbone.module.state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    again = TestTimeAdaptation("tent", config=config).fit(model, rows).backbone.module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in again.items())
    assert moved and all("norm" in name for name in moved)
    assert adapted.provenance["test_time"]["layers"] == "layer" and adapted.provenance["test_time"]["steps"] == 6


# --- gains


def digits(seed: int) -> tuple[Dataset, np.ndarray, np.ndarray, np.ndarray]:
    """Return labelled digits, others as they are and with low contrast, brighter and noisy, and the others' classes."""
    values, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(values))
    learn, rest = order[:700], order[700:1100]
    large = np.repeat(np.repeat(values.reshape(-1, 8, 8) * 15.9, 4, axis=1), 4, axis=2)
    pixels = np.repeat(large[..., None], 3, axis=3)
    noise = np.random.default_rng(100 + seed).normal(0, 20, size=pixels[rest].shape)
    worse = np.clip(0.5 * pixels[rest] + 70 + noise, 0, 255).astype(np.uint8)
    source = open_dataset(pixels[learn].astype(np.uint8), labels=[str(labels[i]) for i in learn])
    return source, pixels[rest].astype(np.uint8), worse, labels[rest]


def source_model(source: Dataset, seed: int) -> Model:
    torch.manual_seed(seed)
    backbone: Backbone = open_backbone(timm.create_model("test_resnet", num_classes=10), input_size=32)
    config = TrainingConfig(
        learning_rate=3e-3, max_epochs=6, batch_size=64, restore_best=False, precision="fp32", seed=seed
    )
    method = FineTuning(
        strategy="full", head="linear", batch_norm="train", validation=0.0, refit=False, config=config, seed=seed
    )
    return method.fit(source, backbone, store=False).model


def accuracy(model: Model, rows: Any, labels: np.ndarray) -> float:
    predicted = model.predict(open_dataset(rows, unlabelled=True), store=False, runtime="torch-fp32").scores.argmax(1)
    return float((np.array([int(name) for name in model.task.classes])[predicted] == labels).mean())


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_corrupted_digits_are_read_again(seed: int, tmp_path: Path) -> None:
    source, clean, worse, labels = digits(seed)
    model = source_model(source, seed)
    before = {name: tensor.clone() for name, tensor in model.backbone.module.state_dict().items()}
    target = open_dataset(worse, unlabelled=True)
    source_only = accuracy(model, worse, labels)
    assert accuracy(model, clean, labels) > 0.9
    adabn = TestTimeAdaptation("adabn").fit(model, target)
    halfway = TestTimeAdaptation("adabn", prior=500.0).fit(model, target)
    tent = TestTimeAdaptation("tent").fit(model, target)
    eata = TestTimeAdaptation("eata").fit(model, target, source_rows=source)
    found = {name: accuracy(item, worse, labels) for name, item in {"adabn": adabn, "tent": tent, "eata": eata}.items()}
    assert source_only < 0.3
    assert min(found.values()) > source_only + 0.5  # measured: 0.11 and 0.24 to 0.85 (adabn) and 0.89 (tent, eata)
    assert source_only < accuracy(halfway, worse, labels)
    assert found["tent"] >= found["adabn"] - 0.01
    assert all(torch.equal(before[name], tensor) for name, tensor in model.backbone.module.state_dict().items())
    loaded = load_model(tent.save(tmp_path / "model"))
    rows = open_dataset(worse[:20], unlabelled=True)
    np.testing.assert_array_equal(
        loaded.predict(rows, store=False, runtime="torch-fp32").scores,
        tent.predict(rows, store=False, runtime="torch-fp32").scores,
    )
