"""(a) Octets to finished line protocol, frames a second on one core: every maker and list, one meter and 10 000.

The slow way, which reads frame by frame and value by value, is measured on the same octets: it is what the learned
layouts are compared with, and what their lines must equal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from tests.benchmarks import frames
from tests.benchmarks.figures import Effort, Figure, calibrate, own_garbage, together
from tests.benchmarks.paths import Way, blocks, octets_to_lines, ours, slowly

METERS: Final = 10_000
AIM: Final = 250_000
"""Frames a second of the Kamstrup 10 s list, ..."""
AIM_MAIN: Final = 200_000
"""... and of any maker's main list."""
FIRMWARE_US: Final = 23.0
"""What a C++ firmware decoder takes for a Kamstrup frame of 228 octets, octets to values: quoted, not measured here."""
_LEAST_S: Final = {True: 0.5, False: 1.5}
_PATIENCE_S: Final = {True: 2.0, False: 12.0}
_CHECKED: Final = 300


def run(effort: Effort) -> Iterator[Figure]:
    """All of (a)."""
    for case in frames.CASES:
        if case.main or not effort.quick:
            aim = AIM if case == frames.KAMSTRUP else AIM_MAIN if case.main else None
            yield from _one(case.name, frames.frames(case, effort.of(10_000, 20_000)), aim, effort)
        if case == frames.KAMSTRUP or (case.named and not effort.quick):
            yield from _many(case, effort)
    for name in [] if effort.quick else frames.captures():
        yield from _one(f"capture {name}", frames.capture_frames(name, 10_000), None, effort)


def kamstrup_rate(effort: Effort) -> float:
    """Frames a second of the Kamstrup 10 s list, clean, one meter, now."""
    heard = frames.frames(frames.KAMSTRUP, effort.of(10_000, 20_000))
    (taken,) = together(_work(heard), least_s=_LEAST_S[effort.quick], patience_s=1.0)
    return len(heard) / taken.best


def _one(name: str, heard: Sequence[bytes], aim: float | None, effort: Effort) -> Iterator[Figure]:
    """One meter: clean, damaged, and the slow way beside them."""
    _must_agree(name, heard[:_CHECKED])
    count, slowly_read = len(heard), heard[: effort.of(500, 1000)]
    clean, hurt, slow, loop = together(
        _work(heard),
        _work(frames.damaged(heard)),
        _work(slowly_read, slowly),
        calibrate,
        least_s=_LEAST_S[effort.quick],
        patience_s=_PATIENCE_S[effort.quick],
    )
    us = 1e6 / count
    note = f"{us * clean.best:.2f} us a frame of {len(heard[-1])} octets; median {us * clean.median:.2f} us"
    yield Figure(f"{name}: octets to line protocol", count / clean.best, "frames/s", aim, note=note)
    if aim == AIM:
        note = f"quoted: {FIRMWARE_US:.0f} us a frame"
        yield Figure(f"{name}: times the C++ firmware figure", FIRMWARE_US / (us * clean.best), "x", 5, note=note)
        yield Figure(f"{name}: to the calibration loop", count * loop.best / clean.best, "x", compared=True)
    slow_us = 1e6 * slow.best / len(slowly_read)
    note = f"that takes {slow_us:.1f} us"
    yield Figure(f"{name}: to the slow path", slow_us / (us * clean.best), "x", note=note, compared=True)
    yield Figure(f"{name}: 1 % damaged to clean", clean.best / hurt.best, "x", 0.7, compared=True)


def _many(case: frames.Case, effort: Effort) -> Iterator[Figure]:
    """Many meters in turn, each of whom was heard before; one meter beside them."""
    name, made = f"{case.name}, {METERS} meters", frames.frames(case, 3 * METERS, METERS)
    first, again = made[:METERS], made[METERS:]
    alone = frames.frames(case, effort.of(10_000, 20_000))
    hurt = frames.damaged(again)
    taken = [
        (*_rounds(first, again), *_rounds(first, again if effort.quick else hurt), together(_work(alone))[0].best)
        for _ in range(effort.of(1, 3))
    ]
    new, steady, _, steady_hurt, one = (min(each) for each in zip(*taken, strict=True))
    yield Figure(f"{name}: each heard first", METERS / new, "frames/s")
    if effort.quick:  # it was measured twice instead of the damaged
        steady = min(steady, steady_hurt)
    yield Figure(f"{name}: octets to line protocol", len(again) / steady, "frames/s", note="each heard before")
    compared = len(again) / steady / (len(alone) / one)
    yield Figure(f"{name}: to one", compared, "x", 0.8, compared=True)
    if not effort.quick:
        yield Figure(f"{name}: 1 % damaged to clean", steady / steady_hurt, "x", 0.7, compared=True)


def _rounds(first: Sequence[bytes], again: Sequence[bytes]) -> tuple[float, float]:
    """Seconds of our way through the first frame of each meter, and through those behind them."""
    passed = []

    def fed() -> Iterator[bytes]:
        yield from blocks(b"".join(first))
        passed.append(time.process_time())  # the way asks for more when it is done with those
        yield from blocks(b"".join(again))

    with own_garbage():
        began = time.process_time()
        for _text in ours(fed()):
            pass
        return passed[0] - began, time.process_time() - passed[0]


def _work(heard: Sequence[bytes], way: Way = ours) -> Callable[[], int]:
    return partial(octets_to_lines, b"".join(heard), way)


def _must_agree(name: str, heard: Sequence[bytes]) -> None:
    octets = b"".join(heard)
    if "\n".join(ours(blocks(octets))).split() != "\n".join(slowly(blocks(octets))).split():
        raise RuntimeError(f"{name}: the lines are not those of the slow way; what is fast and wrong is not measured")
