"""Octets of one source -> finished line protocol, frames of a known shape at once and all others the slow way.

The one door of this room is `Lines`. What it gives is what the slow way gives, line for line, for every input: it is
quicker, and nothing else. The slow way is `intake`, `placing` and `points`; a meter repeats a handful of shapes, and
whatever is not of a known one (damage, a shape not seen twice, an hour's registers, a clock that takes thought) goes
that way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from operator import getitem
from typing import TYPE_CHECKING, Final

from fastcrc import crc16

from exporter.model.calendar import EPOCH, to_ms
from exporter.model.point import escaped
from exporter.model.reading import Zone
from exporter.pipeline.decoder import Heard, Outcome, read_frame
from exporter.pipeline.learned.memory import Ids
from exporter.pipeline.learned.run import ReadAhead
from exporter.pipeline.learned.table import Ready, Table
from exporter.pipeline.placing import Placer
from exporter.protocol.hdlc import FLAG, Deframer, Frame

if TYPE_CHECKING:
    from exporter.derive.deriver import Deriver

__all__ = ["Lines", "ReadAhead"]

_FLAG: Final = bytes([FLAG])
_START: Final = re.compile(rb"\x7e[\xa0-\xaf]")
_BOUNDARY: Final = re.compile(rb"\x7e(?=\x7e?[\xa0-\xaf])")
_LEAST_PIECE: Final = 16
_RIGHT: Final = 0x0F47
"""CRC-16/X-25 of any octets with their own CRC behind them."""

_MINUTE, _SECOND, _BEHIND = 6, 7, 8
"""Of a clock's 12 octets (IEC 62056-62, date-time)."""
_SIXTY: Final = 60
"""Minutes and seconds from this on take thought: one that is not specified is FF."""

Slow = Callable[[Outcome], Iterable[str]]


class Lines:
    """Sans-I/O: `feed` octets in, lines out, each text one line or more without the last line's end.

    `placer` names and times the readings. `slow` is given what went the slow way, in stream order, and says which lines
    that makes, having placed it. With the `deriver` of a capture, figures are derived too, and a list without any time
    gives no lines. `frames` and `without_time` count what did not go the slow way.
    """

    def __init__(self, placer: Placer, slow: Slow, zone: Zone, deriver: Deriver | None = None) -> None:
        self.frames = 0
        self.without_time = 0
        self._placer, self._place = placer, placer.place_known
        self._slow = slow
        self._zone = zone
        self._deriver = deriver
        self._table = Table(zone)
        self._ids = Ids()
        self._deframer = Deframer()
        self._passed = 0  # octets that the deframer has not been told of
        self._rest = b""  # the beginning of a frame whose end is not here yet
        self._received: datetime | None = None
        self._moment: int | None = None  # the same, ms
        self._believed = 0, 0  # first and last clock
        self._out: list[str] = []

    @property
    def octets(self) -> int:
        """Octets fed so far."""
        return self._deframer.fed + self._passed + len(self._rest)

    def feed(self, octets: bytes, received: datetime | None = None) -> list[str]:
        """Take one chunk in; `received` (UTC) is when its last octet was here. Bad input never raises."""
        self._received, self._moment = received, None if received is None else to_ms(received)
        if self._rest:
            octets, self._rest = self._rest + octets, b""
        at, size = 0, len(octets)
        while at < size:
            if not self._deframer.waiting:
                at = self._known(octets, at)
                if at < size and self._table.may_begin(octets, at):
                    self._rest = octets[at:]
                    break
            end = self._piece(octets, at)
            self._feed_slowly(octets[at:end])
            at = end
        return self._given_out()

    def take(self, run: ReadAhead) -> list[str] | None:
        """Take frames that were read ahead as `feed` would take their octets; None, with nothing done, if not."""
        times = run.lists.times
        if self._deframer.waiting or self._rest or (times and not self._would_derive(run, times[0], times[-1])):
            return None
        if times and not run.stamped:
            first, last = self._placer.clock_range
            if not first <= times[0] <= times[-1] <= last:
                return None
        if not self._placer.place_run(run.lists):
            return None
        self._passed += run.octets
        self.frames += run.frames
        self.without_time += run.frames - len(times)
        return run.texts

    @property
    def meter_id(self) -> str:
        """Whose a list is now that names no meter."""
        return self._placer.expected[0]

    @property
    def examples(self) -> tuple[bytes, ...]:
        """A frame of each shape that was learned so far: whoever reads ahead learns from them."""
        return self._table.examples

    def _would_derive(self, run: ReadAhead, first: int, last: int) -> bool:
        """Whether what is derived from each of its lists is figures alone; see `_derives`."""
        meter_id = run.lists.meter_id
        if self._deriver is None:
            return True
        if not self._deriver.knows(meter_id, first) or not self._deriver.knows(meter_id, last):
            return False
        return not run.stamped or self._placer.reads_by_habit(meter_id)

    def end(self) -> list[str]:
        """The stream ended: what was left waiting."""
        rest, self._rest = self._rest, b""
        self._feed_slowly(rest)
        for item in self._deframer.end():
            self._out += self._slow(item)
        return self._given_out()

    def _given_out(self) -> list[str]:
        out, self._out = self._out, []
        return out

    def _known(self, octets: bytes, at: int) -> int:
        """Take frames of known shapes, one behind the other, and return where the first other octet stands."""
        self._believed = self._placer.clock_range
        ready = self._table.find(octets, at)
        begun, out, crc = at, self._out, crc16.ibm_sdlc
        while ready is not None:
            frame = octets[at : at + ready.size]
            if int.from_bytes(frame, "big") & ready.mask != ready.fixed:
                ready = self._table.find(octets, at)
                continue
            inner = frame[1:-1]
            if crc(inner) != _RIGHT or (_FLAG in inner and _START.search(inner)):
                break
            text = self._text(ready, frame)
            if text is None:
                break
            if text:
                out.append(text)
            at += ready.size
        self._passed += at - begun
        return at

    def _text(self, ready: Ready, frame: bytes) -> str | None:
        """The lines of a frame whose shape and FCS are right; None, with nothing done, where the slow way must say."""
        numbers = ready.numbers(frame)
        if ready.not_zero and 0 in map(numbers.__getitem__, ready.not_zero):
            return None
        own = known = shown = clock = None
        if ready.id is not None:
            known = self._ids[frame[ready.id]]
            if known is None:
                return None
            own = known[0]
        moment = self._moment
        if ready.clock is not None:
            told = frame[ready.clock]
            minute, second = told[_MINUTE], told[_SECOND]
            began = ready.hours[told[:_MINUTE] + told[_BEHIND:]]
            if began is None or minute >= _SIXTY or second >= _SIXTY:
                return None
            into_hour = minute * 60_000 + second * 1000
            clock = began[0] + into_hour
            if moment is None:
                moment = clock
                if not self._believed[0] <= clock <= self._believed[1]:
                    return None
            if ready.registers:
                shown = began[1] + into_hour
        if self._deriver is not None and moment is not None and not self._derives(own, moment):
            return None
        placed = self._place(own, moment, shown)
        if placed is None:
            return None
        meter_id, time = placed
        self.frames += 1
        there = known[1] if known else escaped(meter_id)
        if time is None:
            self.without_time += 1
        elif self._deriver is not None:
            return self._derived(ready, numbers, meter_id, there, time, clock)
        stamp = "" if time is None else f" {time}"
        return ready.plain.fill(there, map(getitem, ready.texts, numbers), stamp) if self._deriver is None else ""

    def _derives(self, own: str | None, moment: int) -> bool:
        """Whether what is derived from a list of this meter is figures alone."""
        meter_id = self._placer.id_of(own)
        if meter_id is None or self._deriver is None or not self._deriver.knows(meter_id, moment):
            return False
        return self._moment is None or self._placer.reads_by_habit(meter_id)

    def _derived(
        self, ready: Ready, numbers: tuple[int, ...], meter_id: str, there: str, time: int, clock: int | None
    ) -> str:
        """The lines with those of the figures; the id as it is, and as it stands in a line."""
        assert self._deriver is not None
        texts, stamp = [*map(getitem, ready.texts, numbers)], f" {time}"
        offset = None
        if clock is not None and self._received is not None:
            offset = (EPOCH + timedelta(milliseconds=clock) - self._received) / timedelta(seconds=1)
        figures = ready.figures.texts(numbers, self._deriver.fuse(meter_id))
        if figures is None:
            lines = self._deriver.of_values(ready.phases, ready.values(numbers), meter_id, time, offset)
            return "\n".join([ready.plain.fill(there, texts, stamp), *lines])
        if offset is None:
            return ready.derived.fill(there, texts + figures, stamp)
        return ready.timed.fill(there, [*texts, repr(offset), *figures], stamp)

    @staticmethod
    def _piece(octets: bytes, at: int) -> int:
        """How far to go slowly: to where the next frame may begin."""
        found = _BOUNDARY.search(octets, at + _LEAST_PIECE)
        return len(octets) if found is None else found.end()

    def _feed_slowly(self, octets: bytes) -> None:
        if self._passed:
            self._deframer.passed(self._passed)
            self._passed = 0
        for item in self._deframer.feed(octets):
            self._out += self._of_item(item)

    def _of_item(self, item: Frame | Outcome) -> Iterable[str]:
        if not isinstance(item, Frame):
            return self._slow(item)
        wire = item.wire()
        ready = self._table.find(wire)
        if ready is not None:
            self._believed = self._placer.clock_range
            text = self._text(ready, wire)
            if text is not None:
                return [text] if text else []
        outcome = read_frame(item, self._received, self._zone)
        if ready is None and isinstance(outcome, Heard):
            self._table.missed(outcome)
        return self._slow(outcome)
