"""The loads of a household in one day: appliances, heating, lights, an electric car, the sun.

All are drawn at random from (seed, day); nothing is kept. Times are minutes of the local clock, power is in whole W and
var, and a load is constant over its minutes. So the energy of an ordinary day is a short sum (`Day.energy`), and
registers over years can be calculated quickly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from math import cos, pi
from random import Random
from typing import Final, NamedTuple

L1: Final = 0
L2: Final = 1
L3: Final = 2

DAY: Final = 1440
_HALF_HOUR: Final = 30
_MASK: Final = (1 << 64) - 1


def noise(seed: int, stream: int, n: int) -> float:
    """A number in [0, 1) that depends only on the arguments (the finaliser of splitmix64)."""
    x = (seed * 0xD1342543DE82EF95 + stream * 0xDA942042E4DD58B5 + n * 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return (x ^ (x >> 31)) / 18446744073709551616.0


def between_knots(seed: int, stream: int, at: int, spacing: int) -> float:
    """A value from -1 to 1 at `at`, interpolated linearly between random values every `spacing` steps."""
    knot, rest = divmod(at, spacing)
    before = noise(seed, stream, knot)
    return 2 * (before + (noise(seed, stream, knot + 1) - before) * rest / spacing) - 1


@dataclass(frozen=True, slots=True)
class House:
    """The size of the loads in W; `heat_loss` in W for each K that it is colder outside."""

    heat_loss: int
    water_heater: int
    car: int
    hob: int
    standby: int
    solar: int = 0
    """The largest power of the panels; 0 without panels."""


VILLA: Final = House(heat_loss=150, water_heater=2000, car=7200, hob=1800, standby=210)
FLAT: Final = House(heat_loss=55, water_heater=1950, car=3600, hob=1500, standby=150)
SOLAR_PEAK: Final = 6000


class Load(NamedTuple):
    """`watt` on `phase` (0 to 2) from minute `start` for `minutes`; `times` in all, once `every` so many minutes."""

    start: int
    minutes: int
    phase: int
    watt: int
    times: int = 1
    every: int = DAY


class Profile(NamedTuple):
    """`unit` times each of the `shares`, one for each of the 48 half-hours, on `phase`; in W or var."""

    phase: int
    unit: int
    shares: tuple[int, ...]


class Span(NamedTuple):
    """A stretch of constant load, from minute `start` up to minute `end`."""

    start: int
    end: int
    phase: int
    watt: int
    var: int


@dataclass(slots=True)
class Day:
    """All loads of a day. Those of `loads` and `watts` end before midnight; `sun` is negative."""

    loads: list[Load] = field(default_factory=list)
    watts: list[Profile] = field(default_factory=list)
    vars: list[Profile] = field(default_factory=list)
    sun: list[Load] = field(default_factory=list)

    def spans(self) -> Iterator[Span]:
        """Every stretch of constant load, in any order."""
        for load in (*self.loads, *self.sun):
            for start in range(load.start, load.start + load.times * load.every, load.every):
                yield Span(start, start + load.minutes, load.phase, load.watt, 0)
        for reactive, profiles in ((False, self.watts), (True, self.vars)):
            for phase, unit, shares in profiles:
                for n, share in enumerate(shares):
                    watt, var = (0, unit * share) if reactive else (unit * share, 0)
                    yield Span(n * _HALF_HOUR, (n + 1) * _HALF_HOUR, phase, watt, var)

    def energy(self) -> tuple[int, int, int, int]:
        """A+ A- in Ws and R+ R- in vars of a day of 24 hours without sun, when power has only one direction."""
        watt_minutes = sum([load.watt * load.minutes * load.times for load in self.loads])
        watt_minutes += sum([unit * sum(shares) for _, unit, shares in self.watts]) * _HALF_HOUR
        inductive = capacitive = 0
        for _, unit, shares in self.vars:
            inductive += unit * sum([share for share in shares if share > 0])
            capacitive -= unit * sum([share for share in shares if share < 0])
        return (watt_minutes * 60, 0, inductive * _HALF_HOUR * 60, capacitive * _HALF_HOUR * 60)


def of_day(seed: int, day: date, house: House) -> Day:
    """All loads of one day."""
    draws = Random(seed * 10_000_000 + day.toordinal())
    weekend = day.weekday() >= 5
    plan = Day()
    plan.loads += _cold(draws)
    plan.loads += _kitchen(draws, weekend, house)
    plan.loads += _water(draws, weekend, house)
    plan.loads += _laundry(draws, weekend)
    plan.loads += _car(draws, weekend, house)
    _lights(plan, draws, weekend, day)
    _heating(plan, draws, temperature(seed, day), house)
    _reactive(plan, draws)
    plan.sun += _sun(seed, day, house)
    return plan


def temperature(seed: int, day: date) -> float:
    """The outdoor temperature of a day in degrees C: the course of a year near Oslo, and the weather."""
    year = cos(2 * pi * (day.timetuple().tm_yday - 25) / 365.25)
    return 6.5 - 11.0 * year + 6.0 * between_knots(seed, 1, day.toordinal(), 4)


def _cold(draws: Random) -> Iterable[Load]:
    """A refrigerator and a freezer, which switch on and off."""
    yield Load(int(31 * draws.random()), 17, L1, 105, DAY // 48, 48)
    yield Load(int(44 * draws.random()), 28, L3, 85, DAY // 72, 72)


def _kitchen(draws: Random, weekend: bool, house: House) -> Iterable[Load]:
    """Kettle, coffee and toast for breakfast; the hob, often the oven, and a dishwasher for dinner."""
    start = int((510 if weekend else 375) + 70 * draws.random())
    yield Load(start, 4, L3, 2000)
    yield Load(start + 5, 1 + int(10 * draws.random()), L3, 1050)
    yield Load(start + 8, 4, L2, 900)
    start = int((1005 if weekend else 960) + 75 * draws.random())
    for _ in range(4):  # the steps of the hob
        minutes = 4 + int(11 * draws.random())
        yield Load(start, minutes, L2, int(house.hob * (0.5 + 0.7 * draws.random())))
        start += minutes
    chance, cycles, first = draws.random(), 4 + int(6 * draws.random()), start - 35
    if chance < (0.7 if weekend else 0.5):
        yield Load(first, 13, L3, 2300)
        yield Load(first + 17, 3, L3, 2300, cycles, 7)
    chance, first = draws.random(), start + 60 + int(80 * draws.random())
    if chance < 0.8:
        yield Load(first, 90, L2, 80)
        yield Load(first + 8, 16, L2, 1950, 2, 54)


def _water(draws: Random, weekend: bool, house: House) -> Iterable[Load]:
    """The water heater: after showers in the morning and the evening, and for its heat loss at night and noon."""
    morning = 520 if weekend else 395
    for start, spread, shortest, longest in (
        (150, 60, 10, 18),
        (morning, 60, 45, 100),
        (760, 90, 10, 20),
        (1190, 120, 35, 90),
    ):
        first = int(start + spread * draws.random())
        yield Load(first, int(shortest + (longest - shortest) * draws.random()), L1, house.water_heater)


def _laundry(draws: Random, weekend: bool) -> Iterable[Load]:
    """A washing machine and then a dryer, more often at the weekend."""
    chance, start, dry = draws.random(), int((630 if weekend else 1080) + 150 * draws.random()), draws.random()
    if chance < (0.7 if weekend else 0.3):
        yield Load(start + 6, 20, L2, 2000)
        yield Load(start + 26, 64, L2, 150)
        yield Load(start + 95, int(50 + 40 * dry), L2, 800)


def _car(draws: Random, weekend: bool, house: House) -> Iterable[Load]:
    """The electric car, on one phase, in some nights after midnight; with less power in the last minutes."""
    chance, start, minutes = draws.random(), int(5 + 110 * draws.random()), int(80 + 190 * draws.random())
    if chance < (0.25 if weekend else 0.5):
        yield Load(start, minutes, L2, house.car)
        yield Load(start + minutes, 12, L2, house.car // 2)


# How much of the lights, screens and small devices is on, for each half-hour from midnight.
_LIGHTS: Final = (
    *(20, 12, 8, 8, 8, 8, 8, 8, 8, 8, 10, 20, 40, 60, 55, 40, 28, 25, 25, 24, 25, 26, 28, 31),
    *(28, 25, 24, 25, 28, 32, 45, 62, 70, 77, 75, 80, 85, 88, 95, 104, 100, 95, 91, 80, 72, 55, 40, 28),
)


def _lights(plan: Day, draws: Random, weekend: bool, day: date) -> None:
    dark = 1 + 0.5 * cos(2 * pi * day.timetuple().tm_yday / 365.25)
    unit = (4.6 if weekend else 3.8) * dark * (0.8 + 0.4 * draws.random())
    plan.watts.append(Profile(L1, max(1, round(unit * 0.6)), _LIGHTS))
    plan.watts.append(Profile(L3, max(1, round(unit * 0.4)), _LIGHTS))


def _uneven(shares: tuple[int, ...], variant: int) -> tuple[int, ...]:
    return tuple(round(share * (0.82 + 0.36 * noise(variant, 3, n))) for n, share in enumerate(shares))


# The heating is turned down at 23:00 and up at 5:00, and needs more power when it is colder outside.
_SET_BACK: Final = (*(13,) * 10, *(24, 26, 25), *(21,) * 7, *(17,) * 12, *(19,) * 8, *(20,) * 6, *(14,) * 2)
_HEATING: Final = tuple(_uneven(_SET_BACK, variant) for variant in range(8))


def _heating(plan: Day, draws: Random, outside: float, house: House) -> None:
    """The heat pump, panel heaters too if it is not enough, heated bathroom floors, standby."""
    shares = _HEATING[int(len(_HEATING) * draws.random())]
    wanted = max(0.0, 17.5 - outside) * house.heat_loss
    efficiency = min(4.2, max(1.8, 2.9 + 0.07 * outside))
    pump = min(wanted / efficiency, 13.0 * house.heat_loss)
    panels = max(0.0, wanted - pump * efficiency)
    mean = sum(shares) / len(shares)
    for phase, watt in ((L3, pump), (L1, panels / 2), (L2, panels / 2)):
        if watt >= mean:
            plan.watts.append(Profile(phase, int(watt / mean), shares))
    floors = int(min(22.0, max(3.0, 12.0 - 0.7 * outside)))
    plan.loads.append(Load(int(7 * draws.random()), floors, L2, house.heat_loss * 3, DAY // _HALF_HOUR, _HALF_HOUR))
    for phase, share in ((L1, 5), (L2, 2), (L3, 3)):
        plan.loads.append(Load(0, DAY, phase, house.standby * share // 10))


# Capacitive while only electronics are on, inductive while motors are running.
_VARS: Final = (
    *(-9, -9, -10, -11, -11, -11, -10, -10, -9, -8, -5, 3, 6, 8, 5, 3, -4, -6, -7, -8, -7, -6, -4, -3),
    *(4, 2, -3, -5, -4, -3, 2, 5, 8, 10, 12, 10, 7, 4, 3, 2, -3, -4, -5, -7, -8, -8, -9, -9),
)


def _reactive(plan: Day, draws: Random) -> None:
    unit = 15 + int(25 * draws.random())
    for phase, share in ((L1, 5), (L2, 2), (L3, 3)):
        plan.vars.append(Profile(phase, unit * share // 10, _VARS))


def _sun(seed: int, day: date, house: House) -> Iterable[Load]:
    """Panels on the roof, the same on each phase: a negative load while the sun is up."""
    if not house.solar:
        return
    season = -cos(2 * pi * (day.timetuple().tm_yday + 10) / 365.25)
    half, height = 380 + 170 * season, 0.55 + 0.4 * season
    clear = 0.55 + 0.45 * between_knots(seed, 4, day.toordinal(), 2)
    for start in range(0, DAY, 15):
        angle = abs(start + 7 - 765) / half
        if angle < 1:
            cloud = clear * (0.7 + 0.3 * noise(seed, 5, day.toordinal() * 96 + start // 15))
            watt = int(house.solar / 3 * height * cloud * cos(pi / 2 * angle))
            for phase in (L1, L2, L3):
                yield Load(start, 15, phase, -watt)
