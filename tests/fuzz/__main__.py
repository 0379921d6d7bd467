"""Coverage-guided fuzzing with atheris (extra `fuzz`): `tests/run fuzz TARGET [SECONDS]`, or `python -m tests.fuzz …`.

    TARGET     stream, captures, settings or outbox
    SECONDS    60 by default
    --corpus   a folder for inputs that reach new code; by default in the temporary folder

An input that finds a fault is written to a file, and its name is printed; the exit code is not 0. `--again FILE` tries
one input, without atheris.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import TARGETS, Target, kept

_SLOWEST_S = 30
_MEMORY_MB = 700


def main() -> None:
    """Fuzz one target until the time is over or a fault is found."""
    parser = argparse.ArgumentParser(
        prog="tests/run fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("seconds", type=int, nargs="?", default=60)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--again", type=Path, metavar="FILE")
    options = parser.parse_args()
    target = TARGETS[options.target]
    if options.again is not None:
        target.load()(options.again.read_bytes())
        return
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="han-corpus-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for n, content in enumerate([*target.first(), *kept(options.target)]):
        (corpus / f"first-{n}").write_bytes(content)
    logging.getLogger("exporter").setLevel(logging.CRITICAL)  # messages would take time, and nobody reads them
    _fuzz(target, options.seconds, corpus)


def _fuzz(target: Target, seconds: int, corpus: Path) -> None:
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install -e '.[fuzz]'")
    with atheris.instrument_imports(include=["exporter"]):
        run = target.load()

    def change(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.2:
            data = atheris.Mutate(data, most)
        return target.change(data, chance)[:most]

    settings = {
        "max_total_time": seconds,
        "max_len": target.most,
        "timeout": _SLOWEST_S,
        "rss_limit_mb": _MEMORY_MB,
        "print_final_stats": 1,
        "reload": 0,
        "artifact_prefix": f"{tempfile.gettempdir()}/han-fuzz-",
    }
    arguments = [sys.argv[0], *(f"-{name}={value}" for name, value in settings.items()), str(corpus)]
    atheris.Setup(arguments, run, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
