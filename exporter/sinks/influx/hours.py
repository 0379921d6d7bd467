"""Final hours that InfluxDB has already: a month is not made of what an import brings alone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.sinks.influx.client import Client

log = logging.getLogger(__name__)


class StoredHours:
    """Asks for final hours. A token that may not read is said once; then only what the outbox knows counts."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._readable = True

    def __call__(self, meter_id: str, direction: str, start: int, end: int) -> dict[int, float]:
        """The final hours from `start` to before `end` (ms): start of the hour -> Wh; none if it cannot be asked."""
        from exporter.sinks.influx.client import QueryError, quoted

        if not self._readable:
            return {}
        where = f"meter_id = {quoted(meter_id)} AND direction = {quoted(direction)} AND kind = 'final'"
        query = f"SELECT value FROM hour_energy WHERE {where} AND time >= {start}ms AND time < {end}ms"
        try:
            found = self._client.query(query)
        except QueryError as error:
            self._readable = False
            log.warning(
                "hours that are in InfluxDB already cannot be read (%s): sums of days and months, and the capacity "
                "peaks, are made of the hours that the outbox of this computer knows",
                error,
            )
            return {}
        return {int(row[0]): float(row[1]) for series in found for row in series.rows}
