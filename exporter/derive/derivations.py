"""Placed readings -> the points that are derived from them, and the state that this needs.

Derivations is the list of all of them: one for each stream of `run`, one for a file of `import`. Each derivation takes
a list's values, gives points of now if there are any, keeps what must outlive a restart, and can forget a meter.
The calculations themselves are in the modules beside this one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from exporter.derive import points
from exporter.derive.capacity import capacity, with_running
from exporter.derive.hours import Get, HourBook
from exporter.derive.limits import exporter_thresholds, thresholds
from exporter.derive.running_hour import HourSoFar, projected
from exporter.derive.sums import day_sums, month_sums
from exporter.derive.values import Values
from exporter.limiter import OnceAMinute
from exporter.model.calendar import HOUR_MS, day_start, month_start, next_day, next_month
from exporter.model.obis import DIRECTIONS

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.model.reading import Zone

__all__ = ["LIMITS_EVERY_MS", "Derivations", "Finals", "backlog_threshold_lines", "last_heard", "limit_lines"]

log = logging.getLogger(__name__)

LIMITS_EVERY_MS: Final = 5 * 60_000
"""So often are the limits written again."""
_SILENT_S: Final = 5 * 60.0
"""After so long without a reading there are no points of the running hour."""
_RUNNING: Final = "running:"
_FUSES: Final = 10_000
_MONTHS: Final = 64
"""Months whose final hours are remembered, so that the running hour does not ask for them every ten seconds."""

Finals = Callable[[str, str, int, int], Mapping[int, float]]
"""Final hours that are known elsewhere: meter id, direction, start and end in ms -> start of the hour -> Wh."""


class Derivations:
    """Everything that is derived from one stream's readings, in their order.

    `get` finds a key of the state, `others` final hours that are stored elsewhere. `imported` says that the readings
    are a file's: then nothing speaks of now. `monotonic` (s) says how long ago the last reading was, so that the
    running hour goes on by the meter's own time.
    """

    def __init__(
        self,
        settings: Settings,
        get: Get,
        *,
        others: Finals | None = None,
        imported: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._fuses: dict[str, float] = {}
        self._meters = _Meters(settings, monotonic)
        self._hours = _FinalHours(settings, get, others, self.fuse, imported=imported)
        # What a capture holds is not the running hour.
        self._running = None if imported else _RunningHours(get, self._hours, settings.zone)

    def of(self, one: Values) -> list[str]:
        """The lines that are derived from one list's values, and those of the hours that are final by it."""
        lines = points.phase_lines(one.layout.phases, one.values, one.meter_id, self.fuse(one.meter_id), one.time)
        if one.clock_offset is not None:
            lines.append(points.clock_offset_line(one.meter_id, one.clock_offset, one.time))
        return lines + self.beside_figures(one)

    def beside_figures(self, one: Values) -> list[str]:
        """As `of`, without the figures of the phases and of the clock: for a caller that wrote these already."""
        lines = self._meters.of(one)
        if self._running is not None:
            self._running.take(one)
        return lines + self._hours.of(one) if one.is_hour else lines

    def sums(self) -> list[str]:
        """The lines of every day and month that has new final hours, computed again from all of them."""
        return self._hours.sums()

    def now(self, now_ms: int) -> list[str]:
        """The lines that speak of now: the running hour of each meter, and every five minutes its limits."""
        lines: list[str] = []
        for meter_id, (silent_s, last_ms) in self._meters.heard().items():
            if self._running is not None and silent_s < _SILENT_S:
                lines += self._running.lines(meter_id, last_ms + int(silent_s * 1000))
            if self._meters.limits_are_due(meter_id, now_ms):
                self._hours.read_again()  # an import beside this service may have brought hours
                lines += limit_lines(self._settings, meter_id, now_ms)
        return lines

    def fuse(self, meter_id: str) -> float:
        """A meter's main fuse, A."""
        fuse = self._fuses.get(meter_id)
        if fuse is None:
            if len(self._fuses) >= _FUSES:
                self._fuses.clear()
            fuse = self._fuses[meter_id] = self._settings.limits(meter_id).main_fuse_a
        return fuse

    def forget(self, meter_id: str) -> None:
        """Remove what is known of a meter."""
        self._meters.forget(meter_id)
        self._hours.forget(meter_id)
        if self._running is not None:
            self._running.forget(meter_id)

    def new_state(self) -> dict[str, str]:
        """What must outlive a restart and changed: key -> text. Hours come again until `kept` is called."""
        running = {} if self._running is None else self._running.new_state()
        return running | self._hours.new_state()

    def kept(self) -> None:
        """What `new_state` gave is stored."""
        self._hours.kept()


class _Meters:
    """Which meters are heard: a point for each local day, a message for a new meter, when limits are due."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float]) -> None:
        self._zone, self._timezone = settings.zone, settings.timezone
        self._monotonic = monotonic
        self._days: dict[str, tuple[int, int]] = {}  # the local day that a meter was last heard on
        self._heard: dict[str, tuple[float, int]] = {}  # monotonic, and by the meter's own time, ms
        self._limits: dict[str, int] = {}
        self._newest = ""
        self._new = OnceAMinute(monotonic)

    def of(self, one: Values) -> list[str]:
        """At the first reading of a local day that the meter is there; the same again after a restart."""
        meter_id, ms = one.meter_id, one.time
        if meter_id not in self._heard:
            self._say_new(meter_id)
        self._heard[meter_id] = self._monotonic(), ms
        start, end = self._days.get(meter_id, (0, 0))
        if start <= ms < end:
            return []
        start, end = self._days[meter_id] = day_start(ms, self._zone), next_day(ms, self._zone)
        return [points.meter_line(meter_id, self._timezone, start)]

    def _say_new(self, meter_id: str) -> None:
        """Say that a meter took another's place. No hour is calculated between two meters' registers."""
        if self._newest and self._new.due():
            log.warning(
                "meter %s is new on this source, after %s: its registers are written as sent, and its hours start new",
                meter_id,
                self._newest,
            )
        self._newest = meter_id

    def heard(self) -> dict[str, tuple[float, int]]:
        """Meter id -> seconds since its last reading, and the time of that reading, ms."""
        now = self._monotonic()
        return {meter_id: (now - at, ms) for meter_id, (at, ms) in self._heard.items()}

    def limits_are_due(self, meter_id: str, now_ms: int) -> bool:
        """Whether a meter's limits are to be written: at its first reading and every five minutes."""
        written = self._limits.get(meter_id)  # later than now when this computer's clock was set back
        if written is not None and 0 <= now_ms - written < LIMITS_EVERY_MS:
            return False
        self._limits[meter_id] = now_ms
        return True

    def forget(self, meter_id: str) -> None:
        for known in (self._days, self._heard, self._limits):
            known.pop(meter_id, None)
        if self._newest == meter_id:
            self._newest = ""


class _FinalHours:
    """Final hours by their registers, and the sums and peaks of their days and months."""

    def __init__(
        self,
        settings: Settings,
        get: Get,
        others: Finals | None,
        fuse: Callable[[str], float],
        *,
        imported: bool,
    ) -> None:
        self._zone: Zone = settings.zone
        self._steps_w = settings.capacity_steps_w
        self._book = HourBook(get, imported=imported)
        self._others = others
        self._fuse = fuse
        self._touched: set[tuple[str, str, int]] = set()
        self._months: dict[tuple[str, str, int], dict[int, float]] = {}

    def of(self, one: Values) -> list[str]:
        """The hours that are final by the registers of a full hour."""
        lines = []
        meter_id, fuse = one.meter_id, self._fuse(one.meter_id)
        for direction, place in one.layout.registers.items():
            for start, wh in self._book.enter(meter_id, direction, one.register_time, one.values[place], fuse).items():
                lines.append(points.final_hour_line(meter_id, direction, wh, start, self._zone))
                self._touched.add((meter_id, direction, month_start(start, self._zone)))
        return lines

    def sums(self) -> list[str]:
        """Sums of days and months, and for import the peaks, of each month with new hours since this was called."""
        touched, self._touched = sorted(self._touched), set()
        lines: list[str] = []
        for meter_id, direction, month in touched:
            self._months.pop((meter_id, direction, month), None)
            finals = self.month(meter_id, direction, month)
            for day, total in day_sums(finals, self._zone).items():
                lines.append(points.day_energy_line(meter_id, direction, total, day))
            for start, total in month_sums(finals, self._zone).items():
                lines.append(points.month_energy_line(meter_id, direction, total, start))
            found = capacity(finals, month, self._zone) if direction == "import" else None
            if found is not None:
                lines += points.capacity_lines(meter_id, found, self._steps_w)
        return lines

    def month(self, meter_id: str, direction: str, month: int) -> dict[int, float]:
        """The final hours of a local month, as they were when it last changed."""
        key = meter_id, direction, month
        if key not in self._months:
            end = next_month(month, self._zone)
            known = {} if self._others is None else dict(self._others(meter_id, direction, month, end))
            if len(self._months) >= _MONTHS:
                self._months.clear()
            self._months[key] = known | self._book.finals(meter_id, direction, month, end, self._fuse(meter_id))
        return self._months[key]

    def read_again(self) -> None:
        """Read the hours of every month again when it is next asked for."""
        self._months.clear()

    def forget(self, meter_id: str) -> None:
        self._book.forget(meter_id)
        self._touched = {one for one in self._touched if one[0] != meter_id}
        self._months.clear()

    def new_state(self) -> dict[str, str]:
        return self._book.new_state()

    def kept(self) -> None:
        self._book.kept()


class _RunningHours:
    """The energy of the running hour, by meter and direction."""

    def __init__(self, get: Get, hours: _FinalHours, zone: Zone) -> None:
        self._get = get
        self._hours = hours
        self._zone = zone
        self._running: dict[tuple[str, str], HourSoFar] = {}
        self._changed: set[tuple[str, str]] = set()

    def take(self, one: Values) -> None:
        for direction in DIRECTIONS:
            power, register = one.power(direction), one.register(direction)
            if power is None and register is None:
                continue
            key = one.meter_id, direction
            hour = self._running.get(key)
            if hour is None:
                text = self._get(f"{_RUNNING}{direction}:{one.meter_id}")
                hour = self._running[key] = HourSoFar() if text is None else HourSoFar.parse(text)
            hour.take(one.time, power)
            if register is not None:
                hour.take_register(one.register_time, register)
            self._changed.add(key)

    def lines(self, meter_id: str, now: int) -> Iterator[str]:
        """A meter's running hour at `now`, ms by the meter's own time."""
        for direction in DIRECTIONS:
            hour = self._running.get((meter_id, direction))
            known = None if hour is None else hour.until(now)
            if known is not None:
                yield from self._lines(meter_id, direction, now, known)

    def _lines(self, meter_id: str, direction: str, now: int, known: tuple[float, int, float]) -> Iterator[str]:
        so_far, unknown, power = known
        yield points.running_hour_line(meter_id, direction, "so_far", so_far, now)
        start = now - now % HOUR_MS
        expected = projected(so_far, power, start + HOUR_MS - now, unknown)
        if expected is None:
            return
        yield points.running_hour_line(meter_id, direction, "projected", expected, now)
        if direction == "import":
            finals = self._hours.month(meter_id, direction, month_start(start, self._zone))
            yield points.projected_capacity_line(meter_id, with_running(finals, start, expected, self._zone), now)

    def forget(self, meter_id: str) -> None:
        self._running = {key: hour for key, hour in self._running.items() if key[0] != meter_id}
        self._changed &= self._running.keys()

    def new_state(self) -> dict[str, str]:
        changed, self._changed = self._changed, set()
        return {
            f"{_RUNNING}{direction}:{meter_id}": self._running[meter_id, direction].text()
            for meter_id, direction in changed
        }


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
            log.warning("the state under %s in the outbox is not understood (written by another version?)", key)
    return heard


def limit_lines(settings: Settings, meter_id: str, now_ms: int) -> Iterator[str]:
    """A meter's limits."""
    for threshold in thresholds(settings.limits(meter_id)):
        yield points.threshold_line(threshold, now_ms, meter_id)


def backlog_threshold_lines(settings: Settings, now_ms: int) -> Iterator[str]:
    """The exporter's own limit, which belongs to no meter."""
    for threshold in exporter_thresholds(settings.limit_backlog_s):
        yield points.threshold_line(threshold, now_ms)
