"""What the dashboard Now shows of today, at all hours, also on days of 23 and 25 hours."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from exporter.derive import points
from exporter.model.calendar import day_start
from grafana.dashboards.dashboards import dashboards
from tests.support.grafana_queries import filled, queries_of
from tests.support.influx_server import Store

OSLO = ZoneInfo("Europe/Oslo")
HOUR, MINUTE = 3_600_000, 60_000


@pytest.mark.parametrize(
    ("noon", "hours"),
    [(1_774_778_400_000, 23), (1_792_926_000_000, 25), (1_795_345_200_000, 24)],
    ids=["2026-03-29", "2026-10-25", "2026-11-22"],
)
def test_today_is_the_sum_of_the_full_hours_and_the_running_one(store: Store, noon: int, hours: int) -> None:
    board = next(board for path, board in dashboards().items() if path.name == "now.json")
    (query,) = [query for query in queries_of(board) if query.alias == "Today so far"]
    start = day_start(noon, OSLO)
    lines: list[str] = []
    for hour in range(hours):  # one meter for each hour at which the query is sent
        begun = start + hour * HOUR
        lines += (points.final_hour_line(f"M{hour}", "import", 1000, begun - n * HOUR, OSLO) for n in range(1, 30))
        lines += (
            points.running_hour_line(f"M{hour}", "import", "so_far", 500, begun + minutes * MINUTE - 3_000)
            for minutes in (30, 31)
        )
    client = store.client()
    client.write(lines)
    client.close()
    for hour in range(hours):
        now = start + hour * HOUR + 31 * MINUTE
        text = filled(query, meter=f"M{hour}", timezone="Europe/Oslo", start_ms=now - HOUR, end_ms=now, now_ms=now)
        (series,) = store.query(text)
        assert series.rows[-1][0] == start
        assert series.rows[-1][1] == pytest.approx(hour + 0.5), f"in the {hour + 1}. hour of the day"
