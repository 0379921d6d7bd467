"""The capacity charge of simulated months: the exporter's points, plain Python, and a nested query in InfluxQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from tests.support.influx_server import Store
from tests.support.years import HOUR, OSLO, Exporter, Meter, local_capacity, ms

CHANGES = [(2025, 3), (2025, 10)]
OTHERS = [(year, month) for year in (2024, 2025) for month in range(1, 13) if (year, month) not in CHANGES]
MONTHS = [*CHANGES, *Random(20251026).sample(OTHERS, 8)]
"""The months of 23 and 25 hours, and eight more."""


def start_of(year: int, month: int) -> datetime:
    return datetime(year + (month - 1) // 12, (month - 1) % 12 + 1, 1, tzinfo=OSLO).astimezone(UTC)


def lists_of(meter: Meter, year: int, month: int, random: Random) -> list[datetime]:
    """The hours of a local month and its end. Some are missing, and all of some days."""
    hours, hour = [], start_of(year, month)
    while hour <= start_of(year, month + 1):
        hours.append(hour)
        hour += HOUR
    days = {hour.astimezone(OSLO).date() for hour in hours}
    left_out = set(random.sample(sorted(days), 3))
    return [hour for hour in hours if random.random() > 0.04 and hour.astimezone(OSLO).date() not in left_out]


@pytest.mark.parametrize(("year", "month"), MONTHS)
def test_capacity_of_a_month(store: Store, year: int, month: int) -> None:
    random = Random(year * 12 + month)
    meter = Meter("kaifa", seed=random.randrange(1000), meter_id=f"69706314{random.randrange(10**8):08d}")
    exporter = Exporter()
    for hour in lists_of(meter, year, month, random):
        one = meter.hourly(hour)
        exporter.read(one.frame, one.received)
    exporter.stop()
    client = store.client()
    lines = [f"{series} {fields} {time}" for (series, time), fields in exporter.written.points.items()]
    for at in range(0, len(lines), 5000):
        assert client.write(lines[at : at + 5000]).verdict.name == "TAKEN"
    client.close()

    finals = exporter.written.finals(meter_id=meter.meter_id)
    assert 500 < len(finals) < 745
    (peaks, mean), *more = local_capacity(finals).values()
    assert not more, "hours of one local month"
    start, end = ms(start_of(year, month)), ms(start_of(year, month + 1))
    of_meter = f"WHERE meter_id = '{meter.meter_id}' AND time >= {start}ms AND time < {end}ms"

    written = {
        s.tags["kind"]: s.rows for s in store.query(f"SELECT value, hour FROM capacity {of_meter} GROUP BY kind")
    }
    assert written["mean"] == ((start, pytest.approx(mean), None),)
    for place, peak in enumerate(peaks, 1):
        ((at, wh, peak_hour),) = written[f"peak{place}"]
        assert (at, wh) == (start, peak)
        assert finals[int(peak_hour)] == peak

    hours = f"FROM hour_energy {of_meter} AND direction = 'import' AND kind = 'final'"
    days = f"SELECT max(value) AS day {hours} GROUP BY time(1d) fill(none)"
    (series,) = store.query(f"SELECT mean(top) FROM (SELECT top(day, 3) FROM ({days})) tz('Europe/Oslo')")
    assert series.rows[0][1] == pytest.approx(mean)
    (series,) = store.query(f"SELECT top(day, 3) FROM ({days}) tz('Europe/Oslo')")
    assert sorted((row[1] for row in series.rows), reverse=True) == peaks
    (series,) = store.query(f"{days} tz('Europe/Oslo')")
    longest = {datetime.fromtimestamp(at / 1000, OSLO).time().isoformat() for at, _ in series.rows}
    assert longest == {"00:00:00"}, "days in InfluxDB are local, also when the clock changes"
    (series,) = store.query(f"SELECT sum(value), count(value) {hours}")
    (total,) = store.query(f"SELECT value, hours FROM month_energy {of_meter} AND direction = 'import'")
    assert total.rows == ((start, series.rows[0][1], float(series.rows[0][2])),)


def test_the_months_have_all_lengths() -> None:
    lengths = {(start_of(y, m + 1) - start_of(y, m)) / timedelta(hours=1) for y, m in MONTHS}
    assert {31 * 24 - 1, 31 * 24 + 1} < lengths
