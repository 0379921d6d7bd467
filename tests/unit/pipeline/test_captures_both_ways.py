"""Every capture, made and real, gives the same lines by the quick way and by the slow one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.support import octets, real_captures
from tests.support.two_ways import at_once, same

FIRST = datetime(2024, 3, 1, 11, 59, 40, tzinfo=UTC)
CAPTURES = [pytest.param(octets.frames_of, name, id=name) for name in sorted(octets.expected())]
CAPTURES += [
    pytest.param(real_captures.frames_of, name, id=f"real-{name}", marks=real_captures.needed)
    for name in real_captures.names()
]


@pytest.mark.parametrize("derived", [False, True])
@pytest.mark.parametrize(("frames_of", "name"), CAPTURES)
def test_the_lines_are_the_same(frames_of: Callable[[str], list[bytes]], name: str, derived: bool) -> None:
    """Four times over, so that every list has become a known one; by its own clock, and stamped every 10 s."""
    frames = frames_of(name) * 4
    same(at_once(frames), derived=derived)
    same([(data, None) for data in frames], derived=derived, fallback="at home")
    same([(data, FIRST + n * timedelta(seconds=10)) for n, data in enumerate(frames)], derived=derived)
