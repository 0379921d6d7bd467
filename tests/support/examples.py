"""What the rare group does at greater length: each property takes all its examples there, and few elsewhere."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

RARE: Final = os.environ.get("HAN_TEST_RARE") == "1"
"""Whether this is the rare group (tests/run rare)."""

_SHARE: Final = 8


def examples(full: int) -> settings:
    """Settings of a property that takes `full` examples to find what it is there for."""
    return settings(max_examples=full if RARE else -(-full // _SHARE))


def use_profile() -> None:
    """Make it the default of each property, before the first of them is imported. No property has a deadline."""
    settings.register_profile(
        "han-exporter", max_examples=100 if RARE else 20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("han-exporter")
