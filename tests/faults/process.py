"""The exporter's process, which the tests kill, stop, freeze and start again."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from exporter.service.status_socket import NotRunning, ask
from tests.e2e.harness import Home, Run
from tests.faults.meter import KILLED, STOPPED, FaultyMeter
from tests.support.influx_server import Influx
from tests.support.patience import Patience, until

BAD_WORDS: Final = (
    "please report",
    " lost: ",
    " lost, because",
    " lost if",
    "rejects lines",
    " dropped",
    "is damaged",
    "was damaged",
    " damaged, and not sent",
    "send on",
)
"""Parts of log messages that no fault may cause; a test looks whether the product still has these messages."""

Work = Callable[[], None]


def _nothing() -> None:
    """Do nothing."""


class Exporter:
    """The process. `pauses` are the times of SIGSTOP, in ms since 1970."""

    def __init__(self, home: Home, influx: Influx) -> None:
        self.turn = threading.RLock()
        self.pauses: list[tuple[float, float]] = []
        self.wrong: list[str] = []
        self.starts = 0
        self._home = home
        self.meters: list[FaultyMeter] = []
        self.settings: Mapping[str, str] = {}
        self._influx = influx
        self._run: Run | None = None

    def read_so_far(self, source: str) -> tuple[int, int] | None:
        """The process that reads, and how many bytes of a source it says it has read; None if it does not answer."""
        try:
            status = ask(self._home.outbox, timeout=0.5)
        except NotRunning:
            return None
        return next((status["pid"], one["octets"]) for one in status["sources"] if one["name"] == source)

    def start(self) -> None:
        """Start it if it does not run."""
        with self.turn:
            if self._run is None:
                self.starts += 1
                self._run = self._home.run(influx=self._influx, **self.settings)

    def kill(self) -> None:
        """Kill it, as a power cut does."""
        with self.turn:
            if self._run is not None:
                self._run.kill()
                self._ended(KILLED)

    def stop(self, frozen: float = 0) -> None:
        """Stop it as systemd does, after `frozen` seconds of SIGSTOP. Another fault may come at the same time."""
        run = self._run
        if run is None:
            return
        if frozen:
            self.frozen(frozen, before_it_continues=lambda: self._ask_to_stop(run))
        else:
            self._ask_to_stop(run)
        patience = Patience(15)
        while run.process.poll() is None and not patience.is_over():
            time.sleep(0.01)
        with self.turn:
            if self._run is not run:
                return
            code = run.process.poll()
            # Before it handles the signal, and reads, the signal ends it at once.
            if code != 0 and not (code == -signal.SIGTERM and _has_not_begun(run)):
                self.wrong.append(f"SIGTERM: after 15 s it had {'not ended' if code is None else f'ended with {code}'}")
            run.kill()
            self._ended(STOPPED if code == 0 else KILLED)

    def _ask_to_stop(self, run: Run) -> None:
        for meter in self.meters:
            meter.ask_to_stop()
        run.process.send_signal(signal.SIGTERM)

    def frozen(self, seconds: float, work: Work = _nothing, before_it_continues: Work = _nothing) -> None:
        """SIGSTOP, `work`, so many seconds, `before_it_continues`, SIGCONT."""
        with self.turn:
            run = self._run
            if run is not None:
                began = time.time() * 1000
                run.process.send_signal(signal.SIGSTOP)
                until(lambda: run.process.poll() is not None or _is_stopped(run.process.pid), 10, "SIGSTOP")
            work()
        time.sleep(seconds)
        if run is not None:
            with self.turn:  # not while another thread works with the frozen process
                before_it_continues()
                run.process.send_signal(signal.SIGCONT)
            self.pauses.append((began, time.time() * 1000))

    def look(self) -> None:
        """Check that it has not ended by itself."""
        with self.turn:
            if self._run is not None and (code := self._run.process.poll()) is not None:
                self.wrong.append(f"it ended by itself with {code}")
                self._run.kill()
                self._ended(KILLED)
                self.start()

    def _ended(self, how: str) -> None:
        assert self._run is not None
        for meter in self.meters:
            meter.end_session(how)
        log, self._run = self._run.log, None
        with (self._home.folder / "exporter.log").open("a", encoding="utf-8") as file:
            file.write("\n".join([*log, f"--- {how}", ""]))
        self.wrong += [line for line in log if any(words in line for words in ("Traceback", *BAD_WORDS))]


def _has_not_begun(run: Run) -> bool:
    run.wait()  # until its log is complete
    return all(line == "(the end)" or "writing to" in line for line in run.log)


def _is_stopped(pid: int) -> bool:
    """Whether each of its threads is stopped (proc(5))."""
    try:
        states = [task.joinpath("stat").read_text().rpartition(")")[2] for task in Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError:
        return False
    return all(state.split()[0] in "TtZ" for state in states)
