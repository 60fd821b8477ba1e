"""What is wrong with this data: one pass over the rows that finds what would spoil training or flatter the evaluation.

`check_dataset` reads every row once and remembers what it learnt, so that a second check costs next to nothing.
`DataCheck.clean` moves rows that cannot be read into the quarantine list; nothing else is removed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core.digests import digest_many
from headstart.core.errors import ShapeError
from headstart.core.progress import Progress
from headstart.data.dataset import Dataset
from headstart.data.duplicates import near_pictures, near_texts
from headstart.data.findings import Finding
from headstart.data.fingerprints import scan_images
from headstart.data.memo import read_scans, write_scans
from headstart.data.splits import joined_units

__all__ = ["DataCheck", "check_dataset"]

Array = np.ndarray[Any, Any]
_PAIRS_VERSION = {"image": b"near-pictures-1:", "text": b"near-texts-1:"}


@dataclass(frozen=True)
class DataCheck:
    """What `check_dataset` found. Row numbers are those of the data set that was checked.

    Parameters
    ----------
    rows : int
        Rows checked.
    classes : dict of str to int
        Readable rows of each class, in model order; empty without classes.
    findings : tuple of Finding
        Everything, with what was already found while opening; errors first.
    unreadable : int64 array
        Rows that cannot be read.
    exact_groups, near_groups : list of tuple of int
        Rows with equal content; rows that are the same to a person (each such group holds at least two different contents).
    duplicate_group : int64 array of shape (rows,)
        Rows in the same exact or near group share a number; every other row has a number of its own.
    crossing : tuple of Finding
        The findings about duplicates on both sides of the split that came with the data.
    leaking_rows : int64 array
        Training and validation rows that are duplicates of test rows.
    """

    rows: int
    classes: dict[str, int]
    findings: tuple[Finding, ...]
    unreadable: Array
    exact_groups: list[tuple[int, ...]]
    near_groups: list[tuple[int, ...]]
    duplicate_group: Array
    crossing: tuple[Finding, ...]
    leaking_rows: Array

    @property
    def kept(self) -> Array:
        """Rows that can be read, ascending: the rows of `clean`."""
        return np.setdiff1d(np.arange(self.rows), self.unreadable)

    def clean(self, dataset: Dataset) -> Dataset:
        """Return the readable rows of the data set that was checked; the others join its quarantine list."""
        if len(dataset) != self.rows:
            raise ShapeError(
                f"DataCheck.clean: the data set has {len(dataset):,} rows but {self.rows:,} were checked; give the same one."
            )
        if not len(self.unreadable):
            return dataset
        gone = {dataset.ids[i] for i in self.unreadable}
        known = set(dataset.quarantine)
        fresh = [
            finding
            for finding in self.findings
            if finding not in known and gone.issuperset(finding.rows) and finding.rows
        ]
        return dataset.subset(self.kept).with_quarantine([finding for finding in fresh if finding.severity == "error"])

    def summary_lines(self, most: int = 12) -> list[str]:
        """Return the check in lines for people: the counts, then at most ``most`` findings, one line for each kind."""
        lines = [f"{self.rows:,} rows"]
        if self.classes:
            small, large = (
                min(self.classes, key=self.classes.__getitem__),
                max(self.classes, key=self.classes.__getitem__),
            )
            lines[0] += (
                f", {len(self.classes):,} classes (smallest {small!r}: {self.classes[small]:,}, "
                f"largest {large!r}: {self.classes[large]:,})"
            )
        exact, near = sum(map(len, self.exact_groups)), sum(map(len, self.near_groups))
        lines.append(
            f"unreadable: {len(self.unreadable):,}; exact duplicates: {exact:,} rows in {len(self.exact_groups):,} groups; "
            f"near-duplicates: {near:,} rows in {len(self.near_groups):,} groups; "
            f"training rows with a duplicate among the test rows: {len(self.leaking_rows):,}"
        )
        kinds: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            kinds.setdefault((finding.severity, finding.kind), []).append(finding)
        for same in list(kinds.values())[:most]:
            more = f" (and {len(same) - 1:,} more of this kind)" if len(same) > 1 else ""
            lines.append(f"{same[0]}{more}")
        if len(kinds) > most:
            lines.append(f"and findings of {len(kinds) - most:,} more kinds")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value."""
        return {
            "rows": self.rows,
            "classes": self.classes,
            "findings": [finding.to_dict() for finding in self.findings],
            "unreadable": self.unreadable.tolist(),
            "exact_groups": [list(group) for group in self.exact_groups],
            "near_groups": [list(group) for group in self.near_groups],
            "leaking_rows": self.leaking_rows.tolist(),
        }


def check_dataset(
    dataset: Dataset, *, near: bool = True, progress: Progress | None = None, threads: int | None = None
) -> DataCheck:
    """Read every row once and say what is wrong.

    Parameters
    ----------
    dataset : Dataset
        Any modality; of vectors only exact duplicates are found.
    near : bool
        Look for near-duplicates as well.
    progress : Progress, optional
        Gets a stage ``"scan"``.
    threads : int, optional
        Decoding threads; the processors at hand when left out.

    Examples
    --------
    >>> from headstart.data.opening import open_dataset
    >>> check = check_dataset(open_dataset(["a b", "c d", "a b"], labels=["x", "y", "y"]))
    >>> check.exact_groups, [finding.kind for finding in check.findings]
    ([(0, 2)], ['single-row-class', 'conflicting-labels', 'exact-duplicates'])
    """
    threads = (
        threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads or os.cpu_count() or 1
    )
    progress = Progress(quiet=True) if progress is None else progress
    with progress.stage("scan", len(dataset)) as stage:
        digests, problems, pairs = _read_rows(dataset, near, threads, stage.advance)
    unreadable = np.array(sorted(problems), np.int64)
    digest_numbers = _numbers_of(digests)
    exact_groups = _groups(digest_numbers, unreadable)
    joined = joined_units(len(dataset), digest_numbers, *_chains(len(dataset), pairs))
    near_groups = [group for group in _groups(joined, unreadable) if len({digest_numbers[row] for row in group}) > 1]
    opened = [*dataset.quarantine, *dataset.notes]
    own = [Finding(kind, "error", (dataset.ids[row],), message) for row, (kind, message) in sorted(problems.items())]
    readable = np.setdiff1d(np.arange(len(dataset)), unreadable)
    counts = _class_counts(dataset, readable)
    own += _class_findings(dataset, counts, readable)
    own += _duplicate_findings(dataset, exact_groups, near_groups)
    crossing, leaking = _leaks(dataset, joined, unreadable)
    order = {"error": 0, "warning": 1, "note": 2}
    findings = sorted([*opened, *own, *crossing], key=lambda finding: order[finding.severity])
    return DataCheck(
        len(dataset), counts, tuple(findings), unreadable, exact_groups, near_groups, joined, tuple(crossing), leaking
    )


def _read_rows(
    dataset: Dataset, near: bool, threads: int, advance: Any
) -> tuple[list[str], dict[int, tuple[str, str]], Array]:
    """Return digests, problems by row, and near-duplicate pairs."""
    pairs = np.zeros((0, 2), np.int64)
    problems: dict[int, tuple[str, str]] = {}
    rows, positions = dataset.content()
    if dataset.modality == "image":
        found = scan_images(rows, positions, threads, advance)
        digests, problems = found.digests, found.problems
        if near:
            pairs = _remembered_pairs(
                "image", digests, problems, lambda at: near_pictures(found.grey_nhw[at], found.sides_n[at])
            )
        return digests, problems, pairs
    digests = dataset.digests(threads)
    for row, digest in enumerate(digests):
        if not digest:
            problems[row] = "missing-file", "the file cannot be opened"
    if dataset.modality == "text":
        texts = ["" if row in problems else str(dataset.read(row)) for row in range(len(dataset))]
        problems |= {
            row: ("empty-text", "the text is blank")
            for row, text in enumerate(texts)
            if not text.strip() and row not in problems
        }
        if near:
            pairs = _remembered_pairs("text", digests, problems, lambda at: near_texts([texts[row] for row in at]))
    advance(len(dataset), 0)
    return digests, problems, pairs


def _remembered_pairs(modality: str, digests: list[str], problems: dict[int, tuple[str, str]], find: Any) -> Array:
    """Return near-duplicate pairs among rows of different content, from the memo where the very same contents were compared."""
    first_of: dict[str, int] = {}
    for row, digest in enumerate(digests):
        if row not in problems:
            first_of.setdefault(digest, row)
    at = np.array([first_of[digest] for digest in sorted(first_of)], np.int64)
    if len(at) < 2:
        return np.zeros((0, 2), np.int64)
    key = _PAIRS_VERSION[modality] + bytes.fromhex(digest_many(sorted(first_of)))
    known = read_scans([key]).get(key)
    if known is not None and len(known) % 8 == 0:
        pairs = np.frombuffer(known, np.uint32).reshape(-1, 2).astype(np.int64)
        if pairs.max(initial=0) < len(at):
            return at[pairs]
    pairs = find(at)
    write_scans({key: pairs.astype(np.uint32).tobytes()})
    result: Array = at[pairs]
    return result


def _numbers_of(digests: Iterable[str]) -> Array:
    """Return one number for each distinct digest; rows without a digest have numbers of their own."""
    numbers: dict[str, int] = {}
    return np.array(
        [numbers.setdefault(digest or f"row {row}", len(numbers)) for row, digest in enumerate(digests)], np.int64
    )


def _chains(num_rows: int, pairs: Array) -> list[Array]:
    """Return a labelling of the rows by which the pairs' rows are joined, if there are pairs."""
    if not len(pairs):
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(num_rows, num_rows))
    return [connected_components(graph, directed=False)[1]]


def _groups(numbers: Array, unreadable: Array) -> list[tuple[int, ...]]:
    """Return the rows of every number that at least two readable rows share, in order of their first rows."""
    rows: dict[int, list[int]] = {}
    gone = set(unreadable.tolist())
    for row, number in enumerate(numbers.tolist()):
        if row not in gone:
            rows.setdefault(number, []).append(row)
    return [tuple(group) for group in rows.values() if len(group) > 1]


def _class_counts(dataset: Dataset, readable: Array) -> dict[str, int]:
    if dataset.task is None or dataset.targets is None or dataset.task.kind == "regression":
        return {}
    targets = dataset.targets[readable]
    counts = (
        targets.sum(0, dtype=np.int64)
        if targets.ndim == 2
        else np.bincount(targets, minlength=len(dataset.task.classes))
    )
    return dict(zip(dataset.task.classes, counts.tolist(), strict=True))


def _class_findings(dataset: Dataset, counts: dict[str, int], readable: Array) -> list[Finding]:
    """Return findings about classes with no row, one row, or no training row."""
    findings = []
    kind = "" if dataset.task is None else dataset.task.kind
    if len([name for name, count in counts.items() if count]) == 1 and kind == "classification":
        findings.append(
            Finding("one-class", "error", (), "all rows belong to one class; there is nothing to tell apart")
        )
    if empty := [name for name, count in counts.items() if count == 0]:
        findings.append(
            Finding("empty-class", "warning", (), f"classes without a readable row: {', '.join(map(repr, empty))}")
        )
    if single := [name for name, count in counts.items() if count == 1]:
        message = f"classes with a single row, which cannot be both learnt and tested: {', '.join(map(repr, single))}"
        findings.append(Finding("single-row-class", "warning", (), message))
    if dataset.given_split is not None and counts and kind == "classification":
        held_out = np.isin(dataset.given_split, ["val", "test"])
        training = _class_counts(dataset, readable[~held_out[readable]])
        if absent := [name for name, count in counts.items() if count and not training[name]]:
            message = f"classes without a training row in the given split: {', '.join(map(repr, absent))}"
            findings.append(Finding("empty-class", "warning", (), message))
    return findings


def _duplicate_findings(dataset: Dataset, exact: list[tuple[int, ...]], near: list[tuple[int, ...]]) -> list[Finding]:
    findings = []
    for kind, what, groups in (
        ("exact-duplicates", "have equal content", exact),
        ("near-duplicates", "are nearly the same", near),
    ):
        if not groups:
            continue
        if dataset.targets is not None and (
            torn := [group for group in groups if _labels_differ(dataset.targets, group)]
        ):
            rows = tuple(dataset.ids[row] for group in torn for row in group)
            message = f"{len(rows):,} rows that {what} carry different labels, in {len(torn):,} groups"
            findings.append(Finding("conflicting-labels", "warning", rows, message))
        rows = tuple(dataset.ids[row] for group in groups for row in group)
        message = f"{len(rows):,} rows {what} as others, in {len(groups):,} groups".replace(
            "content as others", "content"
        )
        findings.append(Finding(kind, "warning", rows, message))
    return findings


def _labels_differ(targets: Array, group: tuple[int, ...]) -> bool:
    labels = targets[list(group)]
    return bool((labels != labels[0]).any())


def _leaks(dataset: Dataset, joined: Array, unreadable: Array) -> tuple[list[Finding], Array]:
    """Return findings about duplicates on both sides of the given split, and the rows outside the test rows that they concern."""
    none = np.zeros(0, np.int64)
    if dataset.given_split is None:
        return [], none
    split = dataset.given_split
    readable = np.ones(len(dataset), bool)
    readable[unreadable] = False
    parts = Counter(split[readable].tolist())
    held_out = "test" if parts["test"] else "val"
    tested = (split == held_out) & readable
    leaking = np.flatnonzero(np.isin(joined, joined[tested]) & ~tested & readable)
    if not len(leaking):
        return [], none
    touched = int(np.isin(joined[tested], joined[leaking]).sum())
    message = (
        f"{touched:,} of {int(tested.sum()):,} {held_out} rows have an exact or near duplicate outside the {held_out} rows, "
        "which flatters the evaluation"
    )
    return [Finding("split-leak", "warning", tuple(dataset.ids[row] for row in leaking), message)], leaking
