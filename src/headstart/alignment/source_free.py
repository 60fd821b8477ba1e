"""Source-free adaptation: SHOT on features. A linear source model and target rows are enough; no source row is kept.

    min over W, b   mean H(p_i)  +  sum_k pbar_k log pbar_k  +  pseudo_weight mean -log p_i[label_i]
                    +  anchor / 2 |(W, b) - (W_0, b_0)|^2
    p_i = softmax(W z_i + b);  pbar = mean p_i;  z: target rows, centred and divided by one number;  H: entropy
    label_i: nearest centroid by cosine, centroids sum_i p_ik z_i / sum_i p_ik, then once more with hard labels; anew each round

Source: Liang, Hu & Feng, "Do we really need to access the source data?", ICML 2020 (information
maximisation and weighted prototype pseudo-labels). There the head is frozen and the encoder before it learns; on
stored features an encoder that is linear and the frozen head are one linear map, so W itself is what moves here, and
``anchor`` keeps it near the source's.
Use it when the source's rows may not leave their place, or are gone. It ignores that the target's class shares may be
uneven: the second term asks for equal use of classes, and hurts where a class is rare.
Shapes: n source rows (only to fit a model where none is given), m target rows, d features, k classes.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from headstart.alignment.aligner import DomainClassifier, Domains
from headstart.alignment.option_checks import check_count, check_number
from headstart.alignment.source_prior import linear_weights
from headstart.alignment.trained_classifier import as_double
from headstart.core.errors import ConfigError, DomainError, ShapeError

__all__ = ["SourceFree", "information_loss", "prototype_labels"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def prototype_labels(rows_md: FloatArray, probabilities_mk: FloatArray) -> IntArray:
    """Return SHOT's pseudo-labels: the class whose weighted centroid is nearest by cosine, refined once with hard labels.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> unsure = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.1, 0.9]])          # the second lies with the first
    >>> prototype_labels(rows, unsure).tolist()
    [0, 0, 1, 1]
    """
    lengths = np.linalg.norm(rows_md, axis=1, keepdims=True)
    unit = rows_md / np.where(lengths > 0, lengths, 1.0)
    centroids = np.zeros((probabilities_mk.shape[1], rows_md.shape[1]))
    shares = probabilities_mk
    for _ in range(2):
        mass = shares.sum(axis=0)[:, None]
        centroids = np.where(mass > 1e-9, shares.T @ rows_md / np.maximum(mass, 1e-9), centroids)
        sizes = np.linalg.norm(centroids, axis=1)
        labels = (unit @ (centroids / np.where(sizes > 0, sizes, 1.0)[:, None]).T).argmax(axis=1)
        shares = np.eye(len(centroids))[labels]
    return np.asarray(labels, dtype=np.int64)


def information_loss(logits_mk: FloatArray, labels_m: IntArray, pseudo_weight: float) -> tuple[float, FloatArray]:
    """Return mean entropy, less entropy of the mean, plus ``pseudo_weight`` times cross-entropy of labels; and its gradient.

    Examples
    --------
    >>> loss, gradient = information_loss(np.zeros((2, 2)), np.array([0, 1]), 1.0)          # ln 2 - ln 2 + ln 2
    >>> round(loss, 6), gradient.tolist()
    (0.693147, [[-0.25, 0.25], [0.25, -0.25]])
    """
    num_rows, every = len(logits_mk), np.arange(len(logits_mk))
    logs = log_softmax(logits_mk, axis=1)
    shares = np.exp(logs)
    entropies = -np.sum(shares * logs, axis=1, keepdims=True)
    mean_logs = np.log(np.maximum(shares.mean(axis=0), 1e-300))
    loss = entropies.mean() + np.sum(shares.mean(axis=0) * mean_logs) - pseudo_weight * logs[every, labels_m].mean()
    gradient = -shares * (logs + entropies)
    gradient += shares * (mean_logs - (shares @ mean_logs)[:, None])
    gradient += pseudo_weight * (shares - np.eye(shares.shape[1])[labels_m])
    return float(loss), gradient / num_rows


class SourceFree(DomainClassifier):
    """A linear source model adapted on target rows alone.

    In the one shape of all aligners, ``fit(source, labels, target)``, it fits logistic regression on the source,
    forgets the source rows and adapts. Without source rows: ``SourceFree.from_model(model).adapt(target)`` or
    ``SourceFree.from_means(means, classes)``. After ``fit`` or ``adapt``: ``coef_`` (k, d), ``intercept_`` (k,),
    beside ``source_coef_`` and ``source_intercept_``.

    Parameters
    ----------
    source_C : float above 0
        Inverse penalty of the source model (scikit-learn's ``C``), where ``fit`` has to make one.
    pseudo_weight : float, at least 0
        Weight of the pseudo-labels; 0.3 in the paper.
    anchor : float, at least 0
        What it costs to leave the source's weights.
    num_rounds : int, at least 1
        Times that pseudo-labels are made anew.

    Examples
    --------
    >>> source, target = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([[0.0], [0.5], [3.0], [3.5]])
    >>> SourceFree().fit(source, ["a", "a", "b", "b"], target).predict(target).tolist()
    ['a', 'a', 'b', 'b']
    """

    def __init__(
        self, source_C: float = 1.0, pseudo_weight: float = 0.3, anchor: float = 1e-3, num_rounds: int = 5
    ) -> None:
        self.source_C = source_C
        self.pseudo_weight = pseudo_weight
        self.anchor = anchor
        self.num_rounds = num_rounds

    @classmethod
    def from_model(cls, model: Any, **options: Any) -> Self:
        """Return an adapter for a fitted linear classifier, ready to `adapt` (and to predict as the model does until then).

        Parameters
        ----------
        model : fitted classifier with ``coef_``, ``intercept_`` and ``classes_``
            Its decision values are taken as logits.
        **options
            The constructor's, except ``source_C``.

        Raises
        ------
        ConfigError
            If the model is not linear or not fitted.

        Examples
        --------
        >>> model = LogisticRegression().fit([[-2.0], [-1.0], [1.0], [2.0]], [0, 0, 1, 1])
        >>> SourceFree.from_model(model).adapt([[0.0], [0.5], [3.0], [3.5]]).predict([[0.3], [3.2]]).tolist()
        [0, 1]
        """
        missing = [name for name in ("coef_", "intercept_", "classes_") if not hasattr(model, name)]
        if missing:
            raise ConfigError(
                f"SourceFree: the model must be a fitted linear classifier; {type(model).__name__} has no "
                f"{', '.join(missing)}. Give class means through SourceFree.from_means, or a linear head on its features."
            )
        adapter = cls(**options)
        adapter._take(*linear_weights(model), np.asarray(model.classes_))
        return adapter

    @classmethod
    def from_means(cls, means_kd: npt.ArrayLike, classes: npt.ArrayLike, variance: float, **options: Any) -> Self:
        """Return an adapter for class means: the linear classifier of equal spherical Gaussians around them.

        Parameters
        ----------
        means_kd : array-like of shape (k, d)
            Mean feature row of each class.
        classes : array-like of shape (k,)
            Labels, in the order of the means.
        variance : float above 0
            Mean squared deviation of one feature from its class's mean (`Prototypes.variance_`).
        **options
            The constructor's, except ``source_C``.

        Raises
        ------
        ShapeError
            If there is not one mean for each of at least two classes.

        Examples
        --------
        >>> SourceFree.from_means([[0.0], [4.0]], ["a", "b"], 1.0).adapt([[1.0], [1.2], [5.0], [5.2]]).predict([[2.2]]).tolist()
        ['a']
        """
        means, labels = np.asarray(means_kd, dtype=np.float64), np.asarray(classes)
        if means.ndim != 2 or len(means) < 2 or labels.shape != (len(means),):
            raise ShapeError(
                f"SourceFree.from_means: needs one mean row for each of at least two classes; got means of shape "
                f"{means.shape} and classes of shape {labels.shape}."
            )
        spread = check_number("SourceFree.from_means", "variance", variance, low_included=False, high_included=False)
        adapter = cls(**options)
        adapter._take(means / spread, -np.square(means).sum(axis=1) / (2 * spread), labels)
        return adapter

    def adapt(self, target: Any) -> Self:
        """Adapt to target rows, starting from the source model; each call starts there anew.

        Raises
        ------
        DomainError
            If there is no source model yet, or the rows have another width.
        """
        if not hasattr(self, "source_coef_"):
            raise DomainError("SourceFree: there is no source model yet; use from_model, from_means, or fit.")
        self._adapt(self._check(getattr(target, "values_nd", target), reset=False, name="target"))
        return self

    def _take(self, coef_kd: FloatArray, intercept_k: FloatArray, classes: npt.NDArray[Any]) -> None:
        self.source_coef_, self.source_intercept_ = coef_kd, intercept_k
        self.coef_, self.intercept_ = coef_kd, intercept_k
        self.classes_, self.n_features_in_ = classes, coef_kd.shape[1]

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        strength = check_number("SourceFree", "source_C", self.source_C, low_included=False)
        source = LogisticRegression(C=strength, max_iter=1000).fit(as_double(domains.source_nd), codes_n)
        self._take(*linear_weights(source), self.classes_)
        self._adapt(domains.target_md)

    def _adapt(self, target: Any) -> None:
        pseudo_weight = check_number("SourceFree", "pseudo_weight", self.pseudo_weight, high_included=False)
        anchor = check_number("SourceFree", "anchor", self.anchor, high_included=False)
        num_rounds = check_count("SourceFree", "num_rounds", self.num_rounds)
        rows = as_double(target)
        centre = rows.mean(axis=0)
        scale = float(np.sqrt(np.square(rows - centre).sum(axis=1).mean())) or 1.0
        shape = (len(self.source_coef_), rows.shape[1] + 1)
        units = np.column_stack([(rows - centre) / scale, np.ones(len(rows))])
        start = np.column_stack([self.source_coef_ * scale, self.source_intercept_ + self.source_coef_ @ centre])
        weights = start
        for _ in range(num_rounds):
            labels = prototype_labels(units[:, :-1], softmax(units @ weights.T, axis=1))

            def objective(flat: FloatArray, labels: IntArray = labels) -> tuple[float, FloatArray]:
                moved = flat.reshape(shape)
                loss, gradient = information_loss(units @ moved.T, labels, pseudo_weight)
                away = moved - start
                return loss + anchor / 2 * float(np.square(away).sum()), (gradient.T @ units + anchor * away).ravel()

            found = minimize(objective, weights.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 100})
            weights = np.asarray(found.x).reshape(shape)
        self.coef_ = weights[:, :-1] / scale
        self.intercept_ = weights[:, -1] - self.coef_ @ centre

    def _probabilities(self, X: Any) -> FloatArray:
        return np.asarray(softmax(as_double(X) @ self.coef_.T + self.intercept_, axis=1))
