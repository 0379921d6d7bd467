"""By which rule a meter's clock is read, and which hour a register belongs to.

A rule changes when two hourly lists in a row, with different clocks, say so, and only to one that fits both. Times are
whole milliseconds since 1970 in UTC.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from exporter.model.calendar import HOUR_MS, from_ms, to_ms
from exporter.pipeline.arrival import Arrival
from exporter.pipeline.clock_reading import RULE_NAMES, Rule

__all__ = ["ClockRules", "Sends"]

log = logging.getLogger(__name__)

_MINUTE_MS: Final = 60_000
_SECOND_MS: Final = 1000
_TOLERANCE_MS: Final = 5 * _MINUTE_MS
_MOST_RULES_DIFFER: Final = 2
"""Hours between civil summer time and UTC; a clock that is further off is wrong under every rule."""
_REMEMBERED: Final = 2
"""Hourly lists that are remembered: Aidon repeats the list before, also when the right one has just come."""
_STEADY_MS: Final = 30 * _SECOND_MS
"""A meter that sends registers again so soon sends them all the time (Sweden), not once an hour."""
_SURE_ROW: Final = 2
"""So many times in a row, where the meter was taken for one that sends them hourly: one extra list is no habit."""
_FIRST_MS: Final = 10 * _SECOND_MS
"""Of registers that come every 10 s, the first of an hour comes before this part of it is over."""


class Sends(Enum):
    """How often a meter sends registers; the value is what is kept over a restart."""

    UNKNOWN = ""
    HOURLY_SO_FAR = "hourly?"
    """Two lists with registers, far apart, and nothing between."""
    HOURLY = "hourly"
    """Lists without registers come too."""
    STEADILY = "steadily"


@dataclass(frozen=True, slots=True)
class _HourList:
    """An earlier hourly list: what its clock showed, its registers, the time they were given."""

    shown: int
    registers: tuple[float, ...]
    time: int


@dataclass(frozen=True, slots=True)
class _MeterClock:
    """What is remembered of one meter: its newest hourly lists, newest first, and the hour that began last.

    `suspects` are the rules that fitted the last list when ours did not; `sends` says whether registers come all the
    time or once an hour.
    """

    rule: Rule = Rule.HABIT
    lists: tuple[_HourList, ...] = ()
    hour: int | None = None
    suspects: tuple[Rule, ...] = ()
    sends: Sends = Sends.UNKNOWN

    def text(self) -> str:
        """All of it, to be kept over a restart."""
        lists = [[_iso(one.shown), one.registers, one.time] for one in self.lists]
        suspects = [rule.value for rule in self.suspects]
        return json.dumps([self.rule.value, lists, self.hour, suspects, self.sends.value])

    @classmethod
    def parse(cls, text: str) -> _MeterClock:
        """What `text` gave."""
        rule, lists, hour, suspects, sends = json.loads(text)
        kept = tuple(_HourList(_from_iso(shown), tuple(registers), time) for shown, registers, time in lists)
        return cls(Rule(rule), kept, hour, tuple(map(Rule, suspects)), Sends(sends))


def _iso(shown: int) -> str:
    return from_ms(shown).replace(tzinfo=None).isoformat()


def _from_iso(text: str) -> int:
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=UTC))


def _parsed(key: str, text: str) -> _MeterClock:
    try:
        return _MeterClock.parse(text)
    except (ValueError, TypeError, IndexError, AttributeError):
        log.warning("the state under %s in the outbox is not understood (another version's?): it is learned again", key)
        return _MeterClock()


_UNKNOWN_METER: Final = _MeterClock()


class ClockRules:
    """The clocks of all meters of one stream. `state` is what `new_state` gave before a restart."""

    _KEY: Final = "clock:"

    def __init__(self, state: Mapping[str, str]) -> None:
        self._meters: dict[str, _MeterClock] = {}
        for key, text in state.items():
            if key.startswith(self._KEY):
                self._meters[key.removeprefix(self._KEY)] = _parsed(key, text)
        self._changed: set[str] = set()
        self._shown: dict[str, int] = {}  # what the last list with registers showed, by meter
        self._row: dict[str, int] = {}  # how many lists with registers came one soon after the other
        self._said: set[str] = set()
        self.hourly: set[str] = set()
        """Meters that send registers once an hour: `learn` learns nothing more from a list of theirs without any."""

    def new_state(self) -> dict[str, str]:
        """What changed since this was last asked: key -> text."""
        changed, self._changed = self._changed, set()
        return {self._KEY + meter_id: self._meters[meter_id].text() for meter_id in changed}

    def forget(self, meter_id: str) -> None:
        """Remove what is known of this meter's clock: it is learned again."""
        for known in (self._meters, self._shown, self._row):
            known.pop(meter_id, None)
        self._changed.discard(meter_id)
        self._said.discard(meter_id)
        self.hourly.discard(meter_id)

    def clock(self, one: Arrival, meter_id: str, near: int | None) -> int | None:
        """The list's clock in UTC by the rule in force for this meter."""
        return one.utc(self._of(meter_id).rule, near)

    def is_repeat(self, one: Arrival, meter_id: str) -> bool:
        """Whether this is an hourly list that came before, with the same clock and registers.

        A clock that is right now makes it none: in the hour that comes twice no energy need have been used.
        """
        if not one.registers or one.shown is None:
            return False
        return self._shown.get(meter_id) == one.shown or self._earlier(one, self._of(meter_id)) is not None

    @staticmethod
    def _earlier(one: Arrival, meter: _MeterClock) -> _HourList | None:
        for earlier in meter.lists:
            if earlier.shown == one.shown and earlier.registers == one.registers:
                received = one.received_ms
                if received is None:
                    return earlier
                utc = one.utc(meter.rule, received)
                right = utc is not None and abs(utc - received) <= _TOLERANCE_MS
                later = abs(received - earlier.time) > HOUR_MS // 2
                return None if right and later else earlier
        return None

    def is_unsure(self, one: Arrival, meter_id: str) -> bool:
        """Whether only the next list will say if these registers are an hour's, or come too late to be.

        So it is with the first list ever of a meter, when it comes later than a meter that sends registers all the
        time (Sweden) sends the hour's.
        """
        if not one.registers or one.shown is None:
            return False
        meter = self._of(meter_id)
        into_hour = one.shown % HOUR_MS
        if meter.sends is not Sends.UNKNOWN or into_hour >= _MINUTE_MS or into_hour < _FIRST_MS:
            return False
        utc = one.utc(meter.rule, one.received_ms)
        return utc is None or _floor(utc) != meter.hour

    def learn(self, one: Arrival, meter_id: str) -> None:
        """Learn from a list, before it is placed, how often its meter sends registers."""
        meter = self._meters.get(meter_id, _UNKNOWN_METER)
        shown = one.shown
        if not one.registers or shown is None:
            self._row[meter_id] = 0
            if one.instantaneous:
                self.hourly.add(meter_id)
                if meter.sends is not Sends.HOURLY:
                    self._keep(meter_id, replace(meter, sends=Sends.HOURLY))
            return
        before = self._shown.get(meter_id)
        self._shown[meter_id] = shown
        sends = self._steadiness(meter.sends, meter_id, shown, None if before is None else shown - before)
        if sends is not meter.sends:
            self._keep(meter_id, replace(meter, sends=sends))

    def _steadiness(self, sends: Sends, meter_id: str, shown: int, since: int | None) -> Sends:
        """What a list with registers says, by what its clock shows and how long since the last one."""
        soon = since is not None and 0 < since <= _STEADY_MS
        self._row[meter_id] = self._row.get(meter_id, 0) + 1 if soon else 0
        if sends in (Sends.HOURLY, Sends.STEADILY):
            return sends
        if shown % HOUR_MS >= _MINUTE_MS:  # an hourly list comes in the first minute of its own clock's hour
            return Sends.STEADILY
        if soon and (sends is Sends.UNKNOWN or self._row[meter_id] >= _SURE_ROW):
            return Sends.STEADILY
        if since is not None and since > _STEADY_MS:
            return Sends.HOURLY_SO_FAR
        return sends

    def register_hour(self, one: Arrival, meter_id: str, time: int, *, unsure: bool = False) -> tuple[int, bool]:
        """When the registers of a list were taken, and whether they are an hour's.

        `time` is the time of the list, which registers of no hour carry; those of an `unsure` list are of none.
        """
        if not one.registers or one.shown is None:
            return time, False
        meter = self._of(meter_id)
        into_hour = one.shown % HOUR_MS
        late = unsure or (meter.sends is Sends.STEADILY and into_hour >= _FIRST_MS)
        if late or into_hour >= _MINUTE_MS:  # late: the hour's own list was missed
            return time, False
        earlier = self._earlier(one, meter)
        if earlier is not None:
            return earlier.time, False  # a repeat has the time of the first
        hour, meter = self._hour_of(one, meter_id, meter, time)
        starts = hour is not None and hour != meter.hour
        given = hour if starts and hour is not None else time
        lists = (_HourList(one.shown, one.registers, given), *meter.lists)[:_REMEMBERED]
        began = hour if starts else meter.hour
        self._keep(meter_id, _MeterClock(meter.rule, lists, began, meter.suspects, meter.sends))
        return given, starts

    def _of(self, meter_id: str) -> _MeterClock:
        return self._meters.get(meter_id, _UNKNOWN_METER)

    def _keep(self, meter_id: str, meter: _MeterClock) -> None:
        if self._meters.get(meter_id) != meter:
            self._meters[meter_id] = meter
            self._changed.add(meter_id)

    def _hour_of(self, one: Arrival, meter_id: str, meter: _MeterClock, time: int) -> tuple[int | None, _MeterClock]:
        """The full hour of an hourly list, None when it starts none; and what was learned of the clock."""
        received = one.received_ms
        utc = one.utc(meter.rule, time)
        if utc is None:
            return None, meter
        if received is None:
            hour = _floor(utc)
            if hour == meter.hour:  # other registers: of the hour that comes twice in autumn, the second
                later = one.utc(meter.rule, utc + HOUR_MS)
                hour = _floor(utc if later is None else later)
            return hour, _without_suspects(meter)
        if abs(utc - received) <= _TOLERANCE_MS:
            return _floor(utc), _without_suspects(meter)
        return self._hour_of_odd_clock(one, utc, received, meter_id, meter)

    def _hour_of_odd_clock(
        self, one: Arrival, utc: int, received: int, meter_id: str, meter: _MeterClock
    ) -> tuple[int | None, _MeterClock]:
        """As `_hour_of`, of a clock that is over 5 minutes off when read by the rule in force."""
        fitting = tuple(rule for rule in Rule if rule is not meter.rule and _fits(one.utc(rule, received), received))
        last = meter.lists[0] if meter.lists else None
        again = last is not None and last.shown // HOUR_MS == (one.shown or 0) // HOUR_MS
        if again and last is not None and abs(received - last.time) < HOUR_MS // 2:
            return None, meter  # not the next hourly list: the same hour's once more, as Swedish meters send it
        both = [] if again else [rule for rule in fitting if rule in meter.suspects]
        if both:
            log.warning(
                "the clock of meter %s is %+.1f h off when read as %s; it is read as %s from now on",
                meter_id,
                (utc - received) / HOUR_MS,
                RULE_NAMES[meter.rule],
                RULE_NAMES[both[0]],
            )
            reread = one.utc(both[0], received)
            return None if reread is None else _floor(reread), replace(meter, rule=both[0], suspects=())
        if fitting or _whole_hours(utc - received):
            if not fitting:
                self._say_off(meter_id, utc - received)
            return None, meter if again else replace(meter, suspects=fitting)
        return self._hour_of_wrong_clock(utc, received, meter_id), replace(meter, suspects=())

    def _say_off(self, meter_id: str, off: int) -> None:
        if meter_id not in self._said:
            self._said.add(meter_id)
            log.warning(
                "the clock of meter %s is %+.1f h off: its registers begin no hour until this is explained or over",
                meter_id,
                off / HOUR_MS,
            )

    @staticmethod
    def _hour_of_wrong_clock(utc: int, received: int, meter_id: str) -> int | None:
        nearest = _floor(received + HOUR_MS // 2)
        if abs(received - nearest) > _TOLERANCE_MS:
            return None
        log.warning(
            "the clock of meter %s is wrong by %+.0f s; its registers are taken as those of %s",
            meter_id,
            (utc - received) / _SECOND_MS,
            from_ms(nearest).strftime("%Y-%m-%d %H:%M UTC"),
        )
        return nearest


def _without_suspects(meter: _MeterClock) -> _MeterClock:
    return replace(meter, suspects=()) if meter.suspects else meter


def _fits(utc: int | None, received: int) -> bool:
    return utc is not None and abs(utc - received) <= _TOLERANCE_MS


def _whole_hours(off: int) -> bool:
    hours = round(off / HOUR_MS)
    return abs(hours) <= _MOST_RULES_DIFFER and abs(off - hours * HOUR_MS) <= _TOLERANCE_MS


def _floor(ms: int) -> int:
    # Hours of UTC are hours of every zone that a HAN meter is in.
    return ms - ms % HOUR_MS
