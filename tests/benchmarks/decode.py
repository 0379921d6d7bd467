"""(a) Bytes to finished line protocol, frames a second on one core: every maker and list, one meter and 10 000.

The slow way, which reads frame by frame and value by value, is measured on the same bytes: the quick way is compared
with it, and must give the same lines. So it is for the values alone, for all that is derived too, and for every frame
of the real captures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

from exporter.sources.contract import Chunk
from tests.benchmarks import frames
from tests.benchmarks.figures import Effort, Figure, calibrate, own_garbage, together
from tests.benchmarks.paths import Way, blocks, bytes_to_lines, derived, derived_slowly, quickly, slowly
from tests.support import real_captures

METERS: Final = 10_000
AIM: Final = 20
"""Times the slow way for the Kamstrup 10 s list, ..."""
AIM_MAIN: Final = 15
"""... for the main list of another maker, ..."""
AIM_CAPTURE: Final = 10
"""... for any frame of a real capture, ..."""
AIM_DERIVED: Final = 6
"""... and for a main list with all that is derived."""
AIM_DAMAGED: Final = 0.8
AIM_MANY: Final = 0.75
FIRMWARE_US: Final = 23.0
"""What a C++ firmware decoder takes for a Kamstrup frame of 228 bytes, bytes to values: quoted, not measured here."""
STEPS: Final = {"10 s": timedelta(seconds=10), "1 h": timedelta(hours=1)}
"""How far the clocks of a capture's frames advance from one to the next."""
_LEAST_S: Final = {True: 0.5, False: 1.5}
_PATIENCE_S: Final = {True: 3.0, False: 15.0}
_CAPTURE_PATIENCE_S: Final = 3.0
_CHECKED: Final = 300


def run(effort: Effort) -> Iterator[Figure]:
    """All of (a)."""
    for case in frames.CASES:
        if case.main or not effort.quick:
            aim = AIM if case == frames.KAMSTRUP else AIM_MAIN if case.main else None
            yield from _one(case.name, frames.frames(case, effort.of(10_000, 20_000)), aim, effort)
        if case == frames.KAMSTRUP or (case.named and not effort.quick):
            yield from _many(case, effort)
    if not effort.quick:
        for name in frames.captures():
            yield from _one(f"capture {name}", frames.capture_frames(name, 10_000), None, effort)
        yield from _real_captures()


def kamstrup_rate(effort: Effort) -> float:
    """Frames a second of the Kamstrup 10 s list, undamaged, one meter, now."""
    sent = frames.frames(frames.KAMSTRUP, effort.of(10_000, 20_000))
    (taken,) = together(_work(sent), least_s=_LEAST_S[effort.quick], patience_s=1.0)
    return len(sent) / taken.best


def _one(name: str, sent: Sequence[bytes], aim: float | None, effort: Effort) -> Iterator[Figure]:
    """One meter: undamaged and damaged, values alone and all derived, and the slow way beside them."""
    count, few = len(sent), sent[: effort.of(500, 1000)]
    # Nothing is derived from a list without any time: a list without a clock is received every 10 s.
    byte_seconds = 0.0 if frames.has_clock(sent) else 10 * count / sum(map(len, sent))
    _must_agree(name, sent[:_CHECKED], byte_seconds)
    clean, hurt, slow, loop, more, more_slow = together(
        _work(sent),
        _work(frames.damaged(sent)),
        _work(few, slowly),
        calibrate,
        _work(sent, derived, byte_seconds),
        _work(few, derived_slowly, byte_seconds),
        least_s=_LEAST_S[effort.quick],
        patience_s=_PATIENCE_S[effort.quick],
    )
    us = 1e6 / count
    note = f"{us * clean.best:.2f} us a frame of {len(sent[-1])} bytes; median {us * clean.median:.2f} us"
    yield Figure(f"{name}: bytes to line protocol", count / clean.best, "frames/s", note=note)
    if aim == AIM:
        note = f"quoted: {FIRMWARE_US:.0f} us a frame"
        yield Figure(f"{name}: times the C++ firmware figure", FIRMWARE_US / (us * clean.best), "x", 5, note=note)
        yield Figure(f"{name}: to the calibration loop", count * loop.best / clean.best, "x", compared=True)
    slow_us, more_slow_us = (1e6 * taken.best / len(few) for taken in (slow, more_slow))
    note = f"that takes {slow_us:.1f} us"
    yield Figure(f"{name}: to the slow way", slow_us / (us * clean.best), "x", aim, note=note, compared=True)
    note = f"{us * more.best:.2f} us, the slow way {more_slow_us:.1f} us"
    more_aim = None if aim is None else AIM_DERIVED
    ratio = more_slow_us / (us * more.best)
    yield Figure(f"{name}: all derived, to the slow way", ratio, "x", more_aim, note=note, compared=True)
    yield Figure(f"{name}: 1 % damaged to clean", clean.best / hurt.best, "x", AIM_DAMAGED, compared=True)


def _many(case: frames.Case, effort: Effort) -> Iterator[Figure]:
    """Many meters in turn, after one frame of each; one meter beside them."""
    name, made = f"{case.name}, {METERS} meters", frames.frames(case, 3 * METERS, METERS)
    first, again = made[:METERS], made[METERS:]
    alone = frames.frames(case, effort.of(10_000, 20_000))
    hurt = frames.damaged(again)
    taken = [
        (*_rounds(first, again), *_rounds(first, again if effort.quick else hurt), together(_work(alone))[0].best)
        for _ in range(effort.of(1, 3))
    ]
    new, steady, _, steady_hurt, one = (min(each) for each in zip(*taken, strict=True))
    yield Figure(f"{name}: the first frame of each", METERS / new, "frames/s")
    if effort.quick:  # the same was measured a second time, in place of the damaged frames
        steady = min(steady, steady_hurt)
    note = "after the first frame of each"
    yield Figure(f"{name}: bytes to line protocol", len(again) / steady, "frames/s", note=note)
    compared = len(again) / steady / (len(alone) / one)
    yield Figure(f"{name}: to one", compared, "x", AIM_MANY, compared=True)
    if not effort.quick:
        yield Figure(f"{name}: 1 % damaged to clean", steady / steady_hurt, "x", AIM_DAMAGED, compared=True)


def _rounds(first: Sequence[bytes], again: Sequence[bytes]) -> tuple[float, float]:
    """Seconds of the quick way for the first frame of each meter, and for the frames after those."""
    passed = []

    def fed() -> Iterator[Chunk]:
        yield from blocks(b"".join(first))
        passed.append(time.process_time())  # the pipeline asks for more when it has done with those
        yield from blocks(b"".join(again))

    with own_garbage():
        began = time.process_time()
        for _text in quickly(fed()):
            pass
        return passed[0] - began, time.process_time() - passed[0]


def _real_captures() -> Iterator[Figure]:
    """Every frame of the real captures by itself, in a loop whose numbers change and whose clocks advance."""
    if not real_captures.THERE:
        note = "skipped: neither HAN_TEST_CAPTURES nor ../shared/captures has the real captures"
        yield Figure("real captures: to the slow way", None, "x", AIM_CAPTURE, note=note)
        return
    for name in real_captures.names():
        for place, frame in enumerate(frames.parsed(real_captures.frames_of(name)), 1):
            for step, every in STEPS.items():
                yield _looped(f"real capture {name}, frame {place}, every {step}", frames.unlike(frame, every))


def _looped(name: str, sent: Sequence[bytes]) -> Figure:
    _must_agree(name, sent[:_CHECKED])
    few = sent[:1000]
    quick, slow = together(_work(sent), _work(few, slowly), least_s=0.5, patience_s=_CAPTURE_PATIENCE_S)
    us, slow_us = 1e6 * quick.best / len(sent), 1e6 * slow.best / len(few)
    note = f"{us:.2f} us a frame of {len(sent[0])} bytes, the slow way {slow_us:.1f} us; {len(sent):,} frames"
    return Figure(f"{name}: to the slow way", slow_us / us, "x", AIM_CAPTURE, note=note, compared=True)


def _work(sent: Sequence[bytes], way: Way = quickly, byte_seconds: float = 0.0) -> Callable[[], int]:
    return partial(bytes_to_lines, b"".join(sent), way, byte_seconds)


def _must_agree(name: str, sent: Sequence[bytes], byte_seconds: float = 0.0) -> None:
    """Raise RuntimeError if the two ways give different lines: a wrong result is not worth measuring."""
    for quick, slow in ((quickly, slowly), (derived, derived_slowly)):
        if _lines(sent, quick, byte_seconds) != _lines(sent, slow, byte_seconds):
            raise RuntimeError(f"{name}: the lines of {quick.__name__} are not those of {slow.__name__}")


def _lines(sent: Sequence[bytes], way: Way, byte_seconds: float) -> list[str]:
    return sorted(line for text in way(blocks(b"".join(sent), byte_seconds)) for line in text.splitlines())
