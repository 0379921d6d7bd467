"""The stack's Grafana with simulated houses: what it serves, its access rights, restarts, and a browser.

Needs a Grafana (tests/support/grafana_server.py says how it is found), and for the last tests playwright and Chromium.
With HAN_TEST_GRAFANA_URL, the dashboards of a running stack are tested, with the meters that it has.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from exporter.model.calendar import to_ms
from tests.e2e.alerting import StartedGrafana
from tests.support.dashboards import FOLDER, NAMES
from tests.support.grafana_queries import Kind, PanelQuery, filled, other_queries_of, queries_of
from tests.support.grafana_server import NO_GRAFANA, Grafana, Refused, find_grafana
from tests.support.houses import CABIN, IT, SOLAR, TN, fill
from tests.support.influx_server import Influx, Store

GIVEN = os.environ.get("HAN_TEST_GRAFANA_URL", "")
HOUSES = (TN, IT, CABIN, SOLAR)
OURS = {f"han-{name}" for name in NAMES}
SOURCE = {"type": "influxdb", "uid": "han-influxdb"}

pytestmark = pytest.mark.slow
with_grafana = pytest.mark.skipif(find_grafana() is None, reason=NO_GRAFANA)


def no_browser() -> str:
    """Why there is no browser; "" if there is one."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install -e '.[browser]'"
    from grafana.screenshots.browser import find_chromium

    return "" if find_chromium() else "no browser found: put chromium on PATH, or set HAN_TEST_CHROMIUM to one"


@dataclass(frozen=True)
class Stack:
    """A Grafana with an InfluxDB that has these meters, at `now`."""

    grafana: Grafana
    meters: tuple[str, ...]
    now: int

    def query(self, text: str, *, user: str | None = None, table: bool = False) -> Any:
        """Query through Grafana's server, as alerts do, and panels in later releases. Raises Refused."""
        target = {"refId": "A", "datasource": SOURCE, "rawQuery": True, "query": text}
        target["resultFormat"] = "table" if table else "time_series"
        body = {"queries": [target], "from": str(self.now - 86_400_000), "to": str(self.now)}
        return self.grafana.api("POST", "/api/ds/query", body, user=user)["results"]["A"]


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    now = datetime.now(UTC).replace(microsecond=0)
    if GIVEN:
        found = Stack(Grafana(GIVEN), (), to_ms(now))
        frames = found.query('SHOW TAG VALUES FROM "meter" WITH KEY IN ("real", "simulated")', table=True)["frames"]
        meters = tuple(value for frame in frames for value in frame["data"]["values"][-1])
        yield Stack(found.grafana, meters, found.now)
        return
    home = find_grafana()
    if home is None:
        pytest.skip(NO_GRAFANA)
    store = Store(request.getfixturevalue("shared_influx"))
    grafana = StartedGrafana(home, tmp_path_factory.mktemp("stack") / "grafana", store)
    fill(store, HOUSES, now)
    grafana.start()
    print(f"Grafana {grafana.version} at {grafana.url}")
    yield Stack(grafana, tuple(house.meter_id for house in HOUSES), to_ms(now))
    grafana.stop()


def file(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return content


def without_numbers(dashboard: dict[str, Any]) -> dict[str, Any]:
    """A dashboard without the numbers that Grafana adds: id and version."""
    return {name: value for name, value in dashboard.items() if name not in ("id", "version")}


def board(grafana: Grafana, uid: str) -> dict[str, Any]:
    found: dict[str, Any] = grafana.api("GET", f"/api/dashboards/uid/{uid}")
    return found


# What a visitor sees


def test_the_dashboards_are_those_of_the_files(stack: Stack) -> None:
    found = stack.grafana.api("GET", "/api/search?type=dash-db&folderIds=0&tag=han-exporter") or []
    found += stack.grafana.api("GET", "/api/search?type=dash-db&tag=han-exporter")
    assert {one["uid"] for one in found if one.get("folderTitle") == "HAN"} == OURS
    for name in NAMES:
        read = board(stack.grafana, f"han-{name}")
        assert without_numbers(read["dashboard"]) == without_numbers(file(name))
        assert read["meta"]["provisioned"] is True
        assert read["meta"]["canSave"] is False


def test_now_is_the_home_dashboard(stack: Stack) -> None:
    home = stack.grafana.api("GET", "/api/dashboards/home")
    assert home["dashboard"]["title"] == "Now"


def test_a_viewer_may_change_nothing(stack: Stack) -> None:
    attempts = [
        ("POST", "/api/dashboards/db", {"dashboard": {"title": "Mine", "panels": []}}),
        ("POST", "/api/folders", {"title": "Mine"}),
        ("POST", "/api/datasources", {"name": "Mine", "type": "influxdb", "access": "proxy"}),
        ("POST", "/api/annotations", {"text": "mine"}),
        ("DELETE", "/api/dashboards/uid/han-now", None),
        ("POST", "/api/alertmanager/grafana/api/v2/silences", {}),
        ("POST", "/api/ruler/grafana/api/v1/rules/HAN", {"name": "Mine", "rules": []}),
        ("GET", "/api/admin/settings", None),
    ]
    for method, path, content in attempts:
        with pytest.raises(Refused) as refused:
            stack.grafana.api(method, path, content)
        assert refused.value.status in (401, 403), path


def test_the_data_source_answers_visitors(stack: Stack) -> None:
    query = {"db": "", "q": 'SHOW TAG VALUES FROM "meter" WITH KEY = "meter_id"'}
    sources = stack.grafana.api("GET", "/api/frontend/settings")["datasources"]
    ours = next(source for source in sources.values() if source.get("uid") == SOURCE["uid"])
    query["db"] = ours.get("database") or ours["jsonData"]["dbName"]
    assert "secureJsonData" not in ours
    (answer,) = stack.grafana.api("GET", f"{ours['url']}/query?{urlencode(query)}")["results"][0]["series"]
    assert {row[1] for row in answer["values"]} >= set(stack.meters)


@pytest.mark.parametrize("name", NAMES)
def test_grafanas_server_understands_every_query(stack: Stack, name: str) -> None:
    """Grafana 10 and later query for panels in the server, not in the browser."""
    content = file(name)
    start = PanelQuery("", "", "", "", time_from=content["time"]["from"]).range(0, stack.now, "Europe/Oslo")[0]
    for meter in stack.meters:
        variables = {"meter": meter}
        for query in other_queries_of(content):
            if query.kind is Kind.VARIABLE and query.panel not in variables:
                text = filled(query, meter=meter, timezone="UTC", start_ms=start, end_ms=stack.now)
                values = [row for frame in stack.query(text, table=True)["frames"] for row in frame["data"]["values"]]
                variables[query.panel] = str(values[-1][0]) if values and values[-1] else ""
        zone = variables.get("timezone", "") or "UTC"
        for query in queries_of(content):
            text = filled(query, meter=meter, timezone=zone, start_ms=start, end_ms=stack.now, variables=variables)
            assert not stack.query(text, table=query.table).get("error"), (meter, query.panel, text)


# Restarts and upgrades


@pytest.fixture
def grafana(shared_influx: Influx, tmp_path: Path) -> Iterator[StartedGrafana]:
    """The stack's Grafana, which a test may stop and change."""
    home = find_grafana()
    assert home is not None
    found = StartedGrafana(home, tmp_path / "grafana", Store(shared_influx))
    found.start()
    yield found
    found.stop()


def everything(grafana: Grafana) -> dict[str, Any]:
    """All that it has, without the number of times that it was saved."""
    found = {one["uid"]: one for one in grafana.api("GET", "/api/search?limit=1000", user="admin")}
    boards = {uid: board(grafana, uid)["dashboard"] for uid, one in sorted(found.items()) if one["type"] == "dash-db"}
    sources = grafana.api("GET", "/api/datasources", user="admin")
    groups = grafana.api("GET", "/api/ruler/grafana/api/v1/rules", user="admin")
    rules = [rule for folder in groups.values() for group in folder for rule in group["rules"]]
    return {
        "found": found,
        "dashboards": boards,
        "sources": [{name: value for name, value in source.items() if name != "version"} for source in sources],
        "rules": sorted(rule["grafana_alert"]["uid"] for rule in rules),
    }


@with_grafana
def test_a_restart_changes_nothing_and_what_the_owner_made_stays(grafana: StartedGrafana) -> None:
    grafana.api("POST", "/api/folders", {"uid": "mine", "title": "Mine"}, user="admin")
    copy = {**file("now"), "uid": "my-now", "title": "Now, my way", "editable": True}
    own = {"uid": "own", "title": "Own", "panels": [], "schemaVersion": 36}
    for content in (copy, own):
        grafana.api("POST", "/api/dashboards/db", {"dashboard": content, "folderUid": "mine"}, user="admin")
    before = everything(grafana)
    assert before["dashboards"].keys() == OURS | {"my-now", "own"}
    grafana.stop()
    grafana.start()
    assert everything(grafana) == before


@with_grafana
def test_an_upgrade_replaces_our_dashboards_and_not_the_owners(grafana: StartedGrafana) -> None:
    copy = {**file("now"), "uid": "my-now", "title": "Now, my way", "editable": True}
    grafana.api("POST", "/api/dashboards/db", {"dashboard": copy}, user="admin")
    before = everything(grafana)
    grafana.stop()
    newer = {**file("now"), "description": "What a newer release shows."}
    (grafana.dashboards / "now.json").write_text(json.dumps(newer), "utf-8")
    grafana.start()
    after = everything(grafana)
    assert without_numbers(after["dashboards"].pop("han-now")) == without_numbers(newer)
    before["dashboards"].pop("han-now")
    assert after["dashboards"] == before["dashboards"]
    assert after["sources"] == before["sources"]


@with_grafana
def test_the_admin_cannot_change_our_dashboards_by_mistake(grafana: StartedGrafana) -> None:
    with pytest.raises(Refused, match="provisioned"):
        changed = {**file("now"), "title": "Changed"}
        grafana.api("POST", "/api/dashboards/db", {"dashboard": changed, "overwrite": True}, user="admin")
    with pytest.raises(Refused):
        grafana.api("DELETE", "/api/dashboards/uid/han-now", user="admin")
    with pytest.raises(Refused):
        grafana.api("DELETE", f"/api/datasources/uid/{SOURCE['uid']}", user="admin")
    assert board(grafana, "han-now")["dashboard"]["title"] == "Now"


# In a browser


@pytest.mark.skipif(bool(no_browser()), reason=no_browser())
@pytest.mark.parametrize("width", [1400, 420])
@pytest.mark.parametrize("name", NAMES)
def test_no_panel_has_an_error(stack: Stack, name: str, width: int) -> None:
    from grafana.screenshots.browser import Dashboard, browser

    shown = Dashboard(stack.grafana.url, f"han-{name}")
    with browser() as program:
        for number, meter in enumerate(stack.meters):
            if width == 420 and number:
                continue  # one meter is enough for the narrow form of the same panels
            seen = shown.look(program, meter=meter, width=width)
            assert seen.wrong == [], meter
            assert seen.panels == len(file(name)["panels"])
            assert not (name == "now" and seen.empty), (meter, seen.empty)


@with_grafana
@pytest.mark.skipif(bool(no_browser()), reason=no_browser())
def test_a_panel_with_an_error_is_found(grafana: StartedGrafana) -> None:
    """Shows that the test above can find an error."""
    from grafana.screenshots.browser import Dashboard, browser

    broken = file("now")
    wrong, missing = broken["panels"][0], broken["panels"][1]
    wrong["targets"][0]["query"] = 'SELECT nothing("value" FROM'
    missing["type"] = "no-such-panel"
    grafana.stop()
    (grafana.dashboards / "now.json").write_text(json.dumps(broken), "utf-8")
    grafana.start()
    with browser() as program:
        seen = Dashboard(grafana.url, "han-now").look(program, meter=TN.meter_id)
    assert any(wrong["title"] in words for words in seen.wrong), seen
    assert any("error parsing query" in words or "/query" in words for words in seen.wrong), seen
    assert any(missing["title"] in words for words in seen.wrong), seen
