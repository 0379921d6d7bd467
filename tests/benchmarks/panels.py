"""How long each query of the dashboards and alert rules takes: `python -m tests.benchmarks.panels [URL]`.

Reads them from grafana/dashboards/*.json and grafana/provisioning/alerting/*.yaml, fills in their variables as Grafana
does for a time range (by default the last year), and sends them to the server; year.py writes a year of data. URL,
token, organisation and bucket are HAN_INFLUX_URL and so on. Prints the slowest first, then what a browser waits for: it
sends all queries of a panel in one request, which InfluxDB answers one after another, and six requests at a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import yaml

from exporter.config import Settings, load
from exporter.model.calendar import from_ms, to_ms
from exporter.sinks.influx.client import Http
from tests.support.grafana_queries import Kind, PanelQuery, filled, other_queries_of, queries_of, rule_queries

GRAFANA: Final = Path(__file__).parents[2] / "grafana"
CONNECTIONS: Final = 6
"""How many requests a browser sends to one server at a time."""
_TIMEOUT_S: Final = 120.0
_METERS: Final = 'SHOW TAG VALUES FROM "meter" WITH KEY IN ("real", "simulated")'
_ZONE: Final = 'SELECT last("timezone") FROM "meter" WHERE "meter_id" = \'{}\''


@dataclass(slots=True)
class Timed:
    """How long a query, or all queries of a panel together, took: ms of each run."""

    dashboard: str
    panel: str
    ref: str
    kind: str
    query: str
    ms: list[float] = field(default_factory=list)
    rows: int = 0
    error: str = ""

    @property
    def median(self) -> float:
        """Of the runs, in ms."""
        return statistics.median(self.ms)


class Server:
    """An InfluxDB that is queried in InfluxQL, as Grafana does it."""

    def __init__(self, settings: Settings) -> None:
        self._http = Http(settings.influx_url or "", settings.token(), timeout=_TIMEOUT_S)
        database, _, policy = settings.influx_bucket.partition("/")
        self._where = {"db": database, "epoch": "ms"} | ({"rp": policy} if policy else {})

    def query(self, influxql: str) -> tuple[float, list[Mapping[str, Any]], str]:
        """How long the answer took (ms), its series, and its errors."""
        began = time.perf_counter()
        answer = self._http.request("GET", "/query", query=self._where | {"q": influxql})
        took = (time.perf_counter() - began) * 1000
        if answer.status != 200:
            return took, [], f"{answer.status}: {answer.body[:300]}"
        results = json.loads(answer.body).get("results", [])
        errors = [str(result["error"]) for result in results if "error" in result]
        return took, [one for result in results for one in result.get("series", [])], "; ".join(errors)

    def first(self, influxql: str) -> str:
        """The first value that a query for a variable gives; "" if none."""
        _, series, error = self.query(influxql)
        if error:
            raise SystemExit(f"{influxql}: {error}")
        for one in series:
            for row in one.get("values", []):
                named = dict(zip(one["columns"], row, strict=True))
                return str(named["value"]) if "key" in named else str(row[-1])
        return ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the dashboards show: a meter and a time range. `now_ms` is what now() means, None for the server's clock."""

    meter: str
    timezone: str
    start_ms: int
    end_ms: int
    now_ms: int | None

    def text(self, query: PanelQuery, variables: Mapping[str, str]) -> str:
        """The query as it is sent."""
        return filled(
            query,
            meter=self.meter,
            timezone=self.timezone,
            start_ms=self.start_ms,
            end_ms=self.end_ms,
            variables=variables,
            now_ms=self.now_ms,
        )


def variables_of(server: Server, dashboard: Mapping[str, Any], shown: Shown) -> dict[str, str]:
    """The other variables of a dashboard, each with the first of its values."""
    queries = {query.panel: query for query in other_queries_of(dashboard) if query.kind is Kind.VARIABLE}
    found: dict[str, str] = {}
    for variable in dashboard.get("templating", {}).get("list", []):
        name = variable["name"]
        if name in ("meter", "timezone"):
            continue
        if name in queries:
            found[name] = server.first(shown.text(queries[name], found))
        else:
            found[name] = str(variable.get("query", "")).partition(",")[0]
    return found


def all_queries(server: Server, shown: Shown, folder: Path) -> list[tuple[PanelQuery, str]]:
    """Every query and its text as it is sent; those of a panel follow one another."""
    found: list[tuple[PanelQuery, str]] = []
    for path in sorted((folder / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        variables = variables_of(server, dashboard, shown)
        for query in queries_of(dashboard) + other_queries_of(dashboard):
            found.append((query, shown.text(query, variables)))
    for path in sorted((folder / "provisioning" / "alerting").glob("*.y*ml")):
        rules = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        found += [(query, shown.text(query, {})) for query in rule_queries(rules)]
    return found


def timed(server: Server, query: PanelQuery, text: str, runs: int) -> Timed:
    """Send a query `runs` times."""
    found = Timed(query.dashboard, query.panel, query.ref, query.kind.value, text)
    for _ in range(runs):
        took, series, found.error = server.query(text)
        found.ms.append(took)
        found.rows = sum(len(one.get("values", [])) for one in series)
    return found


def panels_of(queries: Iterable[tuple[PanelQuery, str]]) -> list[tuple[PanelQuery, str]]:
    """One request for each panel, of all its queries; the queries of a panel follow one another."""
    found = []
    panels = (one for one in queries if one[0].kind is Kind.PANEL)
    for _, group in groupby(panels, key=lambda one: (one[0].dashboard, one[0].panel_id, one[0].panel)):
        members = list(group)
        found.append((members[0][0], ";".join(text for _, text in members)))
    return found


def at_once(server: Server, requests: Sequence[tuple[PanelQuery, str]], runs: int) -> dict[str, float]:
    """Title of each dashboard -> median ms until all its panels have their answers."""
    found = {}
    for title, group in groupby(requests, key=lambda one: one[0].dashboard):
        texts, took = [text for _, text in group], []
        for _ in range(runs):
            began = time.perf_counter()
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                list(pool.map(server.query, texts))
            took.append((time.perf_counter() - began) * 1000)
        found[title] = statistics.median(took)
    return found


def table(found: Iterable[Timed], limit_ms: float) -> None:
    """Print, slowest first. What is over the limit has a mark."""
    print(f"  {'median ms':>9} {'least':>8} {'first':>7} {'rows':>7}  where")
    for one in sorted(found, key=lambda one: -one.median):
        mark = "!" if one.median > limit_ms else " "
        where = " · ".join(part for part in (one.dashboard, one.panel, one.ref) if part)
        note = f"   ERROR {one.error}" if one.error else "   (empty)" if not one.rows else ""
        kind = "" if one.kind == "panel" else f"   [{one.kind}]"
        print(f"{mark} {one.median:9.1f} {min(one.ms):8.1f} {one.ms[0]:7.0f} {one.rows:7}  {where}{kind}{note}")


def shown_of(server: Server, given: argparse.Namespace) -> Shown:
    """The meter and the time range of the command line. Raises SystemExit if there is no meter."""
    meter = given.meter or server.first(_METERS)
    if not meter:
        raise SystemExit("no meter in this database; python -m tests.benchmarks.year writes a year of one")
    end = to_ms(datetime.fromisoformat(given.end).astimezone(UTC) if given.end else datetime.now(UTC))
    start = end - round(given.days * 86_400_000)
    zone = server.first(_ZONE.format(meter)) or "Europe/Oslo"
    return Shown(meter, zone, start, end, end if given.end else None)


def arguments() -> tuple[argparse.Namespace, Settings]:
    """The command line, and the settings that say where InfluxDB is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="InfluxDB, like http://localhost:8086 [default: HAN_INFLUX_URL]")
    parser.add_argument("--meter", help="[default: the first]")
    parser.add_argument("--days", type=float, default=365.0, help="length of the time range [default: 365]")
    parser.add_argument(
        "--end", help="its end, and the time that now() means, like 2026-11-22T20:00:00+00:00 [default: now]"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=float, default=500.0, help="ms above which a query is marked [default: 500]")
    parser.add_argument("--only", default="", help="only where dashboard, panel or kind contains this")
    parser.add_argument("--grafana", type=Path, default=GRAFANA, help="folder of dashboards and provisioning")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    given = parser.parse_args()
    settings = load({"influx_url": given.url})
    if settings.influx_url is None:
        parser.error("where is InfluxDB? Give its URL, or set HAN_INFLUX_URL")
    return given, settings


def main() -> int:
    """Send all queries and print. Returns 1 if a query has an error."""
    given, settings = arguments()
    server = Server(settings)
    shown = shown_of(server, given)
    queries = [
        one
        for one in all_queries(server, shown, given.grafana)
        if given.only.lower() in f"{one[0].dashboard} {one[0].panel} {one[0].kind.value}".lower()
    ]
    print(f"{shown.meter}, {from_ms(shown.start_ms):%Y-%m-%d %H:%M} to {from_ms(shown.end_ms):%Y-%m-%d %H:%M} UTC")
    by_query = [timed(server, query, text, given.runs) for query, text in queries]
    table(by_query, given.limit)
    print("\nall queries of a panel in one request:")
    requests = panels_of(queries)
    by_panel = [replace(timed(server, query, text, given.runs), ref="") for query, text in requests]
    table(by_panel, given.limit)
    print(f"\nall panels of a dashboard, {CONNECTIONS} requests at a time, ms:")
    boards = at_once(server, requests, given.runs)
    for title, took in sorted(boards.items(), key=lambda item: -item[1]):
        print(f"  {took:9.1f}  {title}")
    if given.json is not None:
        content = {
            "shown": asdict(shown),
            "queries": [asdict(one) for one in by_query],
            "panels": [asdict(one) for one in by_panel],
            "dashboards": boards,
        }
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if any(one.error for one in by_query) else 0


if __name__ == "__main__":
    sys.exit(main())
