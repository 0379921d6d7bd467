"""Reading and Measurement: the one thing that is handed from room to room."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

from exporter.model.obis import ObisCode

__all__ = ["LATEST", "ClockHabit", "Measurement", "Meter", "MeterClock", "Placed", "Reading", "Zone"]

LATEST: Final = datetime(2262, 1, 1, tzinfo=UTC)
"""No reading is of a later moment: InfluxDB, which counts nanoseconds from 1970 in 64 bits, could not hold it."""

Zone: TypeAlias = ZoneInfo
"""HAN_TIMEZONE: the only local time in the product."""


class ClockHabit(Enum):
    """How a maker's clock is to be read (domain.md, "Clocks")."""

    STANDARD = "standard time"
    """Local standard time all year: Kamstrup, Aidon, and whoever speaks the Aidon form."""
    CIVIL = "civil time"
    """Local time as people keep it, daylight saving included: Kaifa."""
    UTC = "UTC"


@dataclass(frozen=True, slots=True)
class MeterClock:
    """A COSEM date-time as sent, field by field; None where the meter says "not specified".

    `deviation` is minutes with UTC = local + deviation; bit 7 of `status` tells that daylight saving is active.
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
    """Who sent a list. Each is None where the list does not say; `id` is safe in a tag and in a log line."""

    id: str | None = None
    maker: str | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value in SI: `unit` is W, var, VA, A, V, Wh, varh, VAh, Hz, "1" for a ratio, "" for unknown."""

    obis: ObisCode
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What one list of a meter says.

    `list_id` is the list version id ("Kamstrup_V0001"), None where it was not sent. `meter_clock` is the clock as
    the meter wrote it, `clock` the same in UTC by the maker's habit; both None where the list has no (usable) clock.
    `list_clock` tells that the clock stood in the list itself (only the hourly lists carry one there; then it says
    when the registers were taken). `received` is UTC, None until it is known (a capture without time stamps).
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
    """A reading with its meter and its time.

    `time` is what instantaneous values carry, `register_time` what energy registers carry: the full hour that they
    were taken at (`is_hour`: they are its first, and no repeat), or `time`. Both None where nothing told the time (a
    capture without time stamps, a list without a clock). `clock_offset` is the meter's clock less `received`, s, or
    None without either.
    """

    reading: Reading
    meter_id: str
    time: int | None
    register_time: int | None
    is_hour: bool = False
    clock_offset: float | None = None
