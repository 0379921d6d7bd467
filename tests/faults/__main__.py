"""The long form of the crash matrix: `tests/run faults --rounds 1000`, or `python -m tests.faults` with influxd on
PATH.

If a reading is missing, doubled, unknown or at a wrong time, the exit code is 1 and the folder is kept.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.harness import HAN
from tests.faults.crash import Campaign, Result
from tests.faults.servers import server
from tests.faults.verdict import figures


def main() -> int:
    """Run one campaign after the other, each with the next seed. Figures are printed at the end, and after Ctrl-C."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="han-faults-"))
    try:
        influx = server(folder / "influxd", options.influxd)
    except LookupError as missing:
        shutil.rmtree(folder)
        raise SystemExit(str(missing)) from None
    print(f"{HAN}, InfluxDB {influx.client().version() or '?'}, seed {options.seed}, in {folder}", flush=True)
    result, began = Result(), time.monotonic()
    try:
        for n, seed in enumerate(range(options.seed, sys.maxsize)):
            rounds = min(options.each, options.rounds - result.rounds)
            if rounds <= 0 or (result.verdict.wrong and not options.go_on):
                break
            one = Campaign(folder / f"{n}", influx, seed).run(rounds)
            result.add(one)
            _say(seed, one, result)
            if not one.verdict.wrong:
                shutil.rmtree(folder / f"{n}")
    except KeyboardInterrupt:
        print("interrupted; so far:")
    finally:
        influx.stop()
    print(f"{report(result)}\nin {time.monotonic() - began:.0f} s", flush=True)
    if not result.verdict.wrong:
        shutil.rmtree(folder)
    return bool(result.verdict.wrong)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/run faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9), help="of the first campaign")
    parser.add_argument("--each", type=int, default=25, help="rounds of a campaign; at its end everything is counted")
    parser.add_argument("--influxd", help="the program, 1.8 or 2.x [default: the InfluxDB of the other tests]")
    parser.add_argument("--go-on", action="store_true", help="continue after a campaign in which something was wrong")
    return parser.parse_args()


def _say(seed: int, one: Result, result: Result) -> None:
    counts = one.verdict.counts
    print(
        f"seed {seed}: {result.rounds} rounds so far; here {counts['sent']} sent, {counts['found']} found, "
        f"{counts['read and not kept when killed']} not kept, {counts['missing']} missing, {counts['doubled']} doubled",
        flush=True,
    )
    for words in one.verdict.wrong[:20]:
        print(f"  WRONG {words}", flush=True)
    if one.verdict.wrong:
        print(
            f"  {len(one.verdict.wrong)} in all. Again: tests/run faults --seed {seed} --rounds {one.rounds}",
            flush=True,
        )


def report(result: Result) -> str:
    """All figures as text."""
    counts = dict.fromkeys(("missing", "doubled", "unknown", "wrong time"), 0) | result.verdict.counts
    parts = {
        f"{result.rounds} rounds; the exporter was started {result.starts} times. Faults": result.faults,
        "requests at the proxy": result.requests,
        "on the port": result.meters,
        "frames": counts,
    }
    late = f"received after the last byte, apart from SIGSTOP: {result.verdict.latest_ms:.0f} ms at most"
    wrong = f"{len(result.verdict.wrong)} WRONG" if result.verdict.wrong else "nothing is wrong"
    return "\n".join([*(f"{title}:\n{figures(part)}" for title, part in parts.items()), late, wrong])


if __name__ == "__main__":
    raise SystemExit(main())
