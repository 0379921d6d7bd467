"""A serial port as a source: it is opened, and opened again whenever it is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from typing import Final

import serial
import tenacity

from exporter.sources.contract import Chunk, Happened, Pause, Report, SourceEvent
from exporter.sources.serial.adapters import AdapterFollower, stable_path
from exporter.sources.serial.listener import Listener
from exporter.sources.serial.port import Opener, Port, open_port
from exporter.sources.serial.port_errors import PortError, holders
from exporter.sources.serial.serial_url import SerialUrl

__all__ = ["SerialSource"]

_LOOK: Final = 1.0
"""Seconds between looks at `stop` while nothing comes: an idle port costs one wake-up per second."""

_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 30.0

_LAST_READS: Final = 16
"""Most reads after `stop`, for what the kernel already has; a device that floods must not stop us from ending."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SerialSource:
    """Bytes of a serial port, local or over a network (any pyserial URL; serial_url.py has the settings).

    A chunk is yielded as soon as its bytes are there; in the middle of a message, every tenth of a second (pacing.py).
    When `stop` is set, what the kernel already has is still yielded; then `chunks` ends. Raises SourceError at once for
    a URL that can never work. While bytes come without a valid message, baud rate and parity are changed in turn
    (settings_finder.py). A flood is read slowly (flood.py). An adapter that comes back under another name is read there
    (adapters.py). `opener`, `now`, `monotonic` and `pause` are for tests.
    """

    live = True

    def __init__(
        self,
        url: str,
        *,
        opener: Opener = serial.serial_for_url,
        now: Callable[[], datetime] = _utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Pause = threading.Event.wait,
    ) -> None:
        self.url = SerialUrl.parse(url)
        self.name = self.url.name
        self._listener = Listener(self.url)
        self._adapter = AdapterFollower(self.url.path)
        self._rest = 0.0
        self._opener = opener
        self._now = now
        self._monotonic = monotonic
        self._pause = pause

    @property
    def remembered(self) -> str:
        """The settings that were found, as the query of a URL; empty while they are the configured ones."""
        return self._listener.remembered

    @remembered.setter
    def remembered(self, query: str) -> None:
        if query:
            self._listener.remember(query)

    def chunks(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        """Yield bytes until `stop` is set. Raises SourceError for a directory, and for any other permanent error."""
        reporter = _Reporter(report)
        while (opened := self._open_and_read(stop, reporter)) is not None:
            port, chunk = opened
            reporter.heard()
            with port:
                trouble = yield from self._read_on(port, chunk, stop, reporter)
            if trouble is None:
                return
            self._in_trouble(trouble, reporter)
            if trouble.what is Happened.LOST:
                # As the first wait of the retries: a far end that hangs up at once must not be called in a fast loop.
                self._wait(stop, _FIRST_WAIT)

    def _open_and_read(self, stop: threading.Event, reporter: _Reporter) -> tuple[Port, Chunk] | None:
        """An open port and its first bytes; None when stopping.

        Both are in one retry: a port that can be opened but gives nothing is no success, so only bytes reset the wait.
        """

        def attempt() -> tuple[Port, Chunk] | None:
            if stop.is_set():
                return None
            try:
                return self._try_once(stop, reporter)
            except PortError as trouble:
                self._in_trouble(trouble, reporter)
                raise

        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(PortError),
            wait=_waiting_time,
            sleep=lambda seconds: self._wait(stop, seconds),
            stop=tenacity.stop_when_event_set(stop),
            retry_error_callback=lambda _: None,
        )
        return retry(attempt)

    def _try_once(self, stop: threading.Event, reporter: _Reporter) -> tuple[Port, Chunk] | None:
        url = self.url.with_settings(self._listener.opened(self._monotonic()))
        moved = self._adapter.new_path()
        if moved is not None:
            url = url.at(moved)
        port = open_port(url, self._opener)
        try:
            if url.path is not None:
                self._adapter.opened(url.path)
            reporter.opened(url, None if moved is None else self.url.path)
            chunk = self._read(port, stop, reporter)
        except BaseException:
            port.close()
            raise
        if chunk is None:
            port.close()
            return None
        return port, chunk

    def _in_trouble(self, trouble: PortError, reporter: _Reporter) -> None:
        if trouble.what is not Happened.SILENT:
            self._listener.lost()
        reporter.trouble(trouble)

    def _read_on(
        self, port: Port, chunk: Chunk, stop: threading.Event, reporter: _Reporter
    ) -> Generator[Chunk, None, PortError | None]:
        """Yield until `stop` (returns None) or trouble (returns it)."""
        following: Chunk | None = chunk
        try:
            while following is not None:
                yield following
                following = self._read(port, stop, reporter)
            for _ in range(_LAST_READS):
                data = port.read(0)
                if not data:
                    break
                yield self._chunk(data)
        except PortError as trouble:
            return trouble
        return None

    def _read(self, port: Port, stop: threading.Event, reporter: _Reporter) -> Chunk | None:
        """The next bytes; None when stopping. Raises PortError: LOST, or SILENT after the silence that is allowed."""
        if self._rest:
            self._wait(stop, self._rest)
        since = self._monotonic()
        while not stop.is_set():
            self._listener.change_if_due(port, self._monotonic(), reporter.report)
            data = port.read(_LOOK)
            if data:
                chunk = self._chunk(data)
                self._rest = self._listener.heard(data, self._monotonic(), reporter.report)
                return chunk
            if self._monotonic() - since >= self.url.silence:
                raise PortError(Happened.SILENT, "silent", self._explain_silence)
        return None

    def _chunk(self, data: bytes) -> Chunk:
        return Chunk(data, self._now(), self._listener.byte_seconds)

    def _wait(self, stop: threading.Event, seconds: float) -> None:
        self._pause(stop, seconds)

    def _explain_silence(self) -> str:
        place = self.url.path or self.url.address
        others = ", ".join(holders(self.url.path)) if self.url.path is not None else ""
        return (
            f"{place} is open, but no byte came for {self.url.silence:g} s: is the cable in the meter's HAN port, and "
            "is that port switched on (the grid company does that)?"
        ) + (f" {others} has the port open too: stop it" if others else "")


def _waiting_time(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, PortError) and error.what is Happened.SILENT:
        return 0.0  # it was open for a minute; while it is closed, the first bytes of the meter would be missed
    return _backoff(state)


_backoff: Final = tenacity.wait_exponential_jitter(max=_LONGEST_WAIT)


class _Reporter:
    """Reports each state once, when it changes.

    After MISSING, an opened port is a change. After LOST or SILENT only bytes are: a port that is opened and fails, or
    is opened and gives nothing, again and again, is one state with one report.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self._reported: Happened | None = None
        self._kind = ""
        self._place = self._moved = ""

    def opened(self, url: SerialUrl, before: str | None) -> None:
        """The port at `url` was opened; `before` is the configured name of its adapter, if that is another."""
        self._place = (url.path or url.address) + (f" ({url.settings})" if url.is_settable else "")
        self._moved = "" if before is None else _explain_move(before, url.path)
        if self._reported in (None, Happened.MISSING):
            self._say(Happened.OPENED, "", f"{self._place} is open, waiting for the meter{self._moved}")

    def heard(self) -> None:
        if self._reported is not Happened.OPENED:
            self._say(Happened.OPENED, "", f"{self._place}: bytes come again{self._moved}")

    def trouble(self, trouble: PortError) -> None:
        if (self._reported, self._kind) != (trouble.what, trouble.kind):
            self._say(trouble.what, trouble.kind, trouble.explain())

    def _say(self, what: Happened, kind: str, message: str) -> None:
        self._reported, self._kind = what, kind
        self.report(SourceEvent(what, message))


def _explain_move(before: str, now: str | None) -> str:
    stable = stable_path(now)
    advice = (
        f"write HAN_SOURCE={stable}, a name that does not change" if stable else f"after a restart {before} is opened"
    )
    return f"; this is the adapter that was {before}: {advice}"
