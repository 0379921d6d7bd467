"""This computer's own clock, and when it is not to be trusted: a Raspberry Pi has none that runs while it is off."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from exporter.model.reading import LATEST, Reading

log = logging.getLogger(__name__)

NOT_BEFORE: Final = datetime(2026, 11, 1, tzinfo=UTC)
"""This version is not older: a clock that reads less is wrong, whoever's it is."""

_TOLERANCE: Final = timedelta(minutes=5)
_HOUR: Final = timedelta(hours=1)
_TIME_ERROR: Final = 5
_TIMEX_OCTETS: Final = 512  # struct timex is 208 octets on 64-bit Linux
_ASK_KERNEL_EVERY_S: Final = 10.0


def synchronised() -> bool | None:
    """Whether the kernel calls the clock synchronised (adjtimex(2)); None where it cannot be asked."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state: int = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_OCTETS))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


class HostTime:
    """Gives the readings of one source another time while this computer's clock is wrong.

    It is wrong before this version was made, and while the kernel calls it unsynchronised and it is over 5 minutes
    from the meter's clock, but not by one or two whole hours: then it is the meter's that is read by a wrong rule.
    Then a reading takes the meter's clock, or the meter's last clock and the monotonic time since. A meter's clock that
    is older than this version, or later than LATEST, is no help. Without help our own time stands, with a warning.
    """

    def __init__(
        self,
        *,
        kernel: Callable[[], bool | None] = synchronised,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kernel = kernel
        self._monotonic = monotonic
        self._asked = float("-inf")
        self._synchronised: bool | None = None
        self._meter: tuple[datetime, float] | None = None  # the meter's clock, while it is the better one
        self.trusted = True

    def mend(self, reading: Reading, clock: datetime | None) -> Reading:
        """The reading, its `received` mended if need be; `clock` is the meter's, in UTC by the rule in force."""
        if reading.received is None:
            return reading
        now = self._monotonic()
        usable = clock if clock is not None and NOT_BEFORE <= clock < LATEST else None
        if not self._is_wrong(reading.received, usable, now):
            if not self.trusted:
                log.info("the clock of this computer is right again")
            self.trusted, self._meter = True, None
            return reading
        if usable is not None:
            self._meter = (usable, now)
        self._say(reading.received)
        self.trusted = False
        if self._meter is None:
            return reading
        return replace(reading, received=self._meter[0] + timedelta(seconds=now - self._meter[1]))

    def _is_wrong(self, received: datetime, clock: datetime | None, now: float) -> bool:
        if received < NOT_BEFORE:
            return True
        if now - self._asked >= _ASK_KERNEL_EVERY_S:
            self._asked, self._synchronised = now, self._kernel()
        if self._synchronised is not False:
            return False
        if clock is None:  # Aidon's 10 s list: as it was at the last clock
            return self._meter is not None
        off = received - clock
        hours = round(off / _HOUR)
        return abs(off) > _TOLERANCE and not (abs(hours) in (1, 2) and abs(off - hours * _HOUR) <= _TOLERANCE)

    def _say(self, received: datetime) -> None:
        if not self.trusted:
            return
        instead = "the meter's clock is used" if self._meter else "it is used all the same, since no meter tells better"
        log.warning(
            "the clock of this computer is wrong (it reads %s UTC): %s; let it have NTP, or a clock of its own",
            received.strftime("%Y-%m-%d %H:%M"),
            instead,
        )
