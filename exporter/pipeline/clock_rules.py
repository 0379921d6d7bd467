"""By which rule a meter's clock is read, and which hour a register belongs to (design.md, "Time of a point").

Four rules: the maker's habit, civil time, standard time, UTC; at first the habit. A rule changes when two hourly lists
in a row, with different clocks, say so, and only to one that fits both.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

from exporter.meters.clock import by_habit, local_time, to_utc
from exporter.model.obis import describe
from exporter.model.reading import ClockHabit, MeterClock, Reading, Zone

log = logging.getLogger(__name__)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
_HOUR_MS: Final = 3_600_000
_MINUTE_MS: Final = 60_000
TOLERANCE: Final = timedelta(minutes=5)
_INSTANTANEOUS: Final = 7
_MOST_RULES_DIFFER: Final = 2
"""Hours between civil summer time and UTC; a clock that is further off is wrong under every rule."""


class Sends(Enum):
    """How often a meter sends registers; the value is what is kept over a restart."""

    UNKNOWN = ""
    HOURLY_SO_FAR = "hourly?"
    """Two lists with registers, far apart, and nothing between."""
    HOURLY = "hourly"
    """Lists without registers come too."""
    STEADILY = "steadily"


_HOURLY: Final = Sends.HOURLY


class Rule(Enum):
    """How a meter's clock is read; the value is what is kept over a restart."""

    HABIT = "habit"
    CIVIL = "civil"
    STANDARD = "standard"
    UTC = "utc"


_HABIT_OF: Final = {
    Rule.CIVIL: ClockHabit.CIVIL,
    Rule.STANDARD: ClockHabit.STANDARD,
    Rule.UTC: ClockHabit.UTC,
}
_WORDS: Final = {
    Rule.HABIT: "its maker's habit",
    Rule.CIVIL: "civil time, daylight saving included",
    Rule.STANDARD: "standard time all year",
    Rule.UTC: "UTC",
}


def read_clock(clock: MeterClock, rule: Rule, habit: ClockHabit, zone: Zone, near: datetime | None) -> datetime | None:
    """A meter's clock in UTC by a rule; None when it is no date. A deviation counts under the habit only."""
    if rule is Rule.HABIT:
        return to_utc(clock, habit, zone, near)
    local = local_time(clock)
    try:
        return None if local is None else by_habit(local, _HABIT_OF[rule], zone, near)
    except OverflowError:
        return None


_REMEMBERED: Final = 2
"""Hourly lists that are remembered: Aidon repeats the list before, also when the right one has just come."""
_STEADY: Final = timedelta(seconds=30)
"""A meter that sends registers so soon again sends them all the time (Sweden), not once an hour."""
_SURE_ROW: Final = 2
"""So many times in a row, where the meter was taken for one that sends them hourly: one extra list is no habit."""
_FIRST_SECONDS: Final = 10
"""Of registers that come every 10 s, the first of an hour comes before this second of it."""


@dataclass(frozen=True, slots=True)
class _HourList:
    """An hourly list before: what its clock read, its registers, the time they were given."""

    clock: str
    registers: tuple[float, ...]
    time_ms: int


@dataclass(frozen=True, slots=True)
class _MeterClock:
    """What is remembered of one meter: its newest hourly lists, newest first, and the hour that began last.

    `suspects` are the rules that fitted the list before, when ours did not; `sends` tells whether registers come all
    the time or once an hour.
    """

    rule: Rule = Rule.HABIT
    lists: tuple[_HourList, ...] = ()
    hour_ms: int | None = None
    suspects: tuple[Rule, ...] = ()
    sends: Sends = Sends.UNKNOWN

    def text(self) -> str:
        lists = [[one.clock, one.registers, one.time_ms] for one in self.lists]
        suspects = [rule.value for rule in self.suspects]
        return json.dumps([self.rule.value, lists, self.hour_ms, suspects, self.sends.value])

    @classmethod
    def parse(cls, text: str) -> _MeterClock:
        rule, lists, hour_ms, suspects, sends = json.loads(text)
        kept = tuple(_HourList(clock, tuple(registers), time_ms) for clock, registers, time_ms in lists)
        return cls(Rule(rule), kept, hour_ms, tuple(map(Rule, suspects)), Sends(sends))


def _parsed(key: str, text: str) -> _MeterClock:
    try:
        return _MeterClock.parse(text)
    except (ValueError, TypeError, IndexError, AttributeError):
        log.warning("what the outbox remembers under %s is not understood (another version's?): it is learnt anew", key)
        return _MeterClock()


class ClockRules:
    """The clocks of all meters of one source. `state` is what `new_state` gave before a restart."""

    _KEY: Final = "clock:"

    def __init__(self, zone: Zone, state: Mapping[str, str]) -> None:
        self._zone = zone
        self._meters: dict[str, _MeterClock] = {}
        for key, text in state.items():
            if key.startswith(self._KEY):
                self._meters[key.removeprefix(self._KEY)] = _parsed(key, text)
        self._changed: set[str] = set()
        self.shown: dict[str, int] = {}
        """What the list with registers before showed, by meter: local time in ms."""
        self._row: dict[str, int] = {}  # how many lists with registers came one soon after the other
        self._said: set[str] = set()
        self.settled: dict[str, Sends] = {}
        """Meters of which it is known for good how often they send registers."""

    def new_state(self) -> dict[str, str]:
        """What changed since this was last asked: key -> text."""
        changed, self._changed = self._changed, set()
        return {self._KEY + meter_id: self._meters[meter_id].text() for meter_id in changed}

    def forget(self, meter_id: str) -> None:
        """Learn this meter's clock anew."""
        for known in (self._meters, self.shown, self._row, self.settled):
            known.pop(meter_id, None)
        self._changed.discard(meter_id)
        self._said.discard(meter_id)

    def teaches_nothing(self, meter_id: str, shown: int | None) -> bool:
        """Whether a list teaches nothing but what it shows, and tells no hour.

        `shown` is the local time, ms, that the clock beside its registers shows; None where it has none of both.
        """
        sends = self.settled.get(meter_id)
        if shown is None:
            return sends is _HOURLY
        into_hour = shown % _HOUR_MS
        if into_hour >= _MINUTE_MS:
            return sends is not None
        return sends is Sends.STEADILY and into_hour >= _FIRST_SECONDS * 1000

    def rule(self, meter_id: str) -> Rule:
        """The rule in force for this meter."""
        return self._of(meter_id).rule

    def clock(self, reading: Reading, meter_id: str, near: datetime | None) -> datetime | None:
        """The reading's clock in UTC by the rule in force for this meter."""
        if reading.meter_clock is None:
            return None
        rule = self._of(meter_id).rule
        return read_clock(reading.meter_clock, rule, reading.habit, self._zone, near or reading.received)

    def is_repeat(self, reading: Reading, meter_id: str) -> bool:
        """Whether this is an hourly list that was heard before, with the same clock and registers: it teaches nothing.

        Of a clock that is right now it is none: in the hour that comes twice nothing need have been used.
        """
        local = None if reading.meter_clock is None else local_time(reading.meter_clock)
        again = local is not None and self.shown.get(meter_id) == local_ms(local) and bool(_registers(reading))
        return again or self._heard_before(reading, meter_id) is not None

    def _heard_before(self, reading: Reading, meter_id: str) -> _HourList | None:
        shown, registers = _shown(reading), _registers(reading)
        if not registers:
            return None
        for heard in self._of(meter_id).lists:
            if (heard.clock, heard.registers) == (shown, registers):
                clock, received = self.clock(reading, meter_id, reading.received), reading.received
                right = clock is not None and received is not None and abs(clock - received) <= TOLERANCE
                later = received is not None and abs(received - _moment(heard.time_ms)) > HOUR / 2
                return None if right and later else heard
        return None

    def is_unsure(self, reading: Reading, meter_id: str) -> bool:
        """Whether only the next list will tell if these registers are an hour's, or come too late to be.

        So it is with the first list ever of a meter, when it comes later than a meter that sends registers all the
        time (Sweden) sends the hour's.
        """
        local = None if reading.meter_clock is None else local_time(reading.meter_clock)
        if local is None or local.minute != 0 or local.second < _FIRST_SECONDS or not _registers(reading):
            return False
        meter = self._of(meter_id)
        clock = self.clock(reading, meter_id, reading.received)
        begun = clock is not None and _ms(_floor(clock)) == meter.hour_ms
        return meter.sends is Sends.UNKNOWN and not begun

    def learn(self, reading: Reading, meter_id: str) -> None:
        """Learn from a list, before it is placed, how often its meter sends registers."""
        meter = self._of(meter_id)
        sends = meter.sends
        local = None if reading.meter_clock is None else local_time(reading.meter_clock)
        if not _registers(reading) or local is None:
            if any(m.obis.d == _INSTANTANEOUS for m in reading.measurements):
                sends = Sends.HOURLY
            self._row[meter_id] = 0
        else:
            before = self.shown.get(meter_id)
            shown = self.shown[meter_id] = local_ms(local)
            since = None if before is None else timedelta(milliseconds=shown - before)
            sends = self._steadiness(sends, meter_id, local, since)
        if sends is not meter.sends:
            self._keep(meter_id, replace(meter, sends=sends))
        if sends in (Sends.HOURLY, Sends.STEADILY):
            self.settled[meter_id] = sends

    def _steadiness(self, sends: Sends, meter_id: str, local: datetime, since: timedelta | None) -> Sends:
        """What a list with registers tells, by what its clock shows and how long since the one before."""
        soon = since is not None and timedelta() < since <= _STEADY
        self._row[meter_id] = self._row.get(meter_id, 0) + 1 if soon else 0
        if sends in (Sends.HOURLY, Sends.STEADILY):
            return sends
        if local.minute != 0:  # an hourly list comes in the first minute of its own clock's hour
            return Sends.STEADILY
        if soon and (sends is Sends.UNKNOWN or self._row[meter_id] >= _SURE_ROW):
            return Sends.STEADILY
        if since is not None and since > _STEADY:
            return Sends.HOURLY_SO_FAR
        return sends

    def register_hour(self, reading: Reading, meter_id: str, time_ms: int, *, unsure: bool = False) -> tuple[int, bool]:
        """When the registers of a list were taken, ms, and whether they are an hour's.

        `time_ms` is the time of the reading, which registers of no hour carry; those of an `unsure` list are of none.
        """
        registers = _registers(reading)
        local = None if reading.meter_clock is None else local_time(reading.meter_clock)
        if not registers or local is None:
            return time_ms, False
        meter = self._of(meter_id)
        late = unsure or (meter.sends is Sends.STEADILY and local.second >= _FIRST_SECONDS)
        if local.minute != 0 or late:  # late: the hour's own was not heard, and this one came too late for it
            return time_ms, False
        heard = self._heard_before(reading, meter_id)
        if heard is not None:
            return heard.time_ms, False  # stamped as that one was
        hour, meter = self._hour_of(reading, meter_id, meter, _moment(time_ms))
        hour_ms = None if hour is None else _ms(hour)
        starts = hour_ms is not None and hour_ms != meter.hour_ms
        given = hour_ms if starts and hour_ms is not None else time_ms
        lists = (_HourList(local.isoformat(), registers, given), *meter.lists)[:_REMEMBERED]
        self._keep(meter_id, replace(meter, lists=lists, hour_ms=hour_ms if starts else meter.hour_ms))
        return given, starts

    def _of(self, meter_id: str) -> _MeterClock:
        return self._meters.get(meter_id, _MeterClock())

    def _keep(self, meter_id: str, meter: _MeterClock) -> None:
        if self._meters.get(meter_id) != meter:
            self._meters[meter_id] = meter
            self._changed.add(meter_id)

    def _hour_of(
        self, reading: Reading, meter_id: str, meter: _MeterClock, moment: datetime
    ) -> tuple[datetime | None, _MeterClock]:
        """The full hour of an hourly list, None when it starts none; and what was learnt of the clock."""
        received = reading.received
        clock = self.clock(reading, meter_id, moment)
        if clock is None or reading.meter_clock is None:
            return None, meter
        if received is None:
            hour = _floor(clock)
            if _ms(hour) == meter.hour_ms:  # other registers: of the hour that comes twice in autumn, the second
                hour = _floor(self.clock(reading, meter_id, clock + HOUR) or clock)
            return hour, replace(meter, suspects=())
        if abs(clock - received) <= TOLERANCE:
            return _floor(clock), replace(meter, suspects=())
        fitting = tuple(
            rule
            for rule in Rule
            if rule is not meter.rule
            and (other := read_clock(reading.meter_clock, rule, reading.habit, self._zone, received)) is not None
            and abs(other - received) <= TOLERANCE
        )
        again = bool(meter.lists) and _hour_shown(meter.lists[0].clock) == _hour_shown(_shown(reading))
        if again and abs(received - _moment(meter.lists[0].time_ms)) < HOUR / 2:
            return None, meter  # not the next hourly list: the same hour's once more, as Swedish meters send it
        both = [] if again else [rule for rule in fitting if rule in meter.suspects]
        if both:
            log.warning(
                "the clock of meter %s is %+.1f h off when read as %s; it is read as %s from now on",
                meter_id,
                (clock - received) / HOUR,
                _WORDS[meter.rule],
                _WORDS[both[0]],
            )
            changed = replace(meter, rule=both[0], suspects=())
            reread = read_clock(reading.meter_clock, changed.rule, reading.habit, self._zone, received)
            return None if reread is None else _floor(reread), changed
        if fitting or _whole_hours(clock - received):
            if not fitting:
                self._say_off(meter_id, clock - received)
            return None, meter if again else replace(meter, suspects=fitting)
        return self._of_wrong_clock(clock, received, meter_id), replace(meter, suspects=())

    def _say_off(self, meter_id: str, off: timedelta) -> None:
        if meter_id not in self._said:
            self._said.add(meter_id)
            log.warning(
                "the clock of meter %s is %+.1f h off: its registers begin no hour until that is understood or over",
                meter_id,
                off / HOUR,
            )

    @staticmethod
    def _of_wrong_clock(clock: datetime, received: datetime, meter_id: str) -> datetime | None:
        nearest = _floor(received + HOUR / 2)
        if abs(received - nearest) > TOLERANCE:
            return None
        log.warning(
            "the clock of meter %s is wrong by %+.0f s; its registers are taken for those of %s",
            meter_id,
            (clock - received).total_seconds(),
            nearest.strftime("%Y-%m-%d %H:%M UTC"),
        )
        return nearest


def _registers(reading: Reading) -> tuple[float, ...]:
    """The registers of a list that says itself when they were taken; empty for any other list."""
    if not reading.list_clock:
        return ()
    return tuple(m.value for m in reading.measurements if (q := describe(m.obis)) and q.is_register)


def _hour_shown(shown: str) -> str:
    return shown[:13]


def _shown(reading: Reading) -> str:
    local = None if reading.meter_clock is None else local_time(reading.meter_clock)
    return "" if local is None else local.isoformat()


def _whole_hours(off: timedelta) -> bool:
    hours = round(off / HOUR)
    return abs(hours) <= _MOST_RULES_DIFFER and abs(off - hours * HOUR) <= TOLERANCE


def _floor(moment: datetime) -> datetime:
    # Hours of UTC are hours of every zone that a HAN meter stands in.
    return moment.replace(minute=0, second=0, microsecond=0)


def local_ms(local: datetime) -> int:
    """A local time without its zone, as if it were UTC, ms."""
    return _ms(local.replace(tzinfo=UTC))


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
