"""The meters that InfluxDB has something of, and the removal of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.sinks.influx.client import QueryError, quoted

if TYPE_CHECKING:
    from exporter.sinks.influx.client import Client


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of a meter; `points` is None where InfluxDB does not count them in time."""

    series: int
    points: int | None = None


class StoredMeters:
    """What InfluxDB holds, by meter. Each of these raises QueryError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def ids(self) -> set[str]:
        """Every meter that there is a point of."""
        # Asked with WHERE it goes by the series: without, 2.8 names what was deleted too.
        found = self._client.query('SHOW TAG VALUES WITH KEY = "meter_id" WHERE "meter_id" != \'\'')
        return {str(value) for series in found for _, value in series.rows}

    def size(self, meter_id: str) -> Size:
        """How many series and points there are of a meter."""
        where = f'WHERE "meter_id" = {quoted(meter_id)}'
        series = sum(len(one.rows) for one in self._client.query(f"SHOW SERIES {where}"))
        try:
            counted = self._client.query(f"SELECT count(value) FROM /.*/ {where}")
        except QueryError:  # a count is no reason to give up
            return Size(series)
        return Size(series, sum(int(row[1]) for one in counted for row in one.rows))

    def remove(self, meter_id: str) -> None:
        """Delete every point of a meter."""
        self._client.delete("meter_id", meter_id)
