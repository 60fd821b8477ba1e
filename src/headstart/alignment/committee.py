"""Committee: several adaptations of one classifier, or of several, answer together.

    p(row) = mean over members of p_i(row)

headstart's own use of a plain mean of probabilities. Members that fail in different ways (a moved source, a shared projection,
answers learnt from the target's own clusters) outvote each other's errors; a member that is wrong alone costs little.
Use it when no label says which adaptation to trust, and ask first whether to adapt (`CircularTest`): on docs/benchmarks.md the
committee always taken gained 6.1 points where the best of its members, which nobody can name, gains 7.6, and lost up to 26.5.
It ignores that members may be wrong together, and which of them is the better; a member sure of everything outweighs the others.
Shapes: n source rows, m target rows, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from headstart.alignment.aligner import Aligner, DomainClassifier, Domains, FeatureAligner, Reweighter
from headstart.core.errors import ConfigError

__all__ = ["Committee"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Committee(DomainClassifier):
    """Mean of the probabilities of adapted classifiers.

    After ``fit``: ``members_``, each fitted by itself.

    Parameters
    ----------
    members : sequence of at least two classifiers of `headstart.alignment`
        Who answers: `AdaptedClassifier` with an aligner or without, or one that predicts by itself, such as `SourceFree`.

    Examples
    --------
    >>> from headstart.alignment import AdaptedClassifier, MomentMatching
    >>> source, target = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([[8.0], [9.0], [11.0], [12.0]])
    >>> members = [AdaptedClassifier(MomentMatching()), AdaptedClassifier()]
    >>> model = Committee(members).fit(source, ["a", "a", "b", "b"], target)
    >>> first, second = (member.predict_proba(target) for member in model.members_)
    >>> bool(np.allclose(model.predict_proba(target), (first + second) / 2))
    True
    """

    def __init__(self, members: Sequence[Aligner]) -> None:
        self.members = members

    @classmethod
    def of(cls, fitted: Sequence[Any]) -> Self:
        """Return a fitted committee of members that are fitted already, on the same rows and labels.

        Raises
        ------
        ConfigError
            If they are fewer than two, or their classes differ.
        """
        found = cls([clone(member) for member in fitted])
        found._check_members()
        found.members_, found.classes_ = list(fitted), np.asarray(fitted[0].classes_)
        found.n_features_in_ = fitted[0].n_features_in_
        if not all(np.array_equal(member.classes_, found.classes_) for member in fitted):
            raise ConfigError("Committee: members must know the same classes; fit them on the same labels.")
        return found

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        self._check_members()
        target_md = None if domains.is_one_domain else domains.target_md
        labels_n = self.classes_[codes_n]
        self.members_ = [clone(member).fit(domains.source_nd, labels_n, target_md) for member in self.members]

    def _probabilities(self, X: Any) -> FloatArray:
        tables = [np.asarray(member.predict_proba(X), dtype=np.float64) for member in self.members_]
        return np.asarray(np.mean(tables, axis=0))

    def _check_members(self) -> None:
        members = list(self.members)
        if len(members) < 2:
            raise ConfigError(f"Committee: members must be at least two classifiers; got {len(members)}.")
        for member in members:
            moves_only = isinstance(member, (FeatureAligner, Reweighter))
            if not isinstance(member, Aligner) or moves_only or not hasattr(member, "predict_proba"):
                raise ConfigError(
                    f"Committee: a member must give probabilities of target rows; got {type(member).__name__}. "
                    "Put an aligner into AdaptedClassifier(aligner)."
                )
