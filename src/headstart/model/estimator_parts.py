"""Which fitted estimators a model folder may hold, and what each of them needs to answer; nothing else is ever rebuilt.

    an aligner of headstart     its constructor's arguments, and what its own methods assign (less what only fitting needs)
    a scikit-learn estimator    its constructor's arguments, and the attributes named here

A file names a class by a word; the word is looked up in `PARTS`, and nothing is imported for it. What comes from a file is
checked before compiled code (libsvm, trees, nearest neighbours) sees it, because that code trusts its arrays.
Shapes: n rows, d features, k classes, s support vectors, t tree nodes.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from headstart import alignment
from headstart.alignment import Aligner, FeatureAligner
from headstart.alignment.kernel_rows import RowScale
from headstart.alignment.neighbour_graph import SeenRows
from headstart.core.errors import ModelError

__all__ = ["PARTS", "Part", "name_of", "parameters_of"]

Values = Mapping[str, Any]
_NODE_PARTS = ("left_child", "right_child", "feature", "threshold", "impurity", "n_node_samples")
_MORE_NODE_PARTS = ("weighted_n_node_samples", "missing_go_to_left")
_KERNELS = {"linear", "poly", "rbf", "sigmoid"}


@dataclass(frozen=True)
class Part:
    """How one class is taken apart and put together.

    Parameters
    ----------
    kind : type
        The class.
    take : callable
        The object in, what it has learnt out: names and values; empty where it has learnt nothing yet.
    restore : callable
        A new object and such names and values in; sets them, or raises where they do not fit.
    """

    kind: type
    take: Callable[[Any], dict[str, Any]]
    restore: Callable[[Any, Values], None]


def parameters_of(kind: type) -> tuple[str, ...]:
    """Return the names of the constructor's arguments; none for a class that is put together without it.

    Examples
    --------
    >>> parameters_of(alignment.CORAL)
    ('match_mean', 'regularisation')
    """
    names: Any = getattr(kind, "_get_param_names", tuple)  # of every scikit-learn estimator
    return tuple(names())


def name_of(value: Any) -> str:
    """Return the word for an object's class.

    Raises
    ------
    ModelError
        If it is none that a model folder may hold.
    """
    for name, part in PARTS.items():
        if type(value) is part.kind:
            return name
    kind = type(value)
    raise ModelError(
        f"save_model: a fitted {kind.__module__}.{kind.__qualname__} has no form in a model folder; "
        f"there are {', '.join(PARTS)}."
    )


def _refuse(kind: type, why: str) -> ModelError:
    return ModelError(f"load_model: the saved {kind.__name__} {why}; fetch the model again.")


# --- aligners of headstart -------------------------------------------------------------------------------------------


@cache
def _assigned(kind: type[Aligner]) -> frozenset[str]:
    """Return the attributes that methods of headstart's classes assign to themselves, and the width scikit-learn notes."""
    found = {"n_features_in_"}
    for base in kind.__mro__:
        if base.__module__.startswith("headstart."):
            for member in vars(base).values():
                function = getattr(member, "fget", None) or getattr(member, "func", None) or member
                function = inspect.unwrap(getattr(function, "__func__", function))
                if inspect.isfunction(function):
                    found.update(_stored(function.__code__))
    return frozenset(found)


def _stored(code: CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname == "STORE_ATTR":
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _stored(constant)


def _take_aligner(value: Any) -> dict[str, Any]:
    parameters = set(parameters_of(type(value)))
    fitted = {name: item for name, item in vars(value).items() if name not in parameters | value.fit_only}
    if "aligner_" in fitted and not isinstance(fitted["aligner_"], FeatureAligner):
        fitted["aligner_"] = None  # weights of source rows: nothing that answers looks at them
    return fitted


def _restore_aligner(value: Any, fitted: Values) -> None:
    kind: Any = type(value)
    legal = _assigned(kind) - set(parameters_of(kind)) - kind.fit_only
    if unknown := sorted(name for name in fitted if name not in legal or hasattr(kind, name)):
        raise _refuse(kind, f"has {unknown[0]!r}, which it never learns")
    vars(value).update(fitted)


# --- scikit-learn ----------------------------------------------------------------------------------------------------


def _plain(kind: type, names: tuple[str, ...], fits: Callable[[Any], bool]) -> Part:
    """Return the part of an estimator that is its arguments and some attributes, which ``fits`` holds together."""

    def take(value: Any) -> dict[str, Any]:
        return {name: getattr(value, name) for name in names} if hasattr(value, names[0]) else {}

    def restore(value: Any, fitted: Values) -> None:
        if fitted:
            _check_names(kind, fitted, names)
            vars(value).update(fitted)
            if not _holds(lambda: fits(value)):
                raise _refuse(kind, "holds arrays that do not fit each other")

    return Part(kind, take, restore)


def _check_names(kind: type, fitted: Values, names: tuple[str, ...]) -> None:
    if set(fitted) != set(names):
        raise _refuse(kind, f"holds {', '.join(sorted(fitted))} instead of {', '.join(sorted(names))}")


def _holds(check: Callable[[], bool]) -> bool:
    try:
        return bool(check())
    except (AttributeError, TypeError, ValueError, IndexError):
        return False


def _fits_logistic(value: Any) -> bool:
    classes, rows = len(value.classes_), len(value.coef_)
    return (
        value.coef_.shape == (rows, value.n_features_in_)
        and value.intercept_.shape == (rows,)
        and value.classes_.ndim == 1
        and classes == (2 if rows == 1 else rows)
    )


def _fits_dummy(value: Any) -> bool:
    return (
        type(value.n_outputs_) is int
        and value.n_outputs_ == 1
        and value.sparse_output_ is False
        and value.strategy == value._strategy == "most_frequent"
        and value.classes_.shape == value.class_prior_.shape == (value.n_classes_,)
    )


def _fits_bayes(value: Any) -> bool:
    shape = (len(value.classes_), value.n_features_in_)
    return bool(value.theta_.shape == value.var_.shape == shape and value.class_prior_.shape == shape[:1])


def _fits_machine(value: Any) -> bool:
    support, classes = len(value.support_vectors_), len(value.classes_)
    pairs = classes * (classes - 1) // 2
    doubles = (value.support_vectors_, value._dual_coef_, value._intercept_, value._probA, value._probB)
    return (
        value.kernel in _KERNELS
        and value._sparse is False
        and classes >= 2
        and all(item.dtype == np.float64 for item in doubles)
        and value.support_.dtype == value._n_support.dtype == np.int32
        and value.support_vectors_.shape == (support, value.n_features_in_)
        and value.support_.shape == (support,)
        and value._n_support.shape == (classes,)
        and bool((value._n_support >= 0).all())
        and int(value._n_support.sum(dtype=np.int64)) == support
        and value.dual_coef_.shape == value._dual_coef_.shape == (classes - 1, support)
        and value.intercept_.shape == value._intercept_.shape == (pairs,)
        and len(value._probA) == len(value._probB) == 0
        and isinstance(value._gamma, float)
    )


_MACHINE = (
    "support_vectors_",
    *("support_", "_n_support", "dual_coef_", "_dual_coef_", "intercept_", "_intercept_", "_probA", "_probB", "_gamma"),
    *("_sparse", "_effective_probability", "classes_", "class_weight_", "shape_fit_", "fit_status_", "n_features_in_"),
)


def _take_neighbours(value: Any) -> dict[str, Any]:
    return {"rows": value._fit_X, "labels": value.classes_[value._y]} if hasattr(value, "_fit_X") else {}


def _restore_neighbours(value: Any, fitted: Values) -> None:
    """Fit again: that keeps the rows, and builds the index that finds them."""
    if fitted:
        _check_names(KNeighborsClassifier, fitted, ("rows", "labels"))
        rows, labels = fitted["rows"], fitted["labels"]
        if not _holds(lambda: rows.ndim == 2 and labels.shape == (len(rows),) and value.n_neighbors <= len(rows)):
            raise _refuse(KNeighborsClassifier, "holds rows and labels that do not fit each other")
        value.set_params(n_jobs=None).fit(rows, labels)


def _tree(kind: type) -> Part:
    def take(value: Any) -> dict[str, Any]:
        if not hasattr(value, "tree_"):
            return {}
        state = value.tree_.__getstate__()
        nodes = {name: np.ascontiguousarray(state["nodes"][name]) for name in (*_NODE_PARTS, *_MORE_NODE_PARTS)}
        classes = {"classes": value.classes_} if kind is DecisionTreeClassifier else {}
        width = {"width": value.n_features_in_, "depth": state["max_depth"]}
        return {**nodes, "values": state["values"], **width, **classes}

    def restore(value: Any, fitted: Values) -> None:
        if fitted:
            classes = ("classes",) if kind is DecisionTreeClassifier else ()
            _check_names(kind, fitted, (*_NODE_PARTS, *_MORE_NODE_PARTS, "values", "width", "depth", *classes))
            if not _holds(lambda: _is_tree(fitted)):
                raise _refuse(kind, "is no tree")
            _plant(value, fitted)

    return Part(kind, take, restore)


def _is_tree(fitted: Values) -> bool:
    """Return whether nodes lead from the root down and only down, and ask for features there are."""
    left, right, feature = (fitted[name] for name in ("left_child", "right_child", "feature"))
    size, depth = len(left), fitted["depth"]
    outputs = len(fitted["classes"]) if "classes" in fitted else 1
    place = np.arange(size)
    inner = left >= 0
    return (
        size >= 1
        and type(depth) is type(fitted["width"]) is int
        and 0 <= depth <= size
        and all(fitted[name].shape == (size,) for name in (*_NODE_PARTS, *_MORE_NODE_PARTS))
        and left.dtype == right.dtype == feature.dtype == np.int64
        and fitted["values"].shape == (size, 1, outputs)
        and bool(((left > place) & (left < size) & (right > place) & (right < size))[inner].all())
        and bool(((feature >= 0) & (feature < fitted["width"]))[inner].all())
        and bool((right[~inner] < 0).all())
    )


def _plant(value: Any, fitted: Values) -> None:
    """Make the tree anew with the type of node this scikit-learn has, and hand it the checked nodes."""
    from sklearn.tree._tree import Tree

    classes = fitted.get("classes", np.zeros(1, dtype=np.int64))
    outputs = len(classes) if "classes" in fitted else 1
    model = Tree(fitted["width"], np.array([outputs], dtype=np.intp), 1)
    outline = DecisionTreeRegressor().fit([[0.0]], [0.0]).tree_.__getstate__()["nodes"]
    nodes = np.zeros(len(fitted["left_child"]), dtype=outline.dtype)
    for name in (*_NODE_PARTS, *_MORE_NODE_PARTS):
        nodes[name] = fitted[name]
    values = np.ascontiguousarray(fitted["values"], dtype=np.float64)
    model.__setstate__({"max_depth": fitted["depth"], "node_count": len(nodes), "nodes": nodes, "values": values})
    vars(value).update(tree_=model, n_features_in_=fitted["width"], n_outputs_=1, max_features_=fitted["width"])
    if "classes" in fitted:
        vars(value).update(classes_=classes, n_classes_=outputs)


# --- what aligners hold ----------------------------------------------------------------------------------------------


def _take_seen(value: Any) -> dict[str, Any]:
    keys = np.frombuffer(b"".join(value._numbers), dtype=np.uint8).reshape(len(value._numbers), -1)
    return {"keys": keys, "answers": value._answers}


def _restore_seen(value: Any, fitted: Values) -> None:
    _check_names(SeenRows, fitted, ("keys", "answers"))
    keys, answers = fitted["keys"], fitted["answers"]
    if not _holds(lambda: keys.ndim == answers.ndim == 2 and len(keys) == len(answers) and keys.dtype == np.uint8):
        raise _refuse(SeenRows, "holds keys and answers that do not fit each other")
    numbers = {np.ascontiguousarray(key).tobytes(): number for number, key in enumerate(keys)}
    vars(value).update(_numbers=numbers, _answers=answers)


_ROW_SCALE = ("mean", "to_unit", "is_constant", "length")


def _fits_row_scale(value: Any) -> bool:
    return value.mean.ndim == 1 and isinstance(value.length, float) and type(value.to_unit) is bool


def _parts() -> dict[str, Part]:
    exported = {name: getattr(alignment, name) for name in alignment.__all__}
    aligners = {
        name: Part(kind, _take_aligner, _restore_aligner)
        for name, kind in exported.items()
        if inspect.isclass(kind) and issubclass(kind, Aligner) and not inspect.isabstract(kind)
    }
    width = "n_features_in_"
    learners = {
        "sklearn.LogisticRegression": _plain(
            LogisticRegression, ("coef_", "intercept_", "classes_", width), _fits_logistic
        ),
        "sklearn.Ridge": _plain(
            Ridge, ("coef_", "intercept_", width), lambda value: value.coef_.shape == (value.n_features_in_,)
        ),
        "sklearn.DummyClassifier": _plain(
            DummyClassifier,
            ("classes_", "class_prior_", "n_classes_", "n_outputs_", "sparse_output_", "_strategy", width),
            _fits_dummy,
        ),
        "sklearn.GaussianNB": _plain(
            GaussianNB, ("theta_", "var_", "class_prior_", "classes_", "epsilon_", width), _fits_bayes
        ),
        "sklearn.SVC": _plain(SVC, _MACHINE, _fits_machine),
        "sklearn.KNeighborsClassifier": Part(KNeighborsClassifier, _take_neighbours, _restore_neighbours),
        "sklearn.DecisionTreeClassifier": _tree(DecisionTreeClassifier),
        "sklearn.DecisionTreeRegressor": _tree(DecisionTreeRegressor),
    }
    held = {
        "RowScale": _plain(RowScale, _ROW_SCALE, _fits_row_scale),
        "SeenRows": Part(SeenRows, _take_seen, _restore_seen),
    }
    return {**aligners, **learners, **held}


PARTS: dict[str, Part] = _parts()
"""Every class a model folder may hold, by its word."""
