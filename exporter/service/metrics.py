"""The exporter's own metrics, the ages of readings, and whether all is well."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from exporter.pipeline.link import Link, LinkState
from exporter.protocol.framing import Kind

__all__ = ["BACKLOG_LIMIT_S", "NO_FRAME_LIMIT_S", "ReadingAges", "exporter_fields", "faults", "resident_size"]

NO_FRAME_LIMIT_S: Final = 300.0
"""A source without a frame for so long is not well."""
BACKLOG_LIMIT_S: Final = 600.0
"""The oldest unsent reading may wait so long while InfluxDB is configured."""
_AGE_TOLD_S: Final = 24 * 3600.0
"""A meter that was not heard for so long is no more."""
_AHEAD_S: Final = 60.0
"""A clock that is set back by less is being kept right."""
_LASTING: Final = frozenset(state.label for state in LinkState if not state.can_pass)
"""States that are a fault at once, without waiting for NO_FRAME_LIMIT_S."""


class ReadingAges:
    """The age of each meter's last reading, until it is a day old: over a restart too.

    `before` tells when meters were last heard before this process began, ms.
    """

    def __init__(self, before: Mapping[str, int]) -> None:
        self._before = dict(before)
        self._lock = threading.Lock()

    def of(self, links: Sequence[Link], now_ms: int) -> dict[str, float]:
        """Meter id -> s. One that was heard before the restart, and none in its place, is told by the clock."""
        heard: dict[str, float] = {}
        for link in links:
            ages = link.reading_ages()
            for meter_id in {*ages, *link.replaced}:
                self.forget(meter_id)
            heard |= {meter_id: age for meter_id, age in ages.items() if meter_id == link.meter}
        ages = self.missed(now_ms) | heard
        return {meter_id: age for meter_id, age in ages.items() if age <= _AGE_TOLD_S}

    def missed(self, now_ms: int) -> dict[str, float]:
        """Those of them that were not heard since the restart."""
        with self._lock:
            ages = {meter_id: (now_ms - at) / 1000 for meter_id, at in self._before.items()}
        # A time still to come was kept under another clock: nothing is told before it is over.
        return {meter_id: max(age, 0.0) for meter_id, age in ages.items() if -_AHEAD_S <= age <= _AGE_TOLD_S}

    def forget(self, meter_id: str) -> None:
        """Nothing more of this meter before it is heard again."""
        with self._lock:
            self._before.pop(meter_id, None)


def exporter_fields(
    links: Sequence[Link], outbox: Mapping[str, float], writer: Mapping[str, float]
) -> dict[str, int | float]:
    """Fields of the `exporter` point: sums over the sources, then what outbox and writer add."""
    fields: Counter[str] = Counter()
    for link in links:
        fields["frames"] += link.counts.messages
        fields["octets"] += link.counts.bytes
        fields["readings"] += link.counts.readings
        fields["rejects_unread"] += link.counts.undecoded
        fields["reconnects"] += link.counts.reconnects
        fields["readings_without_time"] += link.counts.without_time
        fields["readings_left_out"] += link.counts.left_out
        fields["lines_lost"] += link.counts.lost_lines
        for kind in Kind:
            fields[f"rejects_{kind.value}"] += link.rejects[kind]
    # The worst of the sources: 1 is well, higher is a fault that has a name.
    states = max((link.state.value for link in links), default=0)
    return {**fields, "source_state": states, **outbox, **writer, "memory": resident_size()}


def resident_size() -> int:
    """Resident memory of this process; 0 where the platform does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    import resource

    return pages * resource.getpagesize()


def faults(status: Mapping[str, Any]) -> list[str]:
    """What is not well in a status as the service gives it out, in words; empty when all is."""
    found = []
    for link in status["sources"]:
        if link["state"] in _LASTING:
            found.append(link["words"])
        elif link["state"] != "ended" and link["frame_age_s"] > NO_FRAME_LIMIT_S:
            found.append(f"no frame from {link['name']} for {link['frame_age_s']:.0f} s: {link['words']}")
    influx, age = status["influx"], status["outbox"]["oldest_age_s"]
    if influx is not None and age is not None and age > BACKLOG_LIMIT_S:
        found.append(f"the oldest unsent reading waits for {age:.0f} s: {influx['words'] or influx['state']}")
    return found
