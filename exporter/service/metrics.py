"""The exporter's own metrics, the ages of readings, and what is wrong with a running service."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from exporter.pipeline.link import Link, LinkState
from exporter.protocol.framing import Kind

__all__ = ["BACKLOG_LIMIT_S", "NO_FRAME_LIMIT_S", "ReadingAges", "exporter_fields", "faults", "resident_size"]

NO_FRAME_LIMIT_S: Final = 300.0
"""A source without a frame for so long is a fault."""
BACKLOG_LIMIT_S: Final = 600.0
"""An unsent reading that waits longer is a fault, if an InfluxDB is configured."""
_OLDEST_S: Final = 24 * 3600.0
"""The age of a meter's last reading is written until it is this old."""
_AHEAD_S: Final = 60.0
"""How far a reading can be in the future: a clock is often set back by some seconds."""
_LASTING: Final = frozenset(state.label for state in LinkState if not state.can_pass)
"""States that are a fault at once, without waiting for NO_FRAME_LIMIT_S."""


class ReadingAges:
    """The age of each meter's last reading, until it is a day old. It continues after a restart.

    `before` is when the meters sent last before this process began: meter id -> ms since 1970.
    """

    def __init__(self, before: Mapping[str, int]) -> None:
        self._before = dict(before)
        self._lock = threading.Lock()

    def of(self, links: Sequence[Link], now_ms: int) -> dict[str, float]:
        """Meter id -> s. A meter that sent nothing since the restart has an age, unless another one replaced it."""
        current: dict[str, float] = {}
        for link in links:
            ages = link.reading_ages()
            for meter_id in {*ages, *link.replaced}:
                self.forget(meter_id)
            current |= {meter_id: age for meter_id, age in ages.items() if meter_id == link.meter}
        ages = self.missed(now_ms) | current
        return {meter_id: age for meter_id, age in ages.items() if age <= _OLDEST_S}

    def missed(self, now_ms: int) -> dict[str, float]:
        """The same for the meters that sent nothing since the restart."""
        with self._lock:
            ages = {meter_id: (now_ms - at) / 1000 for meter_id, at in self._before.items()}
        # A time in the future comes from a clock that was wrong. Until it is past, there is no age.
        return {meter_id: max(age, 0.0) for meter_id, age in ages.items() if -_AHEAD_S <= age <= _OLDEST_S}

    def forget(self, meter_id: str) -> None:
        """Remove the age of this meter, until it sends again."""
        with self._lock:
            self._before.pop(meter_id, None)


def exporter_fields(
    links: Sequence[Link], outbox: Mapping[str, float], writer: Mapping[str, float]
) -> dict[str, int | float]:
    """Fields of the `exporter` point: sums over the sources, and the fields of outbox and writer."""
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
    worst = max((link.state.value for link in links), default=0)
    return {**fields, "source_state": worst, **outbox, **writer, "memory": resident_size()}


def resident_size() -> int:
    """Resident memory of this process in bytes; 0 if the platform does not tell it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    import resource

    return pages * resource.getpagesize()


def faults(status: Mapping[str, Any]) -> list[str]:
    """A message for each fault in the status of a service (`Service.status`)."""
    found = []
    for link in status["sources"]:
        if link["state"] in _LASTING:
            found.append(link["words"])
        elif link["state"] != "ended" and link["frame_age_s"] > NO_FRAME_LIMIT_S:
            found.append(f"no frame from {link['name']} for {link['frame_age_s']:.0f} s: {link['words']}")
    influx, age = status["influx"], status["outbox"]["oldest_age_s"]
    if influx is not None and age is not None and age > BACKLOG_LIMIT_S:
        reason = influx["words"] or influx["state"]
        found.append(f"the oldest unsent reading has waited for {age:.0f} s: {reason}")
    return found
