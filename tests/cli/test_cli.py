"""The command line: quick help without heavy imports, errors in two lines with status 2, answers that can be piped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from headstart.catalog import entries
from headstart.cli.between_domains import TEST_TIME
from headstart.cli.main import main


def _run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "headstart", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )


@pytest.mark.golden
@pytest.mark.parametrize("words", [["--help"], ["methods"], ["backbones"], ["runs"], ["fit", "--help"]])
def test_what_must_be_quick_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['headstart', *{words!r}]\n"
        "from headstart.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = [m for m in ('torch', 'pandas', 'sklearn', 'matplotlib', 'timm', 'transformers') if m in sys.modules]\n"
        "print('HEAVY', heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("HEAVY []")


def test_help_shows_three_commands_with_an_example_before_the_rest() -> None:
    text = _run("--help").stdout
    places = [text.index(f"headstart {name} ") for name in ("fit", "rank", "predict")]
    assert places == sorted(places)
    assert places[-1] < text.index("evaluate")


@pytest.mark.golden
def test_lists_name_the_default_base_models() -> None:
    assert "efficientnet-lite0" in _run("backbones").stdout
    assert "minilm-l6" in _run("backbones").stdout
    assert "logme" in _run("methods").stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["fit", "nowhere/"], "nowhere"),
        (["fit"], "say what to learn from"),
        (["predict", "nowhere", "new"], "model.json"),
        (["evaluate", ".", "new"], "model.json"),
        (["fit", "nowhere/", "--max-size", "20"], "no amount with its unit"),
        (["fit", "nowhere/", "--strategy", "ful"], "Did you mean 'full'"),
        (["fit", "nowhere/", "--goal", "acuracy >= 0.9"], "Did you mean 'accuracy'"),
        (["compare", "a", "b"], "no finished run"),
        (["adapt", "saved", "new", "--rule", "infomax"], "--rule is not for a saved model"),
        (["adapt", "saved", "new"], "lame: near target rows correct"),
    ],
)
def test_user_errors_are_short_and_exit_with_2(
    words: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "model.json").touch()
    monkeypatch.setattr(sys, "argv", ["headstart", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert reason in said
    assert len(said.strip().splitlines()) <= 2


@pytest.mark.golden
def test_a_user_error_of_the_program_itself(tmp_path: Path) -> None:
    done = _run("fit", "nowhere/", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.golden
def test_two_runs_are_listed_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    assert "No finished runs" in _run("runs", cwd=tmp_path).stdout
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(120, 4)), columns=list("abcd"))
    table["kind"] = np.where(table["a"] > 0, "up", "down")
    np.save(tmp_path / "rows.npy", table[list("abcd")].to_numpy(np.float32))
    code = (
        "import headstart, numpy as np, pandas as pd\n"
        "rows = np.load('rows.npy'); labels = np.where(rows[:, 0] > 0, 'up', 'down')\n"
        "headstart.fit(rows, labels=labels, out='runs/a'); headstart.fit(rows, labels=labels, out='runs/b', head='ridge')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    listed = _run("runs", cwd=tmp_path).stdout
    assert "runs/a" in listed and "runs/b" in listed
    done = _run("compare", "runs/a", "b", "--out", "both.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "on the same 24 test rows" in done.stdout and "settings that differ" in done.stdout
    assert (tmp_path / "both.json").exists()


@pytest.mark.golden
def test_the_whole_way_from_a_table_to_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    good, bad = ["great", "lovely", "superb", "fine"], ["awful", "dull", "poor", "dreadful"]
    rows = [
        (f"The {random.choice(['film', 'play', 'book', 'meal'])} was {random.choice(words)} {number}", label)
        for number in range(60)
        for words, label in ((good, "5"), (bad, "1"))
    ]
    pd.DataFrame(rows, columns=["text", " stars"]).to_csv(tmp_path / "reviews.csv", index=False)
    done = _run("fit", "reviews.csv", "--text", "text", "--label", "stars", "--scratch", "off", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(("Transfer", "Unclear"))
    assert (tmp_path / "runs" / "reviews" / "report.html").exists()
    pd.DataFrame({"text": ["a superb evening", "a dreadful evening"]}).to_csv(tmp_path / "new.csv", index=False)
    done = _run("predict", "runs/reviews", "new.csv", "--out", "answers.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(tmp_path / "answers.csv", dtype=str)["prediction"].tolist() == ["5", "1"]
    done = _run("evaluate", "runs/reviews", "reviews.csv", "--label", "stars", cwd=tmp_path)
    assert done.returncode == 0 and "accuracy" in done.stdout
    done = _run("check", "reviews.csv", "--label", "stars", cwd=tmp_path)
    assert done.returncode == 0 and "column-name" in done.stdout
    done = _run("cache", "list", cwd=tmp_path)
    assert done.returncode == 0 and "MB" in done.stdout
    cache = Path(os.environ["HEADSTART_CACHE"])
    assert list((cache / "heads").glob("*.safetensors"))
    done = _run("cache", "clear", "--yes", cwd=tmp_path)
    assert done.returncode == 0 and "removed" in done.stdout
    assert not (cache / "heads").exists() and not list((cache / "features").rglob("*.safetensors"))


@pytest.mark.golden
def test_numbers_are_adapted_from_the_command_line(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for name, centre in (("near", 0.0), ("far", 1.2)):
        rows = draws.normal(centre, 0.7, size=(80, 1))
        lines = [f"{row},{np.sinc(row):.4f}" for row in rows[:, 0]]
        (tmp_path / f"{name}.csv").write_text("a,y\n" + "\n".join(lines) + "\n")
    files = [str(tmp_path / f"{name}.csv") for name in ("near", "far")]
    options = ["--label", "y", "--task", "regression", "--method", "ulsif"]
    done = _run("adapt", *files, *options, "--rule", "importance-weighted", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "RMSE" in done.stdout and "Oracle, unreachable" in done.stdout
    assert (tmp_path / "out" / "predictions.csv").read_text().startswith("row,value")
    refused = _run("adapt", *files, *options, "--rule", "entropy")
    assert refused.returncode == 2 and "choose --rule from" in refused.stderr


@pytest.mark.golden
def test_gap_and_adapt_from_the_command_line(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 2, size=160)
    source, target = draws.normal(size=(2, 160, 3))
    source[:, 0] += 4 * labels
    target = (target + [4.0, 0.0, 0.0] * draws.integers(0, 2, size=(160, 1))) * [3.0, 0.3, 1.0] + [20.0, -2.0, 0.0]
    pd.DataFrame(source, columns=list("abc")).assign(kind=labels).to_csv(tmp_path / "source.csv", index=False)
    pd.DataFrame(target, columns=list("abc")).to_csv(tmp_path / "target.csv", index=False)
    files = [str(tmp_path / "source.csv"), str(tmp_path / "target.csv"), "--label", "kind"]
    done = _run("gap", *files, "--measure", "energy", "--out", str(tmp_path / "gap"))
    assert done.returncode == 0, done.stderr
    assert "What to try:" in done.stdout and (tmp_path / "gap" / "gap.html").is_file()
    done = _run("adapt", *files, "--method", "moment-matching,linear-ot", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.startswith("Selected: ")
        and len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 161
    )
    refused = _run("adapt", *files, "--method", "linear-to")
    assert (
        refused.returncode == 2 and "Did you mean 'linear-ot'" in refused.stderr and "Traceback" not in refused.stderr
    )


def test_the_help_names_what_adapts_a_saved_model() -> None:
    assert TEST_TIME.split(", ") == [entry.name for entry in entries("test-time")]


@pytest.mark.golden
def test_a_saved_model_is_adapted_from_the_command_line(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 2, size=160)
    source = draws.normal(size=(160, 3)) + [4.0, 0.0, 0.0] * labels[:, None]
    names = np.array(["ant", "bee"])[labels]
    pd.DataFrame(source, columns=list("abc")).assign(kind=names).to_csv(tmp_path / "source.csv", index=False)
    moved = pd.DataFrame(source * [3.0, 0.3, 1.0] + [20.0, -2.0, 0.0], columns=list("abc"))
    moved[:100].to_csv(tmp_path / "target.csv", index=False)
    moved[100:].assign(kind=names[100:]).to_csv(tmp_path / "few.csv", index=False)
    done = _run("fit", "source.csv", "--label", "kind", "--scratch", "off", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "source.csv").unlink()
    done = _run("adapt", "run", "target.csv", "--method", "moments", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Selected: moments. moments was asked for") and "Page: out/adapt.html" in done.stdout
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 101
    done = _run("predict", "out", "few.csv", "--out", "answers.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (pd.read_csv(tmp_path / "answers.csv")["prediction"] == names[100:]).mean() > 0.9
    done = _run("evaluate", "out", "few.csv", "--label", "kind", cwd=tmp_path)
    assert done.returncode == 0 and "60 rows" in done.stdout, done.stderr
    few = ["--few", "few.csv", "--label", "kind"]
    done = _run("adapt", "run", "target.csv", "--method", "lame,moments", *few, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("Selected: moments. moments scores"), (
        done.stdout + done.stderr
    )
    refused = _run("adapt", "run", "target.csv", "--method", "tent", cwd=tmp_path)
    assert refused.returncode == 2 and "use 'lame'" in refused.stderr and "Traceback" not in refused.stderr
