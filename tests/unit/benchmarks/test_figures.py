"""The benchmarks measure what they say: frames as a meter sends them, and ratios that are reported when they fall."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from exporter.model.reading import MeterClock
from exporter.protocol.apdu import decode
from exporter.protocol.hdlc import Deframer, Frame
from exporter.sources.capture.reader import CaptureParser
from tests.benchmarks import child, frames
from tests.benchmarks.capture import BLOCK_FRAMES, Capture
from tests.benchmarks.figures import Figure, compared, row, written
from tests.benchmarks.paths import Way, blocks, derived, derived_slowly, quickly, slowly
from tests.support.octets import expected, frames_of

FAST = Figure("fast to slow", 40.0, "x", compared=True)


def shown(clock: MeterClock) -> datetime:
    fields = (clock.year, clock.month, clock.day, clock.hour, clock.minute, clock.second)
    return datetime(*(field or 0 for field in fields))  # type: ignore[arg-type]  # noqa: DTZ001


@pytest.mark.parametrize("case", frames.CASES, ids=lambda case: case.name)
def test_all_frames_of_a_case_differ_and_are_whole(case: frames.Case) -> None:
    meters = 3 if case.named else 1
    made = frames.frames(case, 60, meters)
    found = Deframer().feed(b"".join(made))
    assert len(made) == 60
    assert all(isinstance(item, Frame) for item in found)
    # Only a list of power alone, without a clock, may be sent twice.
    assert len(set(made)) >= (60 if "list 1" not in case.name else 40)


def test_kamstrup_frames_have_the_size_of_the_quoted_figure() -> None:
    assert {len(frame) for frame in frames.frames(frames.KAMSTRUP, 10)} == {228}


@pytest.mark.parametrize("name", sorted(expected()))
def test_frames_of_a_capture_are_varied_and_keep_their_form(name: str) -> None:
    originals = frames_of(name)
    assert [frames.again(item, 0) for item in frames.parsed(originals)] == originals
    varied = frames.capture_frames(name, 40)
    assert len(set(varied)) > 30
    assert {len(frame) for frame in varied} == {len(frame) for frame in originals}


@pytest.mark.parametrize("every", [timedelta(seconds=10), timedelta(hours=1)])
@pytest.mark.parametrize("name", sorted(expected()))
def test_a_loop_of_one_frame_has_no_frame_twice(name: str, every: timedelta) -> None:
    for original in frames.parsed(frames_of(name)):
        made = frames.unlike(original, every, 100)
        found = frames.parsed(made)
        assert len(set(made)) == len(found) == 100
        moments = [shown(clock) for item in found if (clock := decode(item.content).date_time) is not None]
        assert all(later - earlier == every for earlier, later in pairwise(moments))


def test_one_frame_in_a_hundred_is_damaged() -> None:
    whole = frames.frames(frames.KAMSTRUP, 400)
    changed = [frame for frame, before in zip(frames.damaged(whole), whole, strict=True) if frame != before]
    assert len(changed) == 4
    assert frames.damaged(whole) == frames.damaged(whole)


def test_quick_and_slow_way_give_the_same_lines() -> None:
    def lines(way: Way) -> list[str]:
        data = b"".join(frames.frames(frames.KAMSTRUP, 50, 5))
        return sorted(line for text in way(blocks(data)) for line in text.splitlines())

    assert lines(quickly) == lines(slowly)
    assert lines(derived) == lines(derived_slowly)
    assert len(lines(slowly)) == 50 * 10 < len(lines(derived_slowly))


def test_a_capture_grows_by_whole_frames_whose_clock_advances(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "raw")
    capture.grow_to(10)
    first = capture.path.read_bytes()
    capture.grow_to(BLOCK_FRAMES + 10)
    data = capture.path.read_bytes()
    found = Deframer().feed(data)
    clocks = [item.content[9:21] for item in found if isinstance(item, Frame)]
    assert data.startswith(first)
    assert len(clocks) == len(found) == BLOCK_FRAMES + 10
    assert [clock[:4] for clock in (clocks[0], clocks[-1])] == [bytes((7, 0xE6, 1, 1)), bytes((7, 0xE6, 1, 3))]
    assert all(one[:4] + one[5:8] <= other[:4] + other[5:8] for one, other in pairwise(clocks))


def test_time_stamped_hex_has_the_frames_of_raw_bytes_with_the_time_of_each(tmp_path: Path) -> None:
    raw, stamped = Capture(tmp_path / "raw"), Capture(tmp_path / "hex", stamped=True)
    for capture in (raw, stamped):
        capture.grow_to(500)
    parser = CaptureParser()
    chunks = [*parser.feed(stamped.path.read_bytes()), *parser.end()]
    assert b"".join(chunk.data for chunk in chunks) == raw.path.read_bytes()
    assert len(chunks) == 500
    assert not parser.damaged
    times = [chunk.received for chunk in chunks if chunk.received is not None]
    assert len(times) == 500
    assert all(timedelta(0) < later - earlier < timedelta(seconds=11) for earlier, later in pairwise(times))


def test_a_ratio_that_fell_is_reported(tmp_path: Path) -> None:
    last = tmp_path / "last.json"
    last.write_text(written([FAST, replace(FAST, name="gone"), Figure("rate", 9e9, "frames/s")]))
    fell, missing, sums = compared([replace(FAST, value=29.0), Figure("rate", 1.0, "frames/s")], last)
    assert FAST.name in fell
    assert re.findall(r"-?[\d.]+", fell) == ["40.0", "29.0", "-28"]
    assert missing.endswith(" gone")
    assert re.findall(r"\d+", sums) == ["1", "1", "25"]
    (sums,) = compared([replace(FAST, value=31.0), replace(FAST, name="gone")], last)
    assert re.findall(r"\d+", sums) == ["2", "0", "25"]


@pytest.mark.parametrize("text", [None, "", "[]", '{"figures": [{}]}'])
def test_a_file_that_cannot_be_compared_is_reported(tmp_path: Path, text: str | None) -> None:
    last = tmp_path / "last.json"
    if text is not None:
        last.write_text(text)
    (line,) = compared([FAST], last)
    assert "--json" in line


def test_a_row_says_whether_the_aim_is_met() -> None:
    assert " yes" in row(replace(FAST, aim=40.0))
    assert " NO" in row(replace(FAST, aim=30.0, at_most=True))
    assert row(replace(FAST, value=None, aim=30.0, note="not installed")).endswith("not installed")
    assert json.loads(written([replace(FAST, aim=30.0)]))["figures"][0]["met"] is True


def test_the_memory_of_a_command_does_not_include_that_of_its_parent() -> None:
    ballast = b"x" * 100_000_000
    assert child.run([sys.executable, "-c", "print(1)"]).peak_mb < len(ballast) / 2**20 / 2


@pytest.mark.parametrize("terminal", [False, True])
def test_a_command_that_fails_is_not_measured(terminal: bool) -> None:
    with pytest.raises(RuntimeError, match=r"exit code 3: no$"):
        child.run([sys.executable, "-c", "import sys; sys.stderr.write('no'); sys.exit(3)"], terminal=terminal)


@pytest.mark.parametrize("terminal", [False, True])
def test_standard_error_of_a_command_is_a_terminal_if_asked_for(terminal: bool) -> None:
    code = f"import sys; sys.exit(sys.stderr.isatty() != {terminal})"
    child.run([sys.executable, "-c", code], terminal=terminal)
