"""The registers of every full hour, and the energy of the hours between them.

Each month of a meter is two texts in the state: one that only `run` writes, and one that only `import` writes. Both
commands read both texts, so neither can undo what the other added. An outage leaves missing hours and not one huge
hour, and a month can be calculated again at any time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from exporter.model.calendar import HOUR_MS

log = logging.getLogger(__name__)

_DAY_MS: Final = 24 * HOUR_MS
_CONVENTIONAL_FUSING: Final = 1.6
"""At this multiple of its rated current a gG fuse blows for certain (IEC 60269-1, conventional fusing current)."""
_VOLTS: Final = 253.0
_PHASES: Final = 3
_DOUBTFUL: Final = "?"
"""Mark of a register that was not believed: no hour starts with it, but the next register may continue from it."""

Get = Callable[[str], str | None]
"""Finds the value of a key of the state."""


def most_wh(main_fuse_a: float, hours: float = 1.0) -> float:
    """More energy than a main fuse of three phases could carry in so many hours, Wh."""
    return main_fuse_a * _CONVENTIONAL_FUSING * _VOLTS * _PHASES * hours


@dataclass(frozen=True, slots=True)
class _Seen:
    """An earlier hour register: ms, Wh, whether it was believed."""

    hour: int
    value: float
    good: bool


class HourBook:
    """Hour registers by meter and direction ("import", "export"), in Wh, as `get` finds them in the state.

    `new_state` gives what must be kept; `kept` says that it was, and drops what was read from the state. `imported`
    says that `import` enters the registers, not `run`.
    """

    def __init__(self, get: Get, *, imported: bool = False) -> None:
        self._get = get
        self._own, self._other = ("imported", "registers") if imported else ("registers", "imported")
        self._months: dict[str, tuple[dict[str, float], dict[str, float]]] = {}
        self._changed: set[str] = set()
        self._seen: dict[tuple[str, str], list[_Seen]] = {}

    def new_state(self) -> dict[str, str]:
        """What must be kept and is not yet: key -> text, a JSON object of registers."""
        return {
            f"{self._own}:{month}": json.dumps(self._months[month][0], separators=(",", ":"))
            for month in sorted(self._changed)
        }

    def kept(self) -> None:
        """What `new_state` gave is in the state: read months again, since another process enters hours too."""
        self._changed.clear()
        self._months.clear()

    def forget(self, meter_id: str) -> None:
        """Remove what was read or entered for a meter."""
        self._months = {key: month for key, month in self._months.items() if key.rsplit(":", 2)[0] != meter_id}
        self._changed &= self._months.keys()
        self._seen = {who: seen for who, seen in self._seen.items() if who[0] != meter_id}

    def enter(self, meter_id: str, direction: str, hour: int, value: float, main_fuse_a: float) -> dict[int, float]:
        """Enter the register at a full hour (ms); return the hours that are final with it: start -> Wh.

        A register that falls, or jumps by more than the fuse could carry, is logged and entered as doubtful: no hour is
        calculated with it. One that continues from a doubtful one is believed: the meter was reset or replaced.
        """
        good = self._believable(meter_id, direction, hour, value, main_fuse_a)
        key, name = _key(meter_id, direction, hour), _name(hour)
        month, _ = self._month(key)
        if not good:
            name = _DOUBTFUL + name
        if month.get(name) != value:
            month[name] = value
            self._changed.add(key)
        return {} if not good else self.finals(meter_id, direction, hour - HOUR_MS, hour + HOUR_MS, main_fuse_a)

    def finals(self, meter_id: str, direction: str, start: int, stop: int, main_fuse_a: float) -> dict[int, float]:
        """The energy of each hour from `start` to before `stop` (ms) whose two registers are known: start -> Wh."""
        found: dict[int, float] = {}
        before = self._register(meter_id, direction, start)
        for hour in range(start, stop, HOUR_MS):
            after = self._register(meter_id, direction, hour + HOUR_MS)
            if before is not None and after is not None and 0 <= after - before <= most_wh(main_fuse_a):
                found[hour] = after - before
            before = after
        return found

    def _register(self, meter_id: str, direction: str, hour: int) -> float | None:
        own, other = self._month(_key(meter_id, direction, hour))
        name = _name(hour)
        return own.get(name, other.get(name))

    def _month(self, key: str) -> tuple[dict[str, float], dict[str, float]]:
        month = self._months.get(key)
        if month is None:
            own, other = self._get(f"{self._own}:{key}"), self._get(f"{self._other}:{key}")
            month = self._months[key] = (json.loads(own or "{}"), json.loads(other or "{}"))
        return month

    def _kept_before(self, meter_id: str, direction: str, hour: int) -> list[_Seen]:
        """The last register before an hour that was believed, and the last that was not if it came after that."""
        known: dict[int, _Seen] = {}
        first_of_month = datetime.fromtimestamp(hour / 1000, UTC).replace(day=1, hour=0, minute=0, second=0)
        for moment in (round(first_of_month.timestamp() * 1000) - HOUR_MS, hour):
            for part in reversed(self._month(_key(meter_id, direction, moment))):
                for name, value in part.items():
                    at, good = int(name.removeprefix(_DOUBTFUL)) * HOUR_MS, not name.startswith(_DOUBTFUL)
                    if at < hour and (good or at not in known or not known[at].good):
                        known[at] = _Seen(at, value, good)
        last = max((at for at, one in known.items() if one.good), default=-1)
        doubtful = max((at for at, one in known.items() if not one.good and at > last), default=-1)
        return [known[at] for at in (last, doubtful) if at >= 0]

    def _believable(self, meter_id: str, direction: str, hour: int, value: float, main_fuse_a: float) -> bool:
        who = meter_id, direction
        if who not in self._seen:  # after a restart: continue from the state
            self._seen[who] = self._kept_before(meter_id, direction, hour)
        seen = self._seen[who]
        good = not seen or any(_goes_on(one, hour, value, main_fuse_a) for one in seen)
        if not good:
            log.warning(
                "register %s of meter %s went from %.0f to %.0f Wh at %s: it is written as sent, and no hour is "
                "calculated with it",
                direction,
                meter_id,
                seen[0].value,
                value,
                datetime.fromtimestamp(hour / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
            )
        one = _Seen(hour, value, good)
        # The last that was believed, and the last that was not if it came after that.
        seen[:] = [one] if good else [*(s for s in seen if s.good), one]
        return good


def _goes_on(before: _Seen, hour: int, value: float, main_fuse_a: float) -> bool:
    hours = (hour - before.hour) / HOUR_MS
    if hours < 0:  # a capture out of order: nothing can be compared
        return True
    return 0 <= value - before.value <= most_wh(main_fuse_a, max(hours, 1.0))


def _key(meter_id: str, direction: str, hour: int) -> str:
    return f"{meter_id}:{direction}:{_month_of(hour // _DAY_MS)}"


@lru_cache(maxsize=256)
def _month_of(day: int) -> str:
    """The month in UTC of a day, counted from 1970: a key is needed several times for each register."""
    return f"{datetime.fromtimestamp(day * 86_400, UTC):%Y-%m}"


def _name(hour: int) -> str:
    return str(hour // HOUR_MS)
