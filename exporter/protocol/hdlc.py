"""Stream of octets -> HDLC frames of format type 3 (IEC 62056-46, 6.4; domain.md, "The wire").

    7E | format 1010 S lllllllllll | destination 1-4 | source 1-4 | control | HCS 2 | information | FCS 2 | 7E

There is no octet stuffing, so a 7E proves nothing: the length field finds the end. Every flag whose format octets and
HCS check is a candidate, any number of candidates run side by side, and the first whose FCS checks is the frame.
What the Deframer must do, and what it costs:

    append octets                   one copy
    find the next possible start    one regular expression search over octets not yet looked at
    check a start                   one CRC over at most 11 octets
    check an end                    one CRC over at most 2047 octets, once for each candidate
    drop what is settled            one copy of what is left, once for each `feed`

All of it is a function of the octets alone: any slicing of a stream gives the same frames and the same rejects.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from fastcrc import crc16

from exporter.protocol.message import Kind, Message, Rejected

FLAG: Final = 0x7E
MAX_FRAME: Final = 2047 + 2
"""Octets of the longest frame, both flags included."""

_START: Final = re.compile(rb"\x7e(?:[\xa0-\xaf]|\Z)")
_ONLY_FLAGS: Final = re.compile(rb"\x7e+")
_MAX_ADDRESS: Final = 4


def crc(octets: bytes) -> int:
    """CRC-16/X-25 of HCS and FCS (sent low octet first)."""
    return crc16.ibm_sdlc(octets)


@dataclass(frozen=True, slots=True)
class Frame(Message):
    """A frame whose HCS, FCS and closing flag are right; `content` is its information field.

    An opening flag that closed the frame before counts with that one. Addresses are as sent. `segmented` is bit S.
    """

    destination: bytes
    source: bytes
    control: int
    segmented: bool

    def wire(self) -> bytes:
        """The frame as it was sent, both flags, but for its FCS, which is 00 00 here."""
        addresses = self.destination + self.source
        length = 2 + len(addresses) + 1 + 2 + len(self.content) + 2
        header = (0xA000 | self.segmented << 11 | length).to_bytes(2, "big") + addresses + bytes([self.control])
        return b"\x7e%b%b%b\0\0\x7e" % (header, crc(header).to_bytes(2, "little"), self.content)


@dataclass(slots=True)
class _Start:
    """A flag with format type 3 behind it.

    `end` is where the closing flag must stand, `information` where the information field begins. `known` is the octet
    that decided whether the header checks. `candidate` is True when it did; `open` while the end is not judged.
    """

    at: int
    known: int
    end: int
    candidate: bool = False
    open: bool = False
    information: int = 0
    kind: Kind = Kind.HEADER
    words: str = ""


class Deframer:
    """Sans-I/O reader of frames. `feed` octets as they come; `end` says what was left waiting."""

    def __init__(self) -> None:
        self._octets = bytearray()
        self._base = 0  # offset of self._octets[0]
        self._settled = 0  # every octet before this offset was given out
        self._scanned = 0  # no start stands before this offset but those in _pending and _starts
        self._pending: list[int] = []  # flags whose header is not complete yet
        self._starts: deque[_Start] = deque()  # by offset: what can still be a frame, or bounds a reject
        self._ends: list[tuple[int, int, _Start]] = []  # heap of the open ones: the earliest end, then start
        self._out: list[Frame | Rejected] = []

    @property
    def fed(self) -> int:
        """How many octets were fed."""
        return self._base + len(self._octets)

    @property
    def waiting(self) -> int:
        """How many octets were fed and not given out yet; never more than some 4 kB."""
        return self.fed - self._settled

    @property
    def missing(self) -> int:
        """How many bytes must still come, at least, before a frame that has begun can end; 0 where not known.

        The closing flag counts. A frame has begun with its opening flag, and its end is known two bytes later.
        """
        total = self.fed
        if any(total - at < 3 for at in self._pending):
            return 0
        ends = [self._end_of(at, total) for at in self._pending]
        if self._ends:
            ends.append(self._ends[0][0])
        # A length that is too short even for the header ends before this byte: that is no frame.
        return min((end + 1 - total for end in ends if end >= total), default=0)

    def feed(self, octets: bytes) -> list[Frame | Rejected]:
        """Take octets in and give out what they settle, in stream order. Never raises."""
        given_out = []
        for i in range(0, len(octets), _BLOCK):
            self._octets += octets[i : i + _BLOCK]
            while self._quick() or self._judge():
                pass
            self._reject_settled()
            given_out += self._given_out()
        return given_out

    def passed(self, octets: int) -> None:
        """The next so many octets were whole frames that somebody else has taken; only where nothing is `waiting`."""
        if self.waiting:
            raise ValueError(f"{self.waiting} octets wait to be settled")
        # As it is behind a frame: the closing flag is kept, since it may open the next one.
        self._settled = self.fed + octets
        self._octets[:] = b"\x7e"
        self._base = self._scanned = self._settled - 1
        self._pending = []

    def end(self) -> list[Rejected]:
        """The stream ended: give out all that waits, as rejects. What is fed then is a new stream at this offset."""
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
        self._octets.clear()
        self._base = total
        return out

    def _given_out(self) -> list[Frame | Rejected]:
        keep = max(self._settled - 1, self._base)  # a flag that is shared is needed once more
        del self._octets[: keep - self._base]
        self._base = keep
        out, self._out = self._out, []
        return out

    def _quick(self) -> bool:
        """Take a frame that stands whole at the front with no other start in sight: the usual case."""
        at = self._settled
        if self._starts or self._pending or self._scanned > at:
            return False
        octets, i = self._octets, at - self._base
        head = octets[i : i + 3]
        if len(head) < 3:
            return False
        if i > 0 and head[0] & 0xF0 == 0xA0:
            at, i, head = at - 1, i - 1, octets[i - 1 : i + 2]
        if head[0] != FLAG or head[1] & 0xF0 != 0xA0:
            return False
        end = i + 1 + _length(head, 1)
        if end >= len(octets) or octets[end] != FLAG or _START.search(octets, i + 1, end) is not None:
            return False
        start = self._header(at, self.fed)
        if start is None or not start.candidate or self._wrong(start):
            return False
        self._accept(start)
        return True

    def _judge(self) -> bool:
        """Look for starts up to the earliest end, and judge that end. False when no end is in sight."""
        total = self.fed
        self._scan(min(total, self._ends[0][0] + 1) if self._ends else total)
        if not self._ends or self._ends[0][0] >= total:
            return False
        start = heappop(self._ends)[2]
        start.open = False
        wrong = self._wrong(start)
        if wrong is not None:
            start.kind, start.words = wrong
            return True
        # What lies before the frame is rejected as it was known when its closing flag came, and no better.
        before = [s for s in self._starts if s.at < start.at and s.known <= start.end]
        behind = [s for s in self._starts if s.at >= start.end]
        for earlier in before:
            if earlier.open:
                earlier.open, earlier.kind = False, Kind.BROKEN_OFF
        self._starts = deque(before)
        self._cut(start.at, whole=True)
        self._starts = deque(behind)
        self._ends = [entry for entry in self._ends if entry[1] >= start.end]
        self._ends.sort()
        self._pending = [at for at in self._pending if at >= start.end]
        self._accept(start)
        return True

    def _scan(self, limit: int) -> None:
        """Find the starts whose headers end before `limit`, which comes nearer with every end that is found."""
        pending, self._pending = self._pending, []
        for at in pending:
            limit = self._look(at, limit)
        while self._scanned < limit:
            found = _START.search(self._octets, self._scanned - self._base, limit - self._base)
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
        if self._octets[at + 1 - self._base] & 0xF0 != 0xA0:
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
        """Check the header that begins behind the flag at `at`; None when `limit` comes before its end."""
        octets, i = self._octets, at - self._base
        top = min(limit - self._base, len(octets))
        if i + 2 >= top:
            return None
        end = at + 1 + _length(octets, i + 1)
        j = i + 3
        for _ in ("destination", "source"):
            first = j
            while True:
                if j >= top:
                    return None
                j += 1
                if octets[j - 1] & 1:
                    break
                if j - first == _MAX_ADDRESS:
                    words = "a frame header with an address of more than 4 octets"
                    return _Start(at, j - 1 + self._base, end, words=words)
        j += 1  # control
        if j + 1 >= top:
            return None
        known = j + 1 + self._base
        if known >= end:
            return _Start(at, known, end, words=f"a frame header with an impossible length, {end - at - 1}")
        sent, calculated = bytes(octets[j : j + 2]), crc(bytes(octets[i + 1 : j])).to_bytes(2, "little")
        if sent != calculated:
            return _Start(at, known, end, words=_differ("HCS", sent, calculated))
        return _Start(at, known, end, candidate=True, open=True, information=known + 1)

    def _wrong(self, start: _Start) -> tuple[Kind, str] | None:
        """What is wrong at the end of a candidate; None makes it a frame."""
        octets, i, end = self._octets, start.at - self._base, start.end - self._base
        if octets[end] != FLAG:
            return Kind.CLOSING_FLAG, f"no closing flag after {end - i + 1} octets"
        sent, calculated = (
            bytes(octets[end - 2 : end]),
            crc(bytes(octets[i + 1 : end - 2])).to_bytes(2, "little"),
        )
        return None if sent == calculated else (Kind.FCS, _differ("FCS", sent, calculated))

    def _accept(self, start: _Start) -> None:
        octets, i, end = self._octets, start.at - self._base, start.end - self._base
        addresses = bytes(octets[i + 3 : start.information - self._base - 3])
        split = next(n for n, octet in enumerate(addresses, 1) if octet & 1)
        self._out.append(
            Frame(
                offset=self._settled,
                size=start.end + 1 - self._settled,
                destination=addresses[:split],
                source=addresses[split:],
                control=octets[start.information - self._base - 3],
                segmented=bool(octets[i + 1] & 0x08),
                content=bytes(octets[start.information - self._base : end - 2]),
            )
        )
        self._settled = start.end + 1
        self._scanned = max(self._scanned, start.end)

    def _reject_settled(self) -> None:
        """Give out what can no longer become a frame, or part of a longer reject."""
        first_open = min((entry[1] for entry in self._ends), default=None)
        until = min(self._pending, default=self._scanned)
        if first_open is not None and first_open <= until:
            self._cut(first_open, whole=True)
        else:
            self._cut(until, whole=False)

    def _cut(self, until: int, *, whole: bool) -> None:
        """Give out rejects up to `until`: all of them if `whole`, else those that what follows cannot lengthen."""
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
        octets = stop - at
        if start is None:
            if _ONLY_FLAGS.fullmatch(self._octets, at - self._base, stop - self._base):
                return Rejected(at, octets, Kind.FILL, "fill between frames")
            return Rejected(at, octets, Kind.NOISE, f"no frame in {_octets(octets)}")
        kind, words = start.kind, start.words
        if start.candidate and stop < start.end and kind is not Kind.HEADER:
            kind = Kind.INCOMPLETE if stop == self.fed and kind is Kind.INCOMPLETE else Kind.BROKEN_OFF
        if kind in (Kind.INCOMPLETE, Kind.BROKEN_OFF):
            there, of = stop - start.at, start.end + 1 - start.at
            words = f"incomplete, {there} of {of} octets" if start.end else f"incomplete, {_octets(there)}"
        return Rejected(at, octets, kind, words)

    def _end_of(self, at: int, total: int) -> int:
        return at + 1 + _length(self._octets, at + 1 - self._base) if at + 2 < total else 0


_BLOCK: Final = 1 << 16
"""Octets looked at in one go: bounds what is remembered of them."""
_MAX_REJECT: Final = MAX_FRAME - 1
"""Noise is given out in pieces of at most this many octets, so that it never waits for its end."""


def _length(octets: bytes | bytearray, i: int) -> int:
    """The 11 length bits of the format field at `i`: octets between the flags."""
    return (octets[i] & 0x07) << 8 | octets[i + 1]


def _octets(count: int) -> str:
    return f"{count} octet{'s' * (count != 1)}"


def _differ(what: str, sent: bytes, calculated: bytes) -> str:
    # in the order in which they stand in the frame, low octet first, so that they can be found in a dump
    return f"{what} {sent.hex().upper()}, calculated {calculated.hex().upper()}"
