"""Near-duplicates: literal twins of the search, what is found, and what must not be."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from headstart.data import duplicates
from headstart.data.duplicates import near_pictures, near_texts, perceptual_hash, plain_text
from headstart.data.fingerprints import fingerprint


def scene(seed: int, height: int = 240, width: int = 320) -> Image.Image:
    """A random picture with large and small forms, as photos have."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), tuple(random.integers(0, 256, 3).tolist()))
    for size in (160, 80, 40, 20):
        for _ in range(12):
            x, y = random.integers(0, width), random.integers(0, height)
            patch = Image.new(
                "RGB",
                (int(random.integers(4, size)), int(random.integers(4, size))),
                tuple(random.integers(0, 256, 3).tolist()),
            )
            image.paste(patch, (int(x), int(y)))
    return image


def saved(image: Image.Image, file_format: str = "JPEG", quality: int = 85) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, quality=quality)
    return stream.getvalue()


def pairs_of(contents: list[bytes]) -> list[list[int]]:
    found = [fingerprint(content) for content in contents]
    return near_pictures(np.array([grey for grey, _ in found]), np.array([side for _, side in found])).tolist()  # type: ignore[no-any-return]


def test_hash_against_scipy() -> None:
    greys = np.random.default_rng(0).integers(0, 256, (20, 32, 32), dtype=np.uint8)
    for grey, value in zip(greys, perceptual_hash(greys), strict=True):
        low = dctn(grey.astype(np.float64))[:8, :8].ravel()[1:]
        bits = sum(1 << place for place, bit in enumerate(low > np.median(low)) if bit)
        assert int(value) == bits


@pytest.mark.parametrize(
    "change",
    [
        lambda image: saved(image, quality=40),
        lambda image: saved(image.resize((160, 120), Image.Resampling.LANCZOS)),
        lambda image: saved(image.resize((640, 480), Image.Resampling.BICUBIC)),
        lambda image: saved(image, "PNG"),
        lambda image: saved(image.convert("L")),
        lambda image: saved(Image.eval(image, lambda value: int(10 + value * 0.9))),
    ],
)
def test_the_same_picture_saved_otherwise_is_found(change: Any) -> None:
    originals = [saved(scene(seed), quality=95) for seed in range(6)]
    changed = [change(scene(seed)) for seed in range(6)]
    assert pairs_of(originals + changed) == [[seed, seed + 6] for seed in range(6)]


def test_blank_pictures_are_not_alike() -> None:
    assert pairs_of([saved(Image.new("RGB", (64, 64), (v, v, v)), "PNG") for v in (0, 1, 200, 255)]) == []


def test_a_moved_detail_tells_two_pictures_apart() -> None:
    one = scene(3)
    two = one.copy()
    two.paste(Image.new("RGB", (60, 60), (255, 255, 255)), (150, 100))
    one.paste(Image.new("RGB", (60, 60), (0, 0, 0)), (150, 100))
    assert pairs_of([saved(one), saved(two)]) == []


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), bits=st.integers(0, 12))
def test_the_banded_search_finds_what_a_literal_one_finds(seed: int, bits: int) -> None:
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 1 << 63, 60, dtype=np.uint64)
    for row in range(30):
        for bit in random.integers(0, 63, bits):
            hashes[row + 30] = hashes[row] ^ (np.uint64(1) << np.uint64(bit)) if bit % 2 else hashes[row]
    literal = [
        [one, two]
        for one in range(60)
        for two in range(one + 1, 60)
        if bin(int(hashes[one]) ^ int(hashes[two])).count("1") <= 7
    ]
    assert duplicates._close_hashes(hashes).tolist() == literal


def test_plain_text() -> None:
    assert plain_text("Straße, ﬁne!\n1.5") == "strasse fine 1 5"
    assert plain_text("!!! ...") == ""


def test_texts_that_differ_in_dress_only() -> None:
    texts = ["Call me now!", "...", "call   ME now", "CALL ME NOW.", "call me later", "!!!"]
    assert near_texts(texts).tolist() == [[0, 2], [0, 3]]


def literal_jaccard(one: str, two: str) -> float:
    sets = [{plain[i : i + 5] for i in range(len(plain) - 4)} for plain in (plain_text(one), plain_text(two))]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.golden
def test_edited_texts_against_a_literal_comparison() -> None:
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefghijklmnop"), 6)) for _ in range(200)]
    texts = [" ".join(random.choice(words, 25)) for _ in range(60)]
    for row in range(30):
        edited = texts[row].split(" ")
        for place in random.integers(0, 25, 1 + row % 4):
            edited[place] = words[row]
        texts.append(" ".join(edited))
    literal = [
        [one, two] for one in range(90) for two in range(one + 1, 90) if literal_jaccard(texts[one], texts[two]) >= 0.85
    ]
    assert len(literal) >= 8
    assert near_texts(texts).tolist() == literal


def test_many_texts_that_share_a_frame_are_one_group_without_a_quadratic_search() -> None:
    frame = "this is the text that all of the rows share, word for word, from its beginning to its very end, number "
    pairs = near_texts([f"{frame}{i}" for i in range(600)])
    assert len(pairs) < 600 * 100
    assert set(pairs.ravel().tolist()) == set(range(600))


def test_no_texts_and_odd_texts() -> None:
    assert near_texts([]).shape == (0, 2)
    assert near_texts(["", "", "a", "\ud800 broken surrogate text", "日本語のテキストです、はい"]).tolist() == []
