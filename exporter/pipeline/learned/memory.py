"""What numbers, clocks and ids come to, remembered: a meter sends few different ones, again and again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from exporter.meters import safe_text
from exporter.meters.entries import Entry, Listing, scaling_of
from exporter.model.point import escaped
from exporter.model.reading import ClockHabit, Zone
from exporter.pipeline.clock_reading import Offsets, local_ms, steady_offsets
from exporter.protocol.axdr import parse_date_time

__all__ = ["Clocks", "Ids", "Spend", "Texts", "Values"]

_SPANS: Final = 1 << 12
_IDS: Final = 100_000

# Places in a clock's 12 bytes (IEC 62056-62, date-time).
_HOUR, _MINUTE, _AFTER_SECOND = 5, 6, 8
_HOURS, _SIXTY = 24, 60
"""A field from this on needs a look: one that is not specified is FF."""
_DAY_SPAN: Final = timedelta(hours=23, minutes=59, seconds=59)
_HOUR_SPAN: Final = timedelta(minutes=59, seconds=59)


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
    """An id's bytes -> the id, and the id as it stands in a line; None for one that says nothing."""

    def __missing__(self, sent: bytes) -> tuple[str, str] | None:
        if len(self) >= _IDS:
            self.clear()
        own = safe_text(sent)
        known = self[sent] = None if own is None else (own, escaped(own))
        return known


class Clocks:
    """A clock's 12 bytes -> what it shows, by the offsets of its day, or of its hour on a day on which they change."""

    def __init__(self, habit: ClockHabit, zone: Zone) -> None:
        self._days = _Spans(habit, zone, _HOUR, _DAY_SPAN)
        self._hours = _Spans(habit, zone, _MINUTE, _HOUR_SPAN)

    def read(self, sent: bytes) -> tuple[int, Offsets] | None:
        """What the clock shows, ms, and its offsets.

        None where the slow way must say: no date, or an hour in which the civil clock changes.
        """
        hour, minute, second = sent[_HOUR:_AFTER_SECOND]
        if hour >= _HOURS or minute >= _SIXTY or second >= _SIXTY:
            return None
        known = self._days[sent[:_HOUR] + sent[_AFTER_SECOND:]]
        if known is not None:
            return known[0] + (hour * 3600 + minute * 60 + second) * 1000, known[1]
        known = self._hours[sent[:_MINUTE] + sent[_AFTER_SECOND:]]
        if known is not None:
            return known[0] + (minute * 60 + second) * 1000, known[1]
        return None


class _Spans(dict[bytes, tuple[int, Offsets] | None]):
    """A clock's bytes without those from `place` to the second -> when the span began by it, ms, and its offsets."""

    def __init__(self, habit: ClockHabit, zone: Zone, place: int, span: timedelta) -> None:
        super().__init__()
        self._habit, self._zone, self._place, self._span = habit, zone, place, span

    def __missing__(self, sent: bytes) -> tuple[int, Offsets] | None:
        if len(self) >= _SPANS:
            self.clear()
        place = self._place
        clock = parse_date_time(sent[:place] + bytes(_AFTER_SECOND - place) + sent[place:])
        shown = local_ms(clock)
        offsets = steady_offsets(clock, self._habit, self._zone, self._span)
        known = self[sent] = None if shown is None or offsets is None else (shown, offsets)
        return known
