"""How to fine-tune when nobody says: one training configuration by strategy and number of rows.

Rates are those of the pretrained body; a strategy multiplies them for adapters and fresh heads. Epochs are chosen so that the
number of steps hardly depends on the number of rows. The numbers were chosen on parts of training rows set aside, never on test
rows: pets, photographs of PACS, ants and bees with EfficientNet-Lite0 at 128 pixels, questions of TREC with MiniLM.
"""

from __future__ import annotations

import math

from headstart.core.tasks import Modality, TaskKind
from headstart.training import TrainingConfig

__all__ = ["default_config", "default_mix"]

_RATE = 3e-4  # of stages behind a frozen prefix, and of a head
_WHOLE_RATES: dict[Modality, float] = {"image": 1e-4, "text": 5e-5, "vector": 3e-4}  # of a body that trains as a whole
_STEPS, _HEAD_STEPS = 400, 3000  # a step of a head alone costs next to nothing
_FEWEST_EPOCHS, _MOST_EPOCHS, _MOST_HEAD_EPOCHS = 4, 15, 200
_BATCH = 32
_ENOUGH_TO_GO = 1000


def default_config(
    modality: Modality,
    task_kind: TaskKind,
    num_rows: int,
    *,
    whole: bool = False,
    head_only: bool = False,
    solved: bool = True,
    seed: int = 0,
) -> TrainingConfig:
    """Return the training configuration for some rows.

    Parameters
    ----------
    modality : {"image", "text", "vector"}
        What a row is.
    task_kind : {"classification", "multilabel", "regression"}
        What the labels mean.
    num_rows : int
        Rows to learn from.
    whole : bool
        Whether all stages train, and not the last ones alone.
    head_only : bool
        Whether the body is frozen.
    solved : bool
        Whether the head starts as a solution. If so, the whole length is trained, and the weights then go back part of the way
        (`default_mix`); if not, those of the lowest validation loss are kept.
    seed : int
        Of every random draw.

    Examples
    --------
    >>> config = default_config("image", "classification", 1000)
    >>> config.max_epochs, config.batch_size, config.learning_rate
    (13, 32, 0.0003)
    """
    steps_an_epoch = max(1, math.ceil(num_rows / _BATCH))
    steps, most = (_HEAD_STEPS, _MOST_HEAD_EPOCHS) if head_only else (_STEPS, _MOST_EPOCHS)
    epochs = min(max(math.ceil(steps / steps_an_epoch), _FEWEST_EPOCHS), most)
    return TrainingConfig(
        learning_rate=_WHOLE_RATES[modality] if whole else _RATE,
        weight_decay=0.01,
        batch_size=_BATCH,
        max_epochs=epochs,
        patience=max(10, epochs // 5) if head_only else epochs + 1,
        warm_up=0.1,
        label_smoothing=0.0 if solved or head_only or task_kind != "classification" else 0.1,
        restore_best=not solved,
        seed=seed,
        threads=1 if head_only else 0,  # matrices this small are computed sooner than threads agree
    )


def default_mix(num_rows: int) -> float:
    """Return how far to go from the solved start to the trained weights where no rows may choose it.

    Few rows pull the network farther than they can justify; see `headstart.training.weight_path`.

    Examples
    --------
    >>> default_mix(500), default_mix(5000)
    (0.5, 1.0)
    """
    return 0.5 if num_rows < _ENOUGH_TO_GO else 1.0
