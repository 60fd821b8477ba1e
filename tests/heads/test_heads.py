"""What every head must keep: shapes, saving, conversion, determinism, refusals; and the parts they share."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import ConfigError, DataError, ModelError, ShapeError
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.heads import (
    LinearHead,
    LinearRegressionHead,
    LogisticHead,
    NearestMeanHead,
    RidgeHead,
    TrainingRows,
    fit_temperature,
    solve_head,
    to_probabilities,
)
from headstart.heads.folds import cross_selected_score, deal_folds
from headstart.heads.search import search_grid
from headstart.transferability.row_space import RowSpace

SINGLE = Task("classification", ("ant", "bee", "cat"))
MULTI = Task("multilabel", ("red", "round", "rare"))
NUMBER = Task("regression")
PAIRS = [
    (RidgeHead, SINGLE),
    (RidgeHead, MULTI),
    (RidgeHead, NUMBER),
    (LogisticHead, SINGLE),
    (LogisticHead, MULTI),
    (NearestMeanHead, SINGLE),
    (NearestMeanHead, MULTI),
    (LinearRegressionHead, NUMBER),
]
each_pair = pytest.mark.parametrize(("head", "task"), PAIRS, ids=lambda item: getattr(item, "kind", str(item)))


def rows(task: Task, num_rows: int = 60, width: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(num_rows, width)) * 4 + 2
    signal = (x[:, :3] - 2) / 4 + 0.7 * random.normal(size=(num_rows, 3))
    if task.kind == "regression":
        return x, signal[:, 0] * 10 + 100
    if task.kind == "multilabel":
        return x, (signal > [0, 0.5, 1.0]).astype(np.uint8)
    return x, signal.argmax(axis=1)


@each_pair
@pytest.mark.parametrize("width", [8, 150])
def test_it_learns_and_its_shapes_are_right(head: type[LinearHead], task: Task, width: int) -> None:
    x, targets = rows(task, 120, width)
    new_x, new_targets = rows(task, 200, width, seed=1)
    fitted = head().fit(x, targets, task)
    assert fitted.weight.shape == (task.num_outputs, width) and fitted.bias.shape == (task.num_outputs,)
    assert fitted.decision(new_x).shape == (200, task.num_outputs)
    predictions, held_out = fitted.predict(new_x), fitted.validation_predictions
    assert held_out is not None and fitted.predict_scores(new_x).shape[1:] == held_out.shape[1:]
    if task.kind == "regression":
        assert predictions.dtype == np.float64 and held_out.shape == (120,)
        if width == 8:
            assert np.corrcoef(predictions, new_targets)[0, 1] > 0.7
        with pytest.raises(ConfigError, match="no probabilities"):
            fitted.predict_proba(new_x)
        return
    probabilities = fitted.predict_proba(new_x)
    assert held_out.shape == (120, 3) and probabilities.min() >= 0 and probabilities.max() <= 1
    if task.kind == "multilabel":
        assert predictions.dtype == np.uint8
        np.testing.assert_array_equal(predictions, probabilities > 0.5)
        assert (predictions == new_targets).mean() > (0.75 if width == 8 else 0.6)
    else:
        assert predictions.dtype == np.int64
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert (predictions == new_targets).mean() > (0.6 if width == 8 else 0.38)


@each_pair
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_saved_and_loaded_it_predicts_the_same_bits(head: type[LinearHead], task: Task, dtype: type) -> None:
    x, targets = rows(task)
    fitted = head().fit(x.astype(dtype), targets, task)
    config = json.loads(json.dumps(fitted.config(), allow_nan=False))
    loaded = LinearHead.from_state(config, {name: array.copy() for name, array in fitted.state().items()})
    assert type(loaded) is head and loaded.task == task and loaded.parameters() == fitted.parameters()
    assert fitted.weight.dtype == (np.float64 if dtype is np.float64 else np.float32)
    np.testing.assert_array_equal(loaded.predict_scores(x), fitted.predict_scores(x))
    assert loaded.config() == fitted.config() and loaded.validation_predictions is None


@each_pair
def test_as_a_torch_layer_it_gives_the_same_probabilities(head: type[LinearHead], task: Task) -> None:
    torch: Any = pytest.importorskip("torch")
    x, targets = rows(task)
    fitted = head().fit(x, targets, task)
    with torch.no_grad():
        outputs = fitted.to_linear()(torch.from_numpy(x.astype(np.float32)))
    if task.kind == "classification":
        outputs = outputs.softmax(dim=1)
    elif task.kind == "multilabel":
        outputs = outputs.sigmoid()
    expected = fitted.predict_scores(x).reshape(len(x), -1)
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-4, atol=1e-4)


@each_pair
def test_the_same_rows_give_the_same_head_and_nothing_is_changed(head: type[LinearHead], task: Task) -> None:
    x, targets = rows(task)
    kept = x.copy(), targets.copy()
    first, second = head().fit(x, targets, task), head().fit(x, targets, task)
    np.testing.assert_array_equal(first.weight, second.weight)
    assert first.report == second.report
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(targets, kept[1])


@each_pair
def test_held_out_predictions_do_not_know_their_own_label(head: type[LinearHead], task: Task) -> None:
    """Change one row's target: its own held-out raw score, before temperature and penalty are chosen, stays the same."""
    x, targets = rows(task)
    changed = targets.copy()
    changed[7] = (
        (1 - targets[7]) if task.kind == "multilabel" else targets[7] + 50 if task is NUMBER else (targets[7] + 1) % 3
    )
    fixed = {} if head in (NearestMeanHead, LinearRegressionHead) else {"penalty": 1.0}
    before, after = (head(**fixed).fit(x, values, task) for values in (targets, changed))
    assert before.validation_predictions is not None and after.validation_predictions is not None
    if task.kind == "regression":
        assert after.validation_predictions[7] == pytest.approx(before.validation_predictions[7], abs=1e-8)
        return
    if head is LogisticHead:  # its folds are dealt by label; with the folds kept, compare the scores
        kept = TrainingRows.of(x, targets, task)
        other = TrainingRows(task, kept.space, changed, kept.weights, kept.folds, False)
        pair = [head(penalty=1.0, tolerance=1e-12).fit_rows(item).fold_scores(item)[7] for item in (kept, other)]
        np.testing.assert_allclose(pair[0], pair[1], atol=1e-8)
        return

    def raw(fitted: LinearHead) -> np.ndarray:
        assert fitted.validation_predictions is not None
        p = fitted.validation_predictions[7]
        scores = np.log(p / (1 - p)) if task.kind == "multilabel" else np.log(p) - np.log(p).mean()
        return np.asarray(scores * fitted.temperature)

    np.testing.assert_allclose(raw(before), raw(after), atol=1e-7)


@each_pair
def test_rows_that_cannot_be_learned_from_are_refused(head: type[LinearHead], task: Task) -> None:
    x, targets = rows(task)
    broken = x.copy()
    broken[3, 2] = np.nan
    with pytest.raises(DataError, match="features must be finite"):
        head().fit(broken, targets, task)
    with pytest.raises(ShapeError, match="60 rows but targets has 59"):
        head().fit(x, targets[:-1], task)
    with pytest.raises(ShapeError, match="must be a matrix"):
        head().fit(x[:, 0], targets, task)
    with pytest.raises(ShapeError, match="at least 2 rows"):
        head().fit(x[:1], targets[:1], task)
    with pytest.raises(DataError, match="sample weights are positive"):
        head().fit(x, targets, task, sample_weight=np.zeros(60))
    with pytest.raises(ShapeError, match="groups has 3"):
        head().fit(x, targets, task, groups=np.arange(3))
    with pytest.raises(ShapeError, match="fitted on 8 features but got 5"):
        head().fit(x, targets, task).predict(x[:, :5])
    with pytest.raises(ConfigError, match="not fitted yet"):
        head().predict(x)


def test_targets_that_break_the_task_are_refused() -> None:
    x, targets = rows(SINGLE)
    with pytest.raises(DataError, match=r"class numbers lie in 0\.\.2; got 1\.\.3"):
        RidgeHead().fit(x, targets + 1, SINGLE)
    with pytest.raises(DataError, match="at least two classes"):
        RidgeHead().fit(x, np.zeros(60, dtype=int), SINGLE)
    with pytest.raises(DataError, match="integers; got float64"):
        RidgeHead().fit(x, targets.astype(float), SINGLE)
    with pytest.raises(DataError, match="0 or 1 each"):
        RidgeHead().fit(x, np.full((60, 3), 2), MULTI)
    with pytest.raises(ShapeError, match=r"need targets \(n, 3\)"):
        RidgeHead().fit(x, targets, MULTI)
    with pytest.raises(DataError, match="finite numbers"):
        RidgeHead().fit(x, np.full(60, np.nan), NUMBER)
    with pytest.raises(ShapeError, match="one target for each row"):
        RidgeHead().fit(x, np.zeros((60, 2)), NUMBER)


def test_damaged_states_are_refused() -> None:
    x, targets = rows(SINGLE)
    head = RidgeHead().fit(x, targets, SINGLE)
    with pytest.raises(ModelError, match="no head is called 'tree'"):
        LinearHead.from_state({"kind": "tree"}, head.state())
    with pytest.raises(ModelError, match="incomplete"):
        LinearHead.from_state(head.config(), {"weight": head.weight})
    with pytest.raises(ModelError, match="incomplete"):
        LinearHead.from_state(head.config() | {"parameters": {"depth": 3}}, head.state())
    with pytest.raises(ModelError, match=r"3 outputs need weight \(3, d\)"):
        LinearHead.from_state(head.config(), {"weight": head.weight[:2], "bias": head.bias})


@each_pair
def test_odd_features_do_no_harm(head: type[LinearHead], task: Task) -> None:
    x, targets = rows(task, 40)
    odd = np.column_stack([x, np.full(40, 1e6), np.zeros(40), x[:, 0], np.arange(40) == 3])
    fitted = head().fit(odd, targets, task)
    assert np.isfinite(fitted.weight).all() and np.isfinite(fitted.predict_scores(odd)).all()
    np.testing.assert_array_equal(fitted.weight[:, 8:10], 0)  # constant features get no weight
    same = head().fit(np.ones((40, 5)), targets, task)  # nothing to see at all
    assert np.isfinite(same.predict_scores(np.ones((3, 5)))).all()


def distances_without(data: TrainingRows, row: int, members: np.ndarray) -> np.ndarray:
    """Return the squared distance of a row to the mean of each column's members, itself left out."""
    distances = []
    for inside in members.T:
        rest = inside & (np.arange(len(members)) != row)
        centre = np.average(data.space.rotated[rest], axis=0, weights=data.weights[rest])
        distances.append(((data.space.rotated[row] - centre) ** 2).sum())
    return np.array(distances)


def test_nearest_mean_equals_refitting_without_each_row() -> None:
    for task in (SINGLE, MULTI):
        x, targets = rows(task, 30)
        data = TrainingRows.of(x, targets, task, sample_weight=np.random.default_rng(0).uniform(0.5, 2, size=30))
        head = NearestMeanHead().fit_rows(data)
        assert head.validation_predictions is not None
        for row in range(30):
            near = distances_without(data, row, data.indicators > 0)
            if task.kind == "multilabel":
                far = distances_without(data, row, data.indicators == 0)
                expected = 1 / (1 + np.exp(-(far - near) / 2 / head.temperature))
            else:
                raised = np.exp(-(near - near.min()) / 2 / head.temperature)
                expected = raised / raised.sum()
            np.testing.assert_allclose(head.validation_predictions[row], expected, atol=1e-9)


def test_temperature_undoes_a_known_distortion() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 4)) * 1.5
    classes = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)  # drawn from softmax(logits)
    task = Task("classification", tuple("abcd"))
    assert fit_temperature(task, logits * 7, classes, np.ones(20_000)) == pytest.approx(7, rel=0.03)
    labels = (logits + random.logistic(size=logits.shape) > 0).astype(np.uint8)
    many = Task("multilabel", tuple("abcd"))
    assert fit_temperature(many, logits * 0.1, labels, np.ones(20_000)) == pytest.approx(0.1, rel=0.03)


@pytest.mark.parametrize("task", [SINGLE, MULTI], ids=lambda task: task.kind)
def test_temperature_is_where_the_literal_loss_is_lowest(task: Task) -> None:
    random = np.random.default_rng(0)
    (_, targets), weights = rows(task, 30), random.uniform(0.5, 2, size=30)
    truth = targets if task.kind == "multilabel" else np.eye(3)[targets]
    scores = random.normal(size=(30, 3)) * 5 + 3 * truth
    drawn_in = 1 / 32

    def loss(temperature: float) -> float:
        total = 0.0
        for row in range(30):
            p = to_probabilities(task, scores[row : row + 1], temperature)[0]
            for label in range(3):
                if task.kind == "multilabel":
                    wanted = 1 - drawn_in if targets[row, label] else drawn_in
                    total -= weights[row] * (wanted * np.log(p[label]) + (1 - wanted) * np.log(1 - p[label]))
                else:
                    wanted = 1 - drawn_in if targets[row] == label else drawn_in / 2
                    total -= weights[row] * wanted * np.log(p[label])
        return total

    found = fit_temperature(task, scores, targets, weights)
    assert loss(found) < min(loss(found * 1.05), loss(found / 1.05))
    assert fit_temperature(task, np.zeros((30, 3)), targets, weights) == 1.0


def test_probabilities_do_not_overflow() -> None:
    huge = np.array([[1e5, -1e5, 0.0]])
    np.testing.assert_array_equal(to_probabilities(SINGLE, huge, 0.01), [[1, 0, 0]])
    np.testing.assert_allclose(to_probabilities(MULTI, huge, 0.01), [[1, 0, 0.5]])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), num_folds=st.integers(2, 6), grouped=st.booleans())
def test_folds_share_classes_evenly_and_keep_groups_whole(seed: int, num_folds: int, grouped: bool) -> None:
    random = np.random.default_rng(seed)
    targets = random.integers(0, 3, size=40)
    if not grouped:
        folds = deal_folds(targets, SINGLE, num_folds, seed)
        for label in range(3):
            counts = np.bincount(folds[targets == label], minlength=num_folds)
            assert counts.max() - counts.min() <= 2
        assert np.ptp(np.bincount(folds, minlength=num_folds)) <= 1
        return
    groups = random.integers(0, 12, size=40)
    _, groups = np.unique(groups, return_inverse=True)
    folds = deal_folds(targets, SINGLE, num_folds, seed, groups)
    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    assert len(np.unique(folds)) == num_folds


def test_folds_of_numbers_and_of_several_labels() -> None:
    folds = deal_folds(np.arange(100.0), NUMBER, 5, 0)
    assert all(abs(np.arange(100.0)[folds == fold].mean() - 49.5) < 8 for fold in range(5))
    labels = np.zeros((50, 3), dtype=np.uint8)
    labels[:5, 2] = labels[:, 0] = 1  # a rare label on five rows: one for each fold
    assert sorted(deal_folds(labels, MULTI, 5, 0)[:5].tolist()) == [0, 1, 2, 3, 4]
    assert (deal_folds(np.arange(100.0), NUMBER, 5, 1) != folds).any()


def test_the_best_of_many_is_not_believed() -> None:
    losses = np.random.default_rng(0).random((50, 400))  # 400 equal candidates
    assert losses.mean(axis=0).min() < 0.42
    assert cross_selected_score(losses, np.arange(50) % 5, np.ones(50)) > 0.45


def test_search_asks_for_each_place_once() -> None:
    asked: list[int] = []

    def loss(place: int) -> float:
        asked.append(place)
        return abs(place - 33.4)

    assert search_grid(40, loss, list(range(0, 40, 5)), [2, 1]) == 33
    assert len(asked) == len(set(asked)) < 16


def test_row_space_is_a_rotation_of_the_standardised_rows() -> None:
    for shape in ((20, 6), (20, 50)):
        features = np.random.default_rng(0).normal(size=shape) * 3 + 10
        space = RowSpace.of(features)
        standard = (features - features.mean(axis=0)) / features.std(axis=0) / np.sqrt(shape[1])
        np.testing.assert_allclose(space.rotated @ space.rotated.T, standard @ standard.T, atol=1e-10)
        np.testing.assert_allclose(space.rotate(features), space.rotated, atol=1e-10)
        np.testing.assert_allclose(space.rotated.T @ space.rotated, np.diag(space.strength), atol=1e-10)
        assert (space.rotated**2).sum(axis=1).mean() == pytest.approx(1)
        weight, bias = np.random.default_rng(1).normal(size=(2, space.rotated.shape[1])), np.array([1.0, 2.0])
        raw, raw_bias = space.unrotate(weight, bias)
        np.testing.assert_allclose(features @ raw.T + raw_bias, space.rotated @ weight.T + bias, atol=1e-9)
        np.testing.assert_allclose(space.project(raw), weight, atol=1e-9)


@pytest.mark.parametrize("task", [SINGLE, MULTI, NUMBER], ids=lambda task: task.kind)
def test_the_default_head_says_why(task: Task) -> None:
    x, targets = rows(task, 80)
    progress = Progress(quiet=True)
    head = solve_head(x, targets, task, progress=progress)
    assert next(line["head"] for line in head.report["competition"]) == "ridge"
    assert head.report["why"].startswith(head.kind)
    assert [cost.name for cost in progress.costs] == ["head"]
    json.dumps(head.config(), allow_nan=False)


def test_the_default_head_takes_groups_seed_and_class_weights() -> None:
    x, targets = rows(SINGLE, 90)
    groups = np.arange(90) // 3
    plain = solve_head(x, targets, SINGLE)
    assert solve_head(x, targets, SINGLE, groups=groups).report["competition"] != plain.report["competition"]
    assert solve_head(x, targets, SINGLE, seed=5).report["competition"] != plain.report["competition"]
    assert solve_head(x, targets, SINGLE, class_weight="balanced").report["competition"] != plain.report["competition"]


def test_one_row_in_a_class_and_more_classes_than_folds_hold() -> None:
    x, targets = rows(SINGLE, 40)
    targets[targets == 2] = 0
    targets[5] = 2
    head = solve_head(x, targets, SINGLE)
    assert head.validation_predictions is not None and np.isfinite(head.validation_predictions).all()
    few = solve_head(x[:4], np.array([0, 1, 2, 0]), SINGLE)
    assert np.isfinite(few.predict_proba(x)).all()
    two = solve_head(x[:2], np.array([0, 1]), SINGLE)
    assert two.predict(x[:2]).tolist() == [0, 1]


@pytest.mark.golden
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("num_rows", [100, 400])
def test_not_worse_than_cross_validated_scikit_learn_on_digits(num_rows: int) -> None:
    datasets: Any = pytest.importorskip("sklearn.datasets")
    linear: Any = pytest.importorskip("sklearn.linear_model")
    x, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:num_rows], order[num_rows:]
    head = solve_head(x[train], y[train], Task("classification", tuple("0123456789")))
    mean, std = x[train].mean(axis=0), np.where(x[train].std(axis=0) > 0, x[train].std(axis=0), 1)
    other = linear.LogisticRegressionCV(Cs=10, cv=5, max_iter=500).fit((x[train] - mean) / std, y[train])
    ours = (head.predict(x[test]) == y[test]).mean()
    assert ours > other.score((x[test] - mean) / std, y[test]) - 0.012
    assert ours > (0.86 if num_rows == 100 else 0.93)
