"""Frames of all three makers, each with its own number in its values; and bytes that are not a frame.

The number is the imported power (W), which every list has. In lists with registers, the imported energy (Wh) is ten
times the number. The values of a frame are known from what it was made of, not from decoding it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from exporter.simulator import aidon, kaifa, kamstrup
from exporter.simulator.encoder import local_clock, standard_time
from exporter.simulator.meter import OSLO
from exporter.simulator.sample import Flows, Identity, Sample
from tests.e2e.truth import row_values
from tests.support.octets import crc_x25, expected, frames_of

MAKERS: Final = ("kamstrup", "aidon", "kaifa")
NUMBERED: Final = "1.7.0"
"""The end of the OBIS code whose value is a frame's number."""
OF_REGISTER: Final = "1.8.0"
"""The end of the OBIS code whose value is ten times a frame's number."""

_TYPES: Final = {"kamstrup": b"6841121BN243101040", "aidon": b"6534", "kaifa": b"MA304H4"}
_AB: Final = {"kamstrup": "1-1", "aidon": "1-0", "kaifa": "1-0"}
_DECIMALS: Final = {"kamstrup": (2, 0), "aidon": (1, 1), "kaifa": (3, 1)}
"""Decimals of a current and of a voltage (docs/protocol.md)."""
_CAPTURES: Final = {
    "kamstrup": ("kamstrup-1phase-norway", "kamstrup-3phase-sweden"),
    "aidon": ("aidon-3phase-norway", "aidon-3phase-sweden", "landisgyr-e350-norway"),
    "kaifa": ("kaifa-3phase-norway",),
}


@dataclass(frozen=True, slots=True)
class Made:
    """A frame, its number, and its values by OBIS code."""

    data: bytes
    number: int
    values: Mapping[str, float]


class Lists:
    """The frames of one meter: lists of all kinds, from the encoders and from captures, numbered from 1000."""

    def __init__(self, maker: str, meter_id: str, chance: random.Random) -> None:
        assert len(meter_id) == 16, "captures have 16 bytes for it"
        self.meter_id = meter_id
        self._maker = maker
        self._identity = Identity(meter_id.encode(), _TYPES[maker])
        self._chance = chance
        self._numbers = itertools.count(1000)
        self._captured = [
            pair for name in _CAPTURES[maker] for pair in zip(frames_of(name), expected()[name], strict=True)
        ]
        self._short, self._named, self._hourly = _FORMS[maker]

    def any(self) -> Made:
        """The next list, of any kind."""
        die = self._chance.random()
        if die < 0.2:
            return renumbered(*self._chance.choice(self._captured), self.meter_id, next(self._numbers))
        if die < 0.3:
            return self._made(self._hourly)
        return self._made(self._short if die < 0.6 else self._named)

    def named(self) -> Made:
        """A list with the meter's id."""
        return self._made(self._named)

    def short(self) -> Made:
        """The shortest list."""
        return self._made(self._short)

    def _made(self, form: _Form) -> Made:
        number, now = next(self._numbers), datetime.now(UTC)
        data, values = form(self._identity, self._sample(number), now)
        return Made(data, number, {f"{_AB[self._maker]}:{code}": value for code, value in values.items()})

    def _sample(self, number: int) -> Sample:
        of_current, of_voltage = _DECIMALS[self._maker]
        draw = self._chance.randrange

        def phase(least: int, most: int, decimals: int) -> float:
            steps = int(10**decimals)
            return draw(least * steps, most * steps) / steps

        currents = (phase(0, 60, of_current), phase(0, 60, of_current), phase(0, 60, of_current))
        voltages = (phase(200, 260, of_voltage), phase(200, 260, of_voltage), phase(200, 260, of_voltage))
        registers = Flows(10 * number, 10 * draw(1000), 10 * draw(1000), 10 * draw(1000))
        return Sample(Flows(number, draw(5000), draw(900), draw(900)), currents, voltages, registers=registers)


_Form = Callable[[Identity, Sample, datetime], tuple[bytes, dict[str, float]]]


def _powers(sample: Sample) -> dict[str, float]:
    return {f"{c}.7.0": float(value) for c, value in enumerate(sample.power, 1)}


def _list2(sample: Sample) -> dict[str, float]:
    phases = zip((31, 51, 71, 32, 52, 72), (*sample.currents, *sample.voltages), strict=True)
    return _powers(sample) | {f"{c}.7.0": value for c, value in phases if value is not None}


def _list3(sample: Sample) -> dict[str, float]:
    assert sample.registers is not None
    return _list2(sample) | {f"{c}.8.0": float(value) for c, value in enumerate(sample.registers, 1)}


def _power_alone(sample: Sample) -> dict[str, float]:
    return {NUMBERED: float(sample.power.active_import)}


def _kamstrup(meter: Identity, sample: Sample, now: datetime) -> tuple[bytes, dict[str, float]]:
    return kamstrup.list1(meter, sample, kamstrup.clock(now, OSLO)), _list2(sample)


def _kamstrup_hourly(meter: Identity, sample: Sample, now: datetime) -> tuple[bytes, dict[str, float]]:
    return kamstrup.hourly(meter, sample, kamstrup.clock(now, OSLO)), _list3(sample)


def _aidon_short(_: Identity, sample: Sample, __: datetime) -> tuple[bytes, dict[str, float]]:
    return aidon.list1(sample), _power_alone(sample)


def _aidon(meter: Identity, sample: Sample, _: datetime) -> tuple[bytes, dict[str, float]]:
    return aidon.list2(meter, sample), _list2(sample)


def _aidon_hourly(meter: Identity, sample: Sample, now: datetime) -> tuple[bytes, dict[str, float]]:
    # A real one shows the full hour; at other times, that would be a wrong clock.
    clock = local_clock(standard_time(now, OSLO), deviation=0, sunday=0)
    return aidon.list3(meter, sample, clock), _list3(sample)


def _kaifa_short(_: Identity, sample: Sample, now: datetime) -> tuple[bytes, dict[str, float]]:
    return kaifa.list1(sample, kaifa.clock(now, OSLO)), _power_alone(sample)


def _kaifa(meter: Identity, sample: Sample, now: datetime) -> tuple[bytes, dict[str, float]]:
    return kaifa.list2(meter, sample, kaifa.clock(now, OSLO)), _list2(sample)


def _kaifa_hourly(meter: Identity, sample: Sample, now: datetime) -> tuple[bytes, dict[str, float]]:
    return kaifa.list3(meter, sample, kaifa.clock(now, OSLO)), _list3(sample)


_FORMS: Final[Mapping[str, tuple[_Form, _Form, _Form]]] = {
    "kamstrup": (_kamstrup, _kamstrup, _kamstrup_hourly),
    "aidon": (_aidon_short, _aidon, _aidon_hourly),
    "kaifa": (_kaifa_short, _kaifa, _kaifa_hourly),
}


def renumbered(data: bytes, row: Mapping[str, Any], meter_id: str, number: int) -> Made:
    """A captured frame and its row of expected.json, with another number and, if it has a meter id, another id."""
    body = data[1:-3]
    if row.get("meter_id"):
        body = body.replace(row["meter_id"].encode().ljust(16, b"\0"), meter_id.encode())
        assert meter_id.encode() in body
    body = _with_value(body, int(row["active_power_import"]), number)
    row = dict(row) | {"active_power_import": float(number)}
    if "active_energy_import" in row:
        was = int(row["active_energy_import"])
        scale = 10 if _u32(was // 10) in body else 1  # Norwegian lists count in 10 Wh
        body = _with_value(body, was // scale, 10 * number // scale)
        row["active_energy_import"] = 10.0 * number
    return Made(b"\x7e" + body + crc_x25(body) + b"\x7e", number, row_values(row))


def _u32(value: int) -> bytes:
    return b"\x06" + value.to_bytes(4, "big")


def _with_value(body: bytes, was: int, value: int) -> bytes:
    assert _u32(was) in body
    return body.replace(_u32(was), _u32(value), 1)


# --- bytes that are not a
# frame----------------------------------------------------------------------------------------------


def noise(kind: str, size: int, chance: random.Random) -> bytes:
    """So many bytes: `random`, `flags` (full of 7E), `starts` (7E A0 …) or `headers` (starts whose HCS is right)."""
    return bytes(itertools.islice(_NOISES[kind](chance), size))


def _random(chance: random.Random) -> Iterator[int]:
    while True:
        yield from chance.randbytes(1024)


def _flags(chance: random.Random) -> Iterator[int]:
    while True:
        yield from b"\x7e" * chance.randrange(1, 40)
        yield from chance.randbytes(chance.randrange(4))


def _starts(chance: random.Random) -> Iterator[int]:
    while True:
        yield from bytes([0x7E, 0xA0 | chance.randrange(16)])
        yield from chance.randbytes(chance.randrange(12))


def _headers(chance: random.Random) -> Iterator[int]:
    while True:
        head = (0xA000 | chance.randrange(12, 2048)).to_bytes(2, "big") + b"\x41\x08\x83\x13"
        yield from b"\x7e" + head + crc_x25(head)
        yield from chance.randbytes(chance.randrange(200))


_NOISES: Final = {"random": _random, "flags": _flags, "starts": _starts, "headers": _headers}
NOISES: Final = tuple(_NOISES)


def half(data: bytes, chance: random.Random) -> bytes:
    """A frame with a missing part: its end, its beginning, or something in the middle.

    Never only a flag: the flag of the next frame would replace it.
    """
    at = chance.randrange(2, len(data) - 2)
    end = chance.randrange(at + 1, len(data) - 1)
    return chance.choice((data[:at], data[at:], data[:at] + data[end:]))


def framing_errors(data: bytes) -> bytes:
    """What a port with 8N1 receives from 8E1: a parity bit of 0 is not a stop bit, and Linux gives 00."""
    return bytes(byte if byte.bit_count() % 2 else 0 for byte in data)


def parity_as_bit_7(data: bytes) -> bytes:
    """What a port with eight bits receives from seven bits and even parity."""
    return bytes(byte & 0x7F | (byte & 0x7F).bit_count() % 2 << 7 for byte in data)
