"""Reading -> line protocol. The schema (design.md, "InfluxDB schema") lives here and nowhere else.

Measurement = quantity; tags meter_id, obis, phase, direction; one float field `value`; precision ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from exporter.placing import Placed
from exporter.protocol.obis import ObisCode, describe

OTHER: Final = "other"
"""Measurement of values whose code the catalogue does not know, or whose unit is not the catalogue's."""

_TAG_ESCAPES: Final = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})
_FIELD_ESCAPES: Final = str.maketrans({'"': '\\"', "\\": "\\\\"})


def lines(placed: Placed) -> Iterator[str]:
    """The lines of the values that the meter sent, without a time stamp where nothing told the time."""
    for measurement in placed.reading.measurements:
        key, is_register = _series(placed.meter_id, measurement.obis, measurement.unit)
        time = placed.register_time if is_register else placed.time
        yield f"{key} value={measurement.value!r}" if time is None else f"{key} value={measurement.value!r} {time}"


def clock_offset_lines(placed: Placed) -> Iterator[str]:
    """How far the meter's clock is from ours, s, for each list that has a clock and was timed by us."""
    if placed.clock_offset is not None:
        yield f"meter_clock_offset,{_tag('meter_id', placed.meter_id)} value={placed.clock_offset!r} {placed.time}"


def reading_age_line(meter_id: str, age_s: float, ms: int) -> str:
    """Age of a meter's last reading, s."""
    return f"reading_age,{_tag('meter_id', meter_id)} value={age_s!r} {ms}"


def exporter_line(instance: str, fields: Mapping[str, int | float], ms: int) -> str:
    """The exporter's own counters; every field a float, so that no later version changes a field's type."""
    text = ",".join(f"{name}={float(value)!r}" for name, value in sorted(fields.items()))
    return f"exporter,{_tag('instance', instance)} {text} {ms}"


def event_line(instance: str, kind: str, text: str, ms: int) -> str:
    """Something an owner may want to see as a mark on a graph."""
    return f'event,{_tag("instance", instance)},{_tag("kind", kind)} text="{_one_line(text)}" {ms}'


@lru_cache(maxsize=4096)
def _series(meter_id: str, obis: ObisCode, unit: str) -> tuple[str, bool]:
    quantity = describe(obis)
    if quantity is None or quantity.unit != unit:
        tags = [_tag("meter_id", meter_id), _tag("obis", str(obis))] + ([_tag("unit", unit)] if unit else [])
        return ",".join([OTHER, *tags]), False
    tags = [_tag("direction", quantity.direction)] if quantity.direction else []
    tags += [_tag("meter_id", meter_id), _tag("obis", str(obis))]
    tags += [_tag("phase", quantity.phase)] if quantity.phase else []
    return ",".join([quantity.name, *tags]), quantity.is_register


def _tag(name: str, value: str) -> str:
    return f"{name}={value.translate(_TAG_ESCAPES)}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).translate(_FIELD_ESCAPES)
