"""Reading and Measurement: the one thing that is handed from room to room."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

from exporter.model.obis import ObisCode
from exporter.protocol.dlms import DateTime

__all__ = ["LATEST", "ClockHabit", "Measurement", "Meter", "Reading", "Zone"]

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
    meter_clock: DateTime | None = None
    clock: datetime | None = None
    habit: ClockHabit = ClockHabit.STANDARD
    list_clock: bool = False
    received: datetime | None = None
