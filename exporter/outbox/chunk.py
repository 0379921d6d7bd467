"""How lines and their keys are stored: one row of the table `chunk` holds the lines of one append.

A key names the point that a line is a version of. Of two lines with the same key the later one replaces the earlier
one, so they must arrive in their order. Most lines have no key. Neither a line nor a key contains "\\n".
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

__all__ = ["KeyOf", "Line", "checksum", "keys_in", "lines_in", "packed"]

Line: TypeAlias = tuple[bytes, str]
"""A line, and its key or ""."""
KeyOf: TypeAlias = Callable[[str], str]
"""Returns the key of a line. It is asked about lines in files of versions 1 and 2, which stored no keys."""


def lines_in(rows: Iterable[tuple[bytes, str]]) -> Iterator[Line]:
    """Yield every line of rows whose body is one line or several, with "\\n" between them."""
    for body, key in rows:
        for line in body.split(b"\n"):
            yield line, key


def packed(lines: Sequence[Line]) -> tuple[bytes, bytes | None]:
    """Return the columns `body` and `keys` for these lines; `keys` is None when no line has a key."""
    keys = "\n".join(key for _, key in lines).encode() if any(key for _, key in lines) else None
    return b"\n".join(line for line, _ in lines), keys


def keys_in(keys: bytes | None, lines: int) -> tuple[str, ...]:
    """Return the key of each line, from the column `keys` of a row with so many lines."""
    return ("",) * lines if keys is None else tuple(keys.decode().split("\n"))


def checksum(body: bytes, keys: bytes | None) -> int:
    """Return the CRC-32 of a row. Without keys it is that of the body, as in versions 1 and 2."""
    crc = zlib.crc32(body)
    return crc if keys is None else zlib.crc32(keys, zlib.crc32(b"\0", crc))
