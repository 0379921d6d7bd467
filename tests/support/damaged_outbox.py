"""A damaged outbox that has everything that can be in one, and what must be in it in the end."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from exporter.model.point import replaced_key
from exporter.outbox.queue import Outbox
from exporter.outbox.salvage import SALVAGED_NOTE
from tests.support.rows import rows

LINES = [
    f"{name},meter_id=1 value={number}.0 {number * 3_600_000}"
    for number, name in enumerate(["active_power", "day_energy", "active_power"] * 20)
]
REJECTED = [f'current,meter_id=1 value="{number}" {number}' for number in range(3)]
WORDS = "field type conflict"
STATE = {f"key{number:02}": f"{number} " * 30 for number in range(40)} | {"long": "x" * 9000}


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder in memory if possible: opening an outbox syncs, which is slow on a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


def damaged(folder: Path) -> Path:
    """An outbox as a power cut leaves it, partly in its log only, with wrong counts."""
    made = folder / "made"
    made.mkdir()
    outbox = Outbox(made / "outbox.db")
    outbox.append(rows(REJECTED))
    batch = outbox.take(3, newest=False)
    assert batch is not None
    outbox.delete(batch, refused=dict.fromkeys(range(3), WORDS))
    for start in range(0, 60, 3):
        outbox.append(rows(LINES[start : start + 3]), STATE if start == 0 else {})
        if start == 30:
            with sqlite3.connect(outbox.path) as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            other.close()
    with sqlite3.connect(outbox.path) as other:
        other.execute("UPDATE tally SET depth = 7")
    other.close()
    path = folder / "outbox.db"
    for end in ("", "-wal"):
        shutil.copy(f"{outbox.path}{end}", f"{path}{end}")
    outbox.close()
    shutil.rmtree(made)
    return path


def assert_whole(path: Path, *, more: Sequence[str] = (), times: int = 1, emptied: bool = False) -> None:
    """Check that everything is there, in order and once, that so many damaged files are kept, and no other file."""
    outbox = Outbox(path)
    assert outbox.states("") == STATE
    assert [one.line for one in outbox.refused()] == REJECTED[::-1]
    assert {one.message for one in outbox.refused()} == {f"{WORDS} {SALVAGED_NOTE}"}
    found: list[str] = []
    keys: list[str] = []
    assert outbox.status().depth_lines == len(LINES) + len(more)
    if emptied:
        while batch := outbox.take(7, newest=False):
            found += batch.lines
            keys += batch.keys
            outbox.delete(batch)
    else:
        every = outbox.take(10_000, newest=False)
        assert every is not None
        found += every.lines
        keys += every.keys
    assert found == [*LINES, *more]
    assert keys == [replaced_key(line) for line in found]
    outbox.append([], {"long": STATE["long"]})
    outbox.close()
    names = sorted(file.name for file in path.parent.glob(f"{path.name}*"))
    kept = [name for name in names if ".corrupt-" in name and not name.endswith("-wal")]
    assert len(kept) == times, names
    rest = {name for name in names if ".corrupt-" not in name}
    assert rest <= {path.name, f"{path.name}.lock", f"{path.name}.reserve"}, names
    again = Outbox(path)
    assert again.status().depth_lines == (0 if emptied else len(LINES) + len(more)), "the log of another file was used"
    again.close()
