"""How often a message may be repeated."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

__all__ = ["OnceAMinute"]

_SECONDS: Final = 60.0


class OnceAMinute:
    """Lets a message through at once, and then at most once a minute. Each message has a limiter of its own."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._next: float | None = None
        self.count = 0
        """How many times `due` was called since the limiter was made."""

    def due(self) -> bool:
        """Count one more; return whether it is time to say so."""
        self.count += 1
        now = self._monotonic()
        if self._next is not None and now < self._next:
            return False
        self._next = now + _SECONDS
        return True

    def over(self) -> bool:
        """The trouble is over: the next message goes through at once. Return whether there was any."""
        was, self._next = self._next is not None, None
        return was
