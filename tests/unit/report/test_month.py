"""The report of a month, compared with figures that were calculated by hand."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from exporter.derive.sums import EnergySum
from exporter.report.forms import as_csv, as_object, as_text
from exporter.report.month import MonthReport, Stored, build, clock_time, disagreements, kwh

OSLO = ZoneInfo("Europe/Oslo")
HOUR = 3_600_000
STEPS = [2000.0, 5000.0, 10_000.0]
METER = "5706567100012345"


def utc(text: str) -> int:
    """ "2026-10-24 22:00" in UTC -> ms."""
    return int(datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp()) * 1000


OCTOBER, NOVEMBER = utc("2026-09-30 22:00"), utc("2026-10-31 23:00")
MARCH, APRIL = utc("2026-02-28 23:00"), utc("2026-03-31 22:00")
FIRST_TWO, SECOND_TWO = utc("2026-10-25 00:00"), utc("2026-10-25 01:00")
LATER = utc("2027-01-01 00:00")


def report(
    imported: Mapping[int, float],
    exported: Mapping[int, float] | None = None,
    *,
    month: int = OCTOBER,
    now: int = LATER,
) -> MonthReport:
    energies = {"import": imported} | ({"export": exported} if exported else {})
    return build(METER, energies, month=month, zone=OSLO, steps_w=STEPS, now=now)


def october(*missing: int) -> dict[int, float]:
    """1000 Wh in each hour of October 2026, but 2500 from 02:00 to 03:00 when that hour occurs for the second time."""
    hours = dict.fromkeys(range(OCTOBER, NOVEMBER, HOUR), 1000.0)
    hours[SECOND_TWO] = 2500.0
    return {hour: wh for hour, wh in hours.items() if hour not in missing}


@pytest.mark.parametrize(
    ("month", "hours", "odd_day", "of_the_day"), [(OCTOBER, 745, 25, 25), (MARCH, 743, 29, 23), (NOVEMBER, 720, 1, 24)]
)
def test_a_month_has_the_hours_of_its_days(month: int, hours: int, odd_day: int, of_the_day: int) -> None:
    whole = report({month: 1.0}, month=month)
    assert len(whole.hours) == hours
    assert len(whole.days[odd_day - 1].hours) == of_the_day
    assert whole.to_come == 0


def test_sums_and_highest_hour_of_a_day_of_25_hours() -> None:
    day = report(october()).days[24]
    assert day.imported == EnergySum(26_500.0, 25)  # 24 x 1000 + 2500
    assert day.highest is not None
    assert day.highest.start == SECOND_TWO


def test_the_hour_that_occurs_twice_is_shown_unambiguously() -> None:
    assert clock_time(FIRST_TWO, OSLO) == "02:00+02:00"
    assert clock_time(SECOND_TWO, OSLO) == "02:00+01:00"
    assert clock_time(SECOND_TWO + HOUR, OSLO) == "03:00"
    assert clock_time(utc("2026-03-29 01:00"), OSLO) == "03:00"  # 02:00 does not occur at all


def test_a_missing_hour_is_counted_and_is_not_zero() -> None:
    found = report(october(FIRST_TWO, OCTOBER))
    assert [hour.start for hour in found.missing] == [OCTOBER, FIRST_TWO]
    assert found.imported == EnergySum(744_500.0, 743)  # 742 x 1000 + 2500
    assert found.hours[0].import_wh is None
    assert found.days[24].imported == EnergySum(25_500.0, 24)


def test_missing_hours_are_listed_as_spans_across_midnight() -> None:
    night = [utc("2026-10-24 21:00") + hour * HOUR for hour in range(4)]  # from 23:00, 00:00, 01:00, 02:00+02:00
    found = report(october(*night, NOVEMBER - HOUR))
    assert list(found.gaps()) == [(night[0], night[-1] + HOUR), (NOVEMBER - HOUR, NOVEMBER)]
    text = as_text(found, [])
    assert "October 2026: 740 of 745 " in text
    assert "5 missing\n" in text
    assert "  Sat 2026-10-24 23:00 to Sun 2026-10-25 02:00+01:00, 4 hours\n" in text
    assert "  Sat 2026-10-31 23:00\n" in text


def test_a_day_without_any_hour_says_missing() -> None:
    day = range(utc("2026-10-09 22:00"), utc("2026-10-10 22:00"), HOUR)
    found = report(october(*day))
    assert found.days[9].imported is None
    assert "Sat 2026-10-10     missing                                 24 of 24\n" in as_text(found, [])


def test_capacity_is_the_mean_of_the_three_highest_days() -> None:
    hours = october()
    hours[OCTOBER + 17 * HOUR] = 4321.0
    hours[OCTOBER + 18 * HOUR] = 4320.0  # the same day: does not count
    hours[OCTOBER + (24 * 9 + 7) * HOUR] = 9000.0
    found = report(hours)
    assert found.capacity is not None
    assert [peak.wh for peak in found.capacity.peaks] == [9000.0, 4321.0, 2500.0]
    assert found.capacity.mean == pytest.approx(15_821 / 3)
    assert found.step_w == 10_000.0
    text = as_text(found, [])
    assert "  1.                   9.000 kWh  Sat 2026-10-10 07:00\n" in text
    assert "  3.                   2.500 kWh  Sun 2026-10-25 02:00+01:00\n" in text
    assert "  mean              5.273667 kWh  step 5-10 kW\n" in text


def test_above_the_last_step() -> None:
    found = report({OCTOBER: 12_000.0})
    assert found.step_w is None
    assert "above the last step, 10 kW" in as_text(found, [])
    assert as_object(found, [])["capacity"]["step_w"] is None


def test_hours_of_the_running_month_that_are_to_come_are_not_missing() -> None:
    now = utc("2026-10-02 09:03")
    hours = {hour: wh for hour, wh in october().items() if hour < utc("2026-10-02 08:00")}
    found = report(hours, now=now)
    assert (len(found.hours), len(found.missing)) == (34, 0)  # the hour from 08:00 may still arrive
    assert found.to_come == 745 - 34
    text = as_text(found, [])
    assert all(figure in text for figure in ("34 of 34 ", "0 missing", "711 hours "))
    later = report(hours, now=now + 2 * 60_000)
    assert [hour.start for hour in later.missing] == [utc("2026-10-02 08:00")]


def test_export_is_shown_if_there_is_any() -> None:
    zero = as_text(report(october(), dict.fromkeys(october(), 0.0)), [])
    assert "export" not in zero
    some = as_text(report(october(), {OCTOBER + 12 * HOUR: 800.0}), [])
    assert "Thu 2026-10-01      24.000       0.800" in some
    assert "Fri 2026-10-02      24.000     missing" in some
    assert "  export               0.800 kWh\n" in some


def test_csv_has_a_row_for_each_hour_and_is_empty_where_nothing_is_known() -> None:
    found = report(october(OCTOBER), {OCTOBER + HOUR: 7.0})
    rows = list(csv.DictReader(io.StringIO(as_csv([found]))))
    assert len(rows) == 745
    assert rows[0] == {
        "meter_id": METER,
        "start": "2026-10-01T00:00:00+02:00",
        "start_utc": "2026-09-30T22:00:00Z",
        "import_wh": "",
        "export_wh": "",
    }
    assert (rows[1]["import_wh"], rows[1]["export_wh"]) == ("1000", "7")
    twice = [row["start"] for row in rows if "25T02" in row["start"]]
    assert twice == ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]


def test_object_has_everything() -> None:
    found = as_object(report(october(OCTOBER)), ["a note"])
    assert (found["meter_id"], found["timezone"], found["month"]) == (METER, "Europe/Oslo", "2026-10")
    assert (found["hours_known"], found["hours_missing"], found["hours_to_come"]) == (744, 1, 0)
    assert (found["import_wh"], found["export_wh"], found["notes"]) == (745_500, None, ["a note"])
    assert found["capacity"]["peaks"][0] == {"start": "2026-10-25T02:00:00+01:00", "wh": 2500}
    assert found["capacity"]["mean_wh"] == 1500
    assert found["capacity"]["step_w"] == 2000
    assert found["days"][0] == {
        "date": "2026-10-01",
        "hours_known": 23,
        "hours_missing": 1,
        "import_wh": 23_000,
        "export_wh": None,
        "highest": {"start": "2026-10-01T01:00:00+02:00", "wh": 1000},
    }
    assert found["hours"][0]["import_wh"] is None
    assert len(found["hours"]) == 745


def whole_store(found: MonthReport) -> Stored:
    assert found.imported is not None
    assert found.capacity is not None
    return Stored(
        {("import", day.start): day.imported for day in found.days if day.imported},
        {("import", found.start): found.imported},
        {f"peak{n}": (peak.wh, peak.hour) for n, peak in enumerate(found.capacity.peaks, 1)}
        | {"mean": (found.capacity.mean, None)},
        found.step_w,
    )


def test_what_is_stored_and_agrees_needs_no_word() -> None:
    found = report(october())
    assert disagreements(found, whole_store(found)) == []


def test_what_is_stored_and_differs_is_reported() -> None:
    found, before = report(october()), report(october(SECOND_TWO))
    notes = disagreements(found, whole_store(before))
    figures = [
        ("day_energy import of 2026-10-25", "24.000 kWh of 24 hours", "26.500 kWh of 25 hours"),
        ("month_energy import", "744.000 kWh of 744 hours", "746.500 kWh of 745 hours"),
        ("capacity mean", "1.000 kWh", "1.500 kWh"),
        ("capacity peak1", "1.000 kWh at 2026-10-01 00:00", "2.500 kWh at 2026-10-25 02:00+01:00"),
        ("capacity peak2", "1.000 kWh at 2026-10-02 00:00", "1.000 kWh at 2026-10-01 00:00"),
        ("capacity peak3", "1.000 kWh at 2026-10-03 00:00", "1.000 kWh at 2026-10-02 00:00"),
    ]
    assert len(notes) == len(figures)
    for note, (what, stored, calculated) in zip(notes, figures, strict=True):
        assert note.startswith(f"{what} ")
        assert f" {stored}," in note
        assert note.endswith(f" {calculated}")


def test_many_days_that_differ_are_counted() -> None:
    found = report(october())
    stored = Stored(months=whole_store(found).months, capacity=whole_store(found).capacity)
    notes = disagreements(found, stored)
    assert len(notes) == 5
    assert notes[0].startswith("day_energy import of 2026-10-01 ")
    assert notes[0].endswith(" 24.000 kWh of 24 hours")
    assert "28 more days" in notes[3]
    assert notes[4].startswith("capacity_step ")
    assert notes[4].endswith(" up to 2 kW")


def test_nothing_stored_is_one_note() -> None:
    [note] = disagreements(report(october()), Stored())
    assert all(measurement in note for measurement in ("day_energy", "month_energy", "capacity"))


@pytest.mark.parametrize(
    ("wh", "shown"),
    [
        (0.0, "0.000"),
        (1.0, "0.001"),
        (1234.0, "1.234"),
        (1034120.0, "1034.120"),
        (0.1 + 0.2, "0.000300"),
        (4999.7, "4.999700"),
    ],
)
def test_energies_are_shown_to_the_wh(wh: float, shown: str) -> None:
    assert kwh(wh) == shown
