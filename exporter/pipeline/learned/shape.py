"""A shape: which bytes of a frame may vary, and what its lines are when they do.

A shape is learned from one frame that went the slow way (protocol, meters, points), which is the definition. Numbers,
clock, meter id and invoke-id may differ; every other byte must be the same: flags, lengths, tags, OBIS codes, scalers,
list id and meter type. So the lines of another frame of the shape depend on those values alone, and on each number by
itself.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from exporter.meters import listing_of
from exporter.meters.entries import Entry, Listing, bytes_of, measurements_of
from exporter.meters.three_wire import I2, U2
from exporter.model.reading import ClockHabit, Measurement, Reading
from exporter.protocol.apdu import Spans, decode_with_spans
from exporter.protocol.axdr import DecodeError, Span, Tag
from exporter.protocol.hdlc import Frame

__all__ = ["Shape", "Slot", "Unlearnable", "learn"]

_FORMATS: Final = {
    Tag.INT32: "i",
    Tag.UINT32: "I",
    Tag.BCD: "B",
    Tag.INT8: "b",
    Tag.INT16: "h",
    Tag.UINT8: "B",
    Tag.UINT16: "H",
    Tag.INT64: "q",
    Tag.UINT64: "Q",
    Tag.ENUM: "B",
}
_FLOATS: Final = frozenset({Tag.FLOAT32, Tag.FLOAT64})
"""A float that is not finite is no measurement: which values a list has would depend on what they are."""
_INVOKE_ID: Final = Span(4, 8)
_FCS_AND_FLAG: Final = 3
_CODE_SIZE: Final = 6
"""An id of so many bytes might be taken for an OBIS code."""


class Unlearnable(Exception):  # noqa: N818 - nothing is wrong with such a frame
    """The lines of such a frame depend on more than its numbers one by one."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One number of a frame: where it begins, its format for struct, and the entry that it belongs to."""

    at: int
    form: str
    entry: Entry
    unit: str


@dataclass(frozen=True, slots=True)
class Shape:
    """What frames of one layout have in common; `size` is in bytes, both flags included.

    `slots` are the measurements in their order, `not_zero` those of them that are 0 in no frame of the shape. `id_at`
    and `clock_at` are the places of the meter's id and of the clock, None where they are not sent. `own_clock` says
    that the clock is part of the list.
    """

    size: int
    mask: int
    fixed: int
    slots: tuple[Slot, ...]
    not_zero: tuple[int, ...]
    id_at: Span | None
    clock_at: Span | None
    own_clock: bool
    listing: Listing

    @property
    def numbers(self) -> struct.Struct:
        """Reads the numbers of a whole frame."""
        form, at = ">", 0
        for slot in self.slots:
            form += f"{slot.at - at}x{slot.form}"
            at = slot.at + struct.calcsize(f">{slot.form}")
        return struct.Struct(f"{form}{self.size - at}x")

    def mask_of(self, place: int) -> int:
        """The bits of a slot, in a frame taken as one number."""
        slot = self.slots[place]
        size = struct.calcsize(f">{slot.form}")
        return ((1 << 8 * size) - 1) << 8 * (self.size - slot.at - size)

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """What the slots measure; their values say nothing."""
        return tuple(Measurement(slot.entry.code, 0.0, slot.unit) for slot in self.slots)

    @property
    def habit(self) -> ClockHabit:
        """How the maker's clock is to be read."""
        return self.listing.habit


def learn(frame: Frame, reading: Reading) -> Shape:
    """Learn the shape of a frame that the slow way has read. Raises Unlearnable."""
    try:
        spans = decode_with_spans(frame.content)
    except DecodeError as error:
        raise Unlearnable(str(error)) from error
    listing = listing_of(spans.notification)
    wire = frame.wire()
    start = len(wire) - _FCS_AND_FLAG - len(frame.content)
    slots, not_zero = _slots(spans, listing, reading, start)
    id_at = _id_span(spans, listing)
    clock_at, free = _clock_spans(spans, listing, reading)
    free += [_INVOKE_ID, *([id_at] if id_at else [])]
    mask = bytearray(b"\xff" * len(wire))
    for at, end in [(span.start + start, span.end + start) for span in free] + [
        (slot.at, slot.at + struct.calcsize(f">{slot.form}")) for slot in slots
    ]:
        mask[at:end] = bytes(end - at)
    mask[-_FCS_AND_FLAG:-1] = b"\0\0"
    number = int.from_bytes(mask, "big")
    return Shape(
        len(wire),
        number,
        int.from_bytes(wire, "big") & number,
        slots,
        not_zero,
        _moved(id_at, start),
        _moved(clock_at, start),
        reading.list_clock,
        listing,
    )


def _moved(span: Span | None, by: int) -> Span | None:
    return None if span is None else Span(span.start + by, span.end + by)


def _slots(spans: Spans, listing: Listing, reading: Reading, start: int) -> tuple[tuple[Slot, ...], tuple[int, ...]]:
    """The measurements' places, and those which must not be 0: a 3-wire meter's zeros are no values."""
    unmeasured = _unmeasured(listing)
    slots: list[Slot] = []
    for entry in listing.entries:
        if entry.value.tag in _FLOATS:
            raise Unlearnable("a float")
        measured = measurements_of([entry], listing.scaler)
        if not measured or any(entry is left_out for left_out in unmeasured):
            continue
        slots.append(Slot(spans.of(entry.value).start + start, _FORMATS[entry.value.tag], entry, measured[0].unit))
    codes = [slot.entry.code for slot in slots]
    places = [slot.at for slot in slots]
    if not slots or codes != [m.obis for m in reading.measurements] or places != sorted(set(places)):
        raise Unlearnable("its measurements are not its entries, one by one")
    return tuple(slots), _not_zero(slots, listing, unmeasured)


def _unmeasured(listing: Listing) -> list[Entry]:
    """The zeros of a 3-wire meter that the reading leaves out; their bytes are fixed in the shape."""
    if not listing.three_wire:
        return []
    volts = [entry for entry in listing.entries if entry.code[2:5] == U2]
    amperes = [entry for entry in listing.entries if entry.code[2:5] == I2]
    if len(volts) > 1 or len(amperes) > 1:
        raise Unlearnable("L2 twice")
    if not volts or volts[0].value.content != 0:
        return []
    return [*volts, *(entry for entry in amperes if entry.value.content == 0)]


def _not_zero(slots: Sequence[Slot], listing: Listing, unmeasured: Sequence[Entry]) -> tuple[int, ...]:
    if not listing.three_wire:
        return ()
    # With U2 measured, I2 may be 0 and is a value; with U2 left out, an I2 that is there is not 0.
    which = I2 if unmeasured else U2
    return tuple(place for place, slot in enumerate(slots) if slot.entry.code[2:5] == which)


def _id_span(spans: Spans, listing: Listing) -> Span | None:
    value = listing.named_by
    if value is None:
        return None
    sent = bytes_of(value)
    if sent is None:
        raise Unlearnable("an id that is a number")
    if len(sent) == _CODE_SIZE:
        raise Unlearnable("an id that may be an OBIS code")
    return spans.of(value)


def _clock_spans(spans: Spans, listing: Listing, reading: Reading) -> tuple[Span | None, list[Span]]:
    """The place of the clock that counts, and the date-times that may vary."""
    header = [] if spans.date_time is None else [spans.date_time]
    if reading.list_clock:
        if listing.clock is None:
            raise Unlearnable("a clock that was not found in the list")
        own = spans.of(listing.clock)
        return own, [own, *header]  # with a clock of the list's own, the header's is not looked at
    if listing.clock is not None:
        raise Unlearnable("a clock of the list that is no date")
    if reading.meter_clock is None:
        return None, []  # none, or one that is no date: it stays as it is
    return header[0], header
