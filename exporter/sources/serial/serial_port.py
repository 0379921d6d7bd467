"""A serial port as a source: opened, lost, opened again, for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from typing import Final

import serial
import tenacity

from exporter.sources.contract import Chunk, Happened, Report, SourceEvent
from exporter.sources.serial.adapters import Whereabouts, stable_path
from exporter.sources.serial.line_finder import LineFinder
from exporter.sources.serial.port import Opener, Port, open_port
from exporter.sources.serial.port_trouble import PortError, holders
from exporter.sources.serial.serial_url import SerialUrl

__all__ = ["SerialSource"]

_LOOK: Final = 1.0
"""Seconds between looks at `stop` while nothing comes: one wake-up a second is what an idle port costs."""

_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 30.0

_LAST_READS: Final = 16
"""Reads after `stop`, for what the kernel already holds; a device that floods must not keep us."""

Pause = Callable[[threading.Event, float], object]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SerialSource:
    """Octets of a serial port, local or over a network (any pyserial URL; serial_url.py has the settings).

    A chunk is handed over as soon as its octets are there, in the middle of a frame each tenth of a second (pacing.py).
    When `stop` is set, what the kernel already holds is still handed over; then `chunks` ends. Raises SourceError at
    once for a setting that can never work. While octets come and no frame checks, speed and parity are changed in turn
    (line_setting.py); a flood is read slowly (flood.py); an adapter that comes back under another name is read there
    (adapters.py).
    `opener`, `now`, `monotonic` and `pause` are for tests.
    """

    live = True

    def __init__(
        self,
        setting: str,
        *,
        opener: Opener = serial.serial_for_url,
        now: Callable[[], datetime] = _utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Pause = threading.Event.wait,
    ) -> None:
        self.url = SerialUrl.parse(setting)
        self.name = self.url.name
        self._finder = LineFinder(self.url)
        self._whereabouts = Whereabouts(self.url.path)
        self._rest = 0.0
        self._opener = opener
        self._now = now
        self._monotonic = monotonic
        self._pause = pause

    @property
    def learnt(self) -> str:
        """The line that was found, as the query of a setting; empty while it is the one that is set."""
        return self._finder.learnt

    @learnt.setter
    def learnt(self, learnt: str) -> None:
        if learnt:
            self._finder.remember(learnt)

    def chunks(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        """Yield octets until `stop` is set. Raises SourceError for a directory and whatever else cannot mend itself."""
        tell = _Teller(report)
        while (heard := self._open_and_hear(stop, tell)) is not None:
            port, chunk = heard
            tell.heard()
            with port:
                lost = yield from self._listen(port, chunk, stop, tell)
            if lost is None:
                return
            self._in_trouble(lost, tell)
            if lost.what is Happened.LOST:
                # The first of the retries' waits: a far end that hangs up on us at once must not be called in a loop.
                self._wait(stop, _FIRST_WAIT)

    def _open_and_hear(self, stop: threading.Event, tell: _Teller) -> tuple[Port, Chunk] | None:
        """An open port and the first octets it gave; None when stopping.

        Both in one retry: a port that opens and says nothing is no success, so only octets reset the waiting time.
        """

        def attempt() -> tuple[Port, Chunk] | None:
            if stop.is_set():
                return None
            try:
                return self._try_once(stop, tell)
            except PortError as trouble:
                self._in_trouble(trouble, tell)
                raise

        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(PortError),
            wait=_waiting_time,
            sleep=lambda seconds: self._wait(stop, seconds),
            stop=tenacity.stop_when_event_set(stop),
            retry_error_callback=lambda _: None,
        )
        return retry(attempt)

    def _try_once(self, stop: threading.Event, tell: _Teller) -> tuple[Port, Chunk] | None:
        url = self.url.with_line(self._finder.opened(self._monotonic()))
        moved = self._whereabouts.look()
        if moved is not None:
            url = url.at(moved)
        port = open_port(url, self._opener)
        try:
            if url.path is not None:
                self._whereabouts.opened(url.path)
            tell.opened(url, None if moved is None else self.url.path)
            chunk = self._hear(port, stop, tell)
        except BaseException:
            port.close()
            raise
        if chunk is None:
            port.close()
            return None
        return port, chunk

    def _in_trouble(self, trouble: PortError, tell: _Teller) -> None:
        if trouble.what is not Happened.SILENT:
            self._finder.lost()
        tell.trouble(trouble)

    def _listen(
        self, port: Port, chunk: Chunk, stop: threading.Event, tell: _Teller
    ) -> Generator[Chunk, None, PortError | None]:
        """Yield until `stop` (returns None) or trouble (returns it)."""
        following: Chunk | None = chunk
        try:
            while following is not None:
                yield following
                following = self._hear(port, stop, tell)
            for _ in range(_LAST_READS):
                octets = port.take(0)
                if not octets:
                    break
                yield self._chunk(octets)
        except PortError as trouble:
            return trouble
        return None

    def _hear(self, port: Port, stop: threading.Event, tell: _Teller) -> Chunk | None:
        """The next octets; None when stopping. Raises PortError: LOST, or SILENT after the silence allowed."""
        if self._rest:
            self._wait(stop, self._rest)
        since = self._monotonic()
        while not stop.is_set():
            self._finder.look(port, self._monotonic(), tell.report)
            octets = port.take(_LOOK)
            if octets:
                chunk = self._chunk(octets)
                self._rest = self._finder.heard(octets, self._monotonic(), tell.report)
                return chunk
            if self._monotonic() - since >= self.url.silence:
                raise PortError(Happened.SILENT, "silent", self._silence_in_words)
        return None

    def _chunk(self, octets: bytes) -> Chunk:
        return Chunk(octets, self._now(), self._finder.byte_seconds)

    def _wait(self, stop: threading.Event, seconds: float) -> None:
        self._pause(stop, seconds)

    def _silence_in_words(self) -> str:
        place = self.url.path or self.url.address
        others = ", ".join(holders(self.url.path)) if self.url.path is not None else ""
        return (
            f"{place} is open, but no octet came for {self.url.silence:g} s: is the cable in the meter's HAN port, "
            "and is that port switched on (the grid company does that)?"
        ) + (f" {others} has the port open as well: stop it" if others else "")


def _waiting_time(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, PortError) and error.what is Happened.SILENT:
        return 0.0  # it was tried for a minute; every second that it is closed could be the one in which it speaks
    return _backoff(state)


_backoff: Final = tenacity.wait_exponential_jitter(max=_LONGEST_WAIT)


class _Teller:
    """Reports each state once, when it changes.

    After MISSING an opened port is news. After LOST or SILENT only octets are: a port that opens and fails, or opens
    and says nothing, over and over, is one state and one report.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self._told: Happened | None = None
        self._kind = ""
        self._place = self._moved = ""

    def opened(self, url: SerialUrl, before: str | None) -> None:
        """The port at `url` was opened; `before` is the name that its adapter is set by, if that is another."""
        self._place = (url.path or url.address) + (f" ({url.line})" if url.line_is_ours else "")
        self._moved = "" if before is None else _moved_in_words(before, url.path)
        if self._told in (None, Happened.MISSING):
            self._say(Happened.OPENED, "", f"{self._place} is open, waiting for the meter{self._moved}")

    def heard(self) -> None:
        if self._told is not Happened.OPENED:
            self._say(Happened.OPENED, "", f"{self._place}: octets come again{self._moved}")

    def trouble(self, trouble: PortError) -> None:
        if (self._told, self._kind) != (trouble.what, trouble.kind):
            self._say(trouble.what, trouble.kind, trouble.explain())

    def _say(self, what: Happened, kind: str, words: str) -> None:
        self._told, self._kind = what, kind
        self.report(SourceEvent(what, words))


def _moved_in_words(before: str, now: str | None) -> str:
    stable = stable_path(now)
    advice = f"write HAN_SOURCE={stable}, which it keeps" if stable else f"after a restart it is looked for as {before}"
    return f"; this is the adapter that was {before}: {advice}"
