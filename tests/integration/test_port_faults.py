"""Faults of ports: permission, other programs, breaks, floods over RFC 2217, a far end with another parity."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from exporter.service.metrics import resident_size
from exporter.sources.contract import Happened
from exporter.sources.serial import port as port_module
from exporter.sources.serial.serial_url import SerialSettings
from exporter.sources.serial.settings_finder import COMMON_SETTINGS
from tests.integration.test_serial_pty import FRAME, Listener, Pty, as_nobody, flooding, pty, server
from tests.support.far_end import FarEnd, far_end
from tests.support.octets import frames_of
from tests.support.patience import HANG_S, until
from tests.support.uart import RECEIVERS, Receiver, received

__all__ = ["as_nobody", "pty"]  # fixtures

E = SerialSettings(parity="E")
KAMSTRUP = frames_of("kamstrup-1phase-norway")[0]


# --- permission


def test_permission_that_is_removed_matters_when_the_port_is_opened_again(
    pty: Pty, tmp_path: Path, as_nobody: Callable[[], None]
) -> None:
    link = tmp_path / "ttyMETER"
    link.symlink_to(pty.path)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        with suppress(PermissionError):
            folder.chmod(0o755)
    os.chmod(pty.path, 0o666)  # noqa: PTH101
    other = Pty()
    os.chmod(other.path, 0o060)  # noqa: PTH101
    as_nobody()
    with Listener(str(link)) as listener:
        listener.expect(Happened.OPENED)
        os.seteuid(0) if os.getuid() == 0 else None
        os.chmod(pty.path, 0o000)  # noqa: PTH101
        os.seteuid(65534) if os.getuid() == 0 else None
        pty.send(FRAME)
        assert listener.read(len(FRAME)) == FRAME, "an open port stays open"
        with suppress(PermissionError):
            os.seteuid(0)
        link.unlink()
        link.symlink_to(other.path)
        os.seteuid(65534) if os.getuid() == 0 else None
        pty.close()
        listener.expect(Happened.LOST)
        assert "no permission" in listener.expect(Happened.MISSING)
        with suppress(PermissionError):
            os.seteuid(0)
        os.chmod(other.path, 0o666)  # noqa: PTH101
        listener.expect(Happened.OPENED)
        other.send(FRAME)
        assert listener.read(2 * len(FRAME)) == FRAME * 2
        listener.end()
        other.close()


# --- other programs


@contextmanager
def holding(path: str) -> Iterator[int]:
    """Another program that has the port open without a lock and does not read it; yields its process number."""
    program = "import os, sys; os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        other.stdout.readline()
        yield other.pid
        other.stdin.close()


def test_another_program_with_the_port_open_is_named_when_nothing_comes(pty: Pty) -> None:
    with holding(pty.path) as number, Listener(f"{pty.path}?silence=1") as listener:
        listener.expect(Happened.OPENED)
        message = listener.expect(Happened.SILENT)
        assert f"(process {number})" in message


def test_another_program_with_the_port_open_is_named_when_no_valid_frame_comes(pty: Pty) -> None:
    with holding(pty.path) as number, Listener(pty.path, monotonic=lambda: time.monotonic() * 20) as listener:
        listener.expect(Happened.OPENED)
        for _ in range(4):
            pty.send(b"parts of frames")
            time.sleep(0.3)
        message = listener.expect(Happened.NO_FRAMES)
        assert f"(process {number})" in message


def test_no_other_program_can_open_a_port_that_is_read(
    pty: Pty, monkeypatch: pytest.MonkeyPatch, as_nobody: Callable[[], None]
) -> None:
    monkeypatch.setattr(port_module, "_is_pty", lambda path: False)
    os.chmod(pty.path, 0o666)  # noqa: PTH101
    as_nobody()
    with Listener(pty.path) as listener:
        listener.expect(Happened.OPENED)
        with pytest.raises(OSError, match="busy") as refused:
            os.open(pty.path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        assert refused.value.errno == errno.EBUSY
        with Listener(pty.path) as second:
            assert "this process" in second.expect(Happened.MISSING)
    os.close(os.open(pty.path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))


def test_a_break_does_not_discard_what_came_before_it(pty: Pty) -> None:
    before = os.open(pty.path, os.O_RDWR | os.O_NOCTTY)
    attributes = termios.tcgetattr(before)
    attributes[0] |= termios.BRKINT  # as `stty sane` leaves it
    termios.tcsetattr(before, termios.TCSANOW, attributes)
    with Listener(pty.path) as listener:
        listener.expect(Happened.OPENED)
        assert not termios.tcgetattr(before)[0] & termios.BRKINT
        os.close(before)


# --- over a network


def keep_sending(far: FarEnd, every: float, done: threading.Event) -> None:
    """A meter that sends faster than a real one."""
    with suppress(OSError):
        while not done.wait(every):
            far.send(KAMSTRUP)


QUICK = 20
"""How much faster time passes for the source: 25 s take 1.25 s."""


@pytest.mark.parametrize("receiver", [RECEIVERS[0], Receiver(False, "dropped")], ids=str)
def test_even_parity_is_found_over_rfc2217(receiver: Receiver) -> None:
    with server() as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        done = threading.Event()
        with Listener(f"rfc2217://{address}?silence=600", monotonic=lambda: time.monotonic() * QUICK) as listener:
            with far_end(listening, E, receiver) as far:
                listener.expect(Happened.OPENED)
                threading.Thread(target=keep_sending, args=(far, 10 / QUICK, done), daemon=True).start()
                assert "2400 8N1" in listener.expect(Happened.NO_FRAMES)
                message = listener.expect(Happened.FOUND)
                assert "2400 8E1" in message
                assert f"HAN_SOURCE=rfc2217://{address}?parity=E&silence=600" in message
                assert far.device.serial_settings == E
                done.set()
            listener.expect(Happened.LOST)
            with far_end(listening, E, receiver) as far:
                until(lambda: far.device.serial_settings == E, what="the settings that were found before")
                before = len(listener.read(0))
                far.send(KAMSTRUP)
                assert "2400 8E1" in listener.expect(Happened.OPENED)
                assert listener.read(before + len(KAMSTRUP))[before:] == KAMSTRUP


def test_after_a_parity_that_the_far_end_refuses_the_next_settings_are_tried() -> None:
    with server() as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        sent, done = SerialSettings(115_200), threading.Event()
        with (
            Listener(f"rfc2217://{address}", monotonic=lambda: time.monotonic() * QUICK) as listener,
            far_end(listening, sent, RECEIVERS[0], "E") as far,
        ):
            listener.expect(Happened.OPENED)
            threading.Thread(target=keep_sending, args=(far, 3 / QUICK, done), daemon=True).start()
            listener.expect(Happened.NO_FRAMES)
            assert "115200 8N1" in listener.expect(Happened.FOUND)
            done.set()


def test_a_flood_over_rfc2217_stays_at_the_far_end() -> None:
    with server() as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with (
            Listener(f"rfc2217://{address}") as listener,
            far_end(listening, SerialSettings(), RECEIVERS[0]) as far,
        ):
            listener.expect(Happened.OPENED)
            began = resident_size()
            with flooding(far.write, b"\x55" * 4096):
                listener.expect(Happened.NO_FRAMES)
                used = time.process_time()
                time.sleep(3)
                assert (time.process_time() - used) / 3 < 0.5
                assert resident_size() - began < 20_000_000
                assert listener.end() < 3


# --- a baud rate, which a pseudo-terminal keeps although it has no wire


def test_another_baud_rate_is_found_on_a_port(pty: Pty) -> None:
    sent, done = SerialSettings(9600), threading.Event()

    def send() -> None:
        while not done.wait(3 / QUICK):
            code = termios.tcgetattr(pty.meter)[4]
            baud = next(each.baud for each in COMMON_SETTINGS if getattr(termios, f"B{each.baud}") == code)
            pty.send(received(KAMSTRUP, sent, SerialSettings(baud)))

    with Listener(f"{pty.path}?parity=N", monotonic=lambda: time.monotonic() * QUICK) as listener:
        listener.expect(Happened.OPENED)
        meter = threading.Thread(target=send, daemon=True)
        meter.start()
        message = listener.expect(Happened.NO_FRAMES)
        assert "another parity, which HAN_SOURCE fixes" in message
        message = listener.expect(Happened.FOUND)
        assert "9600 8N1" in message
        assert f"HAN_SOURCE={pty.path}?baud=9600 " in message
        until(lambda: listener.chunks[-1].byte_seconds == 10 / 9600)
        done.set()
        meter.join(HANG_S)
