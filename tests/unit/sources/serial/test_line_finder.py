"""A meter on a wire that is not set as the port is: found by itself, told in words. Simulated time, truthful octets."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from exporter.protocol.hdlc import Deframer, Frame
from exporter.simulator.meter import MAKERS, SimulatedMeter
from exporter.sources.contract import Happened
from exporter.sources.serial.flood import ALLOWED, RATE
from exporter.sources.serial.line_setting import PROVEN
from exporter.sources.serial.serial_port import SerialSource
from exporter.sources.serial.serial_url import Line
from tests.support.octets import frames_of
from tests.support.uart import RECEIVERS, Receiver, bits, heard
from tests.support.wire import BEGIN, Burst, Wire, lists

N, E = Line(), Line(parity="E")
KAMSTRUP = frames_of("kamstrup-1phase-norway")[0]
NOISE = bytes(n * 37 % 251 for n in range(240))


def frames(
    wire: Wire, setting: str = "/dev/none/ttyUSB0", until: float = 400.0, most: int = 10**9, learnt: str = ""
) -> list[float]:
    """When frames came that check, as a reader of the source sees it; `most` of them are enough."""
    deframer, came = Deframer(), []
    for at, chunk in wire.run(setting, until, learnt):
        came += [at for found in deframer.feed(chunk.data) if isinstance(found, Frame)]
        if len(came) >= most:
            break
    return came


def told(wire: Wire) -> list[tuple[Happened, str]]:
    return [(event.what, event.words) for _, event in wire.events]


# --- the model of the wire itself


def test_an_octet_on_the_wire() -> None:
    assert bits(b"\x53", N) == bytes([0, 1, 1, 0, 0, 1, 0, 1, 0, 1])
    assert bits(b"\x53", E) == bytes([0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1])
    assert bits(b"\x51", E) == bytes([0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 1])


@pytest.mark.parametrize("receiver", RECEIVERS, ids=str)
def test_a_receiver_that_is_set_as_the_sender_hears_what_was_sent(receiver: Receiver) -> None:
    for line in (N, E, Line(9600, 8, "O", 2.0)):
        same = Line(line.baud + 1, line.bits, line.parity, line.stop)  # not the shortcut of equal lines
        assert heard(bytes(range(256)), line, same, receiver) == bytes(range(256))


def test_what_a_wrong_parity_does_depends_on_the_receiver() -> None:
    alone = b"\x07"  # an odd number of ones: its parity bit is 1, as a stop bit would be
    assert heard(alone, E, N) == alone
    even = b"\x03"
    assert heard(even, E, N, Receiver(like_16550=False)) == even, "a framing error, and the next edge is the next octet"
    assert heard(even + alone, E, N, Receiver(like_16550=True)) != even + alone, "the parity bit is taken for a start"
    assert heard(even, E, N, Receiver(damaged="dropped", like_16550=False)) == b""
    assert heard(b"\x00\x00", N, E, Receiver(damaged="zeroed")) == b"\x00\x00"


# --- found


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("receiver", RECEIVERS, ids=str)
def test_even_parity_is_found_within_forty_seconds(maker: str, receiver: Receiver) -> None:
    wire = Wire(lists(maker, E, 120, after=3.3), E, receiver)
    (first,) = frames(wire, most=1)
    assert first < 40
    if any(event.what is Happened.FOUND for _, event in wire.events):
        assert [what for what, _ in told(wire)] == [Happened.OPENED, Happened.NO_FRAMES, Happened.FOUND]
        assert told(wire)[1][1].endswith("of them with 2400 8N1; other settings are tried in turn")
        assert told(wire)[2][1] == (
            "frames from ttyUSB0 check with 2400 8E1: write HAN_SOURCE=/dev/none/ttyUSB0?parity=E "
            "so that every command starts with it"
        )
    else:  # this receiver and no parity give whole frames all the same
        assert first < 11


@pytest.mark.parametrize(
    ("maker", "line"), [("kamstrup", Line(115_200)), ("aidon", Line(9600, 8, "E")), ("kaifa", Line(57_600))]
)
def test_another_speed_is_found_within_five_minutes(maker: str, line: Line) -> None:
    wire = Wire(lists(maker, line, 400), line)
    assert len(frames(wire, most=3)) == 3
    assert wire.time < 300
    assert wire.lines[-1][1] == line


def test_frames_that_check_are_never_disturbed() -> None:
    wire = Wire(lists("kaifa", N, 3600), N)
    assert len(frames(wire, until=3599)) >= 1799
    assert wire.lines == [(0.0, N)]
    assert told(wire)[1:] == []


def test_after_it_was_found_no_frame_is_lost() -> None:
    wire = Wire(lists("kamstrup", E, 900), E)
    came = frames(wire, until=899)
    sent = [
        moment for moment, _ in SimulatedMeter("kamstrup").frames(BEGIN, datetime(2026, 11, 22, 17, 15, tzinfo=UTC))
    ]
    assert len([at for at in came if at > came[0]]) == len(
        [moment for moment in sent if came[0] + 0.1 < (moment - BEGIN).total_seconds() < 899]
    )


def test_the_wire_time_of_an_octet_is_that_of_the_line_in_use() -> None:
    wire = Wire(lists("kaifa", E, 60), E)
    last = [chunk.byte_seconds for _, chunk in wire.run(until=59)][-1]
    assert last == 11 / 2400


def noisy(seconds: float, begin: float) -> list[Burst]:
    """Octets that are no frame, without a pause."""
    return [(begin + n, NOISE) for n in range(int(seconds))]


def test_a_storm_of_100_kb_costs_no_frame_after_it() -> None:
    storm = noisy(420, 30.0)
    assert sum(len(octets) for _, octets in storm) >= 100_000
    before = list(lists("kamstrup", N, 30))
    after = [(at + 460, octets) for at, octets in lists("kamstrup", N, 200)]
    wire = Wire([*before, *storm, *after], N)
    came = frames(wire, until=670)
    assert len([at for at in came if at > 450]) == len(after)
    assert wire.lines == [(0.0, N)]
    assert Happened.NO_FRAMES not in [what for what, _ in told(wire)]


def test_a_longer_storm_costs_no_more_than_a_turn() -> None:
    after = [(at + 1300, octets) for at, octets in lists("kamstrup", N, 200)]
    wire = Wire([*lists("kamstrup", N, 30), *noisy(1200, 30.0), *after], N)
    came = frames(wire, until=1510)
    assert wire.lines[1][0] >= 30 + PROVEN
    assert len([at for at in came if at > 1300]) >= len(after) - 2
    assert told(wire)[1][1].startswith("octets come from ttyUSB0, but no frame checks in 2")
    assert "with 2400 8N1, which gave frames before: noise on the wires?" in told(wire)[1][1]
    assert told(wire)[-1] == (Happened.FOUND, "frames from ttyUSB0 check again, with 2400 8N1")


def test_what_was_found_is_used_when_the_port_comes_back() -> None:
    wire = Wire(lists("kaifa", E, 200), E)
    wire.breaks = [100.0]
    came = frames(wire, until=199)
    assert wire.lines[-1] == (101.0, E)
    assert len([at for at in came if 103 < at < 199]) >= 47
    assert [what for what, _ in told(wire)][3:] == [Happened.LOST, Happened.OPENED]


def test_an_adapter_that_cannot_do_a_line_is_asked_for_the_next() -> None:
    line = Line(9600)
    wire = Wire(lists("kaifa", line, 400), line, refused=[E, Line(115_200)])
    assert frames(wire, most=1)
    assert [which for _, which in wire.lines if which != N] == [line]
    assert [what for what, _ in told(wire)] == [Happened.OPENED, Happened.NO_FRAMES, Happened.FOUND]


# --- not found


def test_the_owners_word_is_kept_and_said_to_be_in_the_way() -> None:
    wire = Wire(lists("kaifa", E, 600), E)
    assert frames(wire, "/dev/none/ttyUSB0?parity=N", until=599) == []
    assert {line.parity for _, line in wire.lines} == {"N"}
    words = told(wire)[1][1]
    assert words.endswith("but none with another parity, which HAN_SOURCE fixes: take it out if it is not sure")
    wire = Wire(lists("kaifa", E, 600), E)
    assert frames(wire, "/dev/none/ttyUSB0?parity=N&baud=2400", until=599) == []
    assert len(wire.lines) == 1
    words = told(wire)[1][1]
    assert "the setting fixes speed and parity: take baud and parity out of HAN_SOURCE, and others are tried" in words
    assert len(told(wire)) == 2


def test_what_is_no_meter_is_said_once_everything_was_tried() -> None:
    wire = Wire([(2.0 * n, NOISE) for n in range(1000)], N)
    assert frames(wire, until=1999) == []
    assert [what for what, _ in told(wire)] == [Happened.OPENED, Happened.NO_FRAMES, Happened.NO_FRAMES]
    assert "no frame checks with any of 9 settings: is it a meter's HAN port" in told(wire)[2][1]
    assert 200 < wire.events[2][0] < 400
    assert {line for _, line in wire.lines} >= {N, E, Line(57_600)}


def test_the_far_end_of_a_socket_sets_its_own_line() -> None:
    wire = Wire(lists("kamstrup", E, 200), E, Receiver(damaged="zeroed"))
    assert frames(wire, "socket://gw:2001", until=199) == []
    assert len(wire.lines) == 1
    assert told(wire)[1][0] is Happened.NO_FRAMES
    assert "speed and parity are set at the far end: try others there" in told(wire)[1][1]
    assert len(told(wire)) == 2


# --- floods


def test_a_flood_is_read_slowly_and_told_once() -> None:
    wire = Wire([(1 + n / 10, NOISE * 1000) for n in range(600)], N)
    wire.line = Line(4_000_000)
    octets = [(at, len(chunk.data)) for at, chunk in wire.run("/dev/none/ttyUSB0?baud=4000000&parity=N", until=60)]
    assert sum(size for _, size in octets) < ALLOWED + 61 * RATE + 4096
    assert sum(size for at, size in octets if at > 30) > 25 * RATE * 0.9
    assert max(size for _, size in octets) <= 4096
    floods = [words for what, words in told(wire) if "floods" in words]
    assert len(floods) == 1
    assert "read at 16 kB/s now, so that nothing else has to wait: is it the right port?" in floods[0]


def test_frames_at_any_speed_are_no_flood() -> None:
    fast = Line(4_000_000)
    wire = Wire([(1 + n / 100, KAMSTRUP * 40) for n in range(300)], fast)
    came = frames(wire, "/dev/none/ttyUSB0?baud=4000000&parity=N", until=5)
    assert len(came) == 12_000
    assert wire.time < 6
    assert told(wire)[1:] == []


# --- remembered


def source(setting: str = "/dev/none/ttyUSB0", learnt: str = "") -> SerialSource:
    made = SerialSource(setting)
    made.learnt = learnt
    return made


def test_what_was_found_is_known_after_a_restart() -> None:
    wire = Wire(lists("kaifa", E, 60), E)
    assert frames(wire, most=1)
    assert wire.source.learnt == "parity=E"
    wire = Wire(lists("kaifa", E, 60), E)
    (first,) = frames(wire, most=1, learnt="parity=E")
    assert first < 3
    assert told(wire)[0][1].startswith("/dev/none/ttyUSB0 (2400 8E1) is open")


@pytest.mark.parametrize(
    ("setting", "learnt", "kept"),
    [
        ("/dev/ttyUSB0", "", ""),
        ("/dev/ttyUSB0", "baud=115200", "baud=115200"),
        ("/dev/ttyUSB0?parity=E", "baud=9600&parity=E", "baud=9600&parity=E"),
        ("/dev/ttyUSB0?parity=E", "baud=9600", ""),
        ("/dev/ttyUSB0?baud=9600&parity=E", "baud=115200", ""),
        ("/dev/ttyUSB0", "parity=X", ""),
        ("/dev/ttyUSB0", "speed=1", ""),
        ("/dev/ttyUSB0", "baud=300", ""),
        ("rfc2217://gw:2217", "parity=E", "parity=E"),
        ("socket://gw:2217", "parity=E", ""),
    ],
)
def test_only_what_the_setting_allows_is_remembered(setting: str, learnt: str, kept: str) -> None:
    assert source(setting, learnt).learnt == kept
