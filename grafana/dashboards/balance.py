"""Phase balance: how near each phase is to the fuse, and how even the load of the phases is."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import common as make
from grafana_foundation_sdk.models import dashboard as model

from grafana.dashboards.frame import Page, Row
from grafana.dashboards.influxql import (
    ALWAYS_SENT,
    EXPORT,
    IMPORT,
    METER,
    PHASES,
    WEEK,
    Target,
    above,
    course,
    limit_level,
    limit_now,
    tag,
)
from grafana.dashboards.panels import (
    COLOURS,
    CURRENT,
    FINE,
    NEAR,
    NEAR_MAX,
    PERCENT,
    POWER,
    SECONDS,
    VOLTAGE,
    Look,
    Panel,
    graph,
    horizontal_bars,
    limit_line,
    rows,
    shares,
    thresholds,
    voltage_limits,
)

_CURRENT_UNBALANCE: Final = tag("quantity", "current")
_VOLTAGE_UNBALANCE: Final = tag("quantity", "voltage")
_NO_UNBALANCE: Final = "Nothing to compare: this takes two measured phases"
_NEAR_PERCENT: Final = "80"
_FINE_PERCENT: Final = Look("percent", 2, soft_min=0)
_MINUTE: Final = 'GROUP BY time(1m), "phase"'


def _highest() -> Panel:
    panel = horizontal_bars(
        "Highest load of the fuse",
        "The most that each measured phase took of the main fuse in the time range, if only for ten seconds.",
        PERCENT,
        Target(f'SELECT max("value") FROM "fuse_load" WHERE {METER} AND $timeFilter GROUP BY "phase"', "$tag_phase"),
    )
    return panel.max(100).thresholds(thresholds(NEAR_MAX))


def _shares() -> Panel:
    return shares(
        "Share of the load",
        "Each measured phase's part of the current in the time range, with its mean: the more alike, the better.",
        CURRENT,
        Target(f'SELECT mean("value") FROM "current" WHERE {METER} AND $timeFilter GROUP BY "phase"', "$tag_phase"),
    )


def _time_near() -> Panel:
    minutes = f'SELECT mean("value") AS "load" FROM "fuse_load" WHERE {METER} AND {WEEK} {_MINUTE}'
    over = f'SELECT {above("load", _NEAR_PERCENT)} * 60 AS "over" FROM ({minutes})'
    panel = horizontal_bars(
        f"Time above {_NEAR_PERCENT} % of the fuse, 7 days",
        f"Minutes whose mean was {_NEAR_PERCENT} % of the main fuse or more, of the 7 days up to the time range's end.",
        SECONDS,
        Target(f'SELECT sum("over") FROM ({over}) GROUP BY "phase"', "$tag_phase"),
    )
    nothing = model.ValueMap(options={"0": model.ValueMappingResult(text="none")})
    return panel.mappings([nothing]).thresholds(thresholds([(None, FINE), (1.0, NEAR)], model.ThresholdsMode.ABSOLUTE))


def _current() -> Panel:
    panel = graph(
        "Current, highest",
        "The highest current of each measured phase in each interval: it trips the fuse, and a mean would hide it. "
        "Many meters on IT nets do not measure L2.",
        CURRENT,
        Target(course("current", PHASES, by="phase", of='max("value")'), "$tag_phase"),
    )
    limit_line(panel, "current", "Main fuse", query=limit_level("current", "max", *ALWAYS_SENT))
    limit_line(panel, "current", "Warning", "warn", query=limit_level("current", "warn", *ALWAYS_SENT))
    return panel


def _mean_current() -> Panel:
    return graph(
        "Current, mean",
        "The mean current of each measured phase: how the load lies on the phases.",
        CURRENT,
        Target(course("current", PHASES, by="phase"), "$tag_phase"),
        fill=10,
    )


def _voltage() -> Panel:
    panel = graph(
        "Voltage",
        "Mean voltage of each phase with your limits; on an IT net these are the voltages between two wires. "
        "A phase that sags while another rises may be a bad neutral: call an electrician.",
        VOLTAGE,
        Target(course("voltage", PHASES, by="phase"), "$tag_phase"),
    )
    voltage_limits(panel)
    return panel


def _unbalance() -> Panel:
    panel = graph(
        "Unbalance of the currents",
        "How far the phase that differs most lies from the mean of the measured ones; below 1 A it is not shown. "
        "Much of it at a small load means little.",
        PERCENT,
        Target(course("phase_unbalance", _CURRENT_UNBALANCE), "Unbalance"),
        fill=10,
        none=_NO_UNBALANCE,
    )
    level = limit_level("phase_unbalance", "max", "phase_unbalance", _CURRENT_UNBALANCE)
    limit_line(panel, "phase_unbalance", "Limit", query=level)
    panel.override_by_name("Unbalance", [model.DynamicConfigValue("color", _fixed(COLOURS["Import"]))])
    return panel


def _voltage_unbalance() -> Panel:
    panel = graph(
        "Unbalance of the voltages",
        "How far the voltage that differs most lies from the mean. EN 50160 allows 2 % of a measure close to this.",
        _FINE_PERCENT,
        Target(course("phase_unbalance", _VOLTAGE_UNBALANCE), "Unbalance"),
        fill=10,
        none=_NO_UNBALANCE,
    )
    panel.override_by_name("Unbalance", [model.DynamicConfigValue("color", _fixed(COLOURS["Import"]))])
    return panel


def _fixed(colour: str) -> dict[str, str]:
    return {"mode": "fixed", "fixedColor": colour}


def _worst_minutes() -> Panel:
    minutes = f'SELECT mean("value") AS "a" FROM "current" WHERE {METER} AND {WEEK} {_MINUTE}'
    worst = f'SELECT top("a", 10) AS "a", "phase" FROM ({minutes})'
    part = f'"a" * 100 / {limit_now("current")}'
    panel = rows(
        "The ten worst minutes, 7 days",
        "The minutes with the highest mean current of a phase, of the seven days up to the end of the time range.",
        CURRENT,
        Target(f'SELECT "phase" AS "Phase", "a" AS "Current", {part} AS "Of the fuse" FROM ({worst})', table=True),
        none="no reading",
    )
    panel.sort_by([make.TableSortByFieldState().display_name("Current").desc(True)])
    panel.override_by_name(
        "Time",
        [model.DynamicConfigValue("unit", "time:ddd D MMM HH:mm"), model.DynamicConfigValue("custom.width", 150)],
    )
    for name, width in (("Phase", 60), ("Current", 85)):
        panel.override_by_name(name, [model.DynamicConfigValue("custom.width", width)])
    panel.override_by_name(
        "Of the fuse",
        [
            model.DynamicConfigValue("unit", PERCENT.unit),
            model.DynamicConfigValue("decimals", PERCENT.decimals),
            model.DynamicConfigValue("mappings", [{"type": "value", "options": {"0": {"text": "-"}}}]),
            model.DynamicConfigValue("max", 100),
            model.DynamicConfigValue("min", 0),
            model.DynamicConfigValue("color", {"mode": "thresholds"}),
            model.DynamicConfigValue("custom.minWidth", 85),
            model.DynamicConfigValue("custom.displayMode", "color-text"),
            model.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
        ],
    )
    return panel.thresholds(thresholds(NEAR_MAX))


def _power() -> Panel:
    where = f'{PHASES} AND {EXPORT} AND {METER} AND $timeFilter GROUP BY time($__interval), "phase" fill(none)'
    given = f'SELECT mean("value") * -1 AS "given" FROM "active_power" WHERE {where}'
    panel = graph(
        "Power by phase",
        "Power that each phase takes from the grid, and below 0 what it gives. Few meters send it: Swedish Aidon does.",
        POWER,
        Target(course("active_power", PHASES, IMPORT, by="phase"), "$tag_phase"),
        Target(f'SELECT "given" FROM ({given}) WHERE "given" < 0 GROUP BY "phase"', "$tag_phase to the grid"),
        none="This meter does not send the power of each phase",
    )
    for phase in ("L1", "L2", "L3"):
        dashed = model.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [4, 4]})
        panel.override_by_name(
            f"{phase} to the grid", [model.DynamicConfigValue("color", _fixed(COLOURS[phase])), dashed]
        )
    return panel


def _rows() -> list[Row]:
    return [
        (6, [(8, _highest()), (8, _shares()), (8, _time_near())]),
        (9, [(24, _current())]),
        (12, [(15, _mean_current()), (9, _worst_minutes())]),
        (8, [(12, _unbalance()), (12, _voltage_unbalance())]),
        (8, [(12, _voltage()), (12, _power())]),
    ]


PAGE: Final = Page(
    "balance",
    "Phase balance",
    "How near each phase comes to the main fuse, and how evenly the load lies on the phases.",
    _rows,
    refresh="30s",
    limits=(
        ("current", "max"),
        ("current", "warn"),
        ("voltage", "min"),
        ("voltage", "max"),
        ("phase_unbalance", "max"),
    ),
)
