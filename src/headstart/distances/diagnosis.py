"""What a gap between two domains is: no shift, covariate shift, label shift, new classes, or missing support; and what to do.

Evidence, each part cross-validated or tested:

    tells    balanced accuracy of a linear domain classifier on left-out rows, with its p-value (`proxy_a`)
    novel    share of target rows unlike all source rows, beyond chance (`novelty`)
    rest     the same classifier between the source and the target rows that are *not* novel
    explains the same classifier after source rows were weighed by estimated class shares (`label_shift`)
    omnibus  p-values of MK-MMD and energy distance (`measures`)

    support mismatch       most target rows are novel
    new classes suspected  some are, lie together, and the others do not differ from the source
    no shift               nothing tells the domains apart, or a classifier hardly better than chance alone
    label shift            class shares changed, and weighing by them takes the difference away
    covariate shift        what remains

The five cases are told apart on synthetic domains under several seeds in the tests, where the thresholds below come from.
Weigh a diagnosis as what it is: without target labels nothing can prove that P(y | x) stayed the same.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headstart.core.errors import DomainError
from headstart.distances.label_shift import LabelShift, bbse
from headstart.distances.measures import Measurement, measure, measurement_of_classifier
from headstart.distances.novelty import Metric, Novelty, novelty_of_rows
from headstart.distances.proxy_a import DomainClassification, classify_domains
from headstart.distances.rows import as_numpy, read_domains

__all__ = ["SUGGESTIONS", "Diagnosis", "FeatureShift", "Kind", "diagnose", "inspect_gap", "shifted_features"]

Kind = Literal["no shift", "covariate shift", "label shift", "new classes suspected", "support mismatch"]
Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

SURE = 0.01  # p-value below which a difference counts as found
TELLS = 0.55  # balanced accuracy below which a found difference does not matter
SOME_NOVEL = 0.05  # share of novel rows that is worth a warning
MOST_NOVEL = 0.5
UNEXPLAINED = 0.35  # share of the classifier's gain over chance that may remain after weighing or leaving out

SUGGESTIONS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        "no shift": ("do-not-adapt",),
        "covariate shift": ("moment-matching", "class-transport", "meda", "do-not-adapt"),
        "label shift": ("bbse", "em-priors", "do-not-adapt"),
        "new classes suspected": ("label-some-novel-rows", "reject-novel-rows", "partial-ot", "do-not-adapt"),
        "support mismatch": ("class-transport", "meda", "label-some-target-rows", "do-not-adapt"),
    }
)


@dataclass(frozen=True)
class FeatureShift:
    """How much one feature carries.

    Parameters
    ----------
    feature : int
        Its column.
    name : str
        Its name; "feature 3" and the like without one.
    difference : float
        Target mean less source mean, in pooled standard deviations; infinite where both domains are constant and differ.
    weight : float
        Its weight in the domain classifier, in units of its own deviation; above 0 speaks for the target.
    """

    feature: int
    name: str
    difference: float
    weight: float


@dataclass(frozen=True)
class Diagnosis:
    """What the gap between two domains is.

    Parameters
    ----------
    kind : str
        The diagnosis.
    text : str
        The same in words, with the figures it rests on.
    accuracy : float
        Balanced accuracy of the domain classifier on left-out rows; 0.5 is chance.
    novel_share : float
        Share of target rows unlike all source rows, beyond chance.
    unlike_source_rows : int64 array
        Target rows of highest leverage, the most target-like first.
    unlike_target_rows : int64 array
        Source rows of highest leverage, the most source-like first.
    features : tuple of FeatureShift
        Features that carry the gap, the largest difference first.
    suggestions : tuple of str
        What to try, the most promising first; "do-not-adapt" is always among them.
    measurements : tuple of Measurement
        What was measured.
    label_shift : LabelShift or None
        Estimated class shares, where there were source labels.
    """

    kind: Kind
    text: str
    accuracy: float
    novel_share: float
    unlike_source_rows: IntArray
    unlike_target_rows: IntArray
    features: tuple[FeatureShift, ...]
    suggestions: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    label_shift: LabelShift | None


def diagnose(
    tells: DomainClassification,
    novelty: Novelty,
    *,
    rest: DomainClassification | None = None,
    explains: DomainClassification | None = None,
    label_shift: LabelShift | None = None,
    measurements: Sequence[Measurement] = (),
    features: Sequence[FeatureShift] = (),
    num_rows: int = 20,
    remarks: Sequence[str] = (),
) -> Diagnosis:
    """Turn evidence into a diagnosis.

    Parameters
    ----------
    tells : DomainClassification
        Domain classifier between all rows.
    novelty : Novelty
        Novelty of the target rows.
    rest : DomainClassification, optional
        Domain classifier without novel rows; needed for "new classes suspected".
    explains : DomainClassification, optional
        Domain classifier between weighed source rows and the target; needed, with ``label_shift``, for "label shift".
    label_shift : LabelShift, optional
        Estimated class shares of the target.
    measurements : sequence of Measurement
        p-values of "mk-mmd" and "energy" among them are looked at.
    features : sequence of FeatureShift
        Features that carry the gap.
    num_rows : int
        Rows of highest leverage named for each domain.
    remarks : sequence of str
        Sentences to add to the text.
    """
    omnibus = [m for m in measurements if m.name in ("mk-mmd", "energy") and m.p_value is not None]
    differs = bool(omnibus) and min(float(m.p_value or 0.0) for m in omnibus) * len(omnibus) <= SURE
    kind = _kind(tells, novelty, rest, explains, label_shift, differs)
    return Diagnosis(
        kind=kind,
        text=" ".join([*_sentences(kind, tells, novelty, explains, label_shift, differs, features), *remarks]),
        accuracy=1 - tells.error,
        novel_share=novelty.share,
        unlike_source_rows=np.argsort(-tells.target_log_odds_m, kind="stable")[:num_rows],
        unlike_target_rows=np.argsort(tells.source_log_odds_n, kind="stable")[:num_rows],
        features=tuple(features),
        suggestions=SUGGESTIONS[kind],
        measurements=tuple(measurements),
        label_shift=label_shift,
    )


def inspect_gap(
    source_nd: Any,
    target_md: Any,
    *,
    source_labels_n: npt.ArrayLike | None = None,
    source_probabilities_nk: npt.ArrayLike | None = None,
    target_probabilities_mk: npt.ArrayLike | None = None,
    classes: Sequence[Any] | None = None,
    feature_names: Sequence[str] | None = None,
    metric: Metric = "standardised",
    num_features: int = 10,
    seed: int = 0,
) -> Diagnosis:
    """Gather the evidence from features (and source labels, where there are any) and return the diagnosis.

    Parameters
    ----------
    source_nd, target_md : array or tensor of shape (n, d) and (m, d), at least 5 rows each
        Features.
    source_labels_n : array-like of shape (n,), optional
        Classes of the source rows; without them label shift cannot be told from covariate shift.
    source_probabilities_nk, target_probabilities_mk : array-like of shape (n, k) and (m, k), optional
        A source classifier's predictions, on source rows it was not trained on; without them, cross-validated logistic regression
        on the features makes them.
    classes : sequence, optional
        Class of each column of the predictions; the sorted labels when left out.
    feature_names : sequence of str, optional
        Names of the features.
    metric : {"standardised", "cosine"}
        Distance for novelty; "cosine" for a network's features.
    num_features : int
        Features named.
    seed : int
        Draws everything that is drawn.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared, or labels and predictions do not fit them.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> rows = random.normal(size=(300, 3))
    >>> inspect_gap(rows[:150], rows[150:]).kind
    'no shift'
    >>> found = inspect_gap(rows[:150], rows[150:] + [0.0, 1.5, 0.0])
    >>> found.kind, found.features[0].feature
    ('covariate shift', 1)
    """
    who = "inspect_gap"
    source, target = (as_numpy(rows) for rows in read_domains(who, source_nd, target_md, min_rows=5)[1:])
    tells = classify_domains(source, target, seed=seed)
    novelty = novelty_of_rows(source, target, metric=metric, seed=seed)
    rest = _without_novel(source, target, novelty, seed)
    label_shift, explains, remarks = None, None, []
    if source_labels_n is not None:
        labels_n = np.ravel(as_numpy(source_labels_n))
        if len(labels_n) != len(source):
            raise DomainError(
                f"{who}: source has {len(source)} rows but {len(labels_n)} labels; give one for each row."
            )
        try:
            if source_probabilities_nk is None or target_probabilities_mk is None:
                source_probabilities_nk, target_probabilities_mk, classes = _predictions(source, labels_n, target, seed)
            names = list(np.unique(labels_n).tolist()) if classes is None else list(classes)
            label_shift = bbse(source_probabilities_nk, labels_n, target_probabilities_mk, classes=names, seed=seed)
            explains = classify_domains(
                source, target, source_weights_n=np.maximum(label_shift.row_weights(labels_n), 1e-6), seed=seed
            )
        except DomainError as error:
            remarks.append(f"Class shares of the target could not be estimated: {error}")
    omnibus = [measure(name, source, target, seed=seed) for name in ("mk-mmd", "energy")]
    features = shifted_features(source, target, tells.weights_d, names=feature_names, num_features=num_features)
    return diagnose(
        tells,
        novelty,
        rest=rest,
        explains=explains,
        label_shift=label_shift,
        measurements=[measurement_of_classifier(tells), *omnibus],
        features=features,
        remarks=remarks,
    )


def shifted_features(
    source_nd: Array,
    target_md: Array,
    weights_d: npt.ArrayLike,
    *,
    names: Sequence[str] | None = None,
    num_features: int = 10,
) -> tuple[FeatureShift, ...]:
    """Return the features whose means differ most, in pooled standard deviations, each with its weight in the domain classifier.

    Raises
    ------
    DomainError
        If there is not one name and one weight for each feature.

    Examples
    --------
    >>> source = np.array([[0.0, -1.0], [0.0, 1.0]])
    >>> first = shifted_features(source, source + [0.0, 2.0], [0.0, 1.0], names=["age", "rate"])[0]
    >>> first.name, first.difference
    ('rate', 2.0)
    """
    means = [rows.mean(axis=0, dtype=np.float64) for rows in (source_nd, target_md)]
    variances = [rows.var(axis=0, dtype=np.float64) for rows in (source_nd, target_md)]
    weights = np.asarray(weights_d, dtype=np.float64)
    if weights.shape != means[0].shape or (names is not None and len(names) != len(weights)):
        raise DomainError(f"shifted_features: needs one weight and one name for each of {len(means[0])} features.")
    gap, deviation = means[1] - means[0], np.sqrt((variances[0] + variances[1]) / 2)
    rounding = 8 * np.finfo(np.result_type(source_nd, np.float32)).eps * np.maximum(np.abs(means[0]), np.abs(means[1]))
    gap = np.where(np.abs(gap) <= rounding, 0.0, gap)
    flat = deviation <= rounding
    difference = np.where(flat, np.where(gap == 0, 0.0, np.copysign(np.inf, gap)), gap / np.where(flat, 1.0, deviation))
    order = np.argsort(-np.abs(difference), kind="stable")[:num_features]
    return tuple(
        FeatureShift(
            int(j), f"feature {j}" if names is None else str(names[j]), float(difference[j]), float(weights[j])
        )
        for j in order
    )


def _kind(
    tells: DomainClassification,
    novelty: Novelty,
    rest: DomainClassification | None,
    explains: DomainClassification | None,
    label_shift: LabelShift | None,
    differs: bool,
) -> Kind:
    accuracy = 1 - tells.error
    found = tells.p_value <= SURE
    if novelty.share >= MOST_NOVEL:
        return "support mismatch"
    if rest is not None and _many_novel(novelty) and novelty.lie_together and _little_left(rest, accuracy):
        return "new classes suspected"
    changed = label_shift is not None and label_shift.p_value <= 0.05 and label_shift.change >= 0.05
    surely = label_shift is not None and label_shift.p_value <= SURE and label_shift.change >= 0.1
    if not differs and not surely and (not found or accuracy < TELLS):
        return "no shift"
    if (found or surely) and changed and explains is not None and _little_left(explains, accuracy):
        return "label shift"
    return "covariate shift"


def _many_novel(novelty: Novelty) -> bool:
    """Whether more rows are novel than the noise of both domains' rows lets expect, and enough to matter."""
    level, num_source, num_target = novelty.level, len(novelty.source_rows_r), len(novelty.target_p_values_m)
    noise = (level * (1 - level) * (1 / num_source + 1 / num_target)) ** 0.5
    return novelty.share >= SOME_NOVEL and float(novelty.novel_m.mean()) > level + 3 * noise


def _little_left(remaining: DomainClassification, accuracy: float) -> bool:
    """Whether what a classifier still sees is chance, too little to matter, or a small part of what it saw."""
    left = 1 - remaining.error
    return remaining.p_value > SURE or left < TELLS or (left - 0.5) <= UNEXPLAINED * (accuracy - 0.5)


def _without_novel(source: Array, target: Array, novelty: Novelty, seed: int) -> DomainClassification | None:
    """Train between the rows of both domains that are not novel, judged alike: source rows by their left-out p-values."""
    kept_source = source[novelty.source_rows_r[novelty.source_p_values_r > novelty.level]]
    kept_target = target[~novelty.novel_m]
    if min(len(kept_source), len(kept_target)) < 10:
        return None
    return classify_domains(kept_source, kept_target, seed=seed)


def _predictions(source: Array, labels_n: Array, target: Array, seed: int) -> tuple[Array, Array, list[Any]]:
    """Return left-out probabilities of the source rows, those of the target rows, and the classes of their columns."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes, counts = np.unique(labels_n, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        raise DomainError(
            f"inspect_gap: label shift needs at least two classes with two rows each; the source has {len(classes)} classes, the "
            f"smallest with {counts.min()} rows."
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(min(5, int(counts.min())), shuffle=True, random_state=seed)
    left_out = cross_val_predict(model, source, labels_n, cv=folds, method="predict_proba")
    return np.asarray(left_out), model.fit(source, labels_n).predict_proba(target), classes.tolist()


def _sentences(
    kind: Kind,
    tells: DomainClassification,
    novelty: Novelty,
    explains: DomainClassification | None,
    label_shift: LabelShift | None,
    differs: bool,
    features: Sequence[FeatureShift],
) -> list[str]:
    accuracy, novel = 1 - tells.error, novelty.share
    chance = f"{100 * (1 - tells.chance_high):.0f} to {100 * (1 - tells.chance_low):.0f} % by chance"
    seen = f"a linear classifier tells the domains apart in {100 * accuracy:.0f} % of left-out rows ({chance})"
    if kind == "no shift":
        return [f"No shift that matters: {seen}. Use the source model as it is."]
    if kind == "support mismatch":
        return [
            f"Support mismatch: {100 * novel:.0f} % of the target rows lie where the source has none, beyond chance; {seen}.",
            "Weighing source rows cannot help, and no figure without target labels is sure: bring the domains together, or label "
            "some target rows.",
        ]
    if kind == "new classes suspected":
        return [
            f"New classes suspected: {100 * novel:.0f} % of the target rows are unlike all source rows, beyond chance, and lie "
            "together, while the others do not differ from the source. Look at the novel rows, and label some, before adapting.",
            "Aligning all rows would force the new ones onto known classes.",
        ]
    where = [f"{item.name} ({item.difference:+.2f} deviations)" for item in features[:3] if item.difference != 0]
    carried = [f"It is carried by {', '.join(where)}."] if where and accuracy >= TELLS else []
    if kind == "label shift":
        assert label_shift is not None and explains is not None
        shares = _largest_changes(label_shift)
        return [
            f"Label shift: {seen}, and {100 * (1 - explains.error):.0f} % once the source has the class shares estimated "
            f"for the target ({shares}). Correct the class shares; leave the features alone.",
        ]
    unseen = (
        ""
        if accuracy >= TELLS
        else ", but mean and spread of all features together differ from chance (MK-MMD, energy)"
    )
    text = [f"Covariate shift: {seen}{unseen if differs else ''}.", *carried]
    if novel >= SOME_NOVEL:
        text.append(f"{100 * novel:.0f} % of the target rows are unlike all source rows, beyond chance.")
    if label_shift is None:
        text.append("Without source labels, label shift cannot be told apart from it.")
    elif label_shift.p_value <= 0.05 and label_shift.change >= 0.05:
        text.append("Class shares may have changed too, but that does not explain the difference.")
    return text


def _largest_changes(label_shift: LabelShift) -> str:
    change = label_shift.target_priors_k - label_shift.source_priors_k
    order = np.argsort(-np.abs(change), kind="stable")[:3]
    return ", ".join(
        f"{label_shift.classes[k]}: {100 * label_shift.source_priors_k[k]:.0f} % to {100 * label_shift.target_priors_k[k]:.0f} %"
        for k in order
    )
