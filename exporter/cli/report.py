"""`report`: hours, days and the month, to compare with the bill."""

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
from exporter.counted import counted
from exporter.derive.points import ABOVE_STEPS
from exporter.derive.sums import EnergySum
from exporter.model.calendar import month_start, next_month, weekday_and_hour
from exporter.model.reading import Zone
from exporter.report.forms import as_csv, as_object, as_text
from exporter.report.month import MonthReport, Stored, build, clock_time, disagreements, local

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.sinks.influx.client import Client, Series

_TIMEOUT_S: Final = 30.0
_UNREADABLE: Final = re.compile(r"database not found|not executed|not authorized|: 403 \(", re.IGNORECASE)
"""What InfluxDB answers if the token may not read. 2.8 then says that the bucket does not exist, or "not executed"."""
_EARLIEST_MS: Final = 0


def _month_option(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d{4})-(\d{2})", value, re.ASCII)
    if not found or not 1970 < int(found[1]) < 9999 or not 1 <= int(found[2]) <= 12:
        raise click.BadParameter(f"{value!r} is not a month; write it like 2026-10")
    return int(found[1]), int(found[2])


@click.command()
@click.option("--month", callback=_month_option, metavar="YYYY-MM", help="Which month. [default: the current one]")
@click.option("--meter", metavar="ID", help="Only this meter. [default: each that has data in the month]")
@click.option("--csv", "as_rows", is_flag=True, help="One row for each hour, in Wh.")
@click.option("--json", "as_json", is_flag=True, help="Everything, in Wh, as one JSON object.")
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
    """Print the hours, days, sum and capacity peaks of a month, to compare with the bill.

    The report is made from the energy of each full hour in InfluxDB, in local time. A missing hour is shown as missing
    and counted, never taken as 0. The hour that occurs twice in autumn is shown as 02:00+02:00 and 02:00+01:00.

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


# Here --meter selects a meter; how to name one that does not send its id, and where state is kept, do not matter.
report.params = [option for option in report.params if option.name not in ("meter_id", "outbox")]


def _print(reports: list[MonthReport], notes: list[list[str]], as_rows: bool, as_json: bool) -> None:
    if as_rows:
        click.echo(as_csv(reports), nl=False)
        for one, of_meter in zip(reports, notes, strict=True):
            for note in of_meter:
                say(f"Note on meter {one.meter_id}: {note}.")
    elif as_json:
        meters = [as_object(*pair) for pair in zip(reports, notes, strict=True)]
        click.echo(json.dumps({"meters": meters}, indent=2, ensure_ascii=False))
    else:
        click.echo("\n\n".join(as_text(*pair) for pair in zip(reports, notes, strict=True)), nl=False)


def _of_export(report: MonthReport) -> list[str]:
    missing = sum(hour.export_wh is None for hour in report.hours) if report.exports else 0
    return [f"the export of {counted(missing, 'hour')} is missing"] if missing > len(report.missing) else []


@dataclass(slots=True)
class _Found:
    """What InfluxDB has of a month of one meter, as it was answered."""

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
        """Add one series of the answer to _queries. `start` is the start of the month."""
        direction, kind = series.tags.get("direction", ""), series.tags.get("kind", "")
        for ms, value, *more in series.rows:
            if series.name == "hour_energy":
                self._take_hour(direction, ms, float(value), str(more[0]), zone)
            elif series.name == "day_energy":
                self.days[direction, ms] = EnergySum(float(value), int(more[0] or 0))
            elif ms != start:
                continue  # a month in another time zone
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
            self.notes.append(
                f"the hour {when} ({direction}) is stored twice: did HAN_TIMEZONE have another value before?"
            )
        if ms not in hours or tagged == f"{weekday_and_hour(ms, zone)[1]:02}":
            hours[ms] = wh


def _found(settings: Settings, start: int, meter: str | None) -> dict[str, _Found]:
    """The month of each meter from InfluxDB; exits with a message if there is none, or no answer."""
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
    """Everything that the report needs in one request, so that no hour is written in between."""
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


def _no_answer(error: str, settings: Settings) -> str:
    if ": 401 (" in error:
        return f"{error}. InfluxDB does not know the token: set HAN_INFLUX_TOKEN_FILE to a token that may read."
    if _UNREADABLE.search(error):
        return (
            f"{error}. Either there is no bucket or database {settings.influx_bucket} (HAN_INFLUX_BUCKET), or the "
            "token may not read it: that of `run` may only write. Set HAN_INFLUX_TOKEN_FILE to a token that may read; "
            "with Docker: docker compose run --rm admin report"
        )
    return f"{error}. Is it running, and are HAN_INFLUX_URL and HAN_INFLUX_CA_CERT right?"


def _no_data(client: Client, zone: Zone, start: int, meter: str | None) -> str:
    """The message that the month has no data, and which months have some."""
    months: dict[str, list[str]] = {}
    for name, ms in _months_with_data(client, zone):
        months.setdefault(name, []).append(f"{local(ms, zone):%Y-%m}")
    message = f"InfluxDB has no full hour of {local(start, zone):%B %Y}" + (f" for meter {meter}." if meter else ".")
    shown = {name: ones for name, ones in months.items() if meter in (None, name)} or months
    if not shown:
        return (
            f"{message} It has none of another month either. An hour is known after the hourly lists at its start and "
            "at its end were received. `han-exporter check` shows whether `run` works."
        )
    lines = [f"Meter {name} has data in: {', '.join(ones)}" for name, ones in sorted(shown.items())]
    return "\n".join([message, *lines])


def _months_with_data(client: Client, zone: Zone) -> Iterator[tuple[str, int]]:
    """Meter and start of the month, in ascending order: after each month it asks for the first hour after it."""
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
