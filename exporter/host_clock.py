"""What is known of this computer's own clock."""

from __future__ import annotations

import ctypes
from datetime import UTC, datetime
from typing import Final

NOT_BEFORE: Final = datetime(2026, 11, 1, tzinfo=UTC)
"""This version is not older: a clock that reads less is wrong."""

_TIME_ERROR: Final = 5
_TIMEX_OCTETS: Final = 512  # struct timex is 208 octets on 64-bit Linux


def synchronised() -> bool | None:
    """Whether the kernel calls the clock synchronised (adjtimex(2)); None where it cannot be asked."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state: int = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_OCTETS))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR
