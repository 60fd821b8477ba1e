"""A folder of files to rows: which files there are, and what the names of their folders mean.

Layouts, tried in this order (the choice is a note of the data set):

* ``train/<class>/...`` with ``val``/``test`` beside it (also ``valid``, ``validation``, ``dev``, ``training``,
  ``testing``);
* ``<domain>/<class>/...`` where at least two first-level folders hold (mostly) the same class folders;
* ``<class>/...``, whatever lies below counts for the class.

A single folder around all of that is passed through.

Images, or text files (``.txt``) where there is no image. Hidden files and files of other kinds are left out and
counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from headstart.core.errors import DataError
from headstart.core.tasks import Modality
from headstart.data.findings import Finding, row_list

__all__ = ["IMAGE_SUFFIXES", "SPLIT_NAMES", "FolderRows", "Listing", "list_folder", "read_layout"]

IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".webp",
        ".avif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tga",
        ".jp2",
    ]
)
"""File name endings taken for images, in any case; what a file really holds is seen when it is decoded."""

SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test", "held_out": "test", "holdout": "test",
}  # fmt: skip
"""Names that mean a part of the data, and which."""


@dataclass
class Listing:
    """Everything found under a folder: files by their relative parts, empty folders, and what was left out."""

    root: str
    images: list[tuple[str, ...]] = field(default_factory=list)
    texts: list[tuple[str, ...]] = field(default_factory=list)
    folders: list[tuple[str, ...]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass
class FolderRows:
    """Files with what their folders say: class, given split and domain, each ``""`` where there is none."""

    modality: Modality
    files: list[tuple[str, ...]]
    classes: list[str]
    splits: list[str]
    domains: list[str]
    quarantine: list[Finding]
    notes: list[Finding]


def list_folder(root: str) -> Listing:
    """List a folder in an order that does not depend on the machine, following links but never in a circle."""
    listing = Listing(root)
    for parts, kind in _walk(root, (), (os.path.realpath(root),), listing):
        (listing.images if kind == "image" else listing.texts).append(parts)
    return listing


def _walk(
    folder: str, parts: tuple[str, ...], trail: tuple[str, ...], listing: Listing
) -> Iterator[tuple[tuple[str, ...], str]]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        listing.findings.append(_unreachable(parts, error))
        return
    for entry in found:
        here = (*parts, entry.name)
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            listing.left_out["hidden"] += 1
            continue
        try:
            if entry.is_dir():
                if not entry.is_symlink():
                    inner = (*trail, entry.path)
                elif (real := os.path.realpath(entry.path)) in {os.path.realpath(step) for step in trail}:
                    listing.findings.append(
                        Finding(
                            "symlink-loop",
                            "warning",
                            ("/".join(here),),
                            "the link leads back to a folder above it; not followed",
                        )
                    )
                    continue
                else:
                    inner = (*trail, real)
                listing.folders.append(here)
                yield from _walk(entry.path, here, inner, listing)
                continue
            entry.stat()
        except OSError as error:
            listing.findings.append(_unreachable(here, error))
            continue
        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - names, not paths
        if suffix in IMAGE_SUFFIXES or (not suffix and _looks_like_image(entry.path)):
            yield here, "image"
        elif suffix == ".txt":
            yield here, "text"
        else:
            listing.left_out[suffix or "no ending"] += 1


def _looks_like_image(path: str) -> bool:
    """Return whether a file without an ending begins like a common image format."""
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - called for every such file
            head = stream.read(12)
    except OSError:
        return False
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
    return head.startswith(starts) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def _unreachable(parts: tuple[str, ...], error: OSError) -> Finding:
    row = "/".join(parts) or "."
    if isinstance(error, PermissionError):
        return Finding("permission", "error", (row,), f"cannot be opened: {error.strerror}; give read permission")
    if error.errno == 40 or "symbolic links" in str(error):
        return Finding("symlink-loop", "error", (row,), "the link leads back to itself")
    return Finding("missing-file", "error", (row,), f"cannot be opened: {error.strerror or error}")


def read_layout(listing: Listing, unlabelled: bool) -> FolderRows:
    """Decide what the folders' names mean.

    Raises
    ------
    DataError
        If there is no image and no text file, or labels are wanted and no folder names a class.
    """
    modality: Modality = "image" if listing.images else "text"
    files = listing.images or listing.texts
    notes = [_left_out(listing, modality)] if listing.left_out or (listing.images and listing.texts) else []
    if not files:
        reasons = "".join(f" {finding.message} ({row_list(finding.rows)})." for finding in listing.findings[:3])
        raise DataError(
            f"open_dataset: no image (and no .txt file) in {listing.root}; "
            f"give a folder with one folder of images for each class.{reasons}"
        )
    if unlabelled:
        blank = [""] * len(files)
        return FolderRows(modality, files, blank, _splits_of(files), blank, list(listing.findings), notes)
    lead = _wrapper(files)
    if lead:
        notes.append(
            Finding("layout", "note", (), f"all files lie in {'/'.join(lead)}; class folders are looked for there")
        )
        listing.folders = [
            folder[len(lead) :] for folder in listing.folders if len(folder) > len(lead) and folder[: len(lead)] == lead
        ]
        files = [file[len(lead) :] for file in files]
    if (parts := _split_layout(files)) is not None:
        depth, splits = 1, parts
        left = Counter(file[0] for file in files if file[0] not in parts)
        notes += [
            Finding("left-out", "note", (), f"{name}: {count:,} files left out, beside {', '.join(parts)}")
            for name, count in left.items()
        ]
        files = [file for file in files if file[0] in parts]
    elif _domain_layout(files):
        depth, splits = 1, {}
        names = sorted({file[0] for file in files})
        notes.append(Finding("layout", "note", (), f"first-level folders taken for domains: {row_list(names, 8)}"))
    else:
        depth, splits = 0, {}
    rows = _labelled(listing, modality, files, depth, splits, notes)
    rows.files = [lead + file for file in rows.files]
    return rows


def _wrapper(files: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the folders that lie around all files, as long as at least two folders lie inside."""
    lead: tuple[str, ...] = ()
    while len(files[0]) > len(lead) + 2 and len({file[: len(lead) + 1] for file in files}) == 1:
        lead = files[0][: len(lead) + 1]
    inside = {file[len(lead)] for file in files if len(file) > len(lead) + 1}
    return lead if len(inside) >= 2 else ()


def _labelled(
    listing: Listing,
    modality: Modality,
    files: list[tuple[str, ...]],
    depth: int,
    splits: dict[str, str],
    notes: list[Finding],
) -> FolderRows:
    """Take the folder at ``depth`` for the class; files above it are left out, class folders without files are told."""
    quarantine = list(listing.findings)
    if loose := ["/".join(file) for file in files if len(file) < depth + 2]:
        if len(loose) == len(files):
            raise DataError(
                f"open_dataset: {listing.root} holds {len(files):,} files but no class folders; put each class into "
                "a folder of its own, give a table with a label column, or (to predict) give unlabelled=True."
            )
        quarantine.append(
            Finding("no-class", "error", tuple(loose), f"{len(loose):,} files lie outside any class folder")
        )
        files = [file for file in files if len(file) >= depth + 2]
    filled = {file[: depth + 1] for file in files}
    unread = {tuple(row.split("/"))[: depth + 1] for finding in listing.findings for row in finding.rows}
    for folder in listing.folders:
        inside = depth == 0 or folder[0] in {file[0] for file in filled}
        if len(folder) == depth + 1 and inside and folder not in filled and folder not in unread:
            quarantine.append(
                Finding(
                    "empty-class",
                    "warning",
                    ("/".join(folder),),
                    "the class folder holds no rows; no class is made of it",
                )
            )
    return FolderRows(
        modality,
        files,
        [file[depth] for file in files],
        [splits.get(file[0], "") for file in files],
        [file[0] if depth and not splits else "" for file in files],
        quarantine,
        notes,
    )


def _left_out(listing: Listing, modality: Modality) -> Finding:
    counts = dict(listing.left_out)
    if modality == "image" and listing.texts:
        counts[".txt"] = len(listing.texts)
    told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1])[:6])
    return Finding("left-out", "note", (), f"files that are no {modality} rows, left out: {told}")


def _split_layout(files: list[tuple[str, ...]]) -> dict[str, str] | None:
    """Return first-level folder to part of the data, or None where the first level does not mean that."""
    deep = {file[0] for file in files if len(file) >= 3}
    named = {name: SPLIT_NAMES[name.lower()] for name in sorted(deep) if name.lower() in SPLIT_NAMES}
    if "train" in named.values() and (len(named) >= 2 or len(named) == len(deep)):
        return named
    return named if len(named) >= 2 and len(named) == len(deep) else None


def _splits_of(files: list[tuple[str, ...]]) -> list[str]:
    parts = _split_layout(files) or {}
    return [parts.get(file[0], "") for file in files]


def _domain_layout(files: list[tuple[str, ...]]) -> bool:
    """Return whether two or more first-level folders share most of their second level, and all files lie below it."""
    if any(len(file) < 3 for file in files):
        return False
    inner: dict[str, set[str]] = {}
    for file in files:
        inner.setdefault(file[0], set()).add(file[1])
    if len(inner) < 2:
        return False
    shared, union = set.intersection(*inner.values()), set.union(*inner.values())
    return len(shared) >= 2 and 2 * len(shared) >= len(union)
