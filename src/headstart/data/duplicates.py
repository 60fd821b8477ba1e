"""Near-duplicates: pictures and texts that are the same to a person though their bytes differ.

Pictures. A 32 x 32 grey fingerprint g of each; its perceptual hash is the signs of the 63 lowest cosine coefficients (8 x 8
without the mean) against their median. Two pictures are near-duplicates when

    hamming <= 7   and   correlation(g, g') >= 0.98   and   max |z - z'| <= 1,    z = (g - mean) / std

that is: alike in outline, alike on the whole, and nowhere different by more than one standard deviation. The third
condition is what tells two hands writing the same digit from one digit saved twice. Pictures under 48 pixels hold too
little to tell (every 1 of 16 x 16 pixels looks like the next), so that they must correlate by 0.9995. This finds
pictures saved again, resized, brightened or greyed; it does not find crops, which need an embedding.

Texts. Letters and digits in lower case, one blank between words. Two texts are near-duplicates when these are equal, or
when the Jaccard index of their sets of five-letter shingles is at least 0.85. Candidates come from MinHash with 12 bands of 4.

Sources: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010; Broder, "On the resemblance
and containment of documents", 1997. It ignores meaning: paraphrases are not near-duplicates.
Shapes: n rows, p pairs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from headstart.core.seeds import generator

__all__ = ["FINGERPRINT_SIZE", "near_pictures", "near_texts", "perceptual_hash", "plain_text"]

Array = np.ndarray[Any, Any]

FINGERPRINT_SIZE: Final = 32
_MOST_BITS = 7
_LEAST_CORRELATION = 0.98
_LEAST_CORRELATION_SMALL = 0.9995
_MOST_DEVIATION = 1.0
_SMALL_SIDE = 48
_FLAT = 2.0  # a picture whose grey values vary less than this is blank: it resembles every other blank one

_SHINGLE = 5
_LEAST_JACCARD = 0.85
_BANDS, _ROWS_PER_BAND = 12, 4
_BLOCK = 1 << 20


def perceptual_hash(fingerprints_nhw: Array) -> Array:
    """Return the 63-bit perceptual hash of each fingerprint.

    Parameters
    ----------
    fingerprints_nhw : uint8 array of shape (n, 32, 32)
        Grey values.

    Returns
    -------
    uint64 array of shape (n,)
        The highest bit is 0.

    Examples
    --------
    >>> noise = np.random.default_rng(0).integers(0, 200, (1, 32, 32), dtype=np.uint8)
    >>> int(np.bitwise_count(perceptual_hash(noise) ^ perceptual_hash(noise + 9))[0])
    0
    """
    size = np.arange(FINGERPRINT_SIZE)
    cosines = np.cos(np.pi * (size[None, :] + 0.5) * size[:8, None] / FINGERPRINT_SIZE).astype(np.float32)
    hashes = np.zeros(len(fingerprints_nhw), np.uint64)
    bits = np.uint64(1) << np.arange(63, dtype=np.uint64)
    for start in range(0, len(hashes), 4096):
        part = fingerprints_nhw[start : start + 4096].astype(np.float32)
        low = (cosines @ part @ cosines.T).reshape(len(part), 64)[:, 1:]
        signs = low > np.median(low, axis=1, keepdims=True)
        hashes[start : start + 4096] = (signs * bits).sum(1, dtype=np.uint64)
    return hashes


def near_pictures(fingerprints_nhw: Array, sides_n: Array) -> Array:
    """Return the pairs of near-duplicate pictures.

    Parameters
    ----------
    fingerprints_nhw : uint8 array of shape (n, 32, 32)
        Grey fingerprints.
    sides_n : int array of shape (n,)
        The shorter side of each picture in pixels.

    Returns
    -------
    int64 array of shape (p, 2)
        Row numbers, the smaller first, in ascending order.
    """
    flat_n = fingerprints_nhw.reshape(len(fingerprints_nhw), -1)
    deviations = np.concatenate([np.zeros(0), *(flat_n[at : at + 4096].std(1) for at in range(0, len(flat_n), 4096))])
    usable = np.flatnonzero(deviations >= _FLAT)
    candidates = _close_hashes(perceptual_hash(fingerprints_nhw[usable]))
    first, second = usable[candidates[:, 0]], usable[candidates[:, 1]]
    kept = np.zeros(len(first), bool)
    for start in range(0, len(first), 4096):
        part = slice(start, start + 4096)
        one, two = _standardised(flat_n[first[part]]), _standardised(flat_n[second[part]])
        correlation = np.einsum("pd,pd->p", one, two) / one.shape[1]
        small = np.minimum(sides_n[first[part]], sides_n[second[part]]) < _SMALL_SIDE
        alike = correlation >= np.where(small, _LEAST_CORRELATION_SMALL, _LEAST_CORRELATION)
        kept[part] = alike & (np.abs(one - two).max(1) <= _MOST_DEVIATION)
    return _ordered(first[kept], second[kept])


def _standardised(rows: Array) -> Array:
    values = rows.astype(np.float32)
    values -= values.mean(1, keepdims=True)
    result: Array = values / values.std(1, keepdims=True)
    return result


def _close_hashes(hashes: Array) -> Array:
    """Return the pairs that differ in at most 7 of 64 bits: those agree in one of 8 bytes, so only equal bytes are compared."""
    found: list[Array] = [np.zeros((0, 2), np.int64)]
    octets = hashes[:, None] >> (np.uint64(8) * np.arange(8, dtype=np.uint64)) & np.uint64(255)
    for place in range(8):
        order = np.argsort(octets[:, place], kind="stable")
        for rows in _runs(order, octets[order, place]):
            for start in range(0, len(rows) - 1, 512):
                block = rows[start : start + 512]
                distance = np.bitwise_count(hashes[block][:, None] ^ hashes[rows[start:]][None, :])
                one, two = np.nonzero(np.triu(distance <= _MOST_BITS, 1))
                found.append(np.stack([block[one], rows[start:][two]], axis=1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _runs(order: Array, keys: Array) -> Iterator[Array]:
    """Yield the rows of every key that at least two rows share, given rows and keys in order of the keys."""
    edges = np.flatnonzero(np.diff(keys)) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(keys)]])
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        yield order[start:end]


def _ordered(first: Array, second: Array) -> Array:
    pairs = np.stack([np.minimum(first, second), np.maximum(first, second)], axis=1).astype(np.int64)
    return np.unique(pairs, axis=0)


def plain_text(text: str) -> str:
    """Return a text without what editing changes first: case, punctuation, blanks, kinds of quotes and accents' spelling.

    Examples
    --------
    >>> plain_text("  Hello,\\tWORLD!! ")
    'hello world'
    """
    folded = unicodedata.normalize("NFKC", text) if not text.isascii() else text
    return " ".join(re.findall(r"\w+", folded.casefold()))


def near_texts(texts: Sequence[str]) -> Array:
    """Return the pairs of near-duplicate texts.

    Parameters
    ----------
    texts : sequence of str of length n
        Texts as they are; a text without letters and digits resembles nothing.

    Returns
    -------
    int64 array of shape (p, 2)
        Row numbers, the smaller first, in ascending order. Of many equal texts each is paired with the first.

    Examples
    --------
    >>> near_texts(["Free entry, call now!", "something else", "free entry - call now"]).tolist()
    [[0, 2]]
    """
    first_of: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    for row, text in enumerate(texts):
        plain = plain_text(text)
        first = first_of.setdefault(plain, row)
        if plain and first != row:
            pairs.append((first, row))
    kept = [(plain, row) for plain, row in first_of.items() if len(plain) >= 2 * _SHINGLE]
    pairs += [(kept[one][1], kept[two][1]) for one, two in _similar([plain for plain, _ in kept])]
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return _ordered(found[:, 0], found[:, 1])


def _similar(texts: list[str]) -> list[tuple[int, int]]:
    """Return pairs of different texts whose shingles have a Jaccard index of at least 0.85."""
    shingles: list[Array] = []
    signatures: list[Array] = [np.zeros((0, _BANDS), np.uint64)]
    for block in _blocks(texts):
        hashes, lengths = _shingle_hashes(block)
        shingles += np.split(hashes, np.cumsum(lengths)[:-1])
        signatures.append(_band_keys(hashes, lengths))
    keys = np.concatenate(signatures)
    found: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        for rows in _runs(order, keys[order, band]):
            found.update((min(pair), max(pair)) for pair in _few_pairs(rows.tolist()))
    sizes = np.array([len(text) for text in texts])
    return [
        (one, two)
        for one, two in sorted(found)
        if min(sizes[one], sizes[two]) >= _LEAST_JACCARD * max(sizes[one], sizes[two]) - 2 * _SHINGLE
        and _jaccard(shingles[one], shingles[two]) >= _LEAST_JACCARD
    ]


def _few_pairs(rows: list[int]) -> Iterator[tuple[int, int]]:
    """Yield all pairs of a few rows; of many, each row with the first three and the three before it, which joins them as well."""
    for place, row in enumerate(rows):
        others = rows[:place] if len(rows) <= 40 else {*rows[: min(3, place)], *rows[max(0, place - 3) : place]}
        for other in others:
            yield other, row


def _jaccard(one: Array, two: Array) -> float:
    first, second = set(one.tolist()), set(two.tolist())
    return len(first & second) / len(first | second)


def _blocks(texts: list[str]) -> Iterator[list[str]]:
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size > _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _shingle_hashes(texts: list[str]) -> tuple[Array, Array]:
    """Return the hashes of all shingles of all texts, text after text, and how many each text has."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", errors="surrogatepass"), np.uint32).astype(np.uint64)
    sizes = np.array([len(text) for text in texts])
    mixed = np.zeros(len(codes) - _SHINGLE + 1, np.uint64)
    for place in range(_SHINGLE):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + codes[place : len(codes) - _SHINGLE + 1 + place]
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    ends = np.cumsum(sizes)
    last = np.zeros(len(codes), bool)  # shingles that begin in the last letters of a text reach into the next one
    for back in range(1, _SHINGLE):
        last[ends - back] = True
    return mixed[~last[: len(mixed)]], sizes - _SHINGLE + 1


def _band_keys(hashes: Array, lengths: Array) -> Array:
    """Return one key for each band of MinHash values; texts that share a key are candidates."""
    random = generator(0, "minhash")
    starts = np.cumsum(lengths) - lengths
    keys = np.zeros((len(lengths), _BANDS), np.uint64)
    for band in range(_BANDS):
        for _ in range(_ROWS_PER_BAND):
            factor, offset = random.integers(1 << 63, size=2, dtype=np.uint64) | np.uint64(1)
            smallest = np.minimum.reduceat((hashes * factor + offset) >> np.uint64(32), starts)
            keys[:, band] = keys[:, band] * np.uint64(0x9E3779B97F4A7C15) + smallest
    return keys
