"""Octets of raw frames to line protocol: the way that `decode --format lp` goes, and the slow one, which defines it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from exporter import points
from exporter.meters import OSLO, interpret
from exporter.placing import Placed, Placer
from exporter.protocol.dlms import DecodeError, decode
from exporter.protocol.hdlc import Deframer, Frame
from exporter.sources.capture_file import BLOCK

Way: TypeAlias = Callable[[bytes], Iterator[str]]
"""Octets of a stream -> the text of each block of it."""


def slowly(octets: bytes) -> Iterator[str]:
    """Frame by frame, each value by value."""
    placer, deframer = Placer("benchmark", zone=OSLO), Deframer()
    for at in range(0, len(octets), BLOCK):
        lines: list[str] = []
        for item in deframer.feed(octets[at : at + BLOCK]):
            if isinstance(item, Frame):
                for placed in _read(item, placer):
                    lines += points.lines(placed)
        yield "\n".join(lines)
    yield "\n".join(line for placed in placer.give_up() for line in points.lines(placed))


def _read(frame: Frame, placer: Placer) -> list[Placed]:
    try:
        return placer.place(interpret(decode(frame.information), OSLO))
    except DecodeError:
        return []


ours: Final[Way] = slowly
"""The way of the product."""


def octets_to_lines(octets: bytes, way: Way = ours) -> int:
    """Go a way to its end; how many characters of line protocol came out."""
    return sum(len(text) for text in way(octets))
