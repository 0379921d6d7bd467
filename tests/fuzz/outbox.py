"""Any damage to an outbox file: it can be opened, gives nothing that was not appended, and works.

An input is a list of damages to an outbox that is made once. Each has nine bytes: what is done, where, how long, and
for some what is written. The first byte of the input has flags: with or without a log, with or without a complete check
when the file is opened, and whether `check` reads it first.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exporter.model.point import replaced_key
from exporter.outbox import checks
from exporter.outbox.queue import Outbox, OutboxError
from tests.support.rows import rows

_FOLDER: Final = tempfile.TemporaryDirectory(
    prefix="han-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None, ignore_cleanup_errors=True
)
FOLDER: Final = Path(_FOLDER.name)
_DAMAGE: Final = 9
_WITH_LOG, _UNCHECKED, _READ_ONLY = 1, 2, 4
seen: Final[Counter[str]] = Counter()
"""How often the file was replaced, and how often it was used as it was."""


@dataclass(frozen=True)
class Made:
    """The undamaged files, and everything that was ever stored in them."""

    folder: Path
    lines: frozenset[str]
    states: dict[str, frozenset[str]]


def _line(number: int, place: int) -> str:
    name = "active_power" if place else "day_energy"
    return f"{name},direction=import,meter_id=570656710001{place % 7},obis=1-1:1.7.0 value={number}.0 {place}"


def make(folder: Path) -> Made:
    """Make two outboxes with the same content: `home` was closed, `log` is as a power cut leaves it."""
    chance = random.Random(1)
    lines: set[str] = set()
    states: dict[str, set[str]] = {}
    made = folder / "made"
    made.mkdir(exist_ok=True)
    outbox = Outbox(made / "outbox.sqlite")
    for number in range(60):
        some = [_line(number, place) for place in range(chance.choice([1, 5, 12, 40]))]
        if number == 30:
            some = [_line(number, place) for place in range(400)]
        state = {f"running:import:{number % 9}": f"{number} {number * 7}", "last_id:tty": f"57065{number}"}
        state |= {"hours": ",".join(map(str, range(number * 20)))} if number % 13 == 0 else {}
        outbox.append(rows(some), state)
        lines |= set(some)
        for key, value in state.items():
            states.setdefault(key, set()).add(value)
        if number % 9 == 5:
            batch = outbox.take(60, newest=number % 2 == 0)
            assert batch is not None
            outbox.delete(batch, refused={0: "field type conflict"}, keep=[1])
        if number == 45:
            with sqlite3.connect(made / "outbox.sqlite") as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            other.close()
    for end in ("", "-wal"):
        shutil.copy(made / f"outbox.sqlite{end}", folder / f"log.sqlite{end}")
    outbox.close()
    shutil.copy(made / "outbox.sqlite", folder / "home.sqlite")
    return Made(folder, frozenset(lines), {key: frozenset(values) for key, values in states.items()})


MADE: Final = make(FOLDER)
_FILES: Final = {file.name: file.read_bytes() for file in FOLDER.glob("*.sqlite*")}


def run(damage: bytes) -> None:
    """Damage one and use it."""
    flags = damage[0] if damage else 0
    home = FOLDER / "tried"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    path = home / "outbox.sqlite"
    kind = "log" if flags & _WITH_LOG else "home"
    names = [name for name in sorted(_FILES) if name.startswith(kind)]
    files = {name: bytearray(_FILES[name]) for name in names}
    hurt(files, damage[1:])
    for name, content in files.items():
        (home / name.replace(kind, "outbox")).write_bytes(content)
    checked = checks.CHECKED_WHOLE
    checks.CHECKED_WHOLE = 0 if flags & _UNCHECKED else checked
    try:
        if flags & _READ_ONLY:
            look(path)
        # Without a complete check, new lines may overwrite others. It must only come to an end.
        use(path, sound=not flags & _UNCHECKED)
    finally:
        checks.CHECKED_WHOLE = checked


def hurt(files: dict[str, bytearray], damage: bytes) -> None:
    """Damage the files as these bytes describe."""
    names = sorted(files)
    for at in range(0, min(len(damage), 40 * _DAMAGE), _DAMAGE):
        what, *rest = damage[at : at + _DAMAGE].ljust(_DAMAGE, b"\0")
        file = files[names[rest[0] % len(names)]]
        page = int.from_bytes(rest[1:3], "big")
        offset = page % max(1, len(file) // 4096 + 1) * 4096 + int.from_bytes(rest[3:5], "big") % 4096
        if rest[0] & 0x80:  # pages of the log begin at other offsets
            offset += 32 + 24 * (page + 1)
        content = bytes(rest[5:])
        match what % 6:
            case 0:
                file[offset : offset + 1] = content[:1]
            case 1:
                file[offset : offset + 3] = content
            case 2:
                file[offset : offset + 16 * content[0]] = bytes(len(file[offset : offset + 16 * content[0]]))
            case 3:
                del file[offset:]
            case 4:  # one page is a copy of another
                source = content[0] * 4096 % max(1, len(file))
                file[offset // 4096 * 4096 : offset // 4096 * 4096 + 4096] = file[source : source + 4096]
            case 5:
                file[offset : offset + 4] = content[:1] * 4


def look(path: Path) -> None:
    """Read it as `check` does."""
    try:
        outbox = Outbox(path, read_only=True)
    except OutboxError as error:
        assert str(error)
        return
    with suppress(OutboxError):
        outbox.status()
    with suppress(OutboxError):
        outbox.refused(10)
    outbox.close()


def use(path: Path, *, sound: bool) -> None:
    """Use it as `run` does. A file that passed the complete check keeps what is stored in it."""
    try:
        outbox = Outbox(path)
    except OutboxError as error:
        assert "newer han-exporter" in str(error)  # any other version number counts as damage
        return
    try:
        for key, value in outbox.states("").items():
            assert value in MADE.states.get(key, ()), (key, value)
        status = outbox.status()
        assert status.size_bytes > 0
        outbox.refused(10)
        _append_and_empty(outbox, sound=sound)
    finally:
        outbox.close()
    again = Outbox(path)
    if sound:
        assert again.take(1, newest=False) is None
        assert again.get_state("fuzz") == "1"
        assert again.status().depth_lines == 0
    again.close()
    seen["replaced" if list(path.parent.glob("*.corrupt-*")) else "used"] += 1


def _append_and_empty(outbox: Outbox, *, sound: bool) -> None:
    new = "active_power,meter_id=new value=1.0 1"
    outbox.append(rows([new]), {"fuzz": "1"})
    taken: set[str] = set()
    newest = True
    for _ in range(1000):
        batch = outbox.take(200, newest=newest)
        if batch is None and not newest:
            break
        newest = not newest
        if batch is not None:
            taken |= set(batch.lines)
            assert batch.keys == tuple(map(replaced_key, batch.lines)), batch
            outbox.delete(batch)
    else:
        raise AssertionError("it never becomes empty")
    assert taken <= MADE.lines | {new}, sorted(taken - MADE.lines)[:3]
    assert new in taken or not sound
