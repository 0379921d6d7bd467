"""Power quality: the voltage and its limits as in EN 50160 and the Norwegian FoL, and other values of quality."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models import dashboard as model

from grafana.dashboards.frame import Page, Row
from grafana.dashboards.influxql import (
    EXPORT,
    IMPORT,
    METER,
    PHASES,
    TOTAL,
    WEEK,
    Target,
    above,
    below,
    course,
    limit_known,
    limit_now,
)
from grafana.dashboards.panels import (
    FACTOR,
    FINE,
    FREQUENCY,
    OVER,
    PERCENT,
    REACTIVE,
    SECONDS,
    VOLTAGE,
    Look,
    Panel,
    figure,
    graph,
    one_colour,
    rows,
    thresholds,
    voltage_limits,
)

_WEEK_WORDS: Final = "in the 7 days up to the end of the time range"
_MONTH: Final = "time > ${__to}ms - 31d"
_SHARE: Final = Look("percent", 1)
_ENOUGH_PERCENT: Final = 95.0  # EN 50160: of a week's 10-minute means
_WEEK_MINUTES: Final = 7 * 24 * 60
_NO_LIMITS: Final = "no voltage or no limits known"


def _means(minutes: int, within: str, *where: str, by_phase: bool = True) -> str:
    """Means of the voltage over whole minutes of the clock, as field "v"."""
    conditions = " AND ".join((METER, within, *where))
    group = f'time({minutes}m), "phase"' if by_phase else f"time({minutes}m)"
    return f'SELECT mean("value") AS "v" FROM "voltage" WHERE {conditions} GROUP BY {group}'


def _inside(minutes: int) -> str:
    """1 for each mean of the week that is within the limits, else 0, as field "in"; no values if no limit is known."""
    within = f"{above('v', limit_now('voltage', 'min'))} * {below('v', limit_now('voltage', 'max'))}"
    means = _means(minutes, WEEK, limit_known("voltage", "min"), limit_known("voltage", "max"))
    return f'SELECT {within} AS "in" FROM ({means})'


def _share() -> Panel:
    panel = figure(
        "Week inside the limits",
        f"How many of the 10-minute means of the voltage {_WEEK_WORDS} lie within your limits. EN 50160 wants 95 %.",
        _SHARE,
        Target(f'SELECT mean("in") * 100 FROM ({_inside(10)}) GROUP BY "phase"', "$tag_phase"),
        none=_NO_LIMITS,
    )
    return panel.thresholds(thresholds([(None, OVER), (_ENOUGH_PERCENT, FINE)], model.ThresholdsMode.ABSOLUTE))


def _outside() -> Panel:
    panel = figure(
        "Time outside the limits",
        f"Minutes {_WEEK_WORDS} whose mean voltage lay outside your limits. The Norwegian rules (FoL) want none.",
        SECONDS,
        Target(
            f'SELECT sum("out") FROM (SELECT 60 - 60 * "in" AS "out" FROM ({_inside(1)})) GROUP BY "phase"',
            "$tag_phase",
        ),
        none=_NO_LIMITS,
    )
    panel.mappings([model.ValueMap(options={"0": model.ValueMappingResult(text="none")})])
    return panel.thresholds(thresholds([(None, FINE), (1.0, OVER)], model.ThresholdsMode.ABSOLUTE))


def _share_read() -> Panel:
    return figure(
        "Week heard",
        f"How many of the minutes {_WEEK_WORDS} have a voltage: a few hours say little about a week.",
        PERCENT,
        Target(f'SELECT count("v") * 100 / {_WEEK_MINUTES}.0 FROM ({_means(1, WEEK, by_phase=False)})', "Heard"),
    )


def _extremes() -> Panel:
    of_week = 'min("v") AS "Lowest", mean("v") AS "Mean", max("v") AS "Highest"'
    panel = rows(
        "Voltage of the week",
        f"Lowest, mean and highest of the 10-minute means of each phase {_WEEK_WORDS}.",
        VOLTAGE,
        Target(f'SELECT {of_week} FROM ({_means(10, WEEK)}) GROUP BY "phase"', table=True),
        none="no reading",
    )
    panel.override_by_name("Time", [model.DynamicConfigValue("custom.hidden", True)])
    panel.override_by_name("phase", [model.DynamicConfigValue("displayName", "Phase")])
    return panel.override_by_regexp(".*", [model.DynamicConfigValue("custom.minWidth", 60)])


def _ten_minutes() -> Panel:
    panel = graph(
        "Voltage, 10-minute means",
        "What EN 50160 looks at: 95 % of these in a week shall lie within the limits. On an IT net these are voltages "
        "between two wires. Shown for up to 31 days before the end of the time range.",
        VOLTAGE,
        Target(_means(10, _MONTH, "$timeFilter"), "$tag_phase"),
    )
    panel.span_nulls(1_800_000)
    voltage_limits(panel, _MONTH)
    return panel


def _one_minute() -> Panel:
    extremes = 'min("v") AS "Lowest", max("v") AS "Highest"'
    found = f"SELECT {extremes} FROM ({_means(1, WEEK, '$timeFilter')}) WHERE $timeFilter GROUP BY time($__interval)"
    panel = graph(
        "Voltage, 1-minute means",
        "Lowest and highest 1-minute mean of any phase in each interval: what the Norwegian rules (FoL) look at. Shown "
        "for up to 7 days before the end of the time range.",
        VOLTAGE,
        Target(found, "$col"),
    )
    panel.interval("1m")
    panel.override_by_name("Highest", [model.DynamicConfigValue("custom.fillBelowTo", "Lowest")])
    voltage_limits(panel, WEEK)
    return one_colour(panel)


def _power_factor() -> Panel:
    return graph(
        "Power factor",
        "How much of the current does work: 1 is all of it. As the meter sends it, else worked out from active and "
        "reactive power. It says little while little is used.",
        FACTOR,
        Target(course("power_factor", TOTAL), "Total"),
        Target(course("power_factor", PHASES, by="phase"), "$tag_phase"),
    )


def _reactive() -> Panel:
    return graph(
        "Reactive power",
        "Import is what motors and coils draw, export what capacitors, long cables and electronics give.",
        REACTIVE,
        Target(course("reactive_power", TOTAL, IMPORT), "Import"),
        Target(course("reactive_power", TOTAL, EXPORT), "Export"),
        fill=10,
    )


def _frequency() -> Panel:
    panel = graph(
        "Frequency",
        "Frequency of the grid. EN 50160 wants 49.5 to 50.5 Hz nearly always; few meters send it.",
        FREQUENCY,
        Target(course("frequency"), "Frequency"),
        none="This meter does not send the frequency",
    )
    return one_colour(panel)


def _rows() -> list[Row]:
    return [
        (6, [(7, _share()), (7, _outside()), (3, _share_read()), (7, _extremes())]),
        (9, [(24, _ten_minutes())]),
        (8, [(24, _one_minute())]),
        (8, [(9, _power_factor()), (9, _reactive()), (6, _frequency())]),
    ]


PAGE: Final = Page(
    "quality",
    "Power quality",
    "The voltage against its limits, power factor, reactive power and frequency.",
    _rows,
    since="now-7d",
    refresh="1m",
    limits=(("voltage", "min"), ("voltage", "max")),
)
