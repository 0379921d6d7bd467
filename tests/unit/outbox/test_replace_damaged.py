"""A damaged outbox is replaced by a new one: interrupted after any step, nothing is lost and nothing doubled."""

from __future__ import annotations

import ast
import errno
import logging
import os
import random
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from exporter.outbox import replace_damaged
from exporter.outbox.queue import DAMAGED_ROW, Outbox, OutboxError
from exporter.outbox.salvage import SALVAGED_NOTE
from tests.support.damaged_outbox import LINES, REJECTED, STATE, WORDS, assert_whole, damaged, in_memory
from tests.support.rows import rows

WATCHED = {"replace_damaged.py", "file.py"}
Place = tuple[str, int]


@pytest.fixture
def folder() -> Iterator[Path]:
    with in_memory() as found:
        yield found


@pytest.fixture
def path(folder: Path) -> Path:
    """A damaged outbox with a log, as a power cut leaves it."""
    return damaged(folder)


def interrupted(path: Path, at: Place | int) -> set[Place]:
    """Open the outbox in a process that is killed at a place, or after so many places; return the places it passed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        seen: dict[Place, None] = {}

        def trace(frame: FrameType, _event: str, _: Any) -> Any:
            place = (Path(frame.f_code.co_filename).name, frame.f_lineno)
            if place[0] not in WATCHED:
                return None
            seen[place] = None
            if at in (place, len(seen)):
                os._exit(9)
            return trace

        logging.disable()
        with suppress(sqlite3.Error):  # another connection, so that there is a log to be renamed
            other = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)
            other.execute("SELECT depth FROM tally").fetchone()
        sys.settrace(trace)
        Outbox(path)
        sys.settrace(None)
        os.write(writing, repr(sorted(seen)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (0 if text else 9)
    return set(ast.literal_eval(text)) if text else set()


def copied(path: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, folder)
    return folder / path.name


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.rare)])
def test_killed_at_any_line_it_is_complete_in_the_end(path: Path, folder: Path, every: int) -> None:
    places = interrupted(copied(path, folder / "counted"), ("", 0))
    steps = {place for place in places if place[0] == "replace_damaged.py"}
    assert len(steps) > 50
    states = set()
    for place in sorted(places)[::every]:
        tried = copied(path, folder / "tried")
        assert not interrupted(tried, place)
        states.add(tuple(sorted(file.name.split("T")[0] for file in tried.parent.iterdir())))
        assert_whole(tried)
    assert len(states) >= (6 if every == 1 else 3), "it was killed in every state of the files"


@pytest.mark.parametrize("times", [5, pytest.param(25, marks=pytest.mark.rare)])
def test_killed_again_and_again_it_is_complete_in_the_end(path: Path, folder: Path, times: int) -> None:
    dice = random.Random(6)
    for _ in range(times):
        tried = copied(path, folder / "tried")
        for _ in range(4):
            interrupted(tried, dice.randint(60, 200))
        assert_whole(tried)


def test_a_kept_file_is_not_read_again(path: Path) -> None:
    assert_whole(path, emptied=True)
    outbox = Outbox(path)
    assert (outbox.status().depth_lines, outbox.status().rejected_lines) == (0, len(REJECTED))


def test_refused_lines_are_saved_and_marked(path: Path) -> None:
    outbox = Outbox(path)
    assert outbox.drop_refused([(1, 1)]) == 1
    found = {one.line: one.message for one in outbox.refused()}
    assert found == dict.fromkeys(REJECTED[1:], f"{WORDS} {SALVAGED_NOTE}")
    outbox.close()
    for _ in range(2):  # the message does not get longer with every damage
        with sqlite3.connect(path) as db:
            db.execute("UPDATE tally SET depth = 7")
            db.execute("UPDATE rejected SET words = ? WHERE id = 2", (DAMAGED_ROW,))
        db.close()
        outbox = Outbox(path)
        assert [one.message for one in outbox.refused()] == [f"{WORDS} {SALVAGED_NOTE}", DAMAGED_ROW]
        assert [one.line for one in outbox.refused()] == [REJECTED[2], REJECTED[1]]
        outbox.close()


@pytest.mark.parametrize(
    "change",
    ["line = x'ff00'", "words = x'c328'", "line = 'a b' || char(10) || 'c d'", "line = ''", "at = 9e999"],
)
def test_what_cannot_be_a_refused_line_is_left_out(path: Path, change: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute(f"UPDATE rejected SET {change} WHERE id = 2")
    db.close()
    outbox = Outbox(path)
    assert [one.line for one in outbox.refused()] == [REJECTED[2], REJECTED[0]]


def test_deleted_rows_do_not_come_back_from_free_pages(folder: Path) -> None:
    path = folder / "outbox.db"
    outbox = Outbox(path)
    for number in range(200):
        outbox.append(rows([f"gone,n={number} value=1.0 {number}"] * 40))
    outbox.append(rows(LINES), STATE)
    while (batch := outbox.take(40, newest=False)) and batch.lines[0].startswith("gone"):
        outbox.delete(batch)
    outbox.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA freelist_count").fetchone()[0] > 50
        db.execute("UPDATE tally SET depth = 7")
    db.close()
    outbox = Outbox(path)
    assert outbox.status().depth_lines == len(LINES)
    assert outbox.states("") == STATE


def test_a_clock_that_is_years_late_does_not_change_the_order(path: Path) -> None:
    for now in (1.9e9, 60.0, 0.0, -1e9, 3e9):
        outbox = Outbox(path, clock=lambda now=now: now)  # type: ignore[misc]
        found = [outbox.take(3, newest=newest) for newest in (False, True)]
        assert [batch.lines for batch in found if batch] == [tuple(LINES[:3]), tuple(LINES[-3:])]
        every = outbox.take(10_000, newest=False)
        assert every is not None
        assert every.lines == tuple(LINES)
        assert [row for row, _ in every.rows] == list(range(2, 22)), "as they were numbered first"
        outbox.close()
        with sqlite3.connect(path) as db:
            db.execute("UPDATE tally SET depth = 7")
        db.close()


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_damaged_while_the_disk_is_full_it_recovers_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(replace_damaged, "_build", no_room)
        with pytest.raises(OutboxError, match=r"damaged.*disk is full.*tried again"):
            Outbox(path)
    assert not list(path.parent.glob("*.corrupt*")) + list(path.parent.glob("*.salvage"))
    assert_whole(path)

    outbox = Outbox(path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE tally SET depth = 'many'")
    db.close()
    message = r"damaged.*disk is full.*tried again"
    with monkeypatch.context() as full:
        full.setattr(replace_damaged, "_build", no_room)
        for attempt in (outbox.status, lambda: outbox.append(rows(["new value=1.0 1"])), outbox.status):
            outbox._file._not_before = 0.0
            with pytest.raises(OutboxError, match=message):
                attempt()
    with pytest.raises(OutboxError, match=message):
        outbox.append(rows(["new value=1.0 1"]))  # it is not tried again so soon: to read a large file takes its time
    outbox._file._not_before = 0.0
    outbox.append(rows(["new value=1.0 1"]))
    assert outbox.status().depth_lines == len(LINES) + 1
    outbox.close()
    with pytest.raises(OutboxError, match="is closed"):
        outbox.status()


@pytest.mark.parametrize("step", ["the file", "its log", "the new one"])
def test_a_step_that_fails_is_done_with_the_next_use(path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE tally SET depth = 'many'")
    keep = sqlite3.connect(path)  # so that there is a log
    keep.execute("SELECT * FROM tally").fetchall()
    rename = Path.rename
    names = {"the file": path.name, "its log": f"{path.name}-wal", "the new one": f"{path.name}.salvage"}

    def refused(self: Path, target: Path | str) -> Path:
        if self.name == names[step]:
            no_room()
        return rename(self, target)

    with monkeypatch.context() as full:
        full.setattr(Path, "rename", refused)
        with pytest.raises(OutboxError, match="disk is full"):
            outbox.status()
    db.close()
    keep.close()
    outbox._file._not_before = 0.0
    outbox.append(rows(["new value=1.0 1"]))
    assert outbox.status().depth_lines == len(LINES) + 1
    outbox.close()
    assert_whole(path, more=["new value=1.0 1"], times=2)


def test_something_unforeseen_in_a_damaged_file_does_not_stop_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise sqlite3.IntegrityError("this was not foreseen")

    monkeypatch.setattr(replace_damaged, "_fill", broken)
    assert Outbox(path).status().depth_lines == 0
    assert "(this was not foreseen)" in caplog.text


@pytest.mark.parametrize("what", ["whole", "cut", "rubbish"])
def test_a_salvage_that_stands_alone_is_taken_for_what_can_be_read_out_of_it(
    folder: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, salvage = folder / "outbox.db", folder / "outbox.db.salvage"
    outbox = Outbox(path)
    for number in range(400):
        outbox.append(rows([f"power,n={number} value=1.0 {number}"] * 20), {"a": str(number)})
    outbox.close()
    path.rename(salvage)
    if what == "cut":
        os.truncate(salvage, salvage.stat().st_size * 2 // 3)
    elif what == "rubbish":
        salvage.write_bytes(random.Random(1).randbytes(30_000))
    outbox = Outbox(path)
    there = outbox.status().depth_lines
    assert there == 8000 if what == "whole" else there >= {"cut": 4000, "rubbish": 0}[what]
    outbox.append(rows(["new value=1.0 1"]))
    outbox.close()
    assert "outbox.db.salvage" in caplog.text
    named = {Path(one).name for one in re.findall(r"kept as (\S+)", caplog.text)}
    assert named == {one.name for one in folder.glob("*.corrupt-*")}
    assert len(named) == (what != "whole")
    assert not salvage.exists()


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_folder_or_an_empty_file_is_no_finished_salvage(folder: Path, is_folder: bool) -> None:
    path, salvage = folder / "outbox", folder / "outbox.salvage"
    if is_folder:
        salvage.mkdir()
    else:
        salvage.touch()
    assert replace_damaged.finish(path) is None
    assert not path.exists()
    assert salvage.is_dir() == is_folder
