"""One local month of one meter from its final hours: hours, days, peaks, and what is missing.

Pure: it uses no server and no clock. Times are ms since 1970, an hour is identified by its start; energies are in Wh. A
missing hour is None and is counted, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Final

from exporter.counted import counted
from exporter.derive.capacity import Capacity, capacity, capacity_step
from exporter.derive.sums import EnergySum, day_sums, month_sums
from exporter.model.calendar import HOUR_MS, day_start, month_start, next_month
from exporter.model.obis import DIRECTIONS
from exporter.model.reading import Zone

__all__ = ["DUE_MS", "Day", "Hour", "MonthReport", "Stored", "build", "clock_time", "disagreements", "kwh", "local"]

DUE_MS: Final = 5 * 60_000
"""The registers of a full hour arrive within this time. Until then the hour before it does not count as missing."""
_LISTED: Final = 3
"""This many days that differ are listed, the rest are counted."""
_SAME_WH: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour that is over. An energy is None if it is not known."""

    start: int
    import_wh: float | None
    export_wh: float | None


@dataclass(frozen=True, slots=True)
class Day:
    """The hours of a local day that are over (a whole day has 23, 24 or 25), and the sums of the known ones."""

    start: int
    hours: tuple[Hour, ...]
    imported: EnergySum | None
    exported: EnergySum | None

    @property
    def missing(self) -> tuple[Hour, ...]:
        """The hours whose import is not known."""
        return tuple(hour for hour in self.hours if hour.import_wh is None)

    @property
    def highest(self) -> Hour | None:
        """The hour with the highest import, the first of equal ones; None if no hour is known."""
        known = [(hour.import_wh, -hour.start, hour) for hour in self.hours if hour.import_wh is not None]
        return max(known)[2] if known else None


@dataclass(frozen=True, slots=True)
class MonthReport:
    """A local month as far as it is over; `to_come` is the number of hours that are not."""

    meter_id: str
    start: int
    zone: Zone
    days: tuple[Day, ...]
    to_come: int
    imported: EnergySum | None
    exported: EnergySum | None
    capacity: Capacity | None
    steps_w: tuple[float, ...]

    @property
    def step_w(self) -> float | None:
        """Upper bound of the capacity step, W. None above the last step, and if no hour is known."""
        return None if self.capacity is None else capacity_step(self.capacity.mean, self.steps_w)

    @property
    def hours(self) -> tuple[Hour, ...]:
        """All hours that are over, in order."""
        return tuple(hour for day in self.days for hour in day.hours)

    @property
    def missing(self) -> tuple[Hour, ...]:
        """The hours whose import is not known."""
        return tuple(hour for day in self.days for hour in day.missing)

    @property
    def exports(self) -> bool:
        """True if something was exported: many meters send a register for export that stays 0."""
        return self.exported is not None and self.exported.wh > 0

    def gaps(self) -> Iterator[tuple[int, int]]:
        """The spans of missing hours: the start of the first and the end of the last."""
        for _, span in groupby(enumerate(self.missing), lambda pair: pair[1].start - pair[0] * HOUR_MS):
            starts = [hour.start for _, hour in span]
            yield starts[0], starts[-1] + HOUR_MS


def build(
    meter_id: str,
    energies: Mapping[str, Mapping[int, float]],
    *,
    month: int,
    zone: Zone,
    steps_w: Sequence[float],
    now: int,
) -> MonthReport:
    """The report of the local month that contains `month` (ms), at the time `now` (ms).

    `energies` are the final hours: direction ("import", "export") -> start -> Wh. `steps_w` is that of the settings.
    """
    start = month_start(month, zone)
    every = range(start, next_month(month, zone), HOUR_MS)
    imported, exported = (
        {hour: wh for hour, wh in energies.get(one, {}).items() if hour in every} for one in DIRECTIONS
    )
    over = [
        Hour(hour, imported.get(hour), exported.get(hour))
        for hour in every
        if hour + HOUR_MS + DUE_MS <= now or hour in imported or hour in exported
    ]
    import_days, export_days = day_sums(imported, zone), day_sums(exported, zone)
    return MonthReport(
        meter_id,
        start,
        zone,
        tuple(
            Day(day, tuple(hours), import_days.get(day), export_days.get(day))
            for day, hours in groupby(over, lambda hour: day_start(hour.start, zone))
        ),
        len(every) - len(over),
        month_sums(imported, zone).get(start),
        month_sums(exported, zone).get(start),
        capacity(imported, month, zone),
        tuple(steps_w),
    )


# What is stored in addition to the hours


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored for a month: sums by direction and start, Wh and hour by kind ("peak1" … "mean"), and the step."""

    days: Mapping[tuple[str, int], EnergySum] = field(default_factory=dict)
    months: Mapping[tuple[str, int], EnergySum] = field(default_factory=dict)
    capacity: Mapping[str, tuple[float, int | None]] = field(default_factory=dict)
    step_w: float | None = None


def disagreements(report: MonthReport, stored: Stored) -> list[str]:
    """A sentence for each stored value that differs from that of the hours (for days: the first few and a count)."""
    if not (stored.days or stored.months or stored.capacity):
        return ["no day_energy, month_energy or capacity of this month is stored"]
    found = []
    for direction in DIRECTIONS:
        days = {day.start: day.imported if direction == "import" else day.exported for day in report.days}
        days |= {start: days.get(start) for one, start in stored.days if one == direction}
        differing = [
            _of_sum(f"day_energy {direction} of {local(start, report.zone):%Y-%m-%d}", mine, theirs)
            for start, mine in sorted(days.items())
            if not _same(mine, theirs := stored.days.get((direction, start)))
        ]
        found += differing[:_LISTED]
        if differing[_LISTED:]:
            found.append(f"day_energy {direction} differs on {counted(len(differing) - _LISTED, 'more day')}")
        mine = report.imported if direction == "import" else report.exported
        if not _same(mine, theirs := stored.months.get((direction, report.start))):
            found.append(_of_sum(f"month_energy {direction}", mine, theirs))
    return found + list(_of_capacity(report, stored))


def _of_capacity(report: MonthReport, stored: Stored) -> Iterator[str]:
    peaks = () if report.capacity is None else report.capacity.peaks
    mine: dict[str, tuple[float, int | None]] = {f"peak{n}": (peak.wh, peak.hour) for n, peak in enumerate(peaks, 1)}
    if report.capacity is not None:
        mine["mean"] = (report.capacity.mean, None)
    for kind in sorted(mine.keys() | stored.capacity.keys()):
        ours, theirs = mine.get(kind), stored.capacity.get(kind)
        if ours is None or theirs is None or abs(ours[0] - theirs[0]) > _SAME_WH or ours[1] != theirs[1]:
            yield _differs(f"capacity {kind}", _of_peak(theirs, report.zone), _of_peak(ours, report.zone))
    if stored.step_w != report.step_w:
        yield _differs("capacity_step", _of_step(stored.step_w), _of_step(report.step_w))


def _differs(what: str, stored: str, calculated: str) -> str:
    return f"{what} is stored as {stored}, but the hours give {calculated}"


def _same(mine: EnergySum | None, theirs: EnergySum | None) -> bool:
    if mine is None or theirs is None:
        return mine is theirs
    return abs(mine.wh - theirs.wh) <= _SAME_WH and mine.hours == theirs.hours


def _of_sum(what: str, mine: EnergySum | None, theirs: EnergySum | None) -> str:
    stored, calculated = (
        f"{kwh(one.wh)} kWh of {counted(one.hours, 'hour')}" if one else "nothing" for one in (theirs, mine)
    )
    return _differs(what, stored, calculated)


def _of_peak(peak: tuple[float, int | None] | None, zone: Zone) -> str:
    if peak is None:
        return "nothing"
    return f"{kwh(peak[0])} kWh" + (
        f" at {local(peak[1], zone):%Y-%m-%d} {clock_time(peak[1], zone)}" if peak[1] else ""
    )


def _of_step(step_w: float | None) -> str:
    return "none" if step_w is None else f"up to {step_w / 1000:g} kW"


# Text for times and energies


def local(ms: int, zone: Zone) -> datetime:
    """A time in ms as local time."""
    return datetime.fromtimestamp(ms // 1000, zone)


def clock_time(ms: int, zone: Zone) -> str:
    """A local time of day like 17:00; like 02:00+02:00 and 02:00+01:00 if it occurs twice."""
    moment = local(ms, zone)
    twice = moment.replace(fold=0).utcoffset() != moment.replace(fold=1).utcoffset()
    return moment.strftime("%H:%M") + (moment.isoformat()[-6:] if twice else "")


def kwh(wh: float) -> str:
    """Energy in kWh, to the Wh; with more decimals only if a meter sends fractions of a Wh."""
    rounded = round(wh, 3)
    return f"{rounded / 1000:.3f}" if math.isclose(rounded, round(rounded), abs_tol=1e-6) else f"{rounded / 1000:.6f}"
