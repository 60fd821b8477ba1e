"""What one step does: which parts move, against torch's own optimisers, in pieces or whole, and what breaks it off."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core.errors import ConfigError, DataError, TrainingError
from headstart.core.tasks import Task
from headstart.objectives import Batch, CrossEntropy, Objective
from headstart.training import (
    Network,
    ParameterGroup,
    Phase,
    Plan,
    Run,
    TrainingConfig,
    TrainingRows,
    rate_share,
    sweep_rates,
    train,
)
from headstart.training.sampler import Stream
from training_toys import TASK, THREE, ArrayRows, bodied, normed, points, rows

FAST = {"precision": "fp32", "max_epochs": 2, "batch_size": 4, "learning_rate": 0.05}


class Pull(Objective):
    """Squared length of some outputs; remembers what it saw."""

    needs = frozenset({"features", "base_features", "base_logits", "teacher_logits"})

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.seen: list[Batch] = []

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        self.seen.append(source)
        return self.weight * self.take(source, "features").square().mean()


class Poison(Objective):
    """A loss that is what it is told from some step on."""

    needs = frozenset({"logits"})

    def __init__(self, value: float, step: int) -> None:
        super().__init__()
        self.value, self.step, self.calls, self.weight = value, step, 0, 1.0

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        self.calls += 1
        return self.take(source, "logits").sum() * 0 + (self.value if self.calls > self.step else 0.0)


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def moved(network: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_steps_are_those_of_torchs_own_optimiser(kind: str) -> None:
    data = rows(12)
    config = TrainingConfig(
        **FAST,
        optimiser=kind,
        weight_decay=0.1,
        clip=0.3,
        schedule="cosine",
        warm_up=0.25,
        nesterov=kind == "sgd",
        seed=3,
    )
    network = bodied()
    twin = copy.deepcopy(network)
    train(network, TASK, data, None, config)
    matrices = [item for item in twin.parameters() if item.ndim > 1]
    vectors = [item for item in twin.parameters() if item.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    if kind == "sgd":
        optimiser = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True)
    else:
        optimiser = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[kind](groups, betas=(0.9, 0.99))
    stream = Stream(data, 4, seed=3, purpose="order")
    for step in range(6):
        rate = 0.05 * max(0.02, min(1.0, step / 6 / 0.25) * 0.5 * (1 + math.cos(math.pi * step / 6)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        chosen = stream.at(step).positions
        optimiser.zero_grad()
        loss = functional.cross_entropy(
            twin(torch.from_numpy(data.inputs.values[chosen])).logits, torch.from_numpy(data.targets[chosen])
        )
        loss.backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.3)
        optimiser.step()
    for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("done", [0.0, 0.1, 0.3, 0.62, 1.0])
@pytest.mark.parametrize("warm_up", [None, 0.2])
def test_one_cycle_is_torchs(done: float, warm_up: float | None) -> None:
    total = 101
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    peak = (warm_up or 0.3) * (total - 1)  # torch's own peak comes at step pct_start * total_steps - 1
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1.0, total_steps=total, pct_start=(peak + 1) / total, cycle_momentum=False
    )
    for _ in range(round(done * (total - 1))):
        optimiser.step()
        schedule.step()
    assert rate_share("one-cycle", done, warm_up) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-9)


def test_schedules_by_hand() -> None:
    assert rate_share("constant", 0.0) == 0.02 and rate_share("constant", 0.025) == pytest.approx(0.5)
    assert rate_share("constant", 0.5) == rate_share("constant", 1.0) == rate_share("constant", 0.0, 0.0) == 1.0
    assert rate_share("cosine", 0.25, 0.0) == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert rate_share("cosine", 0.05) == pytest.approx(0.5 * (1 + math.cos(0.05 * math.pi)))


@pytest.mark.parametrize("options", [{}, {"mixup": 0.4}, {"label_smoothing": 0.1, "balance": "loss"}])
def test_a_step_in_pieces_is_the_whole_step(options: dict[str, object]) -> None:
    results = []
    for accumulate in (1, 2, 3):
        network = bodied()
        config = TrainingConfig(
            precision="fp32",
            max_epochs=3,
            batch_size=7,
            optimiser="sgd",
            learning_rate=0.2,
            accumulate=accumulate,
            **options,
        )
        history = train(network, TASK, rows(21, noise=0.1), None, config)
        results.append((torch.cat([item.flatten() for item in network.parameters()]), history.train_loss))
    for weights, losses in results[1:]:
        torch.testing.assert_close(weights, results[0][0], rtol=0, atol=1e-6)
        assert losses == pytest.approx(results[0][1], abs=1e-6)


def test_only_the_parts_of_a_phase_move() -> None:
    cases = {
        ("heads",): ("heads.",),
        ("segments",): ("segments.",),
        ("heads.second",): ("heads.second.",),
        ("segments.first", "heads.main"): ("segments.0.", "heads.main."),
    }
    for trains, names in cases.items():
        network = bodied(("main", "second"))
        before = snapshot(network)
        phase = Phase((CrossEntropy(head="main"), CrossEntropy(head="second")), trains=trains)
        train(network, TASK, rows(8), None, TrainingConfig(**FAST, weight_decay=0.5), phases=[phase])
        assert moved(network, before) == {name for name in before if name.startswith(names)}


def test_groups_have_their_own_rates_and_beginnings() -> None:
    network = bodied()
    names = [name for name, _ in network.named_parameters()]
    body = tuple(name for name in names if name.startswith("segments.1"))
    plan = Plan((ParameterGroup(body, rate=0.5, begins=0.5), ParameterGroup(("heads.main.weight",), rate=2.0)), 1)
    before = snapshot(network)
    run = Run(network, TASK, rows(16), None, TrainingConfig(**FAST, schedule="constant", warm_up=0.0), plan=plan)
    seen = []
    with run.random_numbers():
        while run.ended() is None:
            run.step()
            seen.append({name for name in moved(network, before) if "segments" in name})
            rates = {round(group["lr"], 6) for group in run.optimiser.torch.param_groups}
            assert rates == {0.025, 0.1}
            assert network.num_resting == (2 if run.done <= 4 else 1)
        run.finish()
    assert seen[3] == set() and seen[4] == set(body)
    assert moved(network, before) == {*body, "heads.main.weight"}  # the bias is in no group


def test_frozen_statistics_stay_and_others_move() -> None:
    network = normed(frozen=1)
    for parameter in network.segments[1][1].parameters():
        assert parameter.requires_grad
    names = [name for name, _ in network.named_parameters()]
    plan = Plan((ParameterGroup(tuple(n for n in names if n.startswith(("segments.2", "heads", "segments.1.0")))),), 1)
    before = snapshot(network)
    history = train(network, TASK, rows(16), None, TrainingConfig(**FAST), plan=plan)
    changed = moved(network, before)
    assert not any(name.startswith("segments.0") for name in changed)
    assert not any(
        name.startswith("segments.1.1") for name in changed
    )  # its own parameters do not train: nor statistics
    assert {"segments.1.0.weight", "segments.2.1.running_mean", "segments.2.1.num_batches_tracked"} <= changed
    assert history.frozen_digest == network.frozen_digest() and history.frozen_digest


def test_something_frozen_that_changes_is_found_out() -> None:
    class Meddling(Pull):
        needs = frozenset({"features"})

        def after_step(self) -> None:
            network.segments[0][1].running_mean.add_(1e-3)

    network = normed(frozen=1)
    with pytest.raises(TrainingError, match="something frozen has changed"):
        train(network, TASK, rows(16), None, TrainingConfig(**FAST), phases=[Phase((CrossEntropy(), Meddling()))])


def test_objectives_get_what_they_need_and_nothing_else() -> None:
    class Wants(Pull):
        needs = frozenset({"features"})

    greedy, modest = Pull(), Wants()
    network, source_head = bodied(seed=1), nn.Linear(8, 5)
    start = copy.deepcopy(network)
    data = rows(8, noise=0.1)
    config = TrainingConfig(**{**FAST, "batch_size": 8, "max_epochs": 3}, ema=0.5)
    phases = [Phase((CrossEntropy(), greedy)), Phase((modest,), name="modest")]
    run = Run(network, TASK, data, None, config, phases=phases, source_head=source_head)
    with run.random_numbers():
        run.step()
        run.step()
        teacher = copy.deepcopy(run.follower.network)
        run.step()
    batch, small = greedy.seen[2], modest.seen[2]
    assert small.base_features is None and small.teacher_logits is None and not small.activations
    sample = run.source.at(2)
    own = data.inputs.batch(run.source.indices(sample), run.source.draws(sample))
    other = data.inputs.batch(run.source.indices(sample), run.source.draws(sample, "teacher"))
    assert not torch.equal(own[0], other[0])
    with torch.no_grad():
        torch.testing.assert_close(batch.base_features, start(*own).features, rtol=0, atol=0)
        torch.testing.assert_close(batch.base_logits, source_head(start(*own).features), rtol=0, atol=0)
        torch.testing.assert_close(batch.teacher_logits, teacher(*other).logits, rtol=0, atol=0)
    assert batch.labels.tolist() == data.targets[sample.positions].tolist()
    assert batch.rows.tolist() == sample.positions.tolist()


def test_rows_are_numbered_in_their_stream() -> None:
    class Rows(Pull):
        needs = frozenset({"features"})

    keeps = Rows()
    values, labels = points(20)
    data = TrainingRows(ArrayRows(values), labels, np.array([3, 4, 17, 18]))
    train(bodied(), TASK, data, None, TrainingConfig(**FAST), phases=[Phase((CrossEntropy(), keeps))])
    for batch in keeps.seen:
        assert sorted(batch.rows.tolist()) == [0, 1, 2, 3]
        assert batch.labels.tolist() == labels[data.indices[batch.rows.numpy()]].tolist()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_and_says_where(value: float) -> None:
    network = bodied()
    data, check = rows(8), rows(8, 1)
    phases = [Phase((CrossEntropy(), Poison(value, 5)))]
    config = TrainingConfig(**{**FAST, "max_epochs": 9})
    with pytest.raises(
        TrainingError, match=r"train.Poison is (nan|inf) at step 6 \(learning rate 0.05\), rows row \d"
    ) as caught:
        train(network, TASK, data, check, config, phases=phases)
    history = caught.value.history
    assert history.stopped == "error" and history.steps == 5 and len(history.validation_loss) == 2
    with torch.no_grad():
        loss = functional.cross_entropy(
            network(*check.inputs.batch(check.indices)).logits, torch.from_numpy(check.targets)
        )
    assert float(loss) == pytest.approx(min(history.validation_loss))


def test_rows_of_a_data_set_are_named_by_their_ids() -> None:
    values, labels = points(6)
    inputs = ArrayRows(values)
    inputs.dataset = type("Named", (), {"ids": [f"{n}.jpg" for n in range(6)]})()
    values[3] = math.nan
    with pytest.raises(TrainingError, match=r"is nan at step \d.*\b3\.jpg"):
        train(bodied(), TASK, TrainingRows(inputs, labels), None, TrainingConfig(**FAST))


def test_a_rate_that_is_too_high_ends_the_run() -> None:
    values, labels = points(64)
    random = np.random.default_rng(0)
    data = TrainingRows(ArrayRows(values), random.permutation(labels))
    network = bodied()
    before = snapshot(network)
    config = TrainingConfig(
        precision="fp32", optimiser="sgd", learning_rate=1e4, clip=None, warm_up=0.0, batch_size=8, max_epochs=40
    )
    with pytest.raises(TrainingError, match=r"(exploded from|is nan|is inf).*10000.*lower learning_rate") as caught:
        train(network, TASK, data, None, config)
    assert caught.value.history.steps < 40
    assert all(bool(torch.isfinite(item).all()) for item in network.parameters()) and not moved(network, before)


def test_bad_rows_are_refused() -> None:
    values, labels = points(6)
    inputs, config = ArrayRows(values), TrainingConfig(**FAST)
    good = TrainingRows(inputs, labels)
    for training, validation, match in (
        (TrainingRows(inputs, labels, np.array([], int)), None, "no rows to learn from"),
        (TrainingRows(inputs, None), None, "have no labels"),
        (TrainingRows(inputs, np.zeros(6, int)), None, "at least two classes"),
        (TrainingRows(inputs, labels + 1), None, r"lie in 0\.\.1; got 1 to 2"),
        (good, TrainingRows(inputs, labels, np.array([], int)), "validation rows need to exist"),
        (good, TrainingRows(inputs, None), "validation rows need to exist"),
    ):
        with pytest.raises(DataError, match=match):
            train(bodied(), TASK, training, validation, config)
    with pytest.raises(DataError, match="second stream has no rows"):
        train(bodied(), TASK, good, None, config, unlabelled=TrainingRows(inputs, None, np.array([], int)))
    with pytest.raises(DataError, match=r"row numbers lie in 0\.\.5"):
        TrainingRows(inputs, labels, np.array([6]))


def test_a_class_without_rows_and_a_batch_larger_than_the_data_are_said() -> None:
    values, labels = points(6)
    config = TrainingConfig(precision="fp32", max_epochs=2, batch_size=64)
    history = train(bodied(outputs=3), THREE, TrainingRows(ArrayRows(values), labels), None, config)
    assert history.batch_size == 6 and history.steps == 2
    assert any("has the class c" in note for note in history.notes)
    assert any("batch_size 64 is more than there are" in note for note in history.notes)


def test_options_that_do_not_fit_are_refused() -> None:
    data = rows(8)
    number = TrainingRows(ArrayRows(points(8)[0]), np.arange(8.0))
    regression = Task("regression")
    for network, task, training, options, phases, match in (
        (bodied(outputs=1), regression, number, {"label_smoothing": 0.1}, None, "no classes to smooth"),
        (bodied(outputs=1), regression, number, {"balance": "sampling"}, None, "one class for each row"),
        (bodied(outputs=1), regression, number, {"balance": "loss"}, None, "no classes to balance"),
        (bodied(), TASK, data, {"precision": "fp16"}, None, "needs a GPU"),
        (bodied(), TASK, data, {}, [Phase((Pull(),))], "base model's own head"),
        (bodied(), TASK, data, {}, [Phase((CrossEntropy(),), trains=("heads.other",))], "no 'heads.other'"),
        (bodied(), TASK, data, {}, [Phase((CrossEntropy(),), trains=("objectives",))], "lets nothing train"),
        (bodied(), TASK, data, {"cutmix": 1.0}, None, "cutmix pastes boxes into images"),
    ):
        with pytest.raises(ConfigError, match=match):
            train(network, task, training, None, TrainingConfig(**{**FAST, **options}), phases=phases)


def test_without_validation_the_last_weights_stay() -> None:
    network = bodied()
    history = train(network, TASK, rows(16), None, TrainingConfig(**FAST))
    assert history.validation_loss == [] and history.best == -1 and history.kept == "last"
    assert len(history.train_loss) == len(history.rates) == len(history.check_epochs) == 2
    assert (
        history.losses.keys() == {"train.CrossEntropy"} and history.losses["train.CrossEntropy"] == history.train_loss
    )
    assert not network.training and history.stopped == "epochs" and history.precision == "fp32"


def test_the_last_weights_stay_where_the_best_are_not_wanted() -> None:
    random = np.random.default_rng(0)
    values, labels = points(24)
    noise = TrainingRows(ArrayRows(values), random.permutation(labels))
    outcome = {}
    for best in (True, False):
        network = bodied()
        config = TrainingConfig(**{**FAST, "max_epochs": 20, "learning_rate": 0.3, "restore_best": best})
        history = train(network, TASK, noise, rows(24, 5), config)
        with torch.no_grad():
            check = rows(24, 5)
            logits = network(*check.inputs.batch(check.indices)).logits
            outcome[best] = float(functional.cross_entropy(logits, torch.from_numpy(check.targets)))
        expected = min(history.validation_loss) if best else history.validation_loss[-1]
        assert outcome[best] == pytest.approx(expected, rel=1e-5)
    assert outcome[True] < outcome[False]


def test_rates_can_be_swept_before_training_and_nothing_moves() -> None:
    network = normed()
    before = snapshot(network)
    run = Run(network, TASK, rows(32), None, TrainingConfig(**FAST))
    sweep = sweep_rates(run, num_steps=20)
    assert len(sweep.rates) >= 10 and not moved(network, before)


def test_a_compiled_network_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function: asked.append(function) or function)
    network = bodied()
    train(network, TASK, rows(8), None, TrainingConfig(**FAST, compile=True))
    assert asked == [network.suffix]


def test_a_network_of_raw_inputs_refuses_what_it_cannot_be() -> None:
    with pytest.raises(ConfigError, match="at least one head"):
        Network({"features": nn.Identity()}, {})
    with pytest.raises(ConfigError, match="at least 1 segments must be frozen"):
        Network({"a": nn.Identity(), "features": nn.Identity()}, {"main": nn.Identity()}, start=1)
    with pytest.raises(ConfigError, match="0 to 1 leading segments"):
        Network({"features": nn.Identity()}, {"main": nn.Identity()}, num_frozen=2)
    with pytest.raises(ConfigError, match="no parameter trains"):
        train(
            Network({"features": nn.Identity()}, {"main": nn.Identity()}), TASK, rows(8), None, TrainingConfig(**FAST)
        )


def test_a_phase_of_the_second_stream_alone_needs_one() -> None:
    with pytest.raises(ConfigError, match="phase 'agree' looks at the second stream only"):
        train(
            bodied(),
            TASK,
            rows(8),
            None,
            TrainingConfig(**FAST),
            phases=[Phase((CrossEntropy(),)), Phase((Pull(),), name="agree", streams=("target",))],
        )


def test_a_phase_waits_until_its_parts_begin() -> None:
    network = bodied()
    names = [name for name, _ in network.named_parameters()]
    plan = Plan(
        (
            ParameterGroup(tuple(name for name in names if name.startswith("segments")), begins=0.5),
            ParameterGroup(tuple(name for name in names if name.startswith("heads"))),
        )
    )
    before = snapshot(network)
    phases = [Phase((CrossEntropy(),), trains=("heads",)), Phase((CrossEntropy(),), trains=("segments",), name="body")]
    run = Run(network, TASK, rows(16), None, TrainingConfig(**FAST), phases=phases, plan=plan)
    with run.random_numbers():
        while run.ended() is None:
            run.step()
            assert any(name.startswith("segments") for name in moved(network, before)) == (run.done > 4)
