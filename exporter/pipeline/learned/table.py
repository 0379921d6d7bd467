"""The shapes that are known, ready for use, and when a new one is worth learning."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from operator import getitem
from typing import Final

from exporter.derive import points
from exporter.derive.derived import Phases
from exporter.model.obis import describe
from exporter.model.reading import ClockHabit, Zone
from exporter.pipeline.decoder import Heard
from exporter.pipeline.learned.figures import Figures
from exporter.pipeline.learned.memory import Hours, Spend, Texts, Values
from exporter.pipeline.learned.shape import Shape, Unlearnable, learn
from exporter.protocol.hdlc import FLAG

__all__ = ["Ready", "Table"]

log = logging.getLogger(__name__)

_HEAD: Final = 3
"""Octets of a frame that tell its size."""
_SHAPES: Final = 64
_NUMBERS: Final = 300_000
"""What is remembered of numbers, in all: some 40 MB at the most, where meters use as many."""
_KINDS: Final = 256
_ID: Final = "\x00"
"""Stands for the meter's id in a template; no id has it in it."""
_WIDTH: Final = 5
_START: Final = re.compile(rb"\x7e[\xa0-\xaf]")


class Template:
    """Lines of one meter and time, but for the values' texts."""

    __slots__ = ("_count", "_last_id", "_parts")

    def __init__(self, around: Iterable[tuple[str, str]]) -> None:
        # Before the id, the id, behind it, the value, the time: for each line, and filled in for each frame.
        self._parts: list[str] = []
        for before, behind in around:
            self._parts += [f"\n{before}" if self._parts else before, "", behind, "", ""]
        self._count = len(self._parts) // _WIDTH
        self._last_id = ""

    def fill(self, meter_id: str, texts: Iterable[str], time: str) -> str:
        """The lines: the id as it stands in a line, the texts in order, the time as it ends a line (or nothing)."""
        parts = self._parts
        if meter_id != self._last_id:
            parts[1::_WIDTH] = [meter_id] * self._count
            self._last_id = meter_id
        parts[3::_WIDTH] = texts
        parts[4::_WIDTH] = [time] * self._count
        return "".join(parts)


class Ready:
    """A shape with all that is needed to write its lines at once.

    `plain` takes the texts of the numbers; `derived` those and of the `figures`; `timed` has the clock's offset between
    the two.
    """

    __slots__ = (
        "_values",
        "clock",
        "derived",
        "figures",
        "fixed",
        "hours",
        "id",
        "mask",
        "not_zero",
        "not_zeros",
        "numbers",
        "phases",
        "plain",
        "registers",
        "shape",
        "size",
        "texts",
        "timed",
    )

    def __init__(self, shape: Shape, hours: Hours, spend: Spend) -> None:
        self.shape = shape
        self.size, self.mask, self.fixed, self.not_zero = shape.size, shape.mask, shape.fixed, shape.not_zero
        self.not_zeros = [shape.mask_of(place) for place in shape.not_zero]
        self.numbers = shape.numbers.unpack
        self.id = None if shape.id_at is None else slice(shape.id_at.start, shape.id_at.end)
        self.clock = None if shape.clock_at is None else slice(shape.clock_at.start, shape.clock_at.end)
        self.hours = hours
        self.texts = [Texts(slot.entry, shape.listing, spend) for slot in shape.slots]
        self._values = [Values(slot.entry, shape.listing, spend) for slot in shape.slots]
        self.phases = Phases.of(tuple((one.obis, one.unit) for one in shape.measurements))
        self.figures = Figures(self.phases, self._values, spend)
        # Whatever its unit is: it may be no register in a line, and yet tell the hour.
        self.registers = shape.own_clock and any(
            quantity.is_register for slot in shape.slots if (quantity := describe(slot.entry.code))
        )
        sent = [*points.templates(shape.measurements, _ID)]
        figures = [*points.figure_templates(self.phases, _ID)]
        self.plain = Template(sent)
        self.derived = Template(sent + figures)
        self.timed = Template([*sent, points.clock_offset_template(_ID), *figures])

    def forget(self) -> None:
        """Empty what is remembered of numbers."""
        self.figures.forget()
        for texts, values in zip(self.texts, self._values, strict=True):
            texts.clear()
            values.clear()

    def values(self, numbers: tuple[int, ...]) -> list[float]:
        """The values of a frame's numbers, in SI."""
        return list(map(getitem, self._values, numbers))


class Table:
    """At most 64 shapes, found by a frame's octets; the one that was used longest ago goes first."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._by_size: dict[int, list[Ready]] = {}
        self._used: dict[int, Ready] = {}  # by id(), the one last used at the end
        self._missed: dict[object, int] = {}
        self._remembered = 0
        self._hours: dict[ClockHabit, Hours] = {}

    def find(self, octets: bytes, at: int = 0) -> Ready | None:
        """The shape of the frame that begins at `at`, flag and all; None where none is known.

        A list whose L2 is 0 is of another shape than one whose L2 is not, where that tells a 3-wire meter.
        """
        if at + _HEAD > len(octets):
            return None
        known = self._by_size.get(_size(octets, at))
        if not known:
            return None
        number = int.from_bytes(octets[at : at + known[0].size], "big")
        for ready in known:
            if number & ready.mask == ready.fixed and all(number & those for those in ready.not_zeros):
                self._used[id(ready)] = self._used.pop(id(ready))
                return ready
        return None

    def may_begin(self, octets: bytes, at: int) -> bool:
        """Whether the octets from `at` on, to the last, are fewer than a known shape has, and begin alike.

        Not where another frame may stand in them: that one may be whole already, and was received now.
        """
        left = len(octets) - at
        if octets[at] != FLAG or _START.search(octets, at + 1) is not None:
            return False
        return left < _HEAD or any(left < ready.size for ready in self._by_size.get(_size(octets, at), ()))

    def learn(self, heard: Heard) -> None:
        """Know the shape of a frame, if it has one."""
        try:
            self._add(learn(heard.frame, heard.reading))
        except Unlearnable as reason:
            log.debug("no shape for %s of %d octets: %s", heard.reading.list_id, heard.frame.size, reason)

    def missed(self, heard: Heard) -> None:
        """A frame went the slow way. Of a kind that comes again, its shape is learned: at the 2nd, 4th, 8th... miss."""
        reading = heard.reading
        kind = (heard.frame.size, reading.list_id, reading.meter.type, len(reading.measurements))
        if len(self._missed) >= _KINDS:
            self._missed.clear()
        count = self._missed[kind] = self._missed.get(kind, 0) + 1
        if count >= 2 and not count & (count - 1):
            self.learn(heard)

    @property
    def examples(self) -> tuple[bytes, ...]:
        """A frame of each shape that is known, from which another table can learn it."""
        return tuple(ready.shape.example for ready in self._used.values())

    def _add(self, shape: Shape) -> None:
        same = self._by_size.setdefault(shape.size, [])
        if any((ready.mask, ready.fixed) == (shape.mask, shape.fixed) for ready in same):
            return
        if shape.habit not in self._hours:
            self._hours[shape.habit] = Hours(shape.habit, self._zone)
        ready = Ready(shape, self._hours[shape.habit], self._spend)
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


def _size(octets: bytes, at: int) -> int:
    """Octets of the frame that begins at `at`, both flags included, by its length field."""
    return ((octets[at + 1] & 0x07) << 8 | octets[at + 2]) + 2
