"""Queries as Grafana 9.3 sends them: variables, time ranges and intervals."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.support.grafana_queries import (
    Kind,
    PanelQuery,
    filled,
    interval_text,
    other_queries_of,
    queries_of,
    rounded_interval_s,
    rule_queries,
    seconds,
)

INFLUX = {"type": "influxdb", "uid": "han-influxdb"}
DAY = 86_400_000
END = int(datetime(2026, 11, 22, 20, 30, tzinfo=UTC).timestamp() * 1000)


def made(**changes: Any) -> PanelQuery:
    return PanelQuery("Now", "Power", "A", "SELECT 1", **changes)


def fill(query: PanelQuery | str, **changes: Any) -> str:
    given: dict[str, Any] = {"meter": "M-1", "timezone": "Europe/Oslo", "start_ms": END - DAY, "end_ms": END}
    return filled(query, **given | changes)


def oslo(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=ZoneInfo("Europe/Oslo")).timestamp() * 1000)  # type: ignore[arg-type, misc]


def test_a_query_of_a_panel_has_the_time_settings_of_the_panel() -> None:
    target = {"refId": "A", "datasource": INFLUX, "query": "SELECT 1", "resultFormat": "table", "alias": "$tag_phase"}
    panel = {"id": 7, "title": "Power", "targets": [target], "timeFrom": "15m", "timeShift": "1d", "interval": "1m"}
    [one] = queries_of({"title": "Now", "panels": [panel | {"maxDataPoints": 300}]})
    assert one == PanelQuery(
        "Now",
        "Power",
        "A",
        "SELECT 1",
        panel_id=7,
        table=True,
        alias="$tag_phase",
        time_from="15m",
        time_shift="1d",
        interval="1m",
        max_data_points=300,
    )


def test_queries_in_collapsed_rows_are_found_and_hidden_or_foreign_ones_left_out() -> None:
    targets = [
        {"refId": "A", "datasource": INFLUX, "query": "SELECT 1"},
        {"refId": "B", "datasource": INFLUX, "query": "SELECT 2", "hide": True},
        {"refId": "C", "datasource": {"type": "datasource", "uid": "-- Dashboard --"}, "query": "x"},
        {"refId": "D", "datasource": INFLUX},
    ]
    row = {"type": "row", "title": "More", "panels": [{"title": "Within", "targets": targets}]}
    found = queries_of({"title": "Now", "panels": [row, {"type": "text", "title": "Words"}]})
    assert [(query.panel, query.ref) for query in found] == [("Within", "A")]


def test_variables_and_annotations_have_queries_too() -> None:
    dashboard = {
        "title": "Now",
        "templating": {
            "list": [
                {"name": "meter", "type": "query", "query": "SHOW 1"},
                {"name": "timezone", "type": "query", "query": {"query": "SHOW 2", "refId": "x"}},
                {"name": "fixed", "type": "constant", "query": "5"},
            ]
        },
        "annotations": {
            "list": [
                {"name": "Alerts", "datasource": {"type": "grafana"}, "target": {"query": "x"}},
                {"name": "Events", "datasource": INFLUX, "target": {"query": "SELECT 3"}},
                {"name": "Old", "datasource": INFLUX, "query": "SELECT 4"},
            ]
        },
    }
    found = [(query.panel, query.query, query.kind) for query in other_queries_of(dashboard)]
    assert found == [
        ("meter", "SHOW 1", Kind.VARIABLE),
        ("timezone", "SHOW 2", Kind.VARIABLE),
        ("Events", "SELECT 3", Kind.ANNOTATION),
        ("Old", "SELECT 4", Kind.ANNOTATION),
    ]


def test_an_alert_query_has_its_own_time_range_and_expressions_are_left_out() -> None:
    model = {"query": "SELECT $timeFilter $__interval $__interval_ms", "rawQuery": True, "intervalMs": 1000}
    data = [
        {"refId": "A", "datasourceUid": "han-influxdb", "relativeTimeRange": {"from": 600, "to": 60}, "model": model},
        {"refId": "B", "datasourceUid": "__expr__", "model": {"type": "reduce", "expression": "A"}},
    ]
    [one] = rule_queries({"groups": [{"name": "HAN", "rules": [{"title": "Fuse", "data": data}]}]})
    assert (one.dashboard, one.panel, one.ref, one.kind, one.ago) == ("HAN", "Fuse", "A", Kind.ALERT, (600, 60))
    text = fill(one)
    assert text == f"SELECT time >= {END - 600_000}ms and time <= {END - 60_000}ms 1s 1000"


def test_an_alert_query_may_have_no_variable() -> None:
    with pytest.raises(ValueError, match=r"no variables.*\$\{meter:regex\}"):
        fill(PanelQuery("", "", "A", "${meter:regex}", Kind.ALERT, ago=(60, 0)))


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("$meter ${meter} [[meter]]", "a.b/c a.b/c a.b/c"),
        ("/^${meter:regex}$/", r"/^a\.b\/c$/"),
        ("${meter:raw} [[meter:csv]] ${meter:pipe}", "a.b/c a.b/c a.b/c"),
        ("tz('${timezone:raw}')", "tz('Europe/Oslo')"),
        ("${instance:singlequote} ${instance:doublequote} ${instance:sqlstring}", "'it\\'s' \"it's\" 'it''s'"),
        ("GROUP BY time($__interval) $__interval_ms $interval", "GROUP BY time(1m) 60000 1m"),
        ("$__from ${__to:date:seconds} ${__from:date}", f"{END - DAY} {END // 1000} 2026-11-21T20:30:00.000Z"),
        ("$__range $__range_s $__range_ms", "86400s 86400 86400000"),
        ("=~ /^x$/ AND $timeFilter", f"=~ /^x$/ AND time >= {END - DAY}ms and time <= {END}ms"),
    ],
)
def test_variables_are_filled_in(query: str, sent: str) -> None:
    assert fill(query, meter="a.b/c", variables={"instance": "it's"}) == sent


def test_a_variables_query_gets_its_values_as_regular_expressions() -> None:
    one = PanelQuery("", "timezone", "", "'$meter'", Kind.VARIABLE)
    assert fill(one, meter="a.b") == r"'a\.b'"


@pytest.mark.parametrize("query", ["$metre", "${meter:odd}", "${meter.text}", "${__from:date:YYYY}"])
def test_an_unknown_variable_is_an_error_that_names_it(query: str) -> None:
    name = query.removeprefix("$").strip("{}")
    with pytest.raises(ValueError, match=name.split(":")[0].split(".")[0]):
        fill(query)


def test_now_can_be_another_moment() -> None:
    assert fill("time > now() - 5m AND time<=now()", now_ms=5) == "time > 5ms - 5m AND time<=5ms"
    assert fill("now()") == "now()"


@pytest.mark.parametrize(
    ("changes", "start", "end"),
    [
        ({}, END - DAY, END),
        ({"time_from": "15m"}, END - 900_000, END),
        ({"time_from": "now-7d"}, END - 7 * DAY, END),
        ({"time_from": "0d/d"}, oslo(2026, 11, 22), END),
        ({"time_from": "now/d"}, oslo(2026, 11, 22), END),
        ({"time_from": "0M/M"}, oslo(2026, 11, 1), END),
        ({"time_from": "1y/y"}, oslo(2025, 1, 1), END),
        ({"time_from": "0w/w"}, oslo(2026, 11, 16), END),
        ({"time_shift": "1d"}, END - 2 * DAY, END - DAY),
        ({"time_from": "1h", "time_shift": "1w"}, END - 7 * DAY - 3_600_000, END - 7 * DAY),
        ({"time_from": "0d/d", "time_shift": "1d/d"}, oslo(2026, 11, 21), oslo(2026, 11, 22) - 1),
        ({"ago": (600, 0)}, END - 600_000, END),
    ],
)
def test_a_panel_may_have_its_own_time_range(changes: dict[str, Any], start: int, end: int) -> None:
    assert made(**changes).range(END - DAY, END, "Europe/Oslo") == (start, end)


def test_days_and_months_are_of_the_calendar() -> None:
    end = oslo(2026, 10, 25, 12)  # the day of 25 hours
    assert made(time_from="1d").range(0, end, "Europe/Oslo")[0] == oslo(2026, 10, 24, 12)
    assert made(time_from="24h").range(0, end, "Europe/Oslo")[0] == oslo(2026, 10, 24, 13)
    end = oslo(2027, 3, 31, 12)
    assert made(time_from="1M").range(0, end, "Europe/Oslo")[0] == oslo(2027, 2, 28, 12)


@pytest.mark.parametrize("text", ["1x", "yesterday", "1d/"])
def test_a_wrong_time_range_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        made(time_from=text).range(0, END, "Europe/Oslo")


@pytest.mark.parametrize(
    ("days", "interval"),
    [(0.01, "10s"), (0.25, "20s"), (1, "1m"), (7, "10m"), (30, "30m"), (365, "6h"), (3000, "1d")],
)
def test_the_interval_gives_a_thousand_points(days: float, interval: str) -> None:
    end = round(END - days * DAY) + round(days * DAY)
    assert fill("$__interval", start_ms=round(end - days * DAY), end_ms=end) == interval


def test_a_panels_own_interval_and_number_of_points_are_used() -> None:
    assert made(interval="1h").interval_s(END - DAY, END) == 3600
    assert made(interval="1h").interval_s(END - 365 * DAY, END) == 21600
    assert made(max_data_points=100).interval_s(END - DAY, END) == 900
    assert made(interval=">30s").interval_s(END - 3_600_000, END) == 30
    wide = PanelQuery("", "", "A", "$__interval", interval="1h")
    assert fill(wide, interval_s=10) == "1h"
    assert fill("$__interval", interval_s=10) == "10s"


def test_intervals_are_written_in_their_largest_unit() -> None:
    assert [interval_text(s) for s in (0.5, 10, 90, 3600, 43200, 86400)] == ["500ms", "10s", "1m", "1h", "12h", "1d"]
    assert rounded_interval_s(1e9) == 31_536_000
    assert seconds("90") == 90
    with pytest.raises(ValueError, match="soon"):
        seconds("soon")
