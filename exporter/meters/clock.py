"""A meter's clock -> UTC. docs/protocol.md has the clocks of the makers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from exporter.model.reading import ClockHabit, MeterClock

OSLO: Final = ZoneInfo("Europe/Oslo")


def local_time(clock: MeterClock) -> datetime | None:
    """The date and time that the meter shows, without a zone; None if it is not a date (month 13, hour not specified).

    Seconds and hundredths that are not specified count as 0.
    """
    if clock.year is None or clock.month is None or clock.day is None:
        return None
    if clock.hour is None or clock.minute is None:
        return None
    try:
        return datetime(  # noqa: DTZ001 - by_habit adds the zone
            clock.year,
            clock.month,
            clock.day,
            clock.hour,
            clock.minute,
            clock.second or 0,
            (clock.hundredths or 0) * 10_000,
        )
    except ValueError:
        return None


def to_utc(
    clock: MeterClock, habit: ClockHabit, zone: ZoneInfo = OSLO, near: datetime | None = None
) -> datetime | None:
    """Convert a meter's clock to UTC by the rule `habit`; None if it is not a date.

    A deviation below 0 (east of Greenwich) is used: Swedish Kaifa meters send UTC+1, and it is right. 0 and +60 are
    ignored: Aidon sends both with local standard time. In the night when daylight saving ends, civil time has one hour
    twice. Then the result is the moment nearer to `near`, or the first one without `near`: no maker's daylight saving
    bit is reliable.
    """
    local = local_time(clock)
    if local is None:
        return None
    try:
        if clock.deviation is not None and clock.deviation < 0:
            return (local + timedelta(minutes=clock.deviation)).replace(tzinfo=UTC)
        return by_habit(local, habit, zone, near)
    except OverflowError:  # year 1 or 9999, moved out of the calendar
        return None


def by_habit(local: datetime, habit: ClockHabit, zone: ZoneInfo, near: datetime | None) -> datetime:
    """A local time without zone -> UTC. Raises OverflowError in the first and last hours of the calendar."""
    if habit is ClockHabit.UTC:
        return local.replace(tzinfo=UTC)
    civil = local.replace(tzinfo=zone)
    if habit is ClockHabit.STANDARD:
        offset, saving = civil.utcoffset(), civil.dst()
        return (local - (offset or timedelta()) + (saving or timedelta())).replace(tzinfo=UTC)
    first, second = civil.astimezone(UTC), civil.replace(fold=1).astimezone(UTC)
    if near is not None and abs(second - near) < abs(first - near):
        return second
    return first
