"""What is worth a mark on a graph (measurement `event`): what an owner may want to know of, and not too often."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from exporter.pipeline.link import Level, Link, LinkState

_LOST_AGAIN_S: Final = 300.0
"""A port that comes and goes is marked so often at most."""
_LINES_AGAIN_S: Final = 3600.0


class Mark(NamedTuple):
    """The `kind` and the `text` of an event."""

    kind: str
    text: str


class SourceMarks:
    """Marks of one source that has been well: lost, back, its meter is another one; and how its line was found."""

    def __init__(self, link: Link, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._monotonic = monotonic
        self._well: bool | None = None  # as it was told; None before it was well
        self._lost_at = float("-inf")
        self._readings = 0

    def new(self) -> Iterator[Mark]:
        """What is new since this was last asked; ask every second."""
        yield from (Mark("meter_changed", words) for words in self._link.take_exchanges())
        yield from (Mark("line_found", words) for words in self._link.take_findings())
        now, state, readings = self._monotonic(), self._link.state, self._link.counts.readings
        if state is LinkState.OK or readings > self._readings:  # it may have been well between two looks
            if self._well is False:
                yield Mark("reconnect", f"{self._link.name} is back after {_duration(now - self._lost_at)}")
            self._well, self._readings = True, readings
        if state.level is Level.WRONG and self._well and now - self._lost_at >= _LOST_AGAIN_S:
            self._well, self._lost_at = False, now
            yield Mark("reconnect", f"{self._link.name} is lost: {self._link.message}")


class LineMarks:
    """Marks of lines that do not reach InfluxDB; the counts are those at the beginning."""

    def __init__(self, lost: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._told = {"rejected": 0, "dropped": lost}
        self._next = dict.fromkeys(self._told, float("-inf"))

    def new(self, *, rejected: int, why: Callable[[], str], lost: int) -> Iterator[Mark]:
        """What is new, from the counts so far; `why` gives InfluxDB's words about the last line that it rejected."""
        if count := self._news("rejected", rejected):
            yield Mark("rejected", f"InfluxDB rejected {count} lines, which are put aside; the last one: {why()}")
        if count := self._news("dropped", lost):
            yield Mark("dropped", f"{count} lines are lost, since the outbox or its disk was full")

    def _news(self, kind: str, count: int) -> int:
        """How many more there are than was told, if it is time to tell it."""
        now, more = self._monotonic(), count - self._told[kind]
        if more <= 0 or now < self._next[kind]:
            return 0
        self._told[kind], self._next[kind] = count, now + _LINES_AGAIN_S
        return more


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
