"""Points as line protocol and back: how a series is written, which meter a line is of, which points are replaced.

Source: InfluxDB's documentation, "Line protocol". Times are whole milliseconds since 1970 in UTC. docs/schema.md lists
all measurements.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from exporter.model.calendar import HOUR_MS
from exporter.model.obis import ObisCode, describe

__all__ = [
    "OTHER",
    "REPLACED_MEASUREMENTS",
    "Row",
    "escaped",
    "is_of",
    "line",
    "measured_series",
    "meter_tag",
    "replaced_key",
    "rows_of",
    "series",
    "tag",
    "text_field",
    "without",
]

OTHER: Final = "other"
"""Measurement of values whose code is not in the catalogue, or whose unit is not that of the catalogue."""

REPLACED_MEASUREMENTS: Final = frozenset({"hour_energy", "day_energy", "month_energy", "capacity", "capacity_step"})
"""Measurements whose points are written again with newer values: the newest value must be written last.

This includes final hours: a capture that is imported later can have a register that was not received before.
"""
_TAG_ESCAPES: Final = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})
_FIELD_ESCAPES: Final = str.maketrans({'"': '\\"', "\\": "\\\\"})


class Row(NamedTuple):
    """Lines for a sink, and what they replace.

    `body` is one line or more, with "\\n" between them, as UTF-8. If `key` is not empty, `body` is one line, a version
    of the point with this key, and a later row with the same key replaces it.
    """

    body: bytes
    key: str = ""


def rows_of(lines: Iterable[str]) -> list[Row]:
    """Lines as rows: first one row with all lines that replace nothing, then one row for each other line.

    A point is identified by series and time, so the order matters only for versions of the same point.
    """
    plain: list[str] = []
    keyed: list[Row] = []
    for one in lines:
        key = replaced_key(one)
        if key:
            keyed.append(Row(one.encode(), key))
        else:
            plain.append(one)
    return [*([Row("\n".join(plain).encode())] if plain else []), *keyed]


def replaced_key(line: str) -> str:
    """Series and time of a line that is a version of a point; empty for a line that is never replaced.

    A replaced point has the start of an hour as its time. Points of the running hour have the present time, and are
    not replaced.
    """
    if line.partition(",")[0] not in REPLACED_MEASUREMENTS:
        return ""
    series, _, rest = line.partition(" value=")
    stamp = rest.rpartition(" ")[2]
    return f"{series} {stamp}" if stamp.isdecimal() and int(stamp) % HOUR_MS == 0 else ""


def meter_tag(meter_id: str) -> str:
    """A text that every line of a meter contains, and hardly any other line."""
    return f",{tag('meter_id', meter_id)}"


def is_of(meter_id: str) -> Callable[[str], bool]:
    """A function that says whether a line has this meter in its tags; the text of a field does not count."""
    # Measurement and tags end with the first blank that has no backslash before it.
    start = re.compile(rf"(?:[^\\ ]|\\.)*?{re.escape(meter_tag(meter_id))}(?=[ ,])")
    return lambda line: start.match(line) is not None


def without(rows: Iterable[Row], meter_id: str) -> list[Row]:
    """The rows without a meter's lines."""
    doomed = is_of(meter_id)
    left = []
    for row in rows:
        lines = row.body.decode().split("\n")
        kept = [one for one in lines if not doomed(one)]
        if len(kept) == len(lines):
            left.append(row)
        elif kept:
            left.append(Row("\n".join(kept).encode(), row.key))
    return left


def escaped(value: str) -> str:
    """A tag's value as it is written in a line."""
    return value.translate(_TAG_ESCAPES)


def tag(name: str, value: str) -> str:
    """A tag as it is written in a line."""
    return f"{name}={value.translate(_TAG_ESCAPES)}"


def text_field(text: str) -> str:
    """A text as the value of a field, with blanks in place of line ends."""
    return f'"{" ".join(text.split()).translate(_FIELD_ESCAPES)}"'


@lru_cache(maxsize=4096)
def series(measurement: str, tags: tuple[tuple[str, str], ...]) -> str:
    """A measurement and its tags as they are written in a line; tags without a value are left out."""
    return ",".join([measurement, *(tag(name, value) for name, value in tags if value)])


def line(measurement: str, ms: int, value: float, *tags: tuple[str, str], **more: float) -> str:
    """A line with only floats as fields, so that the type of a field never changes."""
    fields = "".join(f",{name}={float(number)!r}" for name, number in more.items())
    return f"{series(measurement, tags)} value={float(value)!r}{fields} {ms}"


@lru_cache(maxsize=4096)
def measured_series(meter_id: str, obis: ObisCode, unit: str) -> tuple[str, bool]:
    """The series of a value from a meter, and whether it is an energy register."""
    quantity = describe(obis)
    if quantity is None or quantity.unit != unit:
        return series(OTHER, (("meter_id", meter_id), ("obis", str(obis)), ("unit", unit))), False
    tags = (
        ("direction", quantity.direction),
        ("meter_id", meter_id),
        ("obis", str(obis)),
        ("phase", quantity.phase),
    )
    return series(quantity.name, tags), quantity.is_register
