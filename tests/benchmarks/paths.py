"""Octets of raw frames to line protocol: the way that `decode --format lp` goes, and the slow one, which defines it.

`python -m tests.benchmarks.paths FILE [slow]` goes one of them in a process that does nothing else, to be counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

from exporter.config import Settings
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.pipeline import Fed, NoState, Pipeline, Purpose
from exporter.sources.capture.reader import BLOCK
from exporter.sources.contract import Chunk

SETTINGS: Final = Settings()

Way: TypeAlias = Callable[[Iterable[bytes]], Iterator[str]]
"""Octets of a stream in blocks -> the text of each."""


def slowly(blocks: Iterable[bytes]) -> Iterator[str]:
    """Frame by frame, each value by value."""
    return _fed(blocks, quick=False)


def quickly(blocks: Iterable[bytes]) -> Iterator[str]:
    """Frames of a known shape at once, all others as `slowly`."""
    return _fed(blocks, quick=True)


def derived(blocks: Iterable[bytes]) -> Iterator[str]:
    """As `quickly`, with everything that `import` derives."""
    return _fed(blocks, quick=True, purpose=Purpose.IMPORT)


def derived_slowly(blocks: Iterable[bytes]) -> Iterator[str]:
    """As `slowly`, with everything that `import` derives."""
    return _fed(blocks, quick=False, purpose=Purpose.IMPORT)


def _fed(blocks: Iterable[bytes], *, quick: bool, purpose: Purpose = Purpose.VALUES) -> Iterator[str]:
    pipeline = Pipeline("benchmark", SETTINGS, NoState(), HostClock(), purpose=purpose, quick=quick)
    for block in blocks:
        yield _text(pipeline.feed((Chunk(block, None),), more=True))
    yield _text(pipeline.interrupted())
    yield _text(pipeline.end())


def _text(fed: Fed) -> str:
    return "\n".join(row.body.decode() for row in fed.rows)


ours: Final[Way] = quickly
"""The way of the product."""


def octets_to_lines(octets: bytes, way: Way = ours) -> int:
    """Go a way to its end; how many characters of line protocol came out."""
    return sum(map(len, way(blocks(octets))))


def blocks(octets: bytes) -> Iterator[bytes]:
    """Octets as a capture file gives them."""
    return (octets[at : at + BLOCK] for at in range(0, len(octets), BLOCK))


def main() -> None:
    """Go a way with a file of raw octets."""
    with Path(sys.argv[1]).open("rb") as file:
        way = slowly if sys.argv[2:] == ["slow"] else ours
        for _ in way(iter(lambda: file.read(BLOCK), b"")):
            pass


if __name__ == "__main__":
    main()
