"""FileSource: at full speed, followed, paced; without sleeping."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from exporter.sources.capture.file_source import FileSource
from exporter.sources.capture.forms import NotACapture
from exporter.sources.contract import Chunk, Happened, SourceError, SourceEvent

NOW = datetime(2026, 11, 22, 17, 0, 10, tzinfo=UTC)
STAMP = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)
RAW = b"\x7e\xa0\x02\x7e"


def line(data: str, seconds: float = 0) -> str:
    return f"{(STAMP + timedelta(seconds=seconds)).isoformat(timespec='milliseconds')} {data}\n"


class Pauses:
    """Does the next step each time that the source waits, and stops it after the last."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = list(steps)
        self.waits: list[float] = []
        self.time = 0.0

    def __call__(self, stop: threading.Event, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += seconds
        if self.steps:
            self.steps.pop(0)()
        else:
            stop.set()


def run(
    path: Path, pauses: Pauses | None = None, *, follow: bool = False, pace: bool = False
) -> tuple[list[Chunk], list[SourceEvent]]:
    pauses = pauses or Pauses()
    events: list[SourceEvent] = []
    source = FileSource(
        str(path), follow=follow, pace=pace, now=lambda: NOW, monotonic=lambda: pauses.time, pause=pauses
    )
    return list(source.chunks(threading.Event(), events.append)), events


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "meter.hex"


# --- plain


def test_full_speed(path: Path) -> None:
    path.write_text(line("7EA0") + line("02 7E", 1))
    chunks, events = run(path)
    assert chunks == [Chunk(b"\x7e\xa0", STAMP), Chunk(b"\x02\x7e", STAMP + timedelta(seconds=1))]
    assert [event.what for event in events] == [Happened.OPENED]
    assert not FileSource(str(path)).live


def test_raw_bytes_have_no_time(path: Path) -> None:
    path.write_bytes(RAW)
    assert run(path)[0] == [Chunk(RAW, None)]


def test_damaged_lines_are_listed(path: Path) -> None:
    path.write_text(line("7EA0") + line("7"))
    source = FileSource(str(path))
    assert len(list(source.chunks(threading.Event(), lambda event: None))) == 1
    assert [problem.line for problem in source.problems] == [2]
    assert source.damaged == 1


def test_stopping(path: Path) -> None:
    path.write_text(line("7E") * 100)
    stop = threading.Event()
    got = []
    for chunk in FileSource(str(path)).chunks(stop, lambda event: None):
        got.append(chunk)
        stop.set()
    assert len(got) == 1


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"/KFM5KAIFA-METER\r\n\r\n!E47C\r\n", "a P1 telegram"),
    ],
)
def test_another_file_is_named(path: Path, content: bytes, what: str) -> None:
    path.write_bytes(content)
    with pytest.raises(NotACapture) as caught:
        run(path)
    assert what in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_path_that_cannot_be_read_is_named(path: Path) -> None:
    with pytest.raises(SourceError, match=str(path)):
        run(path)
    with pytest.raises(SourceError, match="is a directory"):
        run(path.parent)


def test_urls(path: Path) -> None:
    assert FileSource.from_url(f"file:{path}").path == str(path)
    assert FileSource.from_url(f"file://{path}").path == str(path)
    assert FileSource.from_url("file:a%20b.hex").path == "a b.hex"
    assert FileSource.from_url("file:~/x").path == os.path.expanduser("~/x")  # noqa: PTH111
    assert FileSource.from_url("file:x?follow=1").live
    assert FileSource.from_url("file:x?pace=1").live
    assert not FileSource.from_url("file:x?pace=0&follow=0").live


# --- pace


def test_pace_waits_as_long_as_the_recording_took(path: Path) -> None:
    path.write_text(line("01") + line("02", 10) + line("03", 10.5) + line("04", 3600))
    pauses = Pauses(*[lambda: None] * 3)
    assert [chunk.data for chunk in run(path, pauses, pace=True)[0]] == [b"\x01", b"\x02", b"\x03", b"\x04"]
    assert pauses.waits == [10.0, 0.5, 3589.5]


def test_pace_does_not_wait_when_the_clock_of_the_recorder_was_set_back(path: Path) -> None:
    path.write_text(line("01", 100) + line("02") + line("03", 1))
    pauses = Pauses(lambda: None)
    assert len(run(path, pauses, pace=True)[0]) == 3
    assert pauses.waits == [1.0]


def test_pace_ends_when_stopped(path: Path) -> None:
    path.write_text(line("01") + line("02", 10))
    assert len(run(path, Pauses(), pace=True)[0]) == 1


def test_pace_needs_time_stamps(path: Path) -> None:
    path.write_bytes(RAW)
    with pytest.raises(SourceError, match=r"no time stamps.*pace=1"):
        run(path, pace=True)


# --- follow


def append(path: Path, text: str | bytes) -> Callable[[], object]:
    def step() -> None:
        with path.open("ab") as file:
            file.write(text.encode() if isinstance(text, str) else text)

    return step


def test_follow_yields_what_the_file_has_and_what_is_appended(path: Path) -> None:
    path.write_text(line("01"))
    whole = line("02", 1)
    pauses = Pauses(append(path, whole[:20]), append(path, whole[20:]), lambda: None)
    chunks, _ = run(path, pauses, follow=True)
    assert chunks == [Chunk(b"\x01", STAMP), Chunk(b"\x02", STAMP + timedelta(seconds=1))]


def test_follow_gives_a_time_only_to_what_is_appended(path: Path) -> None:
    path.write_bytes(RAW)
    assert run(path, Pauses(append(path, RAW)), follow=True)[0] == [Chunk(RAW, None), Chunk(RAW, NOW)]


def test_follow_waits_for_a_file_that_does_not_exist(path: Path) -> None:
    pauses = Pauses(lambda: None, lambda: None, append(path, line("01")))
    chunks, events = run(path, pauses, follow=True)
    assert chunks == [Chunk(b"\x01", STAMP)]
    assert [event.what for event in events] == [Happened.MISSING, Happened.OPENED]


def test_follow_waits_for_an_empty_file_to_be_written(path: Path) -> None:
    path.touch()
    assert run(path, Pauses(append(path, RAW)), follow=True)[0] == [Chunk(RAW, NOW)]


def test_follow_survives_truncation(path: Path) -> None:
    path.write_text(line("01") + line("02", 1))
    pauses = Pauses(lambda: path.write_text(line("03", 2)), lambda: None)
    assert [chunk.data for chunk in run(path, pauses, follow=True)[0]] == [b"\x01", b"\x02", b"\x03"]


def test_follow_survives_rotation_and_reads_the_old_file_to_its_end(path: Path) -> None:
    path.write_text(line("01"))
    old = path.with_suffix(".1")

    def renamed() -> None:
        path.rename(old)
        append(old, line("02", 1))()

    def new_one() -> None:
        append(old, line("03", 2).rstrip("\n"))()
        path.write_text(line("04", 3))

    chunks, events = run(path, Pauses(renamed, new_one, lambda: None), follow=True)
    assert [chunk.data for chunk in chunks] == [b"\x01", b"\x02", b"\x03", b"\x04"]
    assert [event.what for event in events] == [Happened.OPENED, Happened.OPENED]


def test_follow_looks_seldom(path: Path) -> None:
    path.write_bytes(RAW)
    pauses = Pauses(*[lambda: None] * 9)
    run(path, pauses, follow=True)
    assert pauses.waits == [0.5] * 10
