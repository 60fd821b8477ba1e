"""What every page owes: it stands alone, is well formed, can be read by everybody, and believes nothing that data say."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

__all__ = ["EVIL", "Page", "check_accessible", "check_stands_alone"]

VOID = {"meta", "img", "br", "link", "input", "hr", "path", "circle", "use", "rect", "line"}
EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style><svg onload=alert(1)>",
    "$\\frac{1}{2}$ & <b>",
    "{{ 7 * 1111 }}{% raw %}",
    "' onmouseover='alert(1)",
    "]]>--><!--",
    "犬 🐶 \u202e rtl",
]


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, in order; remembers elements and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"style"}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def check_stands_alone(html: str) -> Page:
    page = Page(html)
    names = Counter(name for name, _ in page.elements)
    for forbidden in ("script", "iframe", "object", "embed", "link", "form", "base"):
        assert names[forbidden] == 0
    for name, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on")], attributes
        for key in ("src", "href", "xlink:href", "srcset", "action"):
            address = attributes.get(key)
            assert address is None or address.startswith(("#", "data:image/")), (name, address)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    policy = [a for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "nan" not in re.findall(r"[a-z]+", page.text.lower())
    return page


def check_accessible(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    for _, attributes in page.elements:
        for key in ("aria-labelledby", "aria-describedby"):
            assert set((attributes.get(key) or "").split()) <= set(ids)
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in ids  # type: ignore[index]
        if "url(#" in (attributes.get("clip-path") or ""):
            assert attributes["clip-path"][5:-1] in ids  # type: ignore[index]
    assert all(image.get("alt") for image in page.all("img"))
    assert all(header.get("scope") in {"row", "col"} for header in page.all("th"))
    for svg in page.all("svg"):
        assert svg.get("aria-hidden") == "true" or svg.get("role") == "img"
    for region in page.all("div"):
        if region.get("role") == "region":
            assert region.get("aria-label")
            assert region.get("tabindex") == "0"
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h[1-6]", name)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
