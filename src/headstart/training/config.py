"""How a network is trained: one frozen set of numbers, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from headstart.core.errors import ConfigError

__all__ = ["Balance", "Optimiser", "Precision", "Schedule", "TrainingConfig", "fitting_batch_size"]

Optimiser = Literal["adamw", "adam", "sgd"]
Schedule = Literal["cosine", "one-cycle", "constant"]
Balance = Literal["none", "sampling", "loss", "domains"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
_BUDGETS = ("cpu_seconds", "wall_seconds")


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast and how to train.

    Parameters
    ----------
    cpu_seconds : float
        Budget of CPU time for training steps, all threads. Finite: the learning rate follows the share of it that is spent.
        Infinite: it follows the steps, and the run can be repeated bit for bit.
    wall_seconds : float
        Budget of waiting time: steps, reading, checks. Where both are finite, the one that is spent first ends the training.
    learning_rate : float
        Peak rate.
    weight_decay : float
        Of matrices and kernels; vectors (biases, norms) are not decayed. Decoupled for AdamW, part of the gradient otherwise.
    batch_size : int
        Rows a step (of all processes together); fewer where the data has fewer.
    max_epochs : int
        Most passes over the training rows; over the second stream, where that has more batches.
    patience : int
        Checks without a better validation loss before training stops.
    seed : int
        Of every random draw: order of rows, views, dropout, mixing.
    optimiser : {"adamw", "adam", "sgd"}
        SGD takes ``momentum`` and ``nesterov``, the others ``betas``.
    momentum, nesterov
        Of SGD.
    betas : tuple of 2 floats
        Decay of the running means of the gradient and its square. 0.99 for the latter suits short trainings.
    schedule : {"cosine", "one-cycle", "constant"}
        How the rate goes over the training; see `rate_share`.
    warm_up : float in [0, 1), optional
        Share of the training in which the rate rises: 0.05, and 0.3 for one-cycle, when left out.
    clip : float, optional
        Longest gradient; ``None`` cuts nothing.
    accumulate : int
        Pieces in which a step is computed, to save memory; the step is that of the whole batch.
    label_smoothing : float in [0, 1)
        Share of a label spread over all classes.
    mixup, cutmix : float
        Parameter of the Beta distribution of the share that is mixed; 0 mixes nothing. With both, half of the steps each.
    balance : {"none", "sampling", "loss", "domains"}
        Make every class count alike: by showing rare ones more often, or by weighing their loss; or every domain of the labelled
        rows, by showing small ones more often.
    ema : float in [0, 1)
        Decay of the running average of the weights, which is then what is validated and kept; 0 averages nothing.
    swa : float in [0, 1)
        Share of the training after which the rate stays where it is and the weights of every epoch's end are averaged; 0 averages
        nothing.
    restore_best : bool
        Leave the network with the weights of the lowest validation loss; otherwise with the last.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Of the network's arithmetic; weights stay fp32. fp16 needs a GPU.
    compile : bool
        Compile the network (`torch.compile`): a minute at first, faster steps afterwards.
    threads : int
        Threads of torch's operations; 0 leaves them as they are.
    validation_rows : int, optional
        Look at the first so many validation rows only.

    Raises
    ------
    ConfigError
        If a value breaks its rule.
    """

    cpu_seconds: float = math.inf
    wall_seconds: float = math.inf
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    batch_size: int = 32
    max_epochs: int = 100
    patience: int = 15
    seed: int = 0
    optimiser: Optimiser = "adamw"
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: Schedule = "cosine"
    warm_up: float | None = None
    clip: float | None = 5.0
    accumulate: int = 1
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    balance: Balance = "none"
    ema: float = 0.0
    swa: float = 0.0
    restore_best: bool = True
    precision: Precision = "auto"
    compile: bool = False
    threads: int = 0
    validation_rows: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", (float(self.betas[0]), float(self.betas[1])))
        for name, allowed in (("optimiser", Optimiser), ("schedule", Schedule), ("balance", Balance)):
            self._one_of(name, get_args(allowed))
        self._one_of("precision", get_args(Precision))
        for name in ("cpu_seconds", "wall_seconds", "learning_rate"):
            self._rule(name, "is positive", self._number(name) > 0)
        self._rule("learning_rate", "is finite", math.isfinite(self.learning_rate))
        for name in ("batch_size", "max_epochs", "patience", "accumulate"):
            self._rule(name, "is a whole number of at least 1", self._whole(name) and getattr(self, name) >= 1)
        for name in ("weight_decay", "mixup", "cutmix", "threads"):
            self._rule(name, "is at least 0", self._number(name) >= 0 and math.isfinite(getattr(self, name)))
        for name in ("momentum", "label_smoothing", "ema", "swa"):
            self._rule(name, "lies in [0, 1)", 0 <= self._number(name) < 1)
        self._rule("betas", "lie in [0, 1)", all(0 <= beta < 1 for beta in self.betas))
        self._rule("warm_up", "lies in [0, 1)", self.warm_up is None or 0 <= self.warm_up < 1)
        self._rule("clip", "is positive, or None", self.clip is None or self.clip > 0)
        self._rule(
            "validation_rows", "is at least 1, or None", self.validation_rows is None or self.validation_rows >= 1
        )
        self._rule("ema", "and swa are two ways to average; leave one at 0", not (self.ema and self.swa))
        self._rule("nesterov", "needs momentum", not self.nesterov or self.momentum > 0)

    def _number(self, name: str) -> float:
        value = getattr(self, name)
        self._rule(name, "is a number", isinstance(value, int | float) and not isinstance(value, bool))
        return float(value)

    def _whole(self, name: str) -> bool:
        return isinstance(getattr(self, name), int) and not isinstance(getattr(self, name), bool)

    def _one_of(self, name: str, allowed: tuple[str, ...]) -> None:
        self._rule(name, f"is one of {', '.join(allowed)}", getattr(self, name) in allowed)

    def _rule(self, name: str, rule: str, holds: bool) -> None:
        if not holds:
            raise ConfigError(f"TrainingConfig: {name} {rule}; got {getattr(self, name)!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value; an infinite budget is ``None``.

        Examples
        --------
        >>> TrainingConfig.from_dict(TrainingConfig(seed=3).to_dict()) == TrainingConfig(seed=3)
        True
        """
        value = asdict(self) | {"betas": list(self.betas)}
        return value | {name: None for name in _BUDGETS if math.isinf(value[name])}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> TrainingConfig:
        """Return the configuration that `to_dict` wrote down."""
        fields = dict(value)
        fields |= {name: math.inf for name in _BUDGETS if fields.get(name, 0) is None}
        if "betas" in fields:
            fields["betas"] = tuple(fields["betas"])
        return cls(**fields)


def fitting_batch_size(num_rows: int, wished: int) -> int:
    """Return a batch size that leaves at least four steps in an epoch, and at least two rows in a batch.

    Examples
    --------
    >>> fitting_batch_size(1000, 32), fitting_batch_size(40, 32), fitting_batch_size(3, 32)
    (32, 8, 2)
    """
    while wished > 2 and num_rows // wished < 4:
        wished //= 2
    return max(2, wished)
