"""The energy of the running hour, from what is known of it: registers where they are sent, else power times time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, NamedTuple

from exporter.model.calendar import HOUR_MS

__all__ = ["HourSoFar", "projected"]

_HOLD_MS: Final = 60_000
"""How long a power is believed to last when no newer one comes."""

_MOST_UNKNOWN_MS: Final = 5 * 60_000
"""With more of the hour than this unknown, a projection would be a guess."""
_LATE_MS: Final = 5 * 60_000
"""An hour's register comes seconds after the full hour; never this late."""


def projected(so_far_wh: float, power_w: float, ms_left: int, unknown_ms: int = 0) -> float | None:
    """What the running hour comes to if the power stays, Wh; `so_far_wh` itself when no time is left.

    None when more than 5 minutes of the hour so far are unknown.
    """
    if unknown_ms > _MOST_UNKNOWN_MS:
        return None
    return so_far_wh + power_w * max(ms_left, 0) / HOUR_MS


class _Anchor(NamedTuple):
    """A register, the energy of the hour until it was taken (Wh), and how long in that nothing was received (ms)."""

    register: float
    energy: float
    unheard: int


@dataclass(slots=True)
class HourSoFar:
    """One direction of one meter. Times are ms since 1970; `energy` is Wh from `since` to the last reading.

    `hour` is the start of the hour, `since` the same when the whole hour is known, else when listening began.
    `unheard` is how many ms in between are not in `energy`, since no list came.
    """

    hour: int | None = None
    since: int = 0
    energy: float = 0.0
    unheard: int = 0
    _time: int = 0
    _power: float | None = None
    _anchor: _Anchor | None = None

    def text(self) -> str:
        """All of it, to be kept over a restart."""
        return json.dumps([self.hour, self.since, self.energy, self.unheard, self._time, self._power, self._anchor])

    @classmethod
    def parse(cls, text: str) -> HourSoFar:
        """What `text` gave."""
        hour, since, energy, unheard, at, power, anchor = json.loads(text)
        return cls(hour, since, energy, unheard, at, power, None if anchor is None else _Anchor(*anchor))

    def until(self, now: int) -> tuple[float, int, float] | None:
        """Wh of the hour that `now` (ms) is in, how many ms of it so far are unknown, and the power, W.

        None when nothing is known of that hour.
        """
        if self.hour is None or self._power is None or not self.hour <= self._time <= now < self.hour + HOUR_MS:
            return None
        held = min(now - self._time, _HOLD_MS)
        unknown = self.since - self.hour + self.unheard + (now - self._time - held)
        return self.energy + self._power * held / HOUR_MS, unknown, self._power

    @property
    def time(self) -> int:
        """When the last reading was, ms."""
        return self._time

    @property
    def known(self) -> bool:
        """False until a power was received."""
        return self.hour is not None and self._power is not None

    @property
    def whole(self) -> bool:
        """True when `energy` counts from the full hour."""
        return self.since == self.hour

    def take(self, time: int, power: float | None) -> None:
        """The power (W) of a reading at `time`; None if this direction was not sent."""
        hour = time - time % HOUR_MS
        if self._power is None or self.hour is None or time < self._time or hour > self.hour + HOUR_MS:
            self._begin(hour, time)  # the first, or after a jump: nothing is known of this hour before
        elif hour > self.hour:
            held_until = self._time + _HOLD_MS
            self._begin(hour, hour if held_until > hour else time)
            if self.since == hour:
                self._add(hour, time, held_until)
        else:
            self._add(self._time, time, self._time + _HOLD_MS)
        self._time = time
        if power is not None:
            self._power = power

    def take_register(self, time: int, register: float) -> None:
        """The energy register (Wh) at `time`: the full hour for the hour's register, else the reading just taken."""
        if self.hour is None or self._power is None or time < self.hour:
            return
        if time == self.hour < self._time:
            self._from_full_hour(register)
        elif self._anchor is None or register < self._anchor.register:
            self._anchor = _Anchor(register, self.energy, self.unheard)
        else:  # two registers are more exact than power times time
            self.energy = self._anchor.energy + register - self._anchor.register
            self.unheard = self._anchor.unheard

    def _from_full_hour(self, register: float) -> None:
        assert self.hour is not None and self._power is not None
        late = self.since - self.hour
        if late > _LATE_MS:
            return
        self.energy += self._power * late / HOUR_MS
        self.since = self.hour
        self._anchor = _Anchor(register, 0.0, 0)

    def _begin(self, hour: int, since: int) -> None:
        self.hour, self.since, self.energy, self.unheard, self._anchor = hour, since, 0.0, 0, None

    def _add(self, start: int, end: int, held_until: int) -> None:
        """Use the power before from `start` to `end`, as far as it is believed to have lasted."""
        assert self._power is not None
        known = max(min(end, held_until) - start, 0)
        self.energy += self._power * known / HOUR_MS
        self.unheard += end - start - known
