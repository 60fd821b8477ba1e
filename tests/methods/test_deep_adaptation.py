"""Deep adaptation on small networks: target labels cannot reach it, the model answers as its network, kills change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

from headstart.backbones import Backbone, vector_backbone
from headstart.core.errors import ConfigError, DataError
from headstart.core.tasks import Task
from headstart.data import Dataset, open_dataset
from headstart.evaluation.selection import CandidateEvidence, CircularValidation
from headstart.features import extract_features
from headstart.methods import AdaptedNetwork, AdaptedNetworkRegressor, DeepAdaptation, FeatureExtraction
from headstart.methods.adaptations import AdaptationRecipe, LossOf, joint, source_only
from headstart.methods.adaptations.heads import heads_of, split_head
from headstart.model import load_model
from headstart.objectives import Batch, ClassifierDiscrepancy, Objective
from headstart.training import Phase, TrainingConfig
from striped_pictures import killed_after, small_residual, striped

SHORT = TrainingConfig(learning_rate=1e-3, max_epochs=2, batch_size=8, precision="fp32", restore_best=False)


class MeanGap(Objective):
    """Squared distance between the domains' mean features."""

    needs = frozenset({"features"})

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        assert target is not None and target.labels is None
        gap = self.take(source, "features").mean(0) - self.take(target, "features").mean(0)
        return self.weight * gap.square().sum()


class Certainty(Objective):
    """Entropy of the answers for target rows."""

    needs = frozenset({"logits"})

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        assert target is not None and target.labels is None
        logs = self.take(target, "logits").log_softmax(1)
        return -self.weight * (logs.exp() * logs).sum(1).mean()


def mean_gap(loss: LossOf) -> AdaptationRecipe:
    return joint(loss, [MeanGap(10.0)])


def source_free(loss: LossOf) -> AdaptationRecipe:
    return AdaptationRecipe(
        (Phase((Certainty(),), trains=("segments",), streams=("target",), name="sure"),), needs_source=False
    )


def two_heads(loss: LossOf) -> AdaptationRecipe:
    return joint(loss, [ClassifierDiscrepancy(weight=0.1)])


def pictures(num_rows: int, tint: float, seed: int, labelled: bool = True) -> Dataset:
    """Return pictures of two kinds, striped across or down; a domain has its own tint."""
    rows, labels = striped(num_rows, tint, seed)
    return open_dataset(rows, labels=labels) if labelled else open_dataset(rows, unlabelled=True)


@pytest.fixture(scope="module")
def network() -> Backbone:
    return small_residual()


def shifted(num_rows: int, seed: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return points of two classes on either side of a line, and of a domain that lies off by a shift."""
    random = np.random.default_rng(seed)
    labels = np.arange(num_rows) % 2
    rows = np.stack([2.0 * labels - 1.0, np.zeros(num_rows)], 1) + random.normal(0, 0.35, (num_rows, 2))
    return (rows + shift).astype(np.float32), labels


@pytest.mark.golden
def test_a_network_on_arrays_follows_a_shift_that_its_source_does_not_know() -> None:
    source, labels = shifted(200, 0, 0.0)
    target, truth = shifted(200, 1, 1.5)
    alone = AdaptedNetwork(source_only, "dense32-tanh", num_steps=300).fit(source, labels, target)
    adapted = AdaptedNetwork(mean_gap, "dense32-tanh", num_steps=300).fit(source, labels, target)
    assert (alone.predict(target) == truth).mean() < 0.6  # measured: 0.51
    assert (adapted.predict(target) == truth).mean() > 0.8  # measured: 0.88
    gaps = [np.abs(m.hidden(source).mean(0) - m.hidden(target).mean(0)).mean() for m in (alone, adapted)]
    assert gaps[1] < 0.5 * gaps[0]


def test_the_same_seed_gives_the_same_network_and_another_seed_another() -> None:
    source, labels = shifted(40, 0, 0.0)
    target, _ = shifted(30, 1, 1.0)

    def answers(seed: int) -> np.ndarray:
        model = AdaptedNetwork(mean_gap, "dense8-relu", num_steps=20, seed=seed).fit(source, labels, target)
        return np.asarray(model.predict_proba(target))

    assert np.array_equal(answers(0), answers(0))
    assert not np.array_equal(answers(0), answers(1))


@pytest.mark.parametrize("scaling", ["whole", "columns"])
def test_its_head_takes_rows_as_they_came(scaling: str) -> None:
    source, labels = shifted(60, 0, 0.0)
    source = source * np.array([100.0, 0.01]) + np.array([5.0, -3.0])
    model = AdaptedNetwork(layers="dense8-relu-dense4-tanh", scaling=scaling, num_steps=30).fit(source, labels, source)
    head = model.to_head(Task("classification", ("down", "up")))
    np.testing.assert_allclose(head.predict_proba(source), model.predict_proba(source), atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh", "sigmoid"])
def test_hidden_layers_may_end_in_any_activation(activation: str) -> None:
    source, labels = shifted(20, 0, 0.0)
    function = getattr(torch.nn.functional, activation)
    for kind, answers, end in (
        (AdaptedNetwork, labels, "dense2-softmax"),
        (AdaptedNetworkRegressor, source[:, 0], "dense1-linear"),
    ):
        model = kind(layers=f"dense5-{activation}", num_steps=2).fit(source, answers, source)
        assert model.head_.layers == f"dense5-{activation}-{end}"
        scaled = torch.from_numpy(((source - model.centre_) / model.scale_).astype(np.float32))
        expected = function(model.head_.module[0](scaled)).detach().numpy()
        np.testing.assert_allclose(model.hidden(source), expected, atol=1e-6)


def test_domains_of_several_sources_reach_objectives() -> None:
    seen: list[int] = []

    class Domains(Objective):
        needs = frozenset({"domains"})
        weight = 1.0

        def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
            assert source.domains is not None
            seen.extend(source.domains.tolist())
            return torch.zeros(())

    source, labels = shifted(40, 0, 0.0)
    target, _ = shifted(20, 1, 1.0)
    rows = np.concatenate([source, target])
    numbers = np.concatenate([np.repeat([3, 7], 20), np.full(20, -1)])
    every = np.concatenate([labels, np.zeros(20, int)])
    AdaptedNetwork(lambda loss: joint(loss, [Domains()]), "dense4-relu", num_steps=4).fit(
        rows, every, sample_domain=numbers
    )
    assert set(seen) == {0, 1}


def test_circular_validation_can_judge_a_network() -> None:
    source, labels = shifted(80, 0, 0.0)
    target, _ = shifted(80, 1, 0.3)
    model = AdaptedNetwork(mean_gap, "dense16-relu", num_steps=60).fit(source, labels, target)
    evidence = CandidateEvidence(
        target_probabilities_mk=model.predict_proba(target),
        source_rows_vd=source[60:],
        source_labels_v=labels[60:],
        source_training_nd=source[:60],
        target_rows_md=target,
        refit=lambda rows, codes, others: AdaptedNetwork(mean_gap, "dense16-relu", num_steps=60).fit(
            rows, codes, others
        ),
    )
    assert CircularValidation().score(evidence) > 0.8


def test_what_objectives_put_into_a_network_is_taken_out_again() -> None:
    from headstart.catalog import read_recipe
    from headstart.methods.adaptations.carry_out import Adapting, adapt_network, loss_of, make_recipe
    from headstart.training import Network, TrainingRows
    from training_toys import ArrayRows

    rows = np.random.default_rng(0).normal(size=(12, 1, 4, 4)).astype(np.float32)
    task = Task("classification", ("a", "b"))
    source = TrainingRows(ArrayRows(rows), np.arange(12) % 2, domains=np.arange(12) // 6)
    segments = {
        "maps": torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.ReLU()),
        "features": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4)),
    }
    network = Network(segments, {"main": torch.nn.Linear(4, 2)})
    recipe = make_recipe(read_recipe("mixstyle"), task, SHORT, source)
    adapt_network(
        Adapting(
            network, task, source, TrainingRows(ArrayRows(rows), None), recipe, SHORT, loss_of(task, SHORT, source)
        )
    )
    assert not any(module._forward_hooks for module in network.modules())


def test_rows_of_no_known_class_are_left_to_the_model() -> None:
    from headstart.catalog import read_recipe

    source, labels = shifted(40, 0, 0.0)
    model = AdaptedNetwork(read_recipe("dance"), "dense8-relu", num_steps=10).fit(source, labels, source + 0.5)
    assert model.unknown_above_ == 0.5
    scores = model.predict_proba(source)
    entropy = -(scores * np.log(scores)).sum(axis=1)
    assert np.array_equal(model.unknown(source), entropy > 0.5 * np.log(2))
    alone = AdaptedNetwork(layers="dense8-relu", num_steps=2).fit(source, labels, source)
    assert alone.unknown_above_ is None and alone.unknown(source) is None


@pytest.mark.parametrize("recipe", ["osbp", "ce + 0.5*osbp"])
def test_an_output_for_rows_of_no_class_belongs_to_the_head(recipe: str) -> None:
    from headstart.catalog import read_objectives, read_recipe

    source, labels = shifted(40, 0, 0.0)
    made = read_objectives(recipe) if "+" in recipe else read_recipe(recipe)
    model = AdaptedNetwork(made, "dense16-relu", scaling="columns", num_steps=30, learning_rate=0.01)
    model.fit(source, labels, source + np.float32([0.0, 4.0]))
    head = model.to_head(Task("classification", ("down", "up")))
    rows = np.random.default_rng(0).normal(0, 10, (200, 2)).astype(np.float32)
    said = model.unknown(rows)
    assert said is not None and 0 < said.sum() < len(rows)
    table = head.open_probabilities(rows)
    assert table is not None and table.shape == (len(rows), 3)
    assert np.array_equal(table[:, 2] > table[:, :2].max(axis=1), said)
    np.testing.assert_allclose(head.predict_proba(rows), model.predict_proba(rows), atol=1e-5)
    assert model.hidden(rows).shape == (len(rows), 16)


@pytest.mark.golden
@pytest.mark.parametrize("strategy", ["head-only", "last-stages:1"])
def test_a_model_says_unknown_after_a_folder_as_before(strategy: str, network: Backbone, tmp_path: Path) -> None:
    from headstart.catalog import read_recipe

    source, target = pictures(36, 0, 0), pictures(30, 60, 1, labelled=False)
    method = DeepAdaptation(read_recipe("osbp"), "osbp", strategy=strategy, config=SHORT, runtime="torch-fp32")
    found = method.fit(source, target, network, store=False)
    loaded = load_model(found.model.save(tmp_path / "model"))
    said = loaded.predict(target, store=False, runtime="torch-fp32")
    assert found.target_unknown is not None and said.unknown_n is not None
    assert np.array_equal(said.unknown_n, found.target_unknown)
    np.testing.assert_allclose(said.scores, found.target_scores, atol=2e-5)
    assert [label == "unknown" for label in said.labels] == found.target_unknown.tolist()
    assert "the output for rows of no class" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": "relu"}, "begins with a dense layer"),
        ({"layers": "sigmoid"}, "begins with a dense layer"),
        ({"layers": "linear"}, "begins with a dense layer"),
        ({"scaling": "rows"}, "'whole' or 'columns'"),
        ({"num_steps": 0}, "at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], words: str) -> None:
    source, labels = shifted(20, 0, 0.0)
    with pytest.raises(ConfigError, match=words):
        AdaptedNetwork(**options).fit(source, labels, source)


def test_other_heads_start_apart_from_the_first() -> None:
    from headstart.heads import NetworkHead

    head = NetworkHead("dense4-relu", 3, Task("classification", ("a", "b")))
    _, last = split_head(head)
    heads = heads_of(AdaptationRecipe((Phase((MeanGap(),)),), ("main", "second")), last, seed=0)
    assert heads["main"] is last
    assert not torch.equal(heads["second"].weight, last.weight)  # type: ignore[arg-type, attr-defined]


@pytest.mark.golden
@pytest.mark.parametrize("strategy", ["head-only", "last-stages:1", "full", "lora:2", "norms"])
def test_the_model_answers_as_the_network_did(strategy: str, network: Backbone, tmp_path: Path) -> None:
    source, target = pictures(36, 0, 0), pictures(30, 60, 1, labelled=False)
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    method = DeepAdaptation(mean_gap, "mean-gap", strategy=strategy, config=SHORT, runtime="torch-fp32")
    found = method.fit(source, target, network, store=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.module.state_dict().items())
    found.model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    np.testing.assert_allclose(
        loaded.predict(target, store=False, runtime="torch-fp32").scores, found.target_scores, atol=2e-5
    )
    assert found.held_out is not None and found.held_out_scores is not None
    assert len(found.held_out) == len(found.held_out_scores)
    held_out = found.model.predict(source.subset(found.held_out).unlabelled(), store=False, runtime="torch-fp32")
    np.testing.assert_allclose(held_out.scores, found.held_out_scores, atol=2e-5)
    assert loaded.provenance["deep_adaptation"]["method"] == "mean-gap"
    changed = loaded.backbone.weights_digest != network.weights_digest
    assert changed == (strategy != "head-only")


@pytest.mark.golden
@pytest.mark.parametrize("strategy", ["head-only", "last-stages:1", "full"])
def test_a_solved_head_starts_where_feature_extraction_ends(strategy: str, network: Backbone) -> None:
    source, target = pictures(36, 0, 0), pictures(30, 60, 1, labelled=False)
    resting = TrainingConfig(learning_rate=1e-30, max_epochs=1, batch_size=8, precision="fp32", restore_best=False)
    method = DeepAdaptation(mean_gap, strategy=strategy, head="solved", config=resting, held_out=0.0)
    found = method.fit(source, target, network, store=False)
    values, seen = (extract_features(rows, network, store=False).values_nd for rows in (source, target))
    assert source.targets is not None and source.task is not None
    solved = FeatureExtraction().solve(values, source.targets, source.task).without_noise(values).to_linear()
    with torch.no_grad():
        wanted = solved(torch.from_numpy(seen)).softmax(1).numpy()
    assert ((wanted > 0.01) & (wanted < 0.99)).any()  # else any head that names the classes would do
    np.testing.assert_allclose(found.target_scores, wanted, atol=1e-4)


@pytest.mark.golden
def test_target_labels_change_nothing(network: Backbone) -> None:
    source = pictures(24, 0, 0)
    scores = []
    for labelled in (True, False):
        target = pictures(20, 60, 1, labelled)
        found = DeepAdaptation(mean_gap, config=SHORT).fit(source, target, network, store=False)
        assert ("the labels of the 20 target rows are not looked at" in found.notes) == labelled
        scores.append(found.target_scores)
    assert np.array_equal(*scores)


@pytest.mark.golden
@pytest.mark.parametrize("recipe", [source_free, two_heads])
def test_recipes_without_source_rows_and_with_two_heads(recipe: object, network: Backbone) -> None:
    source, target = pictures(24, 0, 0), pictures(20, 60, 1)
    found = DeepAdaptation(recipe, config=SHORT).fit(source, target, network, store=False)  # type: ignore[arg-type]
    assert len(found.histories) == (2 if recipe is source_free else 1)
    assert found.target_scores.shape == (20, 2) and np.isfinite(found.target_scores).all()
    if recipe is source_free:  # the head is that of the source: only what comes before it went on
        assert list(found.histories[1].losses) == ["sure.Certainty"]


@pytest.mark.golden
def test_a_few_labelled_target_rows_join_the_source(network: Backbone) -> None:
    source, target = pictures(24, 0, 0), pictures(20, 60, 1)
    few = target.subset(np.arange(4))
    found = DeepAdaptation(mean_gap, config=SHORT).fit(source, target, network, few_labels=few, store=False)
    without = DeepAdaptation(mean_gap, config=SHORT).fit(source, target, network, store=False)
    assert not np.array_equal(found.target_scores, without.target_scores)
    assert found.model.provenance["deep_adaptation"]["labelled_target_rows"] == 4
    strange = open_dataset(np.zeros((2, 40, 40, 3), np.uint8), labels=["down", "askew"])
    with pytest.raises(DataError, match="'askew', a class the source does not have"):
        DeepAdaptation(mean_gap, config=SHORT).fit(source, target, network, few_labels=strange, store=False)


@pytest.mark.golden
def test_numbers_are_adapted_in_their_own_unit(network: Backbone) -> None:
    source = pictures(24, 0, 0)
    assert source.targets is not None
    numbers = source.relabelled(Task("regression"), 1000.0 + 10.0 * source.targets)
    found = DeepAdaptation(mean_gap, config=SHORT).fit(numbers, pictures(20, 60, 1), network, store=False)
    assert found.target_scores.shape == (20,)
    assert 950 < found.target_scores.mean() < 1060


@pytest.mark.golden
def test_a_killed_adaptation_ends_as_an_uninterrupted_one(network: Backbone, tmp_path: Path) -> None:
    source, target = pictures(24, 0, 0), pictures(20, 60, 1)
    method = DeepAdaptation(source_free, config=SHORT, runtime="torch-fp32")
    whole = method.fit(source, target, network, store=False)
    with killed_after({2, 6}):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                method.fit(source, target, network, store=False, checkpoint=tmp_path)
        resumed = method.fit(source, target, network, store=False, checkpoint=tmp_path)
    assert np.array_equal(resumed.target_scores, whole.target_scores)
    for name, tensor in whole.model.backbone.module.state_dict().items():
        assert torch.equal(tensor, resumed.model.backbone.module.state_dict()[name])


@pytest.mark.golden
def test_rows_that_will_not_do_are_refused(network: Backbone) -> None:
    source, target = pictures(12, 0, 0), pictures(12, 60, 1, labelled=False)
    with pytest.raises(DataError, match="needs labelled rows"):
        DeepAdaptation().fit(target, target, network)
    with pytest.raises(DataError, match="at least 2 target rows; got 1"):
        DeepAdaptation(config=SHORT).fit(source, target.subset([0]), network, store=False)
    with pytest.raises(DataError, match="the target holds text rows"):
        DeepAdaptation().fit(source, open_dataset(["a", "b"], unlabelled=True), network)
    table = open_dataset(np.zeros((4, 3), np.float32), labels=["a", "b", "a", "b"])
    with pytest.raises(ConfigError, match="AdaptedNetwork"):
        DeepAdaptation().fit(table, table, vector_backbone(3))
    with pytest.raises(ConfigError, match="held_out lies in"):
        DeepAdaptation(held_out=1.0)


class DomainLabelled(AdaptedNetwork):
    """Takes every fourth row as the target's, so that the checks run in the domain-labelled form."""

    def fit(self, X, y=None):  # type: ignore[no-untyped-def, override]
        num_rows = X.shape[0] if hasattr(X, "shape") else len(np.asarray(X))
        if num_rows < 4:
            return super().fit(X, y)
        return super().fit(X, y, sample_domain=np.where(np.arange(num_rows) % 4 < 3, 1, -1))


@dataclass(frozen=True)
class Together:
    """`mean_gap` with a name that is the same in every process."""

    def __call__(self, loss: LossOf) -> AdaptationRecipe:
        return mean_gap(loss)


@pytest.mark.golden
@parametrize_with_checks(
    [
        kind(Together(), "dense16-relu", num_steps=80, learning_rate=1e-2)
        for kind in (AdaptedNetwork, DomainLabelled, AdaptedNetworkRegressor)
    ]
)
def test_it_keeps_to_scikit_learn(estimator: object, check: Callable[[object], None]) -> None:
    check(estimator)
