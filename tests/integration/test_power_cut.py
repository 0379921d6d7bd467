"""The guarantee of the outbox: after append has returned, a power cut at any later moment loses nothing."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pytest

from exporter.outbox import replace_damaged
from exporter.outbox.queue import Outbox
from tests.support.damaged_outbox import assert_whole, damaged, in_memory
from tests.support.power_cut import Op, Recorder, images, lay
from tests.support.rows import rows

SEED = 20261122


@dataclass
class Story:
    """What was done with an outbox: how many operations of the disk had been done when each append returned."""

    returned: list[tuple[int, int]] = field(default_factory=list)
    """(operations done, number of the append), in order."""
    begun: list[int] = field(default_factory=list)
    """How many operations had been done when each append began."""
    gone: set[int] = field(default_factory=set)
    """Appends whose lines were sent: they may be there or not."""


def lines_of(number: int, count: int) -> list[str]:
    return [f"active_power,meter_id=M{number % 3},obis=1-0:1.7.0 value={number}.0 {number}{k:04}" for k in range(count)]


def number_of(line: str) -> int:
    return int(line.split("value=")[1].split(".", maxsplit=1)[0])


def live(path: Path, recorder: Recorder, story: Story, dice: random.Random) -> None:
    """Some hours of an outbox: small and large appends, batches that are deleted, refused lines, a restart."""
    outbox = Outbox(path)
    for number in range(1, 61):
        count = dice.choice([1, 12, 12, 12, 40, 2500])
        story.begun.append(len(recorder.ops))
        outbox.append(rows(lines_of(number, count)), {"last": str(number), f"hour:{number % 5}": str(number)})
        story.returned.append((len(recorder.ops), number))
        if number % 7 == 0:
            batch = outbox.take(30, newest=bool(number % 2))
            assert batch is not None
            story.gone |= {number_of(line) for line in batch.lines}
            outbox.delete(batch, refused={0: "no"} if number % 14 == 0 else None)
        if number == 40:
            outbox.close()
            outbox = Outbox(path)
    outbox.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    with in_memory() as found:
        yield found


@pytest.fixture(scope="module")
def recorded() -> Iterator[tuple[Recorder, Story]]:
    try:
        recorder = Recorder()
    except OSError as error:
        pytest.skip(f"cannot look at what SQLite writes: {error}")
    story = Story()
    sync_folder = replace_damaged.sync_folder

    def noted(folder: Path) -> None:
        sync_folder(folder)
        recorder.folder_synced()

    with in_memory() as disk, recorder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(replace_damaged, "sync_folder", noted)
        live(disk / "outbox.db", recorder, story, random.Random(SEED))
    yield recorder, story


def found_in(path: Path) -> tuple[dict[int, int], int]:
    """Open an outbox: append's number -> how many of its lines are there, and the state's number."""
    outbox = Outbox(path)
    try:
        counts: dict[int, int] = {}
        state = int(outbox.get_state("last") or 0)
        while (batch := outbox.take(5000, newest=False)) is not None:
            for line in batch.lines:
                counts[number_of(line)] = counts.get(number_of(line), 0) + 1
            outbox.delete(batch)
        return counts, state
    finally:
        outbox.close()


EVERY = int(os.environ.get("HAN_TEST_EVERY_CUT_IN", "10"))
"""1 tries every cut, each with none, some and all of what was not synced; that takes some minutes."""


@pytest.mark.parametrize(("every", "step"), [(40, 5), pytest.param(EVERY, 1, marks=pytest.mark.rare)])
def test_a_power_cut_at_any_write_loses_nothing_that_append_returned_for(
    recorded: tuple[Recorder, Story], folder: Path, every: int, step: int
) -> None:
    recorder, story = recorded
    checked = appends_checked = 0
    for done, kind, files in islice(images(recorder.ops, random.Random(SEED + 1), every), 0, None, step):
        if not files:
            continue
        lay(files, folder)
        counts, state = found_in(folder / "outbox.db")
        assert not list(folder.glob("*.corrupt-*")), f"cut after {done} operations ({kind}): treated as damaged"
        safe = [number for at, number in story.returned if at <= done]
        begun = sum(at < done for at in story.begun)
        missing = [number for number in safe if number not in counts and number not in story.gone]
        assert not missing, f"cut after {done} operations ({kind} of the rest): {missing} are missing"
        assert max(counts, default=0) <= begun
        assert max(safe, default=0) <= state <= begun, f"cut after {done} ({kind}): state {state}"
        if state and state not in story.gone:
            assert state in counts, "state and lines are one transaction"
        checked += 1
        appends_checked += len(safe)
        for file in folder.iterdir():
            file.unlink()
    print(f"{len(recorder.ops)} operations, {checked} cuts, {appends_checked} appends looked for, 0 missing")
    assert checked > 100 / step


def test_a_power_cut_while_a_damaged_outbox_is_replaced_loses_and_doubles_nothing(folder: Path) -> None:
    try:
        recorder = Recorder()
    except OSError as error:
        pytest.skip(f"cannot look at what SQLite writes: {error}")
    path = damaged(folder)
    for file in folder.iterdir():
        recorder.ops += [Op("write", str(file), 0, file.read_bytes()), Op("sync", str(file))]
    begun = len(recorder.ops)
    rename, sync_folder = Path.rename, replace_damaged.sync_folder

    def renamed(self: Path, target: Path | str) -> Path:
        new = rename(self, target)
        recorder.ops.append(Op("rename", str(self), to=str(target)))
        return new

    def noted(folder: Path) -> None:
        sync_folder(folder)
        recorder.folder_synced()

    with recorder, pytest.MonkeyPatch.context() as patch, closing(sqlite3.connect(path)) as other:
        other.execute("SELECT depth FROM tally").fetchone()  # so that its log is still there to be renamed
        patch.setattr(Path, "rename", renamed)
        patch.setattr(replace_damaged, "sync_folder", noted)
        Outbox(path).close()
    assert [op.what for op in recorder.ops].count("rename") == 3
    found: set[tuple[str, ...]] = set()
    checked = 0
    for done, _, files in images(recorder.ops, random.Random(SEED), min(EVERY, 4)):
        if done < begun:
            continue
        for file in folder.iterdir():
            file.unlink()
        lay(files, folder)
        found.add(tuple(sorted(name.name.split("T")[0] for name in folder.iterdir())))
        assert_whole(path)
        checked += 1
    print(f"{len(recorder.ops) - begun} operations, {checked} cuts, {len(found)} states of the names, 0 lines missing")
    assert checked > 20
    assert len(found) >= 5
