"""Now, the home dashboard: the present state of the house on one screen."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import common as make
from grafana_foundation_sdk.models import common

from grafana.dashboards.frame import Page, Row
from grafana.dashboards.influxql import (
    EXPORT,
    FINAL,
    IMPORT,
    LOCAL,
    METER,
    PHASES,
    TOTAL,
    Target,
    course,
    if_any,
    latest,
    limit_level,
    tag,
)
from grafana.dashboards.panels import (
    AGE,
    CURRENT,
    ENERGY,
    ENERGY_ROUGH,
    FINE,
    NEAR_MAX,
    OVER,
    PERCENT,
    POWER,
    VOLTAGE,
    WITHIN,
    Panel,
    dials,
    figure,
    graph,
    horizontal_bars,
    limit_line,
    thresholds,
    transformed,
    with_max,
    with_min_and_max,
)

KILO: Final = 'last("value") / 1000'


def _power_now() -> Panel:
    panel = figure(
        "Power now",
        "Power from the grid, and to it while the house gives any, as last sent: amber from 80 % of your limit, "
        "vermilion above it.",
        POWER,
        Target(course("active_power", TOTAL, IMPORT, of='last("value")'), "Import"),
        Target(if_any(latest("active_power", TOTAL, EXPORT, within="30s"), "time > now() - 30s"), "Export"),
        spark=True,
    )
    panel.time_from("15m").min(0).thresholds(thresholds(NEAR_MAX))
    with_max(panel, "active_power")
    return panel


def _phases() -> Panel:
    panel = dials(
        "Phases and main fuse",
        "Current of each phase that the meter measures; a full dial is the main fuse, which trips by phase.",
        CURRENT,
        Target(latest("current", PHASES, by="phase"), "$tag_phase"),
    )
    with_max(panel, "current")
    return panel


def _worst_phase() -> Panel:
    panel = figure(
        "Highest phase",
        "The phase that carries most, and how much of the main fuse that is.",
        PERCENT,
        Target(latest("fuse_load", by="phase"), "$tag_phase"),
    )
    panel.max(100).thresholds(thresholds(NEAR_MAX))
    panel.reduce_options(make.ReduceDataOptions().calcs(["lastNotNull"]).fields("/^Last/").values(True))
    panel.text_mode(common.BigValueTextMode.VALUE_AND_NAME)
    panel.with_transformation(transformed("reduce", mode="seriesToRows", reducers=["lastNotNull"]))
    panel.with_transformation(transformed("sortBy", sort=[{"field": "Last *", "desc": True}]))
    panel.with_transformation(transformed("limit", limitField=1))
    return panel


def this_hour() -> Panel:
    """The running hour and its limit; the dashboard Capacity charge has this panel too."""
    panel = horizontal_bars(
        "This hour",
        "Energy of the running clock hour so far, and what it comes to if the power stays; a full bar is your limit.",
        ENERGY,
        Target(latest("hour_energy", tag("kind", "so_far"), IMPORT, of=KILO), "So far"),
        Target(latest("hour_energy", tag("kind", "projected"), IMPORT, of=KILO), "Projected"),
    )
    panel.thresholds(thresholds(NEAR_MAX))
    with_max(panel, "hour_energy", of=KILO)
    return panel


def _day(back_h: int) -> str:
    """Energy of a local day up to the end of the hour that was `back_h` hours ago."""
    bounds = f"time > now() - {back_h + 24}h AND time <= now() - {back_h}h"
    found = f'SELECT sum("value") / 1000 FROM "hour_energy" WHERE {FINAL} AND {IMPORT} AND {METER} AND {bounds}'
    return f"{found} GROUP BY time(1d) fill(0) {LOCAL}"


def _today() -> str:
    """Energy of today: the full hours and the running one."""
    where = f"{IMPORT} AND {METER} AND time > now() -"
    # Both by the hour: InfluxQL assigns to the right day only what an inner query groups by time. Just after the full
    # hour, both the old hour and the new one count as running, for the length of this range.
    over = f'SELECT sum("value") AS "wh" FROM "hour_energy" WHERE {FINAL} AND {where} 25h GROUP BY time(1h) fill(none)'
    running = f'SELECT last("value") AS "wh" FROM "hour_energy" WHERE {tag("kind", "so_far")} AND {where} 20s'
    running += " GROUP BY time(1h) fill(none)"
    bounds = "time > now() - 25h AND time <= now()"
    return f'SELECT sum("wh") / 1000 FROM ({over}), ({running}) WHERE {bounds} GROUP BY time(1d) fill(0) {LOCAL}'


def _days() -> Panel:
    return horizontal_bars(
        "Today",
        "Energy from the grid today, against yesterday and the same weekday last week up to the end of this hour.",
        ENERGY_ROUGH,
        Target(_today(), "Today so far"),
        Target(_day(24), "Yesterday"),
        Target(_day(7 * 24), "A week ago"),
    )


def _voltages() -> Panel:
    panel = figure(
        "Voltage",
        "Voltage of each phase that the meter measures, as last sent; vermilion outside your limits.",
        VOLTAGE,
        Target(latest("voltage", PHASES, by="phase"), "$tag_phase"),
    )
    panel.thresholds(thresholds(WITHIN))
    with_min_and_max(panel, "voltage")
    return panel


def last_reading(description: str = "How long ago the meter was last heard.") -> Panel:
    """The age of the last reading; the dashboard Exporter has this panel too."""
    panel = figure(
        "Last reading",
        description,
        AGE,
        Target(latest("reading_age", of='round(last("value"))', within="1d"), "Age"),
        none="never",
    )
    panel.min(0).thresholds(thresholds(((None, FINE), (100.0, OVER))))
    with_max(panel, "reading_age")
    return panel


def _power_course() -> Panel:
    panel = graph(
        "Power",
        "Power taken from the grid (import) and given to it (export), with your limit.",
        POWER,
        Target(course("active_power", TOTAL, IMPORT), "Import"),
        Target(if_any(course("active_power", TOTAL, EXPORT, fill="none"), "$timeFilter"), "Export"),
        fill=15,
    )
    limit_line(panel, "active_power", "Limit", query=limit_level("active_power", "max", "active_power", TOTAL, IMPORT))
    return panel


def _rows() -> list[Row]:
    return [
        (7, [(7, _power_now()), (11, _phases()), (6, _worst_phase())]),
        (6, [(7, this_hour()), (7, _days()), (6, _voltages()), (4, last_reading())]),
        (8, [(24, _power_course())]),
    ]


PAGE: Final = Page(
    "now", "Now", "What is going on in the house.", _rows, since="now-3h", limits=(("active_power", "max"),)
)
