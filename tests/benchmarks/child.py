"""A command of the product as a process of its own: how long it took, and how much memory it needed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_STARTER: Final = """
import os, sys, time
began = time.monotonic()
nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
_, status, used = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=nowhere), 0)
print(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""
"""Linux counts the memory of a process in the peak of those that it starts. So a small process starts the command."""

PROGRAM: Final = str(Path(sys.executable).with_name("han-exporter"))


@dataclass(frozen=True, slots=True)
class Ran:
    """What a process took: seconds of the wall clock, seconds of processors, and its peak memory, MB."""

    wall_s: float
    processor_s: float
    peak_mb: float


def environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, of the exporter's settings only those that are given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HAN_")}
    return kept | dict(settings or {})


def run(command: Sequence[str], settings: Mapping[str, str] | None = None, *, terminal: bool = False) -> Ran:
    """Run it to its end, without its output. With `terminal`, its standard error is one, so that progress is shown.

    Raises RuntimeError with the end of its standard error if it failed.
    """
    starter = [sys.executable, "-I", "-S", "-c", _STARTER, *command]
    with _standard_error(terminal=terminal) as (handle, written):
        done = subprocess.run(
            starter, env=environment(settings), stdout=subprocess.PIPE, stderr=handle, text=True, check=False
        )
    if done.returncode:
        words = written.decode("utf-8", "replace")
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {words[-500:]}")
    wall, processor, kilobytes = map(float, done.stdout.split())
    return Ran(wall, processor, kilobytes / 1024)


@contextmanager
def _standard_error(*, terminal: bool) -> Iterator[tuple[int, bytearray]]:
    """The end that a process writes to, and what was written to it: complete when the context is left."""
    ours, theirs = os.openpty() if terminal else os.pipe()
    written = bytearray()

    def read() -> None:
        try:
            while data := os.read(ours, 4096):
                written.extend(data)
        except OSError:  # the end of a terminal
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield theirs, written
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
