"""What can be queried in InfluxDB: measurements, tags and fields, as points.py writes them.

Nothing is listed by hand: the function for each kind of line makes one, and that is parsed.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

from exporter.config import Settings
from exporter.derive import points
from exporter.derive.capacity import Capacity, Peak
from exporter.derive.limits import exporter_thresholds, thresholds
from exporter.derive.sums import EnergySum
from exporter.derive.values import layout_of
from exporter.model.obis import ObisCode, describe
from exporter.model.reading import Measurement, Meter, Placed, Reading
from exporter.pipeline.link import Link
from exporter.service import own_points
from exporter.service.service import Service

OSLO = ZoneInfo("Europe/Oslo")
METER = "m"


@dataclass
class Kind:
    """One measurement: tag -> its values in the lines, and field -> "float" or "string"."""

    tags: dict[str, set[str]] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)


def parse(line: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """A line of plain values (nothing escaped) -> measurement, tags, and the text of each field."""
    found = re.fullmatch(r"([^, ]+)((?:,[^ ]+)?) (.+?)(?: (\d+))?", line)
    assert found is not None, line
    tags = dict(pair.split("=") for pair in found[2].split(",")[1:])
    return found[1], tags, dict(re.findall(r'(\w+)=("[^"]*"|[^,"]+)', found[3]))


def reading() -> Placed:
    """One list with every quantity of the catalogue, and one that is not in it."""
    codes = [ObisCode(1, 1, c, d, 0) for c in range(256) for d in range(256)]
    known = [Measurement(code, 10.0, quantity.unit) for code in codes if (quantity := describe(code)) is not None]
    unknown = Measurement(ObisCode(1, 1, 99, 98, 97), 1.0, "W")
    return Placed(Reading(Meter(METER), None, (*known, unknown)), METER, 0, 0, clock_offset=1.0)


def without_factors() -> Placed:
    """The same from a meter that does not send power factors, so that they are derived."""
    given = reading()
    kept = tuple(one for one in given.reading.measurements if one.obis.c % 20 != 13)
    return Placed(Reading(given.reading.meter, None, kept), METER, 0, 0)


def exporter_lines() -> list[str]:
    """What `run` writes about itself."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(influx_url="http://127.0.0.1:9", outbox=Path(folder) / "outbox", instance="i")
        service = Service(settings, [])
        try:
            return service._own_lines(0, [Link("sim", "sim:")])
        finally:
            service._outbox.close()


def _limits() -> Iterator[str]:
    settings = Settings()
    for threshold in thresholds(settings.limits(METER)):
        yield points.threshold_line(threshold, 0, METER)
    for threshold in exporter_thresholds(settings.limit_backlog_s):
        yield points.threshold_line(threshold, 0)


def _codes() -> tuple[tuple[ObisCode, str], ...]:
    return tuple((one.obis, one.unit) for one in without_factors().reading.measurements)


def _hours(of: Callable[[str], str]) -> list[str]:
    return [of(direction) for direction in ("import", "export")]


_MONTH = Capacity(0, tuple(Peak(0, 1.0) for _ in range(3)), 1.0)
_SUM = EnergySum(1.0, 1)
SAMPLES: dict[str, Callable[[], Iterable[str]]] = {
    "lines": lambda: points.lines(reading()),
    "meter_line": lambda: [points.meter_line(meter_id, "Europe/Oslo", 0) for meter_id in ("m", "SIMULATED-M")],
    "clock_offset_line": lambda: [points.clock_offset_line(METER, 1.0, 0)],
    "reading_age_line": lambda: [own_points.reading_age_line(METER, 1.0, 0)],
    "exporter_line": exporter_lines,
    "event_line": lambda: [own_points.event_line("i", "start", "text", 0)],
    "phase_lines": lambda: points.phase_lines(layout_of(_codes()).phases, [1.0] * len(_codes()), METER, 40, 0),
    "running_hour_line": lambda: [
        points.running_hour_line(METER, direction, kind, 1.0, 0)
        for direction in ("import", "export")
        for kind in ("so_far", "projected")
    ],
    "final_hour_line": lambda: [
        points.final_hour_line(METER, direction, 1.0, hour * 3_600_000, OSLO)
        for direction in ("import", "export")
        for hour in range(7 * 24)
    ],
    "day_energy_line": lambda: _hours(lambda direction: points.day_energy_line(METER, direction, _SUM, 0)),
    "month_energy_line": lambda: _hours(lambda direction: points.month_energy_line(METER, direction, _SUM, 0)),
    "capacity_lines": lambda: points.capacity_lines(METER, _MONTH, [2.0]),
    "projected_capacity_line": lambda: [points.projected_capacity_line(METER, 1.0, 0)],
    "threshold_line": _limits,
}
"""Function of points.py -> lines that it writes."""


def writers() -> set[str]:
    """The functions of points.py and own_points.py that write lines."""
    return {
        name
        for module in (points, own_points)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name.endswith(("line", "lines")) and not name.startswith("_") and function.__module__ == module.__name__
    }


@cache
def schema() -> dict[str, Kind]:
    """Measurement -> its tags and fields."""
    found: dict[str, Kind] = {}
    for render in SAMPLES.values():
        for line in render():
            measurement, tags, fields = parse(line)
            kind = found.setdefault(measurement, Kind())
            for name, value in tags.items():
                kind.tags.setdefault(name, set()).add(value)
            for name, value in fields.items():
                kind.fields[name] = "string" if value.startswith('"') else "float"
    return found
