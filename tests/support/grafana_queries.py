"""The queries in dashboards and alert rules, with their variables filled in as Grafana fills them in.

Variables are replaced as in Grafana 9.3: for panels, as by templateSrv and the InfluxDB data source in the browser; for
alert rules, as by the InfluxDB data source of the server, which has no dashboard variables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

MIN_INTERVAL_S: Final = 10.0
"""`timeInterval` of the provisioned data source."""
WIDTH: Final = 1000
"""How many values a graph queries, one for each pixel, if the panel has no number."""

_EXPRESSIONS: Final = frozenset({"__expr__", "-100"})
_OTHER_SOURCES: Final = frozenset({"grafana", "datasource"})  # built-in annotations, "-- Dashboard --", "-- Mixed --"
_VARIABLE: Final = re.compile(r"\$(\w+)|\[\[(\w+?)(?::(\w+))?\]\]|\$\{(\w+)(?:\.([^:^}]+))?(?::([^}]+))?\}")


class Kind(Enum):
    """Where a query is."""

    PANEL = "panel"
    ANNOTATION = "annotation"
    VARIABLE = "variable"
    ALERT = "alert"


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One query of a panel, annotation, variable or alert rule.

    `dashboard` is the title of the dashboard or rule group, `panel` that of the panel, annotation, variable or rule.
    `ago` is the time range of an alert query: seconds before now, from and to.
    """

    dashboard: str
    panel: str
    ref: str
    query: str
    kind: Kind = Kind.PANEL
    panel_id: int = 0
    table: bool = False
    alias: str = ""
    time_from: str = ""
    time_shift: str = ""
    interval: str = ""
    max_data_points: int | None = None
    ago: tuple[int, int] | None = None

    def range(self, start_ms: int, end_ms: int, timezone: str) -> tuple[int, int]:
        """The panel's own or shifted time range, else the dashboard's. `end_ms` is now."""
        if self.ago is not None:
            return end_ms - self.ago[0] * 1000, end_ms - self.ago[1] * 1000
        if self.time_from:
            steps = self.time_from.removeprefix("now")
            start_ms = _moved(steps if steps != self.time_from else f"-{steps}", end_ms, timezone)
        if self.time_shift:
            start_ms = _moved(f"-{self.time_shift}", start_ms, timezone)
            end_ms = _moved(f"-{self.time_shift}", end_ms, timezone, up=True)
        return start_ms, end_ms

    def interval_s(self, start_ms: int, end_ms: int, *, width: int = WIDTH) -> float:
        """The value of $__interval, in s, for a time range (the panel's own, see `range`)."""
        least = seconds(self.interval) if self.interval else MIN_INTERVAL_S
        points = self.max_data_points or width
        return max(rounded_interval_s((end_ms - start_ms) / 1000 / points), least)


def queries_of(dashboard: Mapping[str, Any]) -> list[PanelQuery]:
    """Every query of every panel in a dashboard's JSON, also in collapsed rows; without hidden queries."""
    title = str(dashboard.get("title", ""))
    return [query for panel in _panels(dashboard) for query in _of_panel(title, panel)]


def other_queries_of(dashboard: Mapping[str, Any]) -> list[PanelQuery]:
    """The queries of a dashboard's variables and annotations."""
    title = str(dashboard.get("title", ""))
    found = []
    for variable in dashboard.get("templating", {}).get("list", []):
        if variable.get("type") == "query" and variable.get("query"):
            text = variable["query"] if isinstance(variable["query"], str) else variable["query"]["query"]
            found.append(PanelQuery(title, variable["name"], "", text, Kind.VARIABLE))
    for annotation in dashboard.get("annotations", {}).get("list", []):
        text = (annotation.get("target") or {}).get("query") or annotation.get("query")
        if text and not _elsewhere(annotation):
            found.append(PanelQuery(title, annotation["name"], "", text, Kind.ANNOTATION))
    return found


def rule_queries(rules: Mapping[str, Any]) -> list[PanelQuery]:
    """Every query of every alert rule in a provisioning file, without expressions."""
    found = []
    for group in rules.get("groups", []):
        for rule in group.get("rules", []):
            for data in rule.get("data", []):
                model = data.get("model", {})
                if data.get("datasourceUid") in _EXPRESSIONS or not model.get("query"):
                    continue
                ago = data.get("relativeTimeRange", {})
                one = PanelQuery(group["name"], rule["title"], data["refId"], model["query"], Kind.ALERT)
                found.append(_of_rule(one, model, (int(ago.get("from", 0)), int(ago.get("to", 0)))))
    return found


def filled(
    query: PanelQuery | str,
    *,
    meter: str,
    timezone: str,
    start_ms: int,
    end_ms: int,
    interval_s: float | None = None,
    variables: Mapping[str, str] | None = None,
    now_ms: int | None = None,
) -> str:
    """The InfluxQL that Grafana would send for a dashboard that shows `start_ms` to `end_ms` (relative to now).

    A text has no time range of its own. `interval_s` is at least the panel's own; None is the interval that Grafana
    would use. `variables` are those besides meter and timezone. With `now_ms`, `now()` is that moment, for data of the
    past. Raises ValueError for an unknown variable or format.
    """
    one = PanelQuery("", "", "", query) if isinstance(query, str) else query
    start_ms, end_ms = one.range(start_ms, end_ms, timezone)
    if interval_s is None:
        interval_s = one.interval_s(start_ms, end_ms)
    elif one.interval:
        interval_s = max(interval_s, seconds(one.interval))
    values = _built_in(start_ms, end_ms, interval_s)
    if one.kind is Kind.ALERT:
        text = _by_the_server(one.query, values)
    else:
        own = {"meter": meter, "timezone": timezone} | dict(variables or {})
        usual = "regex" if one.kind is Kind.VARIABLE else "raw"
        text = _VARIABLE.sub(lambda match: _value(match, values, own, usual), one.query)
    return text if now_ms is None else re.sub(r"\bnow\(\)", f"{now_ms}ms", text)


# Dashboards


def _panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for panel in dashboard.get("panels", []):
        yield panel
        yield from _panels(panel)


def _of_panel(dashboard: str, panel: Mapping[str, Any]) -> Iterator[PanelQuery]:
    for target in panel.get("targets", []):
        if target.get("hide") or not target.get("query") or _elsewhere(target) or _elsewhere(panel):
            continue
        yield PanelQuery(
            dashboard,
            str(panel.get("title", "")),
            target["refId"],
            target["query"],
            panel_id=panel.get("id", 0),
            table=target.get("resultFormat") == "table",
            alias=target.get("alias", ""),
            time_from=panel.get("timeFrom") or "",
            time_shift=panel.get("timeShift") or "",
            interval=panel.get("interval") or "",
            max_data_points=panel.get("maxDataPoints"),
        )


def _elsewhere(what: Mapping[str, Any]) -> bool:
    source = what.get("datasource")
    return isinstance(source, Mapping) and source.get("type") in _OTHER_SOURCES


def _of_rule(one: PanelQuery, model: Mapping[str, Any], ago: tuple[int, int]) -> PanelQuery:
    least = model.get("interval") or (f"{model['intervalMs']}ms" if model.get("intervalMs") else "")
    points = model.get("maxDataPoints")
    return PanelQuery(
        one.dashboard, one.panel, one.ref, one.query, one.kind, interval=least, max_data_points=points, ago=ago
    )


# Durations

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800, "M": 2_592_000, "y": 31_536_000}
_DURATION: Final = re.compile(r"[<>]?(\d+(?:\.\d+)?)(ms|[smhdwMy])?")
_STEPS: Final = (
    (0.01, 0.001),
    (0.015, 0.01),
    (0.035, 0.02),
    (0.075, 0.05),
    (0.15, 0.1),
    (0.35, 0.2),
    (0.75, 0.5),
    (1.5, 1),
    (3.5, 2),
    (7.5, 5),
    (12.5, 10),
    (17.5, 15),
    (25, 20),
    (45, 30),
    (90, 60),
    (210, 120),
    (450, 300),
    (750, 600),
    (1050, 900),
    (1500, 1200),
    (2700, 1800),
    (5400, 3600),
    (9000, 7200),
    (16200, 10800),
    (32400, 21600),
    (86400, 43200),
    (604_800, 86400),
    (1_814_400, 604_800),
    (3_628_800, 2_592_000),
)


def seconds(duration: str) -> float:
    """Seconds of a duration like 10s, 1h, >10s; without a unit, it is in seconds. Raises ValueError."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(f"not a duration: {duration!r} (write it like 10s)")
    return float(match[1]) * _UNITS[match[2] or "s"]


def rounded_interval_s(interval_s: float) -> float:
    """The interval that Grafana uses in place of any interval, s (rangeUtil.roundInterval)."""
    return next((step for below, step in _STEPS if interval_s < below), 31_536_000)


def interval_text(interval_s: float) -> str:
    """An interval as Grafana writes it: whole numbers of its largest unit (rangeUtil.secondsToHms)."""
    for unit in ("y", "d", "h", "m", "s"):
        count = int(interval_s // _UNITS[unit])
        if count:
            return f"{count}{unit}"
    return f"{int(interval_s * 1000)}ms"


# Moments

_STEP: Final = re.compile(r"([-+/])(\d*)([smhdwMy])")


def _moved(steps: str, ms: int, timezone: str, *, up: bool = False) -> int:
    """A moment after steps like -1d/d, as in Grafana's date math. Raises ValueError."""
    local = datetime.fromtimestamp(ms / 1000, UTC).astimezone(ZoneInfo(timezone))
    if not _STEP.match(steps) or _STEP.sub("", steps):
        raise ValueError(f"not a time range: {steps.removeprefix('-')!r} (write it like 1d, or 1d/d)")
    for sign, number, unit in _STEP.findall(steps):
        if sign == "/":
            local = _end_of(local, unit) if up else _start_of(local, unit)
        else:
            count = int(number or 1) * (-1 if sign == "-" else 1)
            local = _later(local, count, unit)
    return round(local.timestamp() * 1000)


def _later(local: datetime, count: int, unit: str) -> datetime:
    if unit in ("M", "y"):
        months = local.year * 12 + local.month - 1 + count * (12 if unit == "y" else 1)
        year, month = divmod(months, 12)
        first = local.replace(year=year, month=month + 1, day=1)
        last = (_later(first, 32, "d").replace(day=1) - timedelta(days=1)).day
        return first.replace(day=min(local.day, last))
    if unit in ("d", "w"):  # calendar days of any length
        return local + timedelta(days=count * (7 if unit == "w" else 1))
    moved = local.astimezone(UTC) + timedelta(seconds=count * _UNITS[unit])
    return moved.astimezone(local.tzinfo)


def _start_of(local: datetime, unit: str) -> datetime:
    local = local.replace(microsecond=0)
    order = "smhdMy"
    at = order.index("d" if unit == "w" else unit)
    for within, name, lowest in (("m", "second", 0), ("h", "minute", 0), ("d", "hour", 0), ("M", "day", 1)):
        if order.index(within) <= at:
            local = local.replace(**{name: lowest})  # type: ignore[arg-type]
    if unit == "y":
        local = local.replace(month=1)
    return local - timedelta(days=local.weekday()) if unit == "w" else local


def _end_of(local: datetime, unit: str) -> datetime:
    return _later(_start_of(local, unit), 1, unit) - timedelta(milliseconds=1)


# Variables


class _BuiltIn(NamedTuple):
    """Grafana's own variables, by name."""

    values: Mapping[str, str]
    time_filter: str


def _built_in(start_ms: int, end_ms: int, interval_s: float) -> _BuiltIn:
    interval, range_s = interval_text(interval_s), round((end_ms - start_ms) / 1000)
    time_filter = f"time >= {start_ms}ms and time <= {end_ms}ms"
    values = {
        "timeFilter": time_filter,
        "interval": interval,
        "__interval": interval,
        "__interval_ms": str(round(interval_s * 1000)),
        "__range": f"{range_s}s",
        "__range_s": str(range_s),
        "__range_ms": str(end_ms - start_ms),
        "__from": str(start_ms),
        "__to": str(end_ms),
    }
    return _BuiltIn(values, time_filter)


def _by_the_server(query: str, built_in: _BuiltIn) -> str:
    for name in ("timeFilter", "interval", "__interval_ms", "__interval"):
        query = query.replace(f"${name}", built_in.values[name])
    if match := _VARIABLE.search(query):
        raise ValueError(f"an alert rule has no variables, but its query asks for {match[0]}")
    return query


def _value(match: re.Match[str], built_in: _BuiltIn, own: Mapping[str, str], usual: str) -> str:
    name = match[1] or match[2] or match[4]
    form = match[3] or match[6] or ""
    if match[5]:
        raise ValueError(f"{match[0]}: fields of a variable are not known here")
    if name in built_in.values:
        return _dated(match[0], built_in.values[name], form) if form else built_in.values[name]
    if name not in own:
        raise ValueError(f"{match[0]}: no such variable; known are {', '.join(sorted(own))}")
    write = _FORMATS.get(form or usual)
    if write is None:
        raise ValueError(f"{match[0]}: no such format; known are {', '.join(sorted(_FORMATS))}")
    return write(own[name])


def _dated(text: str, value: str, form: str) -> str:
    if form in ("raw", "date:ms"):
        return value
    if form == "date:seconds":
        return str(round(int(value) / 1000))
    if form in ("date", "date:iso"):
        return datetime.fromtimestamp(int(value) / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    raise ValueError(f"{text}: no such format; known are raw, date:ms, date:seconds, date:iso")


def _regex(value: str) -> str:
    return re.sub(r"[\\^$*+?.()|\[\]{}/]", lambda match: "\\" + match[0], value)


def _raw(value: str) -> str:
    return value


def _quoted(quote: str, escape: str) -> Callable[[str], str]:
    return lambda value: quote + value.replace(quote, escape + quote) + quote


_FORMATS: Final[Mapping[str, Callable[[str], str]]] = {
    **dict.fromkeys(("raw", "text", "csv", "pipe", "glob"), _raw),  # the same for a single value
    "regex": _regex,
    "singlequote": _quoted("'", "\\"),
    "doublequote": _quoted('"', "\\"),
    "sqlstring": _quoted("'", "'"),
}
