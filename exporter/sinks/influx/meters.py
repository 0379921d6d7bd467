"""The meters whose points InfluxDB has, and the removal of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.sinks.influx.client import QueryError, quoted

if TYPE_CHECKING:
    from exporter.sinks.influx.client import Client


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of a meter. `points` is None when InfluxDB takes too long to count them."""

    series: int
    points: int | None = None


class StoredMeters:
    """What InfluxDB has, by meter. Each method raises QueryError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def ids(self) -> set[str]:
        """Return every meter that has a point."""
        # With WHERE, 2.8 looks at the series. Without, it also returns what was deleted.
        found = self._client.query('SHOW TAG VALUES WITH KEY = "meter_id" WHERE "meter_id" != \'\'')
        return {str(value) for series in found for _, value in series.rows}

    def size(self, meter_id: str) -> Size:
        """Return how many series and points a meter has."""
        where = f'WHERE "meter_id" = {quoted(meter_id)}'
        series = sum(len(one.rows) for one in self._client.query(f"SHOW SERIES {where}"))
        try:
            counted = self._client.query(f"SELECT count(value) FROM /.*/ {where}")
        except QueryError:  # the count is only for a message
            return Size(series)
        return Size(series, sum(int(row[1]) for one in counted for row in one.rows))

    def remove(self, meter_id: str) -> None:
        """Delete every point of a meter."""
        self._client.delete("meter_id", meter_id)
