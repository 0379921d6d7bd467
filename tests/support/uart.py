"""What a UART receives if its baud rate or parity is not that of the sender, bit by bit.

A byte is a start bit (0), data bits from the lowest, a parity bit with some settings, and stop bits (1). An idle wire
is 1. A receiver waits for a falling edge, samples each bit in its middle and then expects a 1, the stop bit. If that is
0 (a framing error), receivers do different things, and so do drivers:

- A 16550 takes the 0 as the next start bit and continues from there (its data sheet: "the UART will try to
  resynchronize"). Others wait for the next falling edge. All zeros without a stop bit is a break: one 00, then nothing
  until the wire is 1 again.
- Linux delivers the byte as it was received, since pyserial clears INPCK. Other gateways drop it, or deliver 00.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from exporter.sources.serial.serial_url import SerialSettings


@dataclass(frozen=True)
class Receiver:
    """A kind of receiver: where it continues after a framing error, and what it does with a damaged byte."""

    like_16550: bool = True
    damaged: str = "kept"  # or "dropped", "zeroed"

    def __str__(self) -> str:
        return f"{'16550' if self.like_16550 else 'edge'}, {self.damaged}"


RECEIVERS = tuple(Receiver(kind, damaged) for kind in (True, False) for damaged in ("kept", "dropped", "zeroed"))


def bits(data: bytes, settings: SerialSettings) -> bytes:
    """Bytes without a pause between them, as levels of the wire, one for each bit time."""
    wire = bytearray()
    for byte in data:
        data_bits = [byte >> n & 1 for n in range(settings.bits)]
        wire += bytes([0, *data_bits])
        if settings.parity != "N":
            wire.append((sum(data_bits) + (settings.parity == "O")) % 2)
        wire += b"\x01" * round(settings.stop)
    return bytes(wire)


def received(data: bytes, sent: SerialSettings, own: SerialSettings, receiver: Receiver = RECEIVERS[0]) -> bytes:
    """What a receiver with the settings `own` gives for bytes that are sent with `sent`, without pauses."""
    if sent == own:
        return data
    return _Reception(bits(data, sent), sent.baud, own, receiver).data()


class _Reception:
    """A receiver on one piece of wire. Times are in seconds from the first start bit."""

    def __init__(self, wire: bytes, baud: int, settings: SerialSettings, receiver: Receiver) -> None:
        self._wire, self._baud, self._settings, self._receiver = wire, baud, settings, receiver
        self._edges = [n / baud for n in range(len(wire)) if not wire[n] and (n == 0 or wire[n - 1])]

    def data(self) -> bytes:
        out = bytearray()
        bit, start = 1 / self._settings.baud, self._edge(0.0)
        while start is not None:
            value, parity, stop_at = self._sample(start)
            stop = self._level(stop_at)
            if not (stop or value or parity):
                out.append(0)  # a break
                start = self._edge(self._next_high(stop_at))
                continue
            odd = (value.bit_count() + parity) % 2
            parity_right = self._settings.parity == "N" or odd == (self._settings.parity == "O")
            self._take(out, value, right=bool(stop) and parity_right)
            again = not stop and self._receiver.like_16550
            start = stop_at - bit / 2 if again else self._edge(stop_at)
        return bytes(out)

    def _sample(self, start: float) -> tuple[int, int, float]:
        """The data bits, the parity bit (0 without parity), and when the stop bit is sampled."""
        settings, at, value = self._settings, start + 1.5 / self._settings.baud, 0
        for n in range(settings.bits):
            value |= self._level(at) << n
            at += 1 / settings.baud
        parity = 0
        if settings.parity != "N":
            parity = self._level(at)
            at += 1 / settings.baud
        return value, parity, at

    def _take(self, out: bytearray, value: int, *, right: bool) -> None:
        if right or self._receiver.damaged == "kept":
            out.append(value)
        elif self._receiver.damaged == "zeroed":
            out.append(0)

    def _level(self, at: float) -> int:
        n = int(at * self._baud)
        return self._wire[n] if n < len(self._wire) else 1

    def _edge(self, after: float) -> float | None:
        n = bisect_left(self._edges, after)
        return self._edges[n] if n < len(self._edges) else None

    def _next_high(self, after: float) -> float:
        n = self._wire.find(1, int(after * self._baud))
        return (n if n >= 0 else len(self._wire)) / self._baud
