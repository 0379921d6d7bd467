"""`decode` and `import` with processes that read ahead: nothing is otherwise, whatever becomes of these."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.benchmarks.capture import Capture
from tests.e2e.captures import every_ten_seconds, write_stamped
from tests.e2e.harness import HAN, Home, until
from tests.support.influx_server import Influx, Store
from tests.support.octets import joined

FRAMES = 9000
"""Some 2 MB, of which the first is read in order."""
FRAME_OCTETS = 228


@pytest.fixture(scope="module")
def octets(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A day of a meter, every 500th of its lists damaged, and noise before a few."""
    capture = Capture(tmp_path_factory.mktemp("cores") / "day.raw")
    capture.grow_to(FRAMES)
    whole = bytearray(capture.path.read_bytes())
    for at in range(100, len(whole), 500 * FRAME_OCTETS):
        whole[at] ^= 0x55
    for at in range(1_200_000, len(whole), 300_000):
        whole[at:at] = b"\x7e\xa0\xe2 noise"
    return bytes(whole)


@pytest.fixture
def raw(home: Home, octets: bytes) -> Path:
    path = home.folder / "day.raw"
    path.write_bytes(octets)
    return path


@pytest.fixture
def stamped(home: Home, octets: bytes) -> Path:
    """The same as `capture` would have written it, a damaged line now and then."""
    pieces = [octets[at : at + FRAME_OCTETS] for at in range(0, len(octets), FRAME_OCTETS)]
    path = write_stamped(
        home.folder / "day.hex", every_ten_seconds(pieces, datetime(2021, 12, 31, 23, 0, 3, tzinfo=UTC))
    )
    lines = path.read_text().splitlines(keepends=True)
    for at in range(0, len(lines), 700):
        lines[at] = lines[at].replace("E6E7", "E6 no octets")
    path.write_text("".join(lines))
    return path


def told(words: str) -> list[str]:
    """What was said, but for the order of a damaged line and what stands beside it, and for when it was said."""
    return sorted(re.sub(r"^\S+T\S+ ", "", line) for line in words.splitlines())


@pytest.mark.parametrize("form", ["raw", "stamped"])
def test_decode_says_the_same(home: Home, request: pytest.FixtureRequest, form: str) -> None:
    file = request.getfixturevalue(form)
    alone, ahead = (home.han("decode", "--format", "lp", "--jobs", jobs, file) for jobs in ("0", "2"))
    assert alone.returncode == ahead.returncode == 1
    assert alone.stdout.count("\n") > FRAMES
    assert ahead.stdout == alone.stdout
    assert told(ahead.stderr) == told(alone.stderr)
    assert ("line 701:" in ahead.stderr) is (form == "stamped")


def test_import_writes_the_same(home: Home, shared_influx: Influx, stamped: Path) -> None:
    stores = Store(shared_influx), Store(shared_influx)
    done = [home.han("import", "--jobs", jobs, stamped, influx=to) for jobs, to in zip("03", stores, strict=True)]
    assert told(done[0].stderr) == told(done[1].stderr)
    alone, ahead = (store.points() for store in stores)
    assert len(alone) > 10 * FRAMES
    assert alone == ahead


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that read ahead, once there are two."""

    def look() -> list[int]:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = stat.read_text().rpartition(")")[2].split()[1]
                if int(parent) == process.pid and "spawn_main" in (stat.parent / "cmdline").read_text():
                    found.append(int(stat.parent.name))
            except OSError:
                continue
        return found

    until(lambda: len(look()) == 2, what="two processes")
    return look()


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def started(home: Home, raw: Path) -> subprocess.Popen[bytes]:
    """A `decode` that waits for someone to take its lines."""
    command = [str(HAN), "decode", "--format", "lp", "--jobs", "2", str(raw)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=home.environment(), start_new_session=True
    )


def test_readers_that_are_killed_cost_nothing(home: Home, raw: Path) -> None:
    alone = home.han("decode", "--format", "lp", "--jobs", "0", raw)
    with started(home, raw) as decode:
        for pid in children_of(decode):
            os.kill(pid, signal.SIGKILL)
        out, err = decode.communicate(timeout=60)
    assert out.decode() == alone.stdout
    assert err.decode() == alone.stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_readers_end_with_who_reads_in_order(home: Home, raw: Path, how: signal.Signals) -> None:
    with started(home, raw) as decode:
        readers = children_of(decode)
        decode.send_signal(how)
        _, err = decode.communicate(timeout=30)
        assert decode.returncode != 0
        until(lambda: not any(map(is_there, readers)), seconds=10, what="the end of the readers")
    assert b"Traceback" not in err


def test_hex_text_is_read_in_order_all_the_same(home: Home, raw: Path) -> None:
    octets = joined([raw.read_bytes()])
    text = home.folder / "day.txt"
    text.write_text("\n".join(octets[at : at + 40].hex() for at in range(0, len(octets), 40)))
    first, second = (home.han("decode", "--format", "lp", "--jobs", "2", file) for file in (raw, text))
    assert first.stdout == second.stdout
