"""What panels show is what the house used: InfluxDB's answers against the simulator's household.

The truth is worked out here, in plain Python, from Household.sample and its registers at the moments at which the meter
sent a list; nothing of the exporter's own arithmetic (derived.py and what it serves) is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from math import floor, hypot
from statistics import fmean

import pytest

from exporter.model.calendar import to_ms
from exporter.service.own_points import exporter_line
from exporter.simulator.sample import Sample
from exporter.sinks.contract import Verdict
from exporter.sinks.influx.client import Client, Series
from tests.support.dashboards import END, Asked, began
from tests.support.houses import NOW, SOLAR, TN, ZONE, House
from tests.support.influx_server import Store
from tests.support.years import local_capacity

HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000
WIRE_S = 10 / 2400
PHASES = ("L1", "L2", "L3")
AMPERE = 0.011
"""As exactly as the meter says them: half of the last digit of A, of V, and of Wh."""
VOLT = 0.51
WATT = 0.51
KWH = 1e-6


@pytest.fixture(scope="module")
def client(simulated: Store) -> Iterator[Client]:
    found = simulated.client()
    yield found
    found.close()


# The truth


@cache
def heard(house: House) -> tuple[tuple[int, Sample], ...]:
    """What the meter sent in the last week: when its list had come (ms), and what the house used at its moment."""
    found = []
    for frame in house.lists(NOW):
        if frame.complete > NOW - timedelta(days=7):
            began_at = frame.complete - timedelta(seconds=WIRE_S * len(frame.data))
            found.append((to_ms(frame.complete), house.household.sample(began_at + timedelta(milliseconds=1))))
    return tuple(found)


def local(day: int, hour: int = 0, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=ZONE).astimezone(UTC)


def register(house: House, moment: datetime, direction: str = "import") -> int:
    """What the meter's register of import (or export) tells, Wh: full 10 Wh, as Kamstrup's and Aidon's do."""
    flows = house.household.registers(moment)
    return int(flows.active_import if direction == "import" else flows.active_export) // 10 * 10


def kwh(house: House, start: datetime, end: datetime, direction: str = "import") -> float:
    return (register(house, end, direction) - register(house, start, direction)) / 1000


def hours(house: House, start: datetime, end: datetime) -> dict[int, float]:
    """Wh of each hour."""
    count = round((end - start) / HOUR)
    each = [start + number * HOUR for number in range(count)]
    return {to_ms(hour): 1000 * kwh(house, hour, hour + HOUR) for hour in each}


def buckets(house: House, width_s: float, of: Callable[[Sample], float | None], since: int) -> dict[int, list[float]]:
    """A figure of each list, by the start of the interval that it came in (ms)."""
    found: dict[int, list[float]] = {}
    width = round(width_s * 1000)
    for ms, sample in heard(house):
        value = of(sample)
        if ms >= since and value is not None:
            found.setdefault(ms - ms % width, []).append(value)
    return found


def ampere(phase: str) -> Callable[[Sample], float | None]:
    return lambda sample: sample.currents[PHASES.index(phase)]


def volt(phase: str) -> Callable[[Sample], float | None]:
    return lambda sample: sample.voltages[PHASES.index(phase)]


def power(sample: Sample) -> float:
    return sample.power.active_import


# What InfluxDB answers


def rows(series: list[Series], column: int = 1) -> dict[int, float]:
    """Time -> value."""
    return {row[0]: row[column] for one in series for row in one.rows if row[column] is not None}


def last(series: list[Series]) -> float:
    """What a figure shows: the last value."""
    return list(rows(series).values())[-1]


def by_phase(series: list[Series]) -> dict[str, list[Series]]:
    return {one.tags["phase"]: [one] for one in series}


def width_of(asked: Asked, title: str) -> float:
    query = next(query for query in asked.queries if query.panel == title)
    return query.interval_s(*query.range(asked.start, END, "Europe/Oslo"))


def same(found: Mapping[int, float], truth: Mapping[int, float], exactly: float) -> None:
    """All of the truth was found, and nothing else, but for intervals that the time range cuts."""
    assert len(found.keys() ^ truth.keys()) <= 1
    both = found.keys() & truth.keys()
    assert len(both) > 0
    assert {key: found[key] for key in both} == pytest.approx({key: truth[key] for key in both}, abs=exactly)


# Now


def test_now_figures(client: Client) -> None:
    asked = Asked(client, "now", TN)
    sample = heard(TN)[-1][1]
    assert last(asked.panel("Power now", "Import")) == pytest.approx(power(sample), abs=WATT)
    currents, loads, volts = (
        by_phase(asked.panel(title)) for title in ("Phases and main fuse", "Highest phase", "Voltage")
    )
    assert currents.keys() == loads.keys() == volts.keys() == set(PHASES)
    for number, phase in enumerate(PHASES):
        true, of_volt = sample.currents[number], sample.voltages[number]
        assert true is not None
        assert of_volt is not None
        assert last(currents[phase]) == pytest.approx(true, abs=AMPERE)
        assert last(loads[phase]) == pytest.approx(100 * true / TN.fuse, abs=100 * AMPERE / TN.fuse)
        assert last(volts[phase]) == pytest.approx(of_volt, abs=VOLT)
    assert last(asked.panel("Last reading", "Age")) == pytest.approx((END - heard(TN)[-1][0]) / 1000, abs=0.6)


def test_the_hour_so_far_and_what_it_comes_to(client: Client) -> None:
    asked = Asked(client, "now", TN)
    begin = NOW.replace(minute=0, second=0)
    before, after = (TN.household.energies(moment)[0] / 3600 for moment in (begin, NOW))
    so_far = (after - before) / 1000
    # The register's last digit is 10 Wh, and each list's power is taken to last until the next one.
    assert last(asked.panel("This hour", "So far")) == pytest.approx(so_far, abs=0.02)
    rest = power(heard(TN)[-1][1]) / 1000 * (HOUR - (NOW - begin)) / HOUR
    assert last(asked.panel("This hour", "Projected")) == pytest.approx(so_far + rest, abs=0.02)


def test_today_against_yesterday_and_a_week_ago(client: Client) -> None:
    asked = Asked(client, "now", TN)
    so_far = last(asked.panel("This hour", "So far"))
    assert last(asked.panel("Today", "Today so far")) == pytest.approx(
        kwh(TN, local(4), local(4, 12)) + so_far, abs=KWH
    )
    assert last(asked.panel("Today", "Yesterday")) == pytest.approx(kwh(TN, local(3), local(3, 13)), abs=KWH)
    truth = kwh(TN, local(28, month=10), local(28, 13, month=10))
    assert last(asked.panel("Today", "A week ago")) == pytest.approx(truth, abs=KWH)


def test_power_over_time(client: Client) -> None:
    asked = Asked(client, "now", TN, "now-24h")
    each = buckets(TN, width_of(asked, "Power"), power, asked.start)
    assert len(each) > 700
    same(rows(asked.panel("Power", "Import")), {time: fmean(values) for time, values in each.items()}, WATT)


def test_a_roof_that_gives(client: Client) -> None:
    exported = heard(SOLAR)[-1][1].power.active_export
    assert exported > 0
    assert last(Asked(client, "now", SOLAR).panel("Power now", "Export")) == pytest.approx(exported, abs=WATT)
    asked = Asked(client, "consumption", SOLAR)
    days = {to_ms(local(day)): kwh(SOLAR, local(day), local(day + 1), "export") for day in (1, 2, 3)}
    days[to_ms(local(4))] = kwh(SOLAR, local(4), local(4, 12), "export")
    given = {day: energy for day, energy in days.items() if energy}
    assert given
    assert rows(asked.panel("Day by day", "Export")) == pytest.approx(given, abs=KWH)


# Consumption


def test_energy_by_hour_day_and_month(client: Client) -> None:
    asked = Asked(client, "consumption", TN)
    today = {time: wh / 1000 for time, wh in hours(TN, local(4), local(4, 12)).items()}
    assert rows(asked.panel("Hour by hour", "Import")) == pytest.approx(today, abs=KWH)
    days = {to_ms(local(day)): kwh(TN, local(day), local(day + 1)) for day in (1, 2, 3)}
    days[to_ms(local(4))] = sum(today.values())
    assert rows(asked.panel("Day by day", "Import")) == pytest.approx(days, abs=KWH)
    months = {to_ms(local(1, month=10)): kwh(TN, local(1, month=10), local(1)), to_ms(local(1)): sum(days.values())}
    assert rows(asked.panel("Month by month", "Import")) == pytest.approx(months, abs=KWH)


def test_days_of_a_month_with_the_one_of_25_hours(client: Client) -> None:
    asked = Asked(client, "consumption", TN, "now-20d")
    found = asked.panel("Days of the chosen time", "A")
    columns = found[0].columns
    import_, count = rows(found, columns.index("Import")), rows(found, columns.index("Hours"))
    day = to_ms(local(25, month=10))
    assert count[day] == 25
    assert import_[day] == pytest.approx(kwh(TN, local(25, month=10), local(26, month=10)), abs=KWH)
    highest = max(hours(TN, local(25, month=10), local(26, month=10)).values()) / 1000
    assert rows(found, columns.index("Highest"))[day] == pytest.approx(highest, abs=KWH)


def test_sum_and_base_load(client: Client) -> None:
    asked = Asked(client, "consumption", TN, "now-30d")
    every = hours(TN, local(1, month=10), local(4, 12))
    chosen = sum(wh for hour, wh in every.items() if hour >= began("consumption", "now-30d")) / 1000
    assert last(asked.panel("Energy in the chosen time", "Import")) == pytest.approx(chosen, abs=KWH)
    ranked = sorted(wh for hour, wh in every.items() if hour > END - 30 * 24 * HOUR_MS)
    tenth = ranked[floor(len(ranked) * 0.1 + 0.5) - 1]
    assert last(asked.panel("Base load")) == pytest.approx(tenth, abs=1)


# Phase balance


def test_currents_over_time(client: Client) -> None:
    asked = Asked(client, "balance", TN, "now-24h")
    highest, mean = (by_phase(asked.panel(title, "$tag_phase")) for title in ("Current, highest", "Current, mean"))
    for phase in PHASES:
        each = buckets(TN, width_of(asked, "Current, mean"), ampere(phase), asked.start)
        same(rows(highest[phase]), {time: max(values) for time, values in each.items()}, AMPERE)
        same(rows(mean[phase]), {time: fmean(values) for time, values in each.items()}, AMPERE)


def test_fuse_and_share_of_the_phases(client: Client) -> None:
    asked = Asked(client, "balance", TN, "now-24h")
    load, share = (by_phase(asked.panel(title)) for title in ("Highest load of the fuse", "Share of the load"))
    for phase in PHASES:
        all_day = [value for values in buckets(TN, 60, ampere(phase), asked.start).values() for value in values]
        assert last(load[phase]) == pytest.approx(100 * max(all_day) / TN.fuse, abs=100 * AMPERE / TN.fuse)
        assert last(share[phase]) == pytest.approx(fmean(all_day), abs=AMPERE)


def test_the_worst_minutes(client: Client) -> None:
    asked = Asked(client, "balance", TN)
    minutes = [(fmean(values), phase) for phase in PHASES for values in buckets(TN, 60, ampere(phase), 0).values()]
    (found,) = asked.panel("The ten worst minutes, 7 days")
    shown = sorted((row[found.columns.index("Current")] for row in found.rows), reverse=True)
    worst = sorted(minutes, reverse=True)[:10]
    assert shown == pytest.approx([value for value, _ in worst], abs=AMPERE)
    above = by_phase(asked.panel("Time above 80 % of the fuse, 7 days"))
    for phase in PHASES:
        surely, perhaps = (
            sum(value >= 0.8 * TN.fuse + at_the_limit for value, of in minutes if of == phase)
            for at_the_limit in (AMPERE, -AMPERE)
        )
        assert surely <= last(above[phase]) / 60 <= perhaps
    assert any(value >= 0.8 * TN.fuse for value, _ in minutes)


def test_unbalance_over_time(client: Client) -> None:
    def unbalance(sample: Sample) -> float | None:
        values = [round(value, 2) for value in sample.currents if value is not None]
        mean = fmean(values)
        return 100 * max(abs(value - mean) for value in values) / mean if mean >= 1 else None

    asked = Asked(client, "balance", TN, "now-24h")
    each = buckets(TN, width_of(asked, "Unbalance of the currents"), unbalance, asked.start)
    same(rows(asked.panel("Unbalance of the currents", "Unbalance")), {at: fmean(v) for at, v in each.items()}, 1.5)


# Capacity charge


def test_peaks_mean_and_step(client: Client) -> None:
    asked = Asked(client, "capacity", TN)
    truth = local_capacity(hours(TN, local(1, month=10), local(4, 12)))
    peaks, mean = truth[2026, 11]
    found = [row for series in asked.panel("Three highest days") for row in series.rows]
    assert sorted((row[1] for row in found), reverse=True) == pytest.approx([wh / 1000 for wh in peaks], abs=KWH)
    assert last(asked.panel("Mean of the three", "Now")) == pytest.approx(mean / 1000, abs=KWH)
    step = next(bound for bound in (2, 5, 10, 15, 20, 25) if mean / 1000 < bound)
    assert last(asked.panel("Step")) == step
    by_month = rows(asked.panel("Month by month", "Mean"))
    months = {to_ms(local(1, month=month)): truth[2026, month][1] / 1000 for month in (10, 11)}
    assert by_month == pytest.approx(months, abs=KWH)


# Power quality


def test_power_factor_and_reactive_power(client: Client) -> None:
    def factor(sample: Sample) -> float | None:
        flows = sample.power
        active, reactive = flows.active_import - flows.active_export, flows.reactive_import - flows.reactive_export
        return abs(active) / hypot(active, reactive)

    asked = Asked(client, "quality", TN, "now-24h")
    each = buckets(TN, width_of(asked, "Power factor"), factor, asked.start)
    same(rows(asked.panel("Power factor", "Total")), {time: fmean(values) for time, values in each.items()}, 0.002)
    each = buckets(TN, width_of(asked, "Reactive power"), lambda sample: sample.power.reactive_import, asked.start)
    same(rows(asked.panel("Reactive power", "Import")), {time: fmean(values) for time, values in each.items()}, WATT)


def test_voltages_of_the_week(client: Client) -> None:
    asked = Asked(client, "quality", SOLAR, "now-24h")
    means = by_phase(asked.panel("Voltage, 10-minute means", "$tag_phase"))
    week = {series.tags["phase"]: series for series in asked.panel("Voltage of the week")}
    inside = by_phase(asked.panel("Week inside the limits"))
    for phase in PHASES:
        day = buckets(SOLAR, 600, volt(phase), asked.start)
        same(rows(means[phase]), {time: fmean(values) for time, values in day.items()}, 0.06)
        each = [fmean(values) for values in buckets(SOLAR, 600, volt(phase), 0).values()]
        shown = dict(zip(week[phase].columns, week[phase].rows[0], strict=True))
        assert shown["Lowest"] == pytest.approx(min(each), abs=0.06)
        assert shown["Mean"] == pytest.approx(fmean(each), abs=0.06)
        assert shown["Highest"] == pytest.approx(max(each), abs=0.06)
        assert all(207 < value < 253 for value in each)
        assert last(inside[phase]) == 100


# Exporter


def test_frames_of_a_minute(client: Client) -> None:
    asked = Asked(client, "exporter", TN, "now-30m")
    rates = rows(asked.panel("Frames"))
    assert len(rates) > 100
    assert fmean(rates.values()) == pytest.approx(6, abs=0.3)
    assert last(asked.panel("Damaged, 24 h")) == last(asked.panel("Lost, 24 h")) == 0


def test_counters_that_begin_again_with_the_process(store: Store) -> None:
    """Two runs of 20 minutes: a damaged frame in each minute of the first, in every other minute of the second."""
    lines = []
    for run, each in enumerate((6, 12)):
        for tick in range(120):
            fields = {"frames": tick, "rejects_fcs": tick // each, "lines_rejected": 2 * run * (tick > 60)}
            lines.append(exporter_line(TN.name, fields, END - (2 - run) * 20 * 60_000 + tick * 10_000))
    writer = store.client()
    assert writer.write(lines).verdict is Verdict.TAKEN
    asked = Asked(writer, "exporter", TN, "now-1h")
    assert last(asked.panel("Damaged, 24 h")) == 19 + 9
    assert last(asked.panel("Damaged frames by reason, 24 h", "Damaged")) == 19 + 9
    assert sum(rows(asked.panel("Damaged frames")).values()) == 19 + 9
    assert last(asked.panel("Lost, 24 h")) == 2
    assert set(rows(asked.panel("Frames")).values()) == {6}
    writer.close()
