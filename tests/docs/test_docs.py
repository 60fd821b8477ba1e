"""The documentation: every snippet runs, every link leads somewhere, and the README's tree is the real one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.golden
def test_every_snippet_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "build.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "guide.md: 16 snippets ran" in done.stdout
    assert "extending.md: 6 snippets ran" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_tree_in_the_readme_names_every_package_and_no_other() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^      (\w+)/ ", text, re.MULTILINE))
    real = {path.parent.name for path in (ROOT / "src" / "headstart").glob("*/__init__.py")}
    assert named == real


def test_the_floors_in_the_design_name_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in (ROOT / "src" / "headstart").glob("*/__init__.py"):
        assert re.search(rf"\b{path.parent.name}\b", text), path.parent.name


def test_an_objective_is_one_file_of_under_forty_lines() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python file=mean_gap.py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert "class MeanGap(Objective)" in code and len(code.splitlines()) < 40
