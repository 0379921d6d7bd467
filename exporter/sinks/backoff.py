"""How long the writer waits before it tries again."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final

__all__ = ["OutboxTrouble", "pause"]

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0


def pause(failures: int) -> float:
    """Return the seconds before the next try: exponential, with jitter, at most a minute."""
    # The exponent is limited, too: there may be any number of failures.
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)


class OutboxTrouble:
    """An outbox that cannot be read or written: reported once, tried again after longer and longer pauses.

    InfluxDB works meanwhile, and lines in memory are sent.
    """

    def __init__(self, pause: Callable[[int], float] = pause) -> None:
        self._pause = pause
        self._failures = 0
        self._next = 0.0

    @property
    def paused(self) -> bool:
        """Whether the outbox must not be used now."""
        return self._failures > 0 and time.monotonic() < self._next

    @property
    def due(self) -> bool:
        """Whether it is time to try again."""
        return self._failures > 0 and not self.paused

    def failed(self, message: str) -> None:
        """The outbox failed, with this message."""
        self._failures += 1
        self._next = time.monotonic() + self._pause(self._failures)
        if self._failures == 1:
            log.error("%s. It is tried again, after at most a minute.", message)

    def end_pause(self) -> None:
        """Let the outbox be tried now."""
        self._next = 0.0

    def over(self) -> None:
        """The outbox worked."""
        if self._failures:
            log.info("The outbox can be used again.")
        self._failures = 0
