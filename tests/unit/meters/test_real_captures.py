"""Every frame that owners of meters published decodes to what it says, value for value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tests.support import real_captures
from tests.support.expected_rows import Row, row_of_frame, rows_of_stream, said
from tests.support.made_captures import MADE
from tests.support.octets import crc_x25, obis

pytestmark = real_captures.needed


@pytest.mark.parametrize("name", real_captures.names())
def test_every_frame_says_what_is_expected(name: str) -> None:
    rows, frames = real_captures.expected()[name], real_captures.frames_of(name)
    assert len(frames) == len(rows) > 0
    for n, (data, row) in enumerate(zip(frames, rows, strict=True)):
        assert row_of_frame(data) == said(row), n


@pytest.mark.parametrize("name", real_captures.names())
def test_the_crc_of_the_tests_is_that_of_meters(name: str) -> None:
    for data in real_captures.frames_of(name):
        assert crc_x25(data[1:-3]) == data[-3:-1]


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_all_in_one_stream(size: int) -> None:
    stream = b"".join(data for name in real_captures.names() for data in real_captures.frames_of(name))
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    wanted = [said(row) for name in real_captures.names() for row in real_captures.expected()[name]]
    assert rows_of_stream(pieces) == wanted


@pytest.mark.parametrize("name", sorted(MADE))
def test_ours_have_the_same_form(name: str) -> None:
    """As many frames, each as long and with the same keys; no id and no clock of theirs is among ours."""
    real, ours = real_captures.expected()[name], [made.row for made in MADE[name].frames]
    assert list(map(len, real_captures.frames_of(name))) == [len(made.frame) for made in MADE[name].frames]
    assert [list(row) for row in real] == [list(row) for row in ours]
    for key in ("meter_id", "clock_utc"):
        assert {row[key] for row in real if key in row}.isdisjoint(row[key] for row in ours if key in row)


def test_the_list_whose_owner_hid_the_id() -> None:
    """Any id can stand there. What the list says is looked up by hand: each number comes after its code and a tag."""
    data = real_captures.list_with_hidden_id("5706567000000000")

    def sent(code: str, size: int) -> int:
        at = data.index(obis(code)) + len(obis(code)) + 1
        return int.from_bytes(data[at : at + size], "big")

    year, (month, day, _, hour, minute, second) = int.from_bytes(data[17:19], "big"), data[19:25]
    shown = datetime(year, month, day, hour, minute, second, tzinfo=timezone(timedelta(hours=1)))
    row: Row = {
        "maker": "Kamstrup",
        "meter_id": "5706567000000000",
        "meter_type": data[data.index(b"684") :][:18].decode(),
        "clock_utc": shown.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    for c, key in enumerate(("active_{}_import", "active_{}_export", "reactive_{}_import", "reactive_{}_export"), 1):
        row[key.format("power")] = sent(f"1-1:{c}.7.0", 4)
    for n in (1, 2, 3):
        row[f"current_l{n}"] = sent(f"1-1:{20 * n + 11}.7.0", 4) / 100
        row[f"voltage_l{n}"] = sent(f"1-1:{20 * n + 12}.7.0", 2)
    assert row_of_frame(data) == row
