"""A list's values -> OBIS entries: what all layouts with OBIS codes have in common."""

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

# The units (IEC 62056-62, enum; docs/protocol.md) that are SI already; 255 is "no unit".
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
    """One OBIS code and its value; `scaler` and `unit` (DLMS enum) are None if they are not sent."""

    code: ObisCode
    value: Value
    scaler: int | None = None
    unit: int | None = None


def bytes_of(value: Value) -> bytes | None:
    """The bytes of a string value, None for any other value."""
    return value.content if value.tag in _STRINGS and isinstance(value.content, bytes) else None


def number_of(value: Value) -> int | float | None:
    """The number in a value; None for any other value, for a boolean and for a number that is not finite."""
    content = value.content
    if isinstance(content, bool) or not isinstance(content, int | float) or not math.isfinite(content):
        return None
    return content


def scaled(number: float, scaler: int) -> float:
    """`number` x 10^`scaler`, rounded only once: 2308 with scaler -1 is exactly the float 230.8."""
    if scaler < 0:
        return number / float(10**-scaler)
    return number * float(10**scaler)


def entries(value: Value) -> Iterator[Entry]:
    """Go through a list and yield each OBIS code that is followed by a value.

    This knows the forms that meters have been seen to use: structures {OBIS, value[, {scaler, unit}]}, a flat structure
    of OBIS + value pairs, and one of OBIS + value + scaler (+ unit). Anything else is skipped: version strings, and the
    nulls in place of an absent object. An OBIS code after a number is skipped too: it is part of the attribute
    descriptors {class, OBIS, attribute, index} that some meters send, and has no value.
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
    # Group A is at most 15 and text begins at 32, so a name of six letters is not a code.
    if value.tag is not Tag.OCTET_STRING or not isinstance(content, bytes) or len(content) != 6 or content[0] > 15:
        return None
    return ObisCode.from_bytes(content)


def _scaling(following: tuple[Value, ...]) -> tuple[int | None, int | None, int]:
    """Scaler and unit that may follow a value, and how many elements they are."""
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
    """What a list says about itself and its meter: safe text, or None. `named_by` is the value with the meter id."""

    list_id: str | None = None
    meter_id: str | None = None
    meter_type: str | None = None
    named_by: Value | None = None


def names_of(found: Iterable[Entry]) -> Names:
    """Find list id, meter id and meter type; the first of each that is not empty is used."""
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
    text = bytes_of(value)
    if text is not None:
        return safe_text(text)
    number = number_of(value)
    return None if number is None else str(number)


Scaler: TypeAlias = int | Callable[[float], int]
"""The power of ten of a value, or a function that gives it for the number sent."""
DefaultScaler: TypeAlias = Callable[[ObisCode], Scaler]
"""The scaler of a code for which the frame has none."""


def scaling_of(entry: Entry, default: DefaultScaler) -> Callable[[float], float]:
    """A function that makes an entry's number its value in SI."""
    scaler = default(entry.code) if entry.scaler is None else entry.scaler
    if not isinstance(scaler, int):
        scaler_of = scaler
        return lambda number: scaled(number, scaler_of(number))
    power = scaler
    return lambda number: scaled(number, power)


def measurements_of(found: Iterable[Entry], default: DefaultScaler) -> tuple[Measurement, ...]:
    """Values in SI. The frame's own scaler and unit are used rather than those of `default` and of the catalogue."""
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
    """The clock object of the list (x-y:1.0.0), None without one."""
    for entry in found:
        if entry.code[2:5] == (1, 0, 0) and date_time_of(entry.value) is not None:
            return entry.value
    return None


def date_time_of(value: Value) -> MeterClock | None:
    """A date-time, sent as such or as an octet-string of 12 bytes; None for any other value."""
    if isinstance(value.content, MeterClock):
        return value.content
    data = bytes_of(value)
    return parse_date_time(data) if data is not None and len(data) == 12 else None


@dataclass(frozen=True, slots=True)
class Listing:
    """What each value of a list is, as a maker's module found; `reading_of` makes a Reading of it.

    `entries` are the values in order, `scaler` gives the scale of those for which the frame has none, `clock` is the
    clock in the list. A `three_wire` meter sends 0 for what it does not measure. `named_by` has the meter id.
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
    """Build the Reading. The clock in the list is preferred to the clock in the header."""
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
