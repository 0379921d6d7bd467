"""`rejected` as an owner uses it: the installed command, with or without a `run`, and a real InfluxDB."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from pathlib import Path

import pytest

from exporter.outbox.queue import DAMAGED_ROW, Outbox
from exporter.sinks.influx.client import Http
from tests.e2e.harness import HAN, Home, Meter, started
from tests.e2e.made import power
from tests.support.influx_server import Store
from tests.support.patience import HANG_S, until
from tests.support.rows import rows

NONE = "There is no refused line.\n"
BAD = 'active_power,direction=import,meter_id=A value="x" 1'


def refused(home: Home, *lines: tuple[str, str]) -> None:
    """Store refused lines as the writer does, one at a time."""
    outbox = Outbox(home.outbox)
    for line, message in lines:
        outbox.append(rows([line]))
        batch = outbox.take(1, newest=False)
        assert batch is not None
        outbox.delete(batch, refused={0: message})
    outbox.close()


def listed(home: Home) -> list[dict[str, object]]:
    done = home.han("rejected", "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)["rejected"]
    return found


def watts(store: Store) -> list[float]:
    rows = [row for series in store.query("SELECT value FROM active_power") for row in series.rows]
    return [row[1] for row in rows]


def fix(store: Store) -> None:
    Http(store.url, store.token).request(
        "POST", "/query", query={"q": "DROP MEASUREMENT active_power", "db": store.bucket}
    )


@pytest.mark.parametrize("running", [True, False])
def test_lines_with_a_type_conflict_are_written_after_it_is_fixed(
    home: Home, store: Store, meter: Meter, mark: str, running: bool
) -> None:
    """In this database power is text: everything else is written, power is shown, and sent again."""
    if os.environ.get("HAN_TEST_INFLUX_URL"):
        pytest.skip("a measurement is removed as InfluxDB 1.8 has it")
    client = store.client()
    assert not client.write([f'active_power,meter_id=old value="a text" {int(time.time() * 1000)}']).message
    client.close()
    run = started(home, meter, store)
    for number in range(3):
        meter.send(power(100 + number, f"M-{mark}".encode()))
    run.expect("InfluxDB rejects lines .*han-exporter rejected")
    until(lambda: len(listed(home)) == 3)
    shown = home.han("rejected")
    assert shown.returncode == 0
    assert "3 lines" in shown.stdout
    assert "3 × partial write: field type conflict" in shown.stdout, "lines with the same message are shown together"
    assert shown.stdout.count(f"meter_id=M-{mark}") == 3
    assert shown.stdout.index("value=102") < shown.stdout.index("value=100"), "newest first"
    assert "han-exporter rejected" in home.han("check", influx=store, source=meter.path).stdout
    fix(store)
    if not running:
        run.stop()
    done = home.han("rejected", "--retry", "--all")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 lines ")
    if not running:
        run = started(home, meter, store)
    until(lambda: sorted(watts(store)) == [100, 101, 102])
    shown = home.han("rejected")
    assert (shown.returncode, shown.stdout) == (0, NONE)
    assert run.stop() < 5


@pytest.mark.parametrize("running", [True, False])
def test_some_of_them_by_their_ids(home: Home, meter: Meter, running: bool) -> None:
    refused(home, *((f"a value={n} {n}", f"words {n}") for n in range(1, 11)))
    if running:
        started(home, meter)
    before = home.waiting_lines()
    done = home.han("rejected", "--retry", "2", "4-6")
    assert done.stdout.startswith("4 lines "), done.stderr
    assert home.waiting_lines() == before + 4
    done = home.han("rejected", "--drop", "1-3,9")
    assert done.stdout.startswith("3 lines ")
    assert [one["id"] for one in listed(home)] == [10, 8, 7]
    assert home.han("rejected", "--drop", "1-3,9").returncode == 1
    assert home.han("rejected", "--drop", "--all").stdout.startswith("3 lines ")
    assert home.waiting_lines() == before + 4
    assert listed(home) == []
    for change in ("--drop", "--retry"):
        done = home.han("rejected", change, "--all")
        assert (done.returncode, done.stdout) == (0, NONE)


def test_similar_messages_are_shown_together_and_no_control_characters(home: Home) -> None:
    refused(
        home,
        ("x\x1b[31m\x07'y", "unable to parse 'x\x1b[31m 'y': missing fields"),
        *((f"old value={n} {n}", f"partial write: points beyond retention policy dropped={n}") for n in range(20)),
        ("other'z", "unable to parse 'other'z': missing fields"),
        (f"long{'g' * 5000}", "too long"),
    )
    done = home.han("rejected")
    assert "2 × unable to parse it: missing fields" in done.stdout
    assert "20 × partial write: points beyond retention policy dropped=19" in done.stdout
    assert "and 15 more (--json shows them)" in done.stdout
    assert "IDs 2-21" in done.stdout and "IDs 1,22" in done.stdout
    assert "x\\x1b[31m\\x07'y" in done.stdout
    assert all(line.isprintable() and len(line) < 400 for line in done.stdout.splitlines())
    assert "(5004 characters)" in done.stdout
    assert [one["id"] for one in listed(home)] == list(range(23, 0, -1))
    assert listed(home)[0]["line"] == f"long{'g' * 5000}"


def test_damaged_lines_are_sent_only_by_their_ids(home: Home) -> None:
    refused(home, ("a value=1 1", DAMAGED_ROW), ("a value=2 2", "words"))
    done = home.han("rejected", "--retry", "--all")
    assert done.stdout.startswith("1 line ")
    assert "1 line " in done.stderr
    assert [one["id"] for one in listed(home)] == [1]
    assert home.han("rejected", "--retry", "1").stdout.startswith("1 line ")


def test_sums_wait_until_no_line_waits(home: Home) -> None:
    refused(home, ("day_energy,meter_id=A value=1,hours=1 3600000", "words"), (BAD, "words"))
    outbox = Outbox(home.outbox)
    outbox.append(rows(["a value=1 1"]))
    outbox.close()
    done = home.han("rejected", "--retry", "--all")
    assert done.stdout.startswith("1 line ")
    assert "1 sum or peak " in done.stderr
    assert [one["id"] for one in listed(home)] == [1]


@pytest.mark.parametrize(("answer", "left"), [("n", 1), ("", 1), ("y", 0)])
def test_at_a_terminal_it_asks_before_it_removes(home: Home, answer: str, left: int) -> None:
    refused(home, (BAD, "words"))
    asked, terminal = pty.openpty()
    os.write(asked, f"{answer}\n".encode())
    command = [str(HAN), "rejected", "--drop", "--all"]
    done = subprocess.run(
        command,
        env=home.environment(),
        cwd=home.folder,
        stdin=terminal,
        capture_output=True,
        timeout=HANG_S,
        check=False,
    )
    os.close(terminal)
    os.close(asked)
    assert "1 line? [y/N]:" in done.stderr.decode()
    assert done.returncode == (1 if left else 0)
    assert len(listed(home)) == left


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["--retry"], "Which lines?"),
        (["--drop", "--all", "3"], "Which lines?"),
        (["--retry", "--drop", "--all"], "not both"),
        (["3"], "--retry or --drop"),
        (["--retry", "three"], "'three' is not the ID"),
        (["--retry", "5-1"], "5-1 ends before it begins"),
        (["--drop", "2,9-8"], "9-8 ends before it begins"),
        (["--retry", "--all", "--json"], "--json shows lines"),
    ],
)
def test_options_that_exclude_each_other_are_an_error(home: Home, arguments: list[str], kind: str) -> None:
    done = home.han("rejected", *arguments)
    assert done.returncode == 2
    assert kind in done.stderr


def test_without_an_outbox_and_with_one_that_is_locked(home: Home) -> None:
    done = home.han("rejected")
    assert (done.returncode, "HAN_OUTBOX" in done.stderr) == (2, True)
    refused(home, (BAD, "words"))
    outbox = Outbox(home.outbox)
    done = home.han("rejected", "--retry", "--all")
    assert (done.returncode, "try again" in done.stderr) == (2, True)
    assert len(listed(home)) == 1
    outbox.close()
    assert not Path(f"{home.outbox}.sock").exists()


@pytest.mark.parametrize("damage", ["cut off", "noise", "empty"])
def test_a_damaged_outbox_is_reported_and_nothing_is_printed(home: Home, damage: str) -> None:
    """And `run` does what the message says: what can be read is saved, and the file is kept."""
    refused(home, (BAD, "words"))
    outbox = Outbox(home.outbox)
    for number in range(300):
        outbox.append(rows([f"a value={number}.0 {number}"] * 10))
    outbox.close()
    whole = home.outbox.read_bytes()
    home.outbox.write_bytes({"cut off": whole[: len(whole) * 2 // 3], "noise": os.urandom(9000), "empty": b""}[damage])
    expected = f"The outbox {home.outbox} is {'empty' if damage == 'empty' else 'damaged'}"
    for arguments in ([], ["--json"], ["--drop", "--all"], ["--retry", "1"]):
        done = home.han("rejected", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert expected in done.stderr and "`han-exporter run` " in done.stderr
        assert "does this user have permission" not in done.stderr
    run = home.run(source="sim:kamstrup")
    if damage != "empty":
        run.expect("is damaged .* kept as ")
    until(lambda: Path(f"{home.outbox}.sock").exists())
    if damage == "cut off":
        assert "words (read out of a damaged outbox: look at the line before it is sent again)" in str(listed(home))
    else:
        assert home.han("rejected").stdout == NONE
    assert len(list(home.folder.glob("outbox.sqlite.corrupt-*"))) == (0 if damage == "empty" else 1)
    assert (home.waiting_lines() > 100) is (damage == "cut off")
    run.stop()
