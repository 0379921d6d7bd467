"""Final hours that InfluxDB has already: the sums of a month need them, beside the hours that an import adds."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.sinks.influx.client import Client

log = logging.getLogger(__name__)


class StoredHours:
    """Reads final hours. If that fails (the token may not read), it warns once and then returns none."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._readable = True

    def __call__(self, meter_id: str, direction: str, start: int, end: int) -> dict[int, float]:
        """Return the final hours from `start` to before `end` (ms): start of the hour -> Wh."""
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
                "Hours that are in InfluxDB already cannot be read (%s): sums of days and months, and the capacity "
                "peaks, are calculated from the hours that the outbox of this computer has.",
                error,
            )
            return {}
        return {int(row[0]): float(row[1]) for series in found for row in series.rows}
