"""SerialSource: URLs, reports of states, retries; without a port and without sleeping."""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import serial
from serial.tools import list_ports

from exporter.sources.contract import Chunk, Happened, SourceError, SourceEvent
from exporter.sources.open import open_source
from exporter.sources.serial import port_errors
from exporter.sources.serial.serial_port import SerialSource
from exporter.sources.serial.serial_url import SerialSettings, SerialUrl

START = datetime(2026, 11, 22, 17, 0, 10, tzinfo=UTC)


class World:
    """A clock, ports that follow a script, and the waits and reports of the source.

    The script has one element for each opening: an exception, or a list with one element for each read: bytes, seconds
    of silence, or an exception. At the end of the script the source is stopped.
    """

    def __init__(self, *script: Exception | list[bytes | float | Exception]) -> None:
        self.script = deque(script)
        self.time = 0.0
        self.stop = threading.Event()
        self.waits: list[float] = []
        self.events: list[SourceEvent] = []
        self.opened: list[dict[str, Any]] = []
        self.open_now = 0

    def open(self, address: str, **settings: Any) -> FakePort:
        self.opened.append({"address": address, **settings})
        if not self.script:
            self.stop.set()
            return FakePort(self, [])
        step = self.script.popleft()
        if isinstance(step, Exception):
            raise step
        return FakePort(self, step)

    def pause(self, stop: threading.Event, seconds: float) -> None:
        assert stop is self.stop
        self.waits.append(seconds)
        self.time += seconds

    def run(self, url: str = "/dev/none/ttyUSB0") -> list[Chunk]:
        source = SerialSource(
            url,
            opener=self.open,
            now=lambda: START + timedelta(seconds=self.time),
            monotonic=lambda: self.time,
            pause=self.pause,
        )
        chunks = list(source.chunks(self.stop, self.events.append))
        assert self.open_now == 0
        return chunks

    @property
    def reported(self) -> list[Happened]:
        return [event.what for event in self.events]


class FakePort:
    """Gives what the script says. It has no file descriptor, as loop:// and rfc2217:// have none."""

    def __init__(self, world: World, reads: list[bytes | float | Exception]) -> None:
        self._world = world
        self._reads = deque(reads)
        self._here = b""
        self.timeout = 0.0
        world.open_now += 1

    def open(self) -> None:
        """pyserial calls this for a network port; this one is open from the start."""

    @property
    def in_waiting(self) -> int:
        return len(self._here)

    def read(self, size: int) -> bytes:
        if not self._here:
            self._arrive()
        data, self._here = self._here[:size], self._here[size:]
        return data

    def _arrive(self) -> None:
        if not self._reads:
            self._world.stop.set()
            return
        step = self._reads.popleft()
        if isinstance(step, Exception):
            raise step
        if isinstance(step, bytes):
            self._here = step
            return
        self._world.time += self.timeout
        if step > self.timeout:
            self._reads.appendleft(step - self.timeout)

    def close(self) -> None:
        self._world.open_now -= 1


def gone(number: int = errno.ENOENT) -> serial.SerialException:
    return serial.SerialException(number, "could not open port")


# --- URLs


@pytest.mark.parametrize(
    ("url", "address", "settings", "silence"),
    [
        ("/dev/ttyUSB0", "/dev/ttyUSB0", SerialSettings(), 60),
        ("/dev/ttyUSB0?baud=115200&parity=e", "/dev/ttyUSB0", SerialSettings(115200, 8, "E"), 60),
        ("/dev/ttyUSB0?bits=7&stop=2&silence=5", "/dev/ttyUSB0", SerialSettings(2400, 7, "N", 2.0), 5),
        ("socket://gw:2001?silence=90", "socket://gw:2001", SerialSettings(), 90),
        ("rfc2217://gw:2217?logging=debug&parity=E&timeout=4", "rfc2217://gw:2217?logging=debug&timeout=4", None, 60),
        ("loop://?baud=9600", "loop://", SerialSettings(9600), 60),
        ("hwgrep://0403:6001&n=2?parity=O", "hwgrep://0403:6001&n=2", SerialSettings(parity="O"), 60),
    ],
)
def test_the_parts_of_a_url(url: str, address: str, settings: SerialSettings | None, silence: float) -> None:
    parsed = SerialUrl.parse(url)
    assert (parsed.address, parsed.settings, parsed.silence) == (
        address,
        settings or SerialSettings(parity="E"),
        silence,
    )


def test_a_url_can_be_written_again() -> None:
    assert SerialUrl.parse("/dev/ttyUSB0").with_settings(SerialSettings(2400, 8, "E")).text == "/dev/ttyUSB0?parity=E"
    assert SerialUrl.parse("/dev/ttyUSB0?parity=E").with_settings(SerialSettings()).text == "/dev/ttyUSB0"
    asked = SerialUrl.parse("rfc2217://a:1?logging=debug").with_settings(SerialSettings(9600, 7, "O", 1.5))
    assert asked.text == "rfc2217://a:1?logging=debug&baud=9600&bits=7&parity=O&stop=1.5"
    assert SerialUrl.parse(asked.text) == asked


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("/dev/ttyUSB0?parity=X", r"parity=X .* N .*E .*O"),
        ("/dev/ttyUSB0?baud=fast", "baud=fast .*50 to 4000000"),
        ("/dev/ttyUSB0?baud=9", "baud=9 .*50 to 4000000"),
        ("/dev/ttyUSB0?bits=9", "bits=9 .*5, 6, 7 or 8"),
        ("/dev/ttyUSB0?stop=3", "stop=3 .*1, 1.5 or 2"),
        ("/dev/ttyUSB0?silence=never", "silence=never .*1 to 86400"),
        ("/dev/ttyUSB0?speed=9600", "'speed=9600'.* baud, bits, parity, stop, silence"),
        ("?parity=E", "no port"),
        ("socket://gateway", "socket://HOST:PORT"),
        ("socket://gateway:99999", "socket://HOST:PORT"),
        ("rfc2217://:17", "rfc2217://HOST:PORT"),
    ],
)
def test_a_wrong_part_is_named_with_what_is_allowed(url: str, parts: str) -> None:
    with pytest.raises(SourceError, match=parts):
        SerialSource(url)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/dev/ttyUSB0?parity=E", "ttyUSB0"),
        ("/dev/serial/by-id/usb-FTDI-port0", "usb-FTDI-port0"),
        ("socket://10.0.0.5:2001", "10.0.0.5:2001"),
        ("rfc2217://gw:2217?parity=E", "gw:2217"),
        ("socket://[fe80::1]:5", "[fe80::1]:5"),
        ("loop://", "loop"),
        ("spy:///dev/ttyUSB0?file=x", "ttyUSB0"),
    ],
)
def test_names(url: str, name: str) -> None:
    assert SerialSource(url).name == name


def test_wire_time_of_a_byte() -> None:
    assert SerialUrl.parse("/dev/ttyUSB0").byte_seconds == 10 / 2400
    assert SerialUrl.parse("/dev/ttyUSB0?parity=E").byte_seconds == 11 / 2400
    assert SerialUrl.parse("/dev/ttyUSB0?baud=9600&parity=O&stop=2&bits=7").byte_seconds == 11 / 9600
    assert SerialUrl.parse("socket://a:1").byte_seconds == 0
    assert SerialUrl.parse("rfc2217://a:1").byte_seconds == 0
    assert SerialUrl.parse("loop://").byte_seconds == 0


# --- reading


def test_the_port_is_opened_with_its_settings_and_for_us_alone() -> None:
    world = World([b"\x7e"])
    assert world.run("/dev/none/ttyUSB0?parity=E&baud=9600") == [Chunk(b"\x7e", START, 11 / 9600)]
    assert world.opened[0] == {
        "address": "/dev/none/ttyUSB0",
        "baudrate": 9600,
        "bytesize": 8,
        "parity": "E",
        "stopbits": 1.0,
        "timeout": 0,
        "exclusive": True,
    }


def test_chunks_have_the_time_at_which_they_came() -> None:
    world = World([b"abc", 9.0, b"def"])
    assert [(c.data, c.received) for c in world.run()] == [(b"abc", START), (b"def", START + timedelta(seconds=9))]
    assert world.reported == [Happened.OPENED]
    assert world.waits == []


def test_a_flood_is_taken_in_pieces() -> None:
    flood = bytes(range(256)) * 40
    chunks = World([flood]).run()
    assert b"".join(c.data for c in chunks) == flood
    assert max(len(c.data) for c in chunks) == 4096


def test_what_the_kernel_has_is_still_yielded_when_stopping() -> None:
    world = World([b"first", b"x" * 5000])
    source = SerialSource("/dev/none/ttyUSB0", opener=world.open, monotonic=lambda: world.time, pause=world.pause)
    got = []
    for chunk in source.chunks(world.stop, world.events.append):
        got.append(chunk.data)
        if len(got) == 2:
            world.stop.set()
    assert b"".join(got) == b"first" + b"x" * 5000
    assert world.open_now == 0


def test_giving_up_the_iterator_closes_the_port() -> None:
    world = World([b"first", b"second"])
    chunks = SerialSource("/dev/none/ttyUSB0", opener=world.open).chunks(world.stop, world.events.append)
    assert next(iter(chunks)).data == b"first"
    assert world.open_now == 1
    chunks.close()  # type: ignore[attr-defined]
    assert world.open_now == 0


# --- states and retries


def test_a_missing_port_is_reported_once_and_tried_for_ever_more_slowly() -> None:
    world = World(*[gone() for _ in range(40)], [b"a"])
    assert len(world.run()) == 1
    assert world.reported == [Happened.MISSING, Happened.OPENED]
    assert "/dev/none/ttyUSB0" in world.events[0].message
    assert len(world.waits) == 40
    for n, seconds in enumerate(world.waits):
        assert min(2.0**n, 30) <= seconds <= min(2.0**n + 1, 30)


def test_bytes_reset_the_waiting_time() -> None:
    world = World(gone(), gone(), gone(), [b"a", gone(errno.EIO)], gone(), [b"b"])
    assert len(world.run()) == 2
    assert [int(seconds) for seconds in world.waits] == [1, 2, 4, 1, 1]
    assert world.reported == [Happened.MISSING, Happened.OPENED, Happened.LOST, Happened.MISSING, Happened.OPENED]


def test_a_port_that_is_opened_and_fails_is_no_success() -> None:
    failing: list[list[bytes | float | Exception]] = [[gone(errno.EIO)] for _ in range(6)]
    world = World([b"a", gone(errno.EIO)], *failing, [b"b"])
    assert len(world.run()) == 2
    assert [int(seconds) for seconds in world.waits] == [1, 1, 2, 4, 8, 16, 30]
    assert world.reported == [Happened.OPENED, Happened.LOST, Happened.OPENED]


def test_silence_reopens_at_once_and_is_reported_once() -> None:
    world = World([b"a", 200.0], [200.0], [200.0], [5.0, b"b"])
    first, second = world.run()
    assert world.reported == [Happened.OPENED, Happened.SILENT, Happened.OPENED]
    assert " 60 s" in world.events[1].message
    assert first.received is not None and second.received is not None
    assert second.received - first.received == timedelta(seconds=3 * 60 + 5)
    assert sum(world.waits) == 0


def test_the_silence_that_is_allowed_can_be_set() -> None:
    world = World([2.0], [b"a"])
    world.run("/dev/none/ttyUSB0?silence=2")
    assert world.reported == [Happened.OPENED, Happened.SILENT, Happened.OPENED]


def test_each_cause_is_reported_when_it_changes() -> None:
    world = World(gone(), gone(), gone(errno.EBUSY), gone(errno.EAGAIN), gone(errno.EACCES), gone(), [b"a"])
    world.run()
    assert world.reported == [Happened.MISSING] * 4 + [Happened.OPENED]


def test_stopping_while_waiting_ends_at_once() -> None:
    world = World(gone(), gone(), gone())

    def pause(stop: threading.Event, seconds: float) -> None:
        world.pause(stop, seconds)
        stop.set()

    source = SerialSource("/dev/none/ttyUSB0", opener=world.open, pause=pause)
    assert list(source.chunks(world.stop, world.events.append)) == []
    assert len(world.waits) == len(world.opened) == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("invalid URL, protocol 'nothing' not known"),
        ValueError("Failed to set custom baud rate (1234): …"),
        serial.SerialException("expected a string in the form \"loop://…\": unknown option: 'x'"),
    ],
)
def test_an_error_that_can_never_pass_ends_it(error: Exception) -> None:
    with pytest.raises(SourceError):
        World(error).run("loop://?x=1" if "expected" in str(error) else "/dev/none/ttyUSB0")


def test_a_directory_and_a_file_are_not_ports(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is a directory"):
        World([b"a"]).run(str(tmp_path))
    file = tmp_path / "capture"
    file.touch()
    with pytest.raises(SourceError, match=f"file:{file}"):
        World([b"a"]).run(str(file))
    with pytest.raises(SourceError, match="/dev/null is not a serial port"):
        list(SerialSource("/dev/null").chunks(threading.Event(), lambda event: None))


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(SourceError, match="http:// is not known"):
        list(open_source("http://gateway:80").chunks(threading.Event(), lambda event: None))


# --- messages


def missing(monkeypatch: pytest.MonkeyPatch, mode: int, number: int = errno.EACCES, group: int = 0) -> str:
    class Stat:
        st_mode, st_uid, st_gid, st_rdev = 0o020000 | mode, 0, group, 0

    monkeypatch.setattr(port_errors.os, "stat", lambda path: Stat)  # type: ignore[attr-defined]
    monkeypatch.setattr(port_errors, "_container_hint", lambda advice: "")
    monkeypatch.setattr(port_errors, "_user", lambda: "anna")
    world = World(gone(number), [b"a"])
    world.run()
    return world.events[0].message


def test_no_permission_names_the_group_to_join(monkeypatch: pytest.MonkeyPatch) -> None:
    message = missing(monkeypatch, 0o660)
    assert "/dev/none/ttyUSB0" in message
    assert "sudo usermod -aG root anna" in message


def test_no_permission_of_a_member_says_log_in_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Group(tuple[str, ...]):
        gr_mem = ("anna",)

    monkeypatch.setattr(port_errors.grp, "getgrgid", lambda number: Group(("dialout",)))  # type: ignore[attr-defined]
    message = missing(monkeypatch, 0o660)
    assert "anna" in message and "dialout" in message
    assert "log in again" in message and "usermod" not in message


def test_no_permission_for_any_group_names_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    message = missing(monkeypatch, 0o600)
    assert "root" in message and "mode 600" in message


def test_a_group_without_a_name_is_shown_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "group 54321:" in missing(monkeypatch, 0o660, group=54321)


def test_inside_a_container_the_advice_is_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_errors.Path, "exists", lambda self: str(self) == "/.dockerenv")  # type: ignore[attr-defined]
    assert "advice" in port_errors._container_hint("advice")


def test_missing_lists_the_ports_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        device, description, vid = "/dev/ttyUSB7", "FT232R", 0x0403

    monkeypatch.setattr(list_ports, "comports", lambda: [Found])
    world = World(gone(), [b"a"])
    world.run()
    assert world.events[0].message.endswith("/dev/ttyUSB7 (FT232R))")


def network(cause: Exception) -> serial.SerialException:
    error = serial.SerialException(f"Could not open port socket://gw:2001: {cause}")
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (network(ConnectionRefusedError(111, "refused")), "nothing listens at gw:2001"),
        (network(TimeoutError("timed out")), "gw:2001 does not answer"),
        (network(OSError(errno.EHOSTUNREACH, "no route")), "gw:2001 does not answer"),
        (network(port_errors.socket.gaierror(-2, "unknown")), "no machine named gw:2001"),  # type: ignore[attr-defined]
        (serial.SerialException("Remote does not seem to support RFC2217 or BINARY mode"), "socket://gw:2001"),
        (serial.SerialException("something\nelse"), "something else"),
    ],
)
def test_messages_of_the_network(error: Exception, part: str) -> None:
    world = World(error, [b"a"])
    world.run("socket://gw:2001")
    assert part in world.events[0].message


def test_a_far_end_that_hangs_up_is_lost() -> None:
    world = World([b"a", serial.SerialException("socket disconnected")], [b"b"])
    world.run("socket://gw:2001")
    assert world.reported == [Happened.OPENED, Happened.LOST, Happened.OPENED]
    assert "gw:2001" in world.events[1].message
    assert "socket disconnected" in world.events[1].message


def test_an_unplugged_adapter_is_lost() -> None:
    world = World([b"a", serial.SerialException("device reports readiness to read but returned no data")], [b"b"])
    world.run()
    assert world.reported[1] is Happened.LOST
    assert "unplugged" in world.events[1].message


# --- open_source


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.hex").write_text("7E")
    yield open_source


@pytest.mark.parametrize(
    ("url", "kind", "name"),
    [
        ("/dev/ttyUSB0?parity=E", "SerialSource", "ttyUSB0"),
        ("socket://a:1", "SerialSource", "a:1"),
        ("/tmp/not-there-yet", "SerialSource", "not-there-yet"),
        ("file:x.hex", "FileSource", "x.hex"),
        ("FILE:x.hex?follow=1", "FileSource", "x.hex"),
        ("x.hex", "FileSource", "x.hex"),
        ("-", "FileSource", "stdin"),
        ("file:-", "FileSource", "stdin"),
    ],
)
def test_each_kind_of_source(here: Callable[[str], Any], url: str, kind: str, name: str) -> None:
    source = here(url)
    assert (type(source).__name__, source.name) == (kind, name)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("", "no source given"),
        ("  ", "no source given"),
        ("simm:kamstrup", "simm: is not known"),
        ("y.hex", "no port named y.hex"),
        ("null", "did you mean /dev/null?"),
        ("file:", "file:PATH"),
        ("file:x.hex?fast=1", "'fast=1'"),
        ("file:x.hex?follow=1&pace=1", "pace=1"),
    ],
)
def test_an_impossible_source_is_named(here: Callable[[str], Any], url: str, part: str) -> None:
    with pytest.raises(SourceError) as caught:
        here(url)
    assert part in str(caught.value)


def test_a_retry_with_the_same_cause_does_not_search_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []

    def holders(path: str) -> list[str]:
        searched.append(path)
        return []

    monkeypatch.setattr(port_errors, "holders", holders)
    monkeypatch.setattr(port_errors, "_held_here", lambda path: False)
    world = World(*[gone(errno.EAGAIN) for _ in range(10)], [b"a"])
    world.run()
    assert len(searched) == 1
    assert "another program" in world.events[0].message
