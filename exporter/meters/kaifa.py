"""Kaifa MA105 and MA304: a structure of plain values, whose meaning is given by their position.

Source: Kaifa KFM_001 interface description. Swedish meters: their captures. Some send the same positions, some a flat
structure of OBIS + value pairs, with or without scalers.
"""

from __future__ import annotations

import re
from typing import Final

from exporter.meters.entries import (
    Entry,
    Listing,
    bytes_of,
    clock_of,
    date_time_of,
    entries,
    names_of,
)
from exporter.meters.text import safe_text
from exporter.model.obis import ObisCode, describe
from exporter.model.reading import ClockHabit, Meter
from exporter.protocol.apdu import Notification
from exporter.protocol.axdr import DecodeError, Tag, Value

MAKER: Final = "Kaifa"
_LIST: Final = b"KFM_"
_THREE_WIRE: Final = re.compile(r"MA304[A-Z]3.*")
"""Types for the 3-wire net (MA304H3E, and MA304T3 in captures). They send U2 = 0, and I2 = 0 if not measured."""


def _codes(*tails: str) -> tuple[ObisCode, ...]:
    return tuple(ObisCode.parse(f"1-0:{tail}.0") for tail in tails)


_POWERS: Final = _codes("1.7", "2.7", "3.7", "4.7")
_ONE_PHASE: Final = _POWERS + _codes("31.7", "32.7")
_THREE_PHASES: Final = _POWERS + _codes("31.7", "51.7", "71.7", "32.7", "52.7", "72.7")
_REGISTERS: Final = _codes("1.8", "2.8", "3.8", "4.8")
_NAMES: Final = 3
"""Elements before the values: list version id, meter id, meter type."""
# Number of elements -> the codes of the values after the names, and whether clock and registers follow them.
_LAYOUTS: Final = {
    _NAMES + len(_ONE_PHASE): (_ONE_PHASE, False),
    _NAMES + len(_THREE_PHASES): (_THREE_PHASES, False),
    _NAMES + len(_ONE_PHASE) + 5: (_ONE_PHASE, True),
    _NAMES + len(_THREE_PHASES) + 5: (_THREE_PHASES, True),
}


def read(notification: Notification) -> Listing | None:
    """Read any Kaifa list; None if it is not one. Raises DecodeError for a Kaifa list of an unknown length."""
    value = notification.value
    elements = value.content
    if value.tag is not Tag.STRUCTURE or not isinstance(elements, tuple) or not elements:
        return None
    if len(elements) == 1 and elements[0].tag in (Tag.UINT32, Tag.INT32):  # list 1: active power alone
        return Listing(Meter(maker=MAKER), None, (Entry(_POWERS[0], elements[0]),), _scaler, ClockHabit.CIVIL)
    found = tuple(entries(value))
    return _read_obis(found) if found else _read_positions(elements)


def _read_positions(elements: tuple[Value, ...]) -> Listing | None:
    version = bytes_of(elements[0])
    if version is None or not version.startswith(_LIST):
        return None
    layout = _LAYOUTS.get(len(elements))
    if layout is None:
        raise DecodeError(0, f"unknown list {safe_text(version)} of {len(elements)} elements")
    codes, hourly = layout
    named = [bytes_of(element) for element in elements[1:_NAMES]]
    meter_id, meter_type = (None if name is None else safe_text(name) for name in named)
    values = list(zip(codes, elements[_NAMES:], strict=False))
    clock = None
    if hourly:
        clock = elements[_NAMES + len(codes)]
        values += zip(_REGISTERS, elements[_NAMES + len(codes) + 1 :], strict=True)
    return Listing(
        Meter(meter_id, MAKER, meter_type),
        safe_text(version),
        tuple(Entry(code, element) for code, element in values),
        _scaler,
        ClockHabit.CIVIL,
        clock if clock is not None and date_time_of(clock) is not None else None,
        three_wire=_is_three_wire(meter_type),
        named_by=elements[1] if meter_id else None,
    )


def _read_obis(found: tuple[Entry, ...]) -> Listing | None:
    names = names_of(found)
    if not (names.list_id or "").startswith(_LIST.decode()):
        return None
    return Listing(
        Meter(names.meter_id, MAKER, names.meter_type),
        names.list_id,
        found,
        _scaler,
        ClockHabit.CIVIL,
        clock_of(found),
        three_wire=_is_three_wire(names.meter_type),
        named_by=names.named_by,
    )


def _is_three_wire(meter_type: str | None) -> bool:
    return _THREE_WIRE.fullmatch(meter_type or "") is not None


def _scaler(code: ObisCode) -> int:
    quantity = describe(code)
    if quantity is None:
        return 0
    return {"current": -3, "voltage": -1}.get(quantity.name, 0)
