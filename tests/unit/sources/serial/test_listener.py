"""A meter whose baud rate or parity is not that of the port: it is found and reported. Time and wire are simulated."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from exporter.protocol.hdlc import Deframer, Frame
from exporter.simulator.meter import MAKERS, SimulatedMeter
from exporter.sources.contract import Happened
from exporter.sources.serial.flood import ALLOWED, RATE
from exporter.sources.serial.serial_port import SerialSource
from exporter.sources.serial.serial_url import SerialSettings
from exporter.sources.serial.settings_finder import PROVEN_DOUBTED_AFTER
from tests.support.octets import frames_of
from tests.support.uart import RECEIVERS, Receiver, bits, received
from tests.support.wire import BEGIN, Burst, Wire, lists

N, E = SerialSettings(), SerialSettings(parity="E")
KAMSTRUP = frames_of("kamstrup-1phase-norway")[0]
NOISE = bytes(n * 37 % 251 for n in range(240))


def frames(
    wire: Wire, url: str = "/dev/none/ttyUSB0", until: float = 400.0, most: int = 10**9, remembered: str = ""
) -> list[float]:
    """When valid frames came, as a reader of the source sees it; it stops after `most` of them."""
    deframer, came = Deframer(), []
    for at, chunk in wire.run(url, until, remembered):
        came += [at for found in deframer.feed(chunk.data) if isinstance(found, Frame)]
        if len(came) >= most:
            break
    return came


def reports(wire: Wire) -> list[tuple[Happened, str]]:
    return [(event.what, event.message) for _, event in wire.events]


# --- the model of the wire


def test_a_byte_on_the_wire() -> None:
    assert bits(b"\x53", N) == bytes([0, 1, 1, 0, 0, 1, 0, 1, 0, 1])
    assert bits(b"\x53", E) == bytes([0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1])
    assert bits(b"\x51", E) == bytes([0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 1])


@pytest.mark.parametrize("receiver", RECEIVERS, ids=str)
def test_a_receiver_with_the_settings_of_the_sender_gives_what_was_sent(receiver: Receiver) -> None:
    for sent in (N, E, SerialSettings(9600, 8, "O", 2.0)):
        same = SerialSettings(
            sent.baud + 1, sent.bits, sent.parity, sent.stop
        )  # avoids the shortcut for equal settings
        assert received(bytes(range(256)), sent, same, receiver) == bytes(range(256))


def test_what_a_wrong_parity_does_depends_on_the_receiver() -> None:
    alone = b"\x07"  # an odd number of ones: its parity bit is 1, as a stop bit would be
    assert received(alone, E, N) == alone
    even = b"\x03"
    assert received(even, E, N, Receiver(like_16550=False)) == even, "a framing error; the next edge is the next byte"
    assert received(even + alone, E, N, Receiver(like_16550=True)) != even + alone, (
        "the parity bit is taken as a start bit"
    )
    assert received(even, E, N, Receiver(damaged="dropped", like_16550=False)) == b""
    assert received(b"\x00\x00", N, E, Receiver(damaged="zeroed")) == b"\x00\x00"


# --- found


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("receiver", RECEIVERS, ids=str)
def test_even_parity_is_found_within_forty_seconds(maker: str, receiver: Receiver) -> None:
    wire = Wire(lists(maker, E, 120, after=3.3), E, receiver)
    (first,) = frames(wire, most=1)
    assert first < 40
    if any(event.what is Happened.FOUND for _, event in wire.events):
        assert [what for what, _ in reports(wire)] == [Happened.OPENED, Happened.NO_FRAMES, Happened.FOUND]
        assert "2400 8N1" in reports(wire)[1][1]
        assert "2400 8E1: write HAN_SOURCE=/dev/none/ttyUSB0?parity=E " in reports(wire)[2][1]
    else:  # this receiver gives valid frames without parity too
        assert first < 11


@pytest.mark.parametrize(
    ("maker", "settings"),
    [("kamstrup", SerialSettings(115_200)), ("aidon", SerialSettings(9600, 8, "E")), ("kaifa", SerialSettings(57_600))],
)
def test_another_baud_rate_is_found_within_five_minutes(maker: str, settings: SerialSettings) -> None:
    wire = Wire(lists(maker, settings, 400), settings)
    assert len(frames(wire, most=3)) == 3
    assert wire.time < 300
    assert wire.used[-1][1] == settings


def test_valid_frames_are_never_disturbed() -> None:
    wire = Wire(lists("kaifa", N, 3600), N)
    assert len(frames(wire, until=3599)) >= 1799
    assert wire.used == [(0.0, N)]
    assert reports(wire)[1:] == []


def test_no_frame_is_lost_after_the_settings_are_found() -> None:
    wire = Wire(lists("kamstrup", E, 900), E)
    came = frames(wire, until=899)
    sent = [
        moment for moment, _ in SimulatedMeter("kamstrup").frames(BEGIN, datetime(2026, 11, 22, 17, 15, tzinfo=UTC))
    ]
    assert len([at for at in came if at > came[0]]) == len(
        [moment for moment in sent if came[0] + 0.1 < (moment - BEGIN).total_seconds() < 899]
    )


def test_the_wire_time_of_a_byte_is_that_of_the_settings_in_use() -> None:
    wire = Wire(lists("kaifa", E, 60), E)
    last = [chunk.byte_seconds for _, chunk in wire.run(until=59)][-1]
    assert last == 11 / 2400


def noisy(seconds: float, begin: float) -> list[Burst]:
    """Bytes without a frame and without a pause."""
    return [(begin + n, NOISE) for n in range(int(seconds))]


def test_no_frame_is_lost_after_100_kb_of_noise() -> None:
    storm = noisy(420, 30.0)
    assert sum(len(burst) for _, burst in storm) >= 100_000
    before = list(lists("kamstrup", N, 30))
    after = [(at + 460, data) for at, data in lists("kamstrup", N, 200)]
    wire = Wire([*before, *storm, *after], N)
    came = frames(wire, until=670)
    assert len([at for at in came if at > 450]) == len(after)
    assert wire.used == [(0.0, N)]
    assert Happened.NO_FRAMES not in [what for what, _ in reports(wire)]


def test_longer_noise_costs_at_most_a_turn() -> None:
    after = [(at + 1300, data) for at, data in lists("kamstrup", N, 200)]
    wire = Wire([*lists("kamstrup", N, 30), *noisy(1200, 30.0), *after], N)
    came = frames(wire, until=1510)
    assert wire.used[1][0] >= 30 + PROVEN_DOUBTED_AFTER
    assert len([at for at in came if at > 1300]) >= len(after) - 2
    assert reports(wire)[1][0] is Happened.NO_FRAMES
    assert "noise" in reports(wire)[1][1]
    assert reports(wire)[-1][0] is Happened.FOUND
    assert "2400 8N1" in reports(wire)[-1][1]


def test_found_settings_are_used_when_the_port_comes_back() -> None:
    wire = Wire(lists("kaifa", E, 200), E)
    wire.breaks = [100.0]
    came = frames(wire, until=199)
    assert wire.used[-1] == (101.0, E)
    assert len([at for at in came if 103 < at < 199]) >= 47
    assert [what for what, _ in reports(wire)][3:] == [Happened.LOST, Happened.OPENED]


def test_after_settings_that_the_adapter_refuses_the_next_are_tried() -> None:
    sent = SerialSettings(9600)
    wire = Wire(lists("kaifa", sent, 400), sent, refused=[E, SerialSettings(115_200)])
    assert frames(wire, most=1)
    assert [which for _, which in wire.used if which != N] == [sent]
    assert [what for what, _ in reports(wire)] == [Happened.OPENED, Happened.NO_FRAMES, Happened.FOUND]


# --- not found


def test_fixed_settings_are_kept_and_the_report_says_so() -> None:
    wire = Wire(lists("kaifa", E, 600), E)
    assert frames(wire, "/dev/none/ttyUSB0?parity=N", until=599) == []
    assert {settings.parity for _, settings in wire.used} == {"N"}
    assert "none with another parity, which HAN_SOURCE fixes" in reports(wire)[1][1]
    wire = Wire(lists("kaifa", E, 600), E)
    assert frames(wire, "/dev/none/ttyUSB0?parity=N&baud=2400", until=599) == []
    assert len(wire.used) == 1
    assert "HAN_SOURCE fixes baud rate and parity" in reports(wire)[1][1]
    assert len(reports(wire)) == 2


def test_a_device_that_is_not_a_meter_is_reported_once_all_settings_were_tried() -> None:
    wire = Wire([(2.0 * n, NOISE) for n in range(1000)], N)
    assert frames(wire, until=1999) == []
    assert [what for what, _ in reports(wire)] == [Happened.OPENED, Happened.NO_FRAMES, Happened.NO_FRAMES]
    assert "9 settings" in reports(wire)[2][1]
    assert 200 < wire.events[2][0] < 400
    assert {settings for _, settings in wire.used} >= {N, E, SerialSettings(57_600)}


def test_the_settings_of_a_socket_are_not_changed() -> None:
    wire = Wire(lists("kamstrup", E, 200), E, Receiver(damaged="zeroed"))
    assert frames(wire, "socket://gw:2001", until=199) == []
    assert len(wire.used) == 1
    assert reports(wire)[1][0] is Happened.NO_FRAMES
    assert "far end" in reports(wire)[1][1]
    assert len(reports(wire)) == 2


# --- floods


def test_a_flood_is_read_slowly_and_reported_once() -> None:
    wire = Wire([(1 + n / 10, NOISE * 1000) for n in range(600)], N)
    wire.settings = SerialSettings(4_000_000)
    sizes = [(at, len(chunk.data)) for at, chunk in wire.run("/dev/none/ttyUSB0?baud=4000000&parity=N", until=60)]
    assert sum(size for _, size in sizes) < ALLOWED + 61 * RATE + 4096
    assert sum(size for at, size in sizes if at > 30) > 25 * RATE * 0.9
    assert max(size for _, size in sizes) <= 4096
    floods = [message for what, message in reports(wire) if "floods" in message]
    assert len(floods) == 1
    assert "16 kB/s" in floods[0]


def test_frames_at_any_speed_are_not_a_flood() -> None:
    fast = SerialSettings(4_000_000)
    wire = Wire([(1 + n / 100, KAMSTRUP * 40) for n in range(300)], fast)
    came = frames(wire, "/dev/none/ttyUSB0?baud=4000000&parity=N", until=5)
    assert len(came) == 12_000
    assert wire.time < 6
    assert reports(wire)[1:] == []


# --- remembered


def source(url: str = "/dev/none/ttyUSB0", remembered: str = "") -> SerialSource:
    made = SerialSource(url)
    made.remembered = remembered
    return made


def test_found_settings_are_known_after_a_restart() -> None:
    wire = Wire(lists("kaifa", E, 60), E)
    assert frames(wire, most=1)
    assert wire.source.remembered == "parity=E"
    wire = Wire(lists("kaifa", E, 60), E)
    (first,) = frames(wire, most=1, remembered="parity=E")
    assert first < 3
    assert "/dev/none/ttyUSB0 (2400 8E1)" in reports(wire)[0][1]


@pytest.mark.parametrize(
    ("url", "remembered", "kept"),
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
def test_only_what_the_url_allows_is_remembered(url: str, remembered: str, kept: str) -> None:
    assert source(url, remembered).remembered == kept
