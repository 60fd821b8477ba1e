"""Rows to batches: images decoded by a pool of threads ahead of the engine, texts put beside texts of their own length.

A row's batch has a shape that depends on that row alone (the image size; a text's own length, rounded up), never on its
neighbours. So its features are the same bits whether it was computed with the whole data set, after a crash, or alone.
Memory is bounded: a few batches of decoded images, a few thousand tokenised texts.
Shapes: b rows of a batch, t tokens.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.core.digests import digest_bytes
from headstart.core.errors import UnreadableRow
from headstart.core.preprocessing import ImageTransform, View
from headstart.data import Dataset, Finding, decode_image
from headstart.features.engine import Batch

__all__ = ["EXACT_TEXTS", "Job", "KeptPixels", "Tag", "image_batches", "padded_length", "text_batches", "unreadable"]

_TEXTS_AHEAD = 4096
_DECODED_TOGETHER = 4
_TOKENS_PER_BATCH = 512
EXACT_TEXTS = 4  # rows of a text batch where bits may depend on nothing but the row: few, for they are padded up to it
_LENGTH_STEPS = ((32, 4), (64, 8), (128, 16), (256, 32))


class Job(NamedTuple):
    """One thing to compute: a row of the data set, seen through a view."""

    row: int
    view: int


class Tag(NamedTuple):
    """What comes back beside a row's features: the job, and the digest of the very bytes that were computed on."""

    row: int
    view: int
    key: str


class KeptPixels:
    """Decoded images in memory, up to a limit, for rows that are asked for again and again.

    Parameters
    ----------
    max_bytes : float
        Images beyond it are decoded each time.
    """

    def __init__(self, max_bytes: float) -> None:
        self._left = max_bytes
        self._kept: dict[Job, NDArray[np.uint8]] = {}

    def get(self, job: Job) -> NDArray[np.uint8] | None:
        """Return a row's pixels through a view, if they are kept."""
        return self._kept.get(job)

    def keep(self, job: Job, pixels: NDArray[np.uint8]) -> None:
        """Keep them while there is room."""
        if pixels.nbytes <= self._left:
            self._left -= pixels.nbytes
            self._kept[job] = pixels


@dataclass(frozen=True)
class _Decoded:
    tag: Tag
    pixels: NDArray[np.uint8]


def image_batches(
    dataset: Dataset,
    transform: ImageTransform,
    jobs: Iterable[Job],
    views: Sequence[View],
    *,
    batch_rows: int,
    threads: int,
    on_failure: Callable[[int, Finding], None],
    kept: KeptPixels | None = None,
) -> Generator[Batch, None, None]:
    """Yield full batches of decoded images, in the order of ``jobs``; the last is padded with black.

    Parameters
    ----------
    dataset, transform, views
        What to decode, and how.
    jobs : iterable of Job
        Which rows and views.
    batch_rows : int
        Images in a batch.
    threads : int
        Threads that decode, a few batches ahead of whoever takes the batches.
    on_failure : callable
        Told of every row that cannot be decoded, with the finding it becomes; the row is left out.
    kept : KeptPixels, optional
        Pixels decoded before. Rows then have no digest in their tag.
    """
    shape = (batch_rows, transform.height, transform.width, 3)
    pixels, tags = np.zeros(shape, np.uint8), list[Tag]()
    for item in _decode_ahead(
        dataset, transform, jobs, views, threads, 2 * _DECODED_TOGETHER * threads + 2 * batch_rows, kept
    ):
        if isinstance(item, tuple):
            on_failure(*item)
            continue
        pixels[len(tags)] = item.pixels
        tags.append(item.tag)
        if len(tags) == batch_rows:
            yield Batch((pixels,), tags)
            pixels, tags = np.zeros(shape, np.uint8), []
    if tags:
        yield Batch((pixels,), tags)


def _decode_ahead(
    dataset: Dataset,
    transform: ImageTransform,
    jobs: Iterable[Job],
    views: Sequence[View],
    threads: int,
    ahead: int,
    kept: KeptPixels | None,
) -> Iterator[_Decoded | tuple[int, Finding]]:
    def decode(job: Job) -> _Decoded | tuple[int, Finding]:
        if kept is not None and (known := kept.get(job)) is not None:
            return _Decoded(Tag(job.row, job.view, ""), known)
        try:
            content = dataset.read(job.row)
            assert not isinstance(content, str)
            key = "" if kept is not None else _key(dataset, job.row, content)
            pixels = decode_image(content, transform, views[job.view])
        except UnreadableRow as error:
            return job.row, unreadable(dataset.ids[job.row], error)
        if kept is not None:
            kept.keep(job, pixels)
        return _Decoded(Tag(job.row, job.view, key), pixels)

    def decode_some(chunk: list[Job]) -> list[_Decoded | tuple[int, Finding]]:
        return [decode(job) for job in chunk]

    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    waiting: collections.deque[Future[list[_Decoded | tuple[int, Finding]]]] = collections.deque()
    remaining = iter(jobs)
    try:
        # a few images a task: handing over single ones cost 2 % of the CPU seconds
        while chunk := list(itertools.islice(remaining, _DECODED_TOGETHER)):
            waiting.append(pool.submit(decode_some, chunk))
            if len(waiting) * _DECODED_TOGETHER >= ahead:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _key(dataset: Dataset, row: int, content: Any) -> str:
    """Return the digest of the bytes in hand, not of those that were there when the data set was listed: a file may change."""
    return digest_bytes(content) if isinstance(content, bytes) else dataset.digest(row)


def unreadable(row: str, error: UnreadableRow) -> Finding:
    """Return the finding that a row which cannot be read becomes."""
    return Finding(str(getattr(error, "kind", "unreadable")), "error", (row,), str(error))


def text_batches(
    dataset: Dataset,
    backbone: Backbone,
    jobs: Iterable[Job],
    keys: Sequence[str],
    *,
    whole: bool,
    most: int | None = None,
    on_failure: Callable[[int, Finding], None],
) -> Generator[Batch, None, None]:
    """Yield batches of texts whose lengths round up to the same number of tokens.

    Parameters
    ----------
    dataset, backbone
        What to tokenise, and by whom.
    jobs : iterable of Job
        Which rows.
    keys : sequence of str
        Digest of every row of the data set.
    whole : bool
        Pad every batch to its full number of rows, for engines whose bits depend on it.
    most : int, optional
        Rows of a full batch; what suits its length when left out.
    on_failure : callable
        Told of every row that cannot be read.
    """
    open_buckets: dict[int, list[tuple[Job, list[int]]]] = {}
    limit = backbone.transform.to_dict()["max_tokens"]
    remaining = iter(jobs)
    while chunk := list(itertools.islice(remaining, _TEXTS_AHEAD)):
        readable = [(job, text) for job in chunk if (text := _read_text(dataset, job, on_failure)) is not None]
        for (job, _), tokens in zip(readable, backbone.tokenize([text for _, text in readable]), strict=True):
            open_buckets.setdefault(padded_length(len(tokens), limit), []).append((job, tokens))
        for length, bucket in sorted(open_buckets.items(), reverse=True):
            full = most or _rows_of_length(length)
            while len(bucket) >= full:
                yield _text_batch(backbone, bucket[:full], length, full, keys)
                del bucket[:full]
    for length, bucket in sorted(open_buckets.items(), reverse=True):
        if bucket:
            rows = (most or _rows_of_length(length)) if whole else len(bucket)
            yield _text_batch(backbone, bucket, length, rows, keys)


def _read_text(dataset: Dataset, job: Job, on_failure: Callable[[int, Finding], None]) -> str | None:
    try:
        return str(dataset.read(job.row))
    except UnreadableRow as error:
        on_failure(job.row, unreadable(dataset.ids[job.row], error))
        return None


def padded_length(tokens: int, limit: int) -> int:
    """Return the length a text of so many tokens is padded to: finely graded where texts are short.

    Examples
    --------
    >>> [padded_length(tokens, 256) for tokens in (1, 5, 33, 100, 200, 256)]
    [4, 8, 40, 112, 224, 256]
    """
    step = next((step for most, step in _LENGTH_STEPS if tokens <= most), 64)
    return min(limit, -(-tokens // step) * step)


def _rows_of_length(length: int) -> int:
    return max(4, min(32, _TOKENS_PER_BATCH // length))


def _text_batch(
    backbone: Backbone, bucket: list[tuple[Job, list[int]]], length: int, rows: int, keys: Sequence[str]
) -> Batch:
    input_ids, attention_mask = (item.numpy() for item in backbone.collate([tokens for _, tokens in bucket]))
    gap = ((0, rows - len(bucket)), (0, length - input_ids.shape[1]))
    ids_bt = np.pad(input_ids, gap, constant_values=backbone.tokenizer.pad_id if backbone.tokenizer else 0)
    mask_bt = np.pad(attention_mask, gap)
    mask_bt[len(bucket) :, 0] = 1  # a row without any token would divide by zero
    return Batch((ids_bt, mask_bt), [Tag(job.row, job.view, keys[job.row]) for job, _ in bucket])
