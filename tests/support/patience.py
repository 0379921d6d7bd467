"""Bounds in time that a busy machine does not break.

A bound is meant for a quiet machine. Where it is passed, the machine is looked at: it gets as many times longer as
things take longer here and now. What hangs still ends, and on a quiet machine as soon as the bound says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

HANG_S: Final = 600.0
"""For waits that should end at once: longer than any busy machine needs, and only there to end a hang."""

_MEASURED_S: Final = 0.1
_NOT_WORTH_MEASURING_S: Final = 0.3


def slowness() -> float:
    """How many times longer something takes here and now than on a quiet machine: 1 or more."""
    began, used = time.monotonic(), time.thread_time()
    while time.thread_time() - used < _MEASURED_S:
        pass
    measured = (time.monotonic() - began) / _MEASURED_S
    waiting_for_a_core = os.getloadavg()[0] / (os.cpu_count() or 1)  # over the last minute
    return max(1.0, measured, waiting_for_a_core)


def quiet_seconds(took: float) -> float:
    """What `took` seconds would have been on a quiet machine."""
    return took if took < _NOT_WORTH_MEASURING_S else took / slowness()


class Patience:
    """A bound of so many seconds of a quiet machine, from now on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = self._limit = seconds
        self._began = time.monotonic()

    def waited(self) -> float:
        """Seconds since it began, by the clock."""
        return time.monotonic() - self._began

    def is_over(self) -> bool:
        """Whether the bound was passed, however slow the machine is."""
        if self.waited() < self._limit:
            return False
        self._limit = max(self._limit, self._seconds * slowness())
        return self.waited() >= self._limit


def until(true: Callable[[], object], seconds: float = 30, what: str = "it") -> float:
    """Wait until something is true. Returns the seconds that this took, as they would be on a quiet machine."""
    patience = Patience(seconds)
    while not true():
        assert not patience.is_over(), f"{what} did not come within {patience.waited():.1f} s"
        time.sleep(0.01)
    return quiet_seconds(patience.waited())
