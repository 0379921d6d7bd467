"""Aidon 65xx: lists 1, 2 and 3 (Aidon HAN v1.1A, and captures), its Swedish list, and Landis+Gyr E350 in that form.

An array of structures {OBIS code, value} and {OBIS code, value, {scaler, unit}}. The header has no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple
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

ADDRESSES: Final = Addresses(b"\x41", b"\x08\x83", 0x13)
_INVOKE_ID: Final = 0x40000000

_W, _VAR, _WH, _VARH, _A, _V = 0x1B, 0x1D, 0x1E, 0x20, 0x21, 0x23


class Form(NamedTuple):
    """What differs between the makers that use this form: list version id, and decimals of a current."""

    list_id: bytes
    ampere_decimals: int


AIDON: Final = Form(b"AIDON_V0001", 1)
E350: Final = Form(b"EMBRIQ_V1_1", 2)
"""Landis+Gyr E350 in Norway. It fills its meter id with NULs up to 16 bytes."""


def clock(moment: datetime, zone: ZoneInfo) -> MeterClock:
    """The clock of list 3: the full hour in local standard time, deviation 0, Sunday 0 (captures)."""
    hour = standard_time(moment, zone).replace(minute=0, second=0)
    return local_clock(hour, deviation=0, sunday=0)


def list1(sample: Sample) -> bytes:
    """The frame of the 2.5 s list: only P+."""
    return _frame([_scaled(1, 7, Tag.UINT32, sample.power.active_import, 0, _W)])


def list2(meter: Identity, sample: Sample, form: Form = AIDON) -> bytes:
    """The frame of the 10 s list; a current or voltage that is None is left out.

    Raises ValueError if a value does not fit.
    """
    return _frame(_list2(meter, sample, form))


def list3(meter: Identity, sample: Sample, clock: MeterClock, form: Form = AIDON) -> bytes:
    """The frame of the hourly list: list 2, clock, registers in full 10 Wh.

    Raises ValueError if a value does not fit or the sample has no registers.
    """
    elements = _list2(meter, sample, form)
    elements.append(_plain((0, 0, 1, 0, 0, 255), stamp(clock)))
    elements += _energies(sample, 1)
    return _frame(elements)


def swedish(sample: Sample, clock: MeterClock) -> bytes:
    """The frame of the Swedish list of 27 elements: no meter id, power of each phase, registers in Wh.

    Raises ValueError if a value does not fit, or phase powers or registers are missing.
    """
    if sample.phase_power is None:
        raise ValueError("the Swedish list needs the power of each phase")
    elements = [_plain((0, 0, 1, 0, 0, 255), stamp(clock))]
    elements += _powers(0, sample.power)
    elements += _phases(sample, AIDON)
    for group_c, power in zip((20, 40, 60), sample.phase_power, strict=True):
        elements += _powers(group_c, power)
    elements += _energies(sample, 0)
    return _frame(elements)


def _list2(meter: Identity, sample: Sample, form: Form) -> list[Value]:
    return [
        _plain((1, 1, 0, 2, 129, 255), text(Tag.VISIBLE_STRING, form.list_id)),
        _plain((0, 0, 96, 1, 0, 255), text(Tag.VISIBLE_STRING, meter.id)),
        _plain((0, 0, 96, 1, 7, 255), text(Tag.VISIBLE_STRING, meter.type)),
        *_powers(0, sample.power),
        *_phases(sample, form),
    ]


def _powers(group_c: int, power: Flows) -> Iterable[Value]:
    for c, (value, unit) in enumerate(zip(power, (_W, _W, _VAR, _VAR), strict=True), group_c + 1):
        yield _scaled(c, 7, Tag.UINT32, value, 0, unit)


def _phases(sample: Sample, form: Form) -> Iterable[Value]:
    for c, ampere in zip((31, 51, 71), sample.currents, strict=True):
        if ampere is not None:
            yield _scaled(c, 7, Tag.INT16, ampere, -form.ampere_decimals, _A)
    for c, volt in zip((32, 52, 72), sample.voltages, strict=True):
        if volt is not None:
            yield _scaled(c, 7, Tag.UINT16, volt, -1, _V)


def _energies(sample: Sample, scaler: int) -> Iterable[Value]:
    if sample.registers is None:
        raise ValueError("a list with energies needs registers")
    step = 10**scaler
    for c, (value, unit) in enumerate(zip(sample.registers, (_WH, _WH, _VARH, _VARH), strict=True), 1):
        yield _scaled(c, 8, Tag.UINT32, value // step * step, scaler, unit)


def _plain(code: tuple[int, ...], value: Value) -> Value:
    return Value(Tag.STRUCTURE, (Value(Tag.OCTET_STRING, bytes(code)), value))


def _scaled(group_c: int, group_d: int, tag: Tag, value: float, scaler: int, unit: int) -> Value:
    code = Value(Tag.OCTET_STRING, bytes((1, 0, group_c, group_d, 0, 255)))
    per_unit: float = 10**-scaler
    scale = Value(Tag.STRUCTURE, (Value(Tag.INT8, scaler), Value(Tag.ENUM, unit)))
    return Value(Tag.STRUCTURE, (code, number(tag, value, per_unit), scale))


def _frame(elements: list[Value]) -> bytes:
    notification = Notification(_INVOKE_ID, None, Value(Tag.ARRAY, tuple(elements)))
    return frame(ADDRESSES, information(notification))
