"""Reads what is left out of a damaged outbox: every row whose checksum is right, wherever in the file it is.

The pages are read one by one, without the tree that connects them, so that damage in one place costs no row in another.
Free pages are skipped: the rows on them were deleted. Source: SQLite's file format,
https://www.sqlite.org/fileformat2.html, sections 1.3, 1.6 and 1.7 (b-tree pages, cells, overflow), 1.8 (pointer map),
2.1 (records), 4 (the write-ahead log).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from exporter.outbox.chunk import KeyOf, checksum, packed
from exporter.outbox.state_table import state_crc

__all__ = [
    "DAMAGED_ROW",
    "SALVAGED_NOTE",
    "SalvagedLine",
    "SalvagedRow",
    "may_be_written",
    "surviving_refused",
    "surviving_rows",
    "surviving_state",
]

DAMAGED_ROW: Final = "the outbox file was damaged here (the checksum is wrong): not sent"
"""Message of a refused line that may not be what the meter sent. It is stored, and recognised by its text."""
SALVAGED_NOTE: Final = "(read out of a damaged outbox: look at the line before it is sent again)"
"""Added to the message of a refused line, which has no checksum. It is stored, and recognised by its text."""

_PAGE: Final = 4096
_WAL_HEADER, _FRAME_HEADER = 32, 24
_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 0x0D, 0x0A, 0x02
_ROWS: Final = (_TABLE_LEAF,)
_STATE: Final = (_INDEX_LEAF, _INDEX_INTERIOR)
"""Kinds of pages with rows: of a table, and of a table WITHOUT ROWID, where interior pages have rows, too."""
_POINTERS: Final = _PAGE // 5
"""A page of the pointer map describes so many pages after it, with five bytes each; the first such page is page 2."""
_FREE_PAGE: Final = b"\x02\0\0\0\0"
_MOST_BYTES: Final = 64 << 20
"""A record that claims to have more bytes than this, or than the file has, is not one of ours."""

Column: TypeAlias = int | float | bytes | None


class SalvagedRow(NamedTuple):
    """A row of lines, as it was appended."""

    id: int
    enqueued: float
    body: bytes
    keys: bytes | None
    lines: int
    sent: int


class SalvagedLine(NamedTuple):
    """A refused line, when it was refused (seconds since 1970), and why."""

    id: int
    at: float
    line: str
    message: str
    key: str


class _File:
    """A file that is read where it can be read: where the disk gives an error, there are no bytes."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY) if path.exists() else None
        self.size = os.fstat(self._handle).st_size if self._handle is not None else 0

    def read(self, at: int, count: int) -> bytes:
        if self._handle is None:
            return b""
        try:
            return os.pread(self._handle, count, at)
        except OSError:
            return b""

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)


class _Pages:
    """The pages of a file and its log, as SQLite sees them: the last version in the log, else that in the file."""

    def __init__(self, path: Path) -> None:
        self._file, self._log = _File(path), _File(Path(f"{path}-wal"))
        self.most = min(_MOST_BYTES, self._file.size + self._log.size)
        self._in_log = self._logged()

    def _logged(self) -> dict[int, int]:
        """Return where the last committed version of each page begins in the log."""
        salts = self._log.read(8, _WAL_HEADER - 8)[8:16]
        found: dict[int, int] = {}
        uncommitted: dict[int, int] = {}
        for at in range(_WAL_HEADER, self._log.size - _PAGE - _FRAME_HEADER + 1, _PAGE + _FRAME_HEADER):
            head = self._log.read(at, _FRAME_HEADER)
            if not head:
                continue  # cannot be read
            if head[8:16] != salts:
                break  # frames of an older log that were not overwritten yet
            uncommitted[int.from_bytes(head[:4], "big")] = at + _FRAME_HEADER
            if any(head[4:8]):  # the last frame of a transaction
                found |= uncommitted
                uncommitted.clear()
        return found

    def page(self, number: int) -> bytes:
        """Return the bytes of a page, numbered from 1; fewer than a page, or none, where the file ends."""
        at = self._in_log.get(number)
        if at is not None:
            return self._log.read(at, _PAGE)
        return self._file.read((number - 1) * _PAGE, _PAGE) if number > 0 else b""

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of all pages that are not free."""
        in_file = self._file.size // _PAGE + 1
        map_at, pointers = 0, b""
        for number in [*range(1, in_file + 1), *sorted(number for number in self._in_log if number > in_file)]:
            at = (number - 2) // (_POINTERS + 1) * (_POINTERS + 1) + 2
            if at != map_at and number > 1:
                map_at, pointers = at, self.page(at)
            place = 5 * (number - map_at - 1)
            if number > map_at and pointers[place : place + 5] == _FREE_PAGE:
                continue
            yield number

    def close(self) -> None:
        """Close both files."""
        self._file.close()
        self._log.close()


def surviving_rows(path: Path, key_of: KeyOf | None = None) -> Iterator[SalvagedRow]:
    """Yield the rows of lines whose checksum is right, in no order; `path` is a damaged outbox. Raises OSError.

    A row of version 1 or 2 has no column with keys: they are what `key_of` returns for its lines.
    """
    for rowid, columns in _records(path, _ROWS):
        match columns:
            case [None, float() | int() as enqueued, _, int() as sent, int() as crc, bytes() as body, *rest]:
                keys = rest[0] if rest else None
                if len(rest) > 1 or not (keys is None or isinstance(keys, bytes)):
                    continue
                if checksum(body, keys) != crc or not math.isfinite(enqueued):
                    continue
                if not rest and key_of is not None:
                    keys = _keys_of(body, key_of)
                yield SalvagedRow(rowid, float(enqueued), body, keys, body.count(b"\n") + 1, sent)


def _keys_of(body: bytes, key_of: KeyOf) -> bytes | None:
    return packed([(line, key_of(line.decode())) for line in body.split(b"\n")])[1]


def surviving_state(path: Path) -> Iterator[tuple[str, str]]:
    """Yield keys and values of the state whose checksum is right. Raises OSError."""
    for _, columns in _records(path, _STATE):
        match columns:
            case [bytes() as key, bytes() as value, int() as crc] if state_crc(key, value) == crc:
                yield key.decode(), value.decode()


def surviving_refused(path: Path, key_of: KeyOf | None = None) -> Iterator[SalvagedLine]:
    """Yield the refused lines. They have no checksum: what is not text, or not one line, is left out. Raises OSError.

    A refused line of version 1 or 2 has no column with a key: it is what `key_of` returns.
    """
    for rowid, columns in _records(path, _ROWS):
        match columns:
            case [None, float() | int() as at, bytes() as line, bytes() as words, *rest]:
                try:
                    text, key = line.decode(), _key_of(line.decode(), rest, key_of)
                    refused = SalvagedLine(rowid, float(at), text, words.decode(), key)
                except ValueError:
                    continue
                if math.isfinite(at) and text and "\n" not in text and "\0" not in text:
                    yield refused


def _key_of(line: str, rest: Sequence[Column], key_of: KeyOf | None) -> str:
    """Return the key of a refused line from the columns after its message. Raises ValueError when it has none."""
    match rest:
        case []:
            return "" if key_of is None else key_of(line)
        case [bytes() as key]:
            return key.decode()
    raise ValueError("it is another kind of row")


def may_be_written(path: Path) -> bool:
    """Return whether SQLite can write to a file with such a header (section 1.3.3). Raises OSError."""
    with closing(_Pages(path)) as pages:
        return pages.page(1)[18:19] in (b"", b"\x01", b"\x02")


def _records(path: Path, kinds: tuple[int, ...]) -> Iterator[tuple[int, list[Column]]]:
    """Yield row id (0 in an index) and columns of everything that looks like a record on pages of these kinds."""
    with closing(_Pages(path)) as pages:
        for number in pages.numbers():
            page = pages.page(number)
            start = 100 if number == 1 else 0
            if len(page) < _PAGE or page[start] not in kinds:
                continue
            kind = page[start]
            for cell in _cells(page, start, kind):
                try:
                    yield _record(pages, page, cell, kind)
                except (IndexError, ValueError, struct.error):
                    continue  # this one is damaged; the next ones may be sound


def _cells(page: bytes, start: int, kind: int) -> Iterator[int]:
    """Yield where the records of a page begin. A damaged count gives no more of them than a page can have."""
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    # An interior page has four more bytes in its header, and before each record: the number of another page.
    more = 4 if kind == _INDEX_INTERIOR else 0
    for at in range(start + 8 + more, min(start + 8 + more + 2 * count, _PAGE - 1), 2):
        yield int.from_bytes(page[at : at + 2], "big") + more


def _record(pages: _Pages, page: bytes, at: int, kind: int) -> tuple[int, list[Column]]:
    size, at = _varint(page, at)
    rowid = 0
    if kind == _TABLE_LEAF:
        rowid, at = _varint(page, at)
    if not 0 < size <= pages.most:
        raise ValueError("no record is so large")
    return rowid, _columns(_payload(pages, page, at, size, kind))


def _payload(pages: _Pages, page: bytes, at: int, size: int, kind: int) -> bytes:
    """Return the bytes of a record: what fits is on the page, the rest is in a chain of overflow pages."""
    most = _PAGE - 35 if kind == _TABLE_LEAF else (_PAGE - 12) * 64 // 255 - 23
    if size <= most:
        return page[at : at + size]
    least = (_PAGE - 12) * 32 // 255 - 23
    here = least + (size - least) % (_PAGE - 4)
    if here > most:
        here = least
    parts, left = [page[at : at + here]], size - here
    following = int.from_bytes(page[at + here : at + here + 4], "big")
    while left > 0:  # `left` gets smaller with every page, so a chain in a circle ends, too
        overflow = pages.page(following)
        if len(overflow) < _PAGE:
            raise ValueError("the chain leaves the file")
        parts.append(overflow[4 : 4 + left])
        left -= _PAGE - 4
        following = int.from_bytes(overflow[:4], "big")
    return b"".join(parts)


def _columns(record: bytes) -> list[Column]:
    size, at = _varint(record, 0)
    kinds = []
    while at < size:
        kind, at = _varint(record, at)
        kinds.append(kind)
    columns: list[Column] = []
    for kind in kinds:
        column, at = _column(record, at, kind)
        columns.append(column)
    return columns


def _column(record: bytes, at: int, kind: int) -> tuple[Column, int]:
    """Return one value, by its serial type (section 2.1), and where it ends. Text is returned as bytes."""
    if kind == 0:
        return None, at
    if kind == 7:
        return float(struct.unpack_from(">d", record, at)[0]), at + 8
    if kind in (8, 9):
        return kind - 8, at
    length = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}.get(kind, 0) if kind < 12 else (kind - 12) // 2
    part = record[at : at + length]
    if len(part) != length or kind in (10, 11):
        raise ValueError("the record ends too early")
    return (int.from_bytes(part, "big", signed=True) if kind < 12 else part), at + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of 1 to 9 bytes, most significant first, and where it ends."""
    value = 0
    for place in range(8):
        byte = data[at + place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + place + 1
    return value << 8 | data[at + 8], at + 9
