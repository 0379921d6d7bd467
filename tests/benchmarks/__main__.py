"""All benchmarks, or some by name: `python -m tests.benchmarks [--quick] [--json FILE] [--compare FILE] [name …]`.

Prints a table: what was measured, the figure, the aim and whether it was met. `--compare` then says which ratios fell
by more than a quarter since FILE was written by `--quick --json FILE`; it looks at ratios alone, which are much the
same on any machine, and its exit code is 0 whatever they are.
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
"""Name -> module beside this one, whose `run` gives its figures."""
_NOT_QUICK: Final = frozenset({"others", "idle", "instructions"})
"""What gives CI no ratio, or takes too long for it; by name it is measured all the same."""


def main() -> None:
    """Measure, print, write, compare."""
    given = _arguments()
    logging.disable(logging.CRITICAL)  # of two meters on a source, and of much else that is meant here
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
    parser.add_argument("--quick", action="store_true", help="what CI compares: under 40 s, little of each")
    parser.add_argument("--full", action="store_true", help="up to ten million frames: hours and tens of GB")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="say what fell since FILE was written")
    parser.add_argument("--folder", type=Path, help="where files stand meanwhile: the disk that is measured")
    given = parser.parse_args()
    if unknown := set(given.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    return given


if __name__ == "__main__":
    main()
