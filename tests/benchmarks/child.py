"""A command of the product as a process of its own: how long it took and how much memory it had."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROGRAM: Final = str(Path(sys.executable).with_name("han-exporter"))


@dataclass(frozen=True, slots=True)
class Ran:
    """What a process took: seconds by the clock on the wall and of processors, and the most memory, MB."""

    wall_s: float
    processor_s: float
    peak_mb: float


def environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of the exporter, but for those that are given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HAN_")}
    return kept | dict(settings or {})


def run(command: Sequence[str], settings: Mapping[str, str] | None = None) -> Ran:
    """Run it to its end, its output to nowhere. Raises RuntimeError with its last words when it failed."""
    with tempfile.TemporaryFile() as words:
        began = time.monotonic()
        process = subprocess.Popen(command, env=environment(settings), stdout=subprocess.DEVNULL, stderr=words)
        _, status, used = os.wait4(process.pid, 0)  # not wait(): the memory of this one child is asked for
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            words.seek(max(0, words.seek(0, os.SEEK_END) - 500))
            said = words.read().decode("utf-8", "replace")
            raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}: {said}")
    return Ran(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
