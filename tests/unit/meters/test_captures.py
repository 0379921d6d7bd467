"""Every frame in tests/captures decodes to expected.json, value for value."""

from __future__ import annotations

import pytest

from exporter.model.obis import ObisCode
from exporter.protocol.hdlc import Deframer, Frame
from tests.e2e.truth import read
from tests.support import made_captures
from tests.support.expected_rows import row_of, row_of_frame, rows_of_stream, said
from tests.support.octets import CAPTURES, all_frames, crc_x25, expected, frames_of

ROWS = [(name, n) for name, rows in expected().items() for n in range(len(rows))]


@pytest.mark.parametrize(("name", "n"), ROWS)
def test_a_row_of_expected(name: str, n: int) -> None:
    assert row_of_frame(frames_of(name)[n]) == said(expected()[name][n])


def test_as_many_frames_as_rows() -> None:
    assert len(all_frames()) == len(ROWS) == 20


@pytest.mark.parametrize("name", sorted(made_captures.MADE))
def test_a_file_is_what_is_made(name: str) -> None:
    """`python -m tests.support.made_captures` writes it."""
    capture = made_captures.MADE[name]
    assert (CAPTURES / f"{name}.hex").read_text() == made_captures.text_of(capture)
    assert frames_of(name) == [made.frame for made in capture.frames]
    assert expected()[name] == [made.row for made in capture.frames]


def test_a_10s_list_of_three_phases() -> None:
    made = made_captures.kamstrup_10s()
    reading = read(made.frame)
    assert row_of(reading) == made.row
    assert reading.list_id == "Kamstrup_V0001"
    assert {str(m.obis) for m in reading.measurements} >= {"1-1:1.7.0", "1-1:31.7.0"}


def test_aidon_document_example() -> None:
    """Aidon v1.1A, list 2, 1-phase (a published example of the interface description)."""
    octets = bytes.fromhex(
        "7ea0d24108831382d6e6e7000f40000000000109020209060101000281ff0a0b4149444f4e5f5630303031020209060000600100ff0a10"
        "373335393939323839303934313734320202090600"
        "00600107ff0a0436353135020309060100010700ff060000055202020f00161b020309060100020700ff0600000000"
        "02020f00161b020309060100030700ff06000003e402020f00161d020309060100040700ff060000000002020f00161d"
        "0203090601001f0700ff10005d02020fff1621020309060100200700ff1209c402020fff1623e0c47e"
    )
    assert row_of_frame(octets) == {
        "maker": "Aidon",
        "meter_id": "7359992890941742",
        "meter_type": "6515",
        "active_power_import": 1362.0,
        "active_power_export": 0.0,
        "reactive_power_import": 996.0,
        "reactive_power_export": 0.0,
        "current_l1": 9.3,
        "voltage_l1": 250.0,
    }


def test_swedish_aidon_has_power_by_phase() -> None:
    reading = read(frames_of("aidon-3phase-sweden")[0])
    values = {str(m.obis): (m.value, m.unit) for m in reading.measurements}
    assert len(values) == 26
    assert values["1-0:21.7.0"] == (247.0, "W")
    assert values["1-0:41.7.0"] == (705.0, "W")
    assert values["1-0:61.7.0"] == (931.0, "W")
    assert values["1-0:64.7.0"] == (208.0, "var")


def test_crc_of_the_tests_is_that_of_the_captures() -> None:
    for octets in all_frames():
        assert crc_x25(octets[1:-3]) == octets[-3:-1]


STREAM = b"".join(all_frames())
READINGS = [row_of_frame(octets) for octets in all_frames()]


def test_cut_at_every_position() -> None:
    whole = Deframer().feed(STREAM)
    assert rows_of_stream([STREAM]) == READINGS
    for cut in range(len(STREAM) + 1):
        deframer = Deframer()
        assert deframer.feed(STREAM[:cut]) + deframer.feed(STREAM[cut:]) == whole


def test_in_one_octet_pieces() -> None:
    assert rows_of_stream([bytes([octet]) for octet in STREAM]) == READINGS


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 7, b"\x7e", b"\x7e\x7e\x7e", b"\x7e\xa0", b"\x7e\xa1\x2c\x2b\x21", b"\xff\x7e\xa0\xe2"]
)
def test_garbage_before_between_and_after(garbage: bytes) -> None:
    pieces = [garbage] + [piece for octets in all_frames() for piece in (octets, garbage)]
    assert rows_of_stream(pieces) == READINGS
    assert rows_of_stream([b"".join(pieces)]) == READINGS


def frames_in(octets: bytes) -> list[bytes]:
    """The information fields of the frames that come out; equal ones decode to equal readings."""
    return [item.content for item in Deframer().feed(octets) if isinstance(item, Frame)]


@pytest.mark.parametrize("damaged", range(len(READINGS)))
def test_any_single_frame_damaged(damaged: int) -> None:
    frames = all_frames()
    before, octets, behind = frames[max(0, damaged - 1) : damaged], frames[damaged], frames[damaged + 1 : damaged + 3]
    near = [information for whole in (*before, *behind) for information in frames_in(whole)]
    assert len(near) == len(before) + len(behind)
    for at in range(1, len(octets) - 1):
        changed = octets[:at] + bytes([octets[at] ^ 0x7E]) + octets[at + 1 :]
        lost, cut = octets[:at] + octets[at + 1 :], octets[:at]
        gained = octets[: at + 1] + b"\x7e" + octets[at + 1 :]
        for broken in (changed, lost, gained, cut) if at < len(octets) - 2 else (changed, lost, cut):
            assert frames_in(b"".join([*before, broken, *behind])) == near, (at, broken.hex())


def test_obis_codes_of_kaifa_are_those_of_its_document() -> None:
    reading = read(frames_of("kaifa-3phase-norway")[1])
    assert reading.measurements[0].obis == ObisCode(1, 0, 1, 7, 0)
