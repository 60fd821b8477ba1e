"""A head that was trained rather than solved: any small network on the features, with calibrated probabilities.

    scores = module(features);   p = softmax(scores / T)   (several labels at once: a sigmoid of each)

Its layers are words (`headstart.heads.layers`), so that a saved model can rebuild it without running code from a file. Use it
where a linear map is not enough, or where the features themselves were trained along with it. It does not learn by itself:
`headstart.methods.FineTuning` trains its module.
Shapes: n rows, d features, k outputs.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix
from headstart.core.errors import ConfigError, ModelError, ShapeError
from headstart.core.tasks import Task
from headstart.heads.layers import build_layers, describe_layers, parse_layers
from headstart.heads.scoring import Head
from headstart.heads.temperature import fit_temperature

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["NetworkHead", "load_head"]

Array = npt.NDArray[Any]

_ROWS_AT_ONCE = 4096
_COUNTER = "num_batches_tracked"


class NetworkHead(Head):
    """A network on features.

    Parameters
    ----------
    layers : str or nn.Module
        Words such as ``"dense512-relu-dropout0.5"``, or a module that takes (n, d) and returns scores (n, k). A plain
        ``nn.Sequential`` of layers that have words is put into words; a model with any other module predicts but cannot be saved.
    width : int
        Number of features d.
    task : Task
        What the outputs mean.
    seed : int
        Of the starting weights; a module that is given keeps its own.

    Attributes
    ----------
    layers : str
        The words; empty for a module that has none.
    module : nn.Module
        What training changes. Its outputs are scores; for regression they are numbers once multiplied by ``scale`` and
        moved by ``centre``.
    temperature, report, validation_predictions
        As in every head.

    Raises
    ------
    ConfigError
        If the words cannot be read, or the module does not return one score for each output.

    Examples
    --------
    >>> head = NetworkHead("dense8-relu", 4, Task("classification", ("ant", "bee")))
    >>> head.layers, head.predict_proba(np.ones((3, 4))).shape
    ('dense8-relu-dense2-softmax', (3, 2))
    """

    kind: ClassVar[str] = "network"

    def __init__(self, layers: str | nn.Module, width: int, task: Task, *, seed: int = 0) -> None:
        self.task, self.width, self.seed = task, width, seed
        self.temperature, self.centre, self.scale = 1.0, 0.0, 1.0
        self.validation_predictions = None
        self.report: dict[str, Any] = {"head": self.kind}
        if isinstance(layers, str):
            parsed = parse_layers(layers, task)
            self.layers = "-".join(map(str, parsed))
            self.module: nn.Module = build_layers(parsed, width, seed)
            return
        words = describe_layers(layers)
        self.module = copy.deepcopy(layers)
        if words is None:
            self.layers = ""
        else:
            parsed = parse_layers(words, task)
            self.layers = "-".join(map(str, parsed))
            outline = build_layers(parsed, width, seed)
            if len(parts := self._parts()) >= len(outline):
                self.module = type(outline)(*parts[: len(outline)])
        self._check_module()

    def _parts(self) -> list[nn.Module]:
        from torch import nn

        return list(self.module) if isinstance(self.module, nn.Sequential) else [self.module]

    def _check_module(self) -> None:
        try:
            shape = self._scores(np.zeros((2, self.width), np.float32)).shape
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ConfigError(
                f"NetworkHead: the module must take features (n, {self.width}) and return scores "
                f"(n, {self.task.num_outputs}); it failed: {str(error).splitlines()[0] if str(error) else error!r}."
            ) from error
        if shape != (2, self.task.num_outputs):
            raise ConfigError(
                f"NetworkHead: the module must return scores (n, {self.task.num_outputs}) for features (n, {self.width}); "
                f"for 2 rows it returned {shape}. Give its last layer {self.task.num_outputs} units."
            )

    def __repr__(self) -> str:
        return f"NetworkHead({self.layers or type(self.module).__name__!r}, width={self.width})"

    def _scores(self, features_nd: Array) -> Array:
        import torch

        self.module.eval()
        with torch.no_grad():
            device = next((item.device for item in self.module.parameters()), torch.device("cpu"))
            parts: list[torch.Tensor] = [
                self.module(torch.from_numpy(features_nd[start : start + _ROWS_AT_ONCE]).to(device)).float().cpu()
                for start in range(0, max(1, len(features_nd)), _ROWS_AT_ONCE)
            ]
            scores: Array = torch.cat(parts).numpy()
        return scores

    def decision(self, features_nd: Array) -> Array:
        """Return raw scores, shape (n, k); for regression (n, 1), the predicted numbers."""
        features = np.ascontiguousarray(features_nd, dtype=np.float32)
        check_matrix("decision", "features", features, min_rows=0)
        if features.shape[1] != self.width:
            raise ShapeError(
                f"decision: the head was made for {self.width} features but got {features.shape[1]}; "
                "extract them with the same backbone and layer."
            )
        scores = self._scores(features)
        return scores * self.scale + self.centre if self.task.kind == "regression" else scores

    def calibrate(self, features_nd: Array, targets: Array) -> Self:
        """Set the temperature by rows that were not trained on; a regression head stays as it is.

        Parameters
        ----------
        features_nd : ndarray of shape (n, d)
        targets : ndarray of shape (n,) or (n, k)
            In the task's own type.
        """
        if self.task.kind != "regression" and len(features_nd):
            self.temperature = fit_temperature(
                self.task, self.decision(features_nd), np.asarray(targets), np.ones(len(features_nd))
            )
        return self

    def to_module(self) -> nn.Module:
        """Return a module whose outputs, after a softmax (or sigmoid), are this head's answers.

        Temperature, or the unit of a regression, is folded into its last layer; a module that ends otherwise gets a layer more.
        """
        import torch
        from torch import nn

        factor, offset = (self.scale, self.centre) if self.task.kind == "regression" else (1 / self.temperature, 0.0)
        module = copy.deepcopy(self.module).eval()
        last: Any = module[-1] if isinstance(module, nn.Sequential) and len(module) else module
        outputs = self.task.num_outputs
        if type(last) is not nn.Linear:
            last = nn.Linear(outputs, outputs)
            with torch.no_grad():
                last.weight.copy_(torch.eye(outputs))
                last.bias.zero_()
            module = nn.Sequential(module, last)
        with torch.no_grad():
            last.weight.mul_(factor)
            if last.bias is None:
                last.bias = nn.Parameter(torch.zeros(outputs))
            last.bias.mul_(factor).add_(offset)
        return module

    def config(self) -> dict[str, Any]:
        """Return a JSON value from which `from_state` rebuilds the head, given `state`.

        Raises
        ------
        ModelError
            If its layers have no words.
        """
        if not self.layers:
            raise ModelError(
                f"NetworkHead: a {type(self.module).__name__} given in Python cannot be written down without its code; "
                "give the head in words, such as 'dense512-relu-dropout0.5', or as an nn.Sequential of layers that have words."
            )
        return {
            "kind": self.kind,
            "parameters": {"layers": self.layers, "width": self.width},
            "task": self.task.to_dict(),
            "temperature": self.temperature,
            "centre": self.centre,
            "scale": self.scale,
            "report": self.report,
        }

    def state(self) -> dict[str, Array]:
        """Return the learned arrays by name, without counters of batches."""
        return {
            name: np.ascontiguousarray(tensor.detach().cpu().numpy())
            for name, tensor in self.module.state_dict().items()
            if not name.endswith(_COUNTER)
        }

    @classmethod
    def from_state(cls, config: dict[str, Any], state: dict[str, Array]) -> NetworkHead:
        """Return the head that `config` and `state` describe.

        Raises
        ------
        ModelError
            If anything is missing, or the arrays do not fit the layers.
        """
        import torch

        try:
            task = Task.from_dict(config["task"])
            layers, width = str(config["parameters"]["layers"]), int(config["parameters"]["width"])
            parsed = parse_layers(layers, task)
            with torch.device("meta"):
                outline = build_layers(parsed, width, seed=None).state_dict()
            wanted = {name: tuple(item.shape) for name, item in outline.items() if not name.endswith(_COUNTER)}
            given = {name: tuple(array.shape) for name, array in state.items()}
            if wanted != given:
                differ = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
                raise ModelError(
                    f"from_state: the head {layers!r} and its arrays do not fit ({', '.join(differ[:4])}); fetch the model again."
                )
            head = cls(layers, width, task)
            head.module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=False)
            head.temperature = float(config["temperature"])
            head.centre, head.scale = float(config["centre"]), float(config["scale"])
            head.report = dict(config["report"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"from_state: the network head is incomplete ({error}); fetch the model again.") from error
        head.module.eval()
        return head


def load_head(config: dict[str, Any], state: dict[str, Array]) -> Head:
    """Return the head, solved or trained, that ``config`` and ``state`` describe.

    Raises
    ------
    ModelError
        If the kind is unknown, or the arrays are missing or do not fit.
    """
    from headstart.heads.head import LinearHead
    from headstart.heads.open_set_head import OpenSetHead

    for kind in (NetworkHead, OpenSetHead):
        if config.get("kind") == kind.kind:
            return kind.from_state(config, state)
    return LinearHead.from_state(config, state)
