"""Properties of the derived figures; calendar and capacity charge compared with independent calculations."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exporter.derive.capacity import capacity, capacity_step, with_running
from exporter.derive.phases import unbalance
from exporter.derive.running_hour import projected
from exporter.derive.sums import day_sums, month_sums
from exporter.model.calendar import day_hours, day_start, month_start, next_day, next_month, weekday_and_hour
from exporter.model.obis import ObisCode
from exporter.model.reading import Measurement, Meter, Reading
from tests.support.phases import current_unbalance, fuse_load, power_factors

OSLO = ZoneInfo("Europe/Oslo")
HOUR = 3_600_000

amperes = st.floats(0.01, 1000)
phases = st.lists(amperes, min_size=2, max_size=3)
watts = st.integers(0, 100_000).map(float)


def reading(values: dict[int, float], unit: str) -> Reading:
    """A reading of these values, by group C of their codes."""
    return Reading(Meter("m"), None, tuple(Measurement(ObisCode(1, 0, c, 7, 0), v, unit) for c, v in values.items()))


# Phases


@given(phases, st.floats(0.001, 1000))
def test_unbalance_does_not_depend_on_the_scale(values: list[float], scale: float) -> None:
    plain, scaled = unbalance(values), unbalance([value * scale for value in values])
    assert scaled == pytest.approx(plain, rel=1e-9, abs=1e-9)


@given(phases.flatmap(lambda values: st.tuples(st.just(values), st.permutations(values))))
def test_the_order_of_the_phases_does_not_matter(both: tuple[list[float], list[float]]) -> None:
    values, shuffled = both
    assert unbalance(values) == unbalance(shuffled)
    currents, others = dict(zip((31, 51, 71), values, strict=False)), dict(zip((31, 51, 71), shuffled, strict=False))
    assert current_unbalance(reading(currents, "A")) == current_unbalance(reading(others, "A"))
    assert sorted(fuse_load(reading(currents, "A"), 25).values()) == sorted(
        fuse_load(reading(others, "A"), 25).values()
    )


@given(phases)
def test_unbalance_has_bounds(values: list[float]) -> None:
    found = unbalance(values)
    assert found is not None
    assert 0 <= found <= 100 * (len(values) - 1) + 1e-9


@given(amperes, st.integers(2, 3))
def test_equal_phases_are_in_balance(value: float, count: int) -> None:
    assert unbalance([value] * count) == pytest.approx(0, abs=1e-9)


@given(watts, watts, watts, watts)
def test_power_factor_is_from_0_to_1_and_independent_of_the_direction(
    p: float, p_out: float, q: float, q_out: float
) -> None:
    def of(*values: float) -> dict[str, float]:
        units = ("W", "W", "var", "var")
        codes = (ObisCode(1, 0, c, 7, 0) for c in (1, 2, 3, 4))
        return power_factors(Reading(Meter("m"), None, tuple(map(Measurement, codes, values, units))))

    found = of(p, p_out, q, q_out)
    assert all(0 <= factor <= 1 for factor in found.values())
    assert found == of(p_out, p, q, q_out) == of(p, p_out, q_out, q)
    assert (found == {}) == (p == p_out and q == q_out)


# The running hour


@given(
    st.lists(st.tuples(watts, st.integers(1, 3_600_000)), min_size=1, max_size=30), st.randoms(use_true_random=False)
)
def test_the_projection_equals_the_truth_at_the_end_of_the_hour(
    spans: list[tuple[float, int]], chance: random.Random
) -> None:
    """Times of constant power that fill an hour: at any moment of the last one, the projection is the truth."""
    total = sum(length for _, length in spans)
    ends = [sum(length for _, length in spans[: i + 1]) * HOUR // total for i in range(len(spans))]
    starts = [0, *ends[:-1]]
    truth = sum(power * (end - start) / HOUR for (power, _), start, end in zip(spans, starts, ends, strict=True))
    assert projected(truth, spans[-1][0], 0) == truth
    at = chance.randint(starts[-1], HOUR)
    last = spans[-1][0]
    so_far = truth - last * (HOUR - at) / HOUR
    assert projected(so_far, last, HOUR - at) == pytest.approx(truth, rel=1e-9, abs=1e-6)


# The calendar

zones = st.sampled_from(["Europe/Oslo", "Europe/Copenhagen", "Europe/Helsinki", "Atlantic/Reykjavik", "UTC"])
moments = st.integers(1_420_070_400_000, 2_208_988_800_000)  # 2015 to 2039


@given(moments, zones.map(ZoneInfo))
def test_days_and_months_have_no_gaps_and_begin_at_midnight(ms: int, zone: ZoneInfo) -> None:
    for start, following in ((day_start, next_day), (month_start, next_month)):
        begun, ended = start(ms, zone), following(ms, zone)
        assert begun <= ms < ended
        assert start(begun, zone) == begun == start(ended - 1, zone)
        assert start(ended, zone) == ended
        local = datetime.fromtimestamp(begun / 1000, zone)
        assert (local.hour, local.minute, local.second) == (0, 0, 0)
    assert datetime.fromtimestamp(month_start(ms, zone) / 1000, zone).day == 1
    assert len(day_hours(ms, zone)) in (23, 24, 25)


def test_every_hour_of_three_years_is_in_one_day_with_its_own_weekday_and_hour() -> None:
    at, end = (datetime(year, 1, 1, tzinfo=OSLO).astimezone(UTC) for year in (2025, 2028))
    lengths: dict[date, int] = {}
    while at < end:
        ms, local = int(at.timestamp()) * 1000, at.astimezone(OSLO)
        lengths[local.date()] = lengths.get(local.date(), 0) + 1
        midnight = datetime(local.year, local.month, local.day, tzinfo=OSLO)
        assert day_start(ms, OSLO) == midnight.timestamp() * 1000
        assert weekday_and_hour(ms, OSLO) == (local.isoweekday(), local.hour)
        at += timedelta(hours=1)
    odd = {str(day): hours for day, hours in lengths.items() if hours != 24}
    assert odd == {
        "2025-03-30": 23, "2025-10-26": 25, "2026-03-29": 23, "2026-10-25": 25, "2027-03-28": 23, "2027-10-31": 25,
    }  # fmt: skip
    for day, hours in lengths.items():
        assert (
            len(day_hours(int(datetime(day.year, day.month, day.day, 12, tzinfo=OSLO).timestamp()) * 1000, OSLO))
            == hours
        )


# Sums and the capacity charge


def hours_of(year: int, month: int, days: int, seed: int, *, missing: float = 0.0) -> dict[int, float]:
    """Random final hours of some days from the first of a month on, in steps of 10 Wh as meters send them."""
    chance = random.Random(seed)
    at = datetime(year, month, 1, tzinfo=OSLO).astimezone(UTC)
    end = (datetime(year, month, 1, tzinfo=OSLO) + timedelta(days=days)).astimezone(UTC)
    finals = {}
    while at < end:
        if chance.random() >= missing:
            finals[int(at.timestamp()) * 1000] = float(10 * chance.randint(20, 900))
        at += timedelta(hours=1)
    return finals


def independent(finals: dict[int, float], year: int, month: int) -> tuple[list[float], float]:
    """The highest hours of the three highest days, and their mean, in plain Python."""
    best: dict[date, float] = {}
    for ms, wh in finals.items():
        day = datetime.fromtimestamp(ms / 1000, OSLO).date()
        if (day.year, day.month) == (year, month):
            best[day] = max(wh, best.get(day, 0.0))
    top = sorted(best.values())[-3:][::-1]
    return top, sum(top) / len(top)


MONTHS = [
    (2026, 3), (2026, 10), (2025, 2), (2028, 2), (2026, 12), (2027, 1), (2027, 3), (2027, 10), (2026, 7), (2022, 7),
]  # fmt: skip


@pytest.mark.parametrize(("year", "month"), MONTHS)
def test_capacity_equals_an_independent_calculation(year: int, month: int) -> None:
    seed = 100 * year + month
    start = int(datetime(year, month, 1, tzinfo=OSLO).timestamp()) * 1000
    # From the month before to the month after, with missing hours.
    before = (year, month - 1) if month > 1 else (year - 1, 12)
    finals = hours_of(*before, 70, seed, missing=0.1)
    found = capacity(finals, start, OSLO)
    assert found is not None
    top, mean = independent(finals, year, month)
    assert [peak.wh for peak in found.peaks] == top
    assert found.mean == mean
    assert found.month == start
    assert all(finals[peak.hour] == peak.wh for peak in found.peaks)
    assert len({datetime.fromtimestamp(peak.hour / 1000, OSLO).date() for peak in found.peaks}) == 3
    sums = month_sums(finals, OSLO)[start]
    inside = [ms for ms in finals if start <= ms < next_month(start, OSLO)]
    assert (sums.wh, sums.hours) == (sum(finals[ms] for ms in inside), len(inside))


@given(st.sampled_from(MONTHS), st.integers(1, 34), st.integers(0, 1000), st.floats(0, 0.9))
def test_a_projection_that_is_right_gives_the_mean_of_the_final_hours(
    month: tuple[int, int], days: int, seed: int, missing: float
) -> None:
    finals = hours_of(*month, days, seed, missing=missing)
    assume(finals)
    running = max(finals)
    known = {hour: wh for hour, wh in finals.items() if hour != running}
    found = capacity(finals, running, OSLO)
    assert found is not None
    assert with_running(known, running, finals[running], OSLO) == found.mean
    assert [peak.wh for peak in found.peaks] == sorted((peak.wh for peak in found.peaks), reverse=True)


@given(st.sampled_from(MONTHS), st.integers(1, 70), st.integers(0, 1000), st.floats(0, 0.9))
def test_day_sums_add_to_month_sums_and_to_all(month: tuple[int, int], days: int, seed: int, missing: float) -> None:
    finals = hours_of(*month, days, seed, missing=missing)
    by_day, by_month = day_sums(finals, OSLO), month_sums(finals, OSLO)
    for start, total in by_month.items():
        inside = [one for day, one in by_day.items() if start <= day < next_month(start, OSLO)]
        assert (sum(one.wh for one in inside), sum(one.hours for one in inside)) == (total.wh, total.hours)
    assert sum(total.wh for total in by_month.values()) == sum(finals.values())
    assert sum(total.hours for total in by_day.values()) == len(finals)
    assert all(a < b for a, b in pairwise(by_day))
    assert all(total.hours <= len(day_hours(day, OSLO)) for day, total in by_day.items())


@given(st.integers(0, 110_000), st.lists(st.integers(1, 100_000).map(float), min_size=1, unique=True).map(sorted))
def test_the_step_is_the_lowest_bound_above_the_mean(mean: int, steps: list[float]) -> None:
    assert capacity_step(mean, steps) == next((step for step in steps if mean < step), None)
