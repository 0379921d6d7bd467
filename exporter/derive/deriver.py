"""Placed readings -> the lines that are derived from them, and the state they are derived from.

The figures themselves are in derived.py, the hours in hour_book.py and hour_so_far.py; here they are brought together:
one Deriver for each source of `run`, one for a file of `import`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from exporter.derive import points
from exporter.derive.derived import (
    Phases,
    capacity,
    day_sums,
    exporter_thresholds,
    month_sums,
    projected,
    thresholds,
    with_running,
)
from exporter.derive.hour_book import HourBook
from exporter.derive.running_hour import HourSoFar
from exporter.model.calendar import HOUR_MS, day_start, month_start, next_day, next_month
from exporter.model.obis import describe
from exporter.model.reading import Placed

if TYPE_CHECKING:
    from exporter.config import Settings

log = logging.getLogger(__name__)

_DIRECTIONS: Final = ("import", "export")
_THRESHOLDS_EVERY_MS: Final = 5 * 60_000
_SILENT_S: Final = 5 * 60.0
"""After so long without a reading nothing is said of the running hour."""
_RUNNING: Final = "running:"
_DAYS_END_MS: Final = 10_000
_FUSES: Final = 10_000
_MONTHS: Final = 64
"""Months whose final hours are remembered, so that the running hour does not ask for them every ten seconds."""

Finals = Callable[[str, str, int, int], Mapping[int, float]]
"""Final hours that are known elsewhere: meter id, direction, start and end in ms -> start of the hour -> Wh."""


class Deriver:
    """Derives from one source's readings, in their order. `get` finds a key of the state, `others` hours of elsewhere.

    `imported` tells that the readings are a file's. `monotonic` (s) tells how long ago the last reading was, so that
    the running hour goes on by the meter's own time.
    """

    def __init__(
        self,
        settings: Settings,
        get: Callable[[str], str | None],
        *,
        others: Finals | None = None,
        imported: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._zone = settings.zone
        self._get = get
        self._others = others
        self._monotonic = monotonic
        self._book = HourBook(get, imported=imported)
        self._touched: set[tuple[str, str, int]] = set()
        self._running: dict[tuple[str, str], HourSoFar] = {}
        self._heard: dict[str, float] = {}  # monotonic
        self._last: dict[str, int] = {}  # the same by the meter's own time, ms
        self._running_changed: set[tuple[str, str]] = set()
        self._told: dict[str, int] = {}
        self._days: dict[str, tuple[int, int]] = {}  # the local day that a meter was last heard on
        self._months: dict[tuple[str, str, int], dict[int, float]] = {}
        self._imported = imported
        self._fuses: dict[str, float] = {}

    # --- from a reading ---------------------------------------------------------------------------------------------

    def of(self, placed: Placed) -> Iterator[str]:
        """The lines of one reading's figures, and of the hours that are final by it."""
        if placed.time is None:
            return
        yield from self._day(placed.meter_id, placed.time)
        yield from points.clock_offset_lines(placed)
        yield from points.figure_lines(placed, self.fuse(placed.meter_id))
        powers, registers = _totals(placed)
        self._say_new(placed.meter_id)
        self._heard[placed.meter_id], self._last[placed.meter_id] = self._monotonic(), placed.time
        for direction in _DIRECTIONS:
            if not self._imported:  # what a capture holds is not the running hour
                self._run_on(placed, direction, powers.get(direction), registers.get(direction))
            if placed.is_hour and direction in registers and placed.register_time is not None:
                yield from self._hours(placed.meter_id, direction, placed.register_time, registers[direction])

    def knows(self, meter_id: str, ms: int) -> bool:
        """Whether of a list of a capture that tells no hour's registers `of` would say no more than `of_values` does.

        It is so within a local day that the meter was heard on before, but for its last seconds: `ms` may still become
        another one.
        """
        start, end = self._days.get(meter_id, (0, 0))
        return self._imported and start <= ms < end - _DAYS_END_MS

    def of_values(
        self, phases: Phases, values: Sequence[float], meter_id: str, ms: int, offset: float | None
    ) -> list[str]:
        """The lines of the figures of a list's values; `offset` is its clock's, s."""
        lines = points.phase_lines(phases, values, meter_id, self.fuse(meter_id), ms)
        return lines if offset is None else [points.clock_offset_line(meter_id, offset, ms), *lines]

    def fuse(self, meter_id: str) -> float:
        """A meter's main fuse, A."""
        fuse = self._fuses.get(meter_id)
        if fuse is None:
            if len(self._fuses) >= _FUSES:
                self._fuses.clear()
            fuse = self._fuses[meter_id] = self._settings.limits(meter_id).main_fuse_a
        return fuse

    def _day(self, meter_id: str, ms: int) -> Iterator[str]:
        """At the first reading of a local day that the meter is there; said again after a restart, and the same."""
        start, end = self._days.get(meter_id, (0, 0))
        if not start <= ms < end:
            start, end = self._days[meter_id] = day_start(ms, self._zone), next_day(ms, self._zone)
            yield points.meter_line(meter_id, self._settings.timezone, start)

    def _say_new(self, meter_id: str) -> None:
        """Say that a meter took another's place. Its hours are its own: none lies between two meters' registers."""
        if self._heard and meter_id not in self._heard:
            log.warning(
                "meter %s is new on this source, after %s: its registers are written as sent, and its hours begin anew",
                meter_id,
                ", ".join(sorted(self._heard)),
            )

    def _hours(self, meter_id: str, direction: str, hour: int, value: float) -> Iterator[str]:
        fuse = self.fuse(meter_id)
        for start, wh in self._book.enter(meter_id, direction, hour, value, fuse).items():
            yield points.final_hour_line(meter_id, direction, wh, start, self._zone)
            self._touched.add((meter_id, direction, month_start(start, self._zone)))

    def months(self) -> Iterator[str]:
        """The lines of every month that has new final hours, computed anew from all of them."""
        touched, self._touched = sorted(self._touched), set()
        for meter_id, direction, month in touched:
            self._months.pop((meter_id, direction, month), None)
            finals = self._finals(meter_id, direction, month)
            for day, total in day_sums(finals, self._zone).items():
                yield points.day_energy_line(meter_id, direction, total, day)
            for start, total in month_sums(finals, self._zone).items():
                yield points.month_energy_line(meter_id, direction, total, start)
            found = capacity(finals, month, self._zone) if direction == "import" else None
            if found is not None:
                yield from points.capacity_lines(meter_id, found, self._settings.capacity_steps_w)

    def _finals(self, meter_id: str, direction: str, month: int) -> dict[int, float]:
        """The final hours of a local month, as they were when it was last touched."""
        key = meter_id, direction, month
        if key not in self._months:
            fuse = self.fuse(meter_id)
            end = next_month(month, self._zone)
            known = {} if self._others is None else dict(self._others(meter_id, direction, month, end))
            if len(self._months) >= _MONTHS:
                self._months.clear()
            self._months[key] = known | self._book.finals(meter_id, direction, month, end, fuse)
        return self._months[key]

    # --- the running hour -------------------------------------------------------------------------------------------

    def _run_on(self, placed: Placed, direction: str, power: float | None, register: float | None) -> None:
        if placed.time is None or (power is None and register is None):
            return
        key = placed.meter_id, direction
        hour = self._running.get(key)
        if hour is None:
            text = self._get(f"{_RUNNING}{direction}:{placed.meter_id}")
            hour = self._running[key] = HourSoFar() if text is None else HourSoFar.parse(text)
        hour.take(placed.time, power)
        if register is not None and placed.register_time is not None:
            hour.take_register(placed.register_time, register)
        self._running_changed.add(key)

    def now(self, now_ms: int) -> Iterator[str]:
        """What speaks of now: the running hour of each meter, and every five minutes its limits."""
        for meter_id, heard in self._heard.items():
            silent_s = self._monotonic() - heard
            if silent_s < _SILENT_S:
                for direction in _DIRECTIONS:
                    yield from self._running_lines(meter_id, direction, self._last[meter_id] + int(silent_s * 1000))
            told = self._told.get(meter_id)  # later than now when this computer's clock was set back
            if told is None or not 0 <= now_ms - told < _THRESHOLDS_EVERY_MS:
                self._told[meter_id] = now_ms
                self._months.clear()  # an import beside this service may have brought hours
                yield from limit_lines(self._settings, meter_id, now_ms)

    def _running_lines(self, meter_id: str, direction: str, now: int) -> Iterator[str]:
        hour = self._running.get((meter_id, direction))
        if hour is None:
            return
        known = hour.until(now)
        if known is None:
            return
        so_far, unknown, power = known
        yield points.running_hour_line(meter_id, direction, "so_far", so_far, now)
        start = now - now % HOUR_MS
        expected = projected(so_far, power, start + HOUR_MS - now, unknown)
        if expected is None:
            return
        yield points.running_hour_line(meter_id, direction, "projected", expected, now)
        if direction == "import":
            finals = self._finals(meter_id, direction, month_start(start, self._zone))
            yield points.projected_capacity_line(meter_id, with_running(finals, start, expected, self._zone), now)

    def forget(self, meter_id: str) -> None:
        """Let go of what is remembered of a meter."""
        self._book.forget(meter_id)
        self._touched = {one for one in self._touched if one[0] != meter_id}
        self._running = {key: hour for key, hour in self._running.items() if key[0] != meter_id}
        self._running_changed &= self._running.keys()
        self._months.clear()
        for known in (self._heard, self._last, self._told, self._days):
            known.pop(meter_id, None)

    # --- state ------------------------------------------------------------------------------------------------------

    def new_state(self) -> dict[str, str]:
        """What has to outlive a restart and changed since this was last asked: key -> text."""
        changed, self._running_changed = self._running_changed, set()
        running = {
            f"{_RUNNING}{direction}:{meter}": self._running[meter, direction].text() for meter, direction in changed
        }
        return running | self.hours_state()

    def hours_state(self) -> dict[str, str]:
        """Of that, only the hour registers, which are true whoever heard them: what `import` may add to."""
        return self._book.new_state()

    def kept(self) -> None:
        """The hours' state was kept."""
        self._book.kept()


def last_heard(state: Mapping[str, str]) -> dict[str, int]:
    """Meter id -> when its last reading was (ms), by the running hours in the state."""
    heard: dict[str, int] = {}
    for key, text in state.items():
        if not key.startswith(_RUNNING):
            continue
        _, _, meter_id = key.removeprefix(_RUNNING).partition(":")
        try:
            heard[meter_id] = max(heard.get(meter_id, 0), HourSoFar.parse(text).time)
        except (ValueError, TypeError):
            log.warning("what the outbox remembers under %s is not understood (another version's?)", key)
    return heard


def limit_lines(settings: Settings, meter_id: str, now_ms: int) -> Iterator[str]:
    """A meter's limits."""
    for threshold in thresholds(settings.limits(meter_id)):
        yield points.threshold_line(threshold, now_ms, meter_id)


def backlog_threshold_lines(settings: Settings, now_ms: int) -> Iterator[str]:
    """The exporter's own limit, which belongs to no meter."""
    for threshold in exporter_thresholds(settings.limit_backlog_s):
        yield points.threshold_line(threshold, now_ms)


def _totals(placed: Placed) -> tuple[dict[str, float], dict[str, float]]:
    """Active power (W) and active energy register (Wh) of all phases, by direction."""
    powers: dict[str, float] = {}
    registers: dict[str, float] = {}
    for measurement in placed.reading.measurements:
        quantity = describe(measurement.obis)
        if quantity is None or quantity.phase or measurement.obis.e or measurement.unit != quantity.unit:
            continue
        if quantity.name == "active_power":
            powers[quantity.direction] = measurement.value
        elif quantity.name == "active_energy":
            registers[quantity.direction] = measurement.value
    return powers, registers
