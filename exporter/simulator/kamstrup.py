"""Kamstrup OMNIPOWER: the 10 s list and the hourly list (Kamstrup HAN-NVE rev. 3.1, and captures).

A flat structure: the version id of the list, then OBIS code and value in turn. Every header has the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from exporter.model.reading import MeterClock
from exporter.protocol.apdu import Notification
from exporter.protocol.axdr import Tag, Value
from exporter.simulator.encoder import (
    Addresses,
    frame,
    information,
    local_clock,
    number,
    stamp,
    standard_time,
    text,
)
from exporter.simulator.sample import Flows, Identity, Sample

LIST_ID: Final = b"Kamstrup_V0001"
ADDRESSES: Final = Addresses(b"\x2b", b"\x21", 0x13)

_METER_ID: Final = Value(Tag.OCTET_STRING, bytes((1, 1, 0, 0, 5, 255)))
_METER_TYPE: Final = Value(Tag.OCTET_STRING, bytes((1, 1, 96, 1, 1, 255)))
_CLOCK: Final = Value(Tag.OCTET_STRING, bytes((0, 1, 1, 0, 0, 255)))
_NULL: Final = Value(Tag.NULL, None)


def _codes(group_c: Sequence[int], group_d: int) -> tuple[Value, ...]:
    return tuple(Value(Tag.OCTET_STRING, bytes((1, 1, c, group_d, 0, 255))) for c in group_c)


_POWER: Final = _codes((1, 2, 3, 4), 7)
_CURRENT: Final = _codes((31, 51, 71), 7)
_VOLTAGE: Final = _codes((32, 52, 72), 7)
_ENERGY: Final = _codes((1, 2, 3, 4), 8)


def clock(moment: datetime, zone: ZoneInfo) -> MeterClock:
    """The meter's clock: local standard time all year, deviation not specified (captures)."""
    return local_clock(standard_time(moment, zone), deviation=None)


def list1(
    meter: Identity, sample: Sample, clock: MeterClock, *, tagged_clock: bool = False, nulls: bool = True
) -> bytes:
    """The frame of the 10 s list.

    A phase that is None becomes two nulls in place of the pair; with `nulls` False it is left out. Currents are in
    0.01 A, those of a type 685… (CT) in 0.001 A. Raises ValueError if a value does not fit.
    """
    return _frame(clock, _list1(meter, sample, nulls), tagged_clock)


def hourly(
    meter: Identity, sample: Sample, clock: MeterClock, *, tagged_clock: bool = False, nulls: bool = True
) -> bytes:
    """The frame of the hourly list: list 1, clock, registers.

    Registers are in full 10 Wh, those of a type …09x (Sweden) in Wh. Raises ValueError if a value does not fit or the
    sample has no registers.
    """
    if sample.registers is None:
        raise ValueError("an hourly list needs registers")
    elements = [*_list1(meter, sample, nulls), _CLOCK, stamp(clock)]
    step = 1 if meter.type[-3:-1] == b"09" else 10
    elements += _energies(sample.registers, step)
    return _frame(clock, elements, tagged_clock)


def _list1(meter: Identity, sample: Sample, nulls: bool) -> list[Value]:
    elements = [text(Tag.VISIBLE_STRING, LIST_ID)]
    elements += [_METER_ID, text(Tag.VISIBLE_STRING, meter.id)]
    elements += [_METER_TYPE, text(Tag.VISIBLE_STRING, meter.type)]
    elements += _pairs(_POWER, sample.power, Tag.UINT32, 1, nulls)
    per_ampere = 1000 if meter.type.startswith(b"685") else 100
    elements += _pairs(_CURRENT, sample.currents, Tag.UINT32, per_ampere, nulls)
    elements += _pairs(_VOLTAGE, sample.voltages, Tag.UINT16, 1, nulls)
    return elements


def _pairs(
    codes: Iterable[Value], values: Iterable[float | None], tag: Tag, per_unit: float, nulls: bool
) -> Iterable[Value]:
    for code, value in zip(codes, values, strict=True):
        if value is not None:
            yield from (code, number(tag, value, per_unit))
        elif nulls:
            yield from (_NULL, _NULL)


def _energies(registers: Flows, step: int) -> Iterable[Value]:
    for code, value in zip(_ENERGY, registers, strict=True):
        yield from (code, Value(Tag.UINT32, int(value // step)))


def _frame(clock: MeterClock, elements: list[Value], tagged_clock: bool) -> bytes:
    notification = Notification(0, clock, Value(Tag.STRUCTURE, tuple(elements)))
    return frame(ADDRESSES, information(notification, tagged_clock=tagged_clock))
