"""All benchmarks, or some by name: `python -m tests.benchmarks [--quick] [--json FILE] [--compare FILE] [name …]`.

Prints a table: what was measured, the figure, the aim and whether it was met. `--compare` then lists the ratios that
fell by more than a quarter since `--quick --json FILE` wrote FILE. It compares only ratios, which are nearly the same
on any machine. The exit code is 0, whatever the ratios are.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from tests.benchmarks.figures import Effort, Figure, compared, header, row, written

BENCHMARKS: Final = {
    "decode": "decode",
    "others": "others",
    "process": "process",
    "import": "importing",
    "outbox": "outbox",
    "idle": "idle",
    "startup": "startup",
    "instructions": "instructions",
}
"""Name -> module in this package, whose `run` gives the figures."""
_NOT_QUICK: Final = frozenset({"others", "idle", "instructions"})
"""Left out by --quick unless named: they give no ratio for CI, or take too long."""


def main() -> None:
    """Measure, print, write, compare."""
    given = _arguments()
    logging.disable(logging.CRITICAL)  # such as warnings of two meters on one source
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        effort = Effort(given.quick, given.full, Path(folder))
        print(header())
        for name in given.names or _chosen(effort):
            for figure in import_module(f"tests.benchmarks.{BENCHMARKS[name]}").run(effort):
                print(row(figure), flush=True)
                figures.append(figure)
    if given.compare is not None:
        print()
        print("\n".join(compared(figures, given.compare)))
    if given.json is not None:
        given.json.write_text(written(figures), encoding="utf-8")


def _chosen(effort: Effort) -> Sequence[str]:
    return [name for name in BENCHMARKS if not (effort.quick and name in _NOT_QUICK)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(BENCHMARKS)} [default: all]")
    parser.add_argument("--quick", action="store_true", help="what CI compares: a little of each, in about a minute")
    parser.add_argument("--full", action="store_true", help="up to ten million frames: hours and tens of GB")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="list the ratios that fell since FILE was written")
    parser.add_argument("--folder", type=Path, help="for the files: the disk that is measured")
    given = parser.parse_args()
    if unknown := set(given.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; choose from {', '.join(BENCHMARKS)}")
    return given


if __name__ == "__main__":
    main()
