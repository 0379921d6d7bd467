"""Each alert rule: its limits are data, joined by meter; it does not fire without data; its texts use known numbers."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest
import yaml

from exporter.config import Limits
from exporter.derive.limits import exporter_thresholds, thresholds
from grafana.dashboards import alerts
from grafana.dashboards.rule_parts import Rule, panel_ids
from tests.support.grafana_server import ROOT

RULES = [rule for group in alerts.GROUPS for rule in group.rules]
CONTENT: dict[str, Any] = yaml.safe_load((ROOT / "grafana/provisioning/alerting/rules.yaml").read_text("utf-8"))
WRITTEN: dict[str, dict[str, Any]] = {rule["uid"]: rule for group in CONTENT["groups"] for rule in group["rules"]}
TAGS = {"meter_id", "phase", "instance"}
COUNTED = {"han-exporter-silent", "han-influxdb"}
"""Rules without a limit."""
LIMITS = ("limit", "floor", "low", "high", "full", "step", "fuse")
each = pytest.mark.parametrize("rule", RULES, ids=[rule.uid for rule in RULES])


def numbers(text: str) -> set[str]:
    """The numbers in an expression."""
    return set(re.findall(r"(?<![\w$])\d+(?:\.\d+)?", text))


def names(text: str) -> set[str]:
    """The $names in an expression."""
    return set(re.findall(r"\$(\w+)", text))


def grouped(query: str) -> set[str]:
    """The tags by which a query groups its series."""
    found = re.search(r"GROUP BY ([^()]*)$", query)
    return set(re.findall(r'"(\w+)"', found[1])) if found else set()


def test_uids_and_titles_are_unique() -> None:
    for of in ("uid", "title"):
        assert len({getattr(rule, of) for rule in RULES}) == len(RULES)
    assert not set(alerts.RETIRED) & {rule.uid for rule in RULES}
    assert set(WRITTEN) == {rule.uid for rule in RULES}


def test_every_limit_of_the_owner_is_read_by_a_rule() -> None:
    """All limits that the exporter writes, except the fuse's warning in A, which is the same as the one in %."""
    owner = Limits(**dict.fromkeys((field.name for field in fields(Limits)), 1.0))
    known = {(one.quantity, one.bound) for one in (*thresholds(owner), *exporter_thresholds(1))}
    pattern = re.compile(r"FROM \"threshold\" WHERE \"quantity\" = '(\w+)' AND \"bound\" = '(\w+)'")
    read = {found for rule in RULES for query in rule.queries for found in pattern.findall(query.query)}
    assert read == known - {("current", "warn")}


@each
def test_no_condition_contains_a_limit(rule: Rule) -> None:
    """The only numbers are 0, the 3 days of the capacity charge, and 100 for a percentage."""
    assert numbers(rule.condition) <= {"0", "3"}
    assert rule.uid == "han-capacity" or numbers(rule.condition) <= {"0"}
    for _, text in rule.also:
        assert numbers(text) <= {"100"}
    read = {query.name for query in rule.queries if query.name in LIMITS}
    assert read or rule.uid in COUNTED
    for query in rule.queries:
        if query.name in LIMITS:
            assert 'FROM "threshold"' in query.query or 'FROM "capacity_step"' in query.query


@each
def test_numbers_of_a_rule_can_be_joined(rule: Rule) -> None:
    """Grafana joins series with the labels {meter_id, phase} and {meter_id}, and both with series without labels."""
    values = {query.name: grouped(query.query) for query in rule.queries}
    widest = max(values.values(), key=len)
    assert widest in ({"meter_id"}, {"meter_id", "phase"}, {"instance"}, set())
    for name, tags in values.items():
        assert tags <= widest, name
        if name in LIMITS and "meter_id" in widest:
            assert tags == {"meter_id"}, "each meter has its own limit"


@each
def test_the_time_range_of_each_query_fits(rule: Rule) -> None:
    """Values: some minutes. Limits, which are written every five minutes: longer. Values of a month: a month."""
    for query in rule.queries:
        assert "$timeFilter" in query.query and "now()" not in query.query
        if rule.uid == "han-no-reading" and query.name == "limit":
            assert query.since_s > 86400, "a meter may be silent for a day, and its limit is as old as its last reading"
        elif query.name in ("step", "peaks"):
            assert query.since_s == 32 * 86400
        elif query.name in LIMITS:
            assert query.since_s == 3600
        elif query.name == "points":
            assert query.since_s == 86400
        else:
            assert 30 < query.since_s <= 305


@each
def test_conditions_and_texts_use_only_numbers_and_labels_of_the_queries(rule: Rule) -> None:
    known = {query.name for query in rule.queries}
    for name, text in rule.also:
        assert names(text) <= known
        known.add(name)
    assert len(known) == len(rule.queries) + len(rule.also)
    assert len({query.ref for query in rule.queries}) == len(rule.queries)
    assert names(rule.condition) <= known
    words = rule.words
    tags = set().union(*(grouped(query.query) for query in rule.queries))
    for text in (words.title, words.summary, words.advice, words.resolved):
        assert set(re.findall(r"\.Values\.(\w+)", text)) <= known, "a missing number would be shown as 0"
        assert set(re.findall(r"\.Labels\.(\w+)", text)) <= tags
        assert text.count("{{") == text.count("}}")
    for name in tags:
        assert f".Labels.{name} " in words.summary, f"which {name} is it?"


@each
def test_no_rule_fires_without_data_and_only_one_if_influxdb_fails(rule: Rule) -> None:
    written = WRITTEN[rule.uid]
    assert written["noDataState"] == "OK"
    assert written["execErrState"] == ("Alerting" if rule.uid == "han-influxdb" else "OK")
    assert written["labels"]["severity"] in ("warning", "critical")
    assert written["labels"]["area"]


@each
def test_texts_are_complete_and_end_as_sentences(rule: Rule) -> None:
    written = WRITTEN[rule.uid]["annotations"]
    assert set(written) == {"title", "summary", "description", "resolved", "__dashboardUid__", "__panelId__"}
    for name in ("title", "summary", "description", "resolved"):
        text = written[name]
        assert "$" not in text, "some releases of Grafana replace variables of the environment here"
        assert re.sub(r"\{\{.*?\}\}", "", text).strip()
        if name != "title":
            assert text.removesuffix("{{ end }}").rstrip().endswith((".", ")")), text
    assert rule.title in written["title"]
    assert WRITTEN[rule.uid]["annotations"]["__panelId__"] == str(WRITTEN[rule.uid]["panelId"])


def test_rules_are_evaluated_often_enough() -> None:
    for group in CONTENT["groups"]:
        assert group["interval"] in ("10s", "30s", "1m"), "Grafana's step is 10 s"
        assert group["folder"] == "HAN"
        for rule in group["rules"]:
            assert re.fullmatch(r"\d+[sm]", rule["for"])
    fuse = CONTENT["groups"][0]
    assert {rule["uid"]: rule["for"] for rule in fuse["rules"]} == {"han-fuse": "30s", "han-fuse-warn": "2m"}
    assert fuse["interval"] == "10s"


def test_a_link_to_a_missing_panel_is_an_error() -> None:
    row = {"id": 7, "title": "Row", "panels": [{"id": 8, "title": "Inside"}]}
    panel_id = panel_ids([{"uid": "han-now", "panels": [row]}])
    assert panel_id("han-now", "Inside") == 8
    with pytest.raises(LookupError, match="'Power now' of han-now"):
        panel_id("han-now", "Power now")
