"""A meter on a wire and the adapter that reads it, in simulated time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from exporter.simulator.meter import SimulatedMeter
from exporter.sources.contract import Chunk, SourceEvent
from exporter.sources.serial.serial_port import SerialSource
from exporter.sources.serial.serial_url import SerialSettings
from tests.support.uart import RECEIVERS, Receiver, received

BEGIN = datetime(2026, 11, 22, 17, 0, 1, tzinfo=UTC)
_PIECES = 8

Burst = tuple[float, bytes]
"""When the first start bit is sent, in seconds, and the bytes, without a pause between them."""


def lists(maker: str, settings: SerialSettings, seconds: float, after: float = 0.0) -> Iterator[Burst]:
    """What a meter sends from BEGIN on, `after` seconds later; the closing flags come as they do at 2400 baud."""
    begin = BEGIN + timedelta(seconds=after)
    for complete, data in SimulatedMeter(maker).frames(begin, begin + timedelta(seconds=seconds)):
        yield (complete - begin).total_seconds() - len(data) * settings.byte_seconds, data


class Wire:
    """Time, a wire with a meter at its end, and a SerialSource that reads it through `receiver`.

    The meter sends `bursts` with its `settings`. The adapter refuses the settings in `refused`; `used` are those that
    it was set to, and when.
    """

    def __init__(
        self,
        bursts: Iterable[Burst],
        settings: SerialSettings,
        receiver: Receiver = RECEIVERS[0],
        refused: Iterable[SerialSettings] = (),
    ) -> None:
        self.time = 0.0
        self.settings = settings
        self.receiver = receiver
        self.refused = set(refused)
        self.bursts = deque(bursts)
        self.stop = threading.Event()
        self.events: list[tuple[float, SourceEvent]] = []
        self.used: list[tuple[float, SerialSettings]] = []
        self.breaks: list[float] = []
        """When the port fails, once each."""

    def open(self, address: str, **settings: Any) -> WirePort:
        return WirePort(self, settings)

    def run(
        self, url: str = "/dev/none/ttyUSB0", until: float = 600.0, remembered: str = ""
    ) -> Iterator[tuple[float, Chunk]]:
        """Chunks and when they came, until that time."""
        self.source = SerialSource(
            url,
            opener=self.open,
            now=lambda: BEGIN + timedelta(seconds=self.time),
            monotonic=lambda: self.time,
            pause=self._pause,
        )
        self.source.remembered = remembered
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
    """What pyserial opens; it has no file descriptor, as pyserial's RFC 2217 port has none."""

    def __init__(self, wire: Wire, settings: dict[str, Any]) -> None:
        self.timeout = 0.0
        self._wire = wire
        self._coming: deque[tuple[float, bytes]] = deque()
        self._here = b""
        self._settings = settings
        self._set(SerialSettings(settings["baudrate"], settings["bytesize"], settings["parity"], settings["stopbits"]))

    def _set(self, settings: SerialSettings) -> None:
        if settings in self._wire.refused:
            raise ValueError(f"cannot be set to {settings}")
        self._own = settings
        self._wire.used.append((self._wire.time, settings))

    def open(self) -> None:
        """pyserial calls this for a network port; this one is open from the start."""

    def apply_settings(self, settings: dict[str, Any]) -> None:
        self._coming.clear()  # the bytes on the wire are received half with the old settings, half with the new
        self._settings |= settings
        now = self._settings
        self._set(SerialSettings(now["baudrate"], now["bytesize"], now["parity"], now["stopbits"]))

    @property
    def in_waiting(self) -> int:
        return len(self._here)

    def read(self, size: int) -> bytes:
        if not self._here:
            self._wait(self._wire.time + self.timeout)
        data, self._here = self._here[:size], self._here[size:]
        return data

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
        """Receive the bursts that begin until then, except those that began before the port was opened."""
        wire = self._wire
        while wire.bursts and wire.bursts[0][0] <= until:
            begin, data = wire.bursts.popleft()
            if begin < wire.time and not self._coming:
                continue
            got = received(data, wire.settings, self._own, wire.receiver)
            seconds = len(data) * wire.settings.byte_seconds
            size = -(-len(got) // _PIECES) or 1
            for n, at in enumerate(range(0, len(got), size), 1):
                self._coming.append((begin + seconds * n / _PIECES, got[at : at + size]))

    def close(self) -> None:
        """Nothing to do."""
