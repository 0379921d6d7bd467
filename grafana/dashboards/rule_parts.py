"""The parts of an alert rule, and the form in which Grafana's provisioning reads it (apiVersion 1, Grafana 9.3 or
later).

A rule sends one or more queries to InfluxDB. Each gives a series for every meter, or for every meter and phase. One
number is taken from each series, and one expression compares these numbers. Grafana joins them by their labels: the
number of a phase, with the labels {meter_id, phase}, is compared with the limit of its meter, with the label
{meter_id}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from grafana.dashboards.influxql import DATA_SOURCE, tag

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S

_EXPRESSION: Final = "__expr__"

PanelId = Callable[[str, str], int]
"""A dashboard's uid and a panel's title -> the panel's id. Raises LookupError if there is no such panel."""


@dataclass(frozen=True, slots=True)
class RuleQuery:
    """A query, and the number that is taken from each of its series.

    `ref` is the letter of the query, `since_s` the length of its time range in seconds. `name` is the name of the
    number: $name in expressions, .Values.name in annotations.
    """

    ref: str
    name: str
    query: str
    since_s: int
    reducer: str = "last"


@dataclass(frozen=True, slots=True)
class Words:
    """The texts for the owner, as Go templates: `title` and `summary` say what is wrong, `advice` what to do.

    `resolved` is the text when it is over, with the numbers of that moment.
    """

    title: str
    summary: str
    advice: str
    resolved: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert rule. `condition` is an expression that must be true for the time `after`.

    `also` are expressions that only the texts use. `panel` is the dashboard's uid and the panel's title that messages
    link to. With `on_error`, the rule fires when InfluxDB does not answer; the other rules do not fire then.
    """

    uid: str
    title: str
    after: str
    queries: tuple[RuleQuery, ...]
    condition: str
    severity: str
    area: str
    words: Words
    panel: tuple[str, str]
    also: tuple[tuple[str, str], ...] = ()
    on_error: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated at the same interval."""

    name: str
    interval: str
    rules: tuple[Rule, ...]


# Queries


def recent(
    measurement: str, *where: str, of: str = 'last("value")', by: tuple[str, ...] = ("meter_id",), every: str = ""
) -> str:
    """One value for each series in the time range, by tags; with `every`, one for each interval of that length."""
    group = ", ".join(([f"time({every})"] if every else []) + [f'"{name}"' for name in by])
    conditions = " AND ".join((*where, "$timeFilter"))
    return f'SELECT {of} FROM "{measurement}" WHERE {conditions}' + (f" GROUP BY {group}" if group else "")


def limit(
    quantity: str, bound: str = "max", *, name: str = "limit", ref: str = "L", per: int = 1, since_s: int = HOUR_S
) -> RuleQuery:
    """The owner's limit for each meter, divided by `per`.

    It is written at a meter's first reading, when it changes, and every five minutes while there are readings.
    """
    of = f'last("value") / {per}' if per != 1 else 'last("value")'
    return RuleQuery(ref, name, recent("threshold", tag("quantity", quantity), tag("bound", bound), of=of), since_s)


# Words


def number(name: str) -> str:
    """A number in three digits: 43.2, 40, 231."""
    return f'{{{{ printf "%.3g" .Values.{name}.Value }}}}'


def duration(name: str) -> str:
    """A number of seconds as 6m 12s."""
    return f"{{{{ humanizeDuration .Values.{name}.Value }}}}"


def label(name: str) -> str:
    """A label of the series: meter_id, phase, instance."""
    return f"{{{{ .Labels.{name} }}}}"


# What Grafana reads


def provisioning(groups: Iterable[Group], folder: str, retired: Iterable[str], panel_id: PanelId) -> dict[str, Any]:
    """The file's content. `retired` are uids of rules of earlier versions: Grafana keeps a rule until it is deleted.

    Raises LookupError for a panel that no dashboard has.
    """
    found: dict[str, Any] = {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": group.name,
                "folder": folder,
                "interval": group.interval,
                "rules": [_rule(rule, panel_id) for rule in group.rules],
            }
            for group in groups
        ],
    }
    gone = [{"orgId": 1, "uid": uid} for uid in retired]
    return found | ({"deleteRules": gone} if gone else {})


def panel_ids(dashboards: Iterable[Mapping[str, Any]]) -> PanelId:
    """A function that finds panels in the dashboards' JSON, also those in rows."""
    found: dict[tuple[str, str], int] = {}
    for dashboard in dashboards:
        for panel in dashboard["panels"]:
            for one in (panel, *panel.get("panels", [])):
                found[dashboard["uid"], one.get("title", "")] = one["id"]

    def panel_id(uid: str, title: str) -> int:
        if (uid, title) not in found:
            raise LookupError(f"an alert rule links to the panel {title!r} of {uid}, which does not exist")
        return found[uid, title]

    return panel_id


def _rule(rule: Rule, panel_id: PanelId) -> dict[str, Any]:
    uid, title = rule.panel
    panel = panel_id(uid, title)
    data = [_query(query) for query in rule.queries]
    data += [_reduce(query) for query in rule.queries]
    data += [_math(name, text) for name, text in (*rule.also, ("alert", rule.condition))]
    return {
        "uid": rule.uid,
        "title": rule.title,
        "condition": "alert",
        "for": rule.after,
        # Missing series (another kind of net, no load, a server that is stopped) are not a fault.
        "noDataState": "OK",
        "execErrState": "Alerting" if rule.on_error else "OK",
        "labels": {"severity": rule.severity, "area": rule.area},
        "annotations": {
            "title": _if_numbers(rule.words.title, rule.on_error),
            "summary": _if_numbers(rule.words.summary, rule.on_error),
            "description": _if_numbers(rule.words.advice, rule.on_error),
            "resolved": _if_numbers(rule.words.resolved, rule.on_error),
            "__dashboardUid__": uid,
            "__panelId__": str(panel),
        },
        "dashboardUid": uid,
        "panelId": panel,
        "data": data,
    }


def _if_numbers(words: str, on_error: bool) -> str:
    """The text is empty if there are no numbers (no data, no answer), unless the rule is for exactly that."""
    return words if on_error or "{{" not in words else f"{{{{ if .Values }}}}{words}{{{{ end }}}}"


def _query(one: RuleQuery) -> dict[str, Any]:
    model = {
        "refId": one.ref,
        "datasource": {"type": DATA_SOURCE.type_val, "uid": DATA_SOURCE.uid},
        "rawQuery": True,
        "query": one.query,
        "resultFormat": "time_series",
        "intervalMs": 1000,
        "maxDataPoints": 43200,
    }
    return {
        "refId": one.ref,
        "datasourceUid": DATA_SOURCE.uid,
        "relativeTimeRange": {"from": one.since_s, "to": 0},
        "model": model,
    }


def _reduce(one: RuleQuery) -> dict[str, Any]:
    return _expression(one.name, "reduce", one.ref, reducer=one.reducer, settings={"mode": "dropNN"})


def _math(name: str, text: str) -> dict[str, Any]:
    return _expression(name, "math", text)


def _expression(name: str, kind: str, text: str, **more: Any) -> dict[str, Any]:
    source = {"type": _EXPRESSION, "uid": _EXPRESSION}
    model = {"refId": name, "datasource": source, "type": kind, "expression": text, **more}
    return {
        "refId": name,
        "datasourceUid": _EXPRESSION,
        "relativeTimeRange": {"from": 0, "to": 0},
        "model": model,
    }
