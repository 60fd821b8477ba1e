"""A head that is several: their mean by a twin, back from its folder with the same answers, hostile files refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.alignment import CORAL, AdaptedClassifier, Committee
from headstart.backbones import vector_backbone
from headstart.core.errors import ConfigError, ModelError
from headstart.core.tasks import Task
from headstart.features.scale import FeatureScale
from headstart.heads import NetworkHead, RidgeHead
from headstart.model import Model, load_model
from headstart.model.adapted_head import AdaptedHead
from headstart.model.committee_head import CommitteeHead

TASK = Task("classification", ("ant", "bee"))
DRAWS = np.random.default_rng(0)
CODES = np.repeat([0, 1], 20)
SOURCE = (DRAWS.normal(size=(40, 3)) + 2 * CODES[:, None]).astype(np.float32)
TARGET = SOURCE[::-1] * 2 + 5


def head() -> CommitteeHead:
    """Return two aligners on one scale, who share a head, and a network on the rows as they come."""
    scale = FeatureScale.standardising(SOURCE)
    members = [AdaptedClassifier(CORAL()), AdaptedClassifier()]
    fitted = [member.fit(scale(SOURCE), CODES, scale(TARGET)) for member in members]
    return CommitteeHead(
        [AdaptedHead(Committee.of(fitted), scale, TASK), NetworkHead("dense4-relu", 3, TASK, seed=1)], [2, 1]
    )


def test_every_member_has_one_voice_and_sees_the_rows_its_own_way() -> None:
    committee = head()
    aligned, network = committee.heads
    assert isinstance(aligned, AdaptedHead) and isinstance(network, NetworkHead)
    scaled = (TARGET - SOURCE.mean(axis=0)) / SOURCE.std(axis=0)
    voices = [member.predict_proba(scaled) for member in aligned.estimator.members_]
    hidden = np.maximum(
        TARGET @ network.module[0].weight.detach().numpy().T + network.module[0].bias.detach().numpy(), 0
    )  # type: ignore[index,union-attr,operator]
    logits = hidden @ network.module[2].weight.detach().numpy().T + network.module[2].bias.detach().numpy()  # type: ignore[index,union-attr,operator]
    sure = np.exp(logits - logits.max(axis=1, keepdims=True))
    voices.append(sure / sure.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(committee.predict_proba(TARGET), np.mean(voices, axis=0), atol=1e-5)
    np.testing.assert_allclose(np.exp(committee.decision(TARGET)), committee.predict_proba(TARGET), atol=1e-12)


def test_it_comes_back_with_the_same_answers(tmp_path: Path) -> None:
    before = Model(vector_backbone(3), head(), TASK)
    after = load_model(before.save(tmp_path / "model"))
    assert isinstance(after.head, CommitteeHead) and after.head.seats == (2, 1)
    for rows in (TARGET, TARGET[:1], TARGET + 0.1):
        np.testing.assert_allclose(
            after.predict(rows, store=False).scores, before.predict(rows, store=False).scores, atol=1e-12
        )
    assert after.head.predict_proba(np.zeros((0, 3), np.float32)).shape == (0, 2)


def test_what_cannot_sit_together_is_refused() -> None:
    first, second = head().heads
    other = NetworkHead("linear", 3, Task("classification", ("bee", "ant")))
    for heads, seats, words in (
        ([first], [1], "at least two heads"),
        ([first, second], [1], "2 heads and 1 seats"),
        ([first, second], [1, 0], "whole numbers of at least 1"),
        ([first, second], [1, 1.5], "whole numbers of at least 1"),
        ([first, other], [1, 1], "one classification task"),
        ([first, head()], [1, 1], "an AdaptedHead, a NetworkHead"),
        ([first, RidgeHead()], [1, 1], "got AdaptedHead, RidgeHead"),
    ):
        with pytest.raises(ConfigError, match=words):
            CommitteeHead(heads, seats)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="neither be fine-tuned nor exported"):
        head().to_module()


def put(*path: Any, value: Any) -> Callable[[Any, Any], None]:
    def change(config: Any, _: Any) -> None:
        for step in path[:-1]:
            config = config[step]
        config[path[-1]] = value

    return change


HOSTILE: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "a key too many": (put("temperature", value=3.0), "which none has"),
    "a committee within": (put("heads", 1, "kind", value="committee"), "'committee' head, which no committee has"),
    "a head of no kind": (put("heads", 1, "kind", value=["network"]), "which no committee has"),
    "no list": (put("heads", value="network"), "lists no heads"),
    "heads without end": (put("heads", value=[{"kind": "network"}] * 1001), "too many"),
    "a head too few": (lambda config, _: config["heads"].pop(), "nothing names the arrays of head '1'"),
    "seats of no number": (put("seats", value=["2", 1]), "whole numbers"),
    "a seat that is true": (put("seats", value=[2, True]), "whole numbers"),
    "seats too few": (put("seats", value=[2]), "each with its seats"),
    "no seats": (lambda config, _: config.pop("seats"), "incomplete"),
    "an array gone": (lambda _, state: state.pop("1.0.weight"), "do not fit"),
    "an array of nobody": (lambda _, state: state.update({"7.x": np.zeros(2)}), "nothing names the arrays of head '7'"),
    "an array of nothing": (lambda _, state: state.update({"1.0.bias": np.full(4, np.nan, np.float32)}), "no finite number"),
    "a network of another width": (put("heads", 1, "parameters", "width", value=4), "do not fit"),
    "a network for other classes": (put("heads", 1, "task", "classes", value=["ant", "wasp"]), "one classification task"),
}  # fmt: skip


@pytest.mark.parametrize("change, reason", HOSTILE.values(), ids=HOSTILE)
def test_hostile_committees_are_refused_in_words(change: Any, reason: str) -> None:
    whole = head()
    config, state = json.loads(json.dumps(whole.config())), whole.state()
    CommitteeHead.from_state(json.loads(json.dumps(config)), dict(state))
    change(config, state)
    with pytest.raises(ModelError, match=reason):
        CommitteeHead.from_state(config, state)
