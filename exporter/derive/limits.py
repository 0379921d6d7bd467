"""The limits that alerts and threshold lines read. Pure functions of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.config import Limits

__all__ = ["Threshold", "exporter_thresholds", "thresholds"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit that alerts and threshold lines read: `quantity` is a measurement, `bound` is min, max, warn or from."""

    quantity: str
    bound: str
    value: float


def thresholds(limits: Limits) -> tuple[Threshold, ...]:
    """One meter's limits. `current` is `fuse_load` in A, for the lines in a graph."""
    return (
        Threshold("fuse_load", "max", 100.0),
        Threshold("fuse_load", "warn", limits.fuse_warn_pct),
        Threshold("current", "max", limits.main_fuse_a),
        Threshold("current", "warn", limits.main_fuse_a * limits.fuse_warn_pct / 100),
        Threshold("active_power", "max", limits.limit_power_w),
        Threshold("hour_energy", "max", limits.limit_hour_wh),
        Threshold("phase_unbalance", "max", limits.limit_unbalance_pct),
        Threshold("phase_unbalance", "from", limits.unbalance_from_pct),
        Threshold("voltage", "min", limits.voltage_min),
        Threshold("voltage", "max", limits.voltage_max),
        Threshold("reading_age", "max", limits.limit_silence_s),
    )


def exporter_thresholds(limit_backlog_s: float) -> tuple[Threshold, ...]:
    """The exporter's own limits, which belong to no meter."""
    return (Threshold("backlog_age", "max", limit_backlog_s),)
