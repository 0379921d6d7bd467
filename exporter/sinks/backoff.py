"""How long the writer waits before it tries again, and how often it says why."""

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
    """Seconds before the next try: exponential, with jitter, up to a minute."""
    # The exponent is bounded as well: failures go on for ever.
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)


class OutboxTrouble:
    """An outbox that cannot be read or written: told once, left alone for longer and longer, told when it is over.

    InfluxDB has no part in it, and what goes straight to InfluxDB does not wait for it.
    """

    def __init__(self, pause: Callable[[int], float] = pause) -> None:
        self._pause = pause
        self._failures = 0
        self._next = 0.0

    @property
    def rests(self) -> bool:
        """Whether the outbox is to be left alone now."""
        return self._failures > 0 and time.monotonic() < self._next

    @property
    def due(self) -> bool:
        """Whether it is to be tried again now."""
        return self._failures > 0 and not self.rests

    def failed(self, words: str) -> None:
        """It failed, with these words."""
        self._failures += 1
        self._next = time.monotonic() + self._pause(self._failures)
        if self._failures == 1:
            log.error("%s. It is tried again, after a minute at most", words)

    def rest_no_more(self) -> None:
        """Try again at once."""
        self._next = 0.0

    def over(self) -> None:
        """It worked."""
        if self._failures:
            log.info("The outbox can be used again")
        self._failures = 0
