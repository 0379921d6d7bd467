"""Captures in their three forms, and files that are not captures."""

from __future__ import annotations

import io
import os
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from exporter.sources.capture.forms import Form, NotACapture, identify, name_content
from exporter.sources.capture.reader import CaptureParser, CaptureWriter, Problem, read_capture
from exporter.sources.contract import Chunk, SourceError
from tests.support.octets import expected, frames_of

FRAME = frames_of("kaifa-3phase-norway")[0]  # a list 1
HEX = FRAME.hex().upper()
STAMP = "2026-11-22T17:00:10.123Z"
WHEN = datetime(2026, 11, 22, 17, 0, 10, 123000, UTC)


def read(content: bytes) -> tuple[bytes, list[Chunk], list[Problem]]:
    reader = read_capture(io.BytesIO(content))
    chunks = list(reader)
    return b"".join(chunk.data for chunk in chunks), chunks, reader.problems


# --- the three forms


def test_raw_bytes_are_not_changed() -> None:
    assert identify(FRAME) is Form.RAW
    assert read(FRAME * 3000) == (FRAME * 3000, *read(FRAME * 3000)[1:])
    assert all(chunk.received is None for chunk in read(FRAME)[1])


@pytest.mark.parametrize(
    "text",
    [
        HEX,
        HEX.lower() + "\n",
        "# a meter\n\n" + HEX + "   # list 1\n",
        " ".join(HEX[i : i + 2] for i in range(0, len(HEX), 2)),
        " ".join(HEX),
        "\r\n".join(HEX[i : i + 16] for i in range(0, len(HEX), 16)),
        "\t" + HEX[:40] + " \n" + HEX[40:] + "\n",
        ", ".join("0x" + HEX[i : i + 2] for i in range(0, len(HEX), 2)),
        ":".join(HEX[i : i + 2] for i in range(0, len(HEX), 2)),
        "-".join(HEX[i : i + 2] for i in range(0, len(HEX), 2)) + ",\n",
        "\ufeff" + HEX,
    ],
)
def test_hex_text(text: str) -> None:
    data, chunks, problems = read(text.encode())
    assert (data, problems) == (FRAME, [])
    assert all(chunk.received is None for chunk in chunks)
    assert identify(text.encode()) is Form.HEX


@pytest.mark.parametrize(
    "stamp",
    [
        STAMP,
        "2026-11-22T17:00:10.123+00:00",
        "2026-11-22T18:00:10.123+01:00",
        "2026-11-22T17:00:10.123000Z",
    ],
)
def test_stamped_hex(stamp: str) -> None:
    assert read(f"{stamp} {HEX}\n".encode()) == (FRAME, [Chunk(FRAME, WHEN)], [])


def test_stamps_need_no_fraction_and_become_utc() -> None:
    chunk = read(f"2026-11-22T18:00:10+01:00  {HEX}  # comment\r\n".encode())[1][0]
    assert chunk.received == WHEN.replace(microsecond=0)
    assert chunk.received.tzinfo is UTC


def test_a_stamp_after_many_comments_decides_the_form() -> None:
    content = b"# nothing yet\n" * 10_000 + f"{STAMP} {HEX}\n".encode()
    assert read(content)[1] == [Chunk(FRAME, WHEN)]


@pytest.mark.parametrize("form", [FRAME * 4, f"{HEX}\n# c\n{HEX}\n".encode(), f"{STAMP} {HEX}\n{STAMP} {HEX}".encode()])
def test_any_slicing_of_the_file_gives_the_same(form: bytes) -> None:
    whole, chunks, _ = read(form)
    for size in (1, 2, 3, 7, 50):
        parser = CaptureParser()
        got = [c for i in range(0, len(form), size) for c in parser.feed(form[i : i + size])] + parser.end()
        assert b"".join(c.data for c in got) == whole
        if chunks[0].received is not None:
            assert got == chunks


# --- damage


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (f"{STAMP} {HEX[:-1]}", "odd number"),
        (f"{STAMP} 7EXX", "'7EXX'"),
        (STAMP, "without bytes"),
        (STAMP[:9], "not a time stamp"),
        (f"2026-13-22T17:00:10Z {HEX}", "not a time stamp"),
        (f"2026-11-22T17:00:10 {HEX}", "time zone"),
        (f"0001-01-01T00:00:00+23:00 {HEX}", "not a time stamp"),
        (f"9999-12-31T23:30:00Z {HEX}", "no reading"),
        (f"1969-12-31T23:59:59Z {HEX}", "no reading"),
        (HEX, "not a time stamp"),
        ("\x1b[31m rubbish", "\\x1b"),
    ],
)
def test_only_the_damaged_line_is_lost(line: str, part: str) -> None:
    good = f"{STAMP} {HEX}\n"
    data, chunks, problems = read((good + line + "\n" + good).encode())
    assert chunks == [Chunk(FRAME, WHEN)] * 2
    assert data == FRAME * 2
    assert [problem.line for problem in problems] == [2]
    assert part in str(problems[0])
    assert str(problems[0]).startswith("line 2: ")
    assert "\x1b" not in str(problems[0])


def test_only_the_damaged_line_of_hex_text_is_lost() -> None:
    data, _, problems = read(f"{HEX}\n{HEX[:-1]}\n{HEX}\nXX XX\n{HEX}".encode())
    assert data == FRAME * 3
    assert [problem.line for problem in problems] == [2, 4]


@pytest.mark.parametrize("damage", [b"\x00" * 500, b"\xff\xfe\x01", b"\xc3"])
def test_bytes_that_are_not_text_damage_only_their_line(damage: bytes) -> None:
    good = f"{STAMP} {HEX}\n".encode()
    for at in (0, 10, 40, len(good) - 1):
        data, chunks, problems = read(good * 3 + good[:at] + damage + good[at:] + good)
        assert (data, len(chunks), [problem.line for problem in problems]) == (FRAME * 4, 4, [4])
    hex_text = (HEX + "\n").encode()
    data, _, problems = read(hex_text * 90 + damage + hex_text * 9)
    assert (data, [problem.line for problem in problems]) == (FRAME * 98, [91])


def test_line_numbers_go_on_over_blocks() -> None:
    lines = [HEX] * 5000
    lines[4321] = "no hex"
    assert [problem.line for problem in read("\n".join(lines).encode())[2]] == [4322]


def test_all_problems_are_counted_and_a_hundred_kept() -> None:
    reader = read_capture(io.BytesIO((f"{STAMP} {HEX}\n" + f"{STAMP} 7\n" * 5000).encode()))
    assert len(list(reader)) == 1
    assert reader.damaged == 5000
    assert len(reader.problems) == 100


def test_an_address_is_not_read_as_bytes() -> None:
    assert "addresses" in name_content(b"00000000: 7ea0 2701 0201 105a 87e6 e700  ~.'....Z....\n")
    assert isinstance(identify(b"00000000: 7ea0 2701 0201\n"), NotACapture)
    assert isinstance(identify(b"00000000  7e a0 27 01 02 01  |~.'...|\n"), NotACapture)
    assert isinstance(identify(b"0000000 7e a0 27 01\n0000004 02 01\n"), NotACapture)


def test_line_numbers_are_right_for_any_slicing() -> None:
    content = f"# a\n\n\n{STAMP} {HEX}\n\n\n{STAMP} 7\n".encode()
    for size in (1, 2, 5, 1000):
        parser = CaptureParser()
        for i in range(0, len(content), size):
            parser.feed(content[i : i + size])
        parser.end()
        assert [problem.line for problem in parser.problems] == [7]


# --- size


class Repeated(io.RawIOBase):
    """The same bytes again and again, up to a size, without storing them."""

    def __init__(self, unit: bytes, total: int) -> None:
        self._page = unit * (70_000 // len(unit) + 1)
        self._unit = len(unit)
        self._at = 0
        self._total = total

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        size = min(size, self._total - self._at)
        start = self._at % self._unit
        self._at += size
        return self._page[start : start + size]


@pytest.mark.parametrize("unit", [FRAME, HEX.encode() + b"\n", HEX.encode(), f"{STAMP} {HEX}\n".encode(), b"7EA0 "])
def test_memory_does_not_grow(unit: bytes) -> None:
    tracemalloc.start()
    try:
        count = sum(
            len(c.data) for c in read_capture(cast(BinaryIO, Repeated(unit, len(unit) * (8_000_000 // len(unit)))))
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count > 1_000_000
    assert peak < 7_000_000


def test_hex_without_line_ends_loses_nothing() -> None:
    text = (HEX * 40_000).encode()
    assert len(text) > 3 << 20
    assert read(text)[0] == FRAME * 40_000


def test_only_an_endless_line_of_other_text_is_lost() -> None:
    text = f"{STAMP} {HEX}\n".encode() + b"x" * (3 << 20) + b"\n\n" + f"{STAMP} {HEX}\n".encode()
    data, _, problems = read(text)
    assert data == FRAME * 2
    assert [problem.line for problem in problems] == [2]
    assert [p.line for p in read(text + b"7\n")[2]] == [2, 5]


# --- not a capture


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "a PNG picture"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG picture"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "gunzip"),
        (b"PK\x03\x04\x14\x00", "ZIP"),
        (b"\x7fELF\x02\x01\x01\x00", "a program"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
        (b'{"a": 1}\n', "JSON"),
        (b"<?xml version='1.0'?>", "XML"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"Dear meter,\nhow are you?\n", "'Dear meter,'"),
        ("blåbærsyltetøy\n".encode(), "text"),
        ("7EA0".encode("utf-16"), "UTF-16"),
        (b"/KFM5KAIFA-METER\r\n\r\n1-3:0.2.8(42)\r\n1-0:1.8.0(001.1*kWh)\r\n!E47C\r\n", "a P1 telegram"),
        (b"1.8.0(001.1*kWh)\r\n1-0:1.7.0(01.19*kW)\r\n!E47C\r\n", "a P1 telegram"),
        (bytes.fromhex("1b1b1b1b01010101760512"), "SML"),
        (bytes.fromhex("68fafa6853ff000167db08"), "M-Bus"),
        (b"# only a comment\n\n", "only blanks and comments"),
    ],
)
def test_other_files_are_named(head: bytes, what: str) -> None:
    found = identify(head)
    assert isinstance(found, NotACapture)
    assert what in found.what
    with pytest.raises(NotACapture, match=None) as caught:
        list(read_capture(io.BytesIO(head)))
    assert caught.value.what == found.what


def test_bytes_without_a_flag_are_raw() -> None:
    assert identify(b"\x00\x01\x02\xf0") is Form.RAW
    assert name_content(b"\x00\x01\x02\xf0") == Form.RAW.value


def test_bytes_of_a_meter_are_raw_wherever_they_begin() -> None:
    for name in expected():
        data = b"".join(frames_of(name))
        for cut in range(len(data) - 60):
            assert identify(data[cut:]) is Form.RAW


def test_a_capture_is_recognised_wherever_it_is_cut() -> None:
    for cut in range(2, len(FRAME)):
        assert identify(FRAME[:cut]) is Form.RAW
    for cut in range(1, len(HEX)):
        assert identify(HEX[:cut].encode()) is Form.HEX
    assert identify(b"~") is Form.RAW


# --- writing


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "x.hex"


def test_what_was_written_can_be_read(path: Path) -> None:
    chunks = [Chunk(bytes([i]) * (i + 1), WHEN + timedelta(milliseconds=i)) for i in range(200)]
    with CaptureWriter(path) as writer:
        for chunk in chunks:
            writer.append(chunk)
    assert list(read_capture(path.open("rb"))) == chunks
    assert (writer.lines, writer.size) == (200, sum(range(1, 201)))
    assert path.read_text().splitlines()[0] == "2026-11-22T17:00:10.123Z 00"


def test_appending_keeps_the_content(path: Path) -> None:
    for _ in range(3):
        with CaptureWriter(path) as writer:
            writer.append(Chunk(FRAME, WHEN))
    assert path.read_text() == f"{STAMP} {HEX}\n" * 3


def test_after_a_kill_in_the_middle_of_a_line_nothing_else_is_lost(path: Path) -> None:
    line = f"{STAMP} {HEX}\n"
    for cut in range(1, len(line)):
        path.write_text(line + line[:cut])
        with CaptureWriter(path) as writer:
            writer.append(Chunk(FRAME, WHEN))
        data, chunks, problems = read(path.read_bytes())
        assert chunks[0] == chunks[-1] == Chunk(FRAME, WHEN)
        assert len(chunks) + len(problems) == 3
        assert data.startswith(FRAME) and data.endswith(FRAME)


def test_a_file_that_is_only_a_half_line_is_still_appended_to(path: Path) -> None:
    path.write_text("2026-11")
    with CaptureWriter(path) as writer:
        writer.append(Chunk(FRAME, WHEN))
    assert read(path.read_bytes())[1] == [Chunk(FRAME, WHEN)]


@pytest.mark.parametrize("content", [FRAME, HEX.encode(), b"\x89PNG\r\n\x1a\n", b"Dear diary,\n"])
def test_nothing_is_appended_to_another_kind_of_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(SourceError, match="another file"):
        CaptureWriter(path)
    assert path.read_bytes() == content


def test_the_file_is_synced_at_most_once_a_second_and_at_the_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, synced = [0.0], []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(now[0]))
    with CaptureWriter(path, monotonic=lambda: now[0]) as writer:
        for tenth in range(35):
            now[0] = tenth / 10
            writer.append(Chunk(b"\x7e", WHEN))
    assert synced == [1.0, 2.0, 3.0, 3.4]


def test_a_full_disk_is_an_error_and_the_next_line_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with CaptureWriter(path) as writer:
        monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:20]))
        with pytest.raises(OSError, match="No space left"):
            writer.append(Chunk(FRAME, WHEN))
        monkeypatch.setattr(os, "write", real)
        writer.append(Chunk(FRAME, WHEN))
    assert read(path.read_bytes())[1] == [Chunk(FRAME, WHEN)]


def test_a_chunk_without_a_time_is_refused(path: Path) -> None:
    with CaptureWriter(path) as writer, pytest.raises(ValueError, match="without a time"):
        writer.append(Chunk(b"\x7e", None))


def test_hex_text_may_have_a_line_end_within_a_byte() -> None:
    digits = (FRAME * 3).hex()
    for width in (33, 7, 32):
        folded = "\n".join(digits[i : i + width] for i in range(0, len(digits), width)) + "\n"
        reader = read_capture(io.BytesIO(folded.encode()))
        assert b"".join(chunk.data for chunk in reader) == FRAME * 3
        assert reader.damaged == 0


def test_a_wrong_digit_in_a_line_of_many_frames_damages_one_of_them() -> None:
    digits = FRAME.hex()
    line = f"{digits}{digits[:20]}XX{digits[22:]}{digits}\n"
    reader = read_capture(io.BytesIO(line.encode()))
    data = b"".join(chunk.data for chunk in reader)
    assert data == FRAME + FRAME[:10] + FRAME[11:] + FRAME
    (problem,) = reader.problems
    assert (problem.line, problem.used) == (1, True)
    assert digits[:40] in str(problem)


def test_a_damaged_line_of_one_frame_is_left_out() -> None:
    line = f"{FRAME.hex()[:20]}XX{FRAME.hex()[22:]}\n"
    reader = read_capture(io.BytesIO(line.encode() + FRAME.hex().encode()))
    assert b"".join(chunk.data for chunk in reader) == FRAME
    assert [problem.used for problem in reader.problems] == [False]
