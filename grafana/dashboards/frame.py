"""What all dashboards have in common: variables, links, annotations, and the layout of panels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from grafana.dashboards.influxql import DATA_SOURCE, limit_last
from grafana.dashboards.panels import COLOURS, Panel

Row = tuple[int, Sequence[tuple[int, Panel]]]
"""Height of a row, and its panels with their widths, of 24 in sum. On a telephone, each is below the one before."""

TAG: Final = "han-exporter"
# The condition makes InfluxDB 2 leave out a meter that `forget` removed.
_METERS: Final = 'SHOW TAG VALUES FROM "meter" WITH KEY IN ("real", "simulated") WHERE "meter_id" != \'\''
_ZONE: Final = 'SELECT last("timezone") FROM "meter" WHERE "meter_id" =~ /^${meter:regex}$/'
_INSTANCES: Final = 'SHOW TAG VALUES FROM "exporter" WITH KEY = "instance"'
_EVENTS: Final = 'SELECT "text" FROM "event" WHERE $timeFilter'


@dataclass(frozen=True, slots=True)
class Page:
    """One dashboard: its file is `name`.json, and its uid han-`name`."""

    name: str
    title: str
    description: str
    rows: Callable[[], list[Row]]
    since: str = "now-24h"
    refresh: str = "10s"
    instance: bool = False
    limits: Sequence[tuple[str, str]] = ()
    """Quantity and bound of the limits in its queries (influxql.limit_now). Each becomes a hidden variable."""


def page(one: Page) -> model.Dashboard:
    """Build a dashboard. Its panels are numbered in the order of `rows`."""
    built = (
        board.Dashboard(one.title)
        .uid(f"han-{one.name}")
        .description(one.description)
        .tags([TAG])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .refresh(one.refresh)
        .time(one.since, "now")
        .timezone("")
        .week_start("monday")
        .version(1)
        .timepicker(board.TimePicker().refresh_intervals(["5s", "10s", "30s", "1m", "5m", "1h"]))
        .link(_link())
        .annotations([_Given(_alert_changes()), _Given(_events())])
    )
    variables = [("meter", "Meter", _METERS, _METER_WORDS, False), ("timezone", "Time zone", _ZONE, _ZONE_WORDS, True)]
    if one.instance:
        variables.append(("instance", "Exporter", _INSTANCES, "Exporters that have written something.", False))
    for quantity, bound in one.limits:
        variables.append((f"{quantity}_{bound}", "Limit", limit_last(quantity, bound), _LIMIT_WORDS, True))
    for name, label, query, words, hidden in variables:
        built.with_variable(_Given(_variable(name, label, query, words, hidden=hidden)))
    _place(built, one.rows())
    return built.build()


_METER_WORDS: Final = "Meters that have sent something; simulated ones stand last."
_ZONE_WORDS: Final = "Where days begin: HAN_TIMEZONE."
_LIMIT_WORDS: Final = "The meter's limit, for queries that compare with it."


def _place(built: board.Dashboard, rows: Sequence[Row]) -> None:
    number, top = 0, 0
    for height, panels in rows:
        left = 0
        for width, panel in panels:
            number += 1
            panel.id(number).grid_pos(model.GridPos(h=height, w=width, x=left, y=top))
            built.with_panel(panel)
            left += width
        assert left <= 24, f"row {top} is {left} wide"
        top += height


class _Given(Builder[Any]):
    """Content that is ready, for a place where the SDK needs a builder."""

    def __init__(self, content: Any) -> None:
        self._content = content

    def build(self) -> Any:
        return self._content


def _variable(name: str, label: str, query: str, words: str, *, hidden: bool) -> dict[str, object]:
    """A variable for Grafana 9.3: it needs `current`, `options`, `definition`, `regex` and `refresh` to fill it in."""
    return {
        "name": name,
        "label": label,
        "description": words,
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": query,
        "definition": query,
        "regex": "",
        "refresh": 1,
        "sort": 0,
        "hide": 2 if hidden else 0,
        "includeAll": False,
        "multi": False,
        "skipUrlSync": False,
        "current": {"selected": False, "text": "", "value": ""},
        "options": [],
    }


def _link() -> board.DashboardLink:
    """The link to the other dashboards, which keeps meter and time range."""
    link = board.DashboardLink("Dashboards").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(True).include_vars(True).keep_time(True).icon("external link")


def _alert_changes() -> dict[str, object]:
    """Marks when an alert fired and resolved, in the panels that the rules link to."""
    return {
        "builtIn": 1,
        "name": "Alerts",
        "datasource": model.DataSourceRef(type_val="grafana", uid="-- Grafana --"),
        "enable": True,
        "hide": True,
        "iconColor": COLOURS["L1"],
        "target": {"limit": 100, "matchAny": False, "tags": [], "type": "dashboard"},
        "type": "dashboard",
    }


def _events() -> dict[str, object]:
    """Events of the exporter: starts, lost ports."""
    return {
        "name": "Events",
        "datasource": DATA_SOURCE,
        "enable": True,
        "hide": True,
        "iconColor": COLOURS["Total"],
        "query": _EVENTS,
        "rawQuery": True,
        "textColumn": "text",
        "tagsColumn": "kind",
        "titleColumn": "",
    }
