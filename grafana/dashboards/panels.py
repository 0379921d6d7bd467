"""Kinds of panels: the same quantity looks the same on every dashboard.

There is one palette, with the colours of Okabe and Ito. They differ for every kind of colour vision, on black and on
white. A state is blue, amber or vermilion, never green or red.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from grafana_foundation_sdk.builders import barchart, bargauge, gauge, piechart, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import common as make
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import piechart as piecharts

from grafana.dashboards.influxql import ALWAYS_SENT, DATA_SOURCE, Target, latest, limit, limit_course, limit_level, tag

Panel: TypeAlias = (
    stat.Panel
    | gauge.Panel
    | bargauge.Panel
    | timeseries.Panel
    | statetimeline.Panel
    | table.Panel
    | barchart.Panel
    | piechart.Panel
)

COLOURS: Final = {
    "L1": "#E69F00",
    "L2": "#56B4E9",
    "L3": "#009E73",
    "Import": "#3D8FD1",
    "Export": "#CC79A7",
    "Total": "#8C96A3",
    "Before": "#8C96A3",
    "Projected": "#8C96A3",
}
"""The colour of a series with this name, on all dashboards."""
FINE: Final = "#3D8FD1"
NEAR: Final = "#E69F00"
OVER: Final = "#D55E00"
LIMIT: Final = "#D55E00"
RUNNING: Final = "#9CC7EA"
"""Import that is not final yet: a paler colour."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a quantity is shown: Grafana's unit, and the number of decimals (None: Grafana chooses)."""

    unit: str
    decimals: int | None = None
    soft_min: float | None = None
    soft_max: float | None = None


POWER: Final = Look("watt", soft_min=0)
REACTIVE: Final = Look("voltampreact", soft_min=0)
CURRENT: Final = Look("suffix:A", 1, soft_min=0)
VOLTAGE: Final = Look("suffix:V", 1, soft_min=220, soft_max=240)
ENERGY: Final = Look("suffix:kWh", 2, soft_min=0)
ENERGY_ROUGH: Final = Look("suffix:kWh", 1, soft_min=0)
ENERGY_WHOLE: Final = Look("suffix:kWh", 0, soft_min=0)
HOURS: Final = Look("suffix:h", 0)
PLAIN: Final = Look("none", 1)
"""A number whose unit is elsewhere in the panel."""
PERCENT: Final = Look("percent", 0, soft_min=0)
FACTOR: Final = Look("none", 2, soft_max=1)
FREQUENCY: Final = Look("suffix:Hz", 2, soft_min=49.9, soft_max=50.1)
AGE: Final = Look("s", 0)
SECONDS: Final = Look("s", soft_min=0)
PER_MINUTE: Final = Look("suffix:/min", soft_min=0)
BYTES: Final = Look("bytes", soft_min=0)
COUNT: Final = Look("short", 0, soft_min=0)

_NO_READING: Final = "no reading"
_NAMED: Final = "${__series.name}"
"""Set, since a panel omits the name if it has only one series: one phase, an hour without a projection."""


def thresholds(
    steps: Sequence[tuple[float | None, str]], mode: model.ThresholdsMode = model.ThresholdsMode.PERCENTAGE
) -> board.ThresholdsConfig:
    """Colours by value; by default in percent of the range between the panel's min and max."""
    return board.ThresholdsConfig().mode(mode).steps([model.Threshold(value, colour) for value, colour in steps])


NEAR_MAX: Final = ((None, FINE), (80.0, NEAR), (100.0, OVER))
"""Fine below 80 % of the limit, over it from 100 %."""
WITHIN: Final = ((None, OVER), (0.0, FINE), (100.0, OVER))
"""Fine between the two limits."""
HEAT: Final = (
    (None, "rgba(31, 96, 196, 0.03)"),
    (12.0, "rgba(31, 96, 196, 0.14)"),
    (25.0, "rgba(31, 96, 196, 0.28)"),
    (45.0, "rgba(31, 96, 196, 0.65)"),
    (70.0, "rgba(31, 96, 196, 1)"),
)
"""From the lowest value to the highest, on black and on white. Grafana writes text in the theme's colour up to an
opacity of
0.3, and in white above. With a continuous scale, there would be white text on pale blue."""


def described(panel: Panel, title: str, description: str) -> Panel:
    """Set what every panel has: a title, a description, and the data source."""
    return panel.title(title).description(description).datasource(DATA_SOURCE)


def lettered(targets: Sequence[Target]) -> list[Target]:
    """Give a letter to each query that has no name."""
    named = []
    for letter, target in zip("ABCDEFGHIJ", targets, strict=False):
        named.append(target if target.ref != "A" else Target(target.query, target.alias, target.table, letter))
    return named


def colour_overrides(panel: Panel, names: Sequence[str] = tuple(COLOURS)) -> None:
    """Set the colour of each series that has one of these names."""
    for name in names:
        colour = model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": COLOURS[name]})
        panel.override_by_name(name, [colour])


def transformed(name: str, **options: object) -> model.DataTransformerConfig:
    """One of Grafana's transformations."""
    return model.DataTransformerConfig(id_val=name, options=options)


def _from_limits(*names: str) -> model.DataTransformerConfig:
    """Take the panel's min or max, or both, from the fields of these names of the query `limits`."""
    mappings = [{"fieldName": name, "handlerKey": name, "reducerId": "lastNotNull"} for name in names]
    number = {"id": "byType", "options": "number"}
    return transformed("configFromData", configRefId="limits", applyTo=number, mappings=mappings)


def without(panel: Panel, *names: str) -> None:
    """Hide these fields: without other values, a panel would show its limits as values."""
    panel.with_transformation(transformed("filterFieldsByName", exclude={"names": list(names)}))


def with_max(panel: Panel, quantity: str, of: str = 'last("value")', query: str = "") -> None:
    """Take the panel's max from `threshold`, or from `query`, so that its colours depend on the owner's limit."""
    panel.with_target(Target(query or limit(quantity, of=of), "max", ref="limits"))
    panel.with_transformation(_from_limits("max"))
    without(panel, "max")
    if isinstance(panel, bargauge.Panel):
        panel.display_name("")  # the transformation loses the names of series, not those of fields


def with_min_and_max(panel: Panel, quantity: str) -> None:
    """Take the panel's min and max from `threshold`."""
    # In one frame, since the transformation can be used only once: after it, frames have no query name any more.
    both = latest("threshold", tag("quantity", quantity), of='min("value"), max("value")', within="6m")
    panel.with_target(Target(both, table=True, ref="limits"))
    panel.with_transformation(_from_limits("min", "max"))
    without(panel, "min", "max")


def _reduced(calc: str = "lastNotNull") -> make.ReduceDataOptions:
    return make.ReduceDataOptions().calcs([calc]).fields("").values(False)


def _looking(panel: Any, look: Look, targets: Sequence[Target]) -> None:
    panel.unit(look.unit).targets(lettered(targets))
    if look.decimals is not None:
        panel.decimals(look.decimals)


def figure(
    title: str, description: str, look: Look, *targets: Target, spark: bool = False, none: str = _NO_READING
) -> stat.Panel:
    """A number, or one for each series, each with its name."""
    panel = stat.Panel()
    described(panel, title, description)
    _looking(panel, look, targets)
    panel.graph_mode(common.BigValueGraphMode.AREA if spark else common.BigValueGraphMode.NONE)
    panel.color_mode(common.BigValueColorMode.VALUE).reduce_options(_reduced()).no_value(none)
    panel.justify_mode(common.BigValueJustifyMode.AUTO).orientation(common.VizOrientation.AUTO)
    panel.color_scheme(board.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    panel.thresholds(thresholds([(None, "text")], model.ThresholdsMode.ABSOLUTE))
    return panel.text_mode(common.BigValueTextMode.AUTO)


def dials(title: str, description: str, look: Look, *targets: Target) -> gauge.Panel:
    """A dial for each series, with a colour that shows how near the limit it is."""
    panel = gauge.Panel()
    described(panel, title, description)
    _looking(panel, look, targets)
    panel.display_name("${__field.labels.phase}").min(0).reduce_options(_reduced()).no_value(_NO_READING)
    panel.show_threshold_labels(False).show_threshold_markers(True)
    panel.color_scheme(board.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    return panel.thresholds(thresholds(NEAR_MAX))


def horizontal_bars(
    title: str, description: str, look: Look, *targets: Target, none: str = _NO_READING
) -> bargauge.Panel:
    """A horizontal bar for each series, with its number."""
    panel = bargauge.Panel()
    described(panel, title, description)
    _looking(panel, look, targets)
    panel.display_name(_NAMED).min(0).reduce_options(_reduced()).no_value(none).show_unfilled(True)
    panel.orientation(common.VizOrientation.HORIZONTAL).display_mode(common.BarGaugeDisplayMode.BASIC)
    panel.color_scheme(board.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    return panel.thresholds(thresholds([(None, FINE)], model.ThresholdsMode.ABSOLUTE))


def shares(title: str, description: str, look: Look, *targets: Target) -> piechart.Panel:
    """A ring that shows the share of each series in the sum."""
    panel = piechart.Panel()
    described(panel, title, description)
    _looking(panel, look, targets)
    panel.pie_type(piecharts.PieChartType.DONUT).reduce_options(_reduced()).no_value(_NO_READING)
    legend = piechart.PieChartLegendOptions().display_mode(common.LegendDisplayMode.TABLE).show_legend(True)
    legend.placement(common.LegendPlacement.RIGHT)
    legend.values([piecharts.PieChartLegendValues.PERCENT, piecharts.PieChartLegendValues.VALUE])
    panel.legend(legend).display_labels([])
    colour_overrides(panel)
    return panel


def graph(
    title: str, description: str, look: Look, *targets: Target, fill: int = 0, none: str = _NO_READING
) -> timeseries.Panel:
    """Lines over time. They connect values up to five minutes apart; a longer gap stays visible."""
    panel = timeseries.Panel()
    described(panel, title, description)
    _looking(panel, look, targets)
    panel.draw_style(common.GraphDrawStyle.LINE).line_width(1).fill_opacity(fill)
    panel.line_interpolation(common.LineInterpolation.LINEAR).show_points(common.VisibilityMode.NEVER)
    panel.span_nulls(300_000).no_value(none)
    # The text `none` is for the whole panel; a tooltip would repeat it for each series without a value at that time.
    # Not "": Grafana takes it for the number 0 and fills gaps with it.
    panel.override_by_regexp(".*", [model.DynamicConfigValue("noValue", "-")])
    _axes(panel, look)
    return panel


def bars(title: str, description: str, look: Look, *targets: Target, none: str = _NO_READING) -> timeseries.Panel:
    """Vertical bars over time, each from the start of its hour, day or month."""
    panel = graph(title, description, look, *targets, fill=80, none=none)
    panel.draw_style(common.GraphDrawStyle.BARS).bar_alignment(common.BarAlignment.AFTER).line_width(0)
    return panel.bar_width_factor(0.8)


def side_by_side(
    title: str, description: str, look: Look, *targets: Target, when: str, none: str = _NO_READING
) -> barchart.Panel:
    """Vertical bars side by side, each with the name of its time in the format `when` (time:D).

    For days and months, which differ in length: on a time axis, their bars would have different widths, and the last
    one would be cut off.
    """
    panel = barchart.Panel()
    described(panel, title, description)
    _looking(panel, look, targets)
    panel.show_value(common.VisibilityMode.AUTO).bar_width(0.9).group_width(0.8).fill_opacity(80).line_width(0)
    panel.orientation(common.VizOrientation.VERTICAL).x_tick_label_spacing(40).x_tick_label_rotation(0)
    panel.stacking(common.StackingMode.NONE).no_value(none).min(0)
    legend = make.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST)
    panel.legend(legend.placement(common.LegendPlacement.BOTTOM).show_legend(True).calcs([]))
    panel.tooltip(make.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.NONE))
    panel.override_by_field_type("time", [model.DynamicConfigValue("unit", when)])
    colour_overrides(panel)
    return panel


def states(title: str, description: str, *targets: Target) -> statetimeline.Panel:
    """A band over time for each series; its colours and texts are the panel's mappings."""
    panel = statetimeline.Panel()
    described(panel, title, description)
    _looking(panel, COUNT, targets)
    panel.merge_values(True).show_value(common.VisibilityMode.AUTO).row_height(0.8)
    panel.line_width(0).fill_opacity(80).no_value(_NO_READING)
    panel.legend(make.VizLegendOptions().show_legend(False).display_mode(common.LegendDisplayMode.LIST))
    # With colours by thresholds, Grafana would show these instead of the mappings.
    return panel.color_scheme(board.FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color(FINE))


def one_colour(panel: Panel, colour: str = FINE) -> Panel:
    """Draw every series that has no other colour in this one."""
    return panel.color_scheme(board.FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color(colour))


def _axes(panel: timeseries.Panel, look: Look) -> None:
    if look.soft_min is not None:
        panel.axis_soft_min(look.soft_min)
    if look.soft_max is not None:
        panel.axis_soft_max(look.soft_max)
    legend = make.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST)
    panel.legend(legend.placement(common.LegendPlacement.BOTTOM).show_legend(True).calcs([]))
    panel.tooltip(make.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.NONE))
    colour_overrides(panel)


def dashed(panel: timeseries.Panel, name: str) -> None:
    """Draw a series as a dashed line in steps, so that bars can be compared with it."""
    panel.override_by_name(
        name,
        [
            model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": COLOURS["Before"]}),
            model.DynamicConfigValue("custom.drawStyle", "line"),
            model.DynamicConfigValue("custom.lineInterpolation", "stepAfter"),
            model.DynamicConfigValue("custom.lineWidth", 2),
            model.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [4, 4]}),
            model.DynamicConfigValue("custom.fillOpacity", 0),
        ],
    )


def limit_line(
    panel: timeseries.Panel,
    quantity: str,
    name: str,
    bound: str = "max",
    of: str = 'last("value")',
    query: str = "",
) -> None:
    """Draw the owner's limit as a dashed line, over the time range or as `query` gives it."""
    panel.with_target(Target(query or limit_course(quantity, bound, of), name, ref=f"limit {bound}"))
    panel.override_by_name(
        name,
        [
            model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": LIMIT}),
            model.DynamicConfigValue("custom.drawStyle", "line"),
            model.DynamicConfigValue("custom.lineWidth", 1),
            model.DynamicConfigValue(
                "custom.lineStyle", {"fill": "dash", "dash": [2, 5] if bound == "warn" else [10, 10]}
            ),
            model.DynamicConfigValue("custom.fillOpacity", 0),
            model.DynamicConfigValue("custom.spanNulls", True),
        ],
    )


def voltage_limits(panel: timeseries.Panel, *within: str) -> None:
    """Draw both limits of the voltage that are valid now, over all readings `within` these conditions on time."""
    lowest, highest = (limit_level("voltage", bound, *ALWAYS_SENT, *within) for bound in ("min", "max"))
    limit_line(panel, "voltage", "Lowest allowed", "min", query=lowest)
    limit_line(panel, "voltage", "Highest allowed", query=highest)


def cells(panel: table.Panel, names: Sequence[str]) -> None:
    """Colour the cells of these columns by value, all on the same scale: a heat map."""
    panel.override_by_regexp(
        f"^({'|'.join(names)})$",
        [
            model.DynamicConfigValue("color", {"mode": "thresholds"}),
            model.DynamicConfigValue("custom.displayMode", "color-background-solid"),
            model.DynamicConfigValue("custom.cellOptions", {"type": "color-background", "mode": "basic"}),
            model.DynamicConfigValue("custom.align", "center"),
            model.DynamicConfigValue("custom.minWidth", 40),
            model.DynamicConfigValue("noValue", ""),
        ],
    )
    panel.thresholds(thresholds(HEAT))


def column(panel: table.Panel, name: str, unit: str, decimals: int | None = None, width: int = 60) -> None:
    """How a column of a table is shown, and its least width, which must fit on a telephone."""
    found = [model.DynamicConfigValue("unit", unit), model.DynamicConfigValue("custom.minWidth", width)]
    if decimals is not None:
        found.append(model.DynamicConfigValue("decimals", decimals))
    panel.override_by_name(name, found)


def limit_across(panel: barchart.Panel, quantity: str, of: str = 'last("value")') -> None:
    """Draw the owner's limit that is valid now as a dashed line over bars side by side."""
    panel.with_target(Target(limit(quantity, of=of), "limit", ref="limits"))
    mapping = {"fieldName": "limit", "handlerKey": "threshold1", "reducerId": "lastNotNull"}
    number = {"id": "byType", "options": "number"}
    panel.with_transformation(transformed("configFromData", configRefId="limits", applyTo=number, mappings=[mapping]))
    without(panel, "limit")
    panel.thresholds_style(make.GraphThresholdsStyleConfig().mode(common.GraphTresholdsStyleMode.DASHED))


def rows(title: str, description: str, look: Look, *targets: Target, none: str = "none") -> table.Panel:
    """A table."""
    panel = table.Panel()
    described(panel, title, description)
    _looking(panel, look, targets)
    return panel.show_header(True).no_value(none)
