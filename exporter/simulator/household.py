"""A household with a meter, as a pure function of seed and time.

Between calls only what can be calculated again is kept, so a restarted simulator, a backfill and a live run agree. The
load is constant over slots of 10 s that begin at full 10 s of UTC, in whole W and var, so the registers are its exact
integral:

    load of a slot = loads of its minute (loads.py) + a variation, which adds up to 0 over the six slots of a minute
    register at t  = the register at EPOCH + whole days since + whole minutes of the day + the rest

Days are local days, since people live by local time. The sum over days is kept as far as it was needed, and the energy
of an ordinary day is a short sum (loads.Day.energy). So the first call takes a tenth of a second for the years since
EPOCH, or a second or two with solar panels, where import and export must be distinguished minute by minute.

Only an overload (`Household.overloaded`) does not depend on seed and time alone: it is added to a household for the
life of that object. A new object has no overload, and its registers do not include it: after a restart they are lower
than the last ones sent, by 1.3 kWh.
"""

from __future__ import annotations

from bisect import bisect_right
from cmath import rect
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from math import ceil, hypot, pi
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

from exporter.simulator import loads
from exporter.simulator.sample import Flows, Sample

EPOCH: Final = date(2024, 1, 1)
SLOT: Final = 10
"""Seconds for which the load is constant."""

OVERLOAD: Final = 16_000
"""W, some 70 A on a phase of 230 V: more than the largest main fuse of a house (63 A) carries."""
OVERLOAD_SECONDS: Final = 300

_WIRES: Final = (0, 2, 2)  # the wires of the load of L1, L2, L3 on an IT net: L1-L2, L2-L3, L2-L3
_WRAP: Final = 1_000_000_000  # Wh: a register of six digits of kWh
_LARGEST_VARIATION: Final = 60  # W, for each phase
_NIGHT: Final = 180  # minutes; a clock change has happened by then

Energies: TypeAlias = tuple[int, int, int, int]
"""A+ A- in Ws, R+ R- in vars."""

Phases: TypeAlias = tuple[int, int, int]


def _directions(watt: int, var: int) -> Energies:
    return (max(watt, 0), max(-watt, 0), max(var, 0), max(-var, 0))


def _plus(a: Energies, b: Energies, times: int = 1) -> Energies:
    return (a[0] + times * b[0], a[1] + times * b[1], a[2] + times * b[2], a[3] + times * b[3])


_NOTHING: Final[Energies] = (0, 0, 0, 0)


class _Day:
    """The load of one local day, as the stretches of whole minutes over which it is constant."""

    def __init__(self, seed: int, day: date, zone: ZoneInfo, house: loads.House) -> None:
        self.start = _midnight(day, zone)
        self.end = _midnight(day + timedelta(days=1), zone)
        self._seed = seed
        self._starts: list[int] = []  # second of the day at which each stretch begins
        self._watts: list[Phases] = []
        self._vars: list[Phases] = []
        self._before: list[Energies] = []  # energies of the day when it begins
        self.total = self._stretches(self._changes(loads.of_day(seed, day, house)))

    def _changes(self, plan: loads.Day) -> dict[int, list[int]]:
        """Minute of the day -> change of W and var of L1, L2, L3 there."""
        minutes = (self.end - self.start) // 60
        missing = loads.DAY - minutes  # 60 on the spring day, -60 on the autumn day
        changes: dict[int, list[int]] = {0: [0] * 6, minutes: [0] * 6}
        for span in plan.spans():
            # On a day of 23 or 25 hours people live by the clock too: one hour of the night is missing or longer.
            start, end = (at - missing if at >= _NIGHT else min(at, _NIGHT - missing) for at in (span.start, span.end))
            if start < end <= minutes:
                at = 2 * span.phase
                for minute, watt, var in ((start, span.watt, span.var), (end, -span.watt, -span.var)):
                    change = changes.get(minute)
                    if change is None:
                        change = changes[minute] = [0] * 6
                    change[at] += watt
                    change[at + 1] += var
        return changes

    def _stretches(self, changes: dict[int, list[int]]) -> Energies:
        now, energies, minutes = [0] * 6, _NOTHING, sorted(changes)
        for minute, following in pairwise(minutes):
            now = [a + b for a, b in zip(now, changes[minute], strict=True)]
            w1, v1, w2, v2, w3, v3 = now
            self._starts.append(minute * 60)
            self._watts.append((w1, w2, w3))
            self._vars.append((v1, v2, v3))
            self._before.append(energies)
            energies = _plus(energies, _directions(w1 + w2 + w3, v1 + v2 + v3), (following - minute) * 60)
        return energies

    def load(self, second: int) -> tuple[Phases, Phases]:
        """W and var of L1, L2, L3 in the slot of this second since 1970."""
        stretch = bisect_right(self._starts, second - self.start) - 1
        return self._varied(self._watts[stretch], second), self._vars[stretch]

    def energies(self, second: int) -> Energies:
        """Energies from the start of the day up to this second since 1970."""
        into = second - self.start
        stretch = bisect_right(self._starts, into) - 1
        watts, reactive = self._watts[stretch], sum(self._vars[stretch])
        minute = into - into % 60
        constant = minute - self._starts[stretch]
        sums = _plus(self._before[stretch], _directions(sum(watts), reactive), constant)
        for slot in range(minute, into, SLOT):
            power = sum(self._varied(watts, self.start + slot))
            sums = _plus(sums, _directions(power, reactive), min(SLOT, into - slot))
        return sums

    def _varied(self, watts: Phases, second: int) -> Phases:
        """Add the variation: its sum over each minute is 0, and it is never so large that the sum changes its sign.

        (As long as the sign is the same, import and export have the same integral over the minute.)
        """
        w1, w2, w3 = (min(abs(watt) // 16, _LARGEST_VARIATION) for watt in watts)
        if w1 + w2 + w3 > abs(sum(watts)):
            return watts
        minute, slot = divmod(second, 60)
        slot //= SLOT
        seed = self._seed
        return (
            watts[0] + _variation(seed, 10, minute, slot, w1),
            watts[1] + _variation(seed, 20, minute, slot, w2),
            watts[2] + _variation(seed, 30, minute, slot, w3),
        )


# Which of the three random numbers of a minute a slot uses, and with which sign; each is used once with each sign.
_PATTERN: Final = ((0, 1), (1, 1), (0, -1), (2, 1), (1, -1), (2, -1))


def _variation(seed: int, stream: int, minute: int, slot: int, most: int) -> int:
    if not most:
        return 0
    which, sign = _PATTERN[slot]
    return sign * int((2 * loads.noise(seed, stream + which, minute) - 1) * most)


@dataclass(frozen=True, slots=True)
class _Overload:
    """`watt` more on a phase (0 to 2) from `start` up to `end`: seconds since 1970, at which slots begin."""

    phase: int
    watt: int
    start: int
    end: int

    def on(self, watts: Phases, second: int) -> Phases:
        """The loads with the overload."""
        if not self.start <= second < self.end:
            return watts
        w1, w2, w3 = (watt + self.watt * (phase == self.phase) for phase, watt in enumerate(watts))
        return (w1, w2, w3)


def _midnight(day: date, zone: ZoneInfo) -> int:
    return int(datetime.combine(day, time(), zone).timestamp())


class Household:
    """Power, current, voltage and registers at any time.

    `phases` is 1 or 3, `net` "TN" (400/230 V: phase voltages) or "IT" (230 V, three wires: L1, L2, L3 are the currents
    of the wires, and the voltages L1-L2, L1-L3, L2-L3). With `solar` there are panels on the roof.
    """

    def __init__(self, seed: int, phases: int, net: str, zone: ZoneInfo, *, solar: bool = False) -> None:
        house = loads.VILLA if phases == 3 else loads.FLAT
        self._house = replace(house, solar=loads.SOLAR_PEAK if solar else 0)
        self._seed, self._phases, self._net, self._zone = seed, phases, net, zone
        self._days: dict[date, _Day] = {}
        self._since: list[Energies] = [_NOTHING]  # from EPOCH to each midnight after it
        self._until: list[Energies] = [_NOTHING]  # from each midnight before EPOCH to it
        base = 61_000_000 + int(loads.noise(seed, 6, 0) * 9_000_000)
        self._base: Energies = (base * 3600, 0, base * 250, base * 400)
        self._overload: _Overload | None = None
        self._whole_overload: Energies | None = None  # its energy, once it is over

    def overloaded(self, phase: int, moment: datetime) -> Household:
        """The same household with `OVERLOAD` more on a phase (0 to 2) for `OVERLOAD_SECONDS`.

        It begins with the first slot after `moment`, so that what was sent until then stays true. On a 3-wire IT net,
        where loads are between two wires, it is between L1 and L2 for L1, and between L2 and L3 for L2 and L3: I2 is
        not measured there, but the current of the other wire is. With solar panels it is larger by the power that they
        can give on one phase.
        """
        start = ceil(moment.timestamp() / SLOT) * SLOT
        wires = _WIRES[phase] if (self._phases, self._net) == (3, "IT") else phase
        other = copy(self)  # the days that were calculated are the same for both
        watt = OVERLOAD + self._house.solar // 3
        other._overload = _Overload(wires, watt, start, start + OVERLOAD_SECONDS)
        other._whole_overload = None
        return other

    def sample(self, moment: datetime, registers_at: datetime | None = None) -> Sample:
        """What a meter measures at `moment` (UTC), with the registers of `registers_at` if that is given."""
        second = int(moment.timestamp())
        watts, reactive = self._load(second)
        registers = None if registers_at is None else self.registers(registers_at)
        power = Flows(*_directions(sum(watts), sum(reactive)))
        if self._phases == 1:
            volt, ampere = self._phase(second, 0, sum(watts), sum(reactive))
            phase_power = (power, Flows(0, 0, 0, 0), Flows(0, 0, 0, 0))
            return Sample(power, (ampere, None, None), (volt, None, None), phase_power, registers)
        one, two, three = (self._phase(second, n, watts[n], reactive[n]) for n in range(3))
        volts = (one[0], two[0], three[0])
        if self._net == "IT":
            return Sample(power, _line_currents(watts, reactive, volts), volts, None, registers)
        flows = [Flows(*_directions(w, v)) for w, v in zip(watts, reactive, strict=True)]
        phase_power = (flows[0], flows[1], flows[2])
        return Sample(power, (one[1], two[1], three[1]), volts, phase_power, registers)

    def registers(self, moment: datetime) -> Flows:
        """The registers at `moment` (UTC, full seconds) in whole Wh and varh; at 10^9 they begin again at 0."""
        sums = _plus(self._base, self.energies(moment))
        return Flows(*(energy // 3600 % _WRAP for energy in sums))

    def energies(self, moment: datetime) -> Energies:
        """The exact integral of the power from EPOCH to `moment` (full seconds) in Ws and vars.

        It is negative before EPOCH.
        """
        second = int(moment.timestamp())
        day = self._day(second)
        return _plus(_plus(self._at(self._date(day.start)), day.energies(second)), self._added(second))

    def _load(self, second: int) -> tuple[Phases, Phases]:
        watts, reactive = self._day(second).load(second)
        return watts if self._overload is None else self._overload.on(watts, second), reactive

    def _added(self, second: int) -> Energies:
        """What the overload adds to the energies up to this second."""
        over = self._overload
        if over is None or second <= over.start:
            return _NOTHING
        if self._whole_overload is not None and second >= over.end:
            return self._whole_overload
        sums = _NOTHING
        for slot in range(over.start, min(second, over.end), SLOT):
            watts, _ = self._day(slot).load(slot)
            seconds = min(SLOT, second - slot)
            sums = _plus(sums, _directions(sum(over.on(watts, slot)), 0), seconds)
            sums = _plus(sums, _directions(sum(watts), 0), -seconds)
        if second >= over.end:
            self._whole_overload = sums
        return sums

    def _phase(self, second: int, phase: int, watt: int, var: int) -> tuple[float, float]:
        """V and A of one phase: the voltage of the net changes over hours, and falls under load."""
        apparent = hypot(watt, var)
        slow_change = loads.between_knots(self._seed, 40 + phase, second, 5400)
        flicker = loads.noise(self._seed, 50 + phase, second // SLOT)
        volt = round(231.5 + 4.0 * slow_change + 0.5 * flicker - apparent * 0.0006, 1)
        return volt, round(apparent / volt, 3)

    def _day(self, second: int) -> _Day:
        for day in self._days.values():
            if day.start <= second < day.end:
                return day
        when = self._date(second)
        while len(self._days) >= 3:  # the present day, that of the registers, and one more
            del self._days[next(iter(self._days))]
        self._days[when] = day = self._new_day(when)
        return day

    def _date(self, second: int) -> date:
        return datetime.fromtimestamp(second, UTC).astimezone(self._zone).date()

    def _new_day(self, day: date) -> _Day:
        return _Day(self._seed, day, self._zone, self._house)

    def _total(self, day: date) -> Energies:
        hours = _midnight(day + timedelta(days=1), self._zone) - _midnight(day, self._zone)
        if self._house.solar or hours != 86_400:
            return self._new_day(day).total
        return loads.of_day(self._seed, day, self._house).energy()

    def _at(self, day: date) -> Energies:
        """The energies from EPOCH to the midnight at which `day` begins."""
        days = (day - EPOCH).days
        while len(self._since) <= days:
            following = EPOCH + timedelta(days=len(self._since) - 1)
            self._since.append(_plus(self._since[-1], self._total(following)))
        while len(self._until) <= -days:
            previous = EPOCH - timedelta(days=len(self._until))
            self._until.append(_plus(self._until[-1], self._total(previous), -1))
        return self._since[days] if days >= 0 else self._until[-days]


def _line_currents(watts: Phases, reactive: Phases, volts: tuple[float, float, float]) -> tuple[float, float, float]:
    """The currents of the three wires of an IT net, with loads between L1-L2, L1-L3 and L2-L3.

    The voltages between the wires are 120 degrees apart, so the currents add as vectors.
    """
    l12, l13, l23 = (
        (complex(w, -v) / rect(volt, 0)) * rect(1, angle)
        for w, v, volt, angle in zip(watts, reactive, volts, (0, -pi / 3, -2 * pi / 3), strict=True)
    )
    return round(abs(l12 + l13), 3), round(abs(l23 - l12), 3), round(abs(l13 + l23), 3)
