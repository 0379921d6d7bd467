"""What an alert rule is made of, and the form in which Grafana's provisioning reads it (apiVersion 1, 9.3 and up).

A rule asks InfluxDB one or several things, each a series for every meter, or meter and phase; takes one number out of
each series; and sets these numbers against each other in one expression. Grafana joins them by their labels: a number
of a phase, labelled {meter_id, phase}, meets the limit of its meter, labelled {meter_id}.
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
"""A dashboard's uid and a panel's title -> the panel's id; LookupError where there is no such panel."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A query and the number that is taken out of each of its series.

    `query` stands under the letter `ref`, looks back `since_s` seconds, and gives the number called `name`, which
    expressions know as $name and annotations as .Values.name.
    """

    ref: str
    name: str
    query: str
    since_s: int
    reducer: str = "last"


@dataclass(frozen=True, slots=True)
class Words:
    """What an owner reads, as Go templates: `title` and `summary` say what is wrong, `advice` what to do.

    `resolved` is said when it is over; the numbers in it are those of that moment.
    """

    title: str
    summary: str
    advice: str
    resolved: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert rule. `condition` is an expression, `after` how long it has to hold.

    `also` are expressions that are only told in words. `panel` is the dashboard's uid and the panel's title that
    messages link to. With `on_error` the rule fires when InfluxDB does not answer; every other rule keeps quiet then.
    """

    uid: str
    title: str
    after: str
    asks: tuple[Ask, ...]
    condition: str
    severity: str
    area: str
    words: Words
    panel: tuple[str, str]
    also: tuple[tuple[str, str], ...] = ()
    on_error: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated equally often."""

    name: str
    interval: str
    rules: tuple[Rule, ...]


# Queries


def recent(
    measurement: str, *where: str, of: str = 'last("value")', by: tuple[str, ...] = ("meter_id",), every: str = ""
) -> str:
    """One value of each series of the time range, by tags; of each stretch of it that is `every` long, if given."""
    group = ", ".join(([f"time({every})"] if every else []) + [f'"{name}"' for name in by])
    conditions = " AND ".join((*where, "$timeFilter"))
    return f'SELECT {of} FROM "{measurement}" WHERE {conditions}' + (f" GROUP BY {group}" if group else "")


def limit(
    quantity: str, bound: str = "max", *, name: str = "limit", ref: str = "L", per: int = 1, since_s: int = HOUR_S
) -> Ask:
    """The owner's limit for each meter, divided by `per`.

    It is written at a meter's first reading, on change and every five minutes of reading.
    """
    of = f'last("value") / {per}' if per != 1 else 'last("value")'
    return Ask(ref, name, recent("threshold", tag("quantity", quantity), tag("bound", bound), of=of), since_s)


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
    """The file's content. `retired` are uids of rules that earlier versions had: Grafana keeps a rule until it is told.

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
    """Looks panels up in dashboards' JSON, those in rows included."""
    found: dict[tuple[str, str], int] = {}
    for dashboard in dashboards:
        for panel in dashboard["panels"]:
            for one in (panel, *panel.get("panels", [])):
                found[dashboard["uid"], one.get("title", "")] = one["id"]

    def panel_id(uid: str, title: str) -> int:
        if (uid, title) not in found:
            raise LookupError(f"an alert rule links to the panel {title!r} of {uid}, and there is none of that title")
        return found[uid, title]

    return panel_id


def _rule(rule: Rule, panel_id: PanelId) -> dict[str, Any]:
    uid, title = rule.panel
    panel = panel_id(uid, title)
    data = [_query(ask) for ask in rule.asks]
    data += [_reduce(ask) for ask in rule.asks]
    data += [_math(name, text) for name, text in (*rule.also, ("alert", rule.condition))]
    return {
        "uid": rule.uid,
        "title": rule.title,
        "condition": "alert",
        "for": rule.after,
        # Series that are not there (another kind of net, a house that sleeps, a server that is away) are no fault.
        "noDataState": "OK",
        "execErrState": "Alerting" if rule.on_error else "OK",
        "labels": {"severity": rule.severity, "area": rule.area},
        "annotations": {
            "title": _told(rule.words.title, rule.on_error),
            "summary": _told(rule.words.summary, rule.on_error),
            "description": _told(rule.words.advice, rule.on_error),
            "resolved": _told(rule.words.resolved, rule.on_error),
            "__dashboardUid__": uid,
            "__panelId__": str(panel),
        },
        "dashboardUid": uid,
        "panelId": panel,
        "data": data,
    }


def _told(words: str, on_error: bool) -> str:
    """Without numbers (no data, no answer) nothing is said, unless that is what the rule is about."""
    return words if on_error or "{{" not in words else f"{{{{ if .Values }}}}{words}{{{{ end }}}}"


def _query(ask: Ask) -> dict[str, Any]:
    model = {
        "refId": ask.ref,
        "datasource": {"type": DATA_SOURCE.type_val, "uid": DATA_SOURCE.uid},
        "rawQuery": True,
        "query": ask.query,
        "resultFormat": "time_series",
        "intervalMs": 1000,
        "maxDataPoints": 43200,
    }
    return {
        "refId": ask.ref,
        "datasourceUid": DATA_SOURCE.uid,
        "relativeTimeRange": {"from": ask.since_s, "to": 0},
        "model": model,
    }


def _reduce(ask: Ask) -> dict[str, Any]:
    return _expression(ask.name, "reduce", ask.ref, reducer=ask.reducer, settings={"mode": "dropNN"})


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
