"""What every aligner owes: scikit-learn's checks in both forms, order of rows, both forms alike, no sight of target labels."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from headstart import alignment
from headstart.alignment import (
    CORAL,
    AdaptedClassifier,
    AdaptedRegressor,
    Aligner,
    DomainClassifier,
    DomainRegressor,
    FeatureAligner,
    Reweighter,
)
from headstart.alignment.mmd_projection import MMDProjection
from headstart.core.errors import DomainError, HeadstartError

BASES = {Aligner, DomainClassifier, DomainRegressor, FeatureAligner, Reweighter}
# Constructor arguments for classes that need or want other than their defaults here (a small search, fewer rounds).
SETTINGS: dict[str, dict[str, Any]] = {
    "AdaptedClassifier": {"aligner": CORAL()},
    "AdaptedRegressor": {"aligner": CORAL()},
    # scikit-learn's checks come with very few rows
    **{
        name: {"min_effective_rows": 1.0}
        for name in ("DiscriminatorRatio", "GaussianRatio", "KLIEP", "KMM", "NearestNeighbourWeighting")
    },
    **{name: {"min_effective_rows": 1.0} for name in ("RuLSIF", "ULSIF")},
    "BBSE": {"min_effective_rows": 1.0, "max_condition": float("inf")},  # ... and labels drawn at random
    "CODA": {"num_rounds": 3},
    "Committee": {"members": [AdaptedClassifier(CORAL()), AdaptedClassifier()]},
    "DASVM": {"max_rounds": 5},
    "Fusion": {"candidates": (0.5,), "num_folds": 2},
    "SourcePriorLogistic": {"num_folds": 2},
    "TrAdaBoost": {"num_rounds": 5},
    "TrAdaBoostR2": {"num_stages": 3, "num_rounds": 3, "num_folds": 2},
}
# An entropic plan sends a row to a mean of rows around it, even onto its own domain: only the mean of all stays where it is.
BLURRING = {"ClassRegularisedTransport", "SinkhornTransport", "UnbalancedTransport"}
EXPORTED = [getattr(alignment, name) for name in alignment.__all__]
CLASSES = [item for item in EXPORTED if inspect.isclass(item) and issubclass(item, Aligner) and item not in BASES]
ESTIMATORS = [item(**SETTINGS.get(item.__name__, {})) for item in CLASSES]
NAMES = [item.__name__ for item in CLASSES]


def domain_labelled(estimator: Any) -> Any:
    """Return a twin that takes every fourth row as the target's, so that the checks run in the domain-labelled form."""
    kind = type(estimator)

    def fit(self: Any, X: Any, y: Any = None) -> Any:
        num_rows = X.shape[0] if hasattr(X, "shape") else len(np.asarray(X))
        if num_rows < 4:  # scikit-learn asks what happens with one row; there is no second domain then
            return kind.fit(self, X, y)
        return kind.fit(self, X, y, sample_domain=np.where(np.arange(num_rows) % 4 < 3, 1, -1))

    methods: dict[str, Any] = {"fit": fit, "__init__": kind.__init__}
    if issubclass(kind, FeatureAligner):
        methods["fit_transform"] = lambda self, X, y=None: self.fit(X, y).transform(X)
    name = f"Labelled{kind.__name__}"
    globals()[name] = type(
        name, (kind,), {**methods, "__module__": __name__, "__qualname__": name}
    )  # so that it pickles
    return globals()[name](**estimator.get_params(deep=False))


@pytest.mark.golden
@parametrize_with_checks([*ESTIMATORS, AdaptedClassifier()])
def test_scikit_learn_accepts_it(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.golden
@parametrize_with_checks([domain_labelled(estimator) for estimator in ESTIMATORS])
def test_scikit_learn_accepts_it_with_domain_labels(estimator: Any, check: Any) -> None:
    check(estimator)


def two_domains(kind: Any, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Return source, its labels, a shifted target and the target's labels."""
    draws = np.random.default_rng(seed)
    source, target = draws.normal(size=(60, 4)), draws.normal(size=(40, 4))
    direction = np.array([2.0, -1.0, 0.5, 0.0])
    shifted = target * [1.5, 0.7, 1.0, 1.2] + [0.6, -0.3, 0.0, 0.2]
    if issubclass(kind, DomainRegressor | AdaptedRegressor):
        return source, source @ direction, shifted, target @ direction
    names = np.array(["ant", "bee"])
    source_labels, target_labels = (source @ direction > 0).astype(int), (target @ direction > 0).astype(int)
    source[:, 0] += 2.0 * source_labels
    shifted[:, 0] += 2.0 * target_labels
    return source, names[source_labels], shifted, names[target_labels]


def outcome(fitted: Any, source: Any, target: Any) -> list[Any]:
    """Return everything a fitted aligner says about the rows."""
    if isinstance(fitted, FeatureAligner):
        ones = np.ones(len(source), dtype=int)
        return [fitted.transform(source, sample_domain=ones), fitted.transform(target)]
    if isinstance(fitted, Reweighter):
        return [fitted.weights_]
    if hasattr(fitted, "predict_proba"):
        return [fitted.predict_proba(target)]
    return [fitted.predict(target)]


def fit_apart(estimator: Any, source: Any, labels: Any, target: Any) -> Any:
    return clone(estimator).fit(source, labels, target)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=NAMES)
def test_both_forms_say_the_same(estimator: Any) -> None:
    source, labels, target, _ = two_domains(type(estimator))
    domains = np.array([1, 1, 1, -1, -1] * 20)
    rows, every_label = np.empty((100, 4)), np.empty(100, dtype=labels.dtype)
    rows[domains > 0], rows[domains < 0] = source, target
    every_label[domains > 0], every_label[domains < 0] = labels, labels[0]
    if estimator.uses_target_labels:
        every_label = every_label.astype(object)
        every_label[domains < 0] = None
    mixed = clone(estimator).fit(rows, every_label, sample_domain=domains)
    for apart, together in zip(
        outcome(fit_apart(estimator, source, labels, target), source, target),
        outcome(mixed, source, target),
        strict=True,
    ):
        np.testing.assert_allclose(together, apart, rtol=1e-6, atol=1e-8)
    if isinstance(estimator, FeatureAligner):
        aligned = mixed.transform(rows, sample_domain=domains)
        np.testing.assert_allclose(aligned[domains > 0], outcome(mixed, source, target)[0], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(aligned[domains < 0], outcome(mixed, source, target)[1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=NAMES)
def test_target_labels_change_nothing(estimator: Any) -> None:
    if estimator.uses_target_labels:
        pytest.skip("learns from labelled target rows by design")
    source, labels, target, target_labels = two_domains(type(estimator))
    rows, domains = np.concatenate([source, target]), np.repeat([1, -1], [60, 40])
    said = [
        outcome(clone(estimator).fit(rows, np.concatenate([labels, given]), sample_domain=domains), source, target)
        for given in (target_labels, target_labels[::-1])
    ]
    for one, other in zip(*said, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=NAMES)
def test_fitting_twice_is_the_same_and_changes_no_input(estimator: Any) -> None:
    source, labels, target, _ = two_domains(type(estimator))
    copies = source.copy(), target.copy()
    said = [outcome(fit_apart(estimator, source, labels, target), source, target) for _ in range(2)]
    for one, other in zip(*said, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(source, copies[0])
    np.testing.assert_array_equal(target, copies[1])


@pytest.mark.parametrize("estimator", [item for item in ESTIMATORS if isinstance(item, FeatureAligner)], ids=repr)
def test_identical_domains_are_mapped_alike(estimator: Any) -> None:
    if type(estimator).__name__ == "FeatureAugmentation":
        pytest.skip("gives each domain a block of its own by design; inner products are tested with it")
    source, labels, _, _ = two_domains(type(estimator))
    mapped_source, mapped_target = outcome(fit_apart(estimator, source, labels, source.copy()), source, source)
    if type(estimator).__name__ in BLURRING:
        np.testing.assert_allclose(mapped_source.mean(axis=0), mapped_target.mean(axis=0), rtol=0.01)
        return
    np.testing.assert_allclose(mapped_source, mapped_target, rtol=1e-5, atol=1e-6 * np.abs(mapped_target).max())


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=NAMES)
def test_single_precision_is_close_to_double(estimator: Any) -> None:
    source, labels, target, _ = two_domains(type(estimator))
    single = source.astype(np.float32), target.astype(np.float32)
    wide = outcome(fit_apart(estimator, *(single[0].astype(float), labels, single[1].astype(float))), *single)
    for near, exact in zip(outcome(fit_apart(estimator, single[0], labels, single[1]), *single), wide, strict=True):
        if isinstance(estimator, FeatureAligner):
            assert near.dtype == np.float32
        np.testing.assert_allclose(np.abs(near), np.abs(exact), rtol=2e-2, atol=2e-2 * np.abs(exact).max())


@pytest.mark.golden
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=NAMES)
def test_bad_input_is_refused_in_words(estimator: Any) -> None:
    source, labels, target, _ = two_domains(type(estimator))
    with pytest.raises(DomainError, match="source has 4 features but target has 3"):
        fit_apart(estimator, source, labels, target[:, :3])
    for bad in (np.nan, np.inf):
        broken = target.copy()
        broken[3, 1] = bad
        words = f"1 of {len(target)} rows of target hold NaN or infinity, the first is row 3, column 1; leave such rows"
        with pytest.raises(DomainError, match=words):
            fit_apart(estimator, source, labels, broken)
        broken = source.copy()
        broken[[0, 5], 2] = bad
        with pytest.raises(DomainError, match="2 of 60 rows of X hold NaN or infinity, the first is row 0, column 2"):
            fit_apart(estimator, broken, labels, target)
        if estimator.accepts_sparse:
            with pytest.raises(
                DomainError, match="2 of 60 rows of X hold NaN or infinity, the first is row 0, column 2"
            ):
                fit_apart(estimator, sparse.csr_matrix(broken), labels, sparse.csr_matrix(target))
    with pytest.raises(DomainError, match="target has no rows"):
        fit_apart(estimator, source, labels, target[:0])
    with pytest.raises(DomainError, match="X has no rows"):
        fit_apart(estimator, source[:0], labels[:0], target)
    with pytest.raises(DomainError, match="target domain is empty"):
        clone(estimator).fit(source, labels, sample_domain=np.ones(60, dtype=int))
    with pytest.raises(DomainError, match="not both"):
        clone(estimator).fit(source, labels, target, sample_domain=np.ones(60, dtype=int))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=NAMES)
def test_sparse_rows_and_one_class_are_taken_or_refused_in_words(estimator: Any) -> None:
    source, labels, target, _ = two_domains(type(estimator))
    thin = sparse.csr_matrix(source), labels, sparse.csr_matrix(target)
    if estimator.accepts_sparse:
        fit_apart(estimator, *thin)
    else:
        with pytest.raises(TypeError, match=f"{type(estimator).__name__}: sparse input is not supported"):
            fit_apart(estimator, *thin)
    if isinstance(estimator, DomainClassifier | AdaptedClassifier):
        with pytest.raises(DomainError, match="needs at least two classes; it has one class, 'bee'"):
            fit_apart(estimator, source, np.full(len(source), "bee"), target)


@pytest.mark.parametrize("estimator", [item for item in ESTIMATORS if isinstance(item, Reweighter)], ids=repr)
def test_identical_domains_are_weighted_alike(estimator: Any) -> None:
    """Estimated ratios are smooth, so that rows at the rim may weigh a little less; nothing comes near to choosing rows."""
    source, labels, _, _ = two_domains(type(estimator))
    fitted = fit_apart(estimator, source, labels, source.copy())
    assert fitted.weights_.min() > 0.8 and fitted.weights_.max() < 1.2
    assert fitted.effective_sample_size_ > 0.98 * len(source)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=NAMES)
@pytest.mark.parametrize("case", ["constant feature", "few rows", "duplicates", "huge scale", "identical"])
def test_awkward_rows_give_finite_answers_or_a_reason(estimator: Any, case: str) -> None:
    source, labels, target, _ = two_domains(type(estimator))
    if case == "constant feature":
        source, target = (np.column_stack([part, np.full(len(part), 3.0)]) for part in (source, target))
    elif case == "few rows":
        wide = np.random.default_rng(1).normal(size=(4, 30))
        source, labels, target = source[:20] @ wide, labels[:20], target[:10] @ wide
    elif case == "duplicates":
        source, labels, target = (
            np.repeat(source[:20], 3, axis=0),
            np.repeat(labels[:20], 3),
            np.repeat(target[:8], 5, axis=0),
        )
    elif case == "huge scale":
        source, target = source * [1e8, 1, 1, 1], target * [1e8, 1, 1, 1]
    else:
        target = source.copy()
    try:
        said = outcome(fit_apart(estimator, source, labels, target), source, target)
    except HeadstartError as refusal:
        assert type(estimator).__name__ in str(refusal)
    else:
        assert all(np.isfinite(part).all() for part in said)


# What learns with a penalty in units of the features, so that their unit matters: scale the rows before these.
UNIT_MATTERS = {
    "AdaptedClassifier", "AugmentedClassifier", "BalancedWeighting", "CoTraining", "Committee", "DemocraticCoLearning",
    "Fusion", "GradualCoTraining", "LAME", "SelfTraining", "SourceFree", "SourcePriorLogistic", "TrAdaBoost",
    "AdaptedRegressor", "AugmentedRegressor", "BalancedWeightingRegressor", "FusionRegressor", "SourcePriorRidge",
}  # fmt: skip


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=NAMES)
def test_the_unit_of_all_features_changes_nothing_but_penalised_models(estimator: Any) -> None:
    """Rows times 1e8: the same answers, weights and projections, and moved rows times 1e8."""
    source, labels, target, _ = two_domains(type(estimator))
    usual = outcome(fit_apart(estimator, source, labels, target), source, target)
    said = outcome(fit_apart(estimator, 1e8 * source, labels, 1e8 * target), 1e8 * source, 1e8 * target)
    assert all(np.isfinite(part).all() for part in said)
    keeps_unit = isinstance(estimator, FeatureAligner) and not isinstance(estimator, MMDProjection)
    expected = [part * (1e8 if keeps_unit else 1.0) for part in usual]
    alike = all(
        np.allclose(part, like, rtol=0, atol=1e-4 * np.abs(like).max())
        for part, like in zip(said, expected, strict=True)
    )
    assert alike != (type(estimator).__name__ in UNIT_MATTERS)
