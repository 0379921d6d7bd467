"""(c) `decode --format lp` as a whole process on a capture of raw octets, and (g) how it and (a) grow with its size.

To (a), which is of one core, it is compared where no other process reads ahead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from tests.benchmarks import child, decode, paths
from tests.benchmarks.capture import Capture
from tests.benchmarks.figures import Effort, Figure

HUNDRED_MB: Final = 438_000
"""Frames in 100 MB."""
_ALONE: Final = "decode --format lp --jobs 0"
_QUICK_S: Final = 0.8
_PROBE: Final = 5000


def run(effort: Effort) -> Iterator[Figure]:
    """All of (c), and (g) of (a) and of it."""
    rate = decode.kamstrup_rate(effort)
    capture = Capture(effort.folder / "decode.raw")
    ahead = [child.PROGRAM, "decode", "--format", "lp", str(capture.path)]
    whole = [*ahead, "--jobs", "0"]
    bare = [sys.executable, "-m", paths.__name__, str(capture.path)]
    ways = {_ALONE: whole} | ({} if effort.quick else {"decode --format lp": ahead, "octets to line protocol": bare})
    ran: dict[str, list[child.Ran]] = {name: [] for name in ways}
    for count in _sizes(effort, capture, whole):
        capture.grow_to(count)
        for name, command in ways.items():
            ran[name].append(one := child.run(command))
            note = f"{capture.octets / 1e6:.1f} MB in {one.wall_s:.2f} s"
            yield Figure(f"{name}, {count:,} frames: whole process", count / one.wall_s, "frames/s", note=note)
            yield Figure(f"{name}, {count:,} frames: peak memory", one.peak_mb, "MB")
    capture.path.unlink()
    last = ran[_ALONE][-1]
    rate = max(rate, decode.kamstrup_rate(effort))
    compared = capture.frames / last.processor_s / rate
    yield Figure("decode --format lp: whole process to (a)", compared, "x", 1 / 1.5, compared=True)
    for name, each in ran.items():
        if len(each) > 1:
            grown = each[-1].peak_mb - each[-2].peak_mb
            yield Figure(f"{name}: peak memory more than at the size before", grown, "MB", 2, at_most=True)


def _sizes(effort: Effort, capture: Capture, command: list[str]) -> list[int]:
    if effort.quick:  # few only where many would take a minute
        capture.grow_to(_PROBE)
        return [HUNDRED_MB if child.run(command).wall_s < _QUICK_S else 3 * _PROBE]
    largest = 10_000_000 if effort.full else 100_000
    return sorted([10**power for power in range(3, 8) if 10**power <= largest] + [HUNDRED_MB])
