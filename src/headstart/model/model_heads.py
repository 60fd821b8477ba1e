"""Which class rebuilds the head of a model: solved and trained ones, and those that adapting makes."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from headstart.heads import Head, load_head

__all__ = ["load_model_head"]


def load_model_head(config: dict[str, Any], state: dict[str, NDArray[Any]]) -> Head:
    """Return the head that ``config`` and ``state`` describe.

    Parameters
    ----------
    config : dict
        JSON value of a head's ``config``; ``"kind"`` names the class.
    state : dict of str to array
        Learned arrays by name.

    Raises
    ------
    HeadstartError
        If the kind is unknown, or the arrays do not fit it.
    """
    from headstart.model.adapted_head import AdaptedHead
    from headstart.model.committee_head import CommitteeHead
    from headstart.model.lame_head import LAMEHead

    kinds: tuple[Any, ...] = (AdaptedHead, CommitteeHead, LAMEHead)
    kind = next((kind for kind in kinds if kind.kind == config["kind"]), None)
    head: Head = load_head(config, state) if kind is None else kind.from_state(config, state)
    return head
