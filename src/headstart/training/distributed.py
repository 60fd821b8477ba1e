"""One training in several processes: each computes its part of every batch, and all take the same step.

    L = 1/B sum_{i in batch} l_i = sum_r (b_r / B) L_r          L_r the mean loss of the b_r rows that process r was given

so each process multiplies its mean loss by b_r / B, and gradients are added up: right for unequal parts too. Batch normalisation
takes mean and variance over the rows of all processes, each channel combined by

    m = sum_r b_r m_r / B        v = sum_r b_r (v_r + (m_r - m)^2) / B          (Chan, Golub & LeVeque, 1979)

Use it under ``torchrun --nproc-per-node N``: gloo between processors, NCCL between GPUs. Losses equal those of one process with
the same global batch up to rounding (1e-5) for losses that are means over rows, batch normalisation included. They differ where
a row's loss looks at other rows of its batch (contrastive terms see only their own process's rows) and where random numbers are
drawn inside the network (each process draws dropout masks of its own). Objectives that compare source domains, or remember what
they saw, ask `together` for the rows of all processes.
It ignores anything but data-parallel training: every process holds the whole network.
Shapes: B rows in the global batch, b_r of them here, k outputs.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import Store
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from headstart.core.digests import digest_array, digest_many
from headstart.core.errors import ConfigError, HeadstartError, TrainingError
from headstart.objectives import Together

__all__ = ["OthersGone", "World"]

_BUCKET_BYTES = 64 << 20


class OthersGone(TrainingError):
    """Another of the processes that train together has ended, or left the training."""


@dataclass
class World:
    """The processes that train together, seen from one of them. Without arguments: one process, alone; every method is then free.

    Parameters
    ----------
    rank : int
        Which process this is, from 0.
    size : int
        How many there are.
    device : torch.device
        Where this process computes.

    Attributes
    ----------
    stop_requested : bool
        Set by a signal in this process.
    stopping : bool
        Whether any process was asked to stop; all learn it in the same step, from `sum_gradients`.

    Examples
    --------
    >>> World().shard(np.array([5, 6, 7])).tolist(), World(1, 2).shard(np.array([5, 6, 7])).tolist()
    ([5, 6, 7], [7])
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    stop_requested: bool = False
    stopping: bool = False

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    @classmethod
    def current(cls) -> World:
        """Return the processes that were `joined`, or this one alone."""
        return _joined[-1] if _joined else cls()

    @classmethod
    @contextlib.contextmanager
    def joined(
        cls, *, cuda: bool | None = None, timeout_seconds: float = 600.0, store: Store | None = None
    ) -> Iterator[World]:
        """Join the processes that torchrun started, and leave them at the end; alone, where it started none.

        Trainings and checkpoints within it take part by themselves.

        Parameters
        ----------
        cuda : bool, optional
            Compute on GPUs, one for each process; where there are enough, if left out.
        timeout_seconds : float
            How long to wait for the others before the training is given up.
        store : Store, optional
            Where the processes find each other; what torchrun set up, when left out.

        Raises
        ------
        TrainingError
            If the others cannot be reached.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            yield cls()
            return
        rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
        if cuda is None:
            cuda = torch.cuda.is_available() and torch.cuda.device_count() > local
        device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(device)
        elif os.environ.get("LOCAL_WORLD_SIZE") == str(
            size
        ):  # all on this machine: no need to find its name in a network
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        try:
            distributed.init_process_group(
                "nccl" if cuda else "gloo",
                timeout=timedelta(seconds=timeout_seconds),
                device_id=device if cuda else None,
                store=store,
                rank=-1 if store is None else rank,
                world_size=-1 if store is None else size,
            )
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"train: process {rank} of {size} cannot reach the others ({_first_line(error)}); start all with torchrun."
            ) from error
        _joined.append(cls(rank, size, device))
        try:
            yield _joined[-1]
        finally:
            _joined.pop()
            with contextlib.suppress(RuntimeError):
                distributed.destroy_process_group()

    def shard(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's rows of a global batch: consecutive parts whose sizes differ by one at most.

        Raises
        ------
        ConfigError
            If there are fewer rows than processes.
        """
        if len(rows) < self.size:
            raise ConfigError(
                f"train: a batch holds at least one row for each process; got {len(rows)} rows for {self.size} processes; "
                "raise batch_size or start fewer."
            )
        begin, end = self._range(len(rows))
        return rows[begin:end]

    def share(self, num_rows: int) -> float:
        """Return b_r / B of a global batch of ``num_rows``: what the mean loss of this process's shard is multiplied by.

        Examples
        --------
        >>> World().share(3), World(0, 2).share(3), World(1, 2).share(3)
        (1.0, 0.6666666666666666, 0.3333333333333333)
        """
        begin, end = self._range(num_rows)
        return (end - begin) / num_rows

    @property
    def seed_part(self) -> tuple[int, ...]:
        """What to add to the purpose of random numbers drawn inside the network: nothing where this process is alone."""
        return (self.rank,) if self.size > 1 else ()

    def sum_gradients(self, parameters: Iterable[nn.Parameter], figures: Sequence[float] = ()) -> list[float]:
        """Add up gradients over all processes, in place, and some figures (losses) with them.

        A parameter that got a gradient in some processes only counts as zero in the others; one that got none in any keeps none.

        Parameters
        ----------
        parameters : iterable of nn.Parameter
            The same in every process, in the same order.
        figures : sequence of float
            Numbers to add up, this process's `share` already in them.

        Returns
        -------
        list of float
            The sums of the figures.

        Raises
        ------
        TrainingError
            If another process is gone.
        """
        if self.size == 1:
            self.stopping = self.stop_requested
            return list(figures)
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        present = [float(parameter.grad is not None) for parameter in trained]
        told = self._sum(torch.tensor([*present, float(self.stop_requested), *figures], dtype=torch.float64)).tolist()
        self.stopping = told[len(trained)] > 0
        given = [parameter for parameter, count in zip(trained, told, strict=False) if count > 0]
        for bucket in _buckets(given):
            self._sum_bucket(bucket)
        return told[len(trained) + 1 :]

    def _sum_bucket(self, bucket: list[nn.Parameter]) -> None:
        for parameter in bucket:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
        flat = self._sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def sums(self, figures: Sequence[float]) -> list[float]:
        """Return figures added up over all processes."""
        return list(figures) if self.size == 1 else self._sum(torch.tensor(figures, dtype=torch.float64)).tolist()

    def together(self) -> Together:
        """Return these processes as objectives see them."""
        return Together(self.rank, self.size, self._sum) if self.size > 1 else Together()

    def gather(self, shard_bk: Tensor, num_rows: int) -> Tensor:
        """Return the rows of all processes, in the order of the global batch that was sharded.

        Parameters
        ----------
        shard_bk : Tensor of shape (b_r, ...)
            What this process computed for its `shard`; no gradient flows through.
        num_rows : int
            Rows of all.
        """
        if self.size == 1:
            return shard_bk
        begin, end = self._range(num_rows)
        whole = shard_bk.new_zeros(num_rows, *shard_bk.shape[1:])
        whole[begin:end] = shard_bk.detach()
        return self._sum(whole)

    @contextlib.contextmanager
    def global_statistics(self) -> Iterator[None]:
        """Within it, batch normalisation takes mean and variance over the rows of all processes."""
        if self.size == 1:
            yield
            return
        with _GlobalBatchNorm(self):
            yield

    def hand_out(
        self, make: Callable[[], tuple[dict[str, Tensor], dict[str, Any]] | None]
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Call ``make`` in the first process and return what it gave in all; an error it raises is raised in all.

        Parameters
        ----------
        make : callable
            Gives named tensors and JSON, or None.
        """
        if self.size == 1:
            return make()
        made = None
        letter: dict[str, Any] = {"tensors": None}
        failed: HeadstartError | None = None
        if self.first:
            try:
                if (made := make()) is not None:
                    shapes = [[name, str(t.dtype)[6:], list(t.shape), list(t.stride())] for name, t in made[0].items()]
                    letter = {"tensors": shapes, "state": made[1]}
            except HeadstartError as error:
                failed = error
                letter = {"error": str(error), "kind": type(error).__name__}
        letter = self._hand_out_json(letter)
        if "error" in letter:
            raise failed or _named_error(letter)
        if letter["tensors"] is None:
            return None
        return self._hand_out_tensors(letter["tensors"], made[0] if made else {}), letter["state"]

    def _hand_out_json(self, value: Any) -> Any:
        content = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=self.device)
        length = torch.tensor([len(content)], device=self.device)
        self._call(distributed.broadcast, length, 0)
        if not self.first:
            content = torch.empty(int(length), dtype=torch.uint8, device=self.device)
        self._call(distributed.broadcast, content, 0)
        return json.loads(content.cpu().numpy().tobytes())

    def _hand_out_tensors(self, listed: list[list[Any]], known: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tensors = {}
        for name, dtype, shape, strides in listed:
            place = torch.empty_strided(shape, strides, dtype=getattr(torch, dtype))
            sent = known[name].contiguous() if self.first else torch.empty(shape, dtype=place.dtype)
            sent = sent.reshape(-1).view(torch.uint8).to(self.device)  # bytes: any dtype, and the same bits
            if sent.numel():
                self._call(distributed.broadcast, sent, 0)
            tensors[name] = place.copy_(sent.cpu().view(place.dtype).view(place.shape))
        return tensors

    def check_same(self, tensors: Mapping[str, Tensor]) -> None:
        """Prove that all processes hold the same bits.

        Raises
        ------
        TrainingError
            If they do not: a random number was drawn, or a step left out, in one of them only.
        """
        if self.size == 1:
            return
        digests = [digest_array(t.detach().cpu().reshape(-1).view(torch.uint8).numpy()) for t in tensors.values()]
        mine = int(digest_many([*tensors, *digests])[:12], 16)  # 48 bits: exact in float64
        row = torch.zeros(self.size, dtype=torch.float64)
        row[self.rank] = mine
        if len(set(self._sum(row).tolist())) > 1:
            raise TrainingError(
                f"train: the {self.size} processes no longer hold the same weights; go on from the last checkpoint, "
                "and let no objective draw random numbers for its weights."
            )

    def _range(self, num_rows: int) -> tuple[int, int]:
        whole, more = divmod(num_rows, self.size)
        begin = self.rank * whole + min(self.rank, more)
        return begin, begin + whole + (self.rank < more)

    def _sum(self, tensor: Tensor) -> Tensor:
        home = tensor.device
        there = tensor.to(self.device)
        self._call(distributed.all_reduce, there)
        return there.to(home)

    def _call(self, collective: Callable[..., Any], *arguments: Any) -> None:
        try:
            collective(*arguments)
        except RuntimeError as error:
            raise OthersGone(
                f"train: another of the {self.size} processes has ended, or cannot be reached ({_first_line(error)}); "
                f"process {self.rank} stops too. Start torchrun again: the training goes on from its last checkpoint."
            ) from error


_joined: list[World] = []


class _Sum(torch.autograd.Function):
    """Sum over processes, whose gradient is the sum of gradients over processes."""

    @staticmethod
    def forward(context: Any, tensor: Tensor, world: World) -> Tensor:
        context.world = world
        return world._sum(tensor.clone())

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        world: World = context.world
        return world._sum(gradients[0].clone()), None


class _GlobalBatchNorm(TorchFunctionMode):
    """Puts batch normalisation over all processes in the place of torch's, whichever module calls it."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        shape = [1, -1] + [1] * (values.ndim - 2)
        variance_c, mean_c = torch.var_mean(values, [0, *range(2, values.ndim)], correction=0)
        count = values.numel() // len(mean_c)
        own = torch.cat([mean_c, variance_c, mean_c.new_tensor([count])])
        places = [own if rank == self.world.rank else torch.zeros_like(own) for rank in range(self.world.size)]
        all_rd: Tensor = _Sum.apply(torch.stack(places), self.world)
        means_rc, variances_rc, counts_r1 = torch.split(all_rd, [len(mean_c), len(mean_c), 1], dim=1)
        total = counts_r1.sum()
        mean_c = (counts_r1 * means_rc).sum(0) / total
        variance_c = (counts_r1 * (variances_rc + (means_rc - mean_c).square())).sum(0) / total
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean_c.to(running_mean.dtype), momentum)
                running_var.lerp_((variance_c * total / (total - 1)).to(running_var.dtype), momentum)
        normal = (values - mean_c.view(shape)) * torch.rsqrt(variance_c + eps).view(shape)
        if weight is not None:
            normal = normal * weight.view(shape)
        if bias is not None:
            normal = normal + bias.view(shape)
        return normal.to(input.dtype)


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Yield parameters in runs of one dtype and at most 64 MiB, so that adding up takes little memory of its own."""
    bucket: list[nn.Parameter] = []
    held = 0
    for parameter in parameters:
        nbytes = parameter.numel() * parameter.element_size()
        if bucket and (held + nbytes > _BUCKET_BYTES or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(parameter)
        held += nbytes
    if bucket:
        yield bucket


def _named_error(letter: dict[str, str]) -> HeadstartError:
    from headstart.core import errors

    kind = getattr(errors, letter["kind"], HeadstartError)
    error: HeadstartError = kind(letter["error"])
    return error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
