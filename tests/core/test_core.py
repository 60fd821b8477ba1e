"""Core: digests, seeds, files that are whole or absent, transforms that survive a round trip, progress that adds up."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core import digests, errors, files, places
from headstart.core.checks import check_matrix, check_same_rows, check_same_width
from headstart.core.preprocessing import ImageTransform, TextTransform, VectorTransform, View, transform_from_dict
from headstart.core.progress import Progress
from headstart.core.seeds import derive_seed, generator
from headstart.core.tasks import Task
from headstart.core.version import VERSION


def test_the_error_tree_in_the_docstring_is_the_real_one() -> None:
    for name in errors.__all__:
        thing = getattr(errors, name)
        if isinstance(thing, type):
            assert issubclass(thing, errors.HeadstartError)
            assert name in (errors.__doc__ or "")


def test_file_and_bytes_digests_agree_across_block_borders(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    path = tmp_path / "file"
    path.write_bytes(content)
    assert digests.digest_file(path) == digests.digest_bytes(content)
    assert digests.digest_file(path) != digests.digest_bytes(content[:-1])


def test_array_digest_sees_type_and_order_of_values_but_not_memory_layout() -> None:
    matrix = np.arange(6.0).reshape(2, 3)
    assert digests.digest_array(matrix) == digests.digest_array(np.asfortranarray(matrix))
    assert digests.digest_array(matrix) != digests.digest_array(matrix.astype(np.float32))


@given(st.integers(0, 2**31), st.text(max_size=8), st.text(max_size=8))
def test_named_streams_are_stable_and_apart(seed: int, first: str, second: str) -> None:
    assert derive_seed(seed, first) == derive_seed(seed, first)
    assert (derive_seed(seed, first) == derive_seed(seed, second)) == (first == second)


def test_generator_is_reproducible() -> None:
    assert generator(3, "a").integers(1 << 30) == generator(3, "a").integers(1 << 30)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    with pytest.raises(KeyboardInterrupt), files.atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_follow_the_umask_whoever_writes_them(tmp_path: Path, mask: int) -> None:
    from safetensors.numpy import save_file

    before = os.umask(mask)
    try:
        files.write_text(tmp_path / "a.txt", "a")
        with files.atomic_path(tmp_path / "b.safetensors") as temporary:
            save_file({"x": np.zeros(2)}, temporary)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_process_leaves_goes_with_a_later_write(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from headstart.core import files\n"
        "with files.atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    target = tmp_path / "state.json"
    done = subprocess.run([sys.executable, "-c", script, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL and not target.exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".state.json.") and not list(tmp_path.rglob("*.json"))
    files.remove_leftovers(tmp_path)
    assert left.exists()  # somebody may be writing it
    os.utime(left, (1, 1))
    files.remove_leftovers(tmp_path)
    assert left.exists()  # the file within is young
    for path in (*left.iterdir(), left):
        os.utime(path, (1, 1))
    (tmp_path / ".state.json.abc.tmp").mkdir()  # somebody else's
    os.utime(tmp_path / ".state.json.abc.tmp", (1, 1))
    files.write_json(tmp_path / "other.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".state.json.abc.tmp", "other.json"]


@pytest.mark.parametrize(
    "transform",
    [ImageTransform(10, 20, 0.5, "bilinear", fit="pad"), TextTransform(128, "first", "abc"), VectorTransform(7)],
)
def test_transforms_round_trip_and_every_field_changes_the_digest(
    transform: ImageTransform | TextTransform | VectorTransform,
) -> None:
    written = transform.to_dict()
    assert transform_from_dict(written) == transform
    for key, value in written.items():
        if key == "kind":
            continue
        other: object = {"bilinear": "lanczos", "pad": "squash", "first": "mean", "abc": "abd"}.get(str(value))
        if other is None:
            other = (
                [item + 0.1 for item in value] if isinstance(value, list) else value / 2 if value == 0.5 else value + 1
            )
        assert transform_from_dict({**written, key: other}).digest() != transform.digest(), key


def test_transforms_refuse_nonsense() -> None:
    with pytest.raises(errors.ConfigError, match="at least 1 pixel"):
        ImageTransform(0, 10)
    with pytest.raises(errors.ConfigError, match="crop_x"):
        View(crop_x=2)
    with pytest.raises(errors.ConfigError, match="kind is one of"):
        transform_from_dict({"kind": "smell"})


def test_views_have_names_of_their_own() -> None:
    views = [View(), View(flip=True), View(crop_x=0), View(crop_y=0), View(zoom=1.5)]
    assert len({view.name for view in views}) == len(views)


def test_tasks_refuse_equal_class_names() -> None:
    with pytest.raises(errors.DataError, match="must differ"):
        Task("classification", ("a", "a"))
    with pytest.raises(errors.DataError, match="no classes"):
        Task("regression", ("a",))
    task = Task("multilabel", ("x", "ü"), "tags")
    assert Task.from_dict(task.to_dict()) == task


def test_checks_name_the_rule_and_the_value() -> None:
    with pytest.raises(errors.ShapeError, match="source has 3 features but target has 2"):
        check_same_width("who", np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(errors.ShapeError, match="at least 2 rows; got 1"):
        check_matrix("who", "source", np.zeros((1, 3)), 2)
    with pytest.raises(errors.ShapeError, match="must be a matrix"):
        check_matrix("who", "source", np.zeros(3))
    with pytest.raises(errors.ShapeError, match="4 rows but labels has 5"):
        check_same_rows("who", "features", np.zeros(4), "labels", np.zeros(5))


def test_a_stage_prints_one_line_with_its_account() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    with progress.stage("embed", 10) as stage:
        stage.advance(6, from_cache=6)
        stage.advance(4)
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert "embed" in line and "10/10 rows" in line and "60 % from cache" in line
    assert (progress.costs[0].rows, progress.costs[0].from_cache) == (10, 6)


def test_the_account_is_kept_when_a_stage_fails() -> None:
    progress = Progress(quiet=True)
    with pytest.raises(RuntimeError), progress.stage("embed", 10) as stage:
        stage.advance(3)
        raise RuntimeError
    assert progress.costs[0].rows == 3


def test_places_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    assert places.cache_folder() == tmp_path
    assert places.weights_folder() == tmp_path / "weights"
    for name in ("HEADSTART_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert not places.offline()
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    assert places.offline()


def test_the_version_is_that_of_the_project_file() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["version"] == VERSION


def test_core_imports_nothing_heavy() -> None:
    code = (
        "import sys, headstart.core.progress, headstart.core.preprocessing, headstart.core.files;"
        "print([m for m in ('torch', 'pandas', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
