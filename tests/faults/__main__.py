"""The long form of the crash matrix: `tests/run faults --rounds 1000`, or `python -m tests.faults`, influxd on PATH.

Exit code 1, and the folder is kept, when a reading is missing, doubled, strange or at a wrong time.
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
from tests.faults.crash import Campaign, Told
from tests.faults.servers import server
from tests.faults.verdict import figures


def main() -> int:
    """Campaign after campaign, each with a seed one higher; figures at the end, and after a Ctrl-C."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="han-faults-"))
    try:
        influx = server(folder / "influxd", options.influxd)
    except LookupError as missing:
        shutil.rmtree(folder)
        raise SystemExit(str(missing)) from None
    print(f"{HAN}, InfluxDB {influx.client().version() or '?'}, seed {options.seed}, in {folder}", flush=True)
    told, began = Told(), time.monotonic()
    try:
        for n, seed in enumerate(range(options.seed, sys.maxsize)):
            rounds = min(options.each, options.rounds - told.rounds)
            if rounds <= 0 or (told.verdict.wrong and not options.go_on):
                break
            one = Campaign(folder / f"{n}", influx, seed).run(rounds)
            told.add(one)
            _say(seed, one, told)
            if not one.verdict.wrong:
                shutil.rmtree(folder / f"{n}")
    except KeyboardInterrupt:
        print("interrupted; so far:")
    finally:
        influx.stop()
    print(f"{report(told)}\nin {time.monotonic() - began:.0f} s", flush=True)
    if not told.verdict.wrong:
        shutil.rmtree(folder)
    return bool(told.verdict.wrong)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/run faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9), help="of the first campaign")
    parser.add_argument("--each", type=int, default=25, help="rounds of a campaign; at its end everything is counted")
    parser.add_argument("--influxd", help="the program, of 1.8 or 2.x; else what the other tests use")
    parser.add_argument("--go-on", action="store_true", help="after a campaign in which something was wrong")
    return parser.parse_args()


def _say(seed: int, one: Told, told: Told) -> None:
    counts = one.verdict.counts
    print(
        f"seed {seed}: {told.rounds} rounds so far; here {counts['sent']} sent, {counts['found']} found, "
        f"{counts['in hand when killed']} in hand, {counts['missing']} missing, {counts['doubled']} doubled",
        flush=True,
    )
    for words in one.verdict.wrong[:20]:
        print(f"  WRONG {words}", flush=True)
    if one.verdict.wrong:
        print(
            f"  {len(one.verdict.wrong)} in all. Again: tests/run faults --seed {seed} --rounds {one.rounds}",
            flush=True,
        )


def report(told: Told) -> str:
    """All figures as text."""
    counts = dict.fromkeys(("missing", "doubled", "strange", "wrong time"), 0) | told.verdict.counts
    parts = {
        f"{told.rounds} rounds; the exporter was started {told.starts} times. Faults": told.faults,
        "requests at the proxy": told.requests,
        "on the wire": told.meters,
        "frames": counts,
    }
    late = f"received after the last octet, apart from SIGSTOP: {told.verdict.latest_ms:.0f} ms at most"
    wrong = f"{len(told.verdict.wrong)} WRONG" if told.verdict.wrong else "nothing is wrong"
    return "\n".join([*(f"{title}:\n{figures(part)}" for title, part in parts.items()), late, wrong])


if __name__ == "__main__":
    raise SystemExit(main())
