"""Translations of source images as rivals: an aligner that goes from features back to rows, changes pixels, and embeds again.

    source features -> the rows they belong to -> pixels changed (`SourceTranslation`) -> features by the frozen base model
    target features stay

So a translation is judged as every aligner is, there and back, and what learns on features learns on changed ones: the classifier
that all aligners share, or a network by the translation's own recipe. That is what is saved: target rows are not changed.
It ignores rows of other domains than the two it was opened with.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone, is_regressor

from headstart.alignment import AdaptedClassifier, AdaptedRegressor, FeatureAligner
from headstart.alignment.aligner import Domains
from headstart.core.digests import digest_array, digest_many
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import watched
from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.features import FeatureStore, extract_features
from headstart.heads import Head
from headstart.methods import AdaptedNetwork
from headstart.methods.adaptations import source_only
from headstart.methods.image_translation import SourceTranslation
from headstart.model.adapted_head import AdaptedHead
from headstart.workflow.domains import TwoDomains
from headstart.workflow.entrants import Entrant
from headstart.workflow.features_to_rows import RowsOfFeatures
from headstart.workflow.network_rivals import make_network, raw_features
from headstart.workflow.rivals import FittedEstimator

__all__ = [
    "ChangedClassifier",
    "ChangedImages",
    "ChangedRegressor",
    "FittedOnChanged",
    "TracedRows",
    "check_images",
    "translation_entrants",
]

Array = NDArray[Any]


def check_images(candidates: Mapping[str, Any], modality: str) -> None:
    """Refuse translations, among candidates of all kinds, where rows are no images.

    Raises
    ------
    ConfigError
        With the name, and what to name instead.
    """
    found = [name for name, candidate in candidates.items() if isinstance(candidate, SourceTranslation)]
    if found and modality != "image":
        raise ConfigError(
            f"adapt: {found[0]} changes the pixels of images, and these rows are {modality} rows; "
            "name a method that works on features, such as coral or mcc (`headstart methods`)."
        )


class TracedRows:
    """Both domains' rows by their features, and what changing and embedding them has given so far.

    Parameters
    ----------
    two : TwoDomains
        The rows.
    raw : bool
        Whether features are as the base model gives them, for networks, or on the scale of the aligners.
    store : FeatureStore or bool, optional
        Where features are kept.
    checkpoint : Path, optional
        Folder for the trainings of translations.
    """

    def __init__(
        self, two: TwoDomains, raw: bool, store: FeatureStore | bool | None, checkpoint: Path | None = None
    ) -> None:
        self.two, self.raw, self._store, self._checkpoint = two, raw, store, checkpoint
        features = raw_features(two) if raw else (two.source_nd, two.target_md)
        self.source_nd: Array = features[0]
        self.target_md: Array = features[1]
        self.rows = RowsOfFeatures(two.source, two.target, self.source_nd, self.target_md)
        self._known: dict[str, Array] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> TracedRows:
        """Return itself: an estimator that is cloned goes on with the same rows."""
        return self

    def folder(self, source: Dataset, target: Dataset) -> Path | None:
        """Return where the training of a translation between these rows is kept."""
        if self._checkpoint is None:
            return None
        labels = "" if source.targets is None else digest_array(source.targets)
        return self._checkpoint / digest_many([*source.digests(), labels, *target.digests()])[:16]

    def features(self, rows: Dataset) -> Array:
        """Return features of changed rows, as those of the rows themselves were computed."""
        digests = rows.digests()
        missing = [place for place, digest in enumerate(digests) if digest not in self._known]
        if missing:
            runtime = self.two.features[0].runtime.label
            found = extract_features(
                rows.subset(missing).unlabelled(), self.two.backbone, runtime=runtime, store=self._store
            )
            if len(found.kept) < len(missing):
                raise DataError(f"adapt: {len(missing) - len(found.kept)} changed rows cannot be read.")
            self._known |= dict(zip((digests[place] for place in missing), found.values_nd, strict=True))
        values = np.stack([self._known[digest] for digest in digests])
        return values if self.raw else self.two.scale(values)


class ChangedImages(FeatureAligner):
    """An aligner that changes source images; see the module.

    Parameters
    ----------
    translation : SourceTranslation
        How.
    traced : TracedRows
        Whose rows features are traced back to.
    """

    def __init__(self, translation: SourceTranslation, traced: TracedRows) -> None:
        self.translation = translation
        self.traced = traced

    def _align(self, domains: Domains) -> None:
        source, target = self.traced.rows(domains.source_nd), self.traced.rows(domains.target_md)
        if domains.source_labels_n is not None:
            source = _labelled(source, domains.source_labels_n)
        folder, backbone = self.traced.folder(source, target), self.traced.two.backbone
        self.change_ = self.translation.learn(source, target, backbone, checkpoint=folder, progress=watched())

    def _map_source(self, X: Any) -> Any:
        return self.traced.features(self.change_(self.traced.rows(X))).astype(X.dtype, copy=False)

    def _map_target(self, X: Any) -> Any:
        return X


def _labelled(rows: Dataset, labels_n: Array) -> Dataset:
    """Return rows with these labels: numbers where they have a point, class numbers otherwise."""
    if labels_n.dtype.kind == "f":
        return rows.relabelled(Task("regression"), labels_n.astype(np.float64))
    present, codes = np.unique(labels_n, return_inverse=True)
    return rows.relabelled(Task("classification", tuple(str(label) for label in present)), codes.astype(np.int64))


class ChangedClassifier(AdaptedClassifier):
    """What learns from changed source rows: any classifier, or a network that sees target rows, too.

    Parameters
    ----------
    aligner : ChangedImages
        Changes.
    estimator : scikit-learn classifier or AdaptedNetwork
        Learns.
    """

    def fit(self, X: Any, y: Any, target: Any = None, *, sample_domain: Any = None) -> Self:
        """Change, then learn; target labels in ``y`` are never read."""
        domains = self._read(X, y, target, sample_domain)
        self.aligner_ = clone(self.aligner).fit(domains.source_nd, domains.source_labels_n, domains.target_md)
        changed = self.aligner_.transform(domains.source_nd, sample_domain=np.ones(len(domains.source_nd), np.int64))
        others = (domains.target_md,) if isinstance(self.estimator, AdaptedNetwork) else ()
        self.estimator_ = clone(self._default()).fit(changed, domains.source_labels_n, *others)
        self.classes_ = self.estimator_.classes_
        return self

    def trial(self, num_steps: int) -> tuple[Any, float] | None:
        """Return itself with trainings of at most so many steps, and by how much its own are longer; None where none is long."""
        return _shorter(self, num_steps)


class ChangedRegressor(AdaptedRegressor):
    """A regressor that learns from changed source rows."""

    def trial(self, num_steps: int) -> tuple[Any, float] | None:
        """As of `ChangedClassifier`."""
        return _shorter(self, num_steps)


def _shorter(estimator: Any, num_steps: int) -> tuple[Any, float] | None:
    translation, inner = estimator.aligner.translation, clone(estimator.estimator)
    whole = int(getattr(translation, "num_steps", 0))
    if not whole:
        return None
    few = min(num_steps, whole)
    if isinstance(inner, AdaptedNetwork):
        inner.set_params(num_steps=max(1, round(inner.num_steps * few / whole)))
    shorter: Any = replace(translation, **{"num_steps": few})
    return type(estimator)(ChangedImages(shorter, estimator.aligner.traced), inner), whole / few


class FittedOnChanged(FittedEstimator):
    """A classifier, or a network, that learned from changed source images."""

    @property
    def source_seen_nr(self) -> Array:
        """Changed source rows, as the classifier or the network's last layer sees them."""
        return self._seen(super().source_seen_nr)

    @property
    def target_seen_mr(self) -> Array:
        """Target rows, the same."""
        return self._seen(self._target_md)

    def _seen(self, rows: Array) -> Array:
        inner = self.estimator.estimator_
        return np.asarray(inner.hidden(rows)) if isinstance(inner, AdaptedNetwork) else rows

    def to_head(self, two: TwoDomains, task: Task) -> Head:
        """Return what learned as a head; target rows need no change, so none is saved."""
        inner = self.estimator.estimator_
        if isinstance(inner, AdaptedNetwork):
            return inner.to_head(task)
        is_classifier = isinstance(self.estimator, AdaptedClassifier)
        plain: Any = (AdaptedClassifier if is_classifier else AdaptedRegressor)(None, self.estimator.estimator)
        plain.estimator_, plain.aligner_ = inner, None
        if is_classifier:
            plain.classes_ = self.estimator.classes_
        plain.n_features_in_ = self.estimator.n_features_in_
        return AdaptedHead(plain, two.scale, task)


def translation_entrants(
    translations: Mapping[str, SourceTranslation],
    base: Any,
    two: TwoDomains,
    seed: int,
    store: FeatureStore | bool | None,
    checkpoint: Path | None,
) -> list[Entrant]:
    """Return translations on features: with the classifier of the aligners, or a network by the translation's own recipe.

    Parameters
    ----------
    translations : mapping of str to SourceTranslation
        By name.
    base : scikit-learn classifier or regressor
        Unfitted; what all aligners share.
    two : TwoDomains
        The rows.
    seed : int
        Of every draw.
    store : FeatureStore or bool, optional
        Where features of changed rows are kept.
    checkpoint : Path, optional
        Folder to go on from after a kill.
    """
    found = []
    for name, translation in translations.items():
        by_network = translation.recipe is not source_only
        traced = TracedRows(two, by_network, store, None if checkpoint is None else checkpoint / name)
        learner = make_network(translation.recipe, two, seed) if by_network else clone(base)
        kind = ChangedRegressor if is_regressor(base) else ChangedClassifier
        candidate = kind(ChangedImages(replace(translation, seed=seed), traced), learner)
        found.append(Entrant(name, candidate, traced.source_nd, traced.target_md, FittedOnChanged))
    return found
