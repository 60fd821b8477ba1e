"""What a network cannot give is refused before it trains, with the names of the term and of the network; what it can is given."""

from __future__ import annotations

import re

import numpy as np
import pytest
from torch import nn

from headstart.catalog import entries, read_objectives, read_recipe
from headstart.core.errors import ConfigError
from headstart.data import open_dataset
from headstart.methods import AdaptedNetwork, DeepAdaptation
from headstart.methods.adaptations.givens import check_given
from headstart.objectives import CrossEntropy
from headstart.training import TrainingConfig
from headstart.workflow.candidates_of_adapt import read_candidates
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
        check_given(recipe, "adapt", "resnet18", ["layer4", "features"])
    check_given(recipe, "adapt", "resnet18", ["layer4", "features"], nn.Linear(4, 10))
    with pytest.raises(ConfigError, match=r"classifier, and a network on features has none.*train stages"):
        read_candidates([], f"ce + 0.1*{name}", None)
    assert read_candidates([], f"ce + 0.1*{name}", "last-stages:1").stages


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("ce + deep-jdot(layer=segments.layer4)", "DeepJDOT needs the segment 'layer4', and a network on features has hidden"),
        ("ce + coral(layer=segments.hiden)", "CORAL needs the segment 'hiden'.* Did you mean 'hidden'"),
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
