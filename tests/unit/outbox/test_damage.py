"""Damage that SQLite does not find, or reports in its own way. Fuzzing found these cases."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.outbox import checks
from exporter.outbox.queue import Outbox, OutboxError
from exporter.outbox.rows import is_held
from tests.support.rows import rows

LINES = [f"active_power,meter_id=1 value={number}.0 {number}" for number in range(60)]
STATE = {f"key{number:03}": f"{number} " * 60 for number in range(150)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An outbox of twenty rows and some pages of state."""
    path = tmp_path / "outbox.db"
    outbox = Outbox(path)
    for start in range(0, 60, 3):
        outbox.append(rows(LINES[start : start + 3]), STATE if start == 0 else {})
    outbox.close()
    return path


def changed(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA writable_schema = ON")
    for statement in statements:
        db.execute(statement)
    db.close()


def emptied(outbox: Outbox) -> list[str]:
    lines: list[str] = []
    while batch := outbox.take(7, newest=False):
        lines += batch.lines
        outbox.delete(batch)
    return lines


def bytes_at(offset: int, data: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    return damage


def instead(old: bytes, new: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new, 1))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(bytes_at(60, bytes(4)), id="version 0, as of a new file"),
        pytest.param(bytes_at(60, b"\0\0\0\1"), id="version 1, which would be brought up to date"),
        pytest.param(bytes_at(60, b"\0\0\0\2"), id="version 2, which would be brought up to date"),
        pytest.param(bytes_at(60, b"\xff\0\0\0"), id="a version below 0"),
        pytest.param(bytes_at(60, b"\0\1\0\0"), id="an impossible version"),
        pytest.param(bytes_at(60, b"\0\0\0\4"), id="a version that may be one day, with other tables"),
        pytest.param(bytes_at(60, b"\0\0\3\xe7"), id="the highest version that is possible"),
        pytest.param(bytes_at(18, b"\3"), id="a kind of file that SQLite can only read"),
        pytest.param(bytes_at(19, b"\3"), id="a kind of file that SQLite cannot read"),
        pytest.param(bytes_at(44, b"\0\0\0\x4f"), id="a format of schema that SQLite does not know"),
        pytest.param(instead(b"CREATE TABLE chunk", b"CREATE TABLE \xe2hunk"), id="text that is not UTF-8"),
        pytest.param(instead(b"enqueued REAL", b"enqueuee REAL"), id="a column of another name"),
        pytest.param(instead(b"depth + new.lines;", b"depth - new.lines;"), id="a trigger that does something else"),
    ],
)
def test_a_damaged_header_costs_nothing(path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    outbox = Outbox(path)
    assert list(path.parent.glob("*.corrupt-*")), "it is kept under another name"
    assert outbox.states("") == STATE, "also what is on interior pages of its tree"
    assert emptied(outbox) == LINES
    outbox.append(rows(["new value=1.0 1"]))
    assert outbox.status().depth_lines == 1


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM tally",
        "UPDATE tally SET depth = 7",
        "UPDATE tally SET depth = 'many'",
        "UPDATE tally SET rejected_octets = 1 << 40",
        "UPDATE sqlite_sequence SET seq = 9223372036854775807",
        "UPDATE chunk SET id = 9223372036854775807 WHERE id = 20",
    ],
)
def test_wrong_counts_are_corrected(path: Path, statement: str) -> None:
    changed(path, statement)
    outbox = Outbox(path)
    assert outbox.status().depth_lines == 60
    outbox.append(rows(["new value=1.0 1"]))
    assert outbox.status().depth_lines == 61
    assert emptied(outbox) == [*LINES, "new value=1.0 1"]
    assert outbox.status().depth_lines == 0


@pytest.mark.parametrize(
    ("statement", "lost"),
    [
        ("UPDATE chunk SET lines = 'three' WHERE id = 9", 0),
        ("UPDATE chunk SET lines = 40 WHERE id = 9", 0),
        ("UPDATE chunk SET enqueued = x'00' WHERE id = 9", 3),
        ("UPDATE chunk SET crc = 'none' WHERE id = 9", 3),
        ("UPDATE chunk SET body = 5 WHERE id = 9", 3),
    ],
)
@pytest.mark.parametrize("checked", [0, checks.CHECKED_WHOLE])
def test_a_row_with_wrong_columns_costs_only_itself(
    path: Path, statement: str, lost: int, checked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a large file, which is not checked completely when it is opened: then it is found when it is taken."""
    monkeypatch.setattr(checks, "CHECKED_WHOLE", checked)
    changed(path, statement)
    outbox = Outbox(path)
    found = emptied(outbox)
    assert set(found) <= set(LINES)
    assert len(set(found)) == 60 - lost
    assert outbox.status().depth_lines == 0


def test_an_impossible_page_number_is_not_a_full_disk(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite reports a full disk, although the disk has room."""
    outbox = Outbox(path)

    def says_full(_: sqlite3.Connection) -> None:
        raise full

    db = sqlite3.connect(path)
    db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.OperationalError) as caught:
        db.execute("CREATE TABLE large AS SELECT zeroblob(1 << 20)")
    full = caught.value
    db.close()
    assert full.sqlite_errorcode == sqlite3.SQLITE_FULL
    with pytest.raises(sqlite3.OperationalError):
        outbox._file.write(says_full)
    assert not list(path.parent.glob("*.corrupt-*")), "it is sound, so the disk counts as full"
    outbox.close()
    bytes_at(8 * 4096, bytes(4096))(path)
    monkeypatch.setattr(checks, "CHECKED_WHOLE", 0)
    outbox = Outbox(path)
    with pytest.raises(sqlite3.OperationalError):
        outbox._file.write(says_full)
    assert "is damaged" in caplog.text
    assert set(emptied(outbox)) <= set(LINES)
    assert not outbox._file.read(is_held)


def test_when_the_disk_gives_errors_the_state_is_read_as_far_as_possible(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        problem = sqlite3.OperationalError("disk I/O error")
        problem.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        raise problem

    outbox = Outbox(path)
    outbox.append([], {"now": "this"})
    with monkeypatch.context() as disk:
        disk.setattr(outbox._file, "read", broken)
        assert outbox.get_state("now") == "this"
        assert outbox.states("no") == {"now": "this"}
    assert "gives errors" in outbox.trouble
    with pytest.raises(OutboxError, match="gives errors"):
        outbox.append(rows(["a value=1.0 1"]))
    outbox._file._not_before = 0.0
    outbox.append(rows(["a value=1.0 1"]), {"now": "that"})
    assert outbox.get_state("now") == "that"
    assert outbox.trouble == ""
    outbox.close()
