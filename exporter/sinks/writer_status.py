"""The status of the writer, for the exporter's own metrics and for `check`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["WriterState", "WriterStatus"]


class WriterState(Enum):
    """What the writer does."""

    STARTING = "starting"
    OK = "ok"
    WAITING = "waiting"
    """InfluxDB does not answer, or asks to wait."""
    MISCONFIGURED = "misconfigured"
    """InfluxDB refuses, and someone must fix something."""


@dataclass(frozen=True, slots=True)
class WriterStatus:
    """A snapshot. Counts are since the start; a line that is sent twice counts twice."""

    state: WriterState = WriterState.STARTING
    points_written: int = 0
    lines_rejected: int = 0
    retries: int = 0
    last_latency_s: float | None = None
    """Of the last request that InfluxDB took."""
    last_error: str = ""
    """The message of the last failure. It stays after the failure is over."""
