"""The queries of the generated dashboards, sent as Grafana sends them, for a house of tests/support/houses.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from exporter.model.calendar import to_ms
from exporter.sinks.influx.client import Client, Series
from tests.support.grafana_queries import Kind, PanelQuery, filled, other_queries_of, queries_of
from tests.support.houses import NOW, House

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "grafana/dashboards"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
END = to_ms(NOW)


@cache
def dashboard(name: str) -> dict[str, Any]:
    """The dashboard in the file of this name."""
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return content


def began(name: str, since: str = "") -> int:
    """The start of its time range (ms), which ends at END: `since`, or by default the one of the dashboard."""
    wanted = since or str(dashboard(name)["time"]["from"])
    return PanelQuery("", "", "", "", time_from=wanted).range(0, END, "Europe/Oslo")[0]


def values_of(series: Sequence[Series]) -> Iterator[Any]:
    """Every value of an answer, without times."""
    for one in series:
        for row in one.rows:
            yield from (value for value in row[1:] if value is not None)


class Shown:
    """One dashboard, shown for one house."""

    def __init__(self, client: Client, name: str, house: House, since: str = "") -> None:
        self._client = client
        self.name, self.house = name, house
        self.start = began(name, since)
        self.variables = {"meter": house.meter_id, "instance": house.name}
        for query in other_queries_of(dashboard(name)):
            if query.kind is Kind.VARIABLE and query.panel not in self.variables:
                found = list(values_of(self.query(query)))
                self.variables[query.panel] = str(found[0]) if found else ""

    def text(self, query: PanelQuery) -> str:
        """The query with values for all variables."""
        zone = self.variables.get("timezone", "")
        return filled(
            query,
            meter=self.house.meter_id,
            timezone=zone or "UTC",
            start_ms=self.start,
            end_ms=END,
            variables=self.variables,
            now_ms=END,
        )

    def query(self, query: PanelQuery) -> list[Series]:
        """The answer of InfluxDB. Raises QueryError."""
        return self._client.query(self.text(query))

    @property
    def queries(self) -> list[PanelQuery]:
        """The queries of its panels."""
        return queries_of(dashboard(self.name))

    def panel(self, title: str, series: str = "") -> list[Series]:
        """The answer to the query of a panel with this alias (or letter); by default to its first query."""
        for query in self.queries:
            if query.panel == title and series in ("", query.alias, query.ref):
                return self.query(query)
        raise LookupError(f"{self.name} has no panel {title!r} with a query {series!r}")
