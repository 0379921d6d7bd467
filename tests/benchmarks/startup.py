"""Start-up time of each subcommand's `--help`, and of an interpreter that does nothing: wall clock, the least of 10.

Compiled modules are kept in a folder, as an installed package has them, even if this process keeps none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from exporter.cli import COMMANDS
from tests.benchmarks import child
from tests.benchmarks.figures import Effort, Figure, together

AIM_MS: Final = 150
_QUICK: Final = ("run", "decode")
_REPETITIONS: Final = 10


def run(effort: Effort) -> Iterator[Figure]:
    """Every command, or the two that matter most."""
    commands = ("", *(_QUICK if effort.quick else COMMANDS))
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(effort.folder / "compiled")}
    works = [partial(child.run, [child.PROGRAM, *command.split(), "--help"], compiled) for command in commands]
    works.insert(0, partial(child.run, [sys.executable, "-c", "pass"], compiled))
    bare, *each = (times.best * 1000 for times in together(*works, repetitions=_REPETITIONS, clock=time.monotonic))
    yield Figure("start: python -c pass", bare, "ms")
    for command, taken in zip(commands, each, strict=True):
        name = " ".join(["start: han-exporter", *command.split(), "--help"])
        yield Figure(name, taken, "ms", AIM_MS, at_most=True, note=f"{taken - bare:.0f} ms over the bare interpreter")
        if command == "decode":  # one ratio for CI, of the command that must start fast
            yield Figure("start: python -c pass to decode --help", bare / taken, "x", compared=True)
