"""A full disk: the oldest lines are dropped and counted. If that is impossible, it is reported, until there is room."""

from __future__ import annotations

import errno
import os
import re
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exporter.outbox import replace_damaged
from exporter.outbox import rows as stored
from exporter.outbox.disk_reserve import RESERVE, Reserve
from exporter.outbox.memory_queue import MemoryQueue, OrderedOutbox
from exporter.outbox.queue import Outbox, OutboxError
from tests.support.damaged_outbox import assert_whole, damaged, in_memory
from tests.support.rows import rows
from tests.support.small_disk import fill, room, small_disk

EACH = 20


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk() as found:
        yield found


def line(number: int) -> str:
    return f"active_power,direction=import,meter_id=5706567100012345,obis=1-1:1.7.0 value={number} {number}"


def appended(outbox: Outbox, first: int, count: int, also: Path | None = None) -> None:
    for number in range(first, first + count):
        outbox.append(rows([line(number * EACH + place) for place in range(EACH)]), {"last": str(number)})
        if also is not None:
            fill(also)


def assert_newest(outbox: Outbox, count: int, least: int) -> int:
    """Check that the newest of so many appends are there without a gap, and that the dropped ones are counted."""
    status = outbox.status()
    assert outbox.get_state("last") == str(count - 1)
    found: list[str] = []
    while batch := outbox.take(5000, newest=False):
        found += batch.lines
        outbox.delete(batch)
    assert found == [line(number) for number in range(status.dropped_lines, count * EACH)]
    assert least <= status.depth_lines == len(found)
    return status.dropped_lines


def test_a_disk_that_gets_full_costs_the_oldest_lines(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox(disk / "outbox.db")
    appended(outbox, 0, 7000)
    assert outbox.status().size_bytes > 10_000_000, "all of the disk except the reserve was used"
    assert not (disk / "outbox.db.reserve").exists()
    assert "dropped" in caplog.text
    assert assert_newest(outbox, 7000, 80_000)


def test_another_program_that_takes_all_room_costs_the_oldest_lines(disk: Path) -> None:
    outbox = Outbox(disk / "outbox.db")
    appended(outbox, 0, 1000)
    fill(disk)
    appended(outbox, 1000, 50)
    appended(outbox, 1050, 1500, also=disk)
    assert room(disk) == 0
    assert assert_newest(outbox, 2550, 15_000)
    appended(outbox, 2550, 10)
    assert outbox.status().depth_lines == 10 * EACH


def test_started_on_a_full_disk(disk: Path) -> None:
    outbox = Outbox(disk / "outbox.db")
    appended(outbox, 0, 10)
    outbox.close()
    (disk / "outbox.db.lock").unlink()
    fill(disk)
    outbox = Outbox(disk / "outbox.db")
    appended(outbox, 10, 3000)
    assert assert_newest(outbox, 3010, 5000)


def test_room_that_comes_back_is_used(disk: Path) -> None:
    outbox = Outbox(disk / "outbox.db")
    appended(outbox, 0, 600)
    other = fill(disk)
    appended(outbox, 600, 1000)
    dropped = outbox.status().dropped_lines
    assert dropped
    other.unlink()
    appended(outbox, 1600, 1000)
    assert outbox.status().dropped_lines == dropped
    assert (disk / "outbox.db.reserve").stat().st_size == RESERVE
    assert assert_newest(outbox, 2600, 20_000) == dropped


def test_without_room_for_a_reserve_it_is_reported_until_there_is_room(disk: Path) -> None:
    other = fill(disk, leave=6 << 20)
    outbox = Outbox(disk / "outbox.db")
    assert not (disk / "outbox.db.reserve").exists()
    done = 0
    with pytest.raises(OutboxError, match="disk is full"):
        while done < 7000:
            appended(outbox, done, 1)
            done += 1
    assert done > 1000
    other.unlink()
    appended(outbox, done, 500)
    assert assert_newest(outbox, done + 500, 20_000) == 0


def test_a_disk_that_is_too_full_to_start_on_is_reported(disk: Path) -> None:
    fill(disk)
    with pytest.raises(OutboxError, match="disk is full"):
        Outbox(disk / "outbox.db")


def test_damaged_on_a_full_disk_it_recovers_with_what_the_reserve_has(disk: Path) -> None:
    path = damaged(disk)
    assert Reserve(path).ensure()
    fill(disk)
    assert_whole(path)


def test_damaged_on_a_disk_without_any_room_it_recovers_when_there_is_some(disk: Path) -> None:
    path = disk / "outbox.db"
    outbox = Outbox(path)
    appended(outbox, 0, 600)
    (disk / "outbox.db.reserve").unlink()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE tally SET depth = 'many'")
    db.close()
    other = fill(disk)
    for _ in range(2):
        with pytest.raises(OutboxError, match=r"damaged.*disk is full.*tried again"):
            outbox.status()
    other.unlink()
    outbox._file._not_before = 0.0
    appended(outbox, 600, 10)
    assert assert_newest(outbox, 610, 610 * EACH) == 0


@contextmanager
def files_up_to(octets: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("megabytes", [1, 3, 6])
def test_a_limit_to_the_size_of_files_is_as_one_of_the_outbox(megabytes: int) -> None:
    with in_memory() as folder, files_up_to(megabytes << 20):
        outbox = Outbox(folder / "outbox.db")
        appended(outbox, 0, 4000)
        assert outbox.path.stat().st_size <= megabytes << 20
        assert assert_newest(outbox, 4000, megabytes * 8000)


def test_a_limit_that_nothing_fits_into_is_reported_until_it_is_lifted(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    appended(outbox, 0, 100)
    with files_up_to(1):
        for _ in range(3):
            with pytest.raises(OutboxError, match="gives errors"):
                appended(outbox, 100, 1)
        assert outbox.status().depth_lines == 100 * EACH
    appended(outbox, 100, 100)
    assert assert_newest(outbox, 200, 200 * EACH) == 0


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "share of the disk is used up"),
        (errno.EFBIG, "ulimit"),
        (errno.EROFS, "its disk is read-only"),
        (errno.EACCES, "may not write"),
        (errno.EPERM, "may not write"),
        (errno.EIO, "gives errors"),
        (errno.EISDIR, "folder"),
        (errno.ENOTDIR, "not a folder"),
    ],
)
def test_an_error_of_the_system_is_reported_by_kind(
    tmp_path: Path, code: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(replace_damaged, "finish", refused)
    with pytest.raises(OutboxError, match=kind):
        Outbox(tmp_path / "outbox.db")
    monkeypatch.undo()
    Outbox(tmp_path / "outbox.db").close()  # the lock was released


def test_the_lock_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    outbox = Outbox(tmp_path / "outbox.db")
    with pytest.raises(OutboxError, match="another han-exporter"):
        Outbox(tmp_path / "outbox.db")
    outbox.append(rows(["a value=1.0 1"]))


def no_new_file(name: Any, flags: int, *more: Any, real: Any = os.open) -> int:
    if str(name).endswith(".lock") and flags & os.O_CREAT:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    return int(real(name, flags, *more))


def test_without_room_for_its_lock_one_of_two_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "open", no_new_file)
        first = Outbox(tmp_path / "outbox.db", patient=True)
        assert "share of the disk is used up" in first.trouble
        with pytest.raises(OutboxError, match="another han-exporter"):
            Outbox(tmp_path / "outbox.db", patient=True)
    second = Outbox(tmp_path / "outbox.db")  # it finds room before the first one does
    first._file._not_before = 0.0
    with pytest.raises(OutboxError, match="another han-exporter"):
        first.append(rows([line(1)]))
    second.close()
    appended(first, 0, 1)
    assert first.trouble == ""
    with pytest.raises(OutboxError, match="another han-exporter"):
        Outbox(tmp_path / "outbox.db")
    first.close()


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("why", ["full", "read-only"])
def test_the_state_can_be_read_when_the_file_cannot_be_opened(
    disk: Path, killed: bool, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After a kill the newest state is only in the log, which SQLite cannot read without a little room."""
    path = disk / "outbox.db"
    made = Outbox(path)
    made.append([], {"a": "old", "ab": "1"})
    made.append(rows([line(1)]), {"a": "new", "b": "2"})
    if killed:
        kept = {end: Path(f"{path}{end}").read_bytes() for end in ("", "-wal")}
    made.close()
    if killed:
        for end, octets in kept.items():
            Path(f"{path}{end}").write_bytes(octets)
    Path(f"{path}.reserve").unlink()
    other = fill(disk)
    if why == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    memory = MemoryQueue()
    outbox = OrderedOutbox(path, memory, max_bytes=1 << 30)
    if outbox.trouble:
        assert ("read-only" if why == "read-only" else "disk is full") in outbox.trouble
        assert outbox.trouble in caplog.text
    assert outbox.get_state("a") == "new"
    assert outbox.states("a") == {"a": "new", "ab": "1"}
    assert outbox.get_state("c") is None
    with pytest.raises(OutboxError):
        outbox.append(rows([line(2)]), {"c": "3"})
    if why == "read-only":
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    other.unlink()
    outbox._file._not_before = 0.0
    outbox.append(rows([line(2)]), {"c": "3"})
    batch = outbox.take(5, newest=False)
    assert batch is not None
    assert batch.lines == (line(1), line(2))
    assert outbox.states("") == {"a": "new", "ab": "1", "b": "2", "c": "3"}
    outbox.close()


def test_a_wrong_setting_is_an_error_at_once_even_if_patient(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file" / "outbox.db"):
        with pytest.raises(OutboxError, match="folder"):
            Outbox(path, patient=True)


def test_a_quota_is_reported_when_the_file_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(Path, "touch", refused)
    outbox = Outbox(tmp_path / "outbox.db", patient=True)
    assert "share of the disk is used up" in outbox.trouble
    monkeypatch.undo()
    outbox._file._not_before = 0.0
    appended(outbox, 0, 1)
    outbox.close()


@pytest.mark.parametrize("end", ["", ".lock", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("what", ["folder", "link to itself", "link to nothing"])
def test_something_else_with_the_name_of_a_file_is_named(tmp_path: Path, end: str, what: str) -> None:
    path = tmp_path / "outbox.db"
    thing = Path(f"{path}{end}")
    if what == "folder":
        thing.mkdir()
    else:
        thing.symlink_to(thing if what == "link to itself" else tmp_path / "not mounted" / "outbox.db")
    kind = "folder" if thing == path else "not an ordinary file"
    with pytest.raises(OutboxError, match="link" if what != "folder" else kind) as caught:
        Outbox(path, patient=True)
    assert str(thing) in str(caught.value)


@pytest.mark.parametrize("end", ["", "-wal"])
def test_a_file_that_another_user_made_is_named(end: str) -> None:
    """Root may read and write everything, so this runs as another user."""
    with in_memory() as folder:
        path = folder / "outbox.db"
        outbox = Outbox(path)
        outbox.append(rows([line(1)]))
        octets = {one: Path(f"{path}{one}").read_bytes() for one in ("", "-wal")}
        outbox.close()
        for one, whole in octets.items():
            Path(f"{path}{one}").write_bytes(whole)
        folder.chmod(0o777)
        for file in folder.iterdir():
            file.chmod(0o600 if file.name == f"{path.name}{end}" else 0o666)
        code = f"from pathlib import Path; from exporter.outbox.queue import Outbox; Outbox(Path({str(path)!r}))"
        other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", code]
        done = subprocess.run(other, capture_output=True, text=True, check=False)
    if "setpriv: set" in done.stderr or "No module named" in done.stderr:
        pytest.skip("this user may not be another one")
    assert re.search(
        rf"another user.*{re.escape(f'{path}{end}')}|{re.escape(f'{path}{end} ')}.*another user", done.stderr
    )


def test_a_pipe_in_the_place_of_the_reserve_blocks_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "outbox.db.reserve")
    outbox = Outbox(tmp_path / "outbox.db")
    appended(outbox, 0, 1)
    outbox.close()


def test_a_file_on_a_full_disk_does_not_shrink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_KEPT_PAGES", 4)
    outbox = Outbox(tmp_path / "outbox.db")
    appended(outbox, 0, 200)
    pages = outbox._file.read(lambda db: stored.pragma(db, "page_count"))
    outbox._file.read(stored.hold_size)
    monkeypatch.setattr(stored, "_LEAST_PAGES", 1)
    assert_newest(outbox, 200, 4000)
    assert outbox._file.read(lambda db: stored.pragma(db, "page_count")) == pages
