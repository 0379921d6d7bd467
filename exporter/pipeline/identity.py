"""Which meter a list is from when it does not say: the last one that named itself on the stream."""

from __future__ import annotations

import logging
from typing import Final

from exporter.pipeline.arrival import Arrival

__all__ = ["NAMELESS_WAIT_MS", "Identity"]

log = logging.getLogger(__name__)

NAMELESS_WAIT_MS: Final = 60_000
"""So long a list without a name waits for one that has one."""
_ALTERNATING_MS: Final = 10 * 60_000
_MOST_WAITING: Final = 1000
"""Lists without a name that wait where no time says for how long: some 40 minutes of Aidon's list 1."""
_REMEMBERED_IDS: Final = 16

Named = tuple[Arrival, str]


class Identity:
    """The meter of each list of one stream. `fallback` is used where no list names a meter, `last` is the last id."""

    def __init__(self, stream: str, fallback: str, last: str | None) -> None:
        self._stream = stream
        self.fallback = fallback
        self.last = last
        self._known: dict[str, None] = {}  # ids, the newest at the end
        self._alternating_until: int | None = None
        self.waiting: list[Arrival] = []
        self._waiting_from: int | None = None  # the time of the first of them that has one
        self._gave_up = False
        self._kept = last
        self.left_out = 0

    def at_once(self, own: str | None, at: int | None) -> str | None:
        """The meter of a list that names `own`, or none, at a time in ms; None where `of` must say.

        This is what `of` does where no list waits and only one meter sends.
        """
        if self.waiting:
            return None
        if own is not None:
            if own != self.last or own not in self._known:
                self._note(own, at or 0)
            return own
        if self._alternating_until is not None:
            return None
        return self.fallback if self.last is None and self._gave_up else self.last

    def of(self, one: Arrival) -> list[Named]:
        """The lists that have a meter now: none, this one, or those that waited and this one; oldest first."""
        expired = self._expired(one.time) if self.waiting else []
        own = one.own
        if own is not None:
            if own != self.last or own not in self._known:
                self._note(own, one.time or 0)
            waiting = self._take_waiting() if self.waiting else []
            return [*expired, *((waited, own) for waited in waiting), (one, own)]
        if self.last is not None:
            if self._two_meters(one.time or 0):
                self.left_out += 1
                return expired
            return [*expired, (one, self.last)]
        if self._gave_up:
            return [*expired, (one, self.fallback)]
        self.waiting.append(one)
        if self._waiting_from is None:
            self._waiting_from = one.time
        return expired + self.give_up() if len(self.waiting) >= _MOST_WAITING else expired

    def give_up(self) -> list[Named]:
        """Give whatever waits the fallback's id."""
        waiting = self._take_waiting()
        self._gave_up = self._gave_up or bool(waiting)
        return [(one, self.fallback) for one in waiting]

    def forget(self, meter_id: str) -> None:
        """Lists without a name are no longer this meter's."""
        if self.last == meter_id:
            self.last = self._kept = None
        self._known.pop(meter_id, None)

    def new_state(self) -> dict[str, str]:
        """The last id, when it changed since this was last asked."""
        if self.last is None or self.last == self._kept:
            return {}
        self._kept = self.last
        return {f"last_id:{self._stream}": self.last}

    def _note(self, own: str, at: int) -> None:
        """A list that names its meter came; `at` is its time, ms."""
        known = self._known
        if own in known:
            if self.last not in (None, own):
                self._alternate(own, at)
            del known[own]
        elif len(known) >= _REMEMBERED_IDS:  # bounded: a stream may send ever new ids
            del known[next(iter(known))]
        known[own] = None
        self.last = own

    def _alternate(self, own: str, at: int) -> None:
        if self._alternating_until is None:
            log.warning(
                "two meters, %s and %s, send on %s: lists that name no meter are left out until only one sends",
                self.last,
                own,
                self._stream,
            )
        self._alternating_until = at + _ALTERNATING_MS

    def _two_meters(self, at: int) -> bool:
        if self._alternating_until is None:
            return False
        if at <= self._alternating_until:
            return True
        self._alternating_until = None
        self._known = {self.last: None} if self.last else {}
        return False

    def _expired(self, now: int | None) -> list[Named]:
        first = self._waiting_from
        if first is None or now is None or now < first + NAMELESS_WAIT_MS:
            return []
        return self.give_up()

    def _take_waiting(self) -> list[Arrival]:
        waiting, self.waiting, self._waiting_from = self.waiting, [], None
        return waiting
