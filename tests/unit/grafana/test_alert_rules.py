"""What each alert rule promises: limits from data, joined by meter, silent without data, told in words that hold."""

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
"""Rules that hold nothing against a limit."""
LIMITS = ("limit", "floor", "low", "high", "full", "step", "fuse")
each = pytest.mark.parametrize("rule", RULES, ids=[rule.uid for rule in RULES])


def numbers(text: str) -> set[str]:
    """The bare numbers of an expression."""
    return set(re.findall(r"(?<![\w$])\d+(?:\.\d+)?", text))


def names(text: str) -> set[str]:
    """The $names of an expression."""
    return set(re.findall(r"\$(\w+)", text))


def grouped(query: str) -> set[str]:
    """The tags that the series of a query are told apart by."""
    found = re.search(r"GROUP BY ([^()]*)$", query)
    return set(re.findall(r'"(\w+)"', found[1])) if found else set()


def test_rules_are_told_apart() -> None:
    for of in ("uid", "title"):
        assert len({getattr(rule, of) for rule in RULES}) == len(RULES)
    assert not set(alerts.RETIRED) & {rule.uid for rule in RULES}
    assert set(WRITTEN) == {rule.uid for rule in RULES}


def test_every_limit_of_the_owner_is_read_by_a_rule() -> None:
    """All that the exporter writes, but the fuse's warning in A: a line in graphs, and the same as that in %."""
    owner = Limits(**dict.fromkeys((field.name for field in fields(Limits)), 1.0))
    there = {(one.quantity, one.bound) for one in (*thresholds(owner), *exporter_thresholds(1))}
    pattern = re.compile(r"FROM \"threshold\" WHERE \"quantity\" = '(\w+)' AND \"bound\" = '(\w+)'")
    read = {found for rule in RULES for ask in rule.queries for found in pattern.findall(ask.query)}
    assert read == there - {("current", "warn")}


@each
def test_no_limit_is_a_number(rule: Rule) -> None:
    """0 is nothing at all, 3 the days that make a capacity charge, 100 makes a percentage."""
    assert numbers(rule.condition) <= {"0", "3"}
    assert rule.uid == "han-capacity" or numbers(rule.condition) <= {"0"}
    for _, text in rule.also:
        assert numbers(text) <= {"100"}
    read = {ask.name for ask in rule.queries if ask.name in LIMITS}
    assert read or rule.uid in COUNTED
    for ask in rule.queries:
        if ask.name in LIMITS:
            assert 'FROM "threshold"' in ask.query or 'FROM "capacity_step"' in ask.query


@each
def test_its_numbers_can_be_joined(rule: Rule) -> None:
    """Grafana joins what is labelled {meter_id, phase} with {meter_id}, and either with what has no label at all."""
    values = {ask.name: grouped(ask.query) for ask in rule.queries}
    widest = max(values.values(), key=len)
    assert widest in ({"meter_id"}, {"meter_id", "phase"}, {"instance"}, set())
    for name, tags in values.items():
        assert tags <= widest, name
        if name in LIMITS and "meter_id" in widest:
            assert tags == {"meter_id"}, "each meter has its own"


@each
def test_it_looks_back_just_far_enough(rule: Rule) -> None:
    """Values of the last minutes only; limits, which come every five minutes; a month for a month's."""
    for ask in rule.queries:
        assert "$timeFilter" in ask.query and "now()" not in ask.query
        if rule.uid == "han-no-reading" and ask.name == "limit":
            assert ask.since_s > 86400, "a meter is missed for a day, and its limit is as old as its last reading"
        elif ask.name in ("step", "peaks"):
            assert ask.since_s == 32 * 86400
        elif ask.name in LIMITS:
            assert ask.since_s == 3600
        elif ask.name == "points":
            assert ask.since_s == 86400
        else:
            assert 30 < ask.since_s <= 305


@each
def test_it_asks_for_what_it_uses_and_tells_what_it_asked_for(rule: Rule) -> None:
    known = {ask.name for ask in rule.queries}
    for name, text in rule.also:
        assert names(text) <= known
        known.add(name)
    assert len(known) == len(rule.queries) + len(rule.also)
    assert len({ask.ref for ask in rule.queries}) == len(rule.queries)
    assert names(rule.condition) <= known
    words = rule.words
    tags = set().union(*(grouped(ask.query) for ask in rule.queries))
    for text in (words.title, words.summary, words.advice, words.resolved):
        assert set(re.findall(r"\.Values\.(\w+)", text)) <= known, "a number that is not there is told as 0"
        assert set(re.findall(r"\.Labels\.(\w+)", text)) <= tags
        assert text.count("{{") == text.count("}}")
    for name in tags:
        assert f".Labels.{name} " in words.summary, f"which {name} is it?"


@each
def test_it_keeps_quiet_without_data_and_only_one_speaks_of_influxdb(rule: Rule) -> None:
    written = WRITTEN[rule.uid]
    assert written["noDataState"] == "OK"
    assert written["execErrState"] == ("Alerting" if rule.uid == "han-influxdb" else "OK")
    assert written["labels"]["severity"] in ("warning", "critical")
    assert written["labels"]["area"]


@each
def test_its_words_are_an_owners(rule: Rule) -> None:
    written = WRITTEN[rule.uid]["annotations"]
    assert set(written) == {"title", "summary", "description", "resolved", "__dashboardUid__", "__panelId__"}
    for name in ("title", "summary", "description", "resolved"):
        text = written[name]
        assert "$" not in text, "some releases of Grafana fill in variables of the environment here"
        assert re.sub(r"\{\{.*?\}\}", "", text).strip()
        if name != "title":
            assert text.removesuffix("{{ end }}").rstrip().endswith((".", ")")), text
    assert rule.title in written["title"]
    assert WRITTEN[rule.uid]["annotations"]["__panelId__"] == str(WRITTEN[rule.uid]["panelId"])


def test_it_is_evaluated_as_often_as_grafana_can() -> None:
    for group in CONTENT["groups"]:
        assert group["interval"] in ("10s", "30s", "1m"), "Grafana's step is 10 s"
        assert group["folder"] == "HAN"
        for rule in group["rules"]:
            assert re.fullmatch(r"\d+[sm]", rule["for"])
    fuse = CONTENT["groups"][0]
    assert {rule["uid"]: rule["for"] for rule in fuse["rules"]} == {"han-fuse": "30s", "han-fuse-warn": "2m"}
    assert fuse["interval"] == "10s"


def test_a_panel_that_is_gone_is_missed() -> None:
    row = {"id": 7, "title": "Row", "panels": [{"id": 8, "title": "Inside"}]}
    panel_id = panel_ids([{"uid": "han-now", "panels": [row]}])
    assert panel_id("han-now", "Inside") == 8
    with pytest.raises(LookupError, match="'Power now' of han-now"):
        panel_id("han-now", "Power now")
