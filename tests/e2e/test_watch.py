"""`watch` as a process: the installed command with a terminal (a pty) and with a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support.octets import frames_of
from tests.support.patience import HANG_S, Patience

_INSTALLED = Path(sys.executable).parent / "han-exporter"
COMMAND = str(_INSTALLED if _INSTALLED.exists() else shutil.which("han-exporter"))
Variables: TypeAlias = Mapping[str, str]
NONE: Variables = {}
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d SIMULATED-KAIFA-1 (export )?\d+ W( |$)")
KAIFA_LIST_1 = frames_of("kaifa-3phase-norway")[0].hex()
TO_OTHER_SCREEN, BACK, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty home and working folder, which is empty afterwards too: `watch` writes nothing."""
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HAN_", "COLUMNS", "LINES"))}
    kept.pop("NO_COLOR", None)
    return kept | {"HOME": str(home), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | more


def piped(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "watch", *arguments],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        cwd=home,
        env=environment(home, **more),
        stdin=subprocess.DEVNULL,
        check=False,
    )


class Terminal:
    """The command with a pty as its terminal."""

    def __init__(
        self, home: Path, *arguments: str, columns: int = 80, rows: int = 24, variables: Variables = NONE
    ) -> None:
        self.seen = ""
        self._main, side = pty.openpty()
        self.resize(columns, rows)
        self.process = subprocess.Popen(
            [COMMAND, "watch", *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            cwd=home,
            env=environment(home, **variables),
            start_new_session=True,
        )
        os.close(side)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, wanted: str, seconds: float = 30) -> str:
        """Read until `wanted` are shown; return what was read."""
        start, patience = len(self.seen), Patience(seconds)
        while wanted not in self.seen[start:]:
            assert not patience.is_over(), f"{wanted!r} is not in {self.seen[start:]!r}"
            if not self._read(0.2) and self.process.poll() is not None:
                assert wanted in self.seen[start:], self.seen
        return self.seen[start:]

    def end(self) -> int:
        """Read to the end; return the exit code."""
        patience = Patience(30)
        while self.process.poll() is None and not patience.is_over():
            self._read(0.2)
        while self._read(0.2):
            pass
        return self.process.wait(HANG_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._main)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._main], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._main, 65536)
        except OSError:  # Linux says EIO when the other side is closed
            return False
        self.seen += data.decode("utf-8", "replace")
        return bool(data)


@contextmanager
def terminal(
    home: Path, *arguments: str, columns: int = 80, rows: int = 24, variables: Variables = NONE
) -> Iterator[Terminal]:
    opened = Terminal(home, *arguments, columns=columns, rows=rows, variables=variables)
    try:
        yield opened
    finally:
        opened.close()


def plain(seen: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen).splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_screen_is_shown_at_once_and_a_signal_ends_it_cleanly(home: Path, number: signal.Signals) -> None:
    with terminal(home, "sim:") as shown:
        first = shown.until("meter clock")  # the last words of the screen
        assert TO_OTHER_SCREEN in first
        assert "waiting for the next list" in first
        assert "SIMULATED-KAMSTRUP-1" in first
        assert "W import" in first
        assert "Last 10 minutes" in first
        shown.process.send_signal(number)
        assert shown.end() == 0
        after = shown.seen.split(BACK)[-1]
        assert SHOW_CURSOR in shown.seen
        assert "SIMULATED-KAMSTRUP-1" in after  # the last state stays
        assert "Traceback" not in shown.seen


def test_ctrl_c_typed_at_the_terminal(home: Path) -> None:
    with terminal(home, "sim:kaifa?phases=1", "--seconds", "20") as shown:
        shown.until("SIMULATED-KAIFA-1")
        os.killpg(shown.process.pid, signal.SIGINT)  # what the terminal driver does
        assert shown.end() == 0


def test_a_resized_terminal_is_used_as_it_is(home: Path) -> None:
    with terminal(home, "sim:kaifa") as shown:
        shown.until("SIMULATED-KAIFA-1")
        shown.resize(60, 20)
        shown.until(" ago")  # this one may have been written before
        before = len(shown.seen)
        shown.until(" ago")
        shown.until(" ago")
        lines = [line for line in plain(shown.seen[before:]) if " ago" in line]
        assert len(lines[-1]) <= 60


def test_readings_and_seconds_end_it(home: Path) -> None:
    with terminal(home, "sim:kaifa", "--readings", "1") as shown:
        assert shown.end() == 0
        assert BACK in shown.seen
    with terminal(home, "/dev/no-such-port", "--seconds", "1") as shown:
        assert shown.end() == 1
        assert "no such port" in shown.seen


def test_an_error_is_printed_on_the_first_screen(home: Path) -> None:
    with terminal(home, str(home)) as shown:
        assert shown.end() == 2
        assert "is a directory" in plain(shown.seen.split(BACK)[-1])[-1]


@pytest.mark.parametrize(("arguments", "more"), [(["--plain"], {}), ([], {"NO_COLOR": "1"}), ([], {"TERM": "dumb"})])
def test_plain_lines_on_a_terminal_have_no_escape_sequences(
    home: Path, arguments: list[str], more: dict[str, str]
) -> None:
    with terminal(home, "sim:kaifa", "--readings", "1", *arguments, variables=more) as shown:
        assert shown.end() == 0
        assert "\x1b" not in shown.seen
        assert LINE.match(shown.seen.splitlines()[-1].replace("unknown-kaifa", "SIMULATED-KAIFA-1"))


def test_a_pipe_gets_one_plain_line_for_each_reading(home: Path) -> None:
    done = piped(home, "sim:kaifa?speed=100", "--readings", "12")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 12
    assert LINE.match(done.stdout.splitlines()[-1])
    assert "\x1b" not in done.stdout + done.stderr


def test_each_line_is_written_at_once(home: Path) -> None:
    with subprocess.Popen(
        [COMMAND, "watch", "sim:kaifa?speed=10"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=home,
        env=environment(home),
    ) as process:
        assert process.stdout is not None
        assert " W" in process.stdout.readline()
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_S) == 0


def test_it_ends_if_its_output_is_closed(home: Path) -> None:
    with subprocess.Popen(
        [COMMAND, "watch", "sim:kaifa?speed=50"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        env=environment(home),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.wait(HANG_S)
        assert "Traceback" not in process.stderr.read()


def test_a_capture_is_read_to_its_end(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    capture = tmp_path_factory.mktemp("capture") / "kaifa.hex"
    capture.write_text(f"2023-03-08T05:41:40.000Z {KAIFA_LIST_1}\n" * 2)
    done = piped(home, str(capture), HAN_METER_ID="6970")
    assert done.stdout.splitlines() == ["2023-03-08 06:41:40 6970 2748 W"] * 2
    assert done.returncode == 0
    in_finnish_time = piped(home, str(capture), HAN_TIMEZONE="Europe/Helsinki")
    assert in_finnish_time.stdout.startswith("2023-03-08 07:41:40 ")
    with terminal(home, str(capture), variables={"HAN_METER_ID": "6970"}) as shown:
        assert shown.end() == 0
        assert TO_OTHER_SCREEN not in shown.seen
        assert "read to its end" in shown.seen


def test_the_default_source_is_the_first_of_the_settings(home: Path) -> None:
    done = piped(home, "--readings", "1", HAN_SOURCE="sim:kaifa?speed=10 sim:aidon")
    assert done.returncode == 0
    assert "kaifa" in done.stdout.lower()
    done = piped(home)
    assert done.returncode == 2
    assert "sim:" in done.stderr


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("sim:foo", "sim:kamstrup"),
        ("file:nothing.hex", "nothing.hex"),
        ("/tmp", "directory"),
    ],
)
def test_a_source_that_can_never_work_is_an_error(home: Path, source: str, part: str) -> None:
    done = piped(home, source)
    assert done.returncode == 2
    assert done.stdout == ""
    assert part in done.stderr
    assert "Traceback" not in done.stderr
