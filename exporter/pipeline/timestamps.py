"""When a list was: the moment that it was received, or in a capture without time stamps the meter's clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from exporter.model.calendar import to_ms
from exporter.pipeline.arrival import Arrival
from exporter.pipeline.clock_reading import Rule

__all__ = ["Timestamps"]

_REMEMBERED: Final = 4096
_FIRST_CLOCK: Final = to_ms(datetime(2015, 1, 1, tzinfo=UTC))
"""A clock that shows less is wrong: no HAN meter is older."""
_AHEAD: Final = timedelta(days=1)


class Timestamps:
    """The times of one stream's lists, ms: no two of a meter alike, nor one without a name and any other.

    `now` is asked only whether a clock is in the future.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._latest = 0  # a clock that shows more is in the future, as far as was looked
        self._last: int | None = None
        # Moments that are taken, and by which meters; "" is a list that names none.
        self._used: dict[int, set[str] | tuple[str]] = {}
        self._oldest: deque[int] = deque()  # the same, in the order in which they were given
        self._lists = 0

    def of(self, one: Arrival) -> int | None:
        """The time of the next list; None where nothing gives it one."""
        if one.received is not None:
            return self._free(one.received // 1000, one.own or "")
        # The maker's habit is a rule that needs nothing learned: the same file gives the same times.
        clock = one.utc(Rule.HABIT, self._last)
        if clock is None or clock < _FIRST_CLOCK or (clock > self._latest and self._is_in_future(clock)):
            return None
        return self._free(clock, one.own or "")

    def _is_in_future(self, clock: int) -> bool:
        self._latest = to_ms(self._now() + _AHEAD)
        return clock > self._latest

    def _free(self, ms: int, own: str) -> int:
        """The next millisecond that no list of this meter has, nor one without a name ("")."""
        self._last = ms
        used = self._used
        there = used.get(ms)
        while there is not None and (own in there or "" in there or not own):
            ms += 1
            there = used.get(ms)
        if there is None:
            used[ms] = (own,)
            self._oldest.append(ms)
        elif isinstance(there, set):
            there.add(own)
        else:
            used[ms] = {*there, own}
        self._lists += 1
        if self._lists >= 2 * _REMEMBERED:
            while self._lists > _REMEMBERED and len(self._oldest) > 1:
                self._lists -= len(used.pop(self._oldest.popleft()))
        return ms
