"""Kaifa MA105 and MA304: lists 1, 2 and 3 by position (KFM_001, and captures), and MA304H4PSE's OBIS pairs.

A structure of plain values, whose meaning is given by their position. Every header has the clock, as 09 0C.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from exporter.model.reading import MeterClock
from exporter.protocol.apdu import Notification
from exporter.protocol.axdr import Tag, Value
from exporter.simulator.encoder import Addresses, frame, information, local_clock, number, stamp, text
from exporter.simulator.sample import Flows, Identity, Sample

LIST_ID: Final = b"KFM_001"
ADDRESSES: Final = Addresses(b"\x01", b"\x02\x01", 0x10)
_INVOKE_ID: Final = 0x40000000

_PER_AMPERE: Final = 1000
_PER_VOLT: Final = 10


def clock(moment: datetime, zone: ZoneInfo) -> MeterClock:
    """The meter's clock: civil time, deviation not specified, no daylight saving bit (captures of summer)."""
    return local_clock(moment.astimezone(zone), deviation=None)


def list1(sample: Sample, clock: MeterClock) -> bytes:
    """The frame of the 2 s list: only P+."""
    return _frame(clock, [number(Tag.UINT32, sample.power.active_import)])


def list2(meter: Identity, sample: Sample, clock: MeterClock) -> bytes:
    """The frame of the 10 s list.

    A sample without L3 gives the short list of a 1-phase meter. In any other a current or voltage that is None is sent
    as 0, which is how MA304H3E says "not measured". Raises ValueError if a value does not fit.
    """
    return _frame(clock, _list2(meter, sample))


def list3(meter: Identity, sample: Sample, clock: MeterClock) -> bytes:
    """The frame of the hourly list: list 2, clock, registers in Wh.

    Raises ValueError if a value does not fit or the sample has no registers.
    """
    return _frame(clock, [*_list2(meter, sample), stamp(clock), *_energies(sample)])


def pairs(meter: Identity, sample: Sample, clock: MeterClock) -> bytes:
    """The frame of MA304H4PSE (Sweden): list 2, or list 3 if the sample has registers, as OBIS and value pairs.

    The list id has the code 1-0:0.2.129, meter id and type have the codes of Aidon. There are no scalers. What is None
    is left out. Raises ValueError if a value does not fit.
    """
    elements = [
        *_pair((1, 0, 0, 2, 129), text(Tag.OCTET_STRING, LIST_ID)),
        *_pair((0, 0, 96, 1, 0), text(Tag.OCTET_STRING, meter.id)),
        *_pair((0, 0, 96, 1, 7), text(Tag.OCTET_STRING, meter.type)),
    ]
    for c, power in enumerate(sample.power, 1):
        elements += _pair((1, 0, c, 7, 0), number(Tag.UINT32, power))
    for codes, values, per_unit in (
        ((31, 51, 71), sample.currents, _PER_AMPERE),
        ((32, 52, 72), sample.voltages, _PER_VOLT),
    ):
        for c, value in zip(codes, values, strict=True):
            if value is not None:
                elements += _pair((1, 0, c, 7, 0), number(Tag.UINT32, value, per_unit))
    if sample.registers is not None:
        elements += _pair((0, 0, 1, 0, 0), stamp(clock))
        for c, energy in enumerate(_energies(sample), 1):
            elements += _pair((1, 0, c, 8, 0), energy)
    return _frame(clock, elements)


def _list2(meter: Identity, sample: Sample) -> list[Value]:
    phases = 1 if sample.currents[2] is None and sample.voltages[2] is None else 3
    elements = [text(Tag.OCTET_STRING, LIST_ID)]
    elements += [text(Tag.OCTET_STRING, meter.id), text(Tag.OCTET_STRING, meter.type)]
    elements += [number(Tag.UINT32, power) for power in sample.power]
    elements += [number(Tag.UINT32, current or 0, _PER_AMPERE) for current in sample.currents[:phases]]
    elements += [number(Tag.UINT32, voltage or 0, _PER_VOLT) for voltage in sample.voltages[:phases]]
    return elements


def _energies(sample: Sample) -> Iterable[Value]:
    registers: Flows | None = sample.registers
    if registers is None:
        raise ValueError("an hourly list needs registers")
    return [Value(Tag.UINT32, int(energy)) for energy in registers]


def _pair(code: tuple[int, ...], value: Value) -> tuple[Value, Value]:
    return Value(Tag.OCTET_STRING, bytes((*code, 255))), value


def _frame(clock: MeterClock, elements: list[Value]) -> bytes:
    notification = Notification(_INVOKE_ID, clock, Value(Tag.STRUCTURE, tuple(elements)))
    return frame(ADDRESSES, information(notification, tagged_clock=True))
