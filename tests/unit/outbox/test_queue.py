"""The durable queue: what append guarantees, order, limits, damage."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from exporter.counted import counted
from exporter.model.point import replaced_key
from exporter.outbox import checks
from exporter.outbox import rows as stored
from exporter.outbox.batch import Batch
from exporter.outbox.queue import DAMAGED_ROW, ROW_LINES, Outbox, OutboxError, OutboxLockedError
from tests.support.old_outbox import made_old
from tests.support.patience import HANG_S
from tests.support.rows import rows


def line(number: int) -> str:
    return f"active_power,meter_id=1 value={number} {1700000000000 + number}"


def lines(start: int, end: int) -> list[str]:
    return [line(number) for number in range(start, end)]


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "outbox.db"


def taken(outbox: Outbox, count: int = 5000, *, newest: bool = False) -> Batch:
    batch = outbox.take(count, newest=newest)
    assert batch is not None
    return batch


def test_lines_and_state_come_back_after_reopening(path: Path) -> None:
    clock = Clock()
    outbox = Outbox(path, clock=clock)
    outbox.append(rows(lines(0, 3)), {"last_id/usb": "570", "rule": "civil time"})
    clock.now += 10
    outbox.append(rows(lines(3, 5)), {"rule": None})
    outbox.close()

    outbox = Outbox(path, clock=clock)
    batch = taken(outbox)
    assert batch.lines == tuple(lines(0, 5))
    assert (batch.oldest, batch.newest) == (clock.now - 10, clock.now)
    assert not batch.out_of_order
    assert outbox.get_state("last_id/usb") == "570"
    assert outbox.get_state("rule") is None
    assert outbox.status().depth_lines == 5
    assert outbox.status().oldest_age_s == 10


def test_no_other_user_may_read_it(path: Path) -> None:
    outbox = Outbox(path)
    outbox.append(rows(["a value=1 1"]))
    modes = {file.name: file.stat().st_mode & 0o077 for file in path.parent.glob(f"{path.name}*")}
    assert {name for name, mode in modes.items() if mode} <= {f"{path.name}.lock"}
    assert len(modes) >= 3, "its log too"
    outbox.close()


def test_states_by_prefix(path: Path) -> None:
    outbox = Outbox(path)
    outbox.append([], {"hour/2": "b", "hour/1": "a", "hourly": "x", "day/1": "c", "hour/%_": "d"})
    assert outbox.states("hour/") == {"hour/%_": "d", "hour/1": "a", "hour/2": "b"}
    assert outbox.states("none") == {}


def test_deleted_lines_are_gone_and_only_they(path: Path) -> None:
    outbox = Outbox(path)
    outbox.append(rows(lines(0, 2)))
    batch = taken(outbox)
    outbox.append(rows(lines(2, 4)))
    outbox.delete(batch)
    outbox.delete(batch)  # twice does no harm
    assert taken(outbox).lines == tuple(lines(2, 4))
    assert outbox.status().depth_lines == 2
    outbox.delete(taken(outbox))
    assert outbox.take(10, newest=False) is None
    assert outbox.status().oldest_age_s is None


def test_newest_and_oldest_rows_in_their_order(path: Path) -> None:
    outbox = Outbox(path)
    for start in range(0, 10, 2):
        outbox.append(rows(lines(start, start + 2)))
    newest = taken(outbox, 5, newest=True)
    assert newest.lines == tuple(lines(6, 10))
    assert newest.out_of_order
    assert taken(outbox, 5).lines == tuple(lines(0, 4))
    assert not taken(outbox, 100, newest=True).out_of_order
    assert taken(outbox, 1).lines == tuple(lines(0, 2))  # a row is never torn


def test_a_row_emptied_at_the_new_end_is_not_taken_for_a_later_one(path: Path) -> None:
    outbox = Outbox(path)
    outbox.append(rows(lines(0, 1)))
    stale = taken(outbox, newest=True)
    outbox.delete(stale)
    outbox.append(rows(lines(1, 2)))
    outbox.delete(stale)
    assert taken(outbox).lines == (line(1),)


def test_kept_lines_are_sent_again_in_order_and_not_as_newest(path: Path) -> None:
    outbox = Outbox(path)
    outbox.append(rows([line(0), "day_energy,m=1 value=1 0"]))
    outbox.append(rows([line(1), "day_energy,m=1 value=2 0", line(2)]))
    batch = taken(outbox, 3, newest=True)
    assert batch.out_of_order
    outbox.delete(batch, keep=[1])
    assert taken(outbox, newest=True).lines == (line(0), "day_energy,m=1 value=1 0")
    assert taken(outbox).lines == (line(0), "day_energy,m=1 value=1 0", "day_energy,m=1 value=2 0")
    assert outbox.status().depth_lines == 3


def test_a_long_append_is_cut_into_rows(path: Path) -> None:
    outbox = Outbox(path)
    outbox.append(rows(lines(0, 2 * ROW_LINES + 5)))
    assert len(taken(outbox, ROW_LINES).lines) == ROW_LINES
    assert taken(outbox, 10 * ROW_LINES).lines == tuple(lines(0, 2 * ROW_LINES + 5))


def test_refused_lines_are_kept_with_the_message_and_can_be_sent_again(path: Path) -> None:
    clock = Clock()
    outbox = Outbox(path, clock=clock)
    outbox.append(rows(lines(0, 4)))
    outbox.delete(taken(outbox), refused={1: "field type conflict", 3: "æøå"})
    status = outbox.status()
    assert (status.depth_lines, status.rejected_lines) == (0, 2)
    last, first = outbox.refused()
    assert (first.line, first.message, first.at) == (line(1), "field type conflict", clock.now)
    assert last.message == "æøå"
    assert outbox.refused(1) == [last]
    assert outbox.retry_unkeyed([(first.id, first.id), (999, 999)]) == 1
    assert taken(outbox).lines == (line(1),)
    assert outbox.retry_unkeyed([(1, 999)]) == 1
    assert outbox.status().rejected_lines == 0
    assert outbox.status().depth_lines == 2


def test_a_full_outbox_drops_and_counts_the_oldest_lines(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox(path, max_bytes=400_000)
    for start in range(0, 20_000, 100):
        outbox.append(rows(lines(start, start + 100)), {"n": str(start)})
    status = outbox.status()
    assert status.dropped_lines > 10_000
    assert status.dropped_lines + status.depth_lines == 20_000
    assert taken(outbox, newest=True).lines[-1] == line(19_999)
    assert taken(outbox).lines[0] == line(status.dropped_lines)
    assert path.stat().st_size <= 400_000
    assert caplog.text.count("were dropped") == 1
    assert "HAN_OUTBOX_MAX" in caplog.text
    outbox.close()
    assert Outbox(path).status().dropped_lines == status.dropped_lines


def test_refused_lines_cannot_fill_the_outbox(path: Path) -> None:
    outbox = Outbox(path, max_bytes=400_000)
    for start in range(0, 20_000, 500):
        outbox.append(rows(lines(start, start + 500)))
        batch = taken(outbox)
        outbox.delete(batch, refused=dict.fromkeys(range(len(batch.lines)), "unable to parse"))
    status = outbox.status()
    assert 100 < status.rejected_lines < 1000
    assert status.rejected_lines + status.dropped_lines == 20_000
    assert outbox.refused(1)[0].line == line(19_999)


def test_the_file_shrinks_after_a_backlog(path: Path) -> None:
    outbox = Outbox(path)
    for start in range(0, 200_000, 5000):
        outbox.append(rows(lines(start, start + 5000)))
    full = path.stat().st_size
    while batch := outbox.take(5000, newest=False):
        outbox.delete(batch)
    outbox.close()
    assert full > 10_000_000
    assert path.stat().st_size < full * 0.6


def test_the_log_beside_the_file_stays_small(path: Path) -> None:
    outbox = Outbox(path)
    for start in range(600):
        outbox.append(rows(lines(start, start + 1)))
    assert Path(f"{path}-wal").stat().st_size < 3_000_000


def fill_the_disk(outbox: Outbox, spare_pages: int) -> None:
    """Let SQLite find the disk full after a few more pages, as ENOSPC would."""

    def limit(db: sqlite3.Connection) -> None:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + spare_pages}")

    outbox._file._reserve.release()
    outbox._file.read(limit)


def test_a_full_disk_drops_the_oldest(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_LEAST_PAGES", 1)
    outbox = Outbox(path)
    for start in range(0, 5000, 100):
        outbox.append(rows(lines(start, start + 100)))
    fill_the_disk(outbox, 2)
    for start in range(5000, 6000, 100):
        outbox.append(rows(lines(start, start + 100)), {"at": str(start)})
    status = outbox.status()
    assert 0 < status.dropped_lines < 3000
    assert status.dropped_lines + status.depth_lines == 6000
    assert taken(outbox, newest=True).lines[-1] == line(5999)
    assert outbox.get_state("at") == "5900"


def test_a_full_disk_with_nothing_to_drop_is_an_error_that_keeps_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_LEAST_PAGES", 1)
    outbox = Outbox(path)
    outbox.append([], {"at": "before"})
    fill_the_disk(outbox, 2)
    with pytest.raises(OutboxError, match="disk is full"):
        outbox.append(rows(lines(0, 5000)), {"at": "after"})
    assert outbox.take(1, newest=False) is None
    assert outbox.get_state("at") == "before"
    outbox.append(rows(lines(0, 1)))  # and it goes on with what fits
    assert outbox.status().depth_lines == 1


def test_a_second_process_is_refused_and_may_read(path: Path) -> None:
    outbox = Outbox(path)
    outbox.append(rows(lines(0, 7)), {"k": "v"})
    with pytest.raises(OutboxLockedError, match=rf"process {os.getpid()}\b"):
        Outbox(path)
    view = Outbox(path, read_only=True)
    assert view.status().depth_lines == 7
    assert view.get_state("k") == "v"
    with pytest.raises(OutboxError):
        view.append(rows(lines(0, 1)))
    outbox.append(rows(lines(7, 8)))
    assert view.status().depth_lines == 8
    view.close()
    outbox.close()
    assert Outbox(path, read_only=True).status().depth_lines == 8
    Outbox(path).close()


def test_reading_an_outbox_that_does_not_exist_makes_none(path: Path) -> None:
    with pytest.raises(OutboxError, match="does not exist"):
        Outbox(path, read_only=True)
    assert not path.parent.exists()


def test_an_impossible_path_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "outbox.db", tmp_path / "file" / "folder" / "outbox.db"):
        with pytest.raises(OutboxError, match="not a folder"):
            Outbox(path)
    with pytest.raises(OutboxError, match="it is a folder"):
        Outbox(tmp_path)
    with pytest.raises(OutboxError, match="too long"):
        Outbox(tmp_path / ("x" * 300))
    with pytest.raises(OutboxError, match="is closed"):
        closed = Outbox(tmp_path / "outbox.db")
        closed.close()
        closed.append(rows(lines(0, 1)))


@pytest.mark.parametrize(
    ("damage", "least", "most"), [("garbage", 0, 0), ("head", 3000, 3000), ("middle", 0, 0), ("cut", 1000, 1600)]
)
def test_a_damaged_file_is_kept_and_what_can_be_read_out_of_it_is_in_the_new_one(
    path: Path, damage: str, least: int, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(path)
    for start in range(0, 3000, 100):
        outbox.append(rows(lines(start, start + 100)), {"registers:M": "x" * 9000, "last": str(start)})
    outbox.close()
    data = bytearray(path.read_bytes())
    if damage == "garbage":
        data[:] = os.urandom(5000)
    elif damage == "head":
        data[0:100] = bytes(100)
    elif damage == "middle":
        data[4096:] = os.urandom(len(data) - 4096)
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)

    outbox = Outbox(path, clock=Clock())
    depth = outbox.status().depth_lines
    assert least <= depth <= most
    if damage == "head":
        assert (outbox.get_state("registers:M"), outbox.get_state("last")) == ("x" * 9000, "2900")
    outbox.append(rows(lines(5000, 5001)))
    saved = [line for batch in drained(outbox) for line in batch.lines]
    assert saved[-1:] == lines(5000, 5001), "new lines come after what was saved"
    assert saved[:-1] == only(saved, lines(0, 3000)), "in order, and each once"
    assert f"{counted(depth, 'line')} could be read" in caplog.text
    kept = path.with_name("outbox.db.corrupt-20231114T221320Z")
    assert kept.read_bytes()[-100:] == data[-100:]
    assert str(kept) in caplog.text


def only(there: list[str], of: list[str]) -> list[str]:
    known = set(there)
    return [line for line in of if line in known]


def drained(outbox: Outbox) -> Iterator[Batch]:
    while (batch := outbox.take(5000, newest=False)) is not None:
        outbox.delete(batch)
        yield batch


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("checked", [0, checks.CHECKED_WHOLE])
def test_damaged_pages_cost_only_the_rows_on_them(
    path: Path, seed: int, checked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random bytes in the place of whole pages, in the file and in its log.

    A large file is not checked completely when it is opened: there they are found when they are read.
    """
    monkeypatch.setattr(checks, "CHECKED_WHOLE", checked)
    dice = random.Random(seed)
    outbox = Outbox(path)
    sizes = [dice.choice([1, 12, 12, 40, 1000]) for _ in range(120)]
    ends = [sum(sizes[:place]) for place in range(len(sizes) + 1)]
    for start, end in pairwise(ends):
        outbox.append(rows(lines(start, end)), {f"key:{start % 7}": str(start)})
    for part in path.parent.glob("outbox.db*"):  # as a power cut leaves it: the log is still there
        shutil.copy(part, path.with_name(part.name.replace("outbox", "copy")))
    outbox.close()
    copy = path.with_name("copy.db")
    holes = 0
    for name, first, page in (("copy.db", 0, 4096), ("copy.db-wal", 32, 4120)):
        data = bytearray(copy.with_name(name).read_bytes())
        for at in range(first, len(data), page):
            if dice.random() < 0.02:
                data[at : at + page] = dice.randbytes(len(data[at : at + page]))
                holes += 1
        copy.with_name(name).write_bytes(data)
    there = [line for batch in drained(Outbox(copy)) for line in batch.lines]
    assert there == only(there, lines(0, ends[-1])), "nothing wrong, nothing twice, in order"
    known = set(there)
    whole = sum(line(start) in known for start in ends[:-1])
    assert whole >= len(sizes) - 7 * holes, f"{whole} of {len(sizes)} rows are left after {holes} holes"


VERSIONS = ["a,m=1 value=1 1", "day_energy,m=1 value=1 0", "b,m=1 value=1 1", "day_energy,m=2 value=1 0"]
KEYS = ("", "day_energy,m=1 0", "", "day_energy,m=2 0")


def with_keys(path: Path) -> Path:
    """A closed outbox in which lines with keys wait and were refused, several of each kind in a row."""
    outbox = Outbox(path)
    outbox.append(rows(VERSIONS))
    outbox.delete(taken(outbox), refused=dict.fromkeys(range(4), "field type conflict"))
    for start in range(0, 200, 10):
        outbox.append(rows(lines(start, start + 10)), {"last": "1"})
    outbox.append(rows(VERSIONS))
    outbox.append(rows(VERSIONS[1::2]))
    outbox.close()
    return path


def assert_keys(outbox: Outbox) -> None:
    batch = taken(outbox)
    assert batch.lines == (*lines(0, 200), *VERSIONS, *VERSIONS[1::2])
    assert batch.keys == (*[""] * 200, *KEYS, *KEYS[1::2])
    assert outbox.states("") == {"last": "1"}
    assert outbox.retry_keyed([(1, 99)]) == (0, 2)
    assert [one.line for one in outbox.refused()] == VERSIONS[::-1]
    outbox.delete(batch)
    assert [one.line for one in outbox.refused()] == [VERSIONS[2], VERSIONS[0]]


def test_keys_come_back_after_reopening(path: Path) -> None:
    assert_keys(Outbox(with_keys(path)))


@pytest.mark.parametrize("version", [1, 2])
def test_an_outbox_of_an_older_version_keeps_everything(path: Path, version: int) -> None:
    made_old(with_keys(path), version)
    view = Outbox(path, read_only=True)
    assert view.status().depth_lines == 206
    assert len(view.refused()) == 4
    view.close()
    with pytest.raises(OutboxError, match="older han-exporter"):
        Outbox(path)
    for _ in range(2):
        outbox = Outbox(path, key_of=replaced_key)
        assert (outbox.status().depth_lines, outbox.status().rejected_lines) == (206, 4)
        outbox.append([], {"last": "2"})
        outbox.append([], {"last": "1"})
        outbox.close()
    assert_keys(Outbox(path))
    assert not list(path.parent.glob("*.corrupt-*"))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_out_of_a_damaged_file_of_any_version_keys_are_read_or_made(path: Path, version: int) -> None:
    with_keys(path)
    if version < 3:
        made_old(path, version)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE tally SET depth = 7")
        if version == 1:
            db.execute("PRAGMA user_version = 0")
    db.close()
    outbox = Outbox(path, key_of=replaced_key)
    assert list(path.parent.glob("*.corrupt-*"))
    if version == 1:  # its state has no checksum
        outbox.append([], {"last": "1"})
    assert_keys(outbox)


def test_a_damaged_row_in_an_older_file_is_found_when_it_is_sent(path: Path) -> None:
    made_old(with_keys(path), 2)
    data = path.read_bytes()
    assert data.count(b"value=7 ") == 1
    path.write_bytes(data.replace(b"value=7 ", b"value=8 "))
    outbox = Outbox(path, key_of=replaced_key)
    assert taken(outbox).lines == (*lines(10, 200), *VERSIONS, *VERSIONS[1::2])
    assert outbox.status().rejected_lines == 14
    outbox.close()


@pytest.mark.parametrize("keys", [b"\nday_energy,m=1 3600000\n\nday_energy,m=2 0", b"", None])
def test_the_checksum_covers_the_keys(path: Path, keys: bytes | None) -> None:
    with_keys(path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE chunk SET keys = ? WHERE lines = 4", (keys,))
    db.close()
    outbox = Outbox(path)
    assert taken(outbox).lines == (*lines(0, 200), *VERSIONS[1::2])
    assert outbox.status().rejected_lines == 8
    assert {one.message for one in outbox.refused(4)} == {DAMAGED_ROW}


def test_kept_lines_keep_their_keys(path: Path) -> None:
    outbox = Outbox(path)
    outbox.append(rows(VERSIONS))
    outbox.delete(taken(outbox), keep=[0, 3])
    assert (taken(outbox).lines, taken(outbox).keys) == ((VERSIONS[0], VERSIONS[3]), (KEYS[0], KEYS[3]))
    assert outbox.remove_lines(lambda line: line.startswith("a"), "m=1") == (1, 0)
    assert (taken(outbox).lines, taken(outbox).keys) == ((VERSIONS[3],), (KEYS[3],))


def test_a_damaged_value_is_not_used(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox(path)
    outbox.append([], {"registers:M": "12345678", "other": "1"})
    outbox.close()
    data = path.read_bytes()
    assert data.count(b"12345678") == 1
    path.write_bytes(data.replace(b"12345678", b"12345679"))
    outbox = Outbox(path)
    assert outbox.get_state("registers:M") is None
    assert outbox.states("") == {"other": "1"}
    assert "damaged" in caplog.text
    assert "'registers:M'" in caplog.text


def test_damage_that_is_found_later_is_repaired_too(path: Path) -> None:
    outbox = Outbox(path)
    for start in range(0, 100_000, 1000):
        outbox.append(rows(lines(start, start + 1000)))
    outbox.close()
    outbox = Outbox(path)
    before = taken(outbox)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    while (batch := outbox.take(5000, newest=False)) and batch.generation == 0:
        outbox.delete(batch)
    outbox.append(rows(lines(0, 3)))
    outbox.delete(before)  # rows of the old file: they are not the new one's
    assert taken(outbox).lines == tuple(lines(0, 3))
    assert list(path.parent.glob("outbox.db.corrupt-*"))


def test_a_flipped_bit_does_not_become_a_wrong_value(path: Path) -> None:
    outbox = Outbox(path)
    outbox.append(rows(lines(0, 2)))
    outbox.append(rows(lines(2, 4)))
    outbox.close()
    data = path.read_bytes()
    assert data.count(b"value=2 ") == 1
    path.write_bytes(data.replace(b"value=2 ", b"value=3 "))
    outbox = Outbox(path)
    assert taken(outbox).lines == tuple(lines(0, 2))
    assert [one.line[-15:] for one in outbox.refused()] == [
        line(3)[-15:],
        line(2).replace("value=2", "value=3")[-15:],
    ]
    assert "damaged" in outbox.refused()[0].message
    assert outbox.status().depth_lines == 2


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE more (key TEXT)",
        "ALTER TABLE rejected ADD COLUMN crc INTEGER",
        "DROP TRIGGER chunk_less",
        "PRAGMA writable_schema = 1; UPDATE sqlite_master SET sql = 'CREATE MARVEL state' WHERE name = 'state'",
    ],
)
def test_a_newer_file_is_left_alone(path: Path, change: str) -> None:
    Outbox(path).close()
    with sqlite3.connect(path) as db:
        db.executescript(f"{change}; PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(OutboxError, match="newer han-exporter"):
        Outbox(path)
    assert not list(path.parent.glob("*corrupt*"))
    assert path.read_bytes() == before


def test_wait_ends_with_an_append_and_with_wake(path: Path) -> None:
    outbox = Outbox(path)
    assert outbox.wait(0)  # lines may wait from the last time
    assert not outbox.wait(0)
    outbox.append(rows(lines(0, 1)))
    assert outbox.wait(0)  # also if it came before the wait
    outbox.append([], {"only": "state"})
    assert not outbox.wait(0)
    for append in (True, False):
        woken: list[bool] = []
        thread = threading.Thread(target=lambda: woken.append(outbox.wait(2 * HANG_S)))  # noqa: B023
        thread.start()
        if append:
            outbox.append(rows(lines(1, 2)))
        else:
            outbox.wake()
        thread.join(HANG_S)
        assert woken == [True]


def test_threads_share_one_outbox(path: Path) -> None:
    outbox = Outbox(path)

    def work(start: int) -> None:
        for number in range(start, start + 50):
            outbox.append(rows([line(number)]), {f"k/{start}": str(number)})

    threads = [threading.Thread(target=work, args=(1000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    got: set[str] = set()
    while any(thread.is_alive() for thread in threads) or outbox.status().depth_lines:
        if batch := outbox.take(20, newest=len(got) % 2 == 0):
            got.update(batch.lines)
            outbox.delete(batch)
    assert got == {line(1000 * start + number) for start in range(4) for number in range(50)}
    assert outbox.states("k/") == {f"k/{1000 * start}": str(1000 * start + 49) for start in range(4)}


KILLED = """
import sys
from pathlib import Path
from exporter.outbox.queue import Outbox
outbox = Outbox(Path(sys.argv[1]))
number = 0
while True:
    outbox.append([(f"a value={number} {number}\\nb value={number} {number}".encode(), "")], {"number": str(number)})
    print(number, flush=True)
    number += 1
"""


def test_kill_9_leaves_whole_transactions_only(path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = -1
    for text in process.stdout:
        printed = int(text)
        if printed == 40:
            process.send_signal(signal.SIGKILL)
            break
    printed = int((process.stdout.read().split() or [str(printed)])[-1])
    process.wait()
    process.stdout.close()
    outbox = Outbox(path)
    kept = int(outbox.get_state("number") or -1)
    assert kept in (printed, printed + 1)
    expected = [f"{name} value={number} {number}" for number in range(kept + 1) for name in "ab"]
    assert list(taken(outbox).lines) == expected
