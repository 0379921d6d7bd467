"""The shapes that are known, ready for use, and when a new one is worth learning."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from exporter.derive import points
from exporter.derive.values import layout_of
from exporter.model.obis import describe
from exporter.model.point import measured_series
from exporter.model.reading import ClockHabit, Zone
from exporter.pipeline.arrival import INSTANTANEOUS, Arrival
from exporter.pipeline.decoder import Decoded
from exporter.pipeline.learned.figures import Figures
from exporter.pipeline.learned.memory import Clocks, Ids, Spend, Texts, Values
from exporter.pipeline.learned.shape import Shape, Unlearnable, learn
from exporter.protocol.hdlc import FLAG, FRAME_START, Frame

__all__ = ["Learned", "Ready", "Table"]

log = logging.getLogger(__name__)

_HEAD: Final = 3
"""Bytes of a frame that say its size."""
_SHAPES: Final = 64
_NUMBERS: Final = 300_000
"""What is remembered of numbers, in all: some 40 MB at most, where meters use as many."""
_KINDS: Final = 256
_ID: Final = "\x00"
"""Stands for the meter's id in a template; no id contains it."""
_WIDTH: Final = 5


class Template:
    """Lines of one meter and time, but for the values' texts. `registers` are the lines with the registers' time."""

    __slots__ = ("_count", "_last_id", "_parts", "_registers")

    def __init__(self, around: Iterable[tuple[str, str]], registers: Sequence[int] = ()) -> None:
        # Before the id, the id, after it, the value, the time: for each line, and filled in for each frame.
        self._parts: list[str] = []
        for before, after in around:
            self._parts += [f"\n{before}" if self._parts else before, "", after, "", ""]
        self._count = len(self._parts) // _WIDTH
        self._registers = [place * _WIDTH + _WIDTH - 1 for place in registers]
        self._last_id = ""

    def fill(self, meter_id: str, texts: Iterable[str], time: str, register_time: str) -> str:
        """The lines: the id as it stands in a line, the texts in order, the times as they end a line (or nothing)."""
        parts = self._parts
        if meter_id != self._last_id:
            parts[1::_WIDTH] = [meter_id] * self._count
            self._last_id = meter_id
        parts[3::_WIDTH] = texts
        parts[4::_WIDTH] = [time] * self._count
        if register_time != time:
            for place in self._registers:
                parts[place] = register_time
        return "".join(parts)


Learned: TypeAlias = "tuple[Ready, tuple[int, ...]]"
"""What a frame of a known shape says: its shape, and its numbers as sent."""


class Ready:
    """A shape with all that is needed to read its frames and to write their lines.

    `texts` and `values` give, place by place, what a frame's numbers come to.

    `plain` takes the texts of the numbers; `derived` those and the figures'; `timed` has the clock's offset between the
    two.
    """

    __slots__ = (
        "_clocks",
        "_hour_registers",
        "_id",
        "_ids",
        "_not_zero",
        "_numbers",
        "_place_of_clock",
        "derived",
        "figures",
        "fixed",
        "instantaneous",
        "layout",
        "mask",
        "not_zeros",
        "plain",
        "size",
        "texts",
        "timed",
        "values",
    )

    def __init__(self, shape: Shape, clocks: Clocks, ids: Ids, spend: Spend) -> None:
        self.size, self.mask, self.fixed = shape.size, shape.mask, shape.fixed
        self.not_zeros = [shape.mask_of(place) for place in shape.not_zero]
        self._not_zero = shape.not_zero
        self._numbers = shape.numbers.unpack
        self._id = None if shape.id_at is None else slice(shape.id_at.start, shape.id_at.end)
        self._ids = ids
        self._place_of_clock = None if shape.clock_at is None else slice(shape.clock_at.start, shape.clock_at.end)
        self._clocks = clocks
        self.texts = [Texts(slot.entry, shape.listing, spend) for slot in shape.slots]
        self.values = [Values(slot.entry, shape.listing, spend) for slot in shape.slots]
        self.instantaneous = any(slot.entry.code.d == INSTANTANEOUS for slot in shape.slots)
        quantities = [describe(slot.entry.code) for slot in shape.slots]
        # Whatever its unit is: it may be no register in a line, and yet start an hour.
        registers = [place for place, quantity in enumerate(quantities) if quantity and quantity.is_register]
        self._hour_registers = registers if shape.own_clock else []
        measurements = shape.measurements
        self.layout = layout_of(tuple((one.obis, one.unit) for one in measurements))
        self.figures = Figures(self.layout.phases, self.values, spend)
        stamped = [n for n, one in enumerate(measurements) if measured_series(_ID, one.obis, one.unit)[1]]
        sent = [*points.templates(measurements, _ID)]
        figures = [*points.figure_templates(self.layout.phases, _ID)]
        self.plain = Template(sent, stamped)
        self.derived = Template(sent + figures, stamped)
        self.timed = Template([*sent, points.clock_offset_template(_ID), *figures], stamped)

    def arrival(self, frame: bytes, received: int | None) -> Arrival | None:
        """A frame whose shape and check sum are right, as an arrival; None where the slow way must say."""
        numbers = self._numbers(frame)
        if self._not_zero and 0 in map(numbers.__getitem__, self._not_zero):
            return None
        own = shown = offsets = None
        if self._id is not None:
            known = self._ids[frame[self._id]]
            if known is None:
                return None
            own = known[0]
        if self._place_of_clock is not None:
            clock = self._clocks.read(frame[self._place_of_clock])
            if clock is None:
                return None
            shown, offsets = clock
        registers: tuple[float, ...] = ()
        if self._hour_registers:
            registers = tuple([self.values[place][numbers[place]] for place in self._hour_registers])
        return Arrival(own, received, shown, offsets, registers, self.instantaneous, (self, numbers))

    def forget(self) -> None:
        """Empty what is remembered of numbers."""
        self.figures.forget()
        for texts, values in zip(self.texts, self.values, strict=True):
            texts.clear()
            values.clear()


class Table:
    """At most 64 shapes, found by a frame's bytes; the one that was used longest ago is dropped first."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._by_size: dict[int, list[Ready]] = {}
        self._used: dict[int, Ready] = {}  # by id(), the one last used at the end
        self._missed: dict[object, int] = {}
        self._remembered = 0
        self._clocks: dict[ClockHabit, Clocks] = {}
        self._ids = Ids()

    def find(self, data: bytes, at: int = 0) -> Ready | None:
        """The shape of the frame that begins at `at`, flag and all; None where none is known.

        A list whose L2 is 0 is of another shape than one whose L2 is not, where that marks a 3-wire meter.
        """
        if at + _HEAD > len(data):
            return None
        known = self._by_size.get(_size(data, at))
        if not known:
            return None
        number = int.from_bytes(data[at : at + known[0].size], "big")
        for ready in known:
            if number & ready.mask == ready.fixed and all(number & those for those in ready.not_zeros):
                self._used[id(ready)] = self._used.pop(id(ready))
                return ready
        return None

    def may_begin(self, data: bytes, at: int) -> bool:
        """Whether the bytes from `at` to the end may be the beginning of a frame of a known shape.

        Not where another frame may stand in them: that one may be whole already, and was received now.
        """
        left = len(data) - at
        if data[at] != FLAG or FRAME_START.search(data, at + 1) is not None:
            return False
        return left < _HEAD or any(left < ready.size for ready in self._by_size.get(_size(data, at), ()))

    def learn(self, decoded: Decoded) -> None:
        """Add the shape of a frame, if it has one."""
        if not isinstance(decoded.message, Frame):
            return
        try:
            self._add(learn(decoded.message, decoded.reading))
        except Unlearnable as reason:
            log.debug("no shape for %s of %d bytes: %s", decoded.reading.list_id, decoded.message.size, reason)

    def missed(self, decoded: Decoded) -> None:
        """A frame went the slow way. The shape of a kind that comes again is learned: at the 2nd, 4th, 8th... miss."""
        reading = decoded.reading
        kind = (decoded.message.size, reading.list_id, reading.meter.type, len(reading.measurements))
        if len(self._missed) >= _KINDS:
            self._missed.clear()
        count = self._missed[kind] = self._missed.get(kind, 0) + 1
        if count >= 2 and not count & (count - 1):
            self.learn(decoded)

    def _add(self, shape: Shape) -> None:
        same = self._by_size.setdefault(shape.size, [])
        if any((ready.mask, ready.fixed) == (shape.mask, shape.fixed) for ready in same):
            return
        if shape.habit not in self._clocks:
            self._clocks[shape.habit] = Clocks(shape.habit, self._zone)
        ready = Ready(shape, self._clocks[shape.habit], self._ids, self._spend)
        same.append(ready)
        self._used[id(ready)] = ready
        if len(self._used) > _SHAPES:
            oldest = self._used.pop(next(iter(self._used)))
            self._by_size[oldest.size].remove(oldest)

    def _spend(self) -> None:
        self._remembered += 1
        if self._remembered > _NUMBERS:
            self._remembered = 0
            for ready in self._used.values():
                ready.forget()


def _size(data: bytes, at: int) -> int:
    """Bytes of the frame that begins at `at`, both flags included, by its length field."""
    return ((data[at + 1] & 0x07) << 8 | data[at + 2]) + 2
