"""The exporter's events (measurement `event`): what an owner may want to know, and not too often."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from exporter.counted import counted
from exporter.pipeline.link import Level, Link, LinkState

_LOST_AGAIN_S: Final = 300.0
"""A port that comes and goes is reported at most this often."""
_LINES_AGAIN_S: Final = 3600.0


class Event(NamedTuple):
    """The `kind` and the `text` of an event."""

    kind: str
    text: str


class EventsOfSource:
    """Events of one source: it was lost, it is back, another meter sends on it, its speed and parity were found.

    A source that never worked is not lost.
    """

    def __init__(self, link: Link, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._monotonic = monotonic
        self._works: bool | None = None  # as it was reported; None before it worked
        self._lost_at = float("-inf")
        self._readings = 0

    def new(self) -> Iterator[Event]:
        """The events since the last call. Call it every second."""
        link = self._link
        yield from (Event("meter_changed", text) for text in link.take_exchanges())
        yield from (Event("line_found", text) for text in link.take_findings())
        now, state, readings = self._monotonic(), link.state, link.counts.readings
        if state is LinkState.OK or readings > self._readings:  # it may have worked between two calls
            if self._works is False:
                yield Event("reconnect", f"{link.name} is back after {_duration(now - self._lost_at)}")
            self._works, self._readings = True, readings
        if state.level is Level.WRONG and self._works and now - self._lost_at >= _LOST_AGAIN_S:
            self._works, self._lost_at = False, now
            yield Event("reconnect", f"{link.name} is lost: {link.message}")


class EventsOfLines:
    """Events of lines that do not reach InfluxDB. `lost` is how many were lost before this process began."""

    def __init__(self, lost: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._reported = {"rejected": 0, "dropped": lost}
        self._next = dict.fromkeys(self._reported, float("-inf"))

    def new(self, *, rejected: int, reason: Callable[[], str], lost: int) -> Iterator[Event]:
        """The events since the last call, from the counts so far.

        `reason` returns InfluxDB's message about the last line that it rejected.
        """
        if count := self._unreported("rejected", rejected):
            lines = counted(count, "line")
            yield Event("rejected", f"InfluxDB rejected {lines}, kept in the outbox; the last reason: {reason()}")
        if count := self._unreported("dropped", lost):
            yield Event("dropped", f"{counted(count, 'line')} lost because the outbox or its disk was full")

    def _unreported(self, kind: str, count: int) -> int:
        """How many lines to report now; 0 if the last report was less than an hour ago."""
        now, more = self._monotonic(), count - self._reported[kind]
        if more <= 0 or now < self._next[kind]:
            return 0
        self._reported[kind], self._next[kind] = count, now + _LINES_AGAIN_S
        return more


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
