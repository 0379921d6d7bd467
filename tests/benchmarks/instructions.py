"""Instructions a frame of (a), which no noise of the machine touches: two sizes, one taken from the other.

Counted by `perf stat` where it can, else by valgrind (cachegrind without its caches).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.benchmarks import frames, paths
from tests.benchmarks.child import environment
from tests.benchmarks.figures import Effort, Figure

SIZES: Final = (2000, 6000)
"""Frames; the difference is what is counted. Both are past what is learnt from the first."""
_REFS: Final = re.compile(r"I +refs: +([\d,]+)")


def run(effort: Effort) -> Iterator[Figure]:
    """Kamstrup, one meter, our way and the slow one."""
    count = _counter()
    if count is None:
        note = "not available: neither perf stat -e instructions nor valgrind works here"
        yield Figure("kamstrup 10 s: instructions a frame", None, "instructions", note=note)
        return
    small, large = (size // 4 if effort.quick else size for size in SIZES)
    heard = frames.frames(frames.KAMSTRUP, large)
    used = {way: _a_frame(count, effort.folder, heard, small, way) for way in ("", "slow")}
    yield Figure("kamstrup 10 s: instructions a frame", used[""], "instructions")
    yield Figure("kamstrup 10 s: instructions a frame, slow path", used["slow"], "instructions")


def _a_frame(
    count: Callable[[list[str]], int | None], folder: Path, heard: Sequence[bytes], small: int, way: str
) -> float | None:
    counted = []
    for size in (small, len(heard)):
        file = folder / "octets"
        file.write_bytes(b"".join(heard[:size]))
        counted.append(count([sys.executable, "-m", paths.__name__, str(file), *([way] if way else [])]))
    one, other = counted
    return None if one is None or other is None else (other - one) / (len(heard) - small)


def _counter() -> Callable[[list[str]], int | None] | None:
    """The first of the two that counts a command that does nothing."""
    for counter in (_perf, _valgrind):
        if counter(["true"]):
            return counter
    return None


def _perf(command: list[str]) -> int | None:
    if shutil.which("perf") is None:
        return None
    done = _run(["perf", "stat", "-x", ",", "-e", "instructions:u", *command])
    for line in done.splitlines():
        value = line.split(",")[0]
        if "instructions" in line and value.isdecimal():
            return int(value)
    return None


def _valgrind(command: list[str]) -> int | None:
    if shutil.which("valgrind") is None:
        return None
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    found = _REFS.search(_run([*tool, *command]))
    return int(found[1].replace(",", "")) if found else None


def _run(command: list[str]) -> str:
    # A fixed seed, so that dictionaries of two runs are the same.
    settings = environment({"PYTHONHASHSEED": "0"})
    done = subprocess.run(command, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    return done.stderr.decode("utf-8", "replace") if done.returncode == 0 else ""
