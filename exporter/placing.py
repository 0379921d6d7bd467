"""Readings -> their meter and their time: design.md, "One source carries one meter" and "Time of a point".

Pure but for the clock that is handed in, so that a file always gives the same points. Times are whole milliseconds
since 1970 in UTC, the precision of the schema.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from exporter.meters import OSLO, to_utc
from exporter.meters.clock import local_time
from exporter.protocol.obis import describe
from exporter.reading import Reading, Zone

log = logging.getLogger(__name__)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_MS: Final = 3_600_000
NAMELESS_WAIT_MS: Final = 60_000
_CLOCK_TOLERANCE_MS: Final = 5 * 60_000
_MOST_RULES_DIFFER: Final = 2
"""Hours between civil summer time and UTC; a clock that is further off is wrong under every rule."""
_FIRST_CLOCK: Final = datetime(2015, 1, 1, tzinfo=UTC)
_ALTERNATING_MS: Final = 10 * 60_000
_REMEMBERED_TIMES: Final = 4096


def to_ms(moment: datetime) -> int:
    """UTC -> whole milliseconds since 1970, rounded down."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def from_ms(ms: int) -> datetime:
    """Milliseconds since 1970 -> UTC."""
    return EPOCH + timedelta(milliseconds=ms)


@dataclass(frozen=True, slots=True)
class Placed:
    """A reading with its meter and its time.

    `time` is what instantaneous values carry, `register_time` what energy registers carry: the full hour that they
    were taken at, or `time`. Both None where nothing told the time (a capture without time stamps, a list without a
    clock). `clock_offset` is the meter's clock less `received` in seconds, None without either.
    """

    reading: Reading
    meter_id: str
    time: int | None
    register_time: int | None
    clock_offset: float | None = None


class Placer:
    """Names and times of one source's readings, in the order in which they came.

    `source` names the source in the id of last resort, `fallback` is HAN_METER_ID. `state` is what `new_state` gave
    before a restart. `now` is asked only whether a clock lies in the future.
    """

    def __init__(
        self,
        source: str,
        *,
        zone: Zone = OSLO,
        fallback: str | None = None,
        state: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._names = _Names(source, fallback or f"unknown-{source}", (state or {}).get(f"last_id:{source}"))
        self._times = _Times(zone, now)
        self._hours = _Hours(state or {})

    @property
    def left_out(self) -> int:
        """Nameless readings that were left out because two meters speak on this source."""
        return self._names.left_out

    def place(self, reading: Reading) -> list[Placed]:
        """Take the next reading; give out what can be placed now, oldest first: none, it, or those that waited too."""
        timed = self._times.of(reading)
        expired = self._names.expired(timed.time)
        return [self._placed(*named) for named in expired + self._names.of(timed)]

    @property
    def waiting(self) -> int:
        """Readings that name no meter and wait for one that does; whoever owns the Placer ends it after 60 s."""
        return len(self._names.waiting)

    def give_up(self) -> list[Placed]:
        """Name whatever still waits by HAN_METER_ID, else `unknown-<source>`: 60 s are over, or the source ended."""
        return [self._placed(*named) for named in self._names.give_up()]

    def new_state(self) -> dict[str, str]:
        """What has to outlive a restart and changed since this was last asked: key -> text."""
        return self._names.new_state() | self._hours.new_state()

    def _placed(self, timed: _Timed, meter_id: str) -> Placed:
        register_time = self._hours.of(timed, meter_id)
        return Placed(timed.reading, meter_id, timed.time, register_time, timed.clock_offset)


@dataclass(frozen=True, slots=True)
class _Timed:
    reading: Reading
    time: int | None
    clock: int | None
    received: int | None

    @property
    def clock_offset(self) -> float | None:
        if self.clock is None or self.received is None:
            return None
        return (self.clock - self.received) / 1000


class _Times:
    """`received`, or in a capture without time stamps the clock; no two of a source alike."""

    def __init__(self, zone: Zone, now: Callable[[], datetime]) -> None:
        self._zone = zone
        self._now = now
        self._last: datetime | None = None
        self._used: OrderedDict[int, None] = OrderedDict()

    def of(self, reading: Reading) -> _Timed:
        near = reading.received or self._last
        clock = None
        if reading.meter_clock is not None:
            clock = to_utc(reading.meter_clock, reading.habit, self._zone, near)
        moment = reading.received or self._believable(clock)
        if moment is not None:
            self._last = moment
        return _Timed(
            reading,
            None if moment is None else self._free(to_ms(moment)),
            None if clock is None else to_ms(clock),
            None if reading.received is None else to_ms(reading.received),
        )

    def _believable(self, clock: datetime | None) -> datetime | None:
        if clock is None or not _FIRST_CLOCK <= clock <= self._now() + timedelta(days=1):
            return None
        return clock

    def _free(self, ms: int) -> int:
        while ms in self._used:
            ms += 1
        self._used[ms] = None
        if len(self._used) > _REMEMBERED_TIMES:
            self._used.popitem(last=False)
        return ms


class _Names:
    """Which meter a list is from when it does not say: the last id heard on the source."""

    def __init__(self, source: str, fallback: str, last: str | None) -> None:
        self._source = source
        self._fallback = fallback
        self._last = last
        self._heard: dict[str, int] = {}  # id -> when it was last heard, or 0 where no time is known
        self._alternating_until: int | None = None
        self.waiting: list[_Timed] = []
        self._gave_up = False
        self._kept = last
        self.left_out = 0

    def of(self, timed: _Timed) -> list[tuple[_Timed, str]]:
        own = timed.reading.meter.id
        if own is not None:
            return self._named(timed, own)
        if self._last is not None:
            if self._two_meters(timed.time or 0):
                self.left_out += 1
                return []
            return [(timed, self._last)]
        if self._gave_up:
            return [(timed, self._fallback)]
        self.waiting.append(timed)
        return []

    def _named(self, timed: _Timed, own: str) -> list[tuple[_Timed, str]]:
        at = timed.time or 0
        if self._last not in (None, own) and own in self._heard:
            if self._alternating_until is None:
                log.warning(
                    "two meters, %s and %s, speak on %s: lists that name no meter are left out until one is alone",
                    self._last,
                    own,
                    self._source,
                )
            self._alternating_until = at + _ALTERNATING_MS
        self._last = own
        self._heard[own] = at
        if len(self._heard) > 16:  # a stream of ever new ids is no reason to grow
            del self._heard[min(self._heard, key=lambda meter_id: self._heard[meter_id])]
        waiting, self.waiting = self.waiting, []
        return [(waited, own) for waited in waiting] + [(timed, own)]

    def _two_meters(self, at: int) -> bool:
        if self._alternating_until is None:
            return False
        if at <= self._alternating_until:
            return True
        self._alternating_until = None
        self._heard = {self._last: at} if self._last else {}
        return False

    def expired(self, now: int | None) -> list[tuple[_Timed, str]]:
        first = next((timed.time for timed in self.waiting if timed.time is not None), None)
        if first is None or now is None or now < first + NAMELESS_WAIT_MS:
            return []
        return self.give_up()

    def give_up(self) -> list[tuple[_Timed, str]]:
        waiting, self.waiting = self.waiting, []
        if waiting:
            self._gave_up = True
        return [(timed, self._fallback) for timed in waiting]

    def new_state(self) -> dict[str, str]:
        if self._last is None or self._last == self._kept:
            return {}
        self._kept = self._last
        return {f"last_id:{self._source}": self._last}


class _Hours:
    """Which register is an hour's: the first whose list's own clock reads xx:00:00 to xx:00:59."""

    def __init__(self, state: Mapping[str, str]) -> None:
        self._kept: dict[str, _HourList] = {}
        for key, text in state.items():
            if key.startswith("hour:"):
                clock, registers, time, hour = json.loads(text)
                self._kept[key.removeprefix("hour:")] = _HourList(clock, tuple(registers), time, hour)
        self._changed: set[str] = set()

    def of(self, timed: _Timed, meter_id: str) -> int | None:
        reading = timed.reading
        if not reading.list_clock or timed.clock is None or reading.meter_clock is None:
            return timed.time
        registers = tuple(m.value for m in reading.measurements if (q := describe(m.obis)) and q.is_register)
        local = local_time(reading.meter_clock)
        if not registers or local is None or local.minute != 0:
            return timed.time
        before = self._kept.get(meter_id)
        if before is not None and before.clock == local.isoformat() and before.registers == registers:
            return before.time
        hour = self._hour_of(timed, meter_id)
        if hour is None or (before is not None and before.hour == hour):
            time, started = timed.time, None if before is None else before.hour
        else:
            time = started = hour
        if time is not None:
            self._kept[meter_id] = _HourList(local.isoformat(), registers, time, started)
            self._changed.add(meter_id)
        return time

    @staticmethod
    def _hour_of(timed: _Timed, meter_id: str) -> int | None:
        """The full hour that the registers were taken at; None when it cannot be told."""
        clock, received = timed.clock, timed.received
        if clock is None or timed.time is None:
            return None
        if received is None or abs(clock - received) <= _CLOCK_TOLERANCE_MS:
            return clock - clock % HOUR_MS
        off = clock - received
        hours = round(off / HOUR_MS)
        if abs(hours) <= _MOST_RULES_DIFFER and abs(off - hours * HOUR_MS) <= _CLOCK_TOLERANCE_MS:
            return None  # ruled differently than we think, or the list of the hour before again
        nearest = (received + HOUR_MS // 2) // HOUR_MS * HOUR_MS
        if abs(received - nearest) > _CLOCK_TOLERANCE_MS:
            return None
        log.warning(
            "the clock of meter %s is wrong by %+.0f s; its registers are taken for those of %s",
            meter_id,
            off / 1000,
            from_ms(nearest).strftime("%Y-%m-%d %H:%M UTC"),
        )
        return nearest

    def new_state(self) -> dict[str, str]:
        changed, self._changed = self._changed, set()
        return {f"hour:{meter_id}": self._kept[meter_id].text() for meter_id in changed}


@dataclass(frozen=True, slots=True)
class _HourList:
    """The hourly list before: what its clock read, its registers, the time they were given, the last hour begun."""

    clock: str
    registers: tuple[float, ...]
    time: int
    hour: int | None

    def text(self) -> str:
        return json.dumps([self.clock, self.registers, self.time, self.hour])
