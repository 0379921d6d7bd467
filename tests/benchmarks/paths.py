"""Octets of raw frames to line protocol: the way that `decode --format lp` goes, and the slow one, which defines it.

`python -m tests.benchmarks.paths FILE [slow]` goes one of them in a process that does nothing else, to be counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

from exporter.derive import points
from exporter.meters import OSLO, interpret
from exporter.model.reading import Placed
from exporter.pipeline.decoder import Heard, Outcome
from exporter.pipeline.learned import Lines
from exporter.pipeline.placing import Placer
from exporter.protocol.apdu import decode
from exporter.protocol.axdr import DecodeError
from exporter.protocol.hdlc import Deframer, Frame
from exporter.sources.capture.reader import BLOCK

Way: TypeAlias = Callable[[Iterable[bytes]], Iterator[str]]
"""Octets of a stream in blocks -> the text of each."""


def slowly(blocks: Iterable[bytes]) -> Iterator[str]:
    """Frame by frame, each value by value."""
    placer, deframer = Placer("benchmark", zone=OSLO), Deframer()
    for block in blocks:
        lines: list[str] = []
        for item in deframer.feed(block):
            if isinstance(item, Frame):
                for placed in _read(item, placer):
                    lines += points.lines(placed)
        yield "\n".join(lines)
    yield "\n".join(line for placed in placer.give_up() for line in points.lines(placed))


def _read(frame: Frame, placer: Placer) -> list[Placed]:
    try:
        return placer.place(interpret(decode(frame.content), OSLO))
    except DecodeError:
        return []


def quickly(blocks: Iterable[bytes]) -> Iterator[str]:
    """Frames of a known shape at once, all others as `slowly`."""
    placer = Placer("benchmark", zone=OSLO)

    def read(outcome: Outcome) -> Iterator[str]:
        if isinstance(outcome, Heard):
            for placed in placer.place(outcome.reading):
                yield from points.lines(placed)

    lines = Lines(placer, read, OSLO)
    for block in blocks:
        yield "\n".join(lines.feed(block))
    yield "\n".join(lines.end())
    yield "\n".join(line for placed in placer.give_up() for line in points.lines(placed))


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
