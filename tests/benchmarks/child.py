"""A command of the product as a process of its own: how long it took and how much memory it had."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
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
"""A process has from its birth the peak memory of whoever started it, so a small one starts it."""

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
    starter = [sys.executable, "-I", "-S", "-c", _STARTER, *command]
    done = subprocess.run(starter, env=environment(settings), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr[-500:]}")
    wall, processor, kilobytes = map(float, done.stdout.split())
    return Ran(wall, processor, kilobytes / 1024)
