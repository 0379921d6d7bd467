"""The benchmarks measure what they say: frames that are what a meter sends, ratios that are told when they fall."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from exporter.protocol.hdlc import Deframer, Frame
from tests.benchmarks import child, frames
from tests.benchmarks.capture import BLOCK_FRAMES, Capture
from tests.benchmarks.figures import Figure, compared, row, written
from tests.benchmarks.paths import blocks, ours, slowly
from tests.support.octets import expected, frames_of

FAST = Figure("fast to slow", 40.0, "x", compared=True)


@pytest.mark.parametrize("case", frames.CASES, ids=lambda case: case.name)
def test_no_two_frames_of_a_case_are_alike_and_all_check(case: frames.Case) -> None:
    meters = 3 if case.named else 1
    made = frames.frames(case, 60, meters)
    heard = Deframer().feed(b"".join(made))
    assert len(made) == 60
    assert all(isinstance(item, Frame) for item in heard)
    # Only a list of power alone, without a clock, may say the same twice.
    assert len(set(made)) >= (60 if "list 1" not in case.name else 40)


def test_the_kamstrup_list_is_the_one_of_the_reference_figures() -> None:
    assert {len(octets) for octets in frames.frames(frames.KAMSTRUP, 10)} == {228}


@pytest.mark.parametrize("name", sorted(expected()))
def test_a_capture_said_again_is_what_was_heard(name: str) -> None:
    octets = frames_of(name)
    heard = [item for item in Deframer().feed(b"".join(octets)) if isinstance(item, Frame)]
    assert [frames.again(item, 0) for item in heard] == octets
    varied = frames.capture_frames(name, 40)
    assert len(set(varied)) > 30
    assert {len(octets) for octets in varied} == {len(octets) for octets in octets}


def test_one_frame_in_a_hundred_is_damaged() -> None:
    whole = frames.frames(frames.KAMSTRUP, 400)
    changed = [octets for octets, before in zip(frames.damaged(whole), whole, strict=True) if octets != before]
    assert len(changed) == 4
    assert frames.damaged(whole) == frames.damaged(whole)


def test_both_ways_give_the_same_lines() -> None:
    octets = b"".join(frames.frames(frames.KAMSTRUP, 50, 5))
    slow, fast = ([line for text in way(blocks(octets)) for line in text.splitlines()] for way in (slowly, ours))
    assert fast == slow
    assert len(slow) == 50 * 10


def test_a_capture_grows_by_frames_that_check_and_its_clock_goes_on(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "raw")
    capture.grow_to(10)
    first = capture.path.read_bytes()
    capture.grow_to(BLOCK_FRAMES + 10)
    octets = capture.path.read_bytes()
    heard = Deframer().feed(octets)
    clocks = [item.content[9:21] for item in heard if isinstance(item, Frame)]
    assert octets.startswith(first)
    assert len(clocks) == len(heard) == BLOCK_FRAMES + 10
    assert [clock[:4] for clock in (clocks[0], clocks[-1])] == [bytes((7, 0xE6, 1, 1)), bytes((7, 0xE6, 1, 3))]
    assert all(one[:4] + one[5:8] <= other[:4] + other[5:8] for one, other in pairwise(clocks))


def test_a_ratio_that_fell_is_told(tmp_path: Path) -> None:
    last = tmp_path / "last.json"
    last.write_text(written([FAST, replace(FAST, name="gone"), Figure("rate", 9e9, "frames/s")]))
    said = list(compared([replace(FAST, value=29.0), Figure("rate", 1.0, "frames/s")], last))
    assert said == [
        "FELL  fast to slow: 40.0 -> 29.0 (-28%)",
        "not measured this time: gone",
        "1 ratios compared, 1 fell by more than 25%",
    ]
    assert list(compared([replace(FAST, value=31.0), replace(FAST, name="gone")], last)) == [
        "2 ratios compared, 0 fell by more than 25%"
    ]


@pytest.mark.parametrize("text", [None, "", "[]", '{"figures": [{}]}'])
def test_nothing_to_compare_with_is_said(tmp_path: Path, text: str | None) -> None:
    last = tmp_path / "last.json"
    if text is not None:
        last.write_text(text)
    (said,) = compared([FAST], last)
    assert "--json" in said


def test_a_row_says_whether_the_aim_was_met() -> None:
    assert " yes" in row(replace(FAST, aim=40.0))
    assert " NO" in row(replace(FAST, aim=30.0, at_most=True))
    assert row(replace(FAST, value=None, aim=30.0, note="not installed")).endswith("not installed")
    assert json.loads(written([replace(FAST, aim=30.0)]))["figures"][0]["met"] is True


def test_the_memory_of_a_command_is_its_own() -> None:
    ballast = b"x" * 100_000_000
    assert child.run([sys.executable, "-c", "print(1)"]).peak_mb < len(ballast) / 2**20 / 2


def test_a_command_that_fails_is_not_measured() -> None:
    with pytest.raises(RuntimeError, match=r"exit code 3: no$"):
        child.run([sys.executable, "-c", "import sys; sys.stderr.write('no'); sys.exit(3)"])
