"""The files that Grafana reads: they are up to date and consistent, and query only what is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana.dashboards.dashboards import files
from grafana.dashboards.panels import COLOURS
from tests.support.grafana_queries import PanelQuery, filled, other_queries_of, queries_of, rule_queries
from tests.support.schema import SAMPLES, schema, writers

ROOT = Path(__file__).parents[3]
GRAFANA = ROOT / "grafana"
SCHEMAS = ROOT / "tests/grafana_schemas"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
RULES = GRAFANA / "provisioning/alerting/rules.yaml"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
DATA_SOURCE = {"type": "influxdb", "uid": "han-influxdb"}
SCHEMA_TAGS = {"kind", "quantity", "bound", "direction", "phase"}
"""Tags whose values come from the schema, not from a meter."""

each_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def load(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text("utf-8"))
    assert isinstance(content, dict)
    return content


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


def every_query() -> list[PanelQuery]:
    found = rule_queries(yaml.safe_load(RULES.read_text("utf-8")))
    for path in DASHBOARDS:
        found += queries_of(load(path)) + other_queries_of(load(path))
    return found


# Queries


@dataclass
class Select:
    """A SELECT: its text without inner SELECTs, and the SELECT around it."""

    text: str = ""
    outer: Select | None = None
    inner: list[Select] = field(default_factory=list)

    @property
    def leaves(self) -> list[Select]:
        """The SELECTs that read a measurement."""
        return [leaf for one in self.inner for leaf in one.leaves] if self.inner else [self]

    def whole(self) -> str:
        """Its text, and the texts of the SELECTs around it."""
        return self.text + (f" ( {self.outer.whole()}" if self.outer else "")


def selects(query: str) -> Select:
    top = now = Select()
    depths: list[int] = []
    depth = at = 0
    while at < len(query):
        if query.startswith("(SELECT ", at):
            depths.append(depth)
            now.inner.append(Select(outer=now))
            now = now.inner[-1]
        elif query[at] == ")" and depths and depth == depths[-1] + 1:
            depths.pop()
            assert now.outer is not None
            now = now.outer
        else:
            now.text += query[at]
        depth += {"(": 1, ")": -1}.get(query[at], 0)
        at += 1
    assert depth == 0, query
    return top


def wrong_names(query: str) -> list[str]:
    """Names in a query, and values of tags of the schema, that no point has."""
    known = schema()
    measurements = re.findall(r'\bFROM\s+"([^"]+)"', query)
    wrong = [f"measurement {name}" for name in measurements if name not in known]
    if len(measurements) != len(re.findall(r"\bFROM\s+[^(\s]", query)):
        wrong.append("a measurement without quotes")
    read = [known[name] for name in measurements if name in known]
    names = {tag for kind in read for tag in kind.tags} | {one for kind in read for one in kind.fields}
    made = set(re.findall(r'\bAS "([^"]+)"', query))
    named = set(re.findall(r'"([^"]+)"', query)) - set(measurements) - made
    wrong += [f"tag or field {name}" for name in sorted(named - names)]
    for tag, value in re.findall(r'"(\w+)" (?:=|!=|<>) \'([^\']+)\'', query):
        values = {one for kind in read for one in kind.tags.get(tag, ())}
        if tag in SCHEMA_TAGS and value not in values:
            wrong.append(f"{tag} {value}")
    return wrong


def test_the_schema_covers_every_line_that_is_written() -> None:
    assert writers() == SAMPLES.keys()
    known = schema()
    assert known["current"].tags.keys() == {"meter_id", "obis", "phase"}
    assert known["active_energy"].tags.keys() == {"meter_id", "obis", "phase", "direction"}
    assert known["capacity"].fields.keys() == {"value", "hour"}
    assert {"frames", "rejects_fcs", "outbox_age", "write_latency"} <= known["exporter"].fields.keys()


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ('SELECT mean("value") FROM "current" WHERE "phase" = \'L1\'', []),
        ('SELECT mean("value") FROM "curent"', ["measurement curent", "tag or field value"]),
        ('SELECT mean("value") FROM "current" WHERE "direction" != \'\'', ["tag or field direction"]),
        ('SELECT mean("velue") FROM "voltage"', ["tag or field velue"]),
        ("SELECT mean(value) FROM voltage", ["a measurement without quotes"]),
        ('SELECT "x" FROM (SELECT max("value") AS "x" FROM "voltage")', []),
        ('SELECT "y" FROM (SELECT max("value") AS "x" FROM "voltage")', ["tag or field y"]),
        ('SELECT last("value") FROM "threshold" WHERE "quantity" = \'volt\'', ["quantity volt"]),
    ],
)
def test_a_wrong_name_is_found(query: str, wrong: list[str]) -> None:
    assert wrong_names(query) == wrong


def test_nested_selects_are_parsed() -> None:
    found = selects("SELECT sum(a) FROM (SELECT max(b) FROM x WHERE (c)), (SELECT d FROM y) WHERE e")
    assert [leaf.text for leaf in found.leaves] == ["(SELECT max(b) FROM x WHERE (c)"[1:], "SELECT d FROM y"]
    assert "WHERE e" in found.leaves[0].whole()
    assert "FROM y" not in found.leaves[0].whole()


def test_queries_use_only_names_that_are_written() -> None:
    wrong = {f"{query.dashboard}, {query.panel}: {query.query}": wrong_names(query.query) for query in every_query()}
    assert {where: names for where, names in wrong.items() if names} == {}


@each_dashboard
def test_queries_of_a_panel_are_for_one_meter_or_exporter(path: Path) -> None:
    whose = ('"meter_id" =~ /^${meter:regex}$/', '"instance" =~ /^${instance:regex}$/', "\"meter_id\" = ''")
    for query in queries_of(load(path)):
        for leaf in selects(query.query).leaves:
            assert any(one in leaf.whole() for one in whose), (query.panel, leaf.text)
            if "\"meter_id\" = ''" in leaf.text:
                assert "\"quantity\" = 'backlog_age'" in leaf.text, "the only limit without a meter"


@each_dashboard
def test_queries_of_a_panel_are_bounded_in_time(path: Path) -> None:
    bound = re.compile(r"\$timeFilter|time >=? (now\(\)|\$\{__(from|to)\}ms) - \d+[mhdw]\b|time > now\(\) - \d+s\b")
    for query in queries_of(load(path)):
        for leaf in selects(query.query).leaves:
            assert bound.search(leaf.whole()), (query.panel, leaf.text)


@each_dashboard
def test_queries_use_only_variables_of_the_dashboard(path: Path) -> None:
    dashboard = load(path)
    variables = {variable["name"]: "1" for variable in dashboard["templating"]["list"]}
    for query in queries_of(dashboard) + other_queries_of(dashboard):
        text = filled(query, meter="m", timezone="UTC", start_ms=0, end_ms=1000, variables=variables)
        assert "$" not in text.replace("$/", ""), text


# Dashboards


def test_the_files_are_what_the_code_writes() -> None:
    generated = files()
    assert {path for path in generated if path.suffix == ".json"} == set(DASHBOARDS)
    stale = [path.name for path, text in generated.items() if path.read_text("utf-8") != text]
    assert stale == [], "run python -m grafana.dashboards.dashboards"


@pytest.mark.parametrize(
    ("form", "paths"),
    [
        ("dashboard", DASHBOARDS),
        ("datasources", [GRAFANA / "provisioning/datasources/influxdb.yaml"]),
        ("providers", [GRAFANA / "provisioning/dashboards/han.yaml"]),
        ("rules", [RULES]),
    ],
)
def test_a_file_has_the_form_that_grafana_reads(form: str, paths: list[Path]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(SCHEMAS / f"{form}.json")]
    outcome = subprocess.run([*command, *paths], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@each_dashboard
def test_variables_have_a_query_and_real_meters_come_first(path: Path) -> None:
    """The order is that of the query: no sorting (0), and the key real before simulated."""
    variables = {variable["name"]: variable for variable in load(path)["templating"]["list"]}
    assert list(variables)[:2] == ["meter", "timezone"]
    assert 'WITH KEY IN ("real", "simulated")' in variables["meter"]["query"]
    assert 'FROM "meter"' in variables["timezone"]["query"]
    for name, variable in variables.items():
        assert variable["definition"] == variable["query"]
        assert variable["hide"] == (0 if name in ("meter", "instance") else 2), name


@each_dashboard
def test_annotations_mark_events_and_alert_changes(path: Path) -> None:
    alerts, events = load(path)["annotations"]["list"]
    assert alerts["datasource"]["uid"] == "-- Grafana --"
    assert events["datasource"] == DATA_SOURCE
    assert 'FROM "event"' in events["query"]
    assert events["textColumn"] == "text"


@each_dashboard
def test_panels_have_unique_numbers_and_do_not_overlap(path: Path) -> None:
    found = list(panels(load(path)))
    assert len({panel["id"] for panel in found}) == len(found)
    assert len({panel["title"] for panel in found}) == len(found)
    for one, other in combinations([panel["gridPos"] for panel in found], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in found)


@each_dashboard
def test_a_panel_has_a_description_and_unique_letters_of_queries(path: Path) -> None:
    for panel in panels(load(path)):
        words = panel["description"]
        assert words[0].isupper() or words[0].isdigit(), words
        assert words.endswith("."), words
        assert panel["datasource"] == DATA_SOURCE
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters), panel["title"]
        assert "noValue" in panel["fieldConfig"]["defaults"], panel["title"]


@each_dashboard
def test_no_gap_in_a_graph_is_filled(path: Path) -> None:
    """Grafana draws a noValue that is a number in place of missing values, and takes "" for a number."""
    for panel in panels(load(path)):
        if panel["type"] == "timeseries":
            config = panel["fieldConfig"]
            changes = [change for override in config["overrides"] for change in override["properties"]]
            words = [change["value"] for change in changes if change["id"] == "noValue"]
            assert all(re.search("[a-z-]$", text) for text in (config["defaults"]["noValue"], *words)), panel["title"]


@each_dashboard
def test_limits_are_the_first_transformation_and_used_once(path: Path) -> None:
    """After any transformation, frames have no query name any more, and configFromData needs it."""
    for panel in panels(load(path)):
        steps = [step["id"] for step in panel.get("transformations", [])]
        assert "configFromData" not in steps[1:], panel["title"]


def fixed_colours() -> dict[str, set[str]]:
    """Name of a series -> its colours on all dashboards."""
    found: dict[str, set[str]] = {}
    for path in DASHBOARDS:
        for panel in panels(load(path)):
            for override in panel["fieldConfig"]["overrides"]:
                for one in override["properties"]:
                    fixed = one["value"]["fixedColor"] if one["id"] == "color" and "fixedColor" in one["value"] else ""
                    if fixed and override["matcher"]["id"] == "byName":
                        found.setdefault(override["matcher"]["options"], set()).add(fixed)
    return found


def test_a_series_has_one_colour_everywhere() -> None:
    found = fixed_colours()
    assert {name: colours for name, colours in found.items() if len(colours) > 1} == {}
    assert {name: found[name] for name in COLOURS if name in found} == {
        name: {colour} for name, colour in COLOURS.items() if name in found
    }


def test_a_graph_gives_each_phase_its_colour() -> None:
    for path in DASHBOARDS:
        for panel in panels(load(path)):
            by_phase = any(target.get("alias") == "$tag_phase" for target in panel["targets"])
            if by_phase and panel["type"] in ("timeseries", "barchart", "piechart"):
                named = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
                assert {"L1", "L2", "L3"} <= named, panel["title"]


def test_the_uid_of_a_dashboard_is_the_name_of_its_file() -> None:
    assert [path.stem for path in DASHBOARDS] == ["balance", "capacity", "consumption", "exporter", "now", "quality"]
    for path in DASHBOARDS:
        assert load(path)["uid"] == f"han-{path.stem}"
    assert len({load(path)["title"] for path in DASHBOARDS}) == len(DASHBOARDS)


def test_grafana_opens_on_now() -> None:
    home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == "/etc/grafana/dashboards/now.json"


def test_every_rule_links_to_an_existing_panel() -> None:
    known = {(f"han-{path.stem}", panel["id"]) for path in DASHBOARDS for panel in panels(load(path))}
    for rule in rules():
        assert (rule["dashboardUid"], rule["panelId"]) in known, rule["title"]


# Provisioning


def test_the_data_source_reads_the_stacks_bucket_with_a_token_from_a_file() -> None:
    content = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "influxdb.yaml").read_text("utf-8"))
    (source,) = content["datasources"]
    stack = COMPOSE["services"]["exporter"]["environment"]
    assert {key: source[key] for key in DATA_SOURCE} == DATA_SOURCE
    assert source["url"] == stack["HAN_INFLUX_URL"]
    assert source["database"] == source["jsonData"]["dbName"] == stack["HAN_INFLUX_BUCKET"]
    assert source["secureJsonData"]["httpHeaderValue1"] == "Token $__file{/run/han-exporter/influx-token}"
    assert "secrets-grafana:/run/han-exporter:ro" in COMPOSE["services"]["grafana"]["volumes"]


def test_the_files_are_mounted_where_grafana_reads_them() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/han.yaml").read_text("utf-8"))["providers"]
    mounted = {volume.split(":")[0]: volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]}
    assert mounted["./grafana/dashboards"] == provider["options"]["path"]
    for folder in (GRAFANA / "provisioning").iterdir():
        places = {
            place for source, place in mounted.items() if source.startswith(f"./grafana/provisioning/{folder.name}")
        }
        assert places or "./grafana/provisioning" in mounted, folder
