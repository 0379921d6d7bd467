"""Reading and Measurement: what the packages of this product pass to each other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

from exporter.model.obis import ObisCode

__all__ = ["LATEST", "ClockHabit", "Measurement", "Meter", "MeterClock", "Placed", "Reading", "Zone"]

LATEST: Final = datetime(2262, 1, 1, tzinfo=UTC)
"""No reading has a later time: InfluxDB counts nanoseconds from 1970 in 64 bits, and could not store it."""

Zone: TypeAlias = ZoneInfo
"""The time zone of HAN_TIMEZONE: the only local time in this product."""


class ClockHabit(Enum):
    """Which time a maker's clock shows (docs/protocol.md)."""

    STANDARD = "standard time"
    """Local standard time all year: Kamstrup, Aidon, and meters with Aidon's form of list."""
    CIVIL = "civil time"
    """Local time with daylight saving: Kaifa."""
    UTC = "UTC"


@dataclass(frozen=True, slots=True)
class MeterClock:
    """A COSEM date-time as sent, field by field; None for a field that is "not specified".

    `deviation` is in minutes, with UTC = local + deviation. Bit 7 of `status` means that daylight saving is active.
    The fields are not checked against a calendar: a meter can send month 13.
    """

    year: int | None
    month: int | None
    day: int | None
    weekday: int | None
    hour: int | None
    minute: int | None
    second: int | None
    hundredths: int | None
    deviation: int | None
    status: int | None


@dataclass(frozen=True, slots=True)
class Meter:
    """Which meter sent a list. Each is None if the list does not say it; all are safe in a tag and in a log line."""

    id: str | None = None
    maker: str | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value in SI. `unit` is W, var, VA, A, V, Wh, varh, VAh, Hz, "1" for a ratio or "" if it is not known."""

    obis: ObisCode
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What one list of a meter says.

    `list_id` is the list version id ("Kamstrup_V0001"), None if it was not sent. `meter_clock` is the clock as the
    meter sent it, `clock` the same in UTC by the maker's habit; both are None if the list has no usable clock.
    `list_clock` is True if the clock was in the list itself, not in its header. Only the hourly lists have one there;
    it says when the registers were taken. `received` is UTC, None while not known (a capture without time stamps).
    """

    meter: Meter
    list_id: str | None
    measurements: tuple[Measurement, ...]
    meter_clock: MeterClock | None = None
    clock: datetime | None = None
    habit: ClockHabit = ClockHabit.STANDARD
    list_clock: bool = False
    received: datetime | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A reading with its meter and its time (ms since 1970, UTC).

    `time` is the time of the instantaneous values. `register_time` is the time of the energy registers: the full hour
    at which they were taken, or `time`; `is_hour` is True for the first registers of that hour, False for a repeat.
    Both times are None if nothing says when it was (a list without a clock in a capture without time stamps).
    `clock_offset` is the meter's clock minus `received` in s, None if one of the two is not known.
    """

    reading: Reading
    meter_id: str
    time: int | None
    register_time: int | None
    is_hour: bool = False
    clock_offset: float | None = None
