"""(c) `decode --format lp` as a whole process on raw bytes and on time-stamped hex, and (g) how it and (a) grow.

It is one process on one core, and (a), with which it is compared, is too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from tests.benchmarks import child, decode, paths
from tests.benchmarks.capture import Capture
from tests.benchmarks.figures import Effort, Figure

HUNDRED_MB: Final = 438_000
"""Frames in 100 MB of raw bytes, ..."""
HUNDRED_MB_STAMPED: Final = 204_000
"""... and in 100 MB of time-stamped hex."""
_STAMPED_AIM: Final = 0.5
_NAME: Final = "decode --format lp"
_QUICK_S: Final = 0.8
_PROBE: Final = 5000
_ROUNDS: Final = 2


def run(effort: Effort) -> Iterator[Figure]:
    """All of (c), and (g) of (a) and of it."""
    rate = decode.kamstrup_rate(effort)
    capture = Capture(effort.folder / "decode.raw")
    whole = _command(capture)
    bare = [sys.executable, "-m", paths.__name__, str(capture.path)]
    commands = {_NAME: whole} | ({} if effort.quick else {"bytes to line protocol": bare})
    ran: dict[str, list[child.Ran]] = {name: [] for name in commands}
    for count in _sizes(effort, capture, whole):
        capture.grow_to(count)
        for name, command in commands.items():
            ran[name].append(one := child.run(command))
            note = f"{capture.size / 1e6:.1f} MB in {one.wall_s:.2f} s"
            yield Figure(f"{name}, {count:,} frames: whole process", count / one.wall_s, "frames/s", note=note)
            yield Figure(f"{name}, {count:,} frames: peak memory", one.peak_mb, "MB")
    capture.path.unlink()
    last = ran[_NAME][-1]
    rate = max(rate, decode.kamstrup_rate(effort))
    compared = capture.frames / last.processor_s / rate
    yield Figure(f"{_NAME}: whole process to (a)", compared, "x", 1 / 1.5, compared=True)
    for name, each in ran.items():
        if len(each) > 1:
            grown = each[-1].peak_mb - each[-2].peak_mb
            yield Figure(f"{name}: peak memory more than at the size before", grown, "MB", 2, at_most=True)
    yield from _stamped(effort)


def _command(capture: Capture) -> list[str]:
    return [child.PROGRAM, "decode", "--format", "lp", str(capture.path)]


def _sizes(effort: Effort, capture: Capture, command: list[str]) -> list[int]:
    if effort.quick:  # fewer where so many would take a minute
        capture.grow_to(_PROBE)
        return [HUNDRED_MB if child.run(command).wall_s < _QUICK_S else 3 * _PROBE]
    largest = 10_000_000 if effort.full else 100_000
    return sorted([10**power for power in range(3, 8) if 10**power <= largest] + [HUNDRED_MB])


def _stamped(effort: Effort) -> Iterator[Figure]:
    """100 MB of time-stamped hex and the same frames as raw bytes, in turn, with a progress bar; the best of each."""
    raw = Capture(effort.folder / "same.raw")
    stamped = Capture(effort.folder / "same.hex", stamped=True)
    for capture in (raw, stamped):
        capture.grow_to(effort.of(6 * _PROBE, HUNDRED_MB_STAMPED))
    by_raw, by_stamped = [], []
    for _ in range(_ROUNDS):
        by_raw.append(child.run(_command(raw), terminal=True).wall_s)
        by_stamped.append(child.run(_command(stamped), terminal=True).wall_s)
    note = f"{stamped.size / 1e6:.0f} MB in {min(by_stamped):.2f} s, raw {min(by_raw):.2f} s"
    ratio = min(by_raw) / min(by_stamped)
    yield Figure(f"{_NAME}: time-stamped hex to raw bytes", ratio, "x", _STAMPED_AIM, note=note, compared=True)
    for capture in (raw, stamped):
        capture.path.unlink()
