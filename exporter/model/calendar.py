"""Times as whole milliseconds since 1970 in UTC, and the local calendar: hours, days and months in a time zone.

Nothing here reads a clock. An hour is named by its start, and belongs to the local day and month in which it starts.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final

from exporter.model.reading import Zone

__all__ = [
    "EPOCH",
    "HOUR_MS",
    "day_hours",
    "day_start",
    "from_ms",
    "month_start",
    "next_day",
    "next_month",
    "to_ms",
    "weekday_and_hour",
]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_MS: Final = 3_600_000


def to_ms(moment: datetime) -> int:
    """UTC -> whole milliseconds since 1970, rounded down."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def from_ms(ms: int) -> datetime:
    """Milliseconds since 1970 -> UTC."""
    return EPOCH + timedelta(milliseconds=ms)


@lru_cache(maxsize=4096)  # the same hours are asked for again and again
def day_start(ms: int, zone: Zone) -> int:
    """Start of the local day of a moment."""
    local = _local(ms, zone)
    return _midnight(local.year, local.month, local.day, zone)


def next_day(ms: int, zone: Zone) -> int:
    """Start of the local day after that of a moment: 23, 24 or 25 hours after its start."""
    following = _local(ms, zone).date() + timedelta(days=1)
    return _midnight(following.year, following.month, following.day, zone)


def day_hours(ms: int, zone: Zone) -> range:
    """The starts of the hours, 23, 24 or 25, of the local day of a moment."""
    return range(day_start(ms, zone), next_day(ms, zone), HOUR_MS)


@lru_cache(maxsize=4096)
def month_start(ms: int, zone: Zone) -> int:
    """Start of the local month of a moment."""
    local = _local(ms, zone)
    return _midnight(local.year, local.month, 1, zone)


def next_month(ms: int, zone: Zone) -> int:
    """Start of the local month after that of a moment."""
    local = _local(ms, zone)
    following = date(local.year + local.month // 12, local.month % 12 + 1, 1)
    return _midnight(following.year, following.month, 1, zone)


@lru_cache(maxsize=4096)
def weekday_and_hour(ms: int, zone: Zone) -> tuple[int, int]:
    """Local weekday, 1 (Monday) to 7, and hour, 0 to 23. The 25th hour of a day has the number of the hour before."""
    local = _local(ms, zone)
    return local.isoweekday(), local.hour


def _local(ms: int, zone: Zone) -> datetime:
    return datetime.fromtimestamp(ms // 1000, zone)


@lru_cache(maxsize=8192)
def _midnight(year: int, month: int, day: int, zone: Zone) -> int:
    # If there are two midnights this is the first; if there is none, it is the moment of the clock change.
    return int(datetime(year, month, day, tzinfo=zone).timestamp()) * 1000
