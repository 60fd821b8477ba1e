"""Run every Python snippet of the documentation, then write the pages as HTML.

    make docs        or        python docs/build.py [--check]

A snippet is a fenced ``python`` block; those of one page share a namespace and run in order, in an empty folder. A block whose
fence says ``python no-run`` is shown only; one that says ``python file=NAME.py`` becomes a file of that folder, which later ones
import. With ``--check`` nothing is written.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import io
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```python(?P<flags>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """Return every page: the README and the Markdown files of this folder."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def snippets(page: Path) -> list[tuple[int, str, str]]:
    """Return (line number, code, file it becomes or nothing) of every snippet of a page that is to be run."""
    text = page.read_text(encoding="utf-8")
    return [
        (text[: match.start()].count("\n") + 2, match["code"], match["flags"].partition("file=")[2].strip())
        for match in FENCE.finditer(text)
        if "no-run" not in match["flags"]
    ]


def run_page(page: Path) -> int:
    """Run a page's snippets in an empty folder and return how many there were; an exception names page and line."""
    found = snippets(page)
    here = Path.cwd()
    names: dict[str, object] = {"__name__": "__snippet__"}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.path.insert(0, folder)
        try:
            for line, code, file in found:
                if file:
                    Path(file).write_text(code, encoding="utf-8")
                    continue
                try:
                    with contextlib.redirect_stdout(io.StringIO()):
                        exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)
                except Exception as error:
                    raise RuntimeError(f"{page.relative_to(ROOT)}:{line}: {type(error).__name__}: {error}") from error
        finally:
            sys.path.remove(folder)
            os.chdir(here)
    return len(found)


def write_page(page: Path, folder: Path) -> Path:
    """Write a page as HTML."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(page.read_text(encoding="utf-8"))
    body = re.sub(r'href="(?:docs/)?([\w-]+)\.md(#[^"]*)?"', r'href="\1.html\2"', body)
    title = html.escape(page.stem)
    style = "body{max-width:46rem;margin:2rem auto;padding:0 1rem;font:1rem/1.55 system-ui;color-scheme:light dark}"
    style += "pre{overflow-x:auto;padding:.8rem;border:1px solid #8885}"
    style += "td,th{padding:.2rem .6rem;text-align:left}img{max-width:100%}"
    target = folder / f"{page.stem}.html"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    target.write_text(
        f"<!doctype html><html lang=en><head>{head}<style>{style}</style></head><body>{body}</body></html>"
    )
    return target


def main() -> None:
    """Run, then write."""
    parser = argparse.ArgumentParser(description="Run and build the documentation.")
    parser.add_argument("--check", action="store_true", help="run the snippets, write nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    arguments = parser.parse_args()
    for page in pages():
        print(f"{page.relative_to(ROOT)}: {run_page(page)} snippets ran")
    if not arguments.check:
        arguments.out.mkdir(exist_ok=True)
        for page in pages():
            write_page(page, arguments.out)
        print(f"pages in {arguments.out}")


if __name__ == "__main__":
    main()
