"""Fine-tuning on small networks: what changes and what must not, that the model answers as the network did, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from headstart.backbones import Backbone, open_backbone, vector_backbone
from headstart.catalog import resolve
from headstart.core.errors import ConfigError, DataError
from headstart.core.tasks import Task
from headstart.data import Dataset, open_dataset
from headstart.features import FeatureStore, extract_features
from headstart.heads import LinearHead, NetworkHead, fit_temperature, to_probabilities
from headstart.methods import FineTuning
from headstart.methods.fine_tuned import cross_calibrated, judged_loss
from headstart.methods.recipe import default_config
from headstart.methods.regularisers import REGULARISERS, read_regularisers
from headstart.methods.tuning_rows import TuningRows
from headstart.model import load_model
from headstart.objectives import BSS
from headstart.training import TrainingConfig
from headstart.training.strategies import FullFineTuning, LastStages, LinearProbeThenFineTune, read_strategy

pytestmark = pytest.mark.golden

SHORT = TrainingConfig(learning_rate=1e-3, max_epochs=2, batch_size=8, precision="fp32")


def _vectors(kind: str = "classification", num_rows: int = 240, seed: int = 0) -> Dataset:
    """Return rows whose answer is the product of two numbers: nothing that a linear map could find."""
    x_nd = np.random.default_rng(seed).uniform(-1, 1, size=(num_rows, 3)).astype(np.float32)
    product_n = x_nd[:, 0] * x_nd[:, 1]
    if kind == "regression":
        return open_dataset(x_nd, labels=100 + 50 * product_n)
    if kind == "multilabel":
        return open_dataset(x_nd, labels=np.stack([product_n > 0, product_n <= 0.1], 1).astype(int), classes=["a", "b"])
    return open_dataset(x_nd, labels=["same" if value > 0 else "other" for value in product_n])


@pytest.fixture(scope="module")
def network() -> Backbone:
    """Return a small residual network with batch normalisation, at random weights."""
    torch.manual_seed(0)
    return open_backbone(timm.create_model("test_resnet", num_classes=10), input_size=32)


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    """Return 36 pictures of two kinds that differ in colour and stripes."""
    random = np.random.default_rng(0)
    rows, labels = [], []
    for i in range(36):
        stripes = 60 * np.sin(np.arange(40) / random.uniform(2, 4))
        picture = random.normal(120, 40, (40, 40, 3)) + (stripes[:, None, None] if i % 2 else stripes[None, :, None])
        picture[:, :, 0] += 40 * (i % 2)
        rows.append(picture.clip(0, 255).astype(np.uint8))
        labels.append("across" if i % 2 else "down")
    return open_dataset(np.stack(rows), labels=labels)


def _tensors(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_a_head_in_words_learns_what_a_solved_one_cannot(kind: str, tmp_path: Path) -> None:
    rows = _vectors(kind)
    config = TrainingConfig(learning_rate=2e-3, max_epochs=40, threads=1)
    done = FineTuning(head="dense32-tanh", config=config).fit(rows, vector_backbone(3), store=False)
    assert rows.targets is not None and done.validation_kept is not None and done.validation_scores is not None
    truth, scores = rows.targets[done.validation_kept], done.validation_scores
    if kind == "regression":
        assert 1 - np.mean((scores - truth) ** 2) / truth.var() > 0.8
        np.testing.assert_allclose(done.model.predict(rows.matrix()).scores[done.validation_kept], scores, atol=1e-3)
    else:
        right = scores.argmax(1) == truth if kind == "classification" else ((scores > 0.5) == truth).mean(1)
        assert right.mean() > 0.85
    assert len(truth) == pytest.approx(0.15 * len(rows), abs=5)
    assert done.plan_reason.startswith("the rows are features already")
    loaded = load_model(done.model.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(rows.matrix()).scores, done.model.predict(rows.matrix()).scores)


def test_a_solved_head_over_a_frozen_body_is_left_as_it_is() -> None:
    rows = _vectors()
    backbone = vector_backbone(3)
    done = FineTuning(seed=1).fit(rows, backbone, store=False)
    assert isinstance(done.model.head, LinearHead) and done.model.backbone is backbone
    assert done.history.steps == 0 and "solved already" in done.plan_reason
    assert done.validation_scores is done.solved_scores


def test_the_cost_of_training_all_stages_is_counted_where_no_gpu_computes(
    network: Backbone, pictures: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = TuningRows(pictures, None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    epochs = default_config("image", "classification", 36, whole=True).max_epochs
    once = 3 * epochs * 36 * network.info.multiply_adds / 40e9  # a step is three forward passes, at 40 billion a second
    assert FineTuning()._whole_seconds(part, network) == pytest.approx(once)
    assert FineTuning(config=SHORT)._whole_seconds(part, network) == pytest.approx(once * 2 / epochs)
    part.divide(0.25, None, 0)
    assert FineTuning()._whole_seconds(part, network) == pytest.approx(2 * once * len(part.learning) / 36)
    assert FineTuning(refit=False)._whole_seconds(part, network) == pytest.approx(once * len(part.learning) / 36)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert FineTuning()._whole_seconds(part, network) == 0


def test_what_is_frozen_stays_and_the_base_model_too(network: Backbone, pictures: Dataset) -> None:
    before, digest = _tensors(network), network.weights_digest
    done = FineTuning("last-stages:1", config=SHORT, batch_norm="train").fit(pictures, network, store=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.module.state_dict().items())
    assert network.weights_digest == digest and done.model.backbone.weights_digest != digest
    after = _tensors(done.model.backbone)
    changed = {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"layer4"}
    moved = {name for name in after if "running_mean" in name and not torch.equal(after[name], before[name])}
    assert moved and all(name.startswith("layer4") for name in moved)  # statistics of frozen layers rest
    assert done.history.frozen_digest and done.model.backbone.source_head is None


def test_batch_normalisation_rests_unless_asked(network: Backbone, pictures: Dataset) -> None:
    before = _tensors(network)
    done = FineTuning("full", config=SHORT).fit(pictures, network, store=False)
    after = _tensors(done.model.backbone)
    norms = {name.rpartition(".")[0] for name in before if "running_mean" in name}
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) == (name.rpartition(".")[0] in norms), name


@pytest.mark.parametrize(
    "strategy", ["last-stages:2", "full", "lora:2", "dora:2", "ia3", "norms", "gradual-unfreezing:2"]
)
def test_the_model_answers_as_the_trained_network_did(
    strategy: str, network: Backbone, pictures: Dataset, tmp_path: Path
) -> None:
    done = FineTuning(strategy, config=SHORT, runtime="torch-fp32").fit(pictures, network, store=False)
    model = done.model
    assert isinstance(model.head, NetworkHead) and done.validation_kept is not None
    with torch.no_grad():
        inputs = extract_features(pictures, model.backbone, store=False, runtime="torch-fp32").values_nd
    scores = model.head.predict_scores(inputs)
    answers = model.predict(pictures, store=False, runtime="torch-fp32").scores
    np.testing.assert_allclose(answers, scores, atol=1e-5)
    kept = done.validation_kept
    logits = model.head.decision(inputs[kept])
    assert pictures.targets is not None and pictures.task is not None
    expected = cross_calibrated(pictures.task, logits, pictures.targets[kept], 0)
    assert done.validation_scores is not None
    np.testing.assert_allclose(done.validation_scores, expected, atol=1e-4)
    loaded = load_model(model.save(tmp_path / "model"))
    assert loaded.backbone.weights_digest == model.backbone.weights_digest
    np.testing.assert_allclose(loaded.predict(pictures, store=False, runtime="torch-fp32").scores, answers, atol=1e-6)
    told = json.loads((tmp_path / "model" / "model.json").read_text())["provenance"]["fine_tuning"]
    assert told["base_weights_digest"] == network.weights_digest and told["start"] == "solved"
    assert told["strategy"] == read_strategy(strategy).config()
    assert "fine-tuned with strategy" in (tmp_path / "model" / "README.md").read_text()


@pytest.fixture(scope="module")
def texts() -> Dataset:
    """Return short texts; which of two words comes first decides the label."""
    random = np.random.default_rng(0)
    rows, labels = [], []
    for _ in range(48):
        words = [f"w{i}" for i in random.integers(4, 20, random.integers(3, 9))]
        first, second = sorted(random.choice(len(words) + 1, 2, replace=False))
        turned = bool(random.integers(2))
        words.insert(second, "w1" if turned else "w2")
        words.insert(first, "w2" if turned else "w1")
        rows.append(" ".join(words))
        labels.append("turned" if turned else "straight")
    return open_dataset(rows, labels=labels)


@pytest.mark.parametrize("strategy", ["last-stages:1", "layerwise-decay:0.5", "lora:2", "loha:2", "lokr:2", "norms"])
def test_text_encoders_are_tuned_and_saved_as_ordinary_ones(
    strategy: str, encoder: Backbone, texts: Dataset, tmp_path: Path
) -> None:
    before = _tensors(encoder)
    done = FineTuning(strategy, config=SHORT, runtime="torch-fp32").fit(texts, encoder, store=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.module.state_dict().items())
    after = _tensors(done.model.backbone)
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    if strategy == "last-stages:1":
        assert changed and all(".layer.2." in name for name in changed)
    elif strategy in ("lora:2", "loha:2", "lokr:2"):
        assert changed and all(name.endswith(".weight") and after[name].ndim == 2 for name in changed)
        assert not any("embeddings" in name or "LayerNorm" in name for name in changed)
    elif strategy == "norms":
        assert changed and all("LayerNorm" in name for name in changed)
    else:
        assert any("embeddings" in name for name in changed)
    answers = done.model.predict(texts, store=False, runtime="torch-fp32").scores
    loaded = load_model(done.model.save(tmp_path / "model"))
    np.testing.assert_allclose(loaded.predict(texts, store=False, runtime="torch-fp32").scores, answers, atol=1e-6)
    assert done.validation_scores is not None and done.validation_kept is not None
    right = answers.argmax(1)[done.validation_kept] == done.validation_scores.argmax(1)
    assert right.all()


def test_features_of_the_tuned_network_have_a_place_of_their_own(
    network: Backbone, pictures: Dataset, tmp_path: Path
) -> None:
    store = FeatureStore(tmp_path / "features")
    done = FineTuning("last-stages", config=SHORT).fit(pictures, network, store=store)
    assert extract_features(pictures, network, store=store).computed == 0
    first = extract_features(pictures, done.model.backbone, store=store)
    again = extract_features(pictures, done.model.backbone, store=store)
    assert first.computed == len(pictures) and again.computed == 0
    assert np.abs(again.values_nd - extract_features(pictures, network, store=store).values_nd).max() > 1e-3


def test_training_starts_from_the_solved_head(network: Backbone, pictures: Dataset) -> None:
    still = TrainingConfig(learning_rate=1e-9, max_epochs=1, batch_size=8, weight_decay=0.0, precision="fp32")
    done = FineTuning(LinearProbeThenFineTune(LastStages(1)), config=still).fit(pictures, network, store=False)
    assert done.validation_scores is not None and done.solved_scores is not None
    assert (done.validation_scores.argmax(1) == done.solved_scores.argmax(1)).all()
    assert "from the solved head, " in done.plan_reason
    numbers = open_dataset(np.stack([pictures.read(i) for i in range(36)]), labels=np.linspace(0, 1000, 36) ** 2 + 5e5)
    done = FineTuning("last-stages", config=still).fit(numbers, network, store=False)
    assert done.validation_scores is not None and done.solved_scores is not None
    np.testing.assert_allclose(done.validation_scores, done.solved_scores, rtol=1e-3)


def test_weights_go_back_part_of_the_way_to_the_solved_start(network: Backbone, pictures: Dataset) -> None:
    models = {
        mix: FineTuning("last-stages", config=SHORT, validation=0.0, mix=mix).fit(pictures, network, store=False).model
        for mix in (0.0, 0.25, 1.0)
    }
    start, end = _tensors(network), _tensors(models[1.0].backbone)
    for name, tensor in _tensors(models[0.25].backbone).items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, start[name] + 0.25 * (end[name] - start[name]), rtol=1e-5, atol=1e-6)
    assert models[0.0].backbone is network
    heads = [models[mix].head.state()["0.weight"] for mix in (0.0, 0.25, 1.0)]
    np.testing.assert_allclose(heads[1], heads[0] + 0.25 * (heads[2] - heads[0]), atol=1e-6)
    assert models[0.25].provenance["fine_tuning"]["mix"] == 0.25


def test_how_far_to_go_is_chosen_by_the_validation_loss_and_all_rows_learn(
    network: Backbone, pictures: Dataset
) -> None:
    ruinous = TrainingConfig(learning_rate=0.03, max_epochs=1, batch_size=8, restore_best=False, precision="fp32")
    done = FineTuning("last-stages", config=ruinous, validation=0.3).fit(pictures, network, store=False)
    assert done.mix < 1 and "weights lie at" in done.notes[0]
    assert pictures.targets is not None and done.validation_kept is not None and pictures.task is not None
    told = {part.split(" at ")[1]: float(part.split(" at ")[0]) for part in done.notes[0].split("loss ")[1].split(", ")}
    assert min(told.values()) == told[f"{done.mix:g}"] and len(told) == 5
    assert any(f"from all {len(pictures)} rows" in note for note in done.notes)
    gentle = TrainingConfig(learning_rate=1e-4, max_epochs=1, batch_size=8, restore_best=False, precision="fp32")
    some = FineTuning("last-stages", config=gentle, validation=0.3, mix=1.0, refit=False).fit(
        pictures, network, store=False
    )
    every = FineTuning("last-stages", config=gentle, validation=0.3, mix=1.0).fit(pictures, network, store=False)
    np.testing.assert_array_equal(some.validation_scores, every.validation_scores)
    assert some.model.provenance["fine_tuning"]["learning_rows"] < 36
    assert every.model.provenance["fine_tuning"]["learning_rows"] == 36
    assert every.model.head.temperature == some.model.head.temperature


def test_the_head_may_have_a_rate_of_its_own(network: Backbone, pictures: Dataset) -> None:
    tables = []
    for rate in (1e-9, None):
        done = FineTuning("last-stages", head="linear", config=SHORT, head_rate=rate, validation=0.0).fit(
            pictures, network, store=False
        )
        tables.append(done.model.head.state()["0.weight"])
    assert np.abs(tables[0]).max() < 0.1 < np.abs(tables[0] - tables[1]).max() * 10


def test_the_same_seed_gives_the_same_weights_and_another_does_not(network: Backbone, pictures: Dataset) -> None:
    digests = [
        FineTuning("last-stages", config=SHORT, validation=0.0)
        .fit(pictures, network, store=False)
        .model.backbone.weights_digest
        for _ in range(2)
    ]
    other = TrainingConfig(**{**vars(SHORT), "seed": 5})
    third = FineTuning("last-stages", config=other, validation=0.0).fit(pictures, network, store=False)
    assert digests[0] == digests[1] != third.model.backbone.weights_digest


def test_kept_and_computed_activations_train_the_same_weights(network: Backbone, pictures: Dataset) -> None:
    found = {
        boundary: FineTuning(
            "last-stages:2", config=SHORT, validation=0.0, boundary=boundary, runtime="torch-fp32"
        ).fit(pictures, network, store=False)
        for boundary in ("cached", "computed")
    }
    kept, computed = (done.model for done in found.values())
    assert kept.backbone.weights_digest == computed.backbone.weights_digest != network.weights_digest
    for name, array in kept.head.state().items():
        np.testing.assert_array_equal(array, computed.head.state()[name])


def test_terms_of_the_loss_are_named_or_given(network: Backbone, pictures: Dataset) -> None:
    done = FineTuning("last-stages", config=SHORT, regularisers=("l2-sp:0.5", BSS(weight=0.1))).fit(
        pictures, network, store=False
    )
    assert set(done.history.losses) == {"train.CrossEntropy", "train.L2SP", "train.BSS"}
    assert done.model.provenance["fine_tuning"]["regularisers"] == ["L2SP", "BSS"]


def test_terms_that_look_at_the_source_task_get_its_head(network: Backbone, pictures: Dataset) -> None:
    random = np.random.default_rng(0)
    with_head = open_backbone(network)
    head = nn.Linear(network.width, 7)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(random.normal(0, 0.05, head.weight.shape)))
    before, with_head.source_head = with_head.source_head, head
    weights = head.weight.detach().clone()
    try:
        done = FineTuning("last-stages", config=SHORT, regularisers=("lwf", "co-tuning")).fit(
            pictures, with_head, store=False
        )
        assert {"train.LwF", "train.CoTuning"} < set(done.history.losses)
        assert torch.equal(head.weight, weights)  # a copy of it trained
        with_head.source_head = None
        with pytest.raises(ConfigError, match="LwF needs the base model's own classifier"):
            FineTuning("last-stages", config=SHORT, regularisers=("lwf",)).fit(pictures, with_head, store=False)
    finally:
        with_head.source_head = before


def test_stochastic_normalisation_leaves_an_ordinary_network(network: Backbone, pictures: Dataset) -> None:
    done = FineTuning("last-stages", config=SHORT, regularisers=("stochastic-normalisation",)).fit(
        pictures, network, store=False
    )
    kinds = {type(part).__name__ for part in done.model.backbone.module.modules()}
    assert "BatchNorm2d" in kinds and not any(kind.startswith("Stochastic") for kind in kinds)


def test_groups_are_not_divided_and_unreadable_rows_are_left_out(
    network: Backbone, tmp_path: Path, pictures: Dataset
) -> None:
    from PIL import Image

    files = []
    for i in range(36):
        path = tmp_path / f"{i}.png"
        Image.fromarray(pictures.read(i)).save(path)  # type: ignore[arg-type]
        files.append(path)
    files[7].write_bytes(files[7].read_bytes()[:60])
    import pandas as pd

    assert pictures.targets is not None
    frame = pd.DataFrame({"image": [str(path) for path in files], "label": [f"c{i}" for i in pictures.targets]})
    rows = open_dataset(frame, image="image", label="label")
    groups = np.arange(36) // 4
    for head in ("solved", "linear"):
        done = FineTuning("head-only", head=head, config=SHORT).fit(rows, network, groups=groups, store=False)
        assert done.validation_kept is not None
        held = groups[done.validation_kept]
        assert all((held == group).sum() == (4 - (group == 1)) for group in set(held.tolist()))
        assert any("1 rows cannot be read" in note for note in done.notes)


def test_without_validation_rows_all_rows_train_and_the_temperature_is_the_one_given() -> None:
    rows = _vectors()
    config = TrainingConfig(learning_rate=3e-3, max_epochs=3, restore_best=False)
    done = FineTuning("head-only", head="dense8-relu", config=config, temperature=1.7).fit(
        rows, vector_backbone(3), store=False
    )
    assert done.validation_scores is None and done.model.head.temperature == 1.7
    assert done.model.head.report["why"] == f"the head alone trains on {len(rows)} rows; the body is frozen"


def test_the_loss_that_judges_is_the_task_s_own() -> None:
    answers = np.array([[0.0, 0.0], [1.0, -1.0], [0.3, 2.0]])
    multi, targets = Task("multilabel", ("a", "b")), np.array([[1, 0], [1, 1], [0, 1]])
    chance = 1 / (1 + np.exp(-answers))
    expected = -np.mean(targets * np.log(chance) + (1 - targets) * np.log(1 - chance))
    assert judged_loss(multi, answers, targets, seed=0) == pytest.approx(expected)
    single, classes = Task("classification", ("a", "b")), np.array([0, 0, 1])
    raised = np.exp(answers)
    expected = -np.mean(np.log((raised / raised.sum(1, keepdims=True))[np.arange(3), classes]))
    assert judged_loss(single, answers, classes, seed=0) == pytest.approx(expected)


def test_validation_scores_are_calibrated_by_other_rows() -> None:
    task = Task("classification", ("a", "b"))
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, 60)
    logits = 9 * (random.normal(size=(60, 2)) + np.eye(2)[targets])
    found = cross_calibrated(task, logits, targets, seed=0)
    np.testing.assert_array_equal(found.argmax(1), logits.argmax(1))
    whole = to_probabilities(task, logits, fit_temperature(task, logits, targets, np.ones(60)))
    assert 0 < np.abs(found - whole).max() < 0.1
    moved = np.where(np.arange(60) == 3, 1 - targets, targets)  # a row's own label does not move its own probability
    np.testing.assert_array_equal(cross_calibrated(task, logits, moved, seed=0)[3] >= 0, [True, True])


def test_a_module_of_ones_own_trains_but_saving_says_what_it_needs(network: Backbone, pictures: Dataset) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(network.width, 2)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.layer(features)

    done = FineTuning("head-only", head=Own(), config=SHORT).fit(pictures, network, store=False)
    assert done.history.steps > 0 and done.model.backbone is network
    with pytest.raises(Exception, match="give the head in words"):
        done.model.save(Path("never"))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"strategy": "last-stage"}, "Did you mean 'last-stages'"),
        ({"regularisers": ("l2sp",)}, "Did you mean 'l2-sp'"),
        ({"regularisers": ("bss:much",)}, "a number; got 'much'"),
        ({"regularisers": ("bss:nan",)}, "finite number; got 'nan'"),
        ({"regularisers": ("stochastic-normalisation:1.5",)}, "robability"),
        ({"batch_norm": "keep"}, "batch_norm is 'frozen' or 'train'"),
        ({"boundary": "here"}, "boundary is auto"),
        ({"validation": 1.0}, r"lies in \[0, 1\)"),
        ({"temperature": 0.0}, "temperature is positive"),
        ({"mix": 1.5}, r"mix lies in \[0, 1\]"),
        ({"head_rate": 0.0}, "head_rate is positive"),
    ],
)
def test_options_that_break_a_rule_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        FineTuning(**options)


def test_the_number_after_a_name_goes_where_it_belongs() -> None:
    weighed, normalised = read_regularisers(["l2-sp:0.5", "stochastic-normalisation:0.3"])
    assert weighed.weight == 0.5
    assert normalised.config()["probability"] == 0.3


def test_regularisers_have_the_names_of_the_catalog() -> None:
    assert {name: resolve(name, "objective") for name in REGULARISERS} == REGULARISERS


def test_rows_that_cannot_be_learnt_from_are_refused(network: Backbone, pictures: Dataset) -> None:
    with pytest.raises(DataError, match="these have no labels"):
        FineTuning().fit(pictures.unlabelled(), network)
    with pytest.raises(DataError, match="reads vector rows but the data set holds image rows"):
        FineTuning().fit(pictures, vector_backbone(3))
    with pytest.raises(DataError, match="at least two labelled rows"):
        FineTuning().fit(pictures.subset([0]), network)
    with pytest.raises(ConfigError, match="'rulu' is no layer"):
        FineTuning("head-only", head="dense8-rulu").fit(pictures, network, store=False)
    with pytest.raises(ConfigError, match="use head-only"):
        FineTuning(FullFineTuning(), head="linear").fit(_vectors(), vector_backbone(3), store=False)
    other = extract_features(_vectors(), vector_backbone(3), store=False)
    from headstart.heads import RidgeHead

    rows = _vectors()
    assert rows.targets is not None and rows.task is not None
    wrong = RidgeHead().fit(other.values_nd, rows.targets, rows.task)
    with pytest.raises(ConfigError, match="the solved head is for 3 features"):
        FineTuning("full").fit(pictures, network, solved=wrong, validation_rows=pictures, store=False)


def test_a_class_without_a_training_row_is_said() -> None:
    rows = _vectors()
    assert rows.task is not None and rows.targets is not None
    more = rows.relabelled(Task("classification", (*rows.task.classes, "never")), rows.targets)
    done = FineTuning("head-only", head="dense8-relu", config=SHORT).fit(more, vector_backbone(3), store=False)
    assert sum("no training row has the class never" in note for note in done.notes) == 1


def test_the_rate_finder_begins_where_fit_begins_and_leaves_no_trace(
    network: Backbone, pictures: Dataset, tmp_path: Path
) -> None:
    method = FineTuning("last-stages:1", config=SHORT, validation=0.0, runtime="torch-fp32")
    before = network.weights_digest
    sweep = method.find_learning_rate(pictures, network, num_steps=40)
    assert sweep.rates[0] == pytest.approx(1e-7) and sweep.suggestion < sweep.rates[-1]
    again = method.find_learning_rate(pictures, network, num_steps=40)
    assert again.losses == sweep.losses  # the same rows, start and draws
    other = FineTuning("full", config=SHORT, validation=0.0).find_learning_rate(pictures, network, num_steps=40)
    assert other.losses[-1] != sweep.losses[-1]  # another part trains
    assert other.losses[0] == pytest.approx(sweep.losses[0], rel=1e-3)  # from the same start
    assert sweep.plot(tmp_path / "rates.png").stat().st_size > 1000
    assert network.weights_digest == before and open_backbone(network.module, input_size=32).weights_digest == before
    with pytest.raises(ConfigError, match="solved head needs no learning rate"):
        FineTuning("head-only").find_learning_rate(pictures, network)
