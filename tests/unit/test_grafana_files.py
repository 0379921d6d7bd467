"""What Grafana is given: it parses, hangs together, and asks only for what the schema has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.protocol.obis import ObisCode, describe

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
PROVISIONING = sorted((GRAFANA / "provisioning").rglob("*.yaml"))
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
DATA_SOURCE = {"type": "influxdb", "uid": "han-influxdb"}


def schema() -> dict[str, set[str]]:
    """measurement -> its tags: what points.py writes."""
    tags: dict[str, set[str]] = {
        "meter_clock_offset": {"meter_id"},
        "reading_age": {"meter_id"},
        "exporter": {"instance"},
        "event": {"instance", "kind"},
    }
    for c in range(256):
        for d in range(256):
            quantity = describe(ObisCode(1, 0, c, d, 0))
            if quantity is not None:
                of = tags.setdefault(quantity.name, {"meter_id", "obis"})
                of |= {name for name in ("phase", "direction") if getattr(quantity, name)}
    return tags


def load(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text("utf-8"))
    assert isinstance(content, dict)
    return content


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in panels(dashboard):
        for target in panel.get("targets", []):
            yield target["query"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]


def wrong_names(query: str) -> list[str]:
    """Names in a query that no point has."""
    known = schema()
    measurements = re.findall(r'\bFROM\s+"([^"]+)"', query)
    wrong = [f"measurement {name}" for name in measurements if name not in known]
    if len(measurements) != len(re.findall(r"\bFROM\s+[^(\s]", query)):
        wrong.append("a measurement without quotes")
    allowed = {"value"}.union(*(known.get(name, set()) for name in measurements))
    names = set(re.findall(r'"([^"]+)"', query)) - set(measurements)
    return wrong + [f"tag or field {name}" for name in sorted(names - allowed)]


def test_the_schema_is_read_from_the_catalogue() -> None:
    known = schema()
    assert known["current"] == {"meter_id", "obis", "phase"}
    assert known["active_energy"] == {"meter_id", "obis", "phase", "direction"}


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ('SELECT mean("value") FROM "current" WHERE "phase" = \'L1\'', []),
        ('SELECT mean("value") FROM "curent"', ["measurement curent"]),
        ('SELECT mean("value") FROM "current" WHERE "direction" = \'import\'', ["tag or field direction"]),
        ('SELECT mean("velue") FROM "voltage"', ["tag or field velue"]),
        ("SELECT mean(value) FROM voltage", ["a measurement without quotes"]),
    ],
)
def test_a_wrong_name_is_found(query: str, wrong: list[str]) -> None:
    assert wrong_names(query) == wrong


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_queries_name_only_what_is_written(path: Path) -> None:
    found = list(queries(load(path)))
    assert found
    for query in found:
        assert wrong_names(query) == [], query


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_every_query_of_a_panel_is_for_one_meter_and_bounded_in_time(path: Path) -> None:
    for panel in panels(load(path)):
        for target in panel.get("targets", []):
            assert target["rawQuery"] is True
            assert '"meter_id" =~ /^${meter:regex}$/' in target["query"]
            assert re.search(r"\$timeFilter|time > now\(\) - \d+[mhd]", target["query"])
            assert target["datasource"] == panel["datasource"] == DATA_SOURCE


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_variables_carry_what_grafana_9_needs(path: Path) -> None:
    """Without `current`, `options`, `definition`, `regex` and `refresh` it leaves the variable as it is written."""
    variables = load(path)["templating"]["list"]
    assert "meter" in {variable["name"] for variable in variables}
    for variable in variables:
        if variable["type"] == "query":
            assert {"current", "options", "definition", "regex", "refresh"} <= variable.keys()
            assert variable["definition"] == variable["query"]
            assert variable["datasource"] == DATA_SOURCE


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_is_ours_and_explains_itself(path: Path) -> None:
    dashboard = load(path)
    assert dashboard["editable"] is False
    assert "id" not in dashboard
    assert dashboard["timezone"] == "", "the default, which is HAN_TIMEZONE"
    found = list(panels(dashboard))
    assert len({panel["id"] for panel in found}) == len(found)
    for panel in found:
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]


def test_dashboards_have_different_names() -> None:
    for key in ("uid", "title"):
        assert len({load(path)[key] for path in DASHBOARDS}) == len(DASHBOARDS)


def test_provisioning_parses() -> None:
    assert PROVISIONING
    for path in PROVISIONING:
        assert yaml.safe_load(path.read_text("utf-8"))["apiVersion"] == 1


def test_the_data_source_reads_the_stacks_bucket_with_a_token_from_a_file() -> None:
    content = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "influxdb.yaml").read_text("utf-8"))
    (source,) = content["datasources"]
    stack = COMPOSE["services"]["exporter"]["environment"]
    assert {key: source[key] for key in DATA_SOURCE} == DATA_SOURCE
    assert source["editable"] is False
    assert source["url"] == stack["HAN_INFLUX_URL"]
    assert source["database"] == source["jsonData"]["dbName"] == stack["HAN_INFLUX_BUCKET"]
    assert source["jsonData"]["httpHeaderName1"] == "Authorization"
    assert source["secureJsonData"]["httpHeaderValue1"] == "Token $__file{/run/han-exporter/influx-token}"
    assert "secrets-grafana:/run/han-exporter:ro" in COMPOSE["services"]["grafana"]["volumes"]


def test_dashboards_are_read_from_where_they_are_mounted() -> None:
    content = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "han.yaml").read_text("utf-8"))
    (provider,) = content["providers"]
    assert provider["allowUiUpdates"] is False
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in COMPOSE["services"]["grafana"]["volumes"]
