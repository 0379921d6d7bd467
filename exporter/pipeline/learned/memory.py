"""What numbers, clocks and ids come to, remembered: a meter says few different things, and again and again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from exporter.meters import safe_text
from exporter.meters.clock import local_time, to_utc
from exporter.meters.entries import Entry, Listing, scaling_of
from exporter.model.calendar import to_ms
from exporter.model.point import escaped
from exporter.model.reading import LATEST, ClockHabit, Zone
from exporter.pipeline.clock_rules import local_ms
from exporter.protocol.axdr import parse_date_time

__all__ = ["Hours", "Ids", "Texts", "Values"]

_HOURS: Final = 1 << 12
_IDS: Final = 100_000


Spend = Callable[[], None]
"""Called for each number that is remembered; it may empty what is remembered so far."""


class Values(dict[int, float]):
    """A number as sent -> the value in SI."""

    def __init__(self, entry: Entry, listing: Listing, spend: Spend) -> None:
        super().__init__()
        self._scaled, self._spend = scaling_of(entry, listing.scaler), spend

    def __missing__(self, number: int) -> float:
        self._spend()
        value = self[number] = self._scaled(number)
        return value


class Texts(dict[int, str]):
    """A number as sent -> the value's text in a line."""

    def __init__(self, entry: Entry, listing: Listing, spend: Spend) -> None:
        super().__init__()
        self._scaled, self._spend = scaling_of(entry, listing.scaler), spend

    def __missing__(self, number: int) -> str:
        self._spend()
        text = self[number] = repr(self._scaled(number))
        return text


class Ids(dict[bytes, tuple[str, str] | None]):
    """An id's octets -> the id, and the id as it stands in a line; None for one that says nothing."""

    def __missing__(self, octets: bytes) -> tuple[str, str] | None:
        if len(self) >= _IDS:
            self.clear()
        own = safe_text(octets)
        known = self[octets] = None if own is None else (own, escaped(own))
        return known


class Hours(dict[bytes, tuple[int, int] | None]):
    """A clock's 12 octets without minute and second -> when its hour began, ms, in UTC and as it is shown.

    None where that takes thought: no date, before 2000 or near the calendar's end, or an hour of which the civil clock
    shows some time twice or never.
    """

    _EARLIEST: Final = 2000  # since then all zones are whole minutes off, and change at whole minutes

    def __init__(self, habit: ClockHabit, zone: Zone) -> None:
        super().__init__()
        self._habit, self._zone = habit, zone

    def __missing__(self, octets: bytes) -> tuple[int, int] | None:
        if len(self) >= _HOURS:
            self.clear()
        ends = [self._moment(octets, *end) for end in _ENDS]
        first, last = ends
        steady = first is not None and last is not None and last[0] - first[0] == last[1] - first[1]
        began = self[octets] = first if steady else None
        return began

    def _moment(self, octets: bytes, minute: int, second: int) -> tuple[int, int] | None:
        clock = parse_date_time(octets[:_MINUTE] + bytes([minute, second]) + octets[_MINUTE:])
        local = local_time(clock)
        if local is None or not self._EARLIEST <= local.year < LATEST.year:
            return None
        readings = [to_utc(clock, self._habit, self._zone, local.replace(tzinfo=self._zone) + off) for off in _AROUND]
        first = readings[0]
        if first is None or any(other != first for other in readings):
            return None
        return to_ms(first), local_ms(local)


_MINUTE: Final = 6
_ENDS: Final = ((0, 0), (59, 59))
_AROUND: Final = (timedelta(hours=-13), timedelta(hours=13))
"""Which of two readings is taken is told by what is near."""
