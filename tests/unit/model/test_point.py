"""Line protocol: how a series is written, which lines are versions of one point, and which are of a meter."""

from __future__ import annotations

import pytest

from exporter.model.obis import ObisCode
from exporter.model.point import (
    REPLACED_MEASUREMENTS,
    Row,
    escaped,
    is_of,
    line,
    measured_series,
    meter_tag,
    replaced_key,
    rows_of,
    series,
    tag,
    text_field,
    without,
)

HOUR = 1_792_886_400_000
"""The start of an hour."""
FINAL = f"hour_energy,direction=import,kind=final,meter_id=m value=1500.0 {HOUR}"
SUM = f"day_energy,direction=import,meter_id=m value=24000.0,hours=25.0 {HOUR}"
POWER = f"active_power,direction=import,meter_id=m,obis=1-0:1.7.0 value=583.0 {HOUR}"
ODD_IDS = ["m", "a b", "a,b=c", "a", "a.b*", "ø", "a,meter_id=m", "a meter_id=m "]
"""No id has a backslash: meters/text.py replaces it."""


# Lines


def test_a_line_has_floats_and_escaped_tags() -> None:
    written = line("capacity", 5, 1, ("kind", "a b"), ("meter_id", "x,y=z"), ("phase", ""), hour=7)
    assert written == "capacity,kind=a\\ b,meter_id=x\\,y\\=z value=1.0,hour=7.0 5"


def test_tags_without_a_value_are_left_out() -> None:
    assert series("current", (("direction", ""), ("meter_id", "m"), ("phase", "L1"))) == "current,meter_id=m,phase=L1"


def test_a_tag_is_its_name_and_its_escaped_value() -> None:
    assert tag("meter_id", "a b,c=d") == f"meter_id={escaped('a b,c=d')}" == "meter_id=a\\ b\\,c\\=d"


def test_the_text_of_a_field_is_one_line_in_quotes() -> None:
    assert text_field('a "b"\nc\\d') == '"a \\"b\\" c\\\\d"'


@pytest.mark.parametrize(
    ("code", "unit", "written", "register"),
    [
        ((1, 0, 1, 7, 0), "W", "active_power,direction=import,meter_id=m,obis=1-0:1.7.0", False),
        ((1, 1, 31, 7, 0), "A", "current,meter_id=m,obis=1-1:31.7.0,phase=L1", False),
        ((1, 0, 2, 8, 0), "Wh", "active_energy,direction=export,meter_id=m,obis=1-0:2.8.0", True),
        ((1, 0, 1, 7, 0), "Wh", "other,meter_id=m,obis=1-0:1.7.0,unit=Wh", False),
        ((0, 0, 42, 0, 0), "1", "other,meter_id=m,obis=0-0:42.0.0,unit=1", False),
    ],
)
def test_a_value_is_in_the_series_of_the_catalogue_or_in_other(
    code: tuple[int, int, int, int, int], unit: str, written: str, register: bool
) -> None:
    assert measured_series("m", ObisCode(*code), unit) == (written, register)


# Points that are replaced


def test_points_of_these_measurements_are_replaced() -> None:
    assert {"hour_energy", "day_energy", "month_energy", "capacity", "capacity_step"} == REPLACED_MEASUREMENTS


@pytest.mark.parametrize("version", [FINAL, SUM, f"capacity_step,meter_id=m value=-1.0 {HOUR}"])
def test_the_key_is_series_and_time_and_not_the_value(version: str) -> None:
    start, _, rest = version.partition(" ")
    key = replaced_key(version)
    assert key == f"{start} {HOUR}"
    assert replaced_key(f"{start} value=7.0 {HOUR}") == key
    assert replaced_key(f"{start} {rest}"[: -len(str(HOUR))] + str(HOUR + 3_600_000)) != key
    assert replaced_key(version.replace("meter_id=m", "meter_id=n")) != key


def test_a_meter_id_with_blanks_is_in_the_key() -> None:
    assert replaced_key(line("hour_energy", HOUR, 1, ("meter_id", "a b"))) == f"hour_energy,meter_id=a\\ b {HOUR}"


@pytest.mark.parametrize(
    "written",
    [
        POWER,
        f"hour_energy,direction=import,kind=so_far,meter_id=m value=1500.0 {HOUR + 1}",
        f"hour_energy_of_others,meter_id=m value=1.0 {HOUR}",
        "hour_energy,meter_id=m value=1.0",
        "hour_energy,meter_id=m value=1.0 soon",
        "hour_energy,meter_id=m",
        "",
    ],
)
def test_other_lines_have_no_key(written: str) -> None:
    assert replaced_key(written) == ""


# Rows


def test_lines_that_replace_nothing_are_one_row_and_each_other_line_is_a_row() -> None:
    assert rows_of([FINAL, POWER, SUM, f"{POWER}1"]) == [
        Row(f"{POWER}\n{POWER}1".encode()),
        Row(FINAL.encode(), replaced_key(FINAL)),
        Row(SUM.encode(), replaced_key(SUM)),
    ]


def test_versions_of_a_point_stay_in_order() -> None:
    newer = FINAL.replace("1500.0", "1600.0")
    assert rows_of([FINAL, newer]) == [Row(one.encode(), replaced_key(FINAL)) for one in (FINAL, newer)]


def test_no_lines_are_no_rows() -> None:
    assert rows_of([]) == []


# Lines of a meter


@pytest.mark.parametrize("meter_id", ODD_IDS)
def test_a_line_is_of_the_meter_in_its_tags(meter_id: str) -> None:
    written = line("hour_energy", HOUR, 1, ("kind", "final"), ("meter_id", meter_id), ("phase", "L1"))
    assert [other for other in ODD_IDS if is_of(other)(written)] == [meter_id]
    assert is_of(meter_id)(line("current", HOUR, 1, ("meter_id", meter_id)))
    assert meter_tag(meter_id) in written


@pytest.mark.parametrize(
    "written",
    [
        f"current,meter_id=mm value=1.0 {HOUR}",
        f"current,other_meter_id=m value=1.0 {HOUR}",
        f'event,instance=i text="it says ,meter_id=m " {HOUR}',
        f'event,instance=a\\ b text="x ,meter_id=m x" {HOUR}',
        f"current value=1.0 {HOUR}",
        "",
    ],
)
def test_a_line_without_the_tag_is_not_of_the_meter(written: str) -> None:
    assert not is_of("m")(written)


def test_rows_without_a_meter_keep_the_lines_of_others_and_the_key() -> None:
    other = POWER.replace("meter_id=m", "meter_id=n")
    rows = [
        Row(f"{POWER}\n{other}".encode()),
        Row(POWER.encode()),
        Row(FINAL.encode(), replaced_key(FINAL)),
        Row(FINAL.replace("meter_id=m", "meter_id=n").encode(), "key"),
        Row(b"exporter,instance=i frames=1 5"),
    ]
    assert without(rows, "m") == [Row(other.encode()), *rows[3:]]
    assert without(rows, "x") == rows
