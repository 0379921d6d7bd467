"""What can be read out of a damaged outbox: every row whose checksum is right, wherever in the file it lies.

The pages are looked at one by one, without the tree that holds them together, so that a hole in one place costs no
row in another. Source: SQLite's file format, https://www.sqlite.org/fileformat2.html, sections 1.3 (header), 1.5 and
1.6 (b-tree pages, cells, overflow), 2.1 (records), 4 (the write-ahead log).
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

__all__ = ["Row", "state_crc", "surviving_rows", "surviving_state"]

_PAGE: Final = 4096
_WAL_HEADER, _FRAME_HEADER = 32, 24
_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 0x0D, 0x0A, 0x02
_ROWS: Final = (_TABLE_LEAF,)
_STATE: Final = (_INDEX_LEAF, _INDEX_INTERIOR)
"""Kinds of pages that hold rows, of a table, and of one WITHOUT ROWID: there they stand between the leaves, too."""
_MOST_OCTETS: Final = 64 << 20
"""A payload that claims more than this, or than there is, is no row of ours."""

Column: TypeAlias = int | float | bytes | None


class Row(NamedTuple):
    """A row of lines, as it was appended."""

    id: int
    enqueued: float
    body: bytes
    lines: int
    sent: int


class _Pages:
    """The pages of a file and its log, as SQLite would see them: a page's last version in the log, else the file's."""

    def __init__(self, file: mmap.mmap | bytes, log: mmap.mmap | bytes) -> None:
        self._file, self._log = file, log
        self.most = min(_MOST_OCTETS, len(file) + len(log))
        self._in_log: dict[int, int] = {}
        salts = bytes(log[_WAL_HEADER + 8 : _WAL_HEADER + 16])
        for at in range(_WAL_HEADER, len(log) - _PAGE - _FRAME_HEADER + 1, _PAGE + _FRAME_HEADER):
            if log[at + 8 : at + 16] != salts:
                break  # frames of an older log, that were not written over yet
            self._in_log[int.from_bytes(log[at : at + 4], "big")] = at + _FRAME_HEADER

    def page(self, number: int) -> bytes:
        """A page's octets, numbered from 1; fewer than a page, or none, where the file ends."""
        at = self._in_log.get(number)
        if at is not None:
            return bytes(self._log[at : at + _PAGE])
        return bytes(self._file[(number - 1) * _PAGE : number * _PAGE]) if number > 0 else b""

    def numbers(self) -> Iterator[int]:
        """The numbers of the pages that there are."""
        in_file = len(self._file) // _PAGE + 1
        yield from range(1, in_file + 1)
        yield from (number for number in sorted(self._in_log) if number > in_file)


def surviving_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of lines whose checksum is right, in no order; `path` is a damaged outbox. Raises OSError."""
    for rowid, columns in _records(path, _ROWS):
        match columns:
            case [None, float() | int() as enqueued, _, int() as sent, int() as crc, bytes() as body]:
                if zlib.crc32(body) == crc:
                    yield Row(rowid, float(enqueued), body, body.count(b"\n") + 1, sent)


def surviving_state(path: Path) -> Iterator[tuple[str, str]]:
    """Yield keys and values of the state whose checksum is right. Raises OSError."""
    for _, columns in _records(path, _STATE):
        match columns:
            case [bytes() as key, bytes() as value, int() as crc] if state_crc(key, value) == crc:
                yield key.decode(), value.decode()


def state_crc(key: bytes, value: bytes) -> int:
    """The checksum that is kept with a value of the state."""
    return zlib.crc32(value, zlib.crc32(key + b"\0"))


def _records(path: Path, kinds: tuple[int, ...]) -> Iterator[tuple[int, list[Column]]]:
    """Yield row id (0 in an index) and columns of everything that looks like a record on pages of these kinds."""
    with ExitStack() as opened:
        pages = _Pages(_mapped(path, opened), _mapped(Path(f"{path}-wal"), opened))
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
                    continue  # damaged here; its neighbours may be whole


def _mapped(path: Path, opened: ExitStack) -> mmap.mmap | bytes:
    if not path.exists() or not path.stat().st_size:
        return b""
    file = opened.enter_context(path.open("rb"))
    return opened.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _cells(page: bytes, start: int, kind: int) -> Iterator[int]:
    """Where the records of a page begin; a count that was damaged gives no more than a page can hold."""
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    # An interior page has four octets more in its head, and before each record: the number of another page.
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
    """A record's octets: on the page as far as there is room, the rest in a chain of overflow pages."""
    most = _PAGE - 35 if kind == _TABLE_LEAF else (_PAGE - 12) * 64 // 255 - 23
    if size <= most:
        return page[at : at + size]
    least = (_PAGE - 12) * 32 // 255 - 23
    here = least + (size - least) % (_PAGE - 4)
    if here > most:
        here = least
    parts, left = [page[at : at + here]], size - here
    following = int.from_bytes(page[at + here : at + here + 4], "big")
    while left > 0:  # `left` falls with every page, so a chain that runs in a circle ends, too
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
    """One value by its serial type (section 2.1); text is given as its octets."""
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


def _varint(octets: bytes, at: int) -> tuple[int, int]:
    """A number of 1 to 9 octets, most significant first, and where it ends."""
    value = 0
    for place in range(8):
        octet = octets[at + place]
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            return value, at + place + 1
    return value << 8 | octets[at + 8], at + 9
