"""What `watch` knows of the meters of a source. Pure: it is given every reading, and reads no clock.

There are two kinds of time here. `time` is that of the readings, in milliseconds since 1970 in UTC. `at` and `now` are
seconds of the caller's monotonic clock: they say how long ago something was received, also when a capture is played.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from typing import Final

from exporter.model.calendar import HOUR_MS
from exporter.model.obis import PHASES, describe
from exporter.model.reading import Measurement, Placed
from exporter.pipeline import HourSoFar
from exporter.pipeline.link import NO_BYTES, Condition, Link

__all__ = ["HISTORY_MS", "LiveState", "MeterState", "PhaseValues"]

HISTORY_MS: Final = 10 * 60_000
_IMPORT: Final = ("active_power", "", "import")
_EXPORT: Final = ("active_power", "", "export")
_METERS: Final = 8
"""How many meters are kept, so that memory stays bounded if every list has another id."""


@dataclass(frozen=True, slots=True)
class PhaseValues:
    """What a meter measures of one phase: A, V, W (import minus export). None: it does not measure this."""

    phase: str
    current: float | None
    voltage: float | None
    power: float | None


@dataclass(slots=True)
class MeterState:
    """One meter: the latest of each value, and its power in the last minutes.

    `named` is False while `id` is a placeholder. `last_time` is the time of the last reading, `last_at` its arrival.
    `history` holds (time, W), export negative. `clock_offset` is in seconds.
    """

    id: str
    named: bool
    maker: str | None = None
    type: str | None = None
    last_time: int | None = None
    last_at: float = 0.0
    last: Placed | None = None
    clock_offset: float | None = None
    imported: HourSoFar = field(default_factory=HourSoFar)
    exported: HourSoFar = field(default_factory=HourSoFar)
    history: deque[tuple[int, float]] = field(default_factory=deque)
    _values: dict[tuple[str, str, str], float] = field(default_factory=dict)

    def take(self, placed: Placed, at: float) -> None:
        """Add the next reading of the meter."""
        meter = placed.reading.meter
        self.maker = meter.maker or self.maker
        self.type = meter.type or self.type
        self.last, self.last_at = placed, at
        if placed.clock_offset is not None:
            self.clock_offset = placed.clock_offset
        registers = self._take_values(placed.reading.measurements)
        if placed.time is not None:
            self.last_time = placed.time
            self._take_hour(placed.time, placed.register_time, registers)
            self._remember(placed.time)

    def value(self, name: str, direction: str = "", phase: str = "") -> float | None:
        """The last value of a quantity of the catalogue (obis.py); None if the meter has not sent one."""
        return self._values.get((name, phase, direction))

    def net(self, name: str, phase: str = "") -> float | None:
        """Import minus export of a power; None if neither was sent."""
        imported, exported = self.value(name, "import", phase), self.value(name, "export", phase)
        if imported is None and exported is None:
            return None
        return (imported or 0.0) - (exported or 0.0)

    @property
    def phases(self) -> list[PhaseValues]:
        """The phases of which this meter measures something."""
        every = (
            PhaseValues(
                phase,
                self.value("current", phase=phase),
                self.value("voltage", phase=phase),
                self.net("active_power", phase),
            )
            for phase in PHASES
        )
        # Some single-phase meters send the powers of all three phases, as zeros.
        return [p for p in every if p.current is not None or p.voltage is not None or p.power]

    def _take_values(self, measurements: tuple[Measurement, ...]) -> dict[str, float]:
        """Keep the instantaneous values; return the active energy registers by direction."""
        registers: dict[str, float] = {}
        values = {}
        for measurement in measurements:
            quantity = describe(measurement.obis)
            if quantity is None:
                continue
            if not quantity.is_register:
                values[quantity.name, quantity.phase, quantity.direction] = measurement.value
            elif quantity.name == "active_energy" and not quantity.phase and measurement.obis.e == 0:
                registers[quantity.direction] = measurement.value
        if values.get(_IMPORT) and _EXPORT in self._values:
            # The fast lists have only import. While there is import there is no export, so an earlier export is over.
            values.setdefault(_EXPORT, 0.0)
        self._values |= values
        return registers

    def _take_hour(self, time: int, register_time: int | None, registers: dict[str, float]) -> None:
        for hour, direction in ((self.imported, "import"), (self.exported, "export")):
            hour.take(time, self.value("active_power", direction))
            if direction in registers and register_time is not None:
                hour.take_register(register_time, registers[direction])

    def _remember(self, time: int) -> None:
        power = self.net("active_power")
        if power is None:
            return
        if self.history and time < self.history[-1][0]:
            self.history.clear()  # the clock was set back, or another capture was appended to the file
        self.history.append((time, power))
        while self.history[0][0] < time - HISTORY_MS - HOUR_MS // 60:
            self.history.popleft()


@dataclass(slots=True)
class LiveState:
    """What the view shows: the source, its meters, and a note that stays below them."""

    link: Link
    note: str = ""
    meters: OrderedDict[str, MeterState] = field(default_factory=OrderedDict)
    _recalled: bool = False

    def take(self, placed: Placed, at: float, recalled: bool = False) -> MeterState:
        """Add the next reading; return its meter, which is now the newest.

        `recalled` readings were sent before `watch` was listening.
        """
        meter = self.meters.pop(placed.meter_id, None) or self._new_meter(placed)
        meter.named = meter.named or placed.reading.meter.id is not None
        meter.take(placed, at)
        self.meters[placed.meter_id] = meter
        while len(self.meters) > _METERS:
            self.meters.popitem(last=False)
        self._recalled = self._recalled or recalled
        return meter

    def _new_meter(self, placed: Placed) -> MeterState:
        """A new meter. It gets the readings of earlier lists without an id."""
        named = placed.reading.meter.id is not None
        placeholder = next((meter for meter in self.meters.values() if not meter.named), None)
        if not named or placeholder is None:
            return MeterState(placed.meter_id, named)
        del self.meters[placeholder.id]
        placeholder.id = placed.meter_id
        return placeholder

    @property
    def newest(self) -> MeterState | None:
        """The meter with the newest reading."""
        return next(reversed(self.meters.values()), None)

    def condition(self, now: float) -> Condition:
        """How the source is at this moment."""
        condition = self.link.condition(now)
        if self._recalled and condition.kind == NO_BYTES:
            return replace(condition, message="these values were sent earlier; waiting for the next list")
        return condition
