"""Consumption: energy by hour, day and month, to compare with the bill.

Every sum is of final hours, so hours, days, months and totals agree with each other and with the grid company. The bars
of hours are on a time axis. The bars of days and months, which differ in length, are side by side, each with its name.
"""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import common as make
from grafana_foundation_sdk.models import dashboard as model

from grafana.dashboards.frame import Page, Row
from grafana.dashboards.influxql import EXPORT, FINAL, IMPORT, LOCAL, METER, Target, if_any, limit_level, tag
from grafana.dashboards.panels import (
    ENERGY,
    ENERGY_ROUGH,
    ENERGY_WHOLE,
    HOURS,
    PLAIN,
    POWER,
    RUNNING,
    Look,
    Panel,
    bars,
    cells,
    column,
    dashed,
    figure,
    limit_line,
    rows,
    side_by_side,
    transformed,
)

IN_RANGE: Final = f"{FINAL} AND {METER} AND $timeFilter"
WEEKDAYS: Final = {"1": "Mon", "2": "Tue", "3": "Wed", "4": "Thu", "5": "Fri", "6": "Sat", "7": "Sun"}

_AT_TOP: Final = "In the time range chosen at the top (this month, unless another is)"
_NONE: Final = "no full hour"


def _sized(title: str, description: str, look: Look, *targets: Target, none: str) -> Panel:
    """Figures in one row, all of the same size."""
    panel = figure(title, description, look, *targets, none=none)
    return panel.text(make.VizTextDisplayOptions().title_size(14).value_size(22))


def _sum(direction: str) -> str:
    return f'SELECT sum("value") / 1000 FROM "hour_energy" WHERE {direction} AND {IN_RANGE}'


def _net() -> str:
    """Import minus export, only if there is any export."""
    taken = f'SELECT "value" AS "in" FROM "hour_energy" WHERE {IMPORT} AND {IN_RANGE}'
    given = f'SELECT "value" AS "out" FROM "hour_energy" WHERE {EXPORT} AND {IN_RANGE}'
    sums = f'SELECT sum("in") / 1000 AS "in", sum("out") / 1000 AS "out" FROM ({taken}), ({given})'
    return f'SELECT "in" - "out" FROM ({sums}) WHERE "out" > 0'


def _sums() -> Panel:
    return _sized(
        "Energy in the chosen time",
        f"{_AT_TOP}: taken from the grid, and given to it if there was any; net is the difference. Sum of the hours "
        "that are over.",
        ENERGY_ROUGH,
        Target(_sum(IMPORT), "Import"),
        Target(if_any(_sum(EXPORT)), "Export"),
        Target(_net(), "Net"),
        none=_NONE,
    )


def _earlier(title: str, shift: str, words: str) -> Panel:
    """Empty if fewer than nine tenths of the hours were read, since a sum of few hours cannot be compared.

    (A month can be a tenth shorter than the one that it is compared with.)
    """
    found = f'SELECT sum("value") / 1000 AS "kwh", count("value") AS "hours" FROM "hour_energy" WHERE {IMPORT}'
    enough = '"hours" * 4000000 >= ${__to} - ${__from}'
    panel = _sized(
        title,
        f"Import in the same time range {words}: of a month that is not over, up to the same day and hour.",
        ENERGY_ROUGH,
        Target(f'SELECT "kwh" FROM ({found} AND {IN_RANGE}) WHERE {enough}', "Import"),
        none="not read then",
    )
    panel.time_shift(shift)
    return panel


def _missing() -> Panel:
    """Without the first hour: InfluxDB also gives one if the range begins in the middle of an hour."""
    heard = (
        f'SELECT count("value") AS "heard" FROM "hour_energy" WHERE {IMPORT} AND {IN_RANGE} '
        "AND time < now() - 65m GROUP BY time(1h) fill(0) OFFSET 1"
    )
    return _sized(
        "Hours missing",
        f"{_AT_TOP}, after its first hour: hours that are in no sum here, because their readings were not heard. They "
        "are on the bill.",
        HOURS,
        Target(f'SELECT count("heard") - sum("heard") FROM ({heard})', "Missing"),
        none=_NONE,
    )


def _base_load() -> Panel:
    where = f'{FINAL} AND {IMPORT} AND "value" > 0 AND {METER} AND time > now() - 30d'
    return _sized(
        "Base load",
        "What the house takes when it takes least: a tenth of the hours of the last 30 days stayed below this mean "
        "power. Hours that took nothing from the grid are left out.",
        POWER,
        Target(f'SELECT percentile("value", 10) FROM "hour_energy" WHERE {where}', "Base load"),
        none=_NONE,
    )


def _running() -> str:
    """Energy of the running hour so far, kWh, at the hour's start."""
    where = f"{tag('kind', 'so_far')} AND {IMPORT} AND {METER} AND time > now() - 2m"
    found = f'SELECT last("value") / 1000 AS "kwh" FROM "hour_energy" WHERE {where} GROUP BY time(1h) fill(none)'
    return f'SELECT last("kwh") FROM ({found})'


def _day_before() -> str:
    """Energy 24 hours before each hour, kWh.

    InfluxQL cannot shift times, but the sum of 25 hours minus that of the last 24 of them is the first one. An hour
    without energy gives no value: only a missing hour has none.
    """
    hours = '(moving_average(sum("value"), 25) * 25 - moving_average(sum("value"), 24) * 24) / 1000'
    where = f"{FINAL} AND {IMPORT} AND {METER} AND time > now() - 3d AND time <= now()"
    found = f'SELECT {hours} AS "kwh" FROM "hour_energy" WHERE {where} GROUP BY time(1h) fill(0)'
    return f'SELECT "kwh" FROM ({found}) WHERE "kwh" > 0.0005'


def _by_hour(direction: str) -> str:
    return f'SELECT "value" / 1000 FROM "hour_energy" WHERE {direction} AND {IN_RANGE}'


def _hours() -> Panel:
    panel = bars(
        "Hour by hour",
        "Energy of each hour today, the running one so far, against your limit; the dashed line is the same hour a day "
        "before. With fixed dates chosen at the top: the hours of these, without that line.",
        ENERGY,
        Target(_by_hour(IMPORT), "Import"),
        Target(_running(), "Running hour"),
        Target(if_any(_by_hour(EXPORT)), "Export"),
        Target(_day_before(), "A day before"),
        none=_NONE,
    )
    panel.override_by_name(
        "Running hour", [model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": RUNNING})]
    )
    dashed(panel, "A day before")
    level = limit_level("hour_energy", "max", "hour_energy", FINAL, IMPORT)
    limit_line(panel, "hour_energy", "Limit", query=f'SELECT "limit" / 1000 FROM ({level})')
    panel.time_from("now/d").bar_max_width(80)
    return panel


def _calendar(title: str, description: str, look: Look, measurement: str, *, when: str, since: str) -> Panel:
    """Sums of days or months since the start of a month or year, from the measurement that has them."""
    found = f'SELECT "value" / 1000 FROM "{measurement}" WHERE %s AND {METER} AND $timeFilter'
    targets = Target(found % IMPORT, "Import"), Target(if_any(found % EXPORT), "Export")
    return side_by_side(title, description, look, *targets, when=when, none=_NONE).time_from(since)


def _by_day() -> Panel:
    return _calendar(
        "Day by day",
        "Energy of each day of this month; today up to the last full hour. With fixed dates chosen at the top: the "
        "days of these.",
        ENERGY_ROUGH,
        "day_energy",
        when="time:dd D",
        since="now/M",
    )


def _by_month() -> Panel:
    return _calendar(
        "Month by month",
        "Energy of each month of this year, as it is on the bill. With fixed dates chosen at the top: the months that "
        "begin within these.",
        ENERGY_WHOLE,
        "month_energy",
        when="time:MMM",
        since="now/y",
    )


def _week() -> Panel:
    found = f'SELECT mean("value") / 1000 AS "kWh" FROM "hour_energy" WHERE {IMPORT} AND {IN_RANGE}'
    panel = rows(
        "The week, hour by hour",
        "Mean import of each hour of each weekday over the last 8 weeks, kWh: the stronger the colour, the more. 00 is "
        "the hour from midnight.",
        PLAIN,
        Target(f'{found} GROUP BY "hour", "weekday"', table=True),
        none=_NONE,
    )
    panel.with_transformation(transformed("groupingToMatrix", columnField="weekday", rowField="hour", valueField="kWh"))
    places = {"hour\\weekday": 0} | {number: int(number) for number in WEEKDAYS}
    names = {"hour\\weekday": "Hour"} | WEEKDAYS
    panel.with_transformation(transformed("organize", indexByName=places, renameByName=names, excludeByName={}))
    cells(panel, tuple(WEEKDAYS.values()))
    column(panel, "Hour", "string", width=40)
    return panel.time_from("8w")


def _days() -> Panel:
    """The bars of days as figures, and how many hours each has."""
    figures = 'sum("value") / 1000 AS "Import", max("value") / 1000 AS "Highest", count("value") AS "Hours"'
    by_day = f"{IN_RANGE} GROUP BY time(1d) fill(none) {LOCAL}"
    taken = f'SELECT {figures} FROM "hour_energy" WHERE {IMPORT} AND {by_day}'
    given = f'SELECT sum("value") / 1000 AS "Export" FROM "hour_energy" WHERE {EXPORT} AND {by_day}'
    panel = rows(
        "Days of the chosen time",
        f"{_AT_TOP}: each day's energy in kWh, its highest hour, and of how many hours it is the sum: 24, on the days "
        "that the clock is changed 23 and 25.",
        PLAIN,
        Target(taken, table=True),
        Target(f'SELECT "Export" FROM ({given}) WHERE "Export" > 0', table=True),
        none=_NONE,
    )
    panel.with_transformation(transformed("merge"))
    places = {name: place for place, name in enumerate(("Time", "Import", "Export", "Highest", "Hours"))}
    panel.with_transformation(
        transformed("organize", indexByName=places, renameByName={"Time": "Day"}, excludeByName={})
    )
    column(panel, "Day", "time:ddd D MMM", width=95)
    for name in ("Import", "Export"):
        column(panel, name, PLAIN.unit, PLAIN.decimals)
    panel.override_by_name("Export", [model.DynamicConfigValue("noValue", "")])
    column(panel, "Highest", PLAIN.unit, 2)
    column(panel, "Hours", PLAIN.unit, 0)
    return panel.footer(make.TableFooterOptions().show(True).reducer(["sum"]).fields(["Import", "Export"]))


def _rows() -> list[Row]:
    return [
        (4, [(8, _sums()), (4, _month_before()), (4, _year_before()), (4, _base_load()), (4, _missing())]),
        (9, [(24, _hours())]),
        (9, [(14, _by_day()), (10, _by_month())]),
        (26, [(12, _week()), (12, _days())]),
    ]


def _month_before() -> Panel:
    return _earlier("A month before", "1M", "a month before")


def _year_before() -> Panel:
    return _earlier("A year before", "1y", "a year before")


PAGE: Final = Page(
    "consumption",
    "Consumption",
    "Energy by hour, day and month, to hold beside the bill.",
    _rows,
    since="now/M",
    refresh="1m",
    limits=(("hour_energy", "max"),),
)
