"""(c) `decode --format lp` as a whole process on a capture of raw octets, and (g) how it grows with its size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.benchmarks import child, decode
from tests.benchmarks.capture import Capture
from tests.benchmarks.figures import Effort, Figure

HUNDRED_MB: Final = 438_000
"""Frames in 100 MB."""
_QUICK_S: Final = 3.0


def run(effort: Effort) -> Iterator[Figure]:
    """All of (c), and (g) of it."""
    rate = decode.kamstrup_rate(effort)
    capture = Capture(effort.folder / "decode.raw")
    command = [child.PROGRAM, "decode", "--format", "lp", str(capture.path)]
    peaks: list[float] = []
    for count in _sizes(effort, rate):
        capture.grow_to(count)
        ran = child.run(command)
        peaks.append(ran.peak_mb)
        name = f"decode --format lp, {count:,} frames"
        note = f"{capture.octets / 1e6:.1f} MB in {ran.wall_s:.2f} s"
        yield Figure(f"{name}: whole process", count / ran.wall_s, "frames/s", note=note)
        yield Figure(f"{name}: peak memory", ran.peak_mb, "MB")
    capture.path.unlink()
    compared = count / ran.processor_s / rate
    yield Figure("decode --format lp: whole process to (a)", compared, "x", 1 / 1.5, compared=True)
    if len(peaks) > 1:
        grown = peaks[-1] - peaks[-2]
        yield Figure("decode --format lp: peak memory more than at a tenth", grown, "MB", 2, at_most=True)


def _sizes(effort: Effort, rate: float) -> list[int]:
    if effort.quick:
        # Long enough that the start does not count much, however fast it is by then.
        return [max(5000, min(HUNDRED_MB, round(rate * _QUICK_S)))]
    largest = 10_000_000 if effort.full else 0
    sizes = [10**power for power in range(3, 8) if 10**power <= max(largest, 100_000)]
    return sorted([*sizes, HUNDRED_MB])
