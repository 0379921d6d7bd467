"""A disk of a few megabytes that can be filled."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_disk(size: int = 16 << 20) -> Iterator[Path]:
    """Yield a folder with a file system of its own; skip the test if this user may not mount one."""
    with tempfile.TemporaryDirectory() as name:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "none", name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"a small disk cannot be mounted: {error}")
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=True)


def fill(disk: Path, *, leave: int = 0) -> Path:
    """Take all room except so many bytes; return the file that has it."""
    with (disk / "other").open("ab", buffering=0) as other, suppress(OSError):
        while leave == 0 or room(disk) > leave + 4096:
            other.write(bytes(4096))
    return disk / "other"


def room(disk: Path) -> int:
    """Return the free bytes."""
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize
