"""Moments for tests, as milliseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

OSLO = ZoneInfo("Europe/Oslo")


def utc(text: str) -> int:
    """`2026-10-01 22:00` in UTC -> ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def oslo(text: str) -> int:
    """`2026-10-01 22:00` in Oslo -> ms; the first of the two if the hour comes twice."""
    return int(datetime.fromisoformat(text).replace(tzinfo=OSLO).timestamp()) * 1000
