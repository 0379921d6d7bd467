"""One list on its way to its meter and its time: what placing needs to know of it, whichever way it was read."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from exporter.model.obis import describe
from exporter.model.reading import ClockHabit, MeterClock, Reading, Zone
from exporter.pipeline.clock_reading import Offsets, Rule, local_ms, read_clock_ms, to_us

__all__ = ["INSTANTANEOUS", "Arrival", "SentClock", "arrival_of"]

INSTANTANEOUS: Final = 7
"""OBIS group D of an instantaneous value."""


class SentClock:
    """The offsets of a meter's clock that needs a look at the calendar."""

    __slots__ = ("_clock", "_habit", "_zone")

    def __init__(self, clock: MeterClock, habit: ClockHabit, zone: Zone) -> None:
        self._clock, self._habit, self._zone = clock, habit, zone

    def utc(self, rule: Rule, near: int | None) -> int | None:
        """The clock in UTC by a rule, ms; `near` (ms) decides in the hour that the civil clock shows twice."""
        return read_clock_ms(self._clock, rule, self._habit, self._zone, near)


class Arrival:
    """A list: first as it arrived, then placed.

    `own` is the id that the list names, None if it names none. `received` is when its last byte came, microseconds
    since 1970 in UTC, or None. `shown` is the local time that the meter's clock shows, ms, None where the list has no
    usable one; `offsets` are what each rule takes off it to get UTC, where they are the same whatever is near.
    `registers` are the energy registers of a list that says itself when they were taken, else empty. `instantaneous`
    says that the list has instantaneous values. `content` is what the caller makes points of.

    Placing sets `time` (ms; None where nothing gives a time) and, when the meter is known, `meter_id`, `register_time`,
    `is_hour` and `clock_offset` as in model.Placed.
    """

    __slots__ = (
        "clock_offset",
        "content",
        "instantaneous",
        "is_hour",
        "meter_id",
        "offsets",
        "own",
        "received",
        "register_time",
        "registers",
        "shown",
        "time",
    )

    time: int | None
    meter_id: str
    register_time: int | None

    def __init__(
        self,
        own: str | None,
        received: int | None,
        shown: int | None,
        offsets: Offsets | SentClock | None,
        registers: tuple[float, ...],
        instantaneous: bool,
        content: object,
    ) -> None:
        self.own = own
        self.received = received
        self.shown = shown
        self.offsets = offsets
        self.registers = registers
        self.instantaneous = instantaneous
        self.content = content
        self.is_hour = False
        self.clock_offset: float | None = None

    def utc(self, rule: Rule, near: int | None) -> int | None:
        """The meter's clock in UTC by a rule, ms, None without one; `near` (ms) decides where the hour comes twice."""
        shown, offsets = self.shown, self.offsets
        if shown is None or offsets is None:
            return None
        return offsets.utc(rule, near) if isinstance(offsets, SentClock) else shown - offsets[rule]

    @property
    def received_ms(self) -> int | None:
        """`received` in whole milliseconds."""
        return None if self.received is None else self.received // 1000

    def __repr__(self) -> str:
        return f"Arrival({self.own!r}, {self.received!r}, {self.content!r})"


def arrival_of(reading: Reading, zone: Zone, received: datetime | None = None) -> Arrival:
    """A reading as an arrival; `received` instead of the reading's own where it is given."""
    moment = received or reading.received
    shown = offsets = None
    if reading.meter_clock is not None:
        shown = local_ms(reading.meter_clock)
        offsets = SentClock(reading.meter_clock, reading.habit, zone)
    registers: tuple[float, ...] = ()
    instantaneous = False
    for measurement in reading.measurements:
        instantaneous = instantaneous or measurement.obis.d == INSTANTANEOUS
    if reading.list_clock and shown is not None:
        registers = tuple(
            [m.value for m in reading.measurements if (quantity := describe(m.obis)) and quantity.is_register]
        )
    received_us = None if moment is None else to_us(moment)
    return Arrival(reading.meter.id, received_us, shown, offsets, registers, instantaneous, reading)
