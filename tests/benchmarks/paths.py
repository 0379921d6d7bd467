"""Bytes of raw frames to line protocol by the product's pipeline: the quick way, and the slow way that defines it.

`python -m tests.benchmarks.paths FILE [slow]` goes one of them in a process that does nothing else, to be counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from exporter.config import Settings
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.pipeline import Fed, NoState, Pipeline, Purpose
from exporter.sources.capture.reader import BLOCK
from exporter.sources.contract import Chunk

SETTINGS: Final = Settings(main_fuse_a=32)
"""With a fuse, so that its load is derived too."""

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
"""When the first byte is received, where bytes have a time."""

Way: TypeAlias = Callable[[Iterable[Chunk]], Iterator[str]]
"""The chunks of a stream -> the text that each of them gives."""


def slowly(chunks: Iterable[Chunk]) -> Iterator[str]:
    """The values of each frame, read value by value."""
    return _fed(chunks, quick=False)


def quickly(chunks: Iterable[Chunk]) -> Iterator[str]:
    """As `slowly`, but frames of a known shape by their template: what `decode --format lp` does."""
    return _fed(chunks, quick=True)


def derived(chunks: Iterable[Chunk]) -> Iterator[str]:
    """As `quickly`, with everything that `import` derives."""
    return _fed(chunks, quick=True, purpose=Purpose.IMPORT)


def derived_slowly(chunks: Iterable[Chunk]) -> Iterator[str]:
    """As `slowly`, with everything that `import` derives."""
    return _fed(chunks, quick=False, purpose=Purpose.IMPORT)


def _fed(chunks: Iterable[Chunk], *, quick: bool, purpose: Purpose = Purpose.VALUES) -> Iterator[str]:
    pipeline = Pipeline("benchmark", SETTINGS, NoState(), HostClock(), purpose=purpose, quick=quick)
    for chunk in chunks:
        yield _text(pipeline.feed((chunk,), more=True))
    yield _text(pipeline.interrupted())
    yield _text(pipeline.end())


def _text(fed: Fed) -> str:
    return "\n".join(row.body.decode() for row in fed.rows)


def bytes_to_lines(data: bytes, way: Way = quickly, byte_seconds: float = 0.0) -> int:
    """Go a way to its end; return how many characters of line protocol it gave."""
    return sum(map(len, way(blocks(data, byte_seconds))))


def blocks(data: bytes, byte_seconds: float = 0.0) -> Iterator[Chunk]:
    """The blocks in which a capture file is read. With `byte_seconds`, each has the time at which it is received."""
    for at in range(0, len(data), BLOCK):
        block = data[at : at + BLOCK]
        received = START + timedelta(seconds=byte_seconds * (at + len(block))) if byte_seconds else None
        yield Chunk(block, received, byte_seconds)


def main() -> None:
    """Go a way with a file of raw bytes."""
    with Path(sys.argv[1]).open("rb") as file:
        way = slowly if sys.argv[2:] == ["slow"] else quickly
        for _ in way(Chunk(block, None) for block in iter(lambda: file.read(BLOCK), b"")):
            pass


if __name__ == "__main__":
    main()
