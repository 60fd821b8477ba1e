"""The rows of one step, dealt to processes and into pieces, each made when a phase first looks at it.

    batch of all processes -> this process's shard -> pieces (gradient accumulation) -> Piece

Mixing takes partners from the whole batch, so a step is the same in however many pieces it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.training.config import TrainingConfig
from headstart.training.distributed import World
from headstart.training.forward import Forward, Piece
from headstart.training.mixing import Mix, draw_mix
from headstart.training.sampler import Stream

__all__ = ["Feed", "Makers"]

Makers = Sequence[Callable[[], Piece]]


@dataclass
class Feed:
    """Gives the pieces of a step.

    Parameters
    ----------
    forward : Forward
        Makes a piece.
    config : TrainingConfig
        Mixing and accumulation.
    world : World
        The processes that share a batch.
    source : Stream
        Labelled rows.
    target : Stream, optional
        The second stream.
    needs : frozenset of str
        What objectives of all phases need.
    again : bool
        Whether a piece is looked at more than once in a step, and so kept.
    """

    forward: Forward
    config: TrainingConfig
    world: World
    source: Stream
    target: Stream | None
    needs: frozenset[str]
    again: bool

    def pieces(self, step: int) -> tuple[Makers, Makers]:
        """Return what makes both streams' pieces of a step: the same number of each."""
        whole = self.source.at(step)
        mix = draw_mix(self.config, step, len(whole))
        sizes = [len(whole)] if self.target is None else [len(whole), len(self.target.at(step))]
        count = max(1, min(self.config.accumulate, min(sizes) // self.world.size))
        source = [self._maker(self.source, step, part, mix) for part in self._split(sizes[0], count)]
        if self.target is None:
            return source, ()
        return source, [self._maker(self.target, step, part, None) for part in self._split(sizes[1], count)]

    def _split(self, num_rows: int, count: int) -> Sequence[NDArray[np.int64] | None]:
        """Return which rows of a batch this process takes in each piece; ``None`` for all of them."""
        if self.world.size == 1 and count == 1:
            return [None]
        return list(np.array_split(self.world.shard(np.arange(num_rows)), count))

    def _maker(self, stream: Stream, step: int, part: NDArray[np.int64] | None, mix: Mix | None) -> Callable[[], Piece]:
        known: list[Piece] = []

        def make() -> Piece:
            if known:
                return known[0]
            piece = self.forward.piece(stream, stream.at(step), part, mix, self.needs)
            if self.again:
                known.append(piece)
            return piece

        return make
