"""The captures that the tests use: frames of our own making, in the forms in which real meters send them.

Ids, figures and clocks are invented. What is not invented is the form: addresses, the header's date-time, the list and
its tags, scalers and units, the order of the values, what stands for a value that is not measured, and what is odd in a
meter's clock. Built by hand: no code of the product makes what the product is tested with.

`python -m tests.support.made_captures` writes them into tests/captures; a test says when what is there is not what this
makes. Other captures can be in that folder too, for a meter whose form is new.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from tests.support.octets import (
    CAPTURES,
    array,
    expected,
    frame,
    notification,
    obis,
    octet_string,
    structure,
    u16,
    u32,
    visible,
)

Row: TypeAlias = dict[str, Any]
"""What a frame says, as a row of expected.json; a value that is not measured has no key."""

_DIRECTIONS: Final = ("active_{}_import", "active_{}_export", "reactive_{}_import", "reactive_{}_export")
_PHASES: Final = (1, 2, 3)
_NULL: Final = b"\x00"
_W, _VAR, _WH, _VARH, _A, _V = 0x1B, 0x1D, 0x1E, 0x20, 0x21, 0x23


class Made(NamedTuple):
    """A frame and what it says."""

    frame: bytes
    row: Row


class Capture(NamedTuple):
    """One file of tests/captures: what the form is, and the frames."""

    form: str
    frames: Sequence[Made]


# --- what a frame says


def _power(*values: float, phase: str = "") -> Row:
    """W and var: import, export, import, export."""
    return {key.format("power") + phase: value for key, value in zip(_DIRECTIONS, values, strict=True)}


def _energy(*values: float) -> Row:
    """Wh and varh: import, export, import, export."""
    return {key.format("energy"): value for key, value in zip(_DIRECTIONS, values, strict=True)}


def _by_phase(amperes: Sequence[float | None], volts: Sequence[float | None]) -> Row:
    """A and V of L1, L2 and L3; None where the meter does not measure it."""
    named = {f"current_l{n}": value for n, value in zip(_PHASES, amperes, strict=True)}
    named |= {f"voltage_l{n}": value for n, value in zip(_PHASES, volts, strict=True)}
    return {key: value for key, value in named.items() if value is not None}


# --- date-times


def _clock(shown: str, *, weekday: int | None = None, tail: str = "ff800000") -> bytes:
    """The 12 bytes of a date-time that shows this local time; `tail` is hundredths, deviation and status."""
    at = datetime.fromisoformat(shown)
    day = at.isoweekday() if weekday is None else weekday
    return at.year.to_bytes(2, "big") + bytes([at.month, at.day, day, at.hour, at.minute, at.second]) + _hex(tail)


def _hex(text: str) -> bytes:
    return bytes.fromhex(text)


# --- Kamstrup: pairs of code and value, without scalers


def _kamstrup(clock: str, row: Row, *, register_step: int = 10) -> Made:
    """The 10 s list, or with energies the hourly one: the clock is in the header, and in the hourly list once more.

    Two nulls stand for the pair of a phase that the meter does not have. Registers are in 10 Wh, in Sweden in Wh.
    """
    shown = _clock(clock)
    elements = [visible("Kamstrup_V0001"), obis("1-1:0.0.5"), visible(row["meter_id"])]
    elements += [obis("1-1:96.1.1"), visible(row["meter_type"])]
    for c, key in enumerate(_DIRECTIONS, 1):
        elements += [obis(f"1-1:{c}.7.0"), u32(int(row[key.format("power")]))]
    for n in _PHASES:
        elements += _pair(f"1-1:{20 * n + 11}.7.0", row.get(f"current_l{n}"), lambda ampere: u32(round(ampere * 100)))
    for n in _PHASES:
        elements += _pair(f"1-1:{20 * n + 12}.7.0", row.get(f"voltage_l{n}"), lambda volt: u16(int(volt)))
    if "active_energy_import" in row:
        elements += [obis("0-1:1.0.0"), octet_string(shown)]
        for c, key in enumerate(_DIRECTIONS, 1):
            elements += [obis(f"1-1:{c}.8.0"), u32(int(row[key.format("energy")]) // register_step)]
    information = notification(structure(*elements), b"\x0c" + shown, invoke_id=0)
    return Made(frame(information, addresses=b"\x2b\x21", control=0x13), row)


def _pair(code: str, value: float | None, written: Callable[[float], bytes]) -> list[bytes]:
    return [_NULL, _NULL] if value is None else [obis(code), written(value)]


_OF_KAMSTRUP: Final = {"maker": "Kamstrup", "meter_id": "5706567100012345", "meter_type": "6861111BN299901040"}
_SWEDISH_KAMSTRUP: Final = {"maker": "Kamstrup", "meter_id": "5706567300067890", "meter_type": "6841131BN299901092"}


def kamstrup_10s(meter_id: str = "5706567000000000") -> Made:
    """A Norwegian 3-phase meter's 10 s list; no file of tests/captures has one."""
    return _kamstrup(
        "2023-02-09 07:15:20",
        {
            "maker": "Kamstrup",
            "meter_id": meter_id,
            "meter_type": "6841121BN299901040",
            **_power(4126.0, 0.0, 538.0, 0.0),
            **_by_phase((16.21, 7.94, 9.87), (221.0, 223.0, 222.0)),
            "clock_utc": "2023-02-09T06:15:20Z",
        },
    )


def _kamstrup_norway() -> list[Made]:
    """One phase: two 10 s lists and the hourly list after them."""
    return [
        _kamstrup(
            "2023-01-14 08:00:20",
            {
                **_OF_KAMSTRUP,
                **_power(583.0, 0.0, 71.0, 0.0),
                **_by_phase((2.6, None, None), (231.0, None, None)),
                "clock_utc": "2023-01-14T07:00:20Z",
            },
        ),
        _kamstrup(
            "2023-01-14 08:00:30",
            {
                **_OF_KAMSTRUP,
                **_power(583.0, 0.0, 71.0, 0.0),
                **_by_phase((2.61, None, None), (230.0, None, None)),
                "clock_utc": "2023-01-14T07:00:30Z",
            },
        ),
        _kamstrup(
            "2023-01-14 08:00:35",
            {
                **_OF_KAMSTRUP,
                **_power(587.0, 0.0, 72.0, 0.0),
                **_by_phase((2.64, None, None), (230.0, None, None)),
                **_energy(20418650.0, 0.0, 512370.0, 4096210.0),
                "clock_utc": "2023-01-14T07:00:35Z",
            },
        ),
    ]


def _kamstrup_sweden() -> list[Made]:
    """Three phases, hourly, registers in Wh; in summer, when the meter still keeps standard time."""
    row = {
        **_SWEDISH_KAMSTRUP,
        **_power(1894.0, 0.0, 0.0, 327.0),
        **_by_phase((2.15, 5.02, 1.33), (238.0, 239.0, 241.0)),
        **_energy(27360519.0, 0.0, 4810266.0, 905733.0),
        "clock_utc": "2023-07-19T13:00:45Z",
    }
    return [_kamstrup("2023-07-19 14:00:45", row, register_step=1)]


# --- Kaifa: bare values, whose meaning is their place


def _kaifa(clock: str, row: Row) -> Made:
    """List 1, or list 2 where the row names the meter; a zero stands for what is not measured."""
    if "meter_id" in row:
        elements = [octet_string("KFM_001"), octet_string(row["meter_id"]), octet_string(row["meter_type"])]
        elements += [u32(int(row[key.format("power")])) for key in _DIRECTIONS]
        elements += [u32(round(row.get(f"current_l{n}", 0) * 1000)) for n in _PHASES]
        elements += [u32(round(row.get(f"voltage_l{n}", 0) * 10)) for n in _PHASES]
    else:
        elements = [u32(int(row["active_power_import"]))]
    information = notification(structure(*elements), octet_string(_clock(clock)))
    return Made(frame(information, addresses=b"\x01\x02\x01", control=0x10), row)


def _kaifa_norway() -> list[Made]:
    """A list 1 of winter, and a list 2 of the summer before it, when the clock shows summer time. 3-wire net: no U2."""
    return [
        _kaifa(
            "2023-03-08 06:41:38",
            {"maker": "Kaifa", "active_power_import": 2748.0, "clock_utc": "2023-03-08T05:41:38Z"},
        ),
        _kaifa(
            "2022-08-23 18:05:50",
            {
                "maker": "Kaifa",
                "meter_id": "6970631400012345",
                "meter_type": "MA304H3E",
                **_power(1129.0, 0.0, 0.0, 64.0),
                **_by_phase((2.104, 3.517, 3.296), (238.7, None, 239.4)),
                "clock_utc": "2022-08-23T16:05:50Z",
            },
        ),
    ]


# --- Aidon's form: structures of code, value, and scaler with unit


def _plain(code: str, value: bytes) -> bytes:
    return structure(obis(code), value)


def _scaled(code: str, value: bytes, scaler: int, unit: int) -> bytes:
    scale = structure(b"\x0f" + scaler.to_bytes(1, "big", signed=True), bytes([0x16, unit]))
    return structure(obis(code), value, scale)


def _i16(value: int) -> bytes:
    return b"\x10" + value.to_bytes(2, "big", signed=True)


def _aidon_power(row: Row, phase: int = 0) -> list[bytes]:
    suffix = f"_l{phase}" if phase else ""
    return [
        _scaled(f"1-0:{20 * phase + c}.7.0", u32(int(row[key.format("power") + suffix])), 0, _W if c < 3 else _VAR)
        for c, key in enumerate(_DIRECTIONS, 1)
    ]


def _aidon_phases(row: Row, decimals: int) -> list[bytes]:
    """Currents with so many decimals, voltages with one; a zero stands for what is not measured."""
    amperes = [round(row.get(f"current_l{n}", 0) * 10**decimals) for n in _PHASES]
    volts = [round(row.get(f"voltage_l{n}", 0) * 10) for n in _PHASES]
    elements = [_scaled(f"1-0:{20 * n + 11}.7.0", _i16(amperes[n - 1]), -decimals, _A) for n in _PHASES]
    return elements + [_scaled(f"1-0:{20 * n + 12}.7.0", u16(volts[n - 1]), -1, _V) for n in _PHASES]


def _aidon_energy(row: Row, scaler: int) -> list[bytes]:
    return [
        _scaled(f"1-0:{c}.8.0", u32(int(row[key.format("energy")]) // 10**scaler), scaler, _WH if c < 3 else _VARH)
        for c, key in enumerate(_DIRECTIONS, 1)
    ]


def _aidon_frame(row: Row, *elements: bytes) -> Made:
    """No clock is in the header."""
    return Made(frame(notification(array(*elements)), addresses=b"\x41\x08\x83", control=0x13), row)


def _aidon_list3(clock: str, row: Row) -> Made:
    """The hourly list. The clock says deviation 0 and is local standard time; of a Sunday it says weekday 0."""
    weekday = datetime.fromisoformat(clock).isoweekday() % 7
    return _aidon_frame(
        row,
        _plain("1-1:0.2.129", visible("AIDON_V0001")),
        _plain("0-0:96.1.0", visible(row["meter_id"])),
        _plain("0-0:96.1.7", visible(row["meter_type"])),
        *_aidon_power(row),
        *_aidon_phases(row, 1),
        _plain("0-0:1.0.0", octet_string(_clock(clock, weekday=weekday, tail="ff000000"))),
        *_aidon_energy(row, 1),
    )


_OF_AIDON: Final = {"maker": "Aidon", "meter_id": "7359992800012345", "meter_type": "6539"}


def _aidon_norway() -> list[Made]:
    """One Sunday hour of summer, and four lists of a Sunday in winter.

    The fourth list has the clock and the registers of the third once more, as if no hour had passed.
    """
    return [
        _aidon_list3(
            "2022-07-03 17:00:00",
            {
                **_OF_AIDON,
                **_power(2187.0, 0.0, 0.0, 544.0),
                **_by_phase((1.9, 0.4, 8.1), (231.2, 230.9, 229.1)),
                **_energy(41236570.0, 0.0, 73190.0, 5208430.0),
                "clock_utc": "2022-07-03T16:00:00Z",
            },
        ),
        _aidon_list3(
            "2024-01-21 09:00:00",
            {
                **_OF_AIDON,
                **_power(3851.0, 0.0, 0.0, 415.0),
                **_by_phase((0.6, 0.4, 15.7), (232.6, 233.1, 230.8)),
                **_energy(87614320.0, 0.0, 118750.0, 12044950.0),
                "clock_utc": "2024-01-21T08:00:00Z",
            },
        ),
        _aidon_list3(
            "2024-01-21 10:00:00",
            {
                **_OF_AIDON,
                **_power(342.0, 0.0, 117.0, 0.0),
                **_by_phase((0.4, 0.3, 1.2), (232.8, 232.5, 233.3)),
                **_energy(87616140.0, 0.0, 118750.0, 12045180.0),
                "clock_utc": "2024-01-21T09:00:00Z",
            },
        ),
        _aidon_list3(
            "2024-01-21 10:00:00",
            {
                **_OF_AIDON,
                **_power(11874.0, 0.0, 93.0, 0.0),
                **_by_phase((15.2, 19.3, 17.4), (231.7, 231.5, 230.2)),
                **_energy(87616140.0, 0.0, 118750.0, 12045180.0),
                "clock_utc": "2024-01-21T09:00:00Z",
            },
        ),
        _aidon_list3(
            "2024-01-21 12:00:00",
            {
                **_OF_AIDON,
                **_power(718.0, 0.0, 0.0, 398.0),
                **_by_phase((0.5, 1.2, 2.1), (232.4, 231.6, 231.0)),
                **_energy(87623950.0, 0.0, 118760.0, 12045360.0),
                "clock_utc": "2024-01-21T11:00:00Z",
            },
        ),
    ]


def _aidon_sweden() -> list[Made]:
    """27 elements: the clock first, without a status; no list id, no meter id; power of each phase.

    Registers are in Wh.
    """
    row = {
        **_power(1876.0, 0.0, 0.0, 521.0),
        **_by_phase((1.1, 3.4, 4.2), (228.6, 227.9, 228.3)),
        **_power(247.0, 0.0, 0.0, 48.0, phase="_l1"),
        **_power(705.0, 0.0, 261.0, 0.0, phase="_l2"),
        **_power(931.0, 0.0, 0.0, 208.0, phase="_l3"),
        **_energy(58120394.0, 0.0, 251847.0, 10446058.0),
        "clock_utc": "2022-12-15T10:43:00Z",
    }
    phases = [element for n in _PHASES for element in _aidon_power(row, n)]
    clock = _plain("0-0:1.0.0", octet_string(_clock("2022-12-15 11:43:00", tail="ff8000ff")))
    return [_aidon_frame(row, clock, *_aidon_power(row), *_aidon_phases(row, 1), *phases, *_aidon_energy(row, 0))]


_OF_E350: Final = {"maker": "Landis+Gyr", "meter_id": "10012345"}


def _e350_list1(power: float) -> Made:
    row = {"maker": None, "active_power_import": power}
    return _aidon_frame(row, _scaled("1-0:1.7.0", u32(int(power)), 0, _W))


def _e350_list2(row: Row) -> Made:
    """Id and type are padded with NULs, currents have two decimals, I2 and U2 are zeros on a 3-wire net."""
    return _aidon_frame(
        row,
        _plain("1-1:0.2.129", visible("EMBRIQ_V1_1")),
        _plain("0-0:96.1.0", visible(row["meter_id"].ljust(16, "\0"))),
        _plain("0-0:96.1.7", visible(row.get("meter_type", "").ljust(4, "\0"))),
        *_aidon_power(row),
        *_aidon_phases(row, 2),
    )


def _landisgyr_norway() -> list[Made]:
    """Lists without any clock. The second list 2 does not say the type."""
    first = {
        **_OF_E350,
        "meter_type": "ZMY9",
        **_power(8730.0, 0.0, 52.0, 0.0),
        **_by_phase((29.4, None, 31.86), (234.0, None, 231.0)),
    }
    second = {
        **_OF_E350,
        **_power(8710.0, 0.0, 43.0, 0.0),
        **_by_phase((29.35, None, 31.74), (234.0, None, 231.0)),
    }
    return [
        _e350_list2(first),
        _e350_list1(8730.0),
        _e350_list1(8730.0),
        _e350_list1(8710.0),
        _e350_list2(second),
        _e350_list1(8710.0),
        _e350_list1(8660.0),
        _e350_list1(8660.0),
    ]


# --- the files

MADE: Final = {
    "kamstrup-1phase-norway": Capture("Kamstrup OMNIPOWER, 1 phase, Norway", _kamstrup_norway()),
    "kamstrup-3phase-sweden": Capture("Kamstrup OMNIPOWER, 3 phases, Sweden", _kamstrup_sweden()),
    "kaifa-3phase-norway": Capture("Kaifa MA304H3E, 3 phases, Norway", _kaifa_norway()),
    "aidon-3phase-norway": Capture("Aidon, 3 phases, Norway", _aidon_norway()),
    "aidon-3phase-sweden": Capture("Aidon, 3 phases, Sweden", _aidon_sweden()),
    "landisgyr-e350-norway": Capture("Landis+Gyr E350, 3 phases, Norway", _landisgyr_norway()),
}


def text_of(capture: Capture) -> str:
    """The content of a capture's file."""
    head = (
        f"# {capture.form}. Made by the han-exporter developers: the form is that of real meters,\n"
        "# ids, figures and clocks are invented (tests/support/made_captures.py writes this file).\n"
    )
    return head + "".join(f"{made.frame.hex()}\n" for made in capture.frames)


def write(folder: Path = CAPTURES) -> None:
    """Write the captures into tests/captures; what else is there stays."""
    rows = expected(folder)
    for name, capture in MADE.items():
        (folder / f"{name}.hex").write_text(text_of(capture))
        rows[name] = [made.row for made in capture.frames]
    (folder / "expected.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    write()
