"""`han-exporter report` as a user runs it, from hours in a real InfluxDB."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from tests.e2e.harness import Home
from tests.support.influx_server import Influx, LocalInflux, Store

OSLO = ZoneInfo("Europe/Oslo")
HOUR = 3_600_000


def at(year: int, month: int, day: int = 1, hour: int = 0, *, fold: int = 0) -> int:
    """A local time -> ms."""
    return int(datetime(year, month, day, hour, tzinfo=OSLO, fold=fold).timestamp()) * 1000


OCTOBER, NOVEMBER = at(2024, 10), at(2024, 11)
MONTH = range(OCTOBER, NOVEMBER, HOUR)
SECOND_TWO = at(2024, 10, 27, 2, fold=1)
MISSING = (at(2024, 10, 3, 4), at(2024, 10, 3, 5))


def hours(meter: str, energies: Mapping[int, float], direction: str = "import") -> Iterator[str]:
    for start, wh in energies.items():
        local = datetime.fromtimestamp(start / 1000, OSLO)
        tags = f"hour={local:%H},kind=final,meter_id={meter},weekday={local.isoweekday()}"
        yield f"hour_energy,direction={direction},{tags} value={wh} {start}"


def write(influx: Influx, *lines: str) -> None:
    client = influx.client()
    try:
        assert not client.write(lines).message
    finally:
        client.close()


@pytest.fixture
def meter(store: Store, mark: str) -> str:
    """A meter with 1 kWh an hour in October 2024. Two hours are missing, and four hours on three days are higher."""
    meter = f"METER-{mark}"
    energies = {hour: 1000.0 for hour in MONTH if hour not in MISSING}
    energies |= {
        SECOND_TWO: 4120.0,
        at(2024, 10, 9, 17): 3000.0,
        at(2024, 10, 9, 18): 2999.0,
        at(2024, 10, 31, 23): 2500.0,
    }
    in_other_months = {OCTOBER - HOUR: 9999.0, NOVEMBER: 9999.0}
    so_far = f"hour_energy,direction=import,kind=so_far,meter_id={meter} value=8888.0 {at(2024, 10, 3, 4)}"
    write(store, *hours(meter, energies | in_other_months), so_far)
    return meter


def test_text_for_a_person(home: Home, store: Store, meter: str) -> None:
    done = home.han("report", "--month", "2024-10", "--meter", meter, influx=store)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"Meter {meter}, October 2024, Europe/Oslo"
    assert len([line for line in lines if " 2024-10-" in line[:15] and line[0] != " "]) == 31
    assert "Thu 2024-10-03      22.000             1.000  00:00        2 of 24" in lines
    assert "Sun 2024-10-27      28.120             4.120  02:00+01:00  -" in lines  # 24 x 1.000 + 4.120
    assert any(line.startswith("October 2024: 743 of 745 ") and "2 missing" in line for line in lines)
    # 739 x 1000 + 4120 + 3000 + 2999 + 2500
    assert any(line.startswith("  import             751.619 kWh") for line in lines)
    assert "  1.                   4.120 kWh  Sun 2024-10-27 02:00+01:00" in lines
    assert "  2.                   3.000 kWh  Wed 2024-10-09 17:00" in lines
    assert "  3.                   2.500 kWh  Thu 2024-10-31 23:00" in lines
    assert "  mean              3.206667 kWh  step 2-5 kW" in lines
    assert "  Thu 2024-10-03 04:00 to Thu 2024-10-03 06:00, 2 hours" in lines
    assert lines[-1].startswith("Note: ")
    assert "day_energy" in lines[-1]


def test_csv_and_json(home: Home, store: Store, meter: str) -> None:
    done = home.han("report", "--month", "2024-10", "--meter", meter, "--csv", influx=store)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 745
    assert [row["start"] for row in rows if not row["import_wh"]] == [
        "2024-10-03T04:00:00+02:00",
        "2024-10-03T05:00:00+02:00",
    ]
    assert sum(int(row["import_wh"] or 0) for row in rows) == 751_619
    assert "Note on meter" in done.stderr
    done = home.han("report", "--month", "2024-10", "--meter", meter, "--json", influx=store)
    (found,) = json.loads(done.stdout)["meters"]
    assert (found["hours_known"], found["hours_missing"], found["import_wh"]) == (743, 2, 751_619)
    assert [peak["wh"] for peak in found["capacity"]["peaks"]] == [4120, 3000, 2500]


def test_spring_has_a_day_of_23_hours(home: Home, store: Store, mark: str) -> None:
    march = range(at(2024, 3), at(2024, 4), HOUR)
    write(store, *hours(f"METER-{mark}", dict.fromkeys(march, 500.0)))
    done = home.han("report", "--month", "2024-03", "--meter", f"METER-{mark}", "--json", influx=store)
    (found,) = json.loads(done.stdout)["meters"]
    assert (found["hours_known"], found["import_wh"]) == (743, 371_500)
    assert found["days"][30]["hours_known"] == 23
    assert "2024-03-31T02:00:00+01:00" not in [hour["start"] for hour in found["hours"]]


def test_each_meter_is_reported_and_export_if_there_is_any(home: Home, store: Store, meter: str) -> None:
    solar = f"{meter}-SOLAR"
    write(
        store,
        *hours(solar, dict.fromkeys(MONTH, 10.0)),
        *hours(solar, dict.fromkeys(MONTH, 2.0), "export"),
        *hours(meter, dict.fromkeys(MONTH, 0.0), "export"),
    )
    done = home.han("report", "--month", "2024-10", influx=store)
    assert done.returncode == 0
    first, second = done.stdout[done.stdout.index(f"Meter {meter},") :].split(f"Meter {solar},")
    assert "export" not in first
    assert "Sun 2024-10-27       0.250       0.050" in second
    assert "  export               1.490 kWh" in second


def test_what_is_stored_is_compared_with_the_hours(home: Home, store: Store, mark: str) -> None:
    meter = f"METER-{mark}"
    write(
        store,
        *hours(meter, {OCTOBER: 1000.0, OCTOBER + HOUR: 3000.0}),
        f"day_energy,direction=import,meter_id={meter} value=4000.0,hours=2.0 {OCTOBER}",
        f"month_energy,direction=import,meter_id={meter} value=1000.0,hours=1.0 {OCTOBER}",
        f"capacity,kind=peak1,meter_id={meter} value=3000.0,hour={float(OCTOBER + HOUR)} {OCTOBER}",
        f"capacity,kind=mean,meter_id={meter} value=3000.0 {OCTOBER}",
        f"capacity,kind=projected,meter_id={meter} value=7000.0 {OCTOBER + 5}",
        f"capacity_step,meter_id={meter} value=5000.0 {OCTOBER}",
    )
    done = home.han("report", "--month", "2024-10", "--meter", meter, "--json", influx=store)
    (found,) = json.loads(done.stdout)["meters"]
    [note] = found["notes"]
    assert note.startswith("month_energy import ")
    assert " 1.000 kWh of 1 hour," in note
    assert note.endswith(" 4.000 kWh of 2 hours")


def test_an_hour_that_was_also_written_in_another_time_zone(home: Home, store: Store, mark: str) -> None:
    meter = f"METER-{mark}"
    other = f"hour_energy,direction=import,hour=22,kind=final,meter_id={meter},weekday=1 value=900.0 {OCTOBER}"
    write(store, *hours(meter, {OCTOBER: 1000.0}), other)
    done = home.han("report", "--month", "2024-10", "--meter", meter, "--json", influx=store)
    (found,) = json.loads(done.stdout)["meters"]
    assert found["import_wh"] == 1000
    assert "2024-10-01 00:00 (import)" in found["notes"][0]
    assert "HAN_TIMEZONE" in found["notes"][0]


def test_the_current_month_is_the_default(home: Home, store: Store, mark: str) -> None:
    now = datetime.now(OSLO)
    start = at(now.year, now.month)
    write(store, *hours(f"METER-{mark}", {start: 1000.0}))
    done = home.han("report", "--meter", f"METER-{mark}", "--json", influx=store)
    (found,) = json.loads(done.stdout)["meters"]
    assert found["month"] == f"{now:%Y-%m}"
    assert found["hours"][0]["import_wh"] == 1000


def test_without_data_it_lists_the_months_that_have_some(home: Home, store: Store, meter: str) -> None:
    write(store, *hours(meter, {at(2025, 2): 1.0}))
    done = home.han("report", "--month", "2025-07", "--meter", meter, influx=store)
    assert (done.returncode, done.stdout) == (1, "")
    no_data, *months = done.stderr.splitlines()
    assert "July 2025" in no_data
    assert meter in no_data
    assert [line.partition(": ")[2] for line in months] == ["2024-09, 2024-10, 2024-11, 2025-02"]
    done = home.han("report", "--month", "2024-10", "--meter", "nobody", influx=store)
    assert done.returncode == 1
    assert any(meter in line and "2024-09" in line for line in done.stderr.splitlines())


@pytest.mark.parametrize("wrong", ["2024", "2024-13", "October", "2024-1", "0000-01"])
def test_a_month_that_is_not_one(home: Home, wrong: str) -> None:
    done = home.han("report", "--month", wrong)
    assert done.returncode == 2
    assert "2026-10" in done.stderr


def test_both_formats_at_once(home: Home) -> None:
    done = home.han("report", "--csv", "--json")
    assert done.returncode == 2
    assert "not both" in done.stderr


def test_without_an_influxdb(home: Home) -> None:
    done = home.han("report")
    assert done.returncode == 2
    assert "HAN_INFLUX_URL" in done.stderr
    done = home.han("report", influx_url="http://127.0.0.1:9")
    assert done.returncode == 2
    assert "connection refused" in done.stderr


def test_a_bucket_that_does_not_exist_or_may_not_be_read(home: Home, store: Store) -> None:
    done = home.han("report", influx=store, influx_bucket="no_such_bucket")
    assert done.returncode == 2
    assert "database not found" in done.stderr or "not executed" in done.stderr
    assert "HAN_INFLUX_BUCKET" in done.stderr
    assert "HAN_INFLUX_TOKEN_FILE" in done.stderr
    done = home.han("report", influx=store, influx_token="nobody:wrong")
    assert done.returncode == 2
    assert "HAN_INFLUX_TOKEN_FILE" in done.stderr
    assert "HAN_INFLUX_BUCKET" not in done.stderr


def test_a_user_who_may_only_write(home: Home, influx: Influx) -> None:
    if not isinstance(influx, LocalInflux):
        pytest.skip("only InfluxDB 1.8 can create the user")
    influx.admin("CREATE USER writer WITH PASSWORD 'secret'")
    influx.admin(f"GRANT WRITE ON {influx.bucket} TO writer")
    done = home.han("report", influx=influx, influx_token="writer:secret")
    assert done.returncode == 2
    assert "HAN_INFLUX_TOKEN_FILE" in done.stderr
