"""Tables of any kind behind one small face: column names, and the values of one column as a list.

CSV and TSV are read in UTF-8, with or without byte-order mark, or UTF-16; lines that are no UTF-8 are read as
Windows-1252 and counted. The separator of a CSV is the one of ``, ; tab |`` that splits the header most. Only the
columns asked for are kept, so that ten thousand others cost little. Parquet is read with pyarrow, JSON Lines with one
object a line.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from headstart.core.errors import DataError
from headstart.data.findings import Finding

__all__ = ["TABLE_SUFFIXES", "FrameTable", "JsonTable", "ParquetTable", "Table", "TextTable", "open_table"]

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".pq"})
"""File name endings of the tables that can be opened."""

_SAMPLE = 1000


class Table(Protocol):
    """Columns by name. ``row_numbers`` counts from 1; rows that could not be read are missing from it."""

    root: str
    folder: Path
    names: list[str]
    findings: list[Finding]

    @property
    def row_numbers(self) -> Sequence[int]: ...

    def sample(self, name: str) -> list[Any]: ...

    def columns(self, names: Sequence[str]) -> list[list[Any]]: ...


def open_table(path: Path) -> Table:
    """Open a table file by its ending.

    Raises
    ------
    DataError
        If the ending is unknown or the file is damaged.
    """
    suffix = path.suffix.lower()
    if suffix in {".parquet", ".pq"}:
        return ParquetTable(path)
    content = path.read_bytes()
    if not content.strip(b"\0 \r\n\t\xef\xbb\xbf\xff\xfe"):
        raise DataError(f"open_dataset: {path} is empty; give a table with a header line and rows.")
    text, findings = _decode_text(content)
    if suffix in {".jsonl", ".ndjson"}:
        return JsonTable(path, text, findings)
    return TextTable(path, text, findings, "\t" if suffix in {".tsv", ".tab"} else None)


def _decode_text(content: bytes) -> tuple[str, list[Finding]]:
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return content.decode("utf-16", errors="replace"), []
    head = content[:1000]
    if head.count(0) > len(head) // 4:
        return content.decode("utf-16-le" if head[1:2] == b"\0" else "utf-16-be", errors="replace"), []
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        pass
    lines, odd = [], []
    for count, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True), start=1):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError:
            odd.append(f"line {count}")
            lines.append(_decode_western(line))
    message = f"{len(odd):,} of {len(lines):,} lines are no UTF-8 and were read as Windows-1252; save the file as UTF-8"
    return "".join(lines), [Finding("encoding", "warning", tuple(odd), message)]


def _decode_western(line: bytes) -> str:
    try:
        return line.decode("cp1252")
    except UnicodeDecodeError:
        return line.decode("latin-1")


class TextTable:
    """CSV or TSV. Every value is a text; rows with too many or too few fields are left out and told."""

    def __init__(self, path: Path, text: str, findings: list[Finding], separator: str | None) -> None:
        self.root, self.folder = str(path), path.parent
        self.findings = findings
        self._text = text
        first_line = text.lstrip("\r\n").split("\n", 1)[0]
        self._separator = separator or max(",;\t|", key=lambda mark: (first_line.count(mark), mark == ","))
        self._quoting = _quoting(text, self._separator)
        csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
        self.names = self._header()
        self._place = {name: place for place, name in enumerate(self.names)}
        self._row_numbers: list[int] | None = None
        self._sample: list[list[str]] | None = None

    def _header(self) -> list[str]:
        header = next(self._records(), [])
        names: dict[str, None] = {}
        for position, name in enumerate(header):
            plain = name or f"column {position + 1}"
            if plain in names:
                self.findings.append(
                    Finding("column-name", "warning", (), f"two columns are named {plain!r}; the first is used")
                )
                plain = f"{plain} (column {position + 1})"
            names[plain] = None
        return list(names)

    def _records(self) -> Iterator[list[str]]:
        reader = csv.reader(io.StringIO(self._text, newline=""), delimiter=self._separator, quoting=self._quoting)
        try:
            yield from (record for record in reader if record)
        except csv.Error as error:
            raise DataError(f"open_dataset: {self.root}, line {reader.line_num}: {error}; correct the line.") from None

    @property
    def row_numbers(self) -> Sequence[int]:
        if self._row_numbers is None:
            self.columns([])
        return self._row_numbers or []

    def sample(self, name: str) -> list[Any]:
        if self._sample is None:
            width = len(self.names)
            rows = itertools.islice(self._records(), 1, _SAMPLE + 1)
            self._sample = [list(column) for column in zip(*(row for row in rows if len(row) == width), strict=True)]
        return self._sample[self._place[name]] if self._sample else []

    def columns(self, names: Sequence[str]) -> list[list[Any]]:
        width, places = len(self.names), [self._place[name] for name in names]
        kept: list[list[Any]] = [[] for _ in places]
        numbers, ragged = [], []
        for row_number, record in enumerate(itertools.islice(self._records(), 1, None), start=1):
            if len(record) != width:
                ragged.append(f"row {row_number}")
                continue
            numbers.append(row_number)
            for values, place in zip(kept, places, strict=True):
                values.append(record[place])
        if ragged and self._row_numbers is None:
            message = f"{len(ragged):,} rows do not have {width:,} fields as the header has; left out"
            self.findings.append(Finding("ragged-row", "error", tuple(ragged), message))
        self._row_numbers = numbers
        return kept


def _quoting(text: str, separator: str) -> Any:
    """Return QUOTE_NONE for a tab-separated file in which quote marks are plainly characters of the text."""
    if separator != "\t" or '"' not in text:
        return csv.QUOTE_MINIMAL
    lines = [line for line in text.splitlines() if line]
    regular = len({line.count("\t") for line in lines}) == 1
    return csv.QUOTE_NONE if regular and any(line.count('"') % 2 for line in lines) else csv.QUOTE_MINIMAL


class JsonTable:
    """JSON Lines: one object a line; keys that a line lacks are missing values."""

    def __init__(self, path: Path, text: str, findings: list[Finding]) -> None:
        self.root, self.folder = str(path), path.parent
        self.findings = findings
        self._rows: list[dict[str, Any]] = []
        self._numbers: list[int] = []
        names: dict[str, None] = {}
        damaged = []
        for count, line in enumerate((line for line in text.split("\n") if line.strip()), start=1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                damaged.append(f"row {count}")
                continue
            self._rows.append(row)
            self._numbers.append(count)
            names.update(dict.fromkeys(row))
        if damaged:
            message = f"{len(damaged):,} lines are no JSON object; left out"
            findings.append(Finding("ragged-row", "error", tuple(damaged), message))
        if not self._rows:
            raise DataError(f"open_dataset: {path} holds no JSON object; write one object on each line.")
        self.names = list(names)

    @property
    def row_numbers(self) -> Sequence[int]:
        return self._numbers

    def sample(self, name: str) -> list[Any]:
        return [row.get(name) for row in self._rows[:_SAMPLE]]

    def columns(self, names: Sequence[str]) -> list[list[Any]]:
        return [[row.get(name) for row in self._rows] for name in names]


class ParquetTable:
    """Parquet, read by pyarrow a column at a time."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet

        self.root, self.folder = str(path), path.parent
        self.findings: list[Finding] = []
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except (OSError, ValueError) as error:
            raise DataError(f"open_dataset: {path} is no Parquet file, or damaged: {error}") from None
        self.names: list[str] = [str(name) for name in self._file.schema_arrow.names]
        self._sample: Any = None

    @property
    def row_numbers(self) -> Sequence[int]:
        return range(1, self._file.metadata.num_rows + 1)

    def sample(self, name: str) -> list[Any]:
        if self._sample is None:
            batches = self._file.iter_batches(_SAMPLE)
            self._sample = next(batches, None)
        values: list[Any] = [] if self._sample is None else self._sample.column(name).to_pylist()
        return values

    def columns(self, names: Sequence[str]) -> list[list[Any]]:
        table = self._file.read(columns=list(names))
        return [table.column(name).to_pylist() for name in names]


class FrameTable:
    """A pandas DataFrame; rows are numbered from 1 in its order, whatever its index."""

    def __init__(self, frame: Any) -> None:
        self.root, self.folder = "DataFrame", Path()
        self.findings: list[Finding] = []
        self._frame = frame
        self.names = [str(name) for name in frame.columns]
        self._place = {name: place for place, name in enumerate(self.names)}
        if len(self._place) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise DataError(f"open_dataset: two columns of the DataFrame are named {twice!r}; rename one.")

    @property
    def row_numbers(self) -> Sequence[int]:
        return range(1, len(self._frame) + 1)

    def sample(self, name: str) -> list[Any]:
        values: list[Any] = self._frame.iloc[:_SAMPLE, self._place[name]].tolist()
        return values

    def columns(self, names: Sequence[str]) -> list[list[Any]]:
        return [self._frame.iloc[:, self._place[name]].tolist() for name in names]
