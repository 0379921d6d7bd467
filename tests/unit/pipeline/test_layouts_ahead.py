"""Frames read ahead of those before them: the same lines, and what makes a run not to be believed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from exporter.cli._readers import Readers
from exporter.meters import OSLO
from exporter.pipeline.decoder import Heard, Intake
from exporter.pipeline.learned import Lines
from exporter.pipeline.learned.ahead import Ahead
from exporter.pipeline.placing import Placer
from tests.benchmarks.frames import CASES, START, Case, frames
from tests.support.two_ways import SOURCE, Chunks, Source, ahead, file_of, same_ahead, slowly

NOON = datetime(2024, 1, 1, 11, 0, 5, tzinfo=UTC)
COUNT = 300
PLAIN = [case for case in CASES if not case.hourly and not case.registers]
BY_NAME = {case.name: case for case in CASES}


def stamped(octets: Sequence[bytes], *, every: float = 10, first: datetime = NOON) -> Chunks:
    return [(piece, first + timedelta(seconds=every * n)) for n, piece in enumerate(octets)]


def cut(chunks: Chunks, size: int) -> Chunks:
    """As a serial port hands them over: some octets at a time."""
    return [
        (octets[at : at + size], moment and moment + timedelta(milliseconds=at))
        for octets, moment in chunks
        for at in range(0, len(octets), size)
    ]


def named(maker: str) -> Case:
    return next(case for case in PLAIN if case.maker == maker and case.named)


@pytest.mark.parametrize("derived", [False, True])
@pytest.mark.parametrize("name", [case.name for case in CASES if not case.hourly])
def test_nearly_every_frame_of_a_capture_is_taken_so(name: str, derived: bool) -> None:
    octets = frames(BY_NAME[name], COUNT)
    assert same_ahead(stamped(octets), derived=derived) > COUNT / 2
    same_ahead([(piece, None) for piece in octets], derived=derived)


@pytest.mark.parametrize("derived", [False, True])
def test_raw_octets_with_a_clock_in_them(derived: bool) -> None:
    for maker in ("kamstrup", "kaifa"):
        octets = frames(named(maker), COUNT)
        assert same_ahead([(piece, None) for piece in octets], derived=derived) > COUNT / 2


def test_frames_over_several_lines() -> None:
    octets = frames(named("kamstrup"), COUNT)
    assert same_ahead(cut(stamped(octets), 60), derived=True) > COUNT / 2
    assert same_ahead(cut(stamped(octets), 250), derived=True) > COUNT / 2


def test_lists_that_name_no_meter_between_those_that_do() -> None:
    """Aidon's list 1 every 2.5 s, list 2 every 10 s."""
    first, second = frames(BY_NAME["aidon 2.5 s (list 1)"], COUNT), frames(named("aidon"), COUNT)
    pieces = [piece for n in range(COUNT // 4) for piece in (*first[4 * n : 4 * n + 4], second[n])]
    assert same_ahead(stamped(pieces, every=2), derived=True) > COUNT / 2
    assert same_ahead([(piece, None) for piece in pieces]) > COUNT / 2


def test_two_meters_in_turn_go_one_by_one() -> None:
    one, other = frames(named("kamstrup"), COUNT), frames(named("aidon"), COUNT)
    pieces = [piece for both in zip(one, other, strict=True) for piece in both]
    same_ahead(stamped(pieces), derived=True)
    assert same_ahead(stamped([*one[:100], *other, *one[100:]]), derived=True) > COUNT / 2


def test_a_day_ends_within_a_run() -> None:
    octets = frames(named("kamstrup"), COUNT)
    late = datetime(2024, 1, 1, 22, 40, tzinfo=UTC)  # 23:40 in Oslo
    assert same_ahead(stamped(octets, first=late), derived=True) > COUNT / 3


def test_hours_between_runs() -> None:
    plain, hourly = frames(named("kamstrup"), COUNT), frames(BY_NAME["kamstrup hourly"], 24)
    pieces = [piece for n in range(24) for piece in (hourly[n], *plain[10 * n : 10 * n + 10])]
    assert same_ahead([(piece, None) for piece in pieces], derived=True) >= 0
    assert same_ahead(stamped(pieces, every=330), derived=True) > 50


@pytest.mark.parametrize("steps", [(0,), (10, -10), (10, 10, 0, -5), (1800, -900)])
def test_time_that_stands_still_or_goes_back(steps: tuple[int, ...]) -> None:
    octets = frames(named("kamstrup"), 60)
    moment, chunks = NOON, []
    for n, piece in enumerate(octets):
        moment += timedelta(seconds=steps[n % len(steps)])
        chunks.append((piece, moment))
    same_ahead(chunks, derived=True)
    same_ahead([(piece, None) for piece in (*octets[:40], *octets[10:50])], derived=True)


def test_several_frames_in_a_chunk_of_which_one_is_damaged() -> None:
    octets = frames(named("kamstrup"), 90)
    damaged = octets[40][:100] + b"\x00" + octets[40][101:]
    chunks = [b"".join(octets[n : n + 3]) if n != 42 else octets[42] + damaged + octets[44] for n in range(0, 90, 3)]
    assert same_ahead(stamped(chunks, every=30), derived=True) > 40


def test_a_clock_that_is_read_by_another_rule() -> None:
    """Two hourly lists whose clock is an hour behind have changed how this meter's clock is read."""
    hourly, plain = frames(BY_NAME["kamstrup hourly"], 6), frames(named("kamstrup"), COUNT)
    hours = stamped(hourly, every=3600, first=START + timedelta(hours=1, seconds=5))
    after = stamped(plain, first=START + timedelta(hours=7))
    told, taken = ahead(*file_of([*hours, *after]), Source(OSLO, derived=True))
    assert (told, taken) == (slowly([*hours, *after], Source(OSLO, derived=True)), 0)


def test_a_list_that_comes_again_is_a_repeat_of_one_that_was_read_ahead() -> None:
    octets = frames(BY_NAME["aidon 10 s, Sweden"], COUNT)
    chunks = stamped([*frames(named("aidon"), 1), *octets])  # the first says whose they are
    in_order, source = Source(OSLO, derived=True), Source(OSLO, derived=True)
    told, taken = ahead(*file_of(chunks), source)
    assert told == slowly(chunks, in_order)
    assert taken > COUNT / 3
    (again,) = (outcome for outcome in Intake(OSLO).feed(octets[-1]) if isinstance(outcome, Heard))
    assert source.placer.clock_of(again.reading) is in_order.placer.clock_of(again.reading) is None


def test_clocks_that_are_in_the_future_only_where_they_were_read_ahead() -> None:
    source = Source(OSLO, derived=False)
    source.placer = Placer(SOURCE, zone=OSLO, now=lambda: START - timedelta(days=3) + timedelta(minutes=30))
    way = Lines(source.placer, source.read, OSLO)
    octets = frames(named("kamstrup"), 20)
    way.feed(b"".join(octets[:2]))
    reader = Ahead(OSLO, fewest=1)
    reader.learn(way.examples)
    assert way.examples
    (run,) = reader.raw(b"".join(octets[2:]), None)
    assert run.frames == 18
    assert way.take(run) is None


def test_where_no_thread_can_be_started_nothing_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Readers(2, OSLO) as readers:
        assert readers.count == 0
