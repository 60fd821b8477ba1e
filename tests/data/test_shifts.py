"""The synthetic shifts of the benchmarks: formulas, the same on every machine and in every order, and folders that go on."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

RANDOM = np.random.default_rng(6)
PHOTO = RANDOM.integers(256, size=(50, 60, 3)).astype(np.uint8)


@pytest.fixture
def shifts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's module."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    return importlib.import_module("shifts")


def test_its_examples_hold(shifts: ModuleType) -> None:
    done = doctest.testmod(shifts)
    assert done.attempted > 8
    assert not done.failed


def test_digits_are_the_difference_from_their_own_patch(shifts: ModuleType) -> None:
    digits = RANDOM.integers(256, size=(5, 28, 28)).astype(np.uint8)
    pictures = [PHOTO, PHOTO[::-1]]
    blended = shifts.digits_on_photos(digits, pictures, seed=3)
    patches = shifts.digits_on_photos(np.zeros_like(digits), pictures, seed=3)
    for row in np.ndindex(digits.shape):
        for channel in range(3):
            assert blended[(*row, channel)] == abs(int(patches[(*row, channel)]) - int(digits[row]))
    assert (shifts.digits_on_photos(digits[:2], pictures, seed=3) == blended[:2]).all()  # not on how many there are
    assert (shifts.digits_on_photos(digits, pictures, seed=4) != blended).any()
    windows = {photo[i : i + 28, j : j + 28].tobytes() for photo in pictures for i in range(23) for j in range(33)}
    assert all(patch.tobytes() in windows for patch in patches)
    assert len({patch.tobytes() for patch in patches}) == 5


def test_a_drawing_has_no_colour_and_does_not_see_the_level_of_light(shifts: ModuleType) -> None:
    drawn = shifts.sketch(PHOTO)
    assert (drawn[..., :1] == drawn).all()
    smooth = np.repeat((40 + 60 * (np.indices((50, 60))[0] > 24))[..., None], 3, 2).astype(np.uint8)
    darker = shifts.sketch((smooth // 2).astype(np.uint8))
    assert np.abs(darker.astype(int) - shifts.sketch(smooth)).max() <= 1
    assert shifts.sketch(smooth).min() < 200  # a line, where the light changes
    assert (shifts.sketch(smooth)[:15] == 255).all()  # and paper elsewhere


def test_night_is_dark_and_its_noise_is_the_pictures_own(shifts: ModuleType) -> None:
    dark = shifts.night(PHOTO)
    assert (dark == shifts.night(PHOTO.copy(order="F"))).all()
    assert dark.mean() < 0.35 * PHOTO.mean()
    other = PHOTO.copy()
    other[0, 0, 0] ^= 1
    assert (shifts.night(other)[1:] != dark[1:]).mean() > 0.5


def test_out_of_focus_is_a_gaussian_that_keeps_the_light(shifts: ModuleType) -> None:
    expected = np.stack([gaussian_filter(PHOTO[..., c].astype(float), 1.0) for c in range(3)], 2)
    assert np.abs(shifts.blur(PHOTO) - expected).max() <= 0.5
    assert shifts.blur(PHOTO).mean() == pytest.approx(PHOTO.mean(), abs=1)


def test_a_folder_keeps_its_names_and_goes_on(shifts: ModuleType, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for name in ("a/one.png", "b/two.png"):
        (source / name).parent.mkdir(parents=True)
        Image.fromarray(PHOTO).save(source / name)
    (source / "notes.txt").write_text("none")
    assert shifts.shift_folder(source, target, "blur") == 2
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*.*")) == ["a/one.png", "b/two.png"]
    assert (np.asarray(Image.open(target / "a/one.png")) == shifts.blur(PHOTO)).all()
    Image.fromarray(PHOTO).save(target / "a/one.png")  # what is there is not made again
    (target / "b/two.png").unlink()
    shifts.shift_folder(source, target, "blur")
    assert (np.asarray(Image.open(target / "a/one.png")) == PHOTO).all()
    assert (target / "b/two.png").exists()
