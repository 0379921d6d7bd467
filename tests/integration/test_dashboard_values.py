"""What panels show is what the house used: InfluxDB's answers are compared with the simulator's household.

The true values are calculated here in plain Python, from Household.sample and its registers at the moments at which the
meter sent a list, without exporter/derive.
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
from tests.support.dashboards import END, Shown, began
from tests.support.houses import NOW, SOLAR, TN, ZONE, House
from tests.support.influx_server import Store
from tests.support.years import local_capacity

HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000
WIRE_S = 10 / 2400
PHASES = ("L1", "L2", "L3")
AMPERE = 0.011
"""Half of the last digit that the meter sends, of A, of V, and of Wh."""
VOLT = 0.51
WATT = 0.51
KWH = 1e-6


@pytest.fixture(scope="module")
def client(simulated: Store) -> Iterator[Client]:
    found = simulated.client()
    yield found
    found.close()


# The true values


@cache
def samples_of(house: House) -> tuple[tuple[int, Sample], ...]:
    """The lists of the last week: when each was received (ms), and what the house used when it was sent."""
    found = []
    for frame in house.lists(NOW):
        if frame.complete > NOW - timedelta(days=7):
            began_at = frame.complete - timedelta(seconds=WIRE_S * len(frame.data))
            found.append((to_ms(frame.complete), house.household.sample(began_at + timedelta(milliseconds=1))))
    return tuple(found)


def local(day: int, hour: int = 0, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=ZONE).astimezone(UTC)


def register(house: House, moment: datetime, direction: str = "import") -> int:
    """The meter's register of import (or export), Wh, in steps of 10 Wh as Kamstrup and Aidon send it."""
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
    """A figure of each list, by the start of the interval in which it was received (ms)."""
    found: dict[int, list[float]] = {}
    width = round(width_s * 1000)
    for ms, sample in samples_of(house):
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


# Answers of InfluxDB


def rows(series: list[Series], column: int = 1) -> dict[int, float]:
    """Time -> value."""
    return {row[0]: row[column] for one in series for row in one.rows if row[column] is not None}


def last(series: list[Series]) -> float:
    """The last value, as a figure shows it."""
    return list(rows(series).values())[-1]


def by_phase(series: list[Series]) -> dict[str, list[Series]]:
    return {one.tags["phase"]: [one] for one in series}


def width_of(shown: Shown, title: str) -> float:
    query = next(query for query in shown.queries if query.panel == title)
    return query.interval_s(*query.range(shown.start, END, "Europe/Oslo"))


def same(found: Mapping[int, float], truth: Mapping[int, float], exactly: float) -> None:
    """Both are equal, except for one interval that the time range cuts."""
    assert len(found.keys() ^ truth.keys()) <= 1
    both = found.keys() & truth.keys()
    assert len(both) > 0
    assert {key: found[key] for key in both} == pytest.approx({key: truth[key] for key in both}, abs=exactly)


# Now


def test_figures_of_now(client: Client) -> None:
    shown = Shown(client, "now", TN)
    sample = samples_of(TN)[-1][1]
    assert last(shown.panel("Power now", "Import")) == pytest.approx(power(sample), abs=WATT)
    currents, loads, volts = (
        by_phase(shown.panel(title)) for title in ("Phases and main fuse", "Highest phase", "Voltage")
    )
    assert currents.keys() == loads.keys() == volts.keys() == set(PHASES)
    for number, phase in enumerate(PHASES):
        true, of_volt = sample.currents[number], sample.voltages[number]
        assert true is not None
        assert of_volt is not None
        assert last(currents[phase]) == pytest.approx(true, abs=AMPERE)
        assert last(loads[phase]) == pytest.approx(100 * true / TN.fuse, abs=100 * AMPERE / TN.fuse)
        assert last(volts[phase]) == pytest.approx(of_volt, abs=VOLT)
    assert last(shown.panel("Last reading", "Age")) == pytest.approx((END - samples_of(TN)[-1][0]) / 1000, abs=0.6)


def test_the_hour_so_far_and_its_projection(client: Client) -> None:
    shown = Shown(client, "now", TN)
    begin = NOW.replace(minute=0, second=0)
    before, after = (TN.household.energies(moment)[0] / 3600 for moment in (begin, NOW))
    so_far = (after - before) / 1000
    # The register has steps of 10 Wh, and the power of a list counts until the next list.
    assert last(shown.panel("This hour", "So far")) == pytest.approx(so_far, abs=0.02)
    rest = power(samples_of(TN)[-1][1]) / 1000 * (HOUR - (NOW - begin)) / HOUR
    assert last(shown.panel("This hour", "Projected")) == pytest.approx(so_far + rest, abs=0.02)


def test_today_yesterday_and_a_week_ago(client: Client) -> None:
    shown = Shown(client, "now", TN)
    so_far = last(shown.panel("This hour", "So far"))
    assert last(shown.panel("Today", "Today so far")) == pytest.approx(
        kwh(TN, local(4), local(4, 12)) + so_far, abs=KWH
    )
    assert last(shown.panel("Today", "Yesterday")) == pytest.approx(kwh(TN, local(3), local(3, 13)), abs=KWH)
    truth = kwh(TN, local(28, month=10), local(28, 13, month=10))
    assert last(shown.panel("Today", "A week ago")) == pytest.approx(truth, abs=KWH)


def test_power_over_time(client: Client) -> None:
    shown = Shown(client, "now", TN, "now-24h")
    each = buckets(TN, width_of(shown, "Power"), power, shown.start)
    assert len(each) > 700
    same(rows(shown.panel("Power", "Import")), {time: fmean(values) for time, values in each.items()}, WATT)


def test_export_of_a_house_with_solar_panels(client: Client) -> None:
    exported = samples_of(SOLAR)[-1][1].power.active_export
    assert exported > 0
    assert last(Shown(client, "now", SOLAR).panel("Power now", "Export")) == pytest.approx(exported, abs=WATT)
    shown = Shown(client, "consumption", SOLAR)
    days = {to_ms(local(day)): kwh(SOLAR, local(day), local(day + 1), "export") for day in (1, 2, 3)}
    days[to_ms(local(4))] = kwh(SOLAR, local(4), local(4, 12), "export")
    given = {day: energy for day, energy in days.items() if energy}
    assert given
    assert rows(shown.panel("Day by day", "Export")) == pytest.approx(given, abs=KWH)


# Consumption


def test_energy_by_hour_day_and_month(client: Client) -> None:
    shown = Shown(client, "consumption", TN)
    today = {time: wh / 1000 for time, wh in hours(TN, local(4), local(4, 12)).items()}
    assert rows(shown.panel("Hour by hour", "Import")) == pytest.approx(today, abs=KWH)
    days = {to_ms(local(day)): kwh(TN, local(day), local(day + 1)) for day in (1, 2, 3)}
    days[to_ms(local(4))] = sum(today.values())
    assert rows(shown.panel("Day by day", "Import")) == pytest.approx(days, abs=KWH)
    months = {to_ms(local(1, month=10)): kwh(TN, local(1, month=10), local(1)), to_ms(local(1)): sum(days.values())}
    assert rows(shown.panel("Month by month", "Import")) == pytest.approx(months, abs=KWH)


def test_days_of_a_month_with_a_day_of_25_hours(client: Client) -> None:
    shown = Shown(client, "consumption", TN, "now-20d")
    found = shown.panel("Days of the chosen time", "A")
    columns = found[0].columns
    import_, count = rows(found, columns.index("Import")), rows(found, columns.index("Hours"))
    day = to_ms(local(25, month=10))
    assert count[day] == 25
    assert import_[day] == pytest.approx(kwh(TN, local(25, month=10), local(26, month=10)), abs=KWH)
    highest = max(hours(TN, local(25, month=10), local(26, month=10)).values()) / 1000
    assert rows(found, columns.index("Highest"))[day] == pytest.approx(highest, abs=KWH)


def test_sum_and_base_load(client: Client) -> None:
    shown = Shown(client, "consumption", TN, "now-30d")
    every = hours(TN, local(1, month=10), local(4, 12))
    chosen = sum(wh for hour, wh in every.items() if hour >= began("consumption", "now-30d")) / 1000
    assert last(shown.panel("Energy in the chosen time", "Import")) == pytest.approx(chosen, abs=KWH)
    ranked = sorted(wh for hour, wh in every.items() if hour > END - 30 * 24 * HOUR_MS)
    tenth = ranked[floor(len(ranked) * 0.1 + 0.5) - 1]
    assert last(shown.panel("Base load")) == pytest.approx(tenth, abs=1)


# Phase balance


def test_currents_over_time(client: Client) -> None:
    shown = Shown(client, "balance", TN, "now-24h")
    highest, mean = (by_phase(shown.panel(title, "$tag_phase")) for title in ("Current, highest", "Current, mean"))
    for phase in PHASES:
        each = buckets(TN, width_of(shown, "Current, mean"), ampere(phase), shown.start)
        same(rows(highest[phase]), {time: max(values) for time, values in each.items()}, AMPERE)
        same(rows(mean[phase]), {time: fmean(values) for time, values in each.items()}, AMPERE)


def test_fuse_and_share_of_the_phases(client: Client) -> None:
    shown = Shown(client, "balance", TN, "now-24h")
    load, share = (by_phase(shown.panel(title)) for title in ("Highest load of the fuse", "Share of the load"))
    for phase in PHASES:
        all_day = [value for values in buckets(TN, 60, ampere(phase), shown.start).values() for value in values]
        assert last(load[phase]) == pytest.approx(100 * max(all_day) / TN.fuse, abs=100 * AMPERE / TN.fuse)
        assert last(share[phase]) == pytest.approx(fmean(all_day), abs=AMPERE)


def test_the_worst_minutes(client: Client) -> None:
    shown = Shown(client, "balance", TN)
    minutes = [(fmean(values), phase) for phase in PHASES for values in buckets(TN, 60, ampere(phase), 0).values()]
    (found,) = shown.panel("The ten worst minutes, 7 days")
    currents = sorted((row[found.columns.index("Current")] for row in found.rows), reverse=True)
    worst = sorted(minutes, reverse=True)[:10]
    assert currents == pytest.approx([value for value, _ in worst], abs=AMPERE)
    above = by_phase(shown.panel("Time above 80 % of the fuse, 7 days"))
    for phase in PHASES:
        least, most = (
            sum(value >= 0.8 * TN.fuse + at_the_limit for value, of in minutes if of == phase)
            for at_the_limit in (AMPERE, -AMPERE)
        )
        assert least <= last(above[phase]) / 60 <= most
    assert any(value >= 0.8 * TN.fuse for value, _ in minutes)


def test_unbalance_over_time(client: Client) -> None:
    def unbalance(sample: Sample) -> float | None:
        values = [round(value, 2) for value in sample.currents if value is not None]
        mean = fmean(values)
        return 100 * max(abs(value - mean) for value in values) / mean if mean >= 1 else None

    shown = Shown(client, "balance", TN, "now-24h")
    each = buckets(TN, width_of(shown, "Unbalance of the currents"), unbalance, shown.start)
    same(rows(shown.panel("Unbalance of the currents", "Unbalance")), {at: fmean(v) for at, v in each.items()}, 1.5)


# Capacity charge


def test_peaks_mean_and_step(client: Client) -> None:
    shown = Shown(client, "capacity", TN)
    truth = local_capacity(hours(TN, local(1, month=10), local(4, 12)))
    peaks, mean = truth[2026, 11]
    found = [row for series in shown.panel("Three highest days") for row in series.rows]
    assert sorted((row[1] for row in found), reverse=True) == pytest.approx([wh / 1000 for wh in peaks], abs=KWH)
    assert last(shown.panel("Mean of the three", "Now")) == pytest.approx(mean / 1000, abs=KWH)
    step = next(bound for bound in (2, 5, 10, 15, 20, 25) if mean / 1000 < bound)
    assert last(shown.panel("Step")) == step
    by_month = rows(shown.panel("Month by month", "Mean"))
    months = {to_ms(local(1, month=month)): truth[2026, month][1] / 1000 for month in (10, 11)}
    assert by_month == pytest.approx(months, abs=KWH)


# Power quality


def test_power_factor_and_reactive_power(client: Client) -> None:
    def factor(sample: Sample) -> float | None:
        flows = sample.power
        active, reactive = flows.active_import - flows.active_export, flows.reactive_import - flows.reactive_export
        return abs(active) / hypot(active, reactive)

    shown = Shown(client, "quality", TN, "now-24h")
    each = buckets(TN, width_of(shown, "Power factor"), factor, shown.start)
    same(rows(shown.panel("Power factor", "Total")), {time: fmean(values) for time, values in each.items()}, 0.002)
    each = buckets(TN, width_of(shown, "Reactive power"), lambda sample: sample.power.reactive_import, shown.start)
    same(rows(shown.panel("Reactive power", "Import")), {time: fmean(values) for time, values in each.items()}, WATT)


def test_voltages_of_the_week(client: Client) -> None:
    shown = Shown(client, "quality", SOLAR, "now-24h")
    means = by_phase(shown.panel("Voltage, 10-minute means", "$tag_phase"))
    week = {series.tags["phase"]: series for series in shown.panel("Voltage of the week")}
    inside = by_phase(shown.panel("Week inside the limits"))
    for phase in PHASES:
        day = buckets(SOLAR, 600, volt(phase), shown.start)
        same(rows(means[phase]), {time: fmean(values) for time, values in day.items()}, 0.06)
        each = [fmean(values) for values in buckets(SOLAR, 600, volt(phase), 0).values()]
        figures = dict(zip(week[phase].columns, week[phase].rows[0], strict=True))
        assert figures["Lowest"] == pytest.approx(min(each), abs=0.06)
        assert figures["Mean"] == pytest.approx(fmean(each), abs=0.06)
        assert figures["Highest"] == pytest.approx(max(each), abs=0.06)
        assert all(207 < value < 253 for value in each)
        assert last(inside[phase]) == 100


# Exporter


def test_frames_of_a_minute(client: Client) -> None:
    shown = Shown(client, "exporter", TN, "now-30m")
    rates = rows(shown.panel("Frames"))
    assert len(rates) > 100
    assert fmean(rates.values()) == pytest.approx(6, abs=0.3)
    assert last(shown.panel("Damaged, 24 h")) == last(shown.panel("Lost, 24 h")) == 0


def test_counters_that_start_at_0_with_the_process(store: Store) -> None:
    """Two runs of 20 minutes: a damaged frame in every minute of the first, and in every second minute of the other."""
    lines = []
    for run, each in enumerate((6, 12)):
        for tick in range(120):
            fields = {"frames": tick, "rejects_fcs": tick // each, "lines_rejected": 2 * run * (tick > 60)}
            lines.append(exporter_line(TN.name, fields, END - (2 - run) * 20 * 60_000 + tick * 10_000))
    writer = store.client()
    assert writer.write(lines).verdict is Verdict.TAKEN
    shown = Shown(writer, "exporter", TN, "now-1h")
    assert last(shown.panel("Damaged, 24 h")) == 19 + 9
    assert last(shown.panel("Damaged frames by reason, 24 h", "Damaged")) == 19 + 9
    assert sum(rows(shown.panel("Damaged frames")).values()) == 19 + 9
    assert last(shown.panel("Lost, 24 h")) == 2
    assert set(rows(shown.panel("Frames")).values()) == {6}
    writer.close()
