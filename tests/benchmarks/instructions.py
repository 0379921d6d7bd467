"""Instructions a frame of (a), which does not depend on how busy the machine is.

Two sizes are counted, and the difference is what counts. `perf stat` counts where it works, else valgrind (cachegrind
without its caches).
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
"""Frames. In both sizes, the shape is learnt from the first few."""
_REFS: Final = re.compile(r"I +refs: +([\d,]+)")


def run(effort: Effort) -> Iterator[Figure]:
    """Kamstrup, one meter, the quick way and the slow one."""
    count = _counter()
    if count is None:
        note = "not available: neither perf stat -e instructions nor valgrind works here"
        yield Figure("kamstrup 10 s: instructions a frame", None, "instructions", note=note)
        return
    small, large = (size // 4 if effort.quick else size for size in SIZES)
    sent = frames.frames(frames.KAMSTRUP, large)
    used = {way: _a_frame(count, effort.folder, sent, small, way) for way in ("", "slow")}
    yield Figure("kamstrup 10 s: instructions a frame", used[""], "instructions")
    yield Figure("kamstrup 10 s: instructions a frame, slow way", used["slow"], "instructions")


def _a_frame(
    count: Callable[[list[str]], int | None], folder: Path, sent: Sequence[bytes], small: int, way: str
) -> float | None:
    counted = []
    for size in (small, len(sent)):
        file = folder / "frames"
        file.write_bytes(b"".join(sent[:size]))
        counted.append(count([sys.executable, "-m", paths.__name__, str(file), *([way] if way else [])]))
    one, other = counted
    return None if one is None or other is None else (other - one) / (len(sent) - small)


def _counter() -> Callable[[list[str]], int | None] | None:
    """The first of the two that can count the command `true`; None if neither can."""
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
