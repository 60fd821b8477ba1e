"""Heads that were solved before: the same features, targets and settings have the same solution, so it is read back.

Kept in ``heads`` of the cache folder as safetensors, written atomically, the newest 200. A file that cannot be read counts as
unknown.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.digests import digest_array, digest_json
from headstart.core.errors import HeadstartError
from headstart.core.files import atomic_path
from headstart.core.places import cache_folder
from headstart.core.tasks import Task
from headstart.core.version import VERSION
from headstart.heads.head import LinearHead

__all__ = ["head_key", "recall_head", "remember_head"]

Array = npt.NDArray[Any]
_MOST = 200


def head_key(features_nd: Array, targets: Array, task: Task, groups: Array | None, settings: dict[str, Any]) -> str:
    """Return the name of a problem: everything its solution depends on."""
    parts = {
        "features": digest_array(features_nd),
        "targets": digest_array(targets),
        "groups": None if groups is None else digest_array(np.unique(groups, return_inverse=True)[1]),
        "task": task.to_dict(),
        "settings": settings,
        "headstart": VERSION,
    }
    return digest_json(parts)


def _place(key: str) -> Path:
    return cache_folder() / "heads" / f"{key}.safetensors"


def remember_head(key: str, head: LinearHead) -> None:
    """Keep a solved head; a disk that refuses costs the memo and nothing else."""
    from safetensors.numpy import save_file

    tensors = head.state()
    if head.validation_predictions is not None:
        tensors = {**tensors, "validation_predictions": np.ascontiguousarray(head.validation_predictions)}
    path = _place(key)
    with contextlib.suppress(OSError):
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"config": json.dumps(head.config())})
        for old in sorted(path.parent.glob("*.safetensors"), key=os.path.getmtime)[:-_MOST]:
            old.unlink(missing_ok=True)


def recall_head(key: str) -> LinearHead | None:
    """Return a head solved before, None where there is none that can be read."""
    from safetensors import SafetensorError, safe_open

    path = _place(key)
    with contextlib.suppress(OSError, SafetensorError, ValueError, KeyError, TypeError, HeadstartError):
        with safe_open(path, framework="numpy") as content:
            state = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - not a dict
            config = json.loads(content.metadata()["config"])
        held_out = state.pop("validation_predictions", None)
        head = LinearHead.from_state(config, state)
        head.validation_predictions = held_out
        return head
    return None
