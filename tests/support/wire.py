"""A meter on a wire and the adapter that hears it, in a time that nobody has to wait for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from exporter.simulator.meter import SimulatedMeter
from exporter.sources.contract import Chunk, SourceEvent
from exporter.sources.serial.serial_port import SerialSource
from exporter.sources.serial.serial_url import Line
from tests.support.uart import RECEIVERS, Receiver, heard

BEGIN = datetime(2026, 11, 22, 17, 0, 1, tzinfo=UTC)
_PIECES = 8

Burst = tuple[float, bytes]
"""When the first start bit is sent, in seconds, and the octets that follow it back to back."""


def lists(maker: str, line: Line, seconds: float, after: float = 0.0) -> Iterator[Burst]:
    """What a meter sends from BEGIN on, `after` seconds later; the closing flags come as they do at 2400 baud."""
    begin = BEGIN + timedelta(seconds=after)
    for complete, octets in SimulatedMeter(maker).frames(begin, begin + timedelta(seconds=seconds)):
        yield (complete - begin).total_seconds() - len(octets) * line.byte_seconds, octets


class Wire:
    """Time, a wire with a meter at its end, and a SerialSource that reads it through `receiver`.

    `bursts` is what is sent with `line`. The adapter refuses the lines of `refused`.
    """

    def __init__(
        self,
        bursts: Iterable[Burst],
        line: Line,
        receiver: Receiver = RECEIVERS[0],
        refused: Iterable[Line] = (),
    ) -> None:
        self.time = 0.0
        self.line = line
        self.receiver = receiver
        self.refused = set(refused)
        self.bursts = deque(bursts)
        self.stop = threading.Event()
        self.events: list[tuple[float, SourceEvent]] = []
        self.lines: list[tuple[float, Line]] = []
        self.breaks: list[float] = []
        """When the port breaks off, once each."""

    def open(self, address: str, **settings: Any) -> WirePort:
        return WirePort(self, settings)

    def run(
        self, setting: str = "/dev/none/ttyUSB0", until: float = 600.0, learnt: str = ""
    ) -> Iterator[tuple[float, Chunk]]:
        """Chunks and when they came, until that time."""
        self.source = SerialSource(
            setting,
            opener=self.open,
            now=lambda: BEGIN + timedelta(seconds=self.time),
            monotonic=lambda: self.time,
            pause=self._pause,
        )
        self.source.learnt = learnt
        self._until = until
        for chunk in self.source.chunks(self.stop, lambda event: self.events.append((self.time, event))):
            yield self.time, chunk

    def go(self, until: float) -> None:
        """Time passes."""
        self.time = max(self.time, until)
        if self.time >= self._until:
            self.stop.set()

    def _pause(self, stop: threading.Event, seconds: float) -> None:
        self.go(self.time + seconds)


class WirePort:
    """What pyserial opens; without a file descriptor, as its RFC 2217 port."""

    def __init__(self, wire: Wire, settings: dict[str, Any]) -> None:
        self.timeout = 0.0
        self._wire = wire
        self._coming: deque[tuple[float, bytes]] = deque()
        self._here = b""
        self._settings = settings
        self._set(Line(settings["baudrate"], settings["bytesize"], settings["parity"], settings["stopbits"]))

    def _set(self, line: Line) -> None:
        if line in self._wire.refused:
            raise ValueError(f"cannot be set to {line}")
        self._line = line
        self._wire.lines.append((self._wire.time, line))

    def open(self) -> None:
        """What a socket is told after it was made; this one is open from the start."""

    def apply_settings(self, settings: dict[str, Any]) -> None:
        self._coming.clear()  # what is on its way is heard half with one line and half with another
        self._settings |= settings
        now = self._settings
        self._set(Line(now["baudrate"], now["bytesize"], now["parity"], now["stopbits"]))

    @property
    def in_waiting(self) -> int:
        return len(self._here)

    def read(self, size: int) -> bytes:
        if not self._here:
            self._wait(self._wire.time + self.timeout)
        octets, self._here = self._here[:size], self._here[size:]
        return octets

    def _wait(self, until: float) -> None:
        wire = self._wire
        if wire.breaks and wire.breaks[0] <= until:
            wire.go(wire.breaks.pop(0))
            raise OSError(5, "Input/output error")
        self._listen(until)
        if self._coming and self._coming[0][0] <= until:
            at, self._here = self._coming.popleft()
            wire.go(at)
        else:
            wire.go(until)

    def _listen(self, until: float) -> None:
        """The bursts that begin by then, as they are heard; one that began before we listened is not."""
        wire = self._wire
        while wire.bursts and wire.bursts[0][0] <= until:
            begin, octets = wire.bursts.popleft()
            if begin < wire.time and not self._coming:
                continue
            come = heard(octets, wire.line, self._line, wire.receiver)
            seconds = len(octets) * wire.line.byte_seconds
            size = -(-len(come) // _PIECES) or 1
            for n, at in enumerate(range(0, len(come), size), 1):
                self._coming.append((begin + seconds * n / _PIECES, come[at : at + size]))

    def close(self) -> None:
        """Nothing is kept."""
