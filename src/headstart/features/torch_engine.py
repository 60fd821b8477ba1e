"""PyTorch as an engine: channels_last, convolutions fused with their normalisation, bf16 weights where asked for."""

from __future__ import annotations

import collections
import contextlib
import copy
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.core.preprocessing import ImageTransform
from headstart.features.engine import Batch, FrozenPart, first_tensor
from headstart.features.fusion import fuse_normalisation
from headstart.features.runtime import Runtime

__all__ = ["TorchEngine", "num_threads", "plain_features"]


class TorchEngine:
    """Runs a frozen network in PyTorch.

    Parameters
    ----------
    part : FrozenPart
        The network; it stays as it is, the engine works on a copy.
    runtime : Runtime
        Precision and device.
    threads : int
        Batches that the processor works on at the same time, one thread each: threads that share an operation wait for one
        another, which cost up to four times the CPU seconds on a busy machine.
    """

    def __init__(self, part: FrozenPart, runtime: Runtime, threads: int) -> None:
        self.runtime = runtime
        self.threads = threads
        self.device = torch.device(runtime.device)
        self.dtype = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
        self._scale = _Normaliser(part.backbone.transform, self.device, self.dtype)
        with num_threads(1), torch.inference_mode(False), torch.no_grad():
            module = part.module
            if part.exact:
                module = copy.deepcopy(module)  # whatever becomes of the network, which others train
            elif self._scale.image:
                module = fuse_normalisation(module, _on_cpu(part.backbone.example_input(1)))
            if module is part.module and (self.dtype != torch.float32 or self.device.type != "cpu"):
                module = copy.deepcopy(module)
            if module is not part.module:
                module = module.to(self.device, self.dtype).to(memory_format=torch.channels_last)
        self.module = module.eval()

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, NDArray[Any]]]:
        """Yield each batch with its features, in order; a few are on their way while the caller is busy."""
        waiting: collections.deque[tuple[Batch, Future[NDArray[np.float32]]]] = collections.deque()
        workers = self.threads if self.device.type == "cpu" else 2  # of which one copies while the other computes
        pool = ThreadPoolExecutor(workers, thread_name_prefix="network")
        try:
            for batch in batches:
                if len(waiting) > workers:
                    done, values = waiting.popleft()
                    yield done, values.result()
                waiting.append((batch, pool.submit(self._features, batch)))
            while waiting:
                done, values = waiting.popleft()
                yield done, values.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _features(self, batch: Batch) -> NDArray[np.float32]:
        with num_threads(1), torch.inference_mode():
            inputs = [torch.from_numpy(array) for array in batch.arrays]
            if self.device.type == "cuda":
                inputs = [item.pin_memory().to(self.device, non_blocking=True) for item in inputs]
            if self._scale.image:
                inputs = [self._scale(inputs[0])]
            output: Tensor = first_tensor(self.module(*inputs))
            return output[: len(batch.tags)].float().cpu().numpy()


class _Normaliser:
    """uint8 (b, h, w, 3) to what an image network reads: (b, 3, h, w) in channels_last memory, normalised."""

    def __init__(self, transform: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.image = isinstance(transform, ImageTransform)
        self.dtype = dtype
        if self.image:
            mean, std = (
                torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (transform.mean, transform.std)
            )
            self.mean, self.scale = mean * 255, 1 / (std * 255)

    def __call__(self, pixels: Tensor) -> Tensor:
        rows = pixels.permute(0, 3, 1, 2).float()
        return rows.sub_(self.mean).mul_(self.scale).to(self.dtype)


def _on_cpu(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(item.cpu().contiguous(memory_format=torch.channels_last) for item in inputs)


@contextlib.contextmanager
def num_threads(threads: int) -> Iterator[None]:
    """Give torch's operations this many threads inside the block, in the thread that runs it."""
    before = torch.get_num_threads()
    if before != threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if before != threads:
            torch.set_num_threads(before)


def plain_features(part: FrozenPart, batch: Batch) -> tuple[NDArray[np.float32], float]:
    """Return the features of a batch's rows by the untouched network in float32, and CPU seconds a row.

    This is what every runtime is compared with. Images go one by one, on one thread: the probe must be cheap.
    """
    device = next((item.device for item in part.module.parameters()), torch.device("cpu"))
    scale = _Normaliser(part.backbone.transform, device, torch.float32)
    inputs = [torch.from_numpy(array).to(device) for array in batch.arrays]
    outputs, seconds = list[Tensor](), list[float]()
    with num_threads(1), torch.inference_mode():
        for at in range(len(batch.tags)):
            started = time.process_time()
            row = [item[at : at + 1] for item in inputs]
            outputs.append(first_tensor(part.module(*([scale(row[0])] if scale.image else row))).float().cpu())
            seconds.append(time.process_time() - started)
    return torch.cat(outputs).numpy(), max(min(seconds), 1e-6)
