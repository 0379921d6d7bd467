"""Readings -> their meter and their time: design.md, "One source carries one meter" and "Time of a point".

Pure but for the clock that is handed in, so that a file always gives the same points. Times are whole milliseconds
since 1970 in UTC, the precision of the schema.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from exporter.meters import OSLO, safe_text, to_utc
from exporter.model.calendar import from_ms, to_ms
from exporter.model.reading import Placed, Reading, Zone
from exporter.pipeline.clock_rules import ClockRules, Rule

log = logging.getLogger(__name__)

NAMELESS_WAIT_MS: Final = 60_000
_ALTERNATING_MS: Final = 10 * 60_000
_MOST_WAITING: Final = 1000
"""Lists without a name that wait for one, where no time tells how long they do: some 40 minutes of Aidon's list 1."""
_REMEMBERED_LISTS: Final = 4096
_REMEMBERED_IDS: Final = 16


@dataclass(frozen=True, slots=True)
class Run:
    """Lists of one meter behind one another that say nothing new, placed elsewhere on the belief that it is so.

    `times` are those of the lists that have one, rising; of these `named` is 1 for each that names its meter, else 0.
    `names_itself` and `nameless` tell whether any list does, or does not; `plain`, whether any shows no clock beside
    registers, and `shown` is what the last of the others showed (local, ms; never an hour's first minute).
    """

    meter_id: str
    times: Sequence[int]
    named: Sequence[int]
    names_itself: bool
    nameless: bool
    plain: bool
    shown: int | None


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
        # A file or a setting may be called anything, as a meter may.
        last_resort = safe_text((fallback or f"unknown-{source}").encode("utf-8", "surrogateescape"))
        self._names = _Names(source, last_resort or "unknown", (state or {}).get(f"last_id:{source}"))
        self._times = _Times(zone, now)
        self._rules = ClockRules(zone, state or {})
        self._unsure: list[tuple[_Timed, str]] = []

    @property
    def left_out(self) -> int:
        """Nameless readings that were left out because two meters speak on this source."""
        return self._names.left_out

    def place(self, reading: Reading) -> list[Placed]:
        """Take the next reading; give out what can be placed now, oldest first: none, it, or those that waited too."""
        timed = self._times.of(reading)
        expired = self._names.expired(timed.time)
        return [placed for named in expired + self._names.of(timed) for placed in self._in_turn(*named)]

    def place_known(self, own: str | None, moment: int | None, shown: int | None) -> tuple[str, int | None] | None:
        """Place a list as `place` would, if it says nothing new: its meter, and its time in ms or None.

        `own` is the id in the list, `moment` its time before it is made free, `shown` what the clock beside registers
        shows (local, ms), None where there are none. None, with nothing done, where `place` is needed.
        """
        names = self._names
        meter_id = names.last_alone if own is None else own
        if meter_id is None or self._unsure or names.waiting:
            return None
        if not self._rules.teaches_nothing(meter_id, shown):
            return None
        if shown is not None:
            self._rules.shown[meter_id] = shown
        time = None if moment is None else self._times.take(moment, own or "")
        if own is not None and (own != names.last or own not in names.heard):
            names.hear(own, time or 0)
        return meter_id, time

    def place_run(self, run: Run) -> bool:
        """Place lists as `place_known` would one by one, if all of them can be; False, with nothing done, if not."""
        names, meter_id = self._names, run.meter_id
        if self._unsure or names.waiting or (run.nameless and names.last_alone != meter_id):
            return False
        if run.names_itself and (names.last != meter_id or meter_id not in names.heard):
            return False
        shows = [None] * run.plain + [run.shown] * (run.shown is not None)
        if not all(self._rules.teaches_nothing(meter_id, shown) for shown in shows):
            return False
        owner = ("",), (meter_id,)
        if not self._times.take_all(run.times, [owner[named] for named in run.named]):
            return False
        if run.shown is not None:
            self._rules.shown[meter_id] = run.shown
        return True

    @property
    def expected(self) -> tuple[str, bool]:
        """The id that lists without one have on this source now, and whether a meter named itself so."""
        last = self._names.last
        return (self._names.fallback, False) if last is None else (last, True)

    def clock_of(self, reading: Reading) -> datetime | None:
        """The clock of a reading in UTC by the rule in force for its meter, or for the one last heard.

        None without one, and for a list that is a repeat: its clock is the old one.
        """
        meter_id = reading.meter.id or self._names.last or ""
        if self._rules.is_repeat(reading, meter_id):
            return None
        return self._rules.clock(reading, meter_id, reading.received)

    def reads_by_habit(self, meter_id: str) -> bool:
        """Whether this meter's clock is still read by its maker's habit."""
        return self._rules.rule(meter_id) is Rule.HABIT

    def id_of(self, own: str | None) -> str | None:
        """The id of a list that names this one, or none; None where `place` must say."""
        return self._names.last_alone if own is None else own

    @property
    def clock_range(self) -> tuple[int, int]:
        """The first and last moment, ms, that a clock is believed to tell, where nothing else tells the time."""
        return to_ms(self._times.first_clock), to_ms(self._times.last_clock())

    @property
    def waiting(self) -> int:
        """Readings that wait for another one; whoever owns the Placer ends it after 60 s.

        They wait for one that names its meter, or, once in a meter's life, for the list that tells how often it sends
        registers.
        """
        return len(self._names.waiting) + len(self._unsure)

    def give_up(self, *, all_heard: bool = True) -> list[Placed]:
        """Place whatever still waits: 60 s are over, or the source ended.

        The nameless are HAN_METER_ID's, else `unknown-<source>`. `all_heard` tells that a file has ended: nothing that
        came after was missed, so a lone late list is its hour's.
        """
        unsure, self._unsure = self._unsure, []
        placed = [self._placed(*named, unsure=not all_heard) for named in unsure]
        for named in self._names.give_up():
            placed += self._in_turn(*named)
        unsure, self._unsure = self._unsure, []
        return placed + [self._placed(*named, unsure=not all_heard) for named in unsure]

    def _in_turn(self, timed: _Timed, meter_id: str) -> list[Placed]:
        """Place a reading behind those that waited for it, or let it wait for the next."""
        self._rules.learn(timed.reading, meter_id)
        ready = [named for named in self._unsure if named[1] == meter_id]
        self._unsure = [named for named in self._unsure if named[1] != meter_id]
        placed = [self._placed(*named) for named in ready]
        if timed.time is not None and not ready and self._rules.is_unsure(timed.reading, meter_id):
            self._unsure.append((timed, meter_id))
            return placed
        return [*placed, self._placed(timed, meter_id)]

    def new_state(self) -> dict[str, str]:
        """What has to outlive a restart and changed since this was last asked: key -> text."""
        return self._names.new_state() | self._rules.new_state()

    def forget(self, meter_id: str) -> None:
        """Let go of what is known of a meter; lists that name none are no longer its own."""
        self._names.forget(meter_id)
        self._rules.forget(meter_id)
        self._unsure = [named for named in self._unsure if named[1] != meter_id]

    def _placed(self, timed: _Timed, meter_id: str, *, unsure: bool = False) -> Placed:
        reading, time = timed.reading, timed.time
        if time is None:
            return Placed(reading, meter_id, None, None)
        register_time, is_hour = self._rules.register_hour(reading, meter_id, time, unsure=unsure)
        offset = None
        clock = self._rules.clock(reading, meter_id, reading.received)
        if clock is not None and reading.received is not None:
            offset = (clock - reading.received) / timedelta(seconds=1)
        return Placed(reading, meter_id, time, register_time, is_hour, offset)


@dataclass(frozen=True, slots=True)
class _Timed:
    reading: Reading
    time: int | None


class _Times:
    """`received`, or in a capture without time stamps the clock; no two of a source alike."""

    def __init__(self, zone: Zone, now: Callable[[], datetime]) -> None:
        self._zone = zone
        self._now = now
        self._last: int | None = None
        # Moments that are taken, and by whom: meters' ids, "" for a list that names none.
        self._used: dict[int, set[str] | tuple[str]] = {}
        self._oldest: deque[int] = deque()  # the same, in the order in which they were given
        self._lists = 0

    def of(self, reading: Reading) -> _Timed:
        near = reading.received or (None if self._last is None else from_ms(self._last))
        clock = None
        if reading.meter_clock is not None:
            clock = to_utc(reading.meter_clock, reading.habit, self._zone, near)
        moment = reading.received or self._believable(clock)
        return _Timed(reading, None if moment is None else self.take(to_ms(moment), reading.meter.id or ""))

    def _believable(self, clock: datetime | None) -> datetime | None:
        if clock is None or not self.first_clock <= clock <= self.last_clock():
            return None
        return clock

    first_clock: Final = datetime(2015, 1, 1, tzinfo=UTC)

    def last_clock(self) -> datetime:
        """A clock that is later than this is wrong."""
        return self._now() + timedelta(days=1)

    def take(self, ms: int, own: str) -> int:
        """The next millisecond that no list of this meter has, nor one without a name ("")."""
        self._last = ms
        used = self._used
        there = used.get(ms)
        while there is not None and (own in there or "" in there or not own):
            ms += 1
            there = used.get(ms)
        if there is None:
            used[ms] = (own,)
            self._oldest.append(ms)
        elif isinstance(there, set):
            there.add(own)
        else:
            used[ms] = {*there, own}
        self._lists += 1
        if self._lists >= 2 * _REMEMBERED_LISTS:
            self._forget_oldest()
        return ms

    def take_all(self, moments: Sequence[int], owners: Sequence[tuple[str]]) -> bool:
        """Take rising moments as `take` would one by one, if no list has any of them; False, with nothing done, if not.

        What is remembered of them is the same, too.
        """
        if not self._used.keys().isdisjoint(moments):
            return False
        done = 0
        while done < len(moments):
            here = slice(done, done + 2 * _REMEMBERED_LISTS - self._lists)
            taken = moments[here]
            self._used.update(zip(taken, owners[here], strict=True))
            self._oldest.extend(taken)
            self._last = taken[-1]
            self._lists += len(taken)
            done += len(taken)
            if self._lists >= 2 * _REMEMBERED_LISTS:
                self._forget_oldest()
        return True

    def _forget_oldest(self) -> None:
        while self._lists > _REMEMBERED_LISTS and len(self._oldest) > 1:
            self._lists -= len(self._used.pop(self._oldest.popleft()))


class _Names:
    """Which meter a list is from when it does not say: the last id heard on the source."""

    def __init__(self, source: str, fallback: str, last: str | None) -> None:
        self._source = source
        self.fallback = fallback
        self.last = last
        self.heard: dict[str, None] = {}  # ids, the one last heard at the end
        self._alternating_until: int | None = None
        self.waiting: list[_Timed] = []
        self._waiting_from: int | None = None  # the time of the first of them that has one
        self._gave_up = False
        self._kept = last
        self.left_out = 0

    def of(self, timed: _Timed) -> list[tuple[_Timed, str]]:
        own = timed.reading.meter.id
        if own is not None:
            return self._named(timed, own)
        if self.last is not None:
            if self._two_meters(timed.time or 0):
                self.left_out += 1
                return []
            return [(timed, self.last)]
        if self._gave_up:
            return [(timed, self.fallback)]
        self.waiting.append(timed)
        if self._waiting_from is None:
            self._waiting_from = timed.time
        return self.give_up() if len(self.waiting) >= _MOST_WAITING else []

    @property
    def last_alone(self) -> str | None:
        """The id that a list without one has now; None where that must be looked into."""
        if self._alternating_until is not None:
            return None
        return self.fallback if self.last is None and self._gave_up else self.last

    def _named(self, timed: _Timed, own: str) -> list[tuple[_Timed, str]]:
        self.hear(own, timed.time or 0)
        waiting, self.waiting, self._waiting_from = self.waiting, [], None
        return [(waited, own) for waited in waiting] + [(timed, own)]

    def hear(self, own: str, at: int) -> None:
        """A list that names its meter came; `at` is its time, ms."""
        heard = self.heard
        if own in heard:
            if self.last not in (None, own):
                self._alternate(own, at)
            del heard[own]
        elif len(heard) >= _REMEMBERED_IDS:  # a stream of ever new ids is no reason to grow
            del heard[next(iter(heard))]
        heard[own] = None
        self.last = own

    def _alternate(self, own: str, at: int) -> None:
        if self._alternating_until is None:
            log.warning(
                "two meters, %s and %s, speak on %s: lists that name no meter are left out until one is alone",
                self.last,
                own,
                self._source,
            )
        self._alternating_until = at + _ALTERNATING_MS

    def _two_meters(self, at: int) -> bool:
        if self._alternating_until is None:
            return False
        if at <= self._alternating_until:
            return True
        self._alternating_until = None
        self.heard = {self.last: None} if self.last else {}
        return False

    def forget(self, meter_id: str) -> None:
        if self.last == meter_id:
            self.last = self._kept = None
        self.heard.pop(meter_id, None)

    def expired(self, now: int | None) -> list[tuple[_Timed, str]]:
        first = self._waiting_from
        if first is None or now is None or now < first + NAMELESS_WAIT_MS:
            return []
        return self.give_up()

    def give_up(self) -> list[tuple[_Timed, str]]:
        waiting, self.waiting, self._waiting_from = self.waiting, [], None
        if waiting:
            self._gave_up = True
        return [(timed, self.fallback) for timed in waiting]

    def new_state(self) -> dict[str, str]:
        if self.last is None or self.last == self._kept:
            return {}
        self._kept = self.last
        return {f"last_id:{self._source}": self.last}
