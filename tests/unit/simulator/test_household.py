"""The simulated household: exact, a pure function, and realistic."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from math import hypot
from statistics import mean, median
from zoneinfo import ZoneInfo

import pytest

from exporter.simulator.household import OVERLOAD, OVERLOAD_SECONDS, SLOT, Energies, Household
from exporter.simulator.sample import Sample

OSLO = ZoneInfo("Europe/Oslo")
KINDS = [(3, "TN", False), (3, "IT", False), (1, "TN", False), (3, "TN", True), (1, "IT", True)]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def new_household(phases: int = 3, net: str = "TN", solar: bool = False, seed: int = 1) -> Household:
    return Household(seed, phases, net, OSLO, solar=solar)


household = cache(new_household)  # what one test calls must not matter to another


def samples(house: Household, start: datetime, end: datetime, step: int = SLOT) -> list[Sample]:
    seconds = int((end - start).total_seconds())
    return [house.sample(start + timedelta(seconds=n)) for n in range(0, seconds, step)]


def kwh(house: Household, start: datetime, end: datetime) -> float:
    return (house.energies(end)[0] - house.energies(start)[0]) / 3.6e6


def integral(house: Household, start: datetime, end: datetime) -> Energies:
    """Sum of the powers that are sent, 10 s each: Ws and vars."""
    sums = [SLOT * int(sum(power)) for power in zip(*(s.power for s in samples(house, start, end)), strict=True)]
    return (sums[0], sums[1], sums[2], sums[3])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-11-22T17:00", "2026-11-22T18:00"),
        ("2026-06-14T10:00", "2026-06-14T14:00"),
        ("2026-03-28T22:00", "2026-03-29T03:00"),  # the day of 23 hours
        ("2026-10-25T00:00", "2026-10-25T03:00"),  # the day of 25 hours
        ("2023-12-31T22:00", "2024-01-01T01:00"),  # over the epoch
        pytest.param("2026-06-14T10:00", "2026-06-15T10:00", marks=pytest.mark.rare),
        pytest.param("2026-03-28T12:00", "2026-03-29T23:00", marks=pytest.mark.rare),
        pytest.param("2026-10-25T00:00", "2026-10-26T00:00", marks=pytest.mark.rare),
        pytest.param("2023-12-31T12:00", "2024-01-01T12:00", marks=pytest.mark.rare),
        ("2022-01-31T12:00", "2022-01-31T13:00"),  # before it
        pytest.param("2019-01-31T12:00", "2019-01-31T13:00", marks=pytest.mark.rare),  # long before it
    ],
)
def test_energy_is_the_integral_of_the_power(kind: tuple[int, str, bool], start: str, end: str) -> None:
    house = household(*kind)
    before, after = house.energies(utc(start)), house.energies(utc(end))
    assert tuple(b - a for a, b in zip(before, after, strict=True)) == integral(house, utc(start), utc(end))


def test_registers_are_whole_watt_hours_of_that_energy() -> None:
    house, start, end = household(), utc("2026-11-22T17:00"), utc("2026-11-22T18:00")
    rise = house.registers(end).active_import - house.registers(start).active_import
    energy = house.energies(end)[0] - house.energies(start)[0]
    assert abs(rise - energy / 3600) < 1
    assert house.registers(end).active_import == int(house.registers(end).active_import)


def test_energy_between_slots_is_that_of_the_part() -> None:
    house, slot = household(), utc("2026-11-22T17:00:20")
    power = house.sample(slot).power
    at = [house.energies(slot + timedelta(seconds=n))[0] for n in range(11)]
    assert {b - a for a, b in pairwise(at)} == {power.active_import}


@pytest.mark.parametrize(
    "kind", [KINDS[0], KINDS[3], *(pytest.param(KINDS[n], marks=pytest.mark.rare) for n in (1, 2, 4))]
)
def test_the_energies_of_days_join_at_every_midnight(kind: tuple[int, str, bool]) -> None:
    house = household(*kind)
    for n in range(366):
        midnight = (datetime(2025, 2, 1, tzinfo=OSLO) + timedelta(days=n)).astimezone(UTC)
        last = midnight - timedelta(seconds=SLOT)
        power = house.sample(last).power
        rise = [b - a for a, b in zip(house.energies(last), house.energies(midnight), strict=True)]
        assert rise == [SLOT * watt for watt in power], midnight


def test_registers_never_fall() -> None:
    house, start = household(solar=True), utc("2025-06-01T00:00")
    hours = [house.registers(start + timedelta(hours=n)) for n in range(60 * 24)]
    for earlier, later in pairwise(hours):
        assert all(a <= b for a, b in zip(earlier, later, strict=True))
    assert all(a < b for a, b in zip(hours[0], hours[-1], strict=True))


def test_a_restart_and_the_order_of_calls_change_nothing() -> None:
    moments = [utc("2026-11-22T17:00") + timedelta(hours=7 * n, seconds=13 * n) for n in range(60)]
    house = new_household()
    forwards = [house.sample(at, at) for at in moments]
    again = new_household()
    assert [again.sample(at, at) for at in reversed(moments)] == forwards[::-1]
    assert new_household(seed=2).sample(moments[0], moments[0]) != forwards[0]


def test_first_call_is_quick() -> None:
    before = time.process_time()
    new_household().sample(utc("2030-11-22T17:00"), utc("2030-11-22T17:00"))
    assert time.process_time() - before < 1.0


@pytest.mark.parametrize("phases", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_months_are_those_of_a_norwegian_home(phases: int, seed: int) -> None:
    house = household(phases, seed=seed)
    firsts = [datetime(2025 + n // 12, n % 12 + 1, 1, tzinfo=OSLO) for n in range(13)]
    months = [kwh(house, a, b) for a, b in pairwise(firsts)]
    assert all(500 < month < 4000 for month in months), months
    winter, summer = mean((months[0], months[1], months[11])), mean(months[5:8])
    assert winter > 1.4 * summer


@pytest.mark.parametrize("phases", [1, 3])
def test_less_is_used_at_night_than_at_dinner(phases: int) -> None:
    house = household(phases)
    days = [datetime(2026, 5, 1, tzinfo=OSLO) + timedelta(days=n) for n in range(60)]
    night = median(kwh(house, d + timedelta(hours=4), d + timedelta(hours=5)) for d in days)
    dinner = median(kwh(house, d + timedelta(hours=17), d + timedelta(hours=18)) for d in days)
    assert night < 0.7 * dinner


def test_weekends_begin_later() -> None:
    house = household()
    days = [datetime(2026, 5, 1, tzinfo=OSLO) + timedelta(days=n) for n in range(84)]

    def at_seven(weekend: bool) -> float:
        chosen = [d for d in days if (d.weekday() >= 5) is weekend]
        return mean(kwh(house, d + timedelta(hours=7), d + timedelta(hours=8)) for d in chosen)

    assert at_seven(False) > 1.5 * at_seven(True)


def test_the_car_charges_some_nights_on_one_phase() -> None:
    house = household()
    nights = [datetime(2026, 1, 1, 2, 0, tzinfo=OSLO) + timedelta(days=n) for n in range(365)]
    charging = [s.currents for s in map(house.sample, nights) if (s.currents[1] or 0) > 28]
    assert 80 < len(charging) < 220
    assert all(two is not None and two > 2 * max(one or 0, three or 0) for one, two, three in charging)


def test_cold_days_cost_more() -> None:
    house = household()
    days = [datetime(2026, 1, 1, tzinfo=OSLO) + timedelta(days=n) for n in range(365)]
    afternoons = sorted(kwh(house, d + timedelta(hours=13), d + timedelta(hours=15)) for d in days)
    assert afternoons[-30] > 2 * afternoons[30]


@pytest.mark.parametrize(("phases", "net"), [(3, "TN"), (1, "TN"), (1, "IT")])
def test_currents_agree_with_power_and_voltage(phases: int, net: str) -> None:
    for sample in samples(household(phases, net), utc("2026-01-10T00:00"), utc("2026-01-12T00:00"), 610):
        assert sample.phase_power is not None
        assert sum(flows[0] for flows in sample.phase_power) == sample.power.active_import
        for n in range(phases):
            volt, ampere, flows = sample.voltages[n], sample.currents[n], sample.phase_power[n]
            assert volt is not None and ampere is not None
            apparent = hypot(flows[0] - flows[1], flows[2] - flows[3])
            assert abs(volt * ampere - apparent) < 0.2


def test_currents_of_a_three_wire_net_add_up_to_zero() -> None:
    for sample in samples(household(3, "IT"), utc("2026-01-10T00:00"), utc("2026-01-12T00:00"), 610):
        currents = [ampere for ampere in sample.currents if ampere is not None]
        assert len(currents) == 3
        assert max(currents) <= sum(currents) - max(currents) + 0.003  # three vectors whose sum is 0
        volts = [volt for volt in sample.voltages if volt is not None]
        apparent = hypot(sample.power[0], sample.power[2] - sample.power[3])
        assert apparent < max(volts) * sum(currents)


@pytest.mark.parametrize("net", ["TN", "IT"])
def test_voltages_and_currents_are_within_their_limits(net: str) -> None:
    for sample in samples(household(3, net), utc("2026-01-01T00:00"), utc("2026-12-31T00:00"), 2770):
        assert all(207 < (volt or 0) < 253 for volt in sample.voltages)
        assert all(0 <= (ampere or 0) < 63 for ampere in sample.currents)


def test_a_one_phase_meter_has_only_one_phase() -> None:
    sample = household(1).sample(utc("2026-11-22T17:00"))
    assert sample.currents[1:] == sample.voltages[1:] == (None, None)


def test_power_is_whole_and_has_one_direction() -> None:
    for sample in samples(household(solar=True), utc("2026-06-10T00:00"), utc("2026-06-12T00:00"), 310):
        assert all(watt == int(watt) >= 0 for watt in sample.power)
        assert 0 in sample.power[:2] and 0 in sample.power[2:]


def test_solar_exports_by_day_and_saves_import() -> None:
    with_sun, without = household(solar=True), household()
    noon, night = utc("2026-06-15T11:00"), utc("2026-06-15T23:30")
    assert with_sun.sample(noon).power.active_export > 0
    assert with_sun.sample(night).power == without.sample(night).power
    start, end = utc("2026-06-01T00:00"), utc("2026-07-01T00:00")
    assert kwh(with_sun, start, end) < 0.9 * kwh(without, start, end)
    assert without.registers(end).active_export == 0


def test_the_days_of_a_clock_change_have_23_and_25_hours() -> None:
    house = household()
    for day, hours in ((datetime(2026, 3, 29, tzinfo=OSLO), 23), (datetime(2026, 10, 25, tzinfo=OSLO), 25)):
        start, end = day.astimezone(UTC), (day + timedelta(days=1)).astimezone(UTC)
        assert (end - start) == timedelta(hours=hours)
        powers = [s.power.active_import for s in samples(house, start, end, 60)]
        assert min(powers) > 100


# --- an overload, to try alerts with

FUSE = 63.0
"""The largest main fuse of a house, A."""
BEGIN = "2026-06-14T11:00:07"  # at noon, with the sun on the panels
OVERLOADS = [(kind, phase) for kind in KINDS for phase in range(kind[0])]


@pytest.mark.parametrize(("kind", "phase"), OVERLOADS)
@pytest.mark.parametrize("seed", [1, 2])
def test_an_overload_is_in_all_that_is_measured(kind: tuple[int, str, bool], phase: int, seed: int) -> None:
    calm = household(*kind, seed=seed)
    house = calm.overloaded(phase, utc(BEGIN))
    begin = utc("2026-06-14T11:00:10")
    end = begin + timedelta(seconds=OVERLOAD_SECONDS)
    wires = phase if kind[:2] != (3, "IT") else (0, 2, 2)[phase]
    measured = {0: 0, 1: 1, 2: 2} if kind[1] == "TN" or kind[0] == 1 else {0: 0, 2: 2}
    added = OVERLOAD + (2000 if kind[2] else 0)
    for with_it, without in zip(samples(house, begin, end), samples(calm, begin, end), strict=True):
        net = [sample.power.active_import - sample.power.active_export for sample in (with_it, without)]
        assert net[0] - net[1] == added
        current, volt, before = with_it.currents[measured[wires]], with_it.voltages[wires], without.voltages[wires]
        assert current is not None and volt is not None and before is not None
        assert FUSE * 1.04 < current < 100
        assert 5 < before - volt < 15, "the voltage falls"
        assert volt > 207
        if with_it.phase_power is not None and without.phase_power is not None:
            pairs = zip(with_it.phase_power, without.phase_power, strict=True)
            rise = [a.active_import - a.active_export - b.active_import + b.active_export for a, b in pairs]
            assert rise == [added if n == phase else 0 for n in range(3)]
    for second in range(-60, 0, SLOT):
        assert house.sample(begin + timedelta(seconds=second)) == calm.sample(begin + timedelta(seconds=second))
    for second in range(0, 60, SLOT):
        assert house.sample(end + timedelta(seconds=second)) == calm.sample(end + timedelta(seconds=second))


@pytest.mark.parametrize(("kind", "phase"), OVERLOADS)
def test_registers_are_the_integral_of_a_power_with_an_overload(kind: tuple[int, str, bool], phase: int) -> None:
    """Also if the panels give more than the house uses, and the overload turns export into import."""
    house = household(*kind).overloaded(phase, utc(BEGIN))
    start, end = utc("2026-06-14T10:58"), utc("2026-06-14T11:08")
    before, after = house.energies(start), house.energies(end)
    assert tuple(b - a for a, b in zip(before, after, strict=True)) == integral(house, start, end)
    middle = utc("2026-06-14T11:02")
    parts = [house.energies(middle + timedelta(seconds=n))[0] for n in range(11)]
    assert {b - a for a, b in pairwise(parts)} == {house.sample(middle).power.active_import}


def test_after_an_overload_the_registers_still_include_it() -> None:
    calm = household()
    house = calm.overloaded(1, utc(BEGIN))
    more = OVERLOAD * OVERLOAD_SECONDS
    for later in ("2026-06-14T11:05:10", "2026-06-14T12:00", "2026-06-20T12:00"):
        assert house.energies(utc(later))[0] - calm.energies(utc(later))[0] == more
    assert house.energies(utc("2026-06-14T11:00:10")) == calm.energies(utc("2026-06-14T11:00:10"))
    assert house.registers(utc("2026-06-14T12:00")).active_import - 1300 > calm.registers(utc("2026-06-14T12:00"))[0]


def test_an_overload_does_not_change_the_household_that_it_is_made_from() -> None:
    calm, same = new_household(), new_household()
    over = calm.overloaded(0, utc(BEGIN))
    over.energies(utc("2026-06-14T12:00"))
    moment = utc("2026-06-14T11:01")
    assert calm.sample(moment, moment) == same.sample(moment, moment) != over.sample(moment, moment)
