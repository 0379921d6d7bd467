"""The report of a month as text, as CSV and as a JSON object. Pure: a MonthReport is turned into text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from exporter.counted import counted
from exporter.derive.sums import EnergySum
from exporter.model.calendar import HOUR_MS
from exporter.report.month import Day, MonthReport, clock_time, kwh, local

__all__ = ["COLUMNS", "as_csv", "as_object", "as_text"]

COLUMNS: Final = ("meter_id", "start", "start_utc", "import_wh", "export_wh")
_PLACE: Final = 16


def as_text(report: MonthReport, notes: Sequence[str]) -> str:
    """A table of the days, then the month. Missing hours are listed as spans. `notes` come last."""
    month = f"{local(report.start, report.zone):%B %Y}"
    lines = [f"Meter {report.meter_id}, {month}, {report.zone.key}", "", *_table(report), "", *_month(report, month)]
    return "\n".join(lines + [f"Note: {note}." for note in notes]) + "\n"


def _table(report: MonthReport) -> Iterator[str]:
    export = f"{'export kWh':>12}" if report.exports else ""
    yield f"{'day':<14}{'import kWh':>12}{export}{'highest hour kWh':>18}  {'from':<11}  hours missing"
    for day in report.days:
        yield _row(day, report).rstrip()


def _row(day: Day, report: MonthReport) -> str:
    energies = f"{_or_missing(_wh(day.imported)):>12}"
    if report.exports:
        energies += f"{_or_missing(_wh(day.exported)):>12}"
    highest = day.highest
    peak, when = (
        ("", "") if highest is None else (kwh(highest.import_wh or 0.0), clock_time(highest.start, report.zone))
    )
    missing = f"{len(day.missing)} of {len(day.hours)}" if day.missing else "-"
    return f"{local(day.start, report.zone):%a %Y-%m-%d}{energies}{peak:>18}  {when:<11}  {missing}"


def _month(report: MonthReport, month: str) -> Iterator[str]:
    hours, missing = len(report.hours), len(report.missing)
    to_come = f"; {counted(report.to_come, 'hour')} still to come" if report.to_come else ""
    yield f"{month}: {hours - missing} of {counted(hours, 'hour')} known, {missing} missing{to_come}"
    so_far = " so far" if report.to_come else ""
    known = ", without the missing hours" if missing else ""
    yield f"  {f'import{so_far}':<{_PLACE}}{_or_missing(_wh(report.imported)):>10} kWh{known}"
    if report.exports:
        yield f"  {f'export{so_far}':<{_PLACE}}{_or_missing(_wh(report.exported)):>10} kWh"
    yield from _capacity(report)
    if missing:
        yield "Missing hours (the highest peak may have been in one of them):"
        for start, end in report.gaps():
            yield f"  {_span(start, end, report)}"


def _capacity(report: MonthReport) -> Iterator[str]:
    if report.capacity is None:
        return
    yield "Capacity, from the highest hours of the three highest days:"
    for place, peak in enumerate(report.capacity.peaks, 1):
        yield f"  {f'{place}.':<{_PLACE}}{kwh(peak.wh):>10} kWh  {_moment(peak.hour, report)}"
    yield f"  {'mean':<{_PLACE}}{kwh(report.capacity.mean):>10} kWh  {_step(report)}"


def _step(report: MonthReport) -> str:
    if report.step_w is None:
        return f"above the last step, {report.steps_w[-1] / 1000:g} kW"
    lower = max((step for step in report.steps_w if step < report.step_w), default=0.0)
    return f"step {lower / 1000:g}-{report.step_w / 1000:g} kW"


def _span(start: int, end: int, report: MonthReport) -> str:
    hours = (end - start) // HOUR_MS
    return _moment(start, report) + (f" to {_moment(end, report)}, {counted(hours, 'hour')}" if hours > 1 else "")


def _moment(ms: int, report: MonthReport) -> str:
    return f"{local(ms, report.zone):%a %Y-%m-%d} {clock_time(ms, report.zone)}"


def _or_missing(wh: float | None) -> str:
    return "missing" if wh is None else kwh(wh)


def as_csv(reports: Sequence[MonthReport]) -> str:
    """COLUMNS, then one row for each hour that is over. A missing energy is empty."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for report in reports:
        for hour in report.hours:
            times = _iso(hour.start, report), _utc(hour.start)
            rows.writerow([report.meter_id, *times, _number(hour.import_wh), _number(hour.export_wh)])
    return text.getvalue()


def as_object(report: MonthReport, notes: Sequence[str]) -> dict[str, Any]:
    """What --json prints for one meter. Energies are in Wh, null if missing; times are local with their offset.

    meter_id, timezone, month ("2026-10"); hours_known, hours_missing, hours_to_come; import_wh, export_wh;
    capacity: null, or peaks [{start, wh}] (highest first), mean_wh, step_w (upper bound, null above the last step);
    days [{date, hours_known, hours_missing, import_wh, export_wh, highest: null or {start, wh}}];
    hours [{start, start_utc, import_wh, export_wh}] (those that are over); notes [text].
    """
    found = report.capacity
    return {
        "meter_id": report.meter_id,
        "timezone": report.zone.key,
        "month": f"{local(report.start, report.zone):%Y-%m}",
        "hours_known": len(report.hours) - len(report.missing),
        "hours_missing": len(report.missing),
        "hours_to_come": report.to_come,
        "import_wh": _number(_wh(report.imported)),
        "export_wh": _number(_wh(report.exported)),
        "capacity": found
        and {
            "peaks": [{"start": _iso(peak.hour, report), "wh": _number(peak.wh)} for peak in found.peaks],
            "mean_wh": _number(found.mean),
            "step_w": _number(report.step_w),
        },
        "days": [_day(day, report) for day in report.days],
        "hours": [
            {
                "start": _iso(hour.start, report),
                "start_utc": _utc(hour.start),
                "import_wh": _number(hour.import_wh),
                "export_wh": _number(hour.export_wh),
            }
            for hour in report.hours
        ],
        "notes": list(notes),
    }


def _day(day: Day, report: MonthReport) -> dict[str, Any]:
    highest = day.highest
    return {
        "date": f"{local(day.start, report.zone):%Y-%m-%d}",
        "hours_known": len(day.hours) - len(day.missing),
        "hours_missing": len(day.missing),
        "import_wh": _number(_wh(day.imported)),
        "export_wh": _number(_wh(day.exported)),
        "highest": highest and {"start": _iso(highest.start, report), "wh": _number(highest.import_wh)},
    }


def _wh(known: EnergySum | None) -> float | None:
    return None if known is None else known.wh


def _number(value: float | None) -> float | int | None:
    """An int if the value is whole, as Wh are: 1234 is easier to read than 1234.0."""
    return int(value) if value is not None and value.is_integer() else value


def _iso(ms: int, report: MonthReport) -> str:
    return local(ms, report.zone).isoformat()


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
