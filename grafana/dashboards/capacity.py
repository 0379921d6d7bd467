"""Capacity charge: the peaks of three days that it depends on, their step, and the effect of the running hour.

The points of a month have the time of its start. So a month without a full hour has no figures: last month's are never
shown for it. They are in kW, as on the bill: an hour of 5 kWh is 5 kW.
"""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import common as make
from grafana_foundation_sdk.models import dashboard as model

from grafana.dashboards.frame import Page, Row
from grafana.dashboards.influxql import FINAL, IMPORT, LOCAL, METER, Target, latest, tag
from grafana.dashboards.now import this_hour
from grafana.dashboards.panels import (
    COUNT,
    ENERGY,
    FINE,
    NEAR,
    OVER,
    PLAIN,
    Look,
    Panel,
    column,
    figure,
    horizontal_bars,
    limit_across,
    one_colour,
    rows,
    side_by_side,
    thresholds,
    transformed,
    with_max,
)

KW: Final = Look("suffix:kW", 2, soft_min=0)
THIS_MONTH: Final = "now/M"
KILO: Final = 'last("value") / 1000'

_NONE: Final = "no full hour yet"
_DATES: Final = "With fixed dates chosen at the top: the last month that begins within these."
_NO_STEP: Final = 1000
"""The length of a full bar, in kW, if the step has no end: in the first hour of a month, and above the last step."""
_ABOVE: Final = "-0.001"
"""The value of the step above the last one: -1 W, in kW."""


def _of_month(measurement: str, *where: str, of: str = KILO) -> str:
    """The points at the start of the month that the panel shows."""
    return f'SELECT {of} FROM "{measurement}" WHERE {" AND ".join((*where, METER, "$timeFilter"))}'


def _peaks() -> Panel:
    each = _of_month("capacity", '"kind" =~ /^peak/', of='"value" / 1000 AS "kwh", "hour" AS "day", "hour" AS "from"')
    panel = rows(
        "Three highest days",
        f"This month's three days with the highest hour, the day's own highest, and when that hour began. {_DATES}",
        ENERGY,
        Target(f'SELECT last("kwh") AS "kWh", "day", "from" FROM ({each}) GROUP BY "kind"', table=True),
        none=_NONE,
    )
    times = [{"targetField": name, "destinationType": "time"} for name in ("day", "from")]
    panel.with_transformation(transformed("convertFieldType", fields={}, conversions=times))
    places = {"kind": 0, "day": 1, "from": 2, "kWh": 3}
    names = {"kind": " ", "day": "Day", "from": "Hour from", "kWh": "kWh"}
    panel.with_transformation(
        transformed("organize", indexByName=places, renameByName=names, excludeByName={"Time": True})
    )
    column(panel, "Day", "time:dddd D MMM", width=130)
    column(panel, "Hour from", "time:HH:mm", width=75)
    column(panel, "kWh", PLAIN.unit, 2)
    ranks = {"peak1": {"text": "1."}, "peak2": {"text": "2."}, "peak3": {"text": "3."}}
    panel.override_by_name(
        " ",
        [
            model.DynamicConfigValue("mappings", [{"type": "value", "options": ranks}]),
            model.DynamicConfigValue("custom.width", 50),
        ],
    )
    return panel.time_from(THIS_MONTH)


def _mean() -> Panel:
    panel = horizontal_bars(
        "Mean of the three",
        "This month's three highest days on average, and what the running hour would make of it if the power stays; a "
        f"full bar is the end of the step. {_DATES}",
        KW,
        Target(_of_month("capacity", tag("kind", "mean")), "Now"),
        Target(latest("capacity", tag("kind", "projected"), of=KILO), "With this hour"),
        none=_NONE,
    )
    panel.display_name("${__field.displayName}").max(_NO_STEP).thresholds(
        thresholds(((None, FINE), (95.0, NEAR), (100.0, OVER)))
    )
    with_max(panel, "", query=_of_month("capacity_step", '"value" > 0'))
    return panel.time_from(THIS_MONTH)


def _step() -> Panel:
    """As text, since Grafana can write a unit only on one side of a number."""
    panel = figure(
        "Step",
        f"The step of the capacity charge that the mean falls into, by HAN_CAPACITY_STEPS_KW. {_DATES}",
        KW,
        Target(_of_month("capacity_step"), "Step"),
        none=_NONE,
    )
    text = [{"targetField": "Step", "destinationType": "string"}]
    panel.with_transformation(transformed("convertFieldType", fields={}, conversions=text))
    panel.reduce_options(make.ReduceDataOptions().calcs(["lastNotNull"]).fields("/^Step$/").values(False))
    above = model.ValueMap({_ABOVE: model.ValueMappingResult(text="above the last step")})
    words = model.ValueMappingResult(text="up to $1 kW")
    upper = model.RegexMap(model.DashboardRegexMapOptions(pattern="/^(\\d.*)$/", result=words))
    return panel.unit("string").mappings([above, upper]).time_from(THIS_MONTH)


def _next_step() -> Panel:
    """Compared with the end of the step by Grafana, since InfluxQL cannot calculate with two measurements.

    Above the last step (-1), there is no higher one: then the end is a very large number.
    """
    end = _of_month("capacity_step", of=f"({KILO} - floor({KILO} / 1000000) * 1000000)")
    panel = figure(
        "Step with this hour",
        "Whether the running hour, if the power stays, lifts the mean into the next step. Until the month has three "
        f"days, the mean is of fewer. {_DATES}",
        COUNT,
        Target(latest("capacity", tag("kind", "projected"), of=KILO), "projected"),
        Target(end, "end"),
        none=_NONE,
    )
    panel.with_transformation(transformed("concatenate", frameNameMode="drop"))
    less = {"left": "projected", "operator": "-", "right": "end", "reducer": "sum"}
    panel.with_transformation(
        transformed("calculateField", mode="binary", binary=less, alias="over", replaceFields=True)
    )
    panel.reduce_options(make.ReduceDataOptions().calcs(["lastNotNull"]).fields("/^over$/").values(False))
    words: list[model.ValueMapping] = [
        _between(-1e12, -100_000, "no higher step", FINE),
        _between(-100_000, -0.0000001, "the step stays", FINE),
        _between(0, 1e12, "the step rises", OVER),
    ]
    return panel.mappings(words).time_from(THIS_MONTH)


def _between(low: float, high: float, text: str, colour: str) -> model.RangeMap:
    result = model.ValueMappingResult(text=text, color=colour)
    return model.RangeMap(model.DashboardRangeMapOptions(from_val=low, to=high, result=result))


def _counts_from() -> Panel:
    panel = figure(
        "An hour counts from",
        "The third of the three days: an hour below this changes nothing, one above it does, unless its day is among "
        f"the three already with a higher one. {_DATES}",
        ENERGY,
        Target(_of_month("capacity", tag("kind", "peak3")), "Third"),
        none="any hour: not three days yet",
    )
    return panel.time_from(THIS_MONTH)


def _by_day() -> Panel:
    """Today includes the running hour, so that a month begins with a bar instead of an error."""
    final = f"{FINAL} AND {IMPORT} AND {METER} AND $timeFilter"
    # By the hour, since InfluxQL sorts by time only what it groups by time: else a day would be in several pieces.
    over = f'SELECT max("value") AS "wh" FROM "hour_energy" WHERE {final} GROUP BY time(1h) fill(none)'
    so_far = f"{tag('kind', 'so_far')} AND {IMPORT} AND {METER} AND time > now() - 2m AND $timeFilter"
    running = f'SELECT last("value") AS "wh" FROM "hour_energy" WHERE {so_far}'
    highest = (
        f'SELECT max("wh") / 1000 FROM ({over}), ({running}) WHERE $timeFilter GROUP BY time(1d) fill(none) {LOCAL}'
    )
    panel = side_by_side(
        "Daily highest hour",
        "The highest hour of each day of this month, today's with the running hour so far: the three highest of these "
        "make the capacity charge. The dashed line is your limit for an hour. With fixed dates chosen at the top: the "
        "days of these.",
        ENERGY,
        Target(highest, "Highest hour"),
        when="time:dd D",
        none=_NONE,
    )
    limit_across(panel, "hour_energy", of=KILO)
    one_colour(panel)
    return panel.time_from(THIS_MONTH)


def _of_months(measurement: str, *where: str, of: str) -> str:
    """The points at the starts of the last 24 months, whatever time range is selected."""
    return f'SELECT {of} FROM "{measurement}" WHERE {" AND ".join((*where, METER, "time > now() - 731d"))}'


def _by_month() -> Panel:
    panel = side_by_side(
        "Month by month",
        "The mean of each month's three highest days, over 24 months.",
        KW,
        Target(_of_months("capacity", tag("kind", "mean"), of='"value" / 1000'), "Mean"),
        when="time:MMM YY",
        none=_NONE,
    )
    one_colour(panel)
    return panel


def _months() -> Panel:
    panel = rows(
        "Months",
        "Each month's highest hour, the mean of its three highest days and the end of the step that this falls into, "
        "over 24 months: what the bill's capacity charge was made of.",
        Look("none"),
        Target(_of_months("capacity", tag("kind", "peak1"), of='"value" / 1000 AS "Highest"'), table=True),
        Target(_of_months("capacity", tag("kind", "mean"), of='"value" / 1000 AS "Mean"'), table=True),
        Target(_of_months("capacity_step", of='"value" / 1000 AS "Step"'), table=True),
        none=_NONE,
    )
    panel.with_transformation(transformed("merge"))
    panel.with_transformation(transformed("organize", indexByName={}, renameByName={"Time": "Month"}, excludeByName={}))
    column(panel, "Month", "time:MMMM YYYY", width=120)
    column(panel, "Highest", ENERGY.unit, 2, width=80)
    column(panel, "Mean", KW.unit, 2, width=80)
    column(panel, "Step", "prefix:up to ", width=80)
    above = {_ABOVE: {"text": "above the last"}}
    panel.override_by_name("Step", [model.DynamicConfigValue("mappings", [{"type": "value", "options": above}])])
    return panel


def _rows() -> list[Row]:
    return [
        (6, [(9, _peaks()), (8, _mean()), (7, _step())]),
        (5, [(9, this_hour()), (8, _next_step()), (7, _counts_from())]),
        (9, [(24, _by_day())]),
        (9, [(13, _by_month()), (11, _months())]),
    ]


PAGE: Final = Page(
    "capacity",
    "Capacity charge",
    "The three highest days of the month, the step they make, and what the running hour does to them.",
    _rows,
    since=THIS_MONTH,
    refresh="10s",
)
