"""Amplitude swap against a literal twin, its invariances, and rows that look another way each time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import ConfigError, ShapeError
from headstart.methods.image_translation import FourierRows, swap_amplitude
from training_toys import ArrayRows

RANDOM = np.random.default_rng(9)


def twin(source: np.ndarray, target: np.ndarray, size: float) -> np.ndarray:
    """Centre the spectrum, swap a square of amplitudes, and go back."""
    height, width = source.shape[-2:]
    spectrum, other = (np.fft.fftshift(np.fft.fft2(image)) for image in (source, target))
    amplitude, phase = np.abs(spectrum), np.angle(spectrum)
    reach, row, column = int(np.floor(size * min(height, width))), height // 2, width // 2
    window = np.s_[row - reach : row + reach + 1, column - reach : column + reach + 1]
    amplitude[window] = np.abs(other)[window]
    return np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase))).real


@pytest.mark.parametrize("shape", [(8, 8), (9, 7), (12, 9)])
@pytest.mark.parametrize("size", [0.0, 0.13, 0.3])
def test_it_is_its_formula(shape: tuple[int, int], size: float) -> None:
    source, target = RANDOM.random((2, 3, *shape)), RANDOM.random((2, 3, *shape))
    swapped = swap_amplitude(torch.from_numpy(source), torch.from_numpy(target), size).numpy()
    for image in np.ndindex(2, 3):
        np.testing.assert_allclose(swapped[image], twin(source[image], target[image], size), atol=1e-12)


@settings(deadline=None)
@given(st.floats(0, 0.49), st.integers(0, 1000))
def test_an_image_swapped_with_itself_stays_and_means_are_the_targets(size: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    source, target = (torch.from_numpy(random.random((1, 2, 8, 6))) for _ in range(2))
    assert torch.allclose(swap_amplitude(source, source, size), source)
    swapped = swap_amplitude(source, target, size)
    assert torch.allclose(swapped.mean((2, 3)), target.mean((2, 3)))
    assert torch.allclose(swap_amplitude(swapped, source, size), source)  # phases were kept


def test_rows_take_on_a_drawn_partner_on_pixels_from_0_to_1() -> None:
    source, target = RANDOM.random((4, 1, 8, 8)).astype(np.float32), RANDOM.random((3, 1, 8, 8)).astype(np.float32) / 2
    mean, std = (0.4,), (0.2,)
    rows = FourierRows(ArrayRows((source - 0.4) / 0.2), ArrayRows((target - 0.4) / 0.2), 0.2, mean, std)
    places = np.arange(4)
    plain = rows.batch(places)[0]
    assert torch.equal(plain, torch.from_numpy((source - 0.4) / 0.2))
    assert len(rows) == 4
    seen = set()
    for look in range(12):
        draws = np.arange(4, dtype=np.uint64) + np.uint64(4 * look + 1 << 40)
        changed = rows.batch(places, draws)[0]
        assert torch.equal(changed, rows.batch(places, draws)[0])
        pixels = (changed * 0.2 + 0.4).numpy()
        for place in range(4):
            options = [twin(source[place, 0], other[0], 0.2).clip(0, 1) for other in target]
            found = [i for i, option in enumerate(options) if np.abs(option - pixels[place, 0]).max() < 1e-4]
            assert found
            seen.add(found[0])
    assert seen == {0, 1, 2}


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ShapeError, match="one shape"):
        swap_amplitude(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
    with pytest.raises(ConfigError, match=r"\[0, 0.5\); got 0.5"):
        swap_amplitude(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), 0.5)
    rows = ArrayRows(np.zeros((1, 1, 4, 4), np.float32))
    with pytest.raises(ConfigError, match="there is a target row"):
        FourierRows(rows, ArrayRows(np.zeros((0, 1, 4, 4), np.float32)))
    with pytest.raises(ConfigError, match="std above 0"):
        FourierRows(rows, rows, std=(0.0,))
