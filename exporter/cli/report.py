"""`report`: hours, days and the month, as an owner holds them beside the bill."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from exporter.cli._common import (
    EXIT_REJECTED,
    client_or_exit,
    config_option,
    give_up,
    influx_options,
    say,
    settings_or_exit,
)
from exporter.derive.derived import EnergySum
from exporter.derive.points import ABOVE_STEPS
from exporter.model.calendar import month_start, next_month, weekday_and_hour
from exporter.model.reading import Zone
from exporter.report.forms import as_csv, as_object, as_text
from exporter.report.month import MonthReport, Stored, build, clock_time, disagreements, local

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.sinks.influx.client import Client, Series

_TIMEOUT_S: Final = 30.0
_UNREADABLE: Final = re.compile(r"database not found|not executed|not authorized|: 403 \(", re.IGNORECASE)
"""InfluxDB's words when the token may not read: 2.8 then says that there is no such bucket, or "not executed"."""
_EARLIEST_MS: Final = 0


def _month_option(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d{4})-(\d{2})", value, re.ASCII)
    if not found or not 1970 < int(found[1]) < 9999 or not 1 <= int(found[2]) <= 12:
        raise click.BadParameter(f"{value!r} is no month; write it like 2026-10")
    return int(found[1]), int(found[2])


@click.command()
@click.option("--month", callback=_month_option, metavar="YYYY-MM", help="Which month. [default: the running one]")
@click.option("--meter", metavar="ID", help="Only this meter. [default: each that has data in the month]")
@click.option("--csv", "as_rows", is_flag=True, help="One row an hour, in Wh.")
@click.option("--json", "as_json", is_flag=True, help="Everything, in Wh, as one object.")
@influx_options
@config_option
def report(
    month: tuple[int, int] | None,
    meter: str | None,
    as_rows: bool,
    as_json: bool,
    config: Path | None,
    **overrides: str | None,
) -> None:
    """Print a month's hours, days, sum and capacity peaks, to hold beside the bill.

    It is made from the energy of each full hour in InfluxDB, in local time. An hour that is missing is named as
    missing and counted, never taken for 0; the hour that comes twice in autumn is shown as 02:00+02:00 and 02:00+01:00.

    Exit code 0: printed. 1: there is no data of that month. 2: the settings or InfluxDB cannot be used.
    """
    if as_rows and as_json:
        raise click.UsageError("Give --csv or --json, not both.")
    settings = settings_or_exit(config, **overrides)
    now = time.time_ns() // 1_000_000
    start = month_start(now, settings.zone)
    if month is not None:
        start = int(datetime(*month, 1, tzinfo=settings.zone).timestamp()) * 1000
    found = _found(settings, start, meter)
    reports = [
        build(name, data.energies, month=start, zone=settings.zone, steps_w=settings.capacity_steps_w, now=now)
        for name, data in sorted(found.items())
    ]
    notes = [
        found[one.meter_id].notes + disagreements(one, found[one.meter_id].stored) + _of_export(one) for one in reports
    ]
    _print(reports, notes, as_rows, as_json)


# Whose the readings are is asked for by --meter; how to name a meter and where to keep state is no matter here.
report.params = [option for option in report.params if option.name not in ("meter_id", "outbox")]


def _print(reports: list[MonthReport], notes: list[list[str]], as_rows: bool, as_json: bool) -> None:
    if as_rows:
        click.echo(as_csv(reports), nl=False)
        for one, words in zip(reports, notes, strict=True):
            for note in words:
                say(f"Note on meter {one.meter_id}: {note}.")
    elif as_json:
        meters = [as_object(one, words) for one, words in zip(reports, notes, strict=True)]
        click.echo(json.dumps({"meters": meters}, indent=2, ensure_ascii=False))
    else:
        click.echo("\n\n".join(as_text(*pair) for pair in zip(reports, notes, strict=True)), nl=False)


def _of_export(report: MonthReport) -> list[str]:
    missing = sum(hour.export_wh is None for hour in report.hours) if report.exports else 0
    return [f"the export of {missing} hours is missing"] if missing > len(report.missing) else []


@dataclass(slots=True)
class _Found:
    """What InfluxDB has of one meter's month, as it came."""

    energies: dict[str, dict[int, float]] = field(default_factory=dict)
    days: dict[tuple[str, int], EnergySum] = field(default_factory=dict)
    months: dict[tuple[str, int], EnergySum] = field(default_factory=dict)
    peaks: dict[str, tuple[float, int | None]] = field(default_factory=dict)
    step_w: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def stored(self) -> Stored:
        """The sums, peaks and step that `run` or `import` wrote."""
        return Stored(self.days, self.months, self.peaks, self.step_w)

    def take(self, series: Series, start: int, zone: Zone) -> None:
        """Take one series of the answer to _queries; `start` is the month's."""
        direction, kind = series.tags.get("direction", ""), series.tags.get("kind", "")
        for ms, value, *more in series.rows:
            if series.name == "hour_energy":
                self._take_hour(direction, ms, float(value), str(more[0]), zone)
            elif series.name == "day_energy":
                self.days[direction, ms] = EnergySum(float(value), int(more[0] or 0))
            elif ms != start:
                continue  # of a month by another HAN_TIMEZONE
            elif series.name == "month_energy":
                self.months[direction, ms] = EnergySum(float(value), int(more[0] or 0))
            elif series.name == "capacity":
                self.peaks[kind] = float(value), None if more[0] is None else int(more[0])
            else:
                self.step_w = None if value == ABOVE_STEPS else float(value)

    def _take_hour(self, direction: str, ms: int, wh: float, tagged: str, zone: Zone) -> None:
        hours = self.energies.setdefault(direction, {})
        if ms in hours and hours[ms] != wh:
            when = f"{local(ms, zone):%Y-%m-%d} {clock_time(ms, zone)}"
            self.notes.append(f"the hour {when} ({direction}) is stored twice: was HAN_TIMEZONE another one before?")
        if ms not in hours or tagged == f"{weekday_and_hour(ms, zone)[1]:02}":
            hours[ms] = wh


def _found(settings: Settings, start: int, meter: str | None) -> dict[str, _Found]:
    """Each meter's month from InfluxDB; ends the command in words when there is none, or no answer."""
    from exporter.sinks.influx.client import QueryError

    client = client_or_exit(settings, timeout=_TIMEOUT_S)
    try:
        found: dict[str, _Found] = {}
        for series in client.query(_queries(start, next_month(start, settings.zone))):
            found.setdefault(series.tags.get("meter_id", ""), _Found()).take(series, start, settings.zone)
        found = {name: data for name, data in found.items() if data.energies and meter in (None, name)}
        if not found:
            give_up(_no_data(client, settings.zone, start, meter), EXIT_REJECTED)
        return found
    except QueryError as error:
        give_up(_no_answer(str(error), settings))
    finally:
        client.close()


def _queries(start: int, end: int) -> str:
    """All that the report needs in one question, so that no hour comes between."""
    span = f"time >= {start}ms AND time < {end}ms"
    return "; ".join(
        (
            f"SELECT value, \"hour\" FROM hour_energy WHERE kind = 'final' AND {span} GROUP BY meter_id, direction",
            f'SELECT value, "hours" FROM day_energy WHERE {span} GROUP BY meter_id, direction',
            f'SELECT value, "hours" FROM month_energy WHERE {span} GROUP BY meter_id, direction',
            f"SELECT value, \"hour\" FROM capacity WHERE kind != 'projected' AND {span} GROUP BY meter_id, kind",
            f"SELECT value FROM capacity_step WHERE {span} GROUP BY meter_id",
        )
    )


def _no_answer(words: str, settings: Settings) -> str:
    if ": 401 (" in words:
        return f"{words}. The token is not known there: set HAN_INFLUX_TOKEN_FILE to the file of one that may read."
    if _UNREADABLE.search(words):
        return (
            f"{words}. Either there is no bucket or database {settings.influx_bucket} (HAN_INFLUX_BUCKET), or the "
            "token may not read it: the one that `run` writes with may only write. Set HAN_INFLUX_TOKEN_FILE to the "
            "file of one that may read; with Docker: docker compose run --rm admin report"
        )
    return f"{words}. Is it running, and are HAN_INFLUX_URL and HAN_INFLUX_CA_CERT right?"


def _no_data(client: Client, zone: Zone, start: int, meter: str | None) -> str:
    """Say that there is nothing, and where there is something."""
    months: dict[str, list[str]] = {}
    for name, ms in _months_with_data(client, zone):
        months.setdefault(name, []).append(f"{local(ms, zone):%Y-%m}")
    words = f"No full hour of {local(start, zone):%B %Y} is in InfluxDB" + (f" for meter {meter}." if meter else ".")
    told = {name: ones for name, ones in months.items() if meter in (None, name)} or months
    if not told:
        return (
            f"{words} Nor is there one of any other month: the first hour is known when the hourly lists at its start "
            "and at its end have come. Is `run` well? `han-exporter check` says."
        )
    return "\n".join([words, *(f"Meter {name} has data in: {', '.join(ones)}" for name, ones in sorted(told.items()))])


def _months_with_data(client: Client, zone: Zone) -> Iterator[tuple[str, int]]:
    """Meter and month's start, rising: from each month found the first hour after it is asked for."""
    after: int | None = _EARLIEST_MS
    while after is not None:
        query = f"SELECT first(value) FROM hour_energy WHERE kind = 'final' AND time >= {after}ms"
        firsts: dict[str, Any] = {
            series.tags.get("meter_id", ""): series.rows[0][0] for series in client.query(f"{query} GROUP BY meter_id")
        }
        month = min((month_start(first, zone) for first in firsts.values()), default=None)
        after = None if month is None else next_month(month, zone)
        yield from (
            (name, month_start(first, zone)) for name, first in firsts.items() if month_start(first, zone) == month
        )
