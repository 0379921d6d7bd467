"""(a) Octets to finished line protocol, frames a second on one core: every maker and list, one meter and 10 000.

The slow way, which reads frame by frame and value by value, is measured on the same octets: it is what the learned
layouts are compared with, and what their lines must equal.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Final

from tests.benchmarks import frames
from tests.benchmarks.figures import Effort, Figure, Times, calibration, timed
from tests.benchmarks.paths import Way, blocks, octets_to_lines, ours, slowly

METERS: Final = 10_000
AIM: Final = 250_000
"""Frames a second of the Kamstrup 10 s list, ..."""
AIM_MAIN: Final = 200_000
"""... and of any maker's main list."""
FIRMWARE_US: Final = 23.0
"""What a C++ firmware decoder takes for a Kamstrup frame of 228 octets, octets to values: quoted, not measured here."""
_LEAST_S: Final = {True: 0.6, False: 1.5}
_PATIENCE_S: Final = {True: 1.0, False: 4.0}
_CHECKED: Final = 300


def run(effort: Effort) -> Iterator[Figure]:
    """All of (a)."""
    for case in frames.CASES:
        if case.main or not effort.quick:
            yield from _of_case(case, effort)
    for name in [] if effort.quick else frames.captures():
        heard = frames.capture_frames(name, effort.of(0, 10_000))
        taken = _time(heard, effort)
        yield from _clean(f"capture {name}", heard, taken, None, effort)
        yield _damaged(f"capture {name}", heard, taken, effort)


def kamstrup_rate(effort: Effort) -> float:
    """Frames a second of the Kamstrup 10 s list, clean, one meter: measured once in a run."""
    return _kamstrup_rate(effort.of(10_000, 20_000), effort)


@lru_cache(maxsize=1)
def _kamstrup_rate(count: int, effort: Effort) -> float:
    return count / _time(frames.frames(frames.KAMSTRUP, count), effort).best


def _of_case(case: frames.Case, effort: Effort) -> Iterator[Figure]:
    aim = AIM if case == frames.KAMSTRUP else AIM_MAIN if case.main else None
    count = effort.of(10_000, 20_000)
    one = frames.frames(case, count)
    alone = _time(one, effort)
    yield from _clean(case.name, one, alone, aim, effort)
    if case == frames.KAMSTRUP:
        rate = count / alone.best
        yield Figure(
            "kamstrup 10 s: times the C++ firmware figure",
            FIRMWARE_US * rate / 1e6,
            "x",
            5,
            note=f"quoted: {FIRMWARE_US:.0f} us a frame",
        )
        yield Figure("kamstrup 10 s: to the calibration loop", rate / calibration(), "x", compared=True)
    if case == frames.KAMSTRUP or not effort.quick:
        yield _damaged(case.name, one, alone, effort)
    if case.named and (case == frames.KAMSTRUP or not effort.quick):
        yield from _many(case, count / alone.best, effort)


def _clean(name: str, heard: Sequence[bytes], taken: Times, aim: float | None, effort: Effort) -> Iterator[Figure]:
    slow_frames = heard[: effort.of(1000, 2000)]
    _must_agree(name, heard[:_CHECKED])
    slow = _time(slow_frames, effort, slowly)
    rate = len(heard) / taken.best
    note = f"{1e6 / rate:.2f} us a frame of {len(heard[-1])} octets; median {1e6 * taken.median / len(heard):.2f} us"
    yield Figure(f"{name}: octets to line protocol", rate, "frames/s", aim, note=note)
    yield Figure(f"{name}: to the slow path", rate * slow.best / len(slow_frames), "x", compared=True)


def _damaged(name: str, heard: Sequence[bytes], clean: Times, effort: Effort) -> Figure:
    taken = _time(frames.damaged(heard), effort)
    return Figure(f"{name}: 1 % damaged to clean", clean.best / taken.best, "x", 0.7, compared=True)


def _many(case: frames.Case, rate_of_one: float, effort: Effort) -> Iterator[Figure]:
    name, made = f"{case.name}, {METERS} meters", frames.frames(case, 3 * METERS, METERS)
    first, again = made[:METERS], made[METERS:]
    new, steady = _rounds(first, again, effort)
    yield Figure(f"{name}: each heard first", METERS / new, "frames/s")
    yield Figure(f"{name}: octets to line protocol", len(again) / steady, "frames/s", note="each heard before")
    yield Figure(f"{name}: to one", len(again) / steady / rate_of_one, "x", 0.8, compared=True)
    if not effort.quick:
        hurt = _rounds(first, frames.damaged(again), effort)[1]
        yield Figure(f"{name}: 1 % damaged to clean", steady / hurt, "x", 0.7, compared=True)


def _rounds(first: Sequence[bytes], again: Sequence[bytes], effort: Effort) -> tuple[float, float]:
    """Seconds of a way through the first frame of each meter, and through those behind them; the least of some."""
    taken = []
    for _ in range(effort.of(2, 3)):
        began = time.process_time()
        passed = [began]

        def fed(passed: list[float] = passed) -> Iterator[bytes]:
            yield from blocks(b"".join(first))
            passed.append(time.process_time())  # the way asks for more when it is done with those
            yield from blocks(b"".join(again))

        for _text in ours(fed()):
            pass
        taken.append((passed[1] - began, time.process_time() - passed[1]))
    return min(new for new, _ in taken), min(steady for _, steady in taken)


def _time(heard: Sequence[bytes], effort: Effort, way: Way = ours) -> Times:
    work = partial(octets_to_lines, b"".join(heard), way)
    return timed(work, least_s=_LEAST_S[effort.quick], patience_s=_PATIENCE_S[effort.quick])


def _must_agree(name: str, heard: Sequence[bytes]) -> None:
    octets = b"".join(heard)
    if "\n".join(ours(blocks(octets))).split() != "\n".join(slowly(blocks(octets))).split():
        raise RuntimeError(f"{name}: the lines are not those of the slow way; what is fast and wrong is not measured")
