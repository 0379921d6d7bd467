"""A list's values -> OBIS entries: the part that every maker's layout with OBIS codes has in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from exporter.meters.clock import to_utc
from exporter.meters.text import safe_text
from exporter.meters.three_wire import without_unmeasured
from exporter.model.obis import ObisCode, describe
from exporter.model.reading import ClockHabit, Measurement, Meter, MeterClock, Reading, Zone
from exporter.protocol.apdu import Notification
from exporter.protocol.axdr import Tag, Value, parse_date_time

# Units that are SI already (domain.md, "Units"); 255 is "no unit".
_UNITS: Final = {
    0x1B: "W",
    0x1C: "VA",
    0x1D: "var",
    0x1E: "Wh",
    0x1F: "VAh",
    0x20: "varh",
    0x21: "A",
    0x23: "V",
    0x2C: "Hz",
    0xFF: "1",
}
_LIST_IDS: Final = frozenset({(1, 1, 0, 2, 129), (1, 0, 0, 2, 129)})
_METER_IDS: Final = frozenset({(0, 0, 96, 1, 0), (1, 1, 0, 0, 5), (1, 1, 0, 0, 1), (0, 0, 96, 1, 1), (0, 0, 42, 0, 0)})
_METER_TYPES: Final = frozenset({(0, 0, 96, 1, 7), (1, 1, 96, 1, 1)})
_CONTAINERS: Final = frozenset({Tag.ARRAY, Tag.STRUCTURE})
_STRINGS: Final = frozenset({Tag.OCTET_STRING, Tag.VISIBLE_STRING, Tag.UTF8_STRING})


@dataclass(frozen=True, slots=True)
class Entry:
    """One OBIS code and what stands behind it; `scaler` and `unit` (DLMS enum) are None where they are not sent."""

    code: ObisCode
    value: Value
    scaler: int | None = None
    unit: int | None = None


def octets_of(value: Value) -> bytes | None:
    """The octets of a string value, None for any other."""
    return value.content if value.tag in _STRINGS and isinstance(value.content, bytes) else None


def number_of(value: Value) -> int | float | None:
    """The number that a value is, None for any other (booleans and numbers that are not finite are none)."""
    content = value.content
    if isinstance(content, bool) or not isinstance(content, int | float) or not math.isfinite(content):
        return None
    return content


def scaled(number: float, scaler: int) -> float:
    """`number` x 10^`scaler`, rounded once, so that 2308 with scaler -1 is 230.8 and nothing beside it."""
    if scaler < 0:
        return number / float(10**-scaler)
    return number * float(10**scaler)


def entries(value: Value) -> Iterator[Entry]:
    """Walk a list and yield whatever is an OBIS code with a value behind it.

    Knows the forms that meters were seen to use: structures {OBIS, value[, {scaler, unit}]}, a flat structure of
    OBIS + value pairs, and of OBIS + value + scaler (+ unit). What is no OBIS code is passed over: version strings,
    and the nulls that stand for an absent object. An OBIS code behind a number is none of these: it is part of the
    attribute descriptors {class, OBIS, attribute, index} that some meters push, and no value follows it.
    """
    if not isinstance(value.content, tuple) or _is_descriptor(value.content):
        return
    elements = value.content
    i = 0
    while i < len(elements):
        element = elements[i]
        code = _code_of(element)
        if code is None:
            yield from entries(element)
            i += 1
        elif i + 1 < len(elements):
            scaler, unit, used = _scaling(elements[i + 2 : i + 4])
            yield Entry(code, elements[i + 1], scaler, unit)
            i += 2 + used
        else:
            return


def _is_descriptor(elements: tuple[Value, ...]) -> bool:
    return len(elements) > 1 and elements[0].tag in (Tag.UINT16, Tag.UINT8) and _code_of(elements[1]) is not None


def _code_of(value: Value) -> ObisCode | None:
    content = value.content
    # Group A ends at 15, text begins at 32: a six-letter name is no code.
    if value.tag is not Tag.OCTET_STRING or not isinstance(content, bytes) or len(content) != 6 or content[0] > 15:
        return None
    return ObisCode.from_octets(content)


def _scaling(following: tuple[Value, ...]) -> tuple[int | None, int | None, int]:
    """Scaler and unit that may follow a value, and how many elements they took."""
    if not following:
        return None, None, 0
    first = following[0]
    if first.tag is Tag.STRUCTURE and isinstance(first.content, tuple):
        inner = [v.content for v in first.content]
        tags = [v.tag for v in first.content]
        if tags == [Tag.INT8, Tag.ENUM] and isinstance(inner[0], int) and isinstance(inner[1], int):
            return inner[0], inner[1], 1
        return None, None, 0
    if first.tag is Tag.INT8 and isinstance(first.content, int):
        if len(following) > 1 and following[1].tag is Tag.ENUM and isinstance(following[1].content, int):
            return first.content, following[1].content, 2
        return first.content, None, 1
    return None, None, 0


@dataclass(frozen=True, slots=True)
class Names:
    """What a list says of itself and its meter, each safe, or None; `named_by` is the value that gave the meter id."""

    list_id: str | None = None
    meter_id: str | None = None
    meter_type: str | None = None
    named_by: Value | None = None


def names_of(found: Iterable[Entry]) -> Names:
    """Find list id, meter id and meter type; the first that says something counts."""
    list_id = meter_id = meter_type = named_by = None
    for entry in found:
        key = entry.code[:5]
        if key in _LIST_IDS:
            list_id = list_id or _text_of(entry.value)
        elif key in _METER_IDS and meter_id is None:
            meter_id, named_by = _text_of(entry.value), entry.value
        elif key in _METER_TYPES:
            meter_type = meter_type or _text_of(entry.value)
    return Names(list_id, meter_id, meter_type, named_by if meter_id else None)


def _text_of(value: Value) -> str | None:
    octets = octets_of(value)
    if octets is not None:
        return safe_text(octets)
    number = number_of(value)
    return None if number is None else str(number)


Scaler: TypeAlias = int | Callable[[float], int]
"""The power of ten of a value, or what tells it from the number sent."""
DefaultScaler: TypeAlias = Callable[[ObisCode], Scaler]
"""Scaler of a code whose frame sends none."""


def scaling_of(entry: Entry, default: DefaultScaler) -> Callable[[float], float]:
    """How an entry's number becomes its value in SI."""
    scaler = default(entry.code) if entry.scaler is None else entry.scaler
    if not isinstance(scaler, int):
        told = scaler
        return lambda number: scaled(number, told(number))
    power = scaler
    return lambda number: scaled(number, power)


def measurements_of(found: Iterable[Entry], default: DefaultScaler) -> tuple[Measurement, ...]:
    """Values in SI. A scaler in the frame wins over the table, a unit in the frame over the catalogue."""
    measured = []
    for entry in found:
        number = number_of(entry.value)
        if number is None or entry.code[:5] in _METER_IDS or entry.code[:5] in _METER_TYPES:
            continue
        known = describe(entry.code)
        unit = known.unit if known else ""
        if entry.unit is not None and not (entry.unit == 0xFF and known):
            unit = _UNITS.get(entry.unit, "")
        value = scaling_of(entry, default)(number)
        if math.isfinite(value):
            measured.append(Measurement(entry.code, value, unit))
    return tuple(measured)


def clock_of(found: Iterable[Entry]) -> Value | None:
    """The clock object of the list (x-y:1.0.0), None where there is none."""
    for entry in found:
        if entry.code[2:5] == (1, 0, 0) and date_time_of(entry.value) is not None:
            return entry.value
    return None


def date_time_of(value: Value) -> MeterClock | None:
    """A date-time, sent as such or as an octet-string of 12; None for any other value."""
    if isinstance(value.content, MeterClock):
        return value.content
    octets = octets_of(value)
    return parse_date_time(octets) if octets is not None and len(octets) == 12 else None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a maker's module makes of a list: which value is what. `reading_of` makes a Reading of it.

    `entries` are the values in order, `scaler` gives the scale of those whose frame sends none, `clock` is the list's
    own. Of a `three_wire` meter the values that it does not measure are zeros. `named_by` gave the meter its id.
    """

    meter: Meter
    list_id: str | None
    entries: tuple[Entry, ...]
    scaler: DefaultScaler
    habit: ClockHabit
    clock: Value | None = None
    three_wire: bool = False
    named_by: Value | None = None


def reading_of(notification: Notification, listing: Listing, zone: Zone) -> Reading:
    """Put a Reading together; the list's own clock goes before the header's."""
    measurements = measurements_of(listing.entries, listing.scaler)
    if listing.three_wire:
        measurements = without_unmeasured(measurements)
    habit = listing.habit
    chosen, in_list = notification.date_time, False
    clock = None if chosen is None else to_utc(chosen, habit, zone)
    list_clock = None if listing.clock is None else date_time_of(listing.clock)
    if list_clock is not None:
        own = to_utc(list_clock, habit, zone)
        if own is not None:
            chosen, clock, in_list = list_clock, own, True
    if clock is None:
        chosen = None
    return Reading(listing.meter, listing.list_id, measurements, chosen, clock, habit, in_list)
