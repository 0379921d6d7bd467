"""`capture` and `probe` as a user runs them: the installed command as a process."""

from __future__ import annotations

import itertools
import os
import pty as terminal
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from exporter.protocol.hdlc import Deframer, Frame
from exporter.sources.capture.reader import read_capture
from tests.support.octets import frames_of
from tests.support.patience import HANG_S, Patience, quiet_seconds

COMMAND = str(Path(sys.executable).parent / "han-exporter")
KAIFA = frames_of("kaifa-3phase-norway")
KAMSTRUP = frames_of("kamstrup-1phase-norway")[0]


class Meter:
    """A pseudo-terminal: what is written to it can be read from the port at `path`."""

    def __init__(self) -> None:
        self._meter, self._port = os.openpty()
        self.path = os.ttyname(self._port)
        self._talking = threading.Event()
        self._talker: threading.Thread | None = None

    def send(self, data: bytes, size: int = 10) -> None:
        """Send a few bytes at a time, like a USB adapter."""
        for start in range(0, len(data), size):
            os.write(self._meter, data[start : start + size])
            time.sleep(0.002)

    def talk(self, data: bytes, every: float) -> None:
        """Send the same again and again, until closed."""

        def talk() -> None:
            while not self._talking.wait(every):
                with suppress(BlockingIOError):  # the buffer is full because nobody reads
                    os.write(self._meter, data)

        os.set_blocking(self._meter, False)
        self._talker = threading.Thread(target=talk, daemon=True)
        self._talker.start()

    def close(self) -> None:
        self._talking.set()
        if self._talker is not None:
            self._talker.join(HANG_S)
        os.close(self._port)
        os.close(self._meter)


@pytest.fixture
def meter() -> Iterator[Meter]:
    made = Meter()
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "meter.hex"


def run(*arguments: str, timeout: float = HANG_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=timeout, check=False)


class Capture:
    """A running `capture`, which a signal ends."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [COMMAND, "capture", *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        assert "is open" in self.process.stderr.readline()

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=HANG_S)
        return self.process.returncode, errors


def wait_for_lines(file: Path, count: int) -> None:
    patience = Patience(15)
    while not file.exists() or file.read_text().count("\n") < count:
        assert not patience.is_over(), "the capture was not written"
        time.sleep(0.02)


def frames_in(file: Path) -> int:
    with file.open("rb") as stream:
        data = b"".join(chunk.data for chunk in read_capture(stream))
    return sum(isinstance(found, Frame) for found in Deframer().feed(data))


# --- capture


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_capture_ends_with_a_summary(meter: Meter, file: Path, number: int) -> None:
    capture = Capture(meter.path, str(file))
    for frame in KAIFA:
        meter.send(frame)
    wait_for_lines(file, len(KAIFA))
    code, summary = capture.end(number)
    assert code == 0
    assert all(part in summary for part in (str(file), "164 bytes", "2 valid frames")), summary
    lines = file.read_text().splitlines()
    pieces = [bytes.fromhex(line.split()[1]) for line in lines]
    assert b"".join(pieces) == b"".join(KAIFA)
    # A line ends where a frame ends, not after every few bytes (there are more lines only if the machine was busy).
    assert len(KAIFA[0]) in itertools.accumulate(map(len, pieces))
    assert len(pieces) < 8
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [0-9A-F]+$", line) for line in lines)


def test_a_killed_capture_loses_no_received_frame_and_can_be_continued(meter: Meter, file: Path) -> None:
    for n in range(1, 4):
        capture = Capture(meter.path, str(file))
        meter.send(KAMSTRUP)
        wait_for_lines(file, n)
        capture.end(signal.SIGKILL)
        assert frames_in(file) == n
    with file.open("a") as torn:
        torn.write("2026-11-22T17:00:10.123Z 7EA0E")
    result = run("capture", "sim:kaifa?speed=1000", str(file), "--frames", "1")
    assert result.returncode == 0, result.stderr
    assert frames_in(file) == 4
    decoded = run("decode", str(file))
    assert "5706567100012345" in decoded.stdout


def test_capture_stops_after_frames_or_seconds(meter: Meter, file: Path) -> None:
    result = run("capture", "sim:kamstrup?speed=1000", str(file), "--frames", "3")
    assert result.returncode == 0
    assert frames_in(file) == 3
    meter.talk(KAIFA[0], 0.2)
    began = time.monotonic()
    result = run("capture", meter.path, str(file), "--seconds", "1")
    assert quiet_seconds(time.monotonic() - began) < 6
    assert result.returncode == 0
    assert frames_in(file) > 3


def test_capture_of_nothing(meter: Meter, file: Path) -> None:
    result = run("capture", meter.path, str(file), "--seconds", "0.5")
    assert result.returncode == 1
    assert "0 bytes, 0 valid frames" in result.stderr


def test_capture_reports_what_is_wrong(meter: Meter, file: Path, tmp_path: Path) -> None:
    for arguments, reason in (
        ((str(tmp_path), str(file)), "directory"),
        ((f"{meter.path}?parity=X", str(file)), "parity=X"),
        ((meter.path, str(tmp_path / "no" / "x.hex")), "No such file"),
    ):
        result = run("capture", *arguments)
        assert result.returncode == 2
        assert reason in result.stderr
        assert "Traceback" not in result.stderr
    file.write_bytes(KAMSTRUP)
    result = run("capture", meter.path, str(file))
    assert result.returncode == 2
    assert str(file) in result.stderr
    assert "cannot be appended" in result.stderr
    assert file.read_bytes() == KAMSTRUP


def test_a_missing_port_is_waited_for(meter: Meter, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "ttyMETER"
    process = subprocess.Popen([COMMAND, "capture", str(link), str(file)], stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr is not None
        assert "missing: " in process.stderr.readline()
        link.symlink_to(meter.path)
        assert "opened:" in process.stderr.readline()
        meter.send(KAMSTRUP)
        wait_for_lines(file, 1)
        process.terminate()
    assert frames_in(file) == 1


def test_progress_on_a_terminal(meter: Meter, file: Path) -> None:
    screen, inside = terminal.openpty()
    process = subprocess.Popen([COMMAND, "capture", meter.path, str(file)], stderr=inside)
    os.close(inside)
    with process:
        meter.talk(KAIFA[0], 0.1)
        shown = b""
        patience = Patience(15)
        while b"valid frames; Ctrl-C" not in shown and not patience.is_over():
            if select.select([screen], [], [], 0.5)[0]:
                shown += os.read(screen, 1000)
        process.send_signal(signal.SIGINT)
        process.wait(HANG_S)
    os.close(screen)
    assert b"valid frames; Ctrl-C" in shown


def test_capture_from_standard_input_keeps_the_stamps(file: Path) -> None:
    line = f"2026-11-22T17:00:10.123Z {KAMSTRUP.hex().upper()}\n"
    command = [COMMAND, "capture", "-", str(file)]
    subprocess.run(command, input=line * 2, text=True, check=True, timeout=HANG_S, capture_output=True)
    assert file.read_text() == line * 2
    raw = subprocess.run(command, input=KAMSTRUP, check=False, timeout=HANG_S, capture_output=True)
    assert raw.returncode == 2
    assert b"no time stamps" in raw.stderr
    assert file.read_text() == line * 2


def test_capture_of_a_symbolic_link_with_its_own_serial_setting(meter: Meter, file: Path, tmp_path: Path) -> None:
    near = tmp_path / "by-id"
    near.symlink_to(meter.path)
    capture = Capture(f"{near}?parity=E&baud=9600", str(file))
    meter.send(KAMSTRUP)
    wait_for_lines(file, 1)
    capture.end(signal.SIGTERM)
    assert frames_in(file) == 1


# --- probe


def test_probe_finds_the_meter_and_shows_the_setting(meter: Meter) -> None:
    meter.talk(KAMSTRUP, 0.3)
    result = run("probe", meter.path)
    assert result.returncode == 0
    [line] = [line for line in result.stdout.splitlines() if line.startswith(f"{meter.path} at 2400 8N1: ")]
    assert all(part in line for part in ("Kamstrup", "6861111BN299901040", "5706567100012345"))
    assert f"\n    HAN_SOURCE={meter.path}\n" in result.stdout


def test_probe_starts_with_the_given_setting(meter: Meter) -> None:
    meter.talk(KAIFA[1], 0.3)
    result = run("probe", f"{meter.path}?parity=E&baud=9600")
    assert result.returncode == 0
    assert re.search(r" at 9600 8E1: .*Kaifa", result.stdout)
    assert f"HAN_SOURCE={meter.path}?baud=9600&parity=E\n" in result.stdout


def test_probe_of_silence_does_not_try_every_speed(meter: Meter) -> None:
    result = run("probe", meter.path, "--seconds", "0.5")
    assert result.returncode == 1
    assert result.stdout.startswith(f"{meter.path} at 2400 8N1: silence\n")
    assert result.stdout.count(" at ") == 1
    assert "HAN port" in result.stdout


def test_probe_of_bytes_without_a_frame_tries_every_setting(meter: Meter) -> None:
    meter.talk(b"\x00\x55" * 20, 0.05)
    result = run("probe", meter.path, "--seconds", "0.3")
    assert result.returncode == 1
    assert len(re.findall(r"at \d+ 8[NE]1: \d+ bytes, but no valid frame", result.stdout)) == 9


def test_probe_names_a_p1_port(meter: Meter) -> None:
    meter.talk(b"/KFM5KAIFA-METER\r\n\r\n1-0:1.7.0(01.19*kW)\r\n!E47C\r\n", 0.05)
    assert "a P1 telegram" in run("probe", meter.path, "--seconds", "0.3").stdout


def test_probe_over_tcp_listens_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def serve() -> None:
            peer, _ = listening.accept()
            with peer, suppress(OSError):  # until the other end hangs up; it may discard what arrives while it opens
                while True:
                    peer.sendall(KAMSTRUP)
                    time.sleep(0.2)

        threading.Thread(target=serve, daemon=True).start()
        result = run("probe", f"socket://127.0.0.1:{port}")
        assert result.returncode == 0
        assert f"HAN_SOURCE=socket://127.0.0.1:{port}\n" in result.stdout


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("/dev/none/ttyUSB0", "no such port: /dev/none/ttyUSB0"),
        ("/dev", "directory"),
        ("sim:kaifa", "sim:kaifa"),
        ("/dev/ttyUSB0?speed=1", "speed=1"),
        ("socket://127.0.0.1:1", "127.0.0.1:1"),
    ],
)
def test_probe_reports_what_it_cannot_do(url: str, reason: str) -> None:
    result = run("probe", url)
    assert result.returncode == 2
    assert reason in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
