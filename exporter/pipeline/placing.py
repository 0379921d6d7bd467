"""Lists -> their meter and their time (docs/architecture.md, "Time of a point").

Pure but for the clock that is handed in, so that a file always gives the same points. Times are whole milliseconds
since 1970 in UTC, the precision of the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from exporter.meters import safe_text
from exporter.pipeline.arrival import Arrival
from exporter.pipeline.clock_rules import ClockRules
from exporter.pipeline.identity import Identity, Named
from exporter.pipeline.timestamps import Timestamps

__all__ = ["Placer"]


class Placer:
    """Meters and times of one stream's lists, in the order in which they came.

    `stream` names the stream in the id of last resort, `fallback` is HAN_METER_ID. `state` is what `new_state` gave
    before a restart. `now` is asked only whether a clock is in the future.
    """

    def __init__(
        self,
        stream: str,
        *,
        fallback: str | None = None,
        state: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        # A file or a setting may have any name, and so may a meter.
        last_resort = safe_text((fallback or f"unknown-{stream}").encode("utf-8", "surrogateescape"))
        self._identity = Identity(stream, last_resort or "unknown", (state or {}).get(f"last_id:{stream}"))
        self._times = Timestamps(now)
        self._rules = ClockRules(state or {})
        self._unsure: list[Named] = []

    @property
    def left_out(self) -> int:
        """Lists without a name that were left out because two meters send on this stream."""
        return self._identity.left_out

    @property
    def expected(self) -> tuple[str, bool]:
        """The id that lists without one have now, and whether a meter named itself so."""
        last = self._identity.last
        return (self._identity.fallback, False) if last is None else (last, True)

    @property
    def waits(self) -> bool:
        """Whether a list waits for another one; the caller ends that after 60 s (`give_up`).

        It waits for one that names its meter, or, once in a meter's life, for the list that says how often it sends
        registers.
        """
        return bool(self._identity.waiting or self._unsure)

    def place(self, one: Arrival) -> Sequence[Arrival]:
        """Take the next list; give out those that can be placed now, oldest first: none, it, or those that waited."""
        time = one.time = self._times.of(one)
        meter_id = None if self._unsure else self._identity.at_once(one.own, time)
        if meter_id is not None and not one.registers:  # nearly every list: nothing waits, and it starts no hour
            if meter_id not in self._rules.hourly:
                self._rules.learn(one, meter_id)
            one.meter_id, one.register_time = meter_id, time
            if one.shown is not None and one.received is not None:
                self._compare_clock(one, one.received)
            return (one,)
        placed: list[Arrival] = []
        for named in [(one, meter_id)] if meter_id is not None else self._identity.of(one):
            self._in_turn(named, placed)
        return placed

    def give_up(self, *, all_heard: bool = True) -> list[Arrival]:
        """Place whatever still waits: 60 s are over, or the stream ended.

        Lists without a name are HAN_METER_ID's, else `unknown-<stream>`. `all_heard` says that a file has ended:
        nothing that came after was missed, so a single late list is its hour's.
        """
        placed: list[Arrival] = []
        self._end_unsure(placed, unsure=not all_heard)
        for named in self._identity.give_up():
            self._in_turn(named, placed)
        self._end_unsure(placed, unsure=not all_heard)
        return placed

    def clock_of(self, one: Arrival) -> int | None:
        """The clock of a list in UTC by the rule in force for its meter, or for the last one that named itself.

        None without one, and for a list that is a repeat: its clock is the old one.
        """
        meter_id = one.own or self._identity.last or ""
        if self._rules.is_repeat(one, meter_id):
            return None
        return self._rules.clock(one, meter_id, one.received_ms)

    def new_state(self) -> dict[str, str]:
        """What must outlive a restart and changed since this was last asked: key -> text."""
        return self._identity.new_state() | self._rules.new_state()

    def forget(self, meter_id: str) -> None:
        """Remove what is known of a meter; lists that name none are no longer its own."""
        self._identity.forget(meter_id)
        self._rules.forget(meter_id)
        self._unsure = [named for named in self._unsure if named[1] != meter_id]

    def _in_turn(self, named: Named, placed: list[Arrival]) -> None:
        """Place a list after those that waited for it, or let it wait for the next."""
        one, meter_id = named
        self._rules.learn(one, meter_id)
        waited = False
        if self._unsure:
            ready = [other for other in self._unsure if other[1] == meter_id]
            self._unsure = [other for other in self._unsure if other[1] != meter_id]
            for other in ready:
                placed.append(self._placed(*other))
            waited = bool(ready)
        if one.registers and one.time is not None and not waited and self._rules.is_unsure(one, meter_id):
            self._unsure.append(named)
            return
        placed.append(self._placed(one, meter_id))

    def _end_unsure(self, placed: list[Arrival], *, unsure: bool) -> None:
        waiting, self._unsure = self._unsure, []
        placed += [self._placed(*named, unsure=unsure) for named in waiting]

    def _placed(self, one: Arrival, meter_id: str, *, unsure: bool = False) -> Arrival:
        one.meter_id, one.register_time = meter_id, one.time
        if one.time is None:
            return one
        if one.registers:
            one.register_time, one.is_hour = self._rules.register_hour(one, meter_id, one.time, unsure=unsure)
        if one.shown is not None and one.received is not None:
            self._compare_clock(one, one.received)
        return one

    def _compare_clock(self, one: Arrival, received: int) -> None:
        clock = self._rules.clock(one, one.meter_id, received // 1000)
        if clock is not None:
            one.clock_offset = (clock * 1000 - received) / 1_000_000
