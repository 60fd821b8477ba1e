"""Aligners inside scikit-learn: pipelines, searches and cross-validation with domain numbers passed on, cached features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.alignment import (
    CORAL,
    KMM,
    AdaptedClassifier,
    AdaptedRegressor,
    JDOTClassifier,
    MomentMatching,
    MongeAlignment,
)
from headstart.backbones import vector_backbone
from headstart.core.errors import DomainError
from headstart.data import open_dataset
from headstart.features import extract_features


@pytest.fixture
def mixed() -> tuple[Any, Any, Any]:
    """Return rows of both domains in mixed order, labels (wrong ones for the target) and domain numbers."""
    draws = np.random.default_rng(0)
    domains = draws.permutation(np.repeat([1, -1], [120, 80]))
    labels = draws.integers(0, 2, size=200)
    rows = draws.normal(size=(200, 3))
    rows[:, 0] += 4 * labels
    rows[domains < 0] = rows[domains < 0] * [3.0, 0.3, 1.0] + [20.0, -2.0, 0.0]
    return rows, labels, domains


def test_a_pipeline_passes_domain_numbers_on(mixed: tuple[Any, Any, Any]) -> None:
    rows, labels, domains = mixed
    with sklearn.config_context(enable_metadata_routing=True):
        adapted = AdaptedClassifier(CORAL()).set_fit_request(sample_domain=True).set_score_request(sample_domain=True)
        pipeline = make_pipeline(StandardScaler(), adapted)
        hidden = np.where(domains > 0, labels, 0)  # nothing to learn from the target's
        pipeline.fit(rows, hidden, sample_domain=domains)
        target = domains < 0
        assert (pipeline.predict(rows[target]) == labels[target]).mean() > 0.9
        assert pipeline.score(rows, labels, sample_domain=domains) > 0.9
        plain = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[~target], labels[~target])
        assert (plain.predict(rows[target]) == labels[target]).mean() < 0.8


def test_a_transformer_in_a_pipeline_maps_each_row_by_its_domain(mixed: tuple[Any, Any, Any]) -> None:
    rows, labels, domains = mixed
    with sklearn.config_context(enable_metadata_routing=True):
        coral = CORAL().set_fit_request(sample_domain=True).set_transform_request(sample_domain=True)
        pipeline = make_pipeline(StandardScaler(), coral)
        aligned = pipeline.fit_transform(rows, labels, sample_domain=domains)
    scaled = StandardScaler().fit_transform(rows)
    alone = CORAL().fit(scaled[domains > 0], None, scaled[domains < 0])
    np.testing.assert_allclose(aligned[domains < 0], scaled[domains < 0])
    np.testing.assert_allclose(
        aligned[domains > 0], alone.transform(scaled[domains > 0], sample_domain=np.ones(120, dtype=int))
    )


def test_a_search_and_cross_validation_split_domain_numbers_with_the_rows(mixed: tuple[Any, Any, Any]) -> None:
    rows, labels, domains = mixed
    with sklearn.config_context(enable_metadata_routing=True):
        adapted = AdaptedClassifier(CORAL()).set_fit_request(sample_domain=True).set_score_request(sample_domain=True)
        scores = cross_val_score(adapted, rows, labels, params={"sample_domain": domains}, cv=4)
        assert scores.mean() > 0.9
        grid = {"aligner": [None, CORAL()], "estimator": [LogisticRegression(C=0.1), LogisticRegression(C=1.0)]}
        search = GridSearchCV(adapted, grid, cv=3).fit(rows, labels, sample_domain=domains)
        assert isinstance(search.best_params_["aligner"], CORAL)


def test_the_target_may_come_apart_through_cross_validation(mixed: tuple[Any, Any, Any]) -> None:
    rows, labels, domains = mixed
    source, target = rows[domains > 0], rows[domains < 0]
    with sklearn.config_context(enable_metadata_routing=True):
        adapted = AdaptedClassifier(MomentMatching()).set_fit_request(target=True)
        scores = cross_val_score(adapted, source, labels[domains > 0], params={"target": target}, cv=3)
    assert len(scores) == 3 and np.isfinite(scores).all()


def test_cached_features_are_rows(tmp_path: Any, mixed: tuple[Any, Any, Any]) -> None:
    rows, labels, domains = mixed
    parts = [rows[domains > 0].astype(np.float32), rows[domains < 0].astype(np.float32)]
    cached = [extract_features(open_dataset(part, unlabelled=True), vector_backbone(3), store=False) for part in parts]
    by_features = AdaptedClassifier(CORAL()).fit(cached[0], labels[domains > 0], cached[1])
    by_arrays = AdaptedClassifier(CORAL()).fit(parts[0], labels[domains > 0], parts[1])
    np.testing.assert_array_equal(by_features.predict(cached[1]), by_arrays.predict(parts[1]))


def test_source_domains_keep_their_numbers() -> None:
    draws = np.random.default_rng(0)
    rows, labels = draws.normal(size=(90, 2)), draws.integers(0, 2, size=90)
    domains = np.repeat([7, 3, -1], 30)
    rows[:30] += 10
    rows[30:60] -= 10
    adapted = AdaptedClassifier(MongeAlignment()).fit(rows, labels, sample_domain=domains)
    alone = MongeAlignment().fit(rows, labels, sample_domain=domains)
    ours = adapted.aligner_.transform(rows, sample_domain=domains)
    np.testing.assert_allclose(ours, alone.transform(rows, sample_domain=domains))
    assert adapted.predict(rows, sample_domain=domains).shape == (90,)


def test_what_cannot_be_adapted_is_refused(mixed: tuple[Any, Any, Any]) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    rows, labels, domains = mixed
    with pytest.raises(DomainError, match="takes no sample_weight"):
        AdaptedClassifier(KMM(min_effective_rows=1), KNeighborsClassifier()).fit(rows, labels, sample_domain=domains)
    with pytest.raises(DomainError, match="predicts by itself"):
        AdaptedClassifier(JDOTClassifier()).fit(rows, labels, sample_domain=domains)
    with pytest.raises(DomainError, match=r"whole numbers|above 0"):
        AdaptedRegressor(CORAL()).fit(rows, labels, sample_domain=np.where(domains > 0, 0.5, -1))
    with pytest.raises(DomainError, match="120 are 0"):
        AdaptedRegressor(CORAL()).fit(rows, labels, sample_domain=np.where(domains > 0, 0, -1))
