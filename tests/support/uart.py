"""What a UART hears when speed or parity are not the sender's: bit by bit, as the wire has it.

An octet is a start bit (0), data bits from the lowest, a parity bit if there is one, stop bits (1); an idle wire is 1.
A receiver waits for a falling edge, samples each bit in its middle and then asks for a 1, the stop bit. Where that is 0
(a framing error) receivers differ, and so do drivers in what they make of the octet:

- a 16550 takes the 0 for the next start bit and goes on from there (its data sheet: "the UART will try to
  resynchronize"); others wait for the next falling edge. All zeros with no stop bit is a break: one 00, then nothing
  until the wire is 1 again.
- Linux hands the octet over as it was heard, since pyserial clears INPCK; other gateways drop it, or put 00.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from exporter.sources.serial.serial_url import Line


@dataclass(frozen=True)
class Receiver:
    """A kind of receiver: how it finds its way back after a framing error, what it makes of a damaged octet."""

    like_16550: bool = True
    damaged: str = "kept"  # or "dropped", "zeroed"

    def __str__(self) -> str:
        return f"{'16550' if self.like_16550 else 'edge'}, {self.damaged}"


RECEIVERS = tuple(Receiver(kind, damaged) for kind in (True, False) for damaged in ("kept", "dropped", "zeroed"))


def bits(octets: bytes, line: Line) -> bytes:
    """Octets back to back as levels of the wire, one for each bit time."""
    wire = bytearray()
    for octet in octets:
        data = [octet >> n & 1 for n in range(line.bits)]
        wire += bytes([0, *data])
        if line.parity != "N":
            wire.append((sum(data) + (line.parity == "O")) % 2)
        wire += b"\x01" * round(line.stop)
    return bytes(wire)


def heard(octets: bytes, sent: Line, line: Line, receiver: Receiver = RECEIVERS[0]) -> bytes:
    """What comes out of a receiver set to `line` when these octets are sent back to back with the line `sent`."""
    if sent == line:
        return octets
    return _Hearing(bits(octets, sent), sent.baud, line, receiver).octets()


class _Hearing:
    """A receiver on one piece of wire. Times are in seconds from the first start bit."""

    def __init__(self, wire: bytes, baud: int, line: Line, receiver: Receiver) -> None:
        self._wire, self._baud, self._line, self._receiver = wire, baud, line, receiver
        self._edges = [n / baud for n in range(len(wire)) if not wire[n] and (n == 0 or wire[n - 1])]

    def octets(self) -> bytes:
        out = bytearray()
        bit, start = 1 / self._line.baud, self._edge(0.0)
        while start is not None:
            value, parity, stop_at = self._sample(start)
            stop = self._level(stop_at)
            if not (stop or value or parity):
                out.append(0)  # a break
                start = self._edge(self._next_high(stop_at))
                continue
            odd = (value.bit_count() + parity) % 2
            self._take(out, value, right=bool(stop) and (self._line.parity == "N" or odd == (self._line.parity == "O")))
            again = not stop and self._receiver.like_16550
            start = stop_at - bit / 2 if again else self._edge(stop_at)
        return bytes(out)

    def _sample(self, start: float) -> tuple[int, int, float]:
        """The data bits, the parity bit (0 where there is none), and when the stop bit is sampled."""
        line, at, value = self._line, start + 1.5 / self._line.baud, 0
        for n in range(line.bits):
            value |= self._level(at) << n
            at += 1 / line.baud
        parity = 0
        if line.parity != "N":
            parity = self._level(at)
            at += 1 / line.baud
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
