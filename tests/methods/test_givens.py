"""What a network cannot give is refused before it trains, with the names of the term and of the network; what it can is given."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

import headstart
from headstart.catalog import entries, read_objectives, read_recipe
from headstart.core.errors import ConfigError
from headstart.core.progress import Progress
from headstart.data import join_datasets, open_dataset
from headstart.methods import AdaptedNetwork, DeepAdaptation
from headstart.methods.adaptations.givens import Given, check_given
from headstart.objectives import CrossEntropy
from headstart.training import Network, TrainingConfig, whole_plan
from headstart.training.strategies import without_batch_norm
from headstart.workflow import domains
from headstart.workflow.candidates_of_adapt import check_plan, read_candidates
from headstart.workflow.staged_rivals import StagedTraining
from striped_pictures import small_residual, striped

SHORT = TrainingConfig(learning_rate=1e-2, max_epochs=3, batch_size=8, precision="fp32", restore_best=False)
WITH_CLASSIFIER = {
    "distillation": "Distillation",
    "lwf": "LwF",
    "output-mapping": "OutputMapping",
    "co-tuning": "CoTuning",
}


@pytest.mark.parametrize("name", WITH_CLASSIFIER)
def test_the_base_models_own_classifier_is_asked_for_by_name(name: str) -> None:
    recipe = read_objectives(f"ce + 0.1*{name}")(lambda head: CrossEntropy(head=head))
    with pytest.raises(ConfigError, match=r"\w+ needs the base model's own classifier, and resnet18 has none"):
        check_given(recipe, "adapt", Given("resnet18", ("layer4", "features")))
    check_given(recipe, "adapt", Given("resnet18", ("layer4", "features"), source_head=nn.Linear(4, 10)))
    with pytest.raises(ConfigError, match=r"classifier, and a network on features has none.*train stages"):
        read_candidates([], f"ce + 0.1*{name}", None)
    assert read_candidates([], f"ce + 0.1*{name}", "last-stages:1").stages


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("ce + deep-jdot(layer=segments.layer4)", "DeepJDOT needs the segment 'layer4', and a network on features has hidden"),
        ("ce + coral(layer=segments.hiden)", "CORAL needs the segment 'hiden'.* Did you mean 'hidden'"),
        ("ce + stochastic-normalisation", "StochasticNormalisation changes batch norm.* a network on features has none"),
        ("mixstyle", "MixStyle mixes what a segment before the last one gives, and a network on features has hidden alone"),
    ],
)  # fmt: skip
def test_segments_are_asked_for_by_name(words: str, told: str) -> None:
    named = {"methods": [words], "objectives": None} if words == "mixstyle" else {"methods": [], "objectives": words}
    with pytest.raises(ConfigError, match=told):
        read_candidates(named["methods"] or [], named["objectives"], None)  # type: ignore[arg-type]
    recipe = read_recipe(words) if words == "mixstyle" else read_objectives(words)
    rows = np.random.default_rng(0).normal(size=(12, 3))
    with pytest.raises(ConfigError, match=told):
        AdaptedNetwork(recipe).fit(rows, np.arange(12) % 2, rows)


def test_all_else_in_the_catalog_fits_a_network_on_features() -> None:
    refused = []
    for entry in entries("adaptation"):
        try:
            read_candidates([entry.name], None, None)
        except ConfigError:
            refused.append(entry.name)
    assert refused == ["mixstyle"]


@pytest.mark.parametrize(
    ("objectives", "strategy", "words"),
    [
        ("ce + lwf", "last-stages:1", "LwF needs the base model's own classifier, and .*test_resnet.* has none"),
        ("ce + coral(layer=segments.layer1)", "last-stages:1", "CORAL needs .* 'layer1', which test_resnet.* keeps frozen"),
        ("ce + coral(layer=segments.layer9)", "full", r"CORAL needs the segment 'layer9', and .*test_resnet.* has "),
        ("ce + stochastic-normalisation", "last-stages:1", "StochasticNormalisation changes batch norm.*test_resnet.* has none"),
        ("ce + mixstyle", "head-only", "MixStyle mixes .*test_resnet.* has hidden alone; train more stages"),
        ("ce + vrex", "last-stages:1", "VREx compares labelled domains, and there is one"),
        ("ce + domain-coral", None, "DomainCORAL compares labelled domains, and there is one"),
    ],
)  # fmt: skip
def test_stages_are_asked_before_a_row_is_embedded(
    objectives: str, strategy: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domains, "extract_features", lambda *_, **__: pytest.fail("rows are embedded"))
    network = small_residual()
    network.source_head = None
    rows, labels = striped(8, 0, 0)
    with pytest.raises(ConfigError, match=f"adapt: {re.escape(objectives)}: {words}"):
        headstart.adapt(
            rows,
            striped(6, 60, 1)[0],
            labels=labels,
            objectives=objectives,
            strategy=strategy,
            backbones=[network],
            progress=Progress(quiet=True),
        )


def test_what_this_call_gives_is_not_refused() -> None:
    """Several sources, or labelled target rows where stages learn from them, are what terms compare; hidden states are given."""
    network, (rows, labels) = small_residual(), striped(8, 0, 0)
    source = open_dataset(rows, labels=labels)
    training = StagedTraining("last-stages:1")
    both = join_datasets([source, open_dataset(striped(8, 60, 1)[0], labels=labels)], ["a", "b"])
    compared = read_candidates([], "ce + vrex", "last-stages:1"), read_candidates(["dg-coral"], None, None)
    for plan in compared:
        check_plan(plan, training, both, network)
    check_plan(compared[0], training, source, network, few=True)
    with pytest.raises(ConfigError, match="DomainCORAL compares"):
        check_plan(compared[1], training, source, network, few=True)  # on features they are no domain of their own
    check_plan(read_candidates(["mme"], "ce + vat + lwf", "last-stages:1"), training, source, network)


def test_numbers_of_tokens_have_no_directions() -> None:
    recipe = read_objectives("ce + vat")(lambda head: CrossEntropy(head=head))
    with pytest.raises(
        ConfigError, match=r"adapt: VAT changes the numbers that enter the network, and bert takes .* tokens"
    ):
        check_given(recipe, "adapt", Given("bert", ("embeddings", "features"), reads_tokens=True))
    network = Network({"embeddings": nn.Identity(), "features": nn.Linear(2, 3)}, {"main": nn.Linear(3, 2)})
    for frozen in (0, 1):
        given = Given.of("bert", network, replace(whole_plan(network), num_frozen=frozen), reads_tokens=True)
        assert given.reads_tokens == (frozen == 0) and given.frozen == ("embeddings",)[:frozen]


def test_norms_that_learn_are_found_by_the_plan() -> None:
    body = {"first": nn.BatchNorm1d(2), "features": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))}
    network = Network(body, {"main": nn.Linear(3, 2)})
    plan = whole_plan(network)
    assert Given.of("n", network, plan).has_norms
    assert not Given.of("n", network, without_batch_norm(plan, network)).has_norms
    assert Given.of("n", network, replace(plan, norms_learn=True)).has_norms
    bare = Network({"features": nn.BatchNorm1d(2, affine=False)}, {"main": nn.Linear(2, 2)})
    assert Given.of("n", bare, whole_plan(bare)).has_norms
    untracked = Network({"features": nn.BatchNorm1d(2, track_running_stats=False)}, {"main": nn.Linear(2, 2)})
    assert not Given.of("n", untracked, whole_plan(untracked)).has_norms


@pytest.mark.golden
@pytest.mark.parametrize("name", ["lwf", "co-tuning"])
def test_with_stages_the_classifier_is_there_and_gone_afterwards(name: str) -> None:
    network = small_residual()
    assert network.source_head is not None
    rows, labels = striped(24, 0, 0)
    source, target = open_dataset(rows, labels=labels), open_dataset(striped(20, 60, 1)[0], unlabelled=True)
    recipe = read_objectives(f"ce + 10*{name}")
    found = DeepAdaptation(recipe, config=SHORT).fit(source, target, network, store=False)
    assert found.target_scores.shape == (20, 2) and found.model.backbone.source_head is None
    plain = DeepAdaptation(read_recipe("source-only"), config=SHORT).fit(source, target, network, store=False)
    assert np.abs(found.target_scores - plain.target_scores).max() > 1e-5
    with pytest.raises(ConfigError, match=r"classifier, and .* under hidden layers of the head has none"):
        DeepAdaptation(recipe, config=SHORT, head="dense8-relu").fit(source, target, network, store=False)
    without = network.copy()
    without.source_head = None
    with pytest.raises(ConfigError, match=f"classifier, and {re.escape(without.name)} has none"):
        DeepAdaptation(recipe, config=SHORT).fit(source, target, without, store=False)
