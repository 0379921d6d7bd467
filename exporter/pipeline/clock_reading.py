"""The four rules by which a meter's clock can be read: the maker's habit, civil time, standard time, UTC.

docs/protocol.md, "Clocks", has what meters were seen to do. Times are whole milliseconds since 1970; a local time is
written as if it were UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias

from exporter.meters.clock import by_habit, local_time, to_utc
from exporter.model.calendar import EPOCH, from_ms, to_ms
from exporter.model.reading import LATEST, ClockHabit, MeterClock, Zone

__all__ = ["RULE_NAMES", "Offsets", "Rule", "local_ms", "read_clock", "read_clock_ms", "steady_offsets", "to_us"]


class Rule(StrEnum):
    """How a meter's clock is read; the value is what is kept over a restart."""

    HABIT = "habit"
    CIVIL = "civil"
    STANDARD = "standard"
    UTC = "utc"


RULE_NAMES: Final = {
    Rule.HABIT: "its maker's habit",
    Rule.CIVIL: "civil time, daylight saving included",
    Rule.STANDARD: "standard time all year",
    Rule.UTC: "UTC",
}
_HABIT_OF: Final = {
    Rule.CIVIL: ClockHabit.CIVIL,
    Rule.STANDARD: ClockHabit.STANDARD,
    Rule.UTC: ClockHabit.UTC,
}
_RULE_OF: Final = {habit: rule for rule, habit in _HABIT_OF.items()}
_MINUTE_MS: Final = 60_000
_EARLIEST_YEAR: Final = 2000
"""Since then all zones are whole minutes off UTC, and change at whole minutes."""
_MICROSECOND: Final = timedelta(microseconds=1)
_MILLISECOND: Final = timedelta(milliseconds=1)

Offsets: TypeAlias = Mapping[Rule, int]
"""What each rule takes off a local time to get UTC, ms."""


def read_clock(clock: MeterClock, rule: Rule, habit: ClockHabit, zone: Zone, near: datetime | None) -> datetime | None:
    """A meter's clock in UTC by a rule; None when it is no date. A deviation counts under the habit only."""
    if rule is Rule.HABIT:
        return to_utc(clock, habit, zone, near)
    local = local_time(clock)
    try:
        return None if local is None else by_habit(local, _HABIT_OF[rule], zone, near)
    except OverflowError:
        return None


def read_clock_ms(clock: MeterClock, rule: Rule, habit: ClockHabit, zone: Zone, near: int | None) -> int | None:
    """As `read_clock`, in ms."""
    moment = read_clock(clock, rule, habit, zone, None if near is None else from_ms(near))
    return None if moment is None else to_ms(moment)


def local_ms(clock: MeterClock) -> int | None:
    """The local time that a clock shows, ms; None when it is no date."""
    local = local_time(clock)
    return None if local is None else to_ms(local.replace(tzinfo=UTC))


def to_us(moment: datetime) -> int:
    """UTC -> whole microseconds since 1970."""
    return (moment - EPOCH) // _MICROSECOND


def steady_offsets(clock: MeterClock, habit: ClockHabit, zone: Zone, span: timedelta) -> Offsets | None:
    """The offsets of every rule from a clock on for `span` (a day at most), if each stays the same all the time.

    None for no date, for years that are far from now, and where the civil clock changes, or shows some time twice or
    never. No zone has changed twice within a day since 2000, so looking at both ends is enough.
    """
    first = local_time(clock)
    if first is None or not _EARLIEST_YEAR <= first.year < LATEST.year:
        return None
    start, end = first.replace(tzinfo=zone), (first + span).replace(tzinfo=zone)
    offset, saving = start.utcoffset(), start.dst()
    if offset is None or saving is None:
        return None
    for moment in (start.replace(fold=1), end, end.replace(fold=1)):
        if moment.utcoffset() != offset or moment.dst() != saving:
            return None
    civil, standard = offset // _MILLISECOND, (offset - saving) // _MILLISECOND
    offsets = {Rule.CIVIL: civil, Rule.STANDARD: standard, Rule.UTC: 0}
    if clock.deviation is not None and clock.deviation < 0:  # as meters.clock.to_utc believes it
        offsets[Rule.HABIT] = -clock.deviation * _MINUTE_MS
    else:
        offsets[Rule.HABIT] = offsets[_RULE_OF[habit]]
    return offsets
