"""Stream of bytes -> HDLC frames of format type 3 (IEC 62056-46, 6.4; docs/protocol.md).

    7E | format 1010 S lllllllllll | destination 1-4 | source 1-4 | control | HCS 2 | information | FCS 2 | 7E

There is no byte stuffing, so a 7E proves nothing: the length field finds the end. Every flag whose format bytes and
HCS are right is a candidate, any number of candidates run side by side, and the first whose FCS is right is the frame.
What the Deframer must do, and what it costs:

    append bytes                    one copy
    find the next possible start    one regular expression search over bytes not yet looked at
    check a start                   one CRC over at most 11 bytes
    check an end                    one CRC over at most 2047 bytes, once for each candidate
    drop what is given out          one copy of what is left, once for each `feed`

The result depends on the bytes alone: any slicing of a stream gives the same frames and the same rejects.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from fastcrc import crc16

from exporter.counted import counted
from exporter.protocol.message import Kind, Message, Rejected

FLAG: Final = 0x7E
MAX_FRAME: Final = 2047 + 2
"""Size of the longest frame in bytes, both flags included."""

FRAME_START: Final = re.compile(rb"\x7e[\xa0-\xaf]")
"""A flag and the frame format field of type 3 after it."""
_START: Final = re.compile(rb"\x7e(?:[\xa0-\xaf]|\Z)")
_ONLY_FLAGS: Final = re.compile(rb"\x7e+")
_MAX_ADDRESS: Final = 4


def crc(data: bytes) -> int:
    """CRC-16/X-25 of HCS and FCS (sent low byte first)."""
    return crc16.ibm_sdlc(data)


@dataclass(frozen=True, slots=True)
class Frame(Message):
    """A frame whose HCS, FCS and closing flag are right; `content` is its information field.

    A flag that closes one frame and opens the next is counted in the size of the first. Addresses are as sent.
    `segmented` is bit S.
    """

    destination: bytes
    source: bytes
    control: int
    segmented: bool

    def wire(self) -> bytes:
        """The frame as it was sent, with both flags, except that its FCS is 00 00."""
        addresses = self.destination + self.source
        length = 2 + len(addresses) + 1 + 2 + len(self.content) + 2
        header = (0xA000 | self.segmented << 11 | length).to_bytes(2, "big") + addresses + bytes([self.control])
        return b"\x7e%b%b%b\0\0\x7e" % (header, crc(header).to_bytes(2, "little"), self.content)


@dataclass(slots=True)
class _Start:
    """A flag that is followed by format type 3. All places are offsets in the stream.

    `end` is where the closing flag must be, `information` where the information field begins. `known` is the byte that
    decided whether the header is right. `candidate` is True if it is right, `open` until the end has been checked.
    """

    at: int
    known: int
    end: int
    candidate: bool = False
    open: bool = False
    information: int = 0
    kind: Kind = Kind.HEADER
    reason: str = ""


class Deframer:
    """Finds the frames in a stream. Sans-I/O: `feed` it bytes as they come; `end` returns what was still waiting."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._base = 0  # offset of self._buffer[0]
        self._settled = 0  # every byte before this offset was given out
        self._scanned = 0  # every start before this offset is in _pending or _starts
        self._pending: list[int] = []  # flags whose header is not complete yet
        self._starts: deque[_Start] = deque()  # by offset: what can still be a frame, or bounds a reject
        self._ends: list[tuple[int, int, _Start]] = []  # heap of the open ones: the earliest end, then start
        self._out: list[Frame | Rejected] = []

    @property
    def fed(self) -> int:
        """How many bytes were fed."""
        return self._base + len(self._buffer)

    @property
    def waiting(self) -> int:
        """How many bytes were fed and not given out yet; never more than about 4 kB."""
        return self.fed - self._settled

    @property
    def missing(self) -> int:
        """How many bytes must still come, at least, before a frame that has begun can end; 0 if that is not known.

        The closing flag counts. A frame has begun with its opening flag, and its end is known two bytes later.
        """
        total = self.fed
        if any(total - at < 3 for at in self._pending):
            return 0
        ends = [self._end_of(at, total) for at in self._pending]
        if self._ends:
            ends.append(self._ends[0][0])
        # An end that is past belongs to no frame: the length is too small even for the header.
        return min((end + 1 - total for end in ends if end >= total), default=0)

    def feed(self, data: bytes) -> list[Frame | Rejected]:
        """Take bytes and return what is decided now, in stream order. Never raises."""
        given_out = []
        for i in range(0, len(data), _BLOCK):
            self._buffer += data[i : i + _BLOCK]
            while self._take_whole_frame() or self._check_next_end():
                pass
            self._reject_settled()
            given_out += self._given_out()
        return given_out

    def passed(self, size: int) -> None:
        """Skip the next `size` bytes, which were whole frames that the caller took. Only if nothing is `waiting`."""
        if self.waiting:
            raise ValueError(f"{counted(self.waiting, 'byte')} still waiting")
        # As after any frame: the closing flag is kept, since it may open the next one.
        self._settled = self.fed + size
        self._buffer[:] = b"\x7e"
        self._base = self._scanned = self._settled - 1
        self._pending = []

    def end(self) -> list[Rejected]:
        """End the stream and return all that was waiting. What is fed later is a new stream at this offset."""
        total = self.fed
        for at in self._pending:
            self._insert(_Start(at, total, self._end_of(at, total), candidate=True))
        for start in self._starts:
            if start.open or start.known == total:
                start.kind = Kind.INCOMPLETE
        self._cut(total, whole=True)
        self._starts.clear()
        self._pending, self._ends, self._scanned = [], [], total
        out = [item for item in self._given_out() if isinstance(item, Rejected)]
        self._buffer.clear()
        self._base = total
        return out

    def _given_out(self) -> list[Frame | Rejected]:
        keep = max(self._settled - 1, self._base)  # a flag that is shared is needed once more
        del self._buffer[: keep - self._base]
        self._base = keep
        out, self._out = self._out, []
        return out

    def _take_whole_frame(self) -> bool:
        """Take a frame that is complete at the front, with no other start inside it: the usual case."""
        at = self._settled
        if self._starts or self._pending or self._scanned > at:
            return False
        buffer, i = self._buffer, at - self._base
        head = buffer[i : i + 3]
        if len(head) < 3:
            return False
        if i > 0 and head[0] & 0xF0 == 0xA0:
            at, i, head = at - 1, i - 1, buffer[i - 1 : i + 2]
        if head[0] != FLAG or head[1] & 0xF0 != 0xA0:
            return False
        end = i + 1 + _length(head, 1)
        if end >= len(buffer) or buffer[end] != FLAG or _START.search(buffer, i + 1, end) is not None:
            return False
        start = self._header(at, self.fed)
        if start is None or not start.candidate or self._wrong(start):
            return False
        self._accept(start)
        return True

    def _check_next_end(self) -> bool:
        """Look for starts up to the earliest end, and check that end. False if that end has not come yet."""
        total = self.fed
        self._scan(min(total, self._ends[0][0] + 1) if self._ends else total)
        if not self._ends or self._ends[0][0] >= total:
            return False
        start = heappop(self._ends)[2]
        start.open = False
        wrong = self._wrong(start)
        if wrong is not None:
            start.kind, start.reason = wrong
            return True
        # The bytes before the frame are rejected with what was known of them when its closing flag came.
        before = [s for s in self._starts if s.at < start.at and s.known <= start.end]
        after = [s for s in self._starts if s.at >= start.end]
        for earlier in before:
            if earlier.open:
                earlier.open, earlier.kind = False, Kind.BROKEN_OFF
        self._starts = deque(before)
        self._cut(start.at, whole=True)
        self._starts = deque(after)
        self._ends = [entry for entry in self._ends if entry[1] >= start.end]
        self._ends.sort()
        self._pending = [at for at in self._pending if at >= start.end]
        self._accept(start)
        return True

    def _scan(self, limit: int) -> None:
        """Find the starts whose headers end before `limit`. Each end that is found makes `limit` smaller."""
        pending, self._pending = self._pending, []
        for at in pending:
            limit = self._look(at, limit)
        while self._scanned < limit:
            found = _START.search(self._buffer, self._scanned - self._base, limit - self._base)
            if found is None:
                self._scanned = limit
                return
            at = found.start() + self._base
            self._scanned = at + 1
            limit = self._look(at, limit)

    def _look(self, at: int, limit: int) -> int:
        if at + 1 >= limit:
            self._pending.append(at)
            return limit
        if self._buffer[at + 1 - self._base] & 0xF0 != 0xA0:
            return limit
        start = self._header(at, limit)
        if start is None:
            self._pending.append(at)
            return limit
        self._insert(start)
        if not start.candidate:
            return limit
        heappush(self._ends, (start.end, start.at, start))
        return min(limit, start.end + 1)

    def _insert(self, start: _Start) -> None:
        self._starts.append(start)
        if len(self._starts) > 1 and self._starts[-2].at > start.at:
            self._starts = deque(sorted(self._starts, key=lambda s: s.at))

    def _header(self, at: int, limit: int) -> _Start | None:
        """Check the header that begins after the flag at `at`; None if `limit` comes before its end."""
        buffer, i = self._buffer, at - self._base
        top = min(limit - self._base, len(buffer))
        if i + 2 >= top:
            return None
        end = at + 1 + _length(buffer, i + 1)
        j = i + 3
        for _ in ("destination", "source"):
            first = j
            while True:
                if j >= top:
                    return None
                j += 1
                if buffer[j - 1] & 1:
                    break
                if j - first == _MAX_ADDRESS:
                    reason = "a frame header with an address of more than 4 bytes"
                    return _Start(at, j - 1 + self._base, end, reason=reason)
        j += 1  # control
        if j + 1 >= top:
            return None
        known = j + 1 + self._base
        if known >= end:
            return _Start(at, known, end, reason=f"a frame header with an impossible length, {end - at - 1}")
        sent, calculated = bytes(buffer[j : j + 2]), crc(bytes(buffer[i + 1 : j])).to_bytes(2, "little")
        if sent != calculated:
            return _Start(at, known, end, reason=_differ("HCS", sent, calculated))
        return _Start(at, known, end, candidate=True, open=True, information=known + 1)

    def _wrong(self, start: _Start) -> tuple[Kind, str] | None:
        """What is wrong at the end of a candidate; None if it is a frame."""
        buffer, i, end = self._buffer, start.at - self._base, start.end - self._base
        if buffer[end] != FLAG:
            return Kind.CLOSING_FLAG, f"no closing flag after {counted(end - i + 1, 'byte')}"
        sent, calculated = (
            bytes(buffer[end - 2 : end]),
            crc(bytes(buffer[i + 1 : end - 2])).to_bytes(2, "little"),
        )
        return None if sent == calculated else (Kind.FCS, _differ("FCS", sent, calculated))

    def _accept(self, start: _Start) -> None:
        buffer, i, end = self._buffer, start.at - self._base, start.end - self._base
        addresses = bytes(buffer[i + 3 : start.information - self._base - 3])
        split = next(n for n, byte in enumerate(addresses, 1) if byte & 1)
        self._out.append(
            Frame(
                offset=self._settled,
                size=start.end + 1 - self._settled,
                destination=addresses[:split],
                source=addresses[split:],
                control=buffer[start.information - self._base - 3],
                segmented=bool(buffer[i + 1] & 0x08),
                content=bytes(buffer[start.information - self._base : end - 2]),
            )
        )
        self._settled = start.end + 1
        self._scanned = max(self._scanned, start.end)

    def _reject_settled(self) -> None:
        """Give out what can no longer become part of a frame or of a longer reject."""
        first_open = min((entry[1] for entry in self._ends), default=None)
        until = min(self._pending, default=self._scanned)
        if first_open is not None and first_open <= until:
            self._cut(first_open, whole=True)
        else:
            self._cut(until, whole=False)

    def _cut(self, until: int, *, whole: bool) -> None:
        """Give out rejects up to `until`: all of them if `whole`, else those that cannot become longer."""
        while self._settled < until:
            at = self._settled
            start = self._starts[0] if self._starts and self._starts[0].at <= at else None
            stop, definite = self._extent(start, at, until)
            endless = start is None or start.kind in (Kind.HEADER, Kind.CLOSING_FLAG)
            if endless and stop - at >= _MAX_REJECT:
                stop, definite = at + _MAX_REJECT, True
            if not (definite or whole):
                return
            self._out.append(self._rejected(start, at, stop))
            self._settled = stop
            while self._starts and self._starts[0].at < stop:
                self._starts.popleft()

    def _extent(self, start: _Start | None, at: int, until: int) -> tuple[int, bool]:
        """Where the reject that begins at `at` ends, and whether that is sure."""
        for bound in self._starts:
            if bound.at >= until:
                break
            if bound.at <= at or bound is start:
                continue
            inside = start is not None and start.candidate and bound.at <= start.end
            if not inside or bound.candidate:
                if start is not None and start.kind is Kind.FCS and bound.at > start.end:
                    break
                return bound.at, True
        if start is not None and start.kind is Kind.FCS and start.end < until:
            return start.end + 1, True
        return until, False

    def _rejected(self, start: _Start | None, at: int, stop: int) -> Rejected:
        size = stop - at
        if start is None:
            if _ONLY_FLAGS.fullmatch(self._buffer, at - self._base, stop - self._base):
                return Rejected(at, size, Kind.FILL, "fill between frames")
            return Rejected(at, size, Kind.NOISE, f"no frame in {counted(size, 'byte')}")
        kind, reason = start.kind, start.reason
        if start.candidate and stop < start.end and kind is not Kind.HEADER:
            kind = Kind.INCOMPLETE if stop == self.fed and kind is Kind.INCOMPLETE else Kind.BROKEN_OFF
        if kind in (Kind.INCOMPLETE, Kind.BROKEN_OFF):
            came, of = stop - start.at, start.end + 1 - start.at
            reason = (
                f"incomplete, {came} of {counted(of, 'byte')}" if start.end else f"incomplete, {counted(came, 'byte')}"
            )
        return Rejected(at, size, kind, reason)

    def _end_of(self, at: int, total: int) -> int:
        return at + 1 + _length(self._buffer, at + 1 - self._base) if at + 2 < total else 0


_BLOCK: Final = 1 << 16
"""Bytes looked at in one step, so that what is remembered of them is bounded."""
_MAX_REJECT: Final = MAX_FRAME - 1
"""Noise is given out in pieces of at most this many bytes, so that it never waits for its end."""


def _length(data: bytes | bytearray, i: int) -> int:
    """The 11 length bits of the format field at `i`: how many bytes are between the flags."""
    return (data[i] & 0x07) << 8 | data[i + 1]


def _differ(what: str, sent: bytes, calculated: bytes) -> str:
    # As they are sent, low byte first, so that they can be found in a dump.
    return f"{what} {sent.hex().upper()}, calculated {calculated.hex().upper()}"
