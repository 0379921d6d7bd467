"""This computer's own clock, and when it is not to be trusted: a Raspberry Pi has none that runs while it is off."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from exporter.model.calendar import HOUR_MS, from_ms, to_ms
from exporter.model.reading import LATEST
from exporter.pipeline.arrival import Arrival

__all__ = ["NOT_BEFORE", "HostClock", "HostTime", "synchronised"]

log = logging.getLogger(__name__)

NOT_BEFORE: Final = datetime(2026, 11, 1, tzinfo=UTC)
"""This version is not older: any clock that shows less is wrong. To be moved on with each release."""

_NOT_BEFORE_MS: Final = to_ms(NOT_BEFORE)
_LATEST_MS: Final = to_ms(LATEST)
_TOLERANCE_MS: Final = 5 * 60_000
_TIME_ERROR: Final = 5
_TIMEX_SIZE: Final = 512  # struct timex has 208 bytes on 64-bit Linux
_ASK_KERNEL_EVERY_S: Final = 10.0


def synchronised() -> bool | None:
    """Whether the kernel says that the clock is synchronised (adjtimex(2)); None where it cannot be asked."""
    import ctypes  # loaded with the first question: most commands never ask

    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state: int = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_SIZE))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


@dataclass(frozen=True, slots=True)
class HostClock:
    """The clocks of this computer, as the pipeline is given them."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic
    synchronised: Callable[[], bool | None] = synchronised


class HostTime:
    """Gives the lists of one stream another time while this computer's clock is wrong.

    It is wrong when it shows less than NOT_BEFORE, and while the kernel says that it is not synchronised and it is over
    5 minutes from the meter's clock; but not by one or two whole hours: then it is the meter's that is read by a wrong
    rule. Then a list takes the meter's clock, or the meter's last clock and the monotonic time since. A meter's clock
    before NOT_BEFORE, or after LATEST, is no help. Without help our own time is used, with a warning.
    """

    def __init__(self, clock: HostClock) -> None:
        self._clock = clock
        self._asked = float("-inf")
        self._synchronised: bool | None = None
        self._meter: tuple[int, float] | None = None  # the meter's clock, ms, while it is the better one
        self.trusted = True

    def is_right(self, received: int) -> bool:
        """Whether `correct` would change nothing for a list received then (us), whatever the meter's clock shows."""
        return (
            self.trusted and received // 1000 >= _NOT_BEFORE_MS and self._kernel(self._clock.monotonic()) is not False
        )

    def correct(self, one: Arrival, clock: int | None) -> None:
        """Correct `received` of a list if need be; `clock` is the meter's, ms in UTC by the rule in force."""
        if one.received is None:
            return
        now = self._clock.monotonic()
        usable = clock if clock is not None and _NOT_BEFORE_MS <= clock < _LATEST_MS else None
        if not self._is_wrong(one.received // 1000, usable, now):
            if not self.trusted:
                log.info("the clock of this computer is right again")
            self.trusted, self._meter = True, None
            return
        if usable is not None:
            self._meter = (usable, now)
        self._say(one.received // 1000)
        self.trusted = False
        if self._meter is not None:
            one.received = self._meter[0] * 1000 + round((now - self._meter[1]) * 1_000_000)

    def _is_wrong(self, received: int, clock: int | None, now: float) -> bool:
        if received < _NOT_BEFORE_MS:
            return True
        if self._kernel(now) is not False:
            return False
        if clock is None:  # Aidon's 10 s list: as it was at the last clock
            return self._meter is not None
        off = received - clock
        hours = round(off / HOUR_MS)
        return abs(off) > _TOLERANCE_MS and not (abs(hours) in (1, 2) and abs(off - hours * HOUR_MS) <= _TOLERANCE_MS)

    def _kernel(self, now: float) -> bool | None:
        """What the kernel says, asked every ten seconds."""
        if now - self._asked >= _ASK_KERNEL_EVERY_S:
            self._asked, self._synchronised = now, self._clock.synchronised()
        return self._synchronised

    def _say(self, received: int) -> None:
        if not self.trusted:
            return
        instead = "the meter's clock is used" if self._meter else "it is still used, since no meter sends a better time"
        log.warning(
            "the clock of this computer is wrong (it shows %s UTC): %s; set up NTP, or add a real-time clock",
            from_ms(received).strftime("%Y-%m-%d %H:%M"),
            instead,
        )
