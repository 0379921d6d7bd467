"""What InfluxDB must have for given frames, calculated without the product: docs/schema.md by hand."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from exporter.meters import interpret
from exporter.model.reading import Reading
from exporter.protocol.apdu import decode
from exporter.protocol.hdlc import Deframer, Frame
from tests.support.influx_server import Point
from tests.support.octets import crc_x25, expected, frames_of

HOUR = 3_600_000
OF_EXPORTER = frozenset({"exporter", "event", "reading_age"})
"""Measurements about the exporter itself."""
DERIVED = frozenset(
    {"power_factor", "phase_unbalance", "fuse_load", "hour_energy", "day_energy", "month_energy", "threshold"}
    | {"capacity", "capacity_step", "meter"}
)


_FLOWS = {1: ("active", "import"), 2: ("active", "export"), 3: ("reactive", "import"), 4: ("reactive", "export")}
_UNITS = {"active_power": "W", "reactive_power": "var", "active_energy": "Wh", "reactive_energy": "varh"}
_UNITS |= {"current": "A", "voltage": "V"}
_OF_METERS = frozenset({*_UNITS, "meter_clock_offset"})


def quantity(obis: str) -> tuple[str, dict[str, str]]:
    """`1-0:21.7.0` -> measurement, and its tags except meter_id."""
    match = re.fullmatch(r"1-[01]:(\d+)\.([78])\.0", obis)
    assert match is not None, obis
    c, d = int(match[1]), int(match[2])
    tags = {"obis": obis}
    if c in (31, 51, 71, 32, 52, 72):
        assert d == 7
        return ("current" if c % 10 == 1 else "voltage"), tags | {"phase": f"L{c // 10 // 2}"}
    kind, direction = _FLOWS[c % 20]
    tags |= {"phase": f"L{c // 20}"} if c > 20 else {}
    return f"{kind}_{'power' if d == 7 else 'energy'}", tags | {"direction": direction}


def obis_of(row_key: str, maker: str | None) -> str:
    """`active_power_import_l1` of expected.json -> the OBIS code with which that maker sends it."""
    match = re.fullmatch(r"(active|reactive)_(power|energy)_(import|export)(?:_l([123]))?", row_key)
    a_b = "1-1" if maker == "Kamstrup" else "1-0"
    if match is not None:
        c = {flow: number for number, flow in _FLOWS.items()}[match[1], match[3]] + 20 * int(match[4] or 0)
        return f"{a_b}:{c}.{7 if match[2] == 'power' else 8}.0"
    match = re.fullmatch(r"(current|voltage)_l([123])", row_key)
    assert match is not None, row_key
    return f"{a_b}:{20 * int(match[2]) + (11 if match[1] == 'current' else 12)}.7.0"


def point(obis: str, meter_id: str, time: int, value: float) -> Point:
    """The point of a value that a meter sent."""
    measurement, tags = quantity(obis)
    tags["meter_id"] = meter_id
    return Point(measurement, tuple(sorted(tags.items())), time, (("value", value),))


def offset_point(meter_id: str, time: int, seconds: float) -> Point:
    """The point with the difference between the meter's clock and ours."""
    return Point("meter_clock_offset", (("meter_id", meter_id),), time, (("value", seconds),))


def row_values(row: Mapping[str, Any]) -> dict[str, float]:
    """A row of expected.json -> its values by OBIS code."""
    names = {"maker", "meter_id", "meter_type", "clock_utc"}
    return {
        obis_of(key, row.get("maker")): value for key, value in row.items() if key not in names and value is not None
    }


def row_clock(row: Mapping[str, Any]) -> int | None:
    """A row's clock in ms."""
    return None if row.get("clock_utc") is None else to_ms(datetime.fromisoformat(row["clock_utc"]))


def row_points(
    rows: Iterable[Mapping[str, Any]], fallback: str, received: Iterable[int | None] = itertools.repeat(None)
) -> set[Point]:
    """The points of rows of expected.json, as one source that sends them in this order.

    Only for clocks that agree with `received`, and for captures of one meter: all rows get its id, or `fallback` if it
    has none. A row without a time stamp and without a clock has no points.
    """
    rows = list(rows)
    name = next((row["meter_id"] for row in rows if row.get("meter_id")), fallback)
    used: set[int] = set()
    hours: dict[tuple[int, tuple[float, ...]], int] = {}
    found = set()
    for row, stamp in zip(rows, received, strict=False):
        clock = row_clock(row)
        time = stamp if stamp is not None else clock
        if time is None:
            continue
        while time in used:  # each reading of a source has another millisecond
            time += 1
        used.add(time)
        values = row_values(row)
        registers = tuple(value for obis, value in values.items() if ".8." in obis)
        register_time = time
        if registers and clock is not None and clock % HOUR < 60_000:
            hour = clock - clock % HOUR
            first = hour not in hours.values()
            register_time = hours.setdefault((clock, registers), hour if first else time)
        for obis, value in values.items():
            found.add(point(obis, name, register_time if ".8." in obis else time, value))
        if stamp is not None and clock is not None:
            found.add(offset_point(name, time, (clock - stamp) / 1000))
    return found


def read(data: bytes) -> Reading:
    """The reading of one whole frame."""
    (frame,) = Deframer().feed(data)
    assert isinstance(frame, Frame)
    return interpret(decode(frame.content))


def reading_points(reading: Reading, meter_id: str, time: int, hours: set[int]) -> set[Point]:
    """The points of a list that is received at `time` (ms). `hours` are the hours that earlier lists began."""
    hour = None
    clock = None if reading.clock is None else to_ms(reading.clock)
    if reading.list_clock:
        hour = register_hour(clock, time)
        hour = None if hour in hours else hour
        hours |= set() if hour is None else {hour}
    found = set()
    for measurement in reading.measurements:
        obis = str(measurement.obis)
        name, _ = quantity(obis)
        assert measurement.unit == _UNITS[name]
        register_time = time if hour is None else hour
        found.add(point(obis, meter_id, register_time if ".8." in obis else time, measurement.value))
    if clock is not None:
        found.add(offset_point(meter_id, time, (clock - time) / 1000))
    return found


def register_hour(clock: int | None, received: int) -> int | None:
    """The full hour that is the time of a list's registers; None if it is `received` (docs/schema.md)."""
    if clock is None or clock % HOUR >= 60_000:
        return None
    assert abs(clock - received) <= 5 * 60_000, "only for right clocks"
    return clock - clock % HOUR


def times_of(points: Iterable[Point], meter_id: str) -> list[int]:
    """When the meter's lists were received: every list has the imported power."""
    return sorted(
        p.time
        for p in points
        if p.measurement == "active_power"
        and {("meter_id", meter_id), ("direction", "import")} <= set(p.tags)
        and not any(name == "phase" for name, _ in p.tags)
    )


def powers(points: set[Point]) -> dict[str, list[float]]:
    """Meter id -> its powers, in the order of time."""
    found: dict[str, list[float]] = {}
    for p in sorted(points, key=lambda p: p.time):
        if p.measurement == "active_power":
            found.setdefault(dict(p.tags)["meter_id"], []).append(dict(p.fields)["value"])
    return found


def points_of_lists(points: Collection[Point], meter_id: str, frames: Sequence[bytes]) -> set[Point]:
    """The points of these frames, and no others, with the times at which they were found."""
    times = times_of(points, meter_id)
    assert len(times) == len(frames), f"{meter_id}: {len(frames)} frames were sent, {len(times)} were found"
    hours: set[int] = set()
    lists = zip(times, map(read, frames), strict=True)
    return {p for time, reading in lists for p in reading_points(reading, meter_id, time, hours)}


def assert_same(found: Collection[Point], wanted: Collection[Point]) -> None:
    """Both are the same, and not empty."""
    assert wanted, "nothing is wanted, so nothing would be compared"
    wanted_points, found_points = set(map(_in_ms, wanted)), set(map(_in_ms, found))
    missing, surplus = wanted_points - found_points, found_points - wanted_points
    lines = [f"{len(missing)} are missing of {len(wanted)}:", *map(str, sorted(missing)[:5])]
    lines += [f"{len(surplus)} too many:", *map(str, sorted(surplus)[:5])]
    assert not missing and not surplus, "\n".join(lines)


def _in_ms(one: Point) -> Point:
    """A clock's offset is exact to the microsecond, and the time that it is compared with is rounded down to ms."""
    if one.measurement != "meter_clock_offset":
        return one
    return one._replace(fields=tuple((name, math.ceil(round(1000 * value, 3))) for name, value in one.fields))


def of_meters(points: Iterable[Point]) -> set[Point]:
    """The points of what meters sent. Derived points have their own tests."""
    points = set(points)
    unknown = {p.measurement for p in points} - _OF_METERS - OF_EXPORTER - DERIVED
    assert not unknown, f"the schema has no {unknown}"
    return {p for p in points if p.measurement in _OF_METERS}


def of_exporter(points: Iterable[Point]) -> set[Point]:
    """The points about the exporter itself."""
    return {p for p in points if p.measurement in OF_EXPORTER}


def to_ms(moment: datetime) -> int:
    """UTC -> ms since 1970."""
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)


def line_points(text: str) -> set[Point]:
    """Line protocol -> points, for ids without blanks, commas and equals signs."""
    found = set()
    for line in text.splitlines():
        series, field, time = line.split(" ")
        measurement, *tags = series.split(",")
        name, value = field.split("=")
        pairs = tuple(sorted((k, v) for k, _, v in (tag.partition("=") for tag in tags)))
        found.add(Point(measurement, pairs, int(time), ((name, float(value)),)))
    return found


def with_mark(name: str, mark: str) -> tuple[list[bytes], list[dict[str, Any]]]:
    """A capture of tests/captures and its rows, with six digits of every meter id replaced, for one test only."""
    frames, rows = [], []
    ids = sorted({row["meter_id"] for row in expected()[name] if row.get("meter_id")})
    for data, row in zip(frames_of(name), expected()[name], strict=True):
        body = data[1:-3]
        for meter_id in ids:
            body = body.replace(meter_id.encode(), (meter_id[:-6] + mark).encode())
        frames.append(b"\x7e" + body + crc_x25(body) + b"\x7e")
        rows.append(row | ({"meter_id": row["meter_id"][:-6] + mark} if row.get("meter_id") else {}))
    return frames, rows
