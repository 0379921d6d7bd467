"""A disk that loses what was not synced: records what SQLite writes, and shows what a power cut would have left.

`Recorder` puts a layer between SQLite and the system's own files (a VFS, https://www.sqlite.org/vfs.html) in this
process, and notes each write, truncation, sync and deletion. `images` then gives, for a cut after each of these, the
files as they would be found: with none, all, or a random part of what was written since each file's last sync. A write
may have got through in part, by sectors.
"""

from __future__ import annotations

import ctypes
import sqlite3
from collections.abc import Callable, Iterator
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from ctypes.util import find_library
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

SECTOR: Final = 512
T = TypeVar("T")

_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Delete = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class _Vfs(Structure):
    """sqlite3_vfs, as far as it is used here; the rest is copied."""

    _fields_ = (
        ("version", c_int),
        ("file_size", c_int),
        ("longest_path", c_int),
        ("following", c_void_p),
        ("name", c_char_p),
        ("app_data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
        ("rest", c_void_p * 14),
    )


class _Methods(Structure):
    """sqlite3_io_methods, version 3."""

    _fields_ = (
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", c_void_p),
        ("truncate", c_void_p),
        ("sync", c_void_p),
        ("rest", c_void_p * 13),
    )


@dataclass(frozen=True, slots=True)
class Op:
    """What was done to a file: `what` is write, truncate, sync, delete or rename (who renames, notes it).

    `folder` synced the names of all files.
    """

    what: str
    path: str
    offset: int = 0
    data: bytes = b""
    to: str = ""


class Recorder:
    """While entered, every file that SQLite opens in this process is recorded in `ops`.

    Raises OSError when SQLite's library cannot be reached (it is built into the interpreter).
    """

    def __init__(self) -> None:
        name = find_library("sqlite3")
        if name is None:
            raise OSError("no shared libsqlite3 was found")
        self._lib = ctypes.CDLL(name)
        version = self._lib.sqlite3_libversion
        version.restype = c_char_p
        if version().decode() != sqlite3.sqlite_version:
            raise OSError("Python has another SQLite than the system's")
        self._lib.sqlite3_vfs_find.restype = POINTER(_Vfs)
        self.ops: list[Op] = []
        self._paths: dict[int, str] = {}
        self._patched: dict[int, _Methods] = {}
        self._kept: list[Any] = []  # callbacks live as long as SQLite may call them
        self._system = self._lib.sqlite3_vfs_find(None)
        self._ours = self._layer()

    def __enter__(self) -> Recorder:
        assert self._lib.sqlite3_vfs_register(ctypes.byref(self._ours), 1) == 0
        return self

    def __exit__(self, *raised: object) -> None:
        self._lib.sqlite3_vfs_unregister(ctypes.byref(self._ours))
        self._lib.sqlite3_vfs_register(self._system, 1)

    def folder_synced(self) -> None:
        """Note that the folder was synced: what was deleted before stays deleted."""
        self.ops.append(Op("folder", ""))

    def _layer(self) -> _Vfs:
        ours = _Vfs()
        ctypes.memmove(ctypes.byref(ours), self._system, ctypes.sizeof(_Vfs))
        ours.name, ours.following = b"recorded", None
        system_open, system_delete = _Open(self._system.contents.open), _Delete(self._system.contents.delete)

        def opened(vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
            result = system_open(vfs, name, file, flags, out)
            if result == 0 and name:
                self._paths[file] = ctypes.string_at(name).decode()
                self._patch(file)
            return int(result)

        def deleted(vfs: int, name: bytes, sync_folder: int) -> int:
            result = system_delete(vfs, name, sync_folder)
            if result == 0:
                self.ops.append(Op("delete", name.decode()))
                if sync_folder:
                    self.folder_synced()
            return int(result)

        ours.open, ours.delete = self._pointer(_Open, opened), self._pointer(_Delete, deleted)
        return ours

    def _pointer(self, kind: Any, function: Callable[..., int]) -> int | None:
        callback = kind(function)
        self._kept.append(callback)
        return ctypes.cast(callback, c_void_p).value

    def _patch(self, file: int) -> None:
        """Give an open file (its first word points to its methods) methods that record what they do."""
        slot = ctypes.cast(file, POINTER(c_void_p))
        original = slot.contents.value
        assert original is not None
        if original not in self._patched:
            self._patched[original] = self._methods(original)
        slot.contents.value = ctypes.addressof(self._patched[original])

    def _methods(self, original: int) -> _Methods:
        patched = _Methods.from_buffer_copy(_Methods.from_address(original))
        write, truncate, sync = _Write(patched.write), _Truncate(patched.truncate), _Sync(patched.sync)

        def written(file: int, data: int, count: int, offset: int) -> int:
            self.ops.append(Op("write", self._paths[file], offset, ctypes.string_at(data, count)))
            return int(write(file, data, count, offset))

        def truncated(file: int, size: int) -> int:
            self.ops.append(Op("truncate", self._paths[file], size))
            return int(truncate(file, size))

        def synced(file: int, flags: int) -> int:
            result = int(sync(file, flags))
            self.ops.append(Op("sync", self._paths[file]))
            return result

        patched.write, patched.truncate = self._pointer(_Write, written), self._pointer(_Truncate, truncated)
        patched.sync = self._pointer(_Sync, synced)
        return patched


@dataclass(slots=True)
class _File:
    """A file as it certainly is on the disk (None: it does not exist), and what was done since the last sync."""

    synced: bytearray | None = None
    pending: list[Op] = field(default_factory=list)

    def settle(self, op: Op) -> None:
        if op.what == "sync":
            self.synced = _applied(self.synced or bytearray(), self.pending)
            self.pending = []
        else:
            self.pending.append(op)

    def settle_name(self) -> None:
        """The folder was synced."""
        deleted = max((place for place, op in enumerate(self.pending, 1) if op.what == "delete"), default=0)
        if deleted:
            self.synced = _applied(self.synced, self.pending[:deleted])
            self.pending = self.pending[deleted:]


def _applied(content: bytearray | None, ops: list[Op]) -> bytearray | None:
    for op in ops:
        if op.what == "delete":
            content = None
            continue
        content = bytearray() if content is None else content
        if op.what == "truncate":
            del content[op.offset :]
            content.extend(bytes(op.offset - len(content)))
        else:
            content.extend(bytes(max(0, op.offset - len(content))))
            content[op.offset : op.offset + len(op.data)] = op.data
    return content


def _some(ops: list[Op], random: Random) -> list[Op]:
    """Return what the disk may have done of these: any of them, and of a write any of its sectors."""
    done = []
    for op in ops:
        value = random.random()
        if value < 0.4:
            done.append(op)
        elif value < 0.6 and op.what == "write":
            for at in range(0, len(op.data), SECTOR):
                if random.random() < 0.5:
                    done.append(Op("write", op.path, op.offset + at, op.data[at : at + SECTOR]))
    return done


def images(ops: list[Op], random: Random, every: int = 1) -> Iterator[tuple[int, str, dict[str, bytes]]]:
    """Yield (how many of the operations were done, which part of what was not synced is on the disk, path -> content).

    With `every` above 1, only every so-many-th cut is taken, and the cuts just before and after a sync, each with one
    kind at random. With 1, every cut is taken with each kind.
    """
    kinds = ("none", "some", "all")
    files: dict[str, _File] = {}
    names: list[Op] = []  # renamed since the folder was synced
    for count, op in enumerate(ops, 1):
        if op.what == "folder":
            _rename(files, names)
            names.clear()
            for file in files.values():
                file.settle_name()
            continue
        if op.what == "rename":
            names.append(op)
            for kind in kinds[::2]:
                image = dict(_image(files, kind, random))
                _rename(image, names)
                yield count, kind, image
            continue
        files.setdefault(op.path, _File()).settle(op)
        near_sync = op.what == "sync" or (count < len(ops) and ops[count].what == "sync")
        if count % every and not near_sync:
            continue
        for kind in kinds if every == 1 else (kinds[random.randrange(3)],):
            yield count, kind, dict(_image(files, kind, random))


def _rename(files: dict[str, T], names: list[Op]) -> None:
    """Give the files their new names, if they exist."""
    for op in names:
        if op.path in files:
            files[op.to] = files.pop(op.path)


def _image(files: dict[str, _File], kind: str, random: Random) -> Iterator[tuple[str, bytes]]:
    for path, file in files.items():
        done = {"none": [], "all": file.pending, "some": _some(file.pending, random)}[kind]
        content = _applied(None if file.synced is None else bytearray(file.synced), done)
        if content is not None:
            yield path, bytes(content)


def lay(files: dict[str, bytes], folder: Path) -> None:
    """Write the files of an image into a folder, under their own names."""
    for path, content in files.items():
        (folder / Path(path).name).write_bytes(content)
