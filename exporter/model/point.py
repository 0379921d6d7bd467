"""Points as line protocol, and back: how a series is written, whose a line is, which points are replaced.

Source: InfluxDB's documents, "Line protocol". Times are whole milliseconds since 1970 in UTC. Every measurement is
listed in docs/schema.md.
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
    "is_replaced",
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
"""Measurement of values whose code the catalogue does not know, or whose unit is not the catalogue's."""

REPLACED_MEASUREMENTS: Final = frozenset({"hour_energy", "day_energy", "month_energy", "capacity", "capacity_step"})
"""Measurements whose points are written again with newer values: the newest must be the last to arrive.

A final hour is one too: a capture that is imported later can have a register that was received better.
"""
_TAG_ESCAPES: Final = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})
_FIELD_ESCAPES: Final = str.maketrans({'"': '\\"', "\\": "\\\\"})


class Row(NamedTuple):
    """Lines on their way to a sink, and what they replace.

    `body` is one line or several, "\\n" between them, encoded as UTF-8. `key` names the point that the one line in
    `body` is a version of: a later row with the same key replaces it. Empty where nothing is replaced.
    """

    body: bytes
    key: str = ""


def rows_of(lines: Iterable[str]) -> list[Row]:
    """Lines as rows: those that replace nothing in one row, which comes first, then a row for each of the others.

    Points are told apart by series and time, so only versions of one point have an order that matters.
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
    """Series and time of a line that is a version of a point which others follow; empty for any other line.

    Such a point is stamped at the start of an hour. Those of the running hour are stamped now, and stay.
    """
    if line.partition(",")[0] not in REPLACED_MEASUREMENTS:
        return ""
    series, _, rest = line.partition(" value=")
    stamp = rest.rpartition(" ")[2]
    return f"{series} {stamp}" if stamp.isdecimal() and int(stamp) % HOUR_MS == 0 else ""


def is_replaced(line: str) -> bool:
    """Whether a line is a version of a point that others follow."""
    return bool(replaced_key(line))


def meter_tag(meter_id: str) -> str:
    """A text that every line of a meter contains, and hardly any other."""
    return f",{tag('meter_id', meter_id)}"


def is_of(meter_id: str) -> Callable[[str], bool]:
    """A function that says whether a line is of this meter: by its tag, not by the text of a field."""
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
    """A tag's value as it stands in a line."""
    return value.translate(_TAG_ESCAPES)


def tag(name: str, value: str) -> str:
    """A tag as it stands in a line."""
    return f"{name}={value.translate(_TAG_ESCAPES)}"


def text_field(text: str) -> str:
    """A text, put on one line, as the value of a field."""
    return f'"{" ".join(text.split()).translate(_FIELD_ESCAPES)}"'


@lru_cache(maxsize=4096)
def series(measurement: str, tags: tuple[tuple[str, str], ...]) -> str:
    """A measurement and its tags as they stand in a line; tags without a value are left out."""
    return ",".join([measurement, *(tag(name, value) for name, value in tags if value)])


def line(measurement: str, ms: int, value: float, *tags: tuple[str, str], **more: float) -> str:
    """A line whose fields are floats, every one, so that no later version changes a field's type."""
    fields = "".join(f",{name}={float(number)!r}" for name, number in more.items())
    return f"{series(measurement, tags)} value={float(value)!r}{fields} {ms}"


@lru_cache(maxsize=4096)
def measured_series(meter_id: str, obis: ObisCode, unit: str) -> tuple[str, bool]:
    """The series of a value that a meter sent, and whether it is an energy register."""
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
