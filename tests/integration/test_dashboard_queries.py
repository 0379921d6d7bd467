"""Every query of every panel and every alert rule, on a real InfluxDB with simulated houses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import yaml

from exporter.sinks.influx.client import Client
from tests.support.dashboards import END, NAMES, ROOT, Shown, dashboard, values_of
from tests.support.grafana_queries import Kind, filled, other_queries_of, rule_queries
from tests.support.houses import CABIN, HOUSES, IT, SOLAR, SWEDISH, TN, House
from tests.support.influx_server import Store

RULES = yaml.safe_load((ROOT / "grafana/provisioning/alerting/rules.yaml").read_text("utf-8"))
NORWEGIAN = (TN, IT, CABIN, SOLAR)

NO_EXPORT = "a house without solar panels exports nothing"
NO_PHASE_POWER = "these meters do not send the power of each phase"
ONE_PHASE = "one phase cannot be out of balance"
TWO_MONTHS = "the data are of two months"
NOT_SENT = "no simulated meter sends it"


class Lack(NamedTuple):
    """A query of a panel (its alias or letter) without a result in these houses, and the reason."""

    dashboard: str
    panel: str
    series: str
    houses: tuple[House, ...]
    why: str


LACKS = (
    Lack("now", "Power now", "Export", (TN, IT, CABIN), NO_EXPORT),
    Lack("now", "Power", "Export", (TN, IT, CABIN), NO_EXPORT),
    Lack("consumption", "Energy in the chosen time", "Export", (TN, IT, CABIN), NO_EXPORT),
    Lack("consumption", "Energy in the chosen time", "Net", (TN, IT, CABIN), NO_EXPORT),
    Lack("consumption", "Hour by hour", "Export", (TN, IT, CABIN), NO_EXPORT),
    Lack("consumption", "Day by day", "Export", (TN, IT, CABIN), NO_EXPORT),
    Lack("consumption", "Month by month", "Export", (TN, IT, CABIN), NO_EXPORT),
    Lack("consumption", "Days of the chosen time", "B", (TN, IT, CABIN), NO_EXPORT),
    Lack("consumption", "A year before", "Import", NORWEGIAN, TWO_MONTHS),
    Lack("balance", "Unbalance of the currents", "Unbalance", (CABIN,), ONE_PHASE),
    Lack("balance", "Unbalance of the currents", "Limit", (CABIN,), ONE_PHASE),
    Lack("balance", "Unbalance of the voltages", "Unbalance", (CABIN,), ONE_PHASE),
    Lack("balance", "Power by phase", "$tag_phase", NORWEGIAN, NO_PHASE_POWER),
    Lack("balance", "Power by phase", "$tag_phase to the grid", NORWEGIAN, NO_PHASE_POWER),
    Lack("quality", "Power factor", "$tag_phase", NORWEGIAN, NO_PHASE_POWER),
    Lack("quality", "Frequency", "Frequency", NORWEGIAN, NOT_SENT),
)


@pytest.fixture(scope="module")
def client(simulated: Store) -> Iterator[Client]:
    found = simulated.client()
    yield found
    found.close()


@pytest.mark.parametrize("house", NORWEGIAN, ids=lambda house: house.name)
@pytest.mark.parametrize("name", NAMES)
def test_every_panel_has_values_unless_the_house_has_none(client: Client, name: str, house: House) -> None:
    shown = Shown(client, name, house)
    empty = {
        (query.panel, query.alias or query.ref) for query in shown.queries if not list(values_of(shown.query(query)))
    }
    assert empty == {(lack.panel, lack.series) for lack in LACKS if lack.dashboard == name and house in lack.houses}


@pytest.mark.parametrize("since", ["now-5m", "now-60d", "now-400d"])
@pytest.mark.parametrize("name", NAMES)
def test_every_panel_can_have_any_time_range(client: Client, name: str, since: str) -> None:
    shown = Shown(client, name, TN, since)
    for query in shown.queries:
        shown.query(query)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_meter_gives_no_values_and_no_error(client: Client, name: str) -> None:
    shown = Shown(client, name, House("nobody", "kaifa", 9, 40, given_id="of nobody's/[a-z]+ \\ house"))
    for query in shown.queries:
        if "backlog_age" not in query.query:  # the exporter's own limit
            assert not [value for value in values_of(shown.query(query)) if value], (query.panel, query.query)


def test_phases_that_are_not_measured_have_no_series(client: Client) -> None:
    """No third gauge that is empty, and no zero in place of a missing value."""
    for title in ("Phases and main fuse", "Highest phase"):
        by_house = {
            house.name: [series.tags["phase"] for series in Shown(client, "now", house).panel(title)]
            for house in NORWEGIAN
        }
        assert by_house == {"tn": ["L1", "L2", "L3"], "it": ["L1", "L3"], "cabin": ["L1"], "solar": ["L1", "L2", "L3"]}


def test_the_power_of_each_phase_is_shown_if_it_is_sent(client: Client) -> None:
    for name, title in (("balance", "Power by phase"), ("quality", "Power factor")):
        found = Shown(client, name, SWEDISH, "now-1h").panel(title, "$tag_phase")
        assert [series.tags["phase"] for series in found] == ["L1", "L2", "L3"]
        assert list(values_of(found))


@pytest.mark.parametrize("name", NAMES)
def test_variables_find_the_real_meters_first_and_the_owners_time_zone(client: Client, name: str) -> None:
    shown = Shown(client, name, CABIN)
    assert shown.variables["timezone"] == "Europe/Oslo"
    assert all(shown.variables.values()), shown.variables
    (meters,) = (query for query in other_queries_of(dashboard(name)) if query.panel == "meter")
    listed = [str(row[1]) for series in shown.query(meters) for row in series.rows]
    ours = [meter for meter in listed if meter in {house.meter_id for house in HOUSES}]
    assert ours == sorted(ours, key=lambda meter: (meter.startswith("SIMULATED-"), meter))
    assert len(ours) == len(HOUSES)


def test_events_are_found_for_annotations(client: Client) -> None:
    for name in NAMES:
        shown = Shown(client, name, TN)
        found = [shown.query(query) for query in other_queries_of(dashboard(name)) if query.kind is Kind.ANNOTATION]
        assert any("started" in str(value) for answer in found for value in values_of(answer))


def test_every_query_of_an_alert_rule_has_a_result(client: Client) -> None:
    """Without a series, Grafana would take everything to be right."""
    queries = rule_queries(RULES)
    assert len(queries) > 10
    for query in queries:
        text = filled(query, meter="", timezone="", start_ms=END, end_ms=END, now_ms=END)
        assert list(values_of(client.query(text))), (query.panel, query.ref, text)
