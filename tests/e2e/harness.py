"""The installed command as a process, and a meter on a pseudo-terminal for it to read."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from exporter.outbox.queue import Outbox, OutboxError
from exporter.simulator.serve import feed
from tests.support.influx_server import Influx
from tests.support.patience import HANG_S, Patience, quiet_seconds

HAN = Path(sys.executable).with_name("han-exporter")
"""The command that is installed with this Python."""
BAUD_2400 = 240.0
"""Bytes a second at 2400 8N1."""


class Home:
    """A user's home folder, and the environment in which that user calls the command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outbox = folder / "outbox.sqlite"
        self._running: list[Run] = []

    def environment(self, influx: Influx | None = None, **settings: str | Path) -> dict[str, str]:
        """The environment with HAN_… of these settings and of `influx`, and no other HAN_…."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HAN_", "XDG_"))}
        given: dict[str, str | Path] = {"outbox": self.outbox}
        if influx is not None:
            given |= {"influx_url": influx.url, "influx_bucket": influx.bucket, "influx_org": influx.org}
            given |= {"influx_token": influx.token} if influx.token else {}
        given |= settings
        return clean | {"HOME": str(self.folder)} | {f"HAN_{name.upper()}": str(value) for name, value in given.items()}

    def han(
        self,
        *arguments: str | Path,
        influx: Influx | None = None,
        stdin: bytes | None = None,
        before: Sequence[str] = (),
        timeout: float = HANG_S,
        **settings: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Call the command, and wait for its end. `before` is a command that starts it."""
        done = subprocess.run(
            [*before, str(HAN), *map(str, arguments)],
            input=b"" if stdin is None else stdin,
            capture_output=True,
            env=self.environment(influx, **settings),
            cwd=self.folder,
            timeout=timeout,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def run(
        self,
        *arguments: str | Path,
        influx: Influx | None = None,
        before: Sequence[str] = (),
        **settings: str | Path,
    ) -> Run:
        """Start `han-exporter run`."""
        command = [*before, str(HAN), "run", *map(str, arguments)]
        running = Run(command, self.environment(influx, **settings), self.folder)
        self._running.append(running)
        return running

    def waiting_lines(self) -> int:
        """How many lines wait in the outbox, as another process reads it; 0 if there is no outbox yet."""
        try:
            outbox = Outbox(self.outbox, read_only=True)
        except OutboxError:
            return 0
        try:
            return outbox.status().depth_lines
        except OutboxError:  # it is being created
            return 0
        finally:
            outbox.close()

    def end(self) -> None:
        """End all processes."""
        for running in self._running:
            running.kill()


class Run:
    """A running `han-exporter run` and its log."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        self._log: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8"
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self._log.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._log.append("(the end)")
            self._news.notify_all()

    @property
    def log(self) -> list[str]:
        """The log so far."""
        with self._news:
            return list(self._log)

    def expect(self, pattern: str, seconds: float = 20, *, times: int = 1) -> str:
        """Wait until so many lines match; return the last of them."""

        def found() -> list[str]:
            return [line for line in self._log if re.search(pattern, line)]

        patience = Patience(seconds)
        with self._news:
            while not (len(found()) >= times or "(the end)" in self._log or patience.is_over()):
                self._news.wait(0.1)
            lines = found()
            assert len(lines) >= times, f"{pattern!r} was not logged {times} times:\n" + "\n".join(self._log)
            return lines[times - 1]

    def wait(self) -> int:
        """Wait for its end; return the exit code."""
        code = self.process.wait(HANG_S)
        self._reader.join(HANG_S)
        assert not any("Traceback" in line for line in self.log), "\n".join(self.log)
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Stop it; its exit code must be 0. Returns the seconds that it took, as on a quiet machine."""
        patience = Patience(HANG_S)
        self.process.send_signal(number)
        code = self.wait()
        took = quiet_seconds(patience.waited())
        assert code == 0, "\n".join(self.log)
        return took

    def kill(self) -> None:
        """Kill it, as a power cut does. Does nothing if it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(HANG_S)
        self._reader.join(HANG_S)
        if self.process.stderr is not None:
            self.process.stderr.close()


class Meter:
    """A meter on a serial port, which is a pseudo-terminal with its own name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pause = threading.Event()
        self._meter, self._port = os.openpty()
        os.set_blocking(self._meter, False)
        tty.setraw(self._port)
        path.symlink_to(os.ttyname(self._port))

    @property
    def device(self) -> str:
        """The device that has this name."""
        return os.ttyname(self._port)

    def send(self, data: bytes, patience: float = HANG_S) -> None:
        """Send as fast as the port takes it. Raises TimeoutError if nobody reads."""
        while data:
            if not select.select([], [self._meter], [], patience)[1]:
                raise TimeoutError(f"nobody reads {self.path}")
            data = data[os.write(self._meter, data) :]

    def send_at_pace(self, frame: bytes, stop: threading.Event | None = None) -> float:
        """Send at 2400 baud. Returns when the last byte was handed over (seconds since 1970)."""
        feed(self._meter, [frame], BAUD_2400, stop or self.pause)
        return time.time()

    def unplug(self) -> None:
        """Remove the port and its name."""
        self.path.unlink(missing_ok=True)
        # Only once: a second time, the numbers may belong to other files.
        for descriptor in {self._port, self._meter} - {-1}:
            os.close(descriptor)
        self._port = self._meter = -1


def words(lines: Iterable[str]) -> str:
    """Lines as one text, for a search over all of them."""
    return "\n".join(lines)


def started(home: Home, meter: Meter, influx: Influx | None = None, **settings: Any) -> Run:
    """A run that has this meter's port open."""
    run = home.run(influx=influx, **({"source": meter.path} | settings))
    run.expect(r"\(2400 8N1\) is open")
    return run


def assert_lines_are_whole(run: Run) -> None:
    for line in run.log:
        assert line == "(the end)" or re.match(r"\d{4}-\d\d-\d\dT\S+ (INFO|WARNING|ERROR) ", line), line
        assert line.isprintable(), line
