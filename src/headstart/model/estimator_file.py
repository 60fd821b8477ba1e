"""A fitted estimator as a JSON value and named arrays, and back: no pickle, and no class that is not on the list.

    null, true, 3, 0.5, "text"                    themselves
    {"number": "inf"}                             what JSON cannot write
    {"list": [...]}, {"tuple": [...]}             in order
    {"array": "estimator_.coef_"}                 of that name in the safetensors file
    {"class": "CORAL", "parameters": {...}, "fitted": {...}}        a class of `estimator_parts.PARTS`

Reading trusts nothing: unknown classes, attributes a class never learns, arrays that are missing, left over, not finite or of
another kind, and nesting without end are refused in words. Whether the parts answer together is for a trial to show, which
`AdaptedHead.from_state` makes.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.errors import HeadstartError, ModelError
from headstart.model.estimator_parts import PARTS, name_of, parameters_of

__all__ = ["read_estimator", "write_estimator"]

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
_KINDS = "biuf"
_MOST_DEPTH = 16
_MOST_VALUES = 1_000_000
_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def write_estimator(estimator: Any) -> tuple[dict[str, Any], Arrays]:
    """Return a JSON value and the arrays it names.

    Parameters
    ----------
    estimator : fitted estimator
        Of `headstart.alignment`, holding scikit-learn estimators of the list. What it needs to answer for target rows is
        written; what only fitting needed (a transport plan, the source rows it moved) is not.

    Raises
    ------
    ModelError
        If it holds anything that has no form here; the message names it.

    Examples
    --------
    >>> from headstart.alignment import AdaptedClassifier
    >>> fitted = AdaptedClassifier().fit(np.array([[0.0], [1.0]]), [0, 1], np.array([[0.5]]))
    >>> tree, arrays = write_estimator(fitted)
    >>> tree["class"], sorted(arrays)
    ('AdaptedClassifier', ['estimator_.classes_', 'estimator_.coef_', 'estimator_.intercept_'])
    >>> read_estimator(tree, arrays).predict([[0.9]]).tolist()
    [1]
    """
    arrays: Arrays = {}
    return _written(estimator, "", arrays, {}), arrays


def _written(value: Any, path: str, arrays: Arrays, known: dict[int, tuple[Any, str]]) -> Any:
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"number": str(value)}
    if isinstance(value, list | tuple):
        items = [_written(item, _join(path, str(place)), arrays, known) for place, item in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in _KINDS or not np.isfinite(value).all():
            raise ModelError(
                f"save_model: {path} holds {value.dtype} values that are no finite numbers, which a model folder does not hold."
            )
        if id(value) not in known:
            known[id(value)] = value, path  # the value itself too, so that its id stays its own
            arrays[path] = np.ascontiguousarray(value)
        return {"array": known[id(value)][1]}
    name = name_of(value)
    names = parameters_of(type(value))
    halves = {"parameters": {key: getattr(value, key) for key in names}, "fitted": PARTS[name].take(value)}
    written: dict[str, Any] = {"class": name}
    for half, values in halves.items():
        written[half] = {
            key: _written(item, _join(path, key if half == "fitted" else f"({key})"), arrays, known)
            for key, item in values.items()
        }
    return written


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def read_estimator(tree: Any, arrays: Arrays) -> Any:
    """Return the estimator that `write_estimator` wrote.

    Parameters
    ----------
    tree : JSON value
        The value.
    arrays : dict of str to array
        The arrays it names, and no others.

    Raises
    ------
    ModelError
        If anything is unknown, missing, left over, or does not fit.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in _KINDS or not np.isfinite(array).all():
            raise ModelError(f"load_model: the array {name!r} holds what is no finite number; fetch the model again.")
    reader = _Reader(arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = reader.read(tree, 0)
    if unused := sorted(set(arrays) - reader.used):
        raise ModelError(f"load_model: nothing names the array {unused[0]!r}; fetch the model again.")
    if not hasattr(estimator, "predict"):
        raise ModelError("load_model: what was saved as an estimator does not predict; fetch the model again.")
    return estimator


class _Reader:
    """Reads one tree; counts what it reads, so that a small file cannot ask for endless work."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays, self.used, self.num_values = arrays, set[str](), 0

    def read(self, value: Any, depth: int) -> Any:
        self.num_values += 1
        if depth > _MOST_DEPTH or self.num_values > _MOST_VALUES:
            raise ModelError(
                "load_model: the saved estimator is nested too deep or too large; do not trust this model."
            )
        if value is None or isinstance(value, bool | str | float):
            return value
        if isinstance(value, int):
            if abs(value) > 2**53:
                raise ModelError(f"load_model: {value} is no count or code of an estimator; do not trust this model.")
            return value
        if not isinstance(value, dict):
            raise ModelError(f"load_model: {str(value)[:60]!r} is no part of an estimator; fetch the model again.")
        if set(value) == {"class", "parameters", "fitted"}:
            return self._object(value, depth)
        if len(value) == 1:
            (key, held), *_ = value.items()
            if key in ("list", "tuple") and isinstance(held, list):
                items = [self.read(item, depth + 1) for item in held]
                return items if key == "list" else tuple(items)
            if key == "number" and held in ("inf", "-inf", "nan"):
                return _NUMBERS[held]
            if key == "array" and isinstance(held, str) and held in self.arrays:
                self.used.add(held)
                return self.arrays[held]
        shown = ", ".join(f"{key}: {str(item)[:40]}" for key, item in list(value.items())[:3])
        raise ModelError(f"load_model: {{{shown}}} is no part of an estimator; fetch the model again.")

    def _object(self, value: dict[str, Any], depth: int) -> Any:
        name, halves = value["class"], (value["parameters"], value["fitted"])
        part = PARTS.get(name) if isinstance(name, str) else None
        if part is None:
            raise ModelError(
                f"load_model: the model holds a {str(name)[:60]!r}, which is no class a model may hold; do not trust this model."
            )
        if not all(isinstance(item, dict) for item in halves):
            raise ModelError(f"load_model: the saved {name} is incomplete; fetch the model again.")
        parameters, fitted = ({key: self.read(item, depth + 1) for key, item in half.items()} for half in halves)
        wanted = parameters_of(part.kind)
        if set(parameters) != set(wanted):
            raise ModelError(
                f"load_model: the saved {name} has the arguments {sorted(parameters)}, this headstart knows "
                f"{sorted(wanted)}; load it with the version that saved it."
            )
        try:
            made = part.kind(**parameters) if wanted else object.__new__(part.kind)
            if name.startswith("sklearn."):
                made._validate_params()
            part.restore(made, fitted)
        except HeadstartError:
            raise
        except (TypeError, ValueError, AttributeError, IndexError, KeyError, ArithmeticError, MemoryError) as error:
            raise ModelError(
                f"load_model: the saved {name} does not fit together ({error}); fetch the model again."
            ) from error
        return made
