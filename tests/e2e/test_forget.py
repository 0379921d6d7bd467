"""`forget` as a user runs it: the installed command, with `run` running or not, and a real InfluxDB."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exporter.model.state_keys import meters_of
from exporter.outbox.queue import Outbox
from exporter.sinks.influx.client import quoted
from tests.e2e.captures import write_stamped
from tests.e2e.harness import HAN, Home, Meter, started
from tests.e2e.made import frames_of_power, power
from tests.support.influx_server import Influx, Point, Store, free_port
from tests.support.patience import HANG_S, until
from tests.support.years import HOUR
from tests.support.years import Meter as HourlyMeter

DAY = datetime(2025, 10, 5, tzinfo=UTC)
ODD = 'O\'Hara "1", =x'


def of(points: Iterable[Point], meter_id: str) -> list[Point]:
    return [p for p in points if ("meter_id", meter_id) in p.tags]


def watts(points: Iterable[Point], meter_id: str) -> list[float]:
    """The powers of a meter in order of time."""
    powers = [p for p in of(points, meter_id) if p.measurement == "active_power"]
    return [float(dict(p.fields)["value"]) for p in sorted(powers, key=lambda p: p.time)]


def kept(home: Home) -> set[str]:
    """The meters that have data in the outbox."""
    outbox = Outbox(home.outbox, read_only=True)
    try:
        return meters_of(outbox.states(""))
    finally:
        outbox.close()


@pytest.mark.parametrize("name", ["5706", ODD])
def test_while_run_is_reading_the_meter(home: Home, store: Store, meter: Meter, mark: str, name: str) -> None:
    """InfluxDB and the outbox have no data of it; what is read afterwards is written again, as a note says."""
    name, other = f"{name}-{mark}", f"OTHER-{mark}"
    run = started(home, meter, store)
    for frame in (*frames_of_power(other, range(3)), *frames_of_power(name, range(100, 110))):
        meter.send(frame)
    until(lambda: len(watts(store.points(), name)) == 10)
    done = home.han("forget", name, influx=store)
    assert done.returncode == 0, done.stderr
    assert re.search(r"InfluxDB: \D*[1-9]\d* series, ", done.stdout)
    assert f"{name} is being read now, from ttyHAN0" in done.stderr
    assert of(store.points(), name) == []
    assert watts(store.points(), other) == [0, 1, 2]
    assert kept(home) == {other}
    time.sleep(0.5)
    assert of(store.points(), name) == [], "nothing that was being sent brings it back"
    meter.send(power(7, name.encode()))
    until(lambda: watts(store.points(), name) == [7.0])
    run.expect(f"meter {name} is forgotten".replace('"', "."))
    assert run.stop() < 5
    done = home.han("forget", name, influx=store)
    assert (done.returncode, of(store.points(), name)) == (0, [])
    assert "being read" not in done.stderr
    assert kept(home) == {other}
    done = home.han("forget", name, influx=store)
    assert done.returncode == 1
    message, *meters = done.stderr.splitlines()
    assert name in message
    assert meters == [f"  {other}"]


def test_no_hour_of_the_meter_is_known_any_more(home: Home, store: Store) -> None:
    """The hours of run and import are deleted from the outbox too: a later import calculates months without them."""
    gone, other = HourlyMeter("kamstrup"), HourlyMeter("kamstrup", seed=2, meter_id="OTHER")
    for number, one in enumerate((gone, other)):
        lists = [one.hourly(DAY + n * HOUR) for n in range(30)]
        file = write_stamped(home.folder / f"{number}.txt", [(sent.received, sent.frame) for sent in lists])
        assert home.han("import", file, influx=store).returncode == 0
    before = store.points()
    assert len(of(before, gone.meter_id)) > 100
    assert home.han("forget", gone.meter_id, influx=store).returncode == 0
    assert store.points() == {p for p in before if ("meter_id", "OTHER") in p.tags}
    assert kept(home) == {"OTHER"}
    again = [gone.hourly(DAY + n * HOUR) for n in range(27, 30)]
    file = write_stamped(home.folder / "again.txt", [(sent.received, sent.frame) for sent in again])
    assert home.han("import", file, influx=store).returncode == 0
    months = [dict(p.fields)["hours"] for p in of(store.points("month_energy"), gone.meter_id)]
    assert months == [2.0, 2.0], "for import and for export"


def test_what_waits_for_an_influxdb_is_deleted_too(home: Home, store: Store, meter: Meter, mark: str) -> None:
    gone, stays = f"GONE-{mark}", f"STAYS-{mark}"
    run = started(home, meter)
    for frame in (*frames_of_power(stays, range(5)), *frames_of_power(gone, range(5)), power(6, stays.encode())):
        meter.send(frame)
    until(lambda: home.waiting_lines() >= 11)
    done = home.han("forget", gone)
    assert done.returncode == 0, done.stderr
    assert "HAN_INFLUX_URL" in done.stderr
    assert re.search(r"Outbox: \D*[1-9]\d* waiting lines", done.stdout)
    assert run.stop() < 5
    run = home.run(influx=store, source=meter.path)
    until(lambda: home.waiting_lines() == 0 and store.points())
    run.stop()
    assert watts(store.points(), stays) == [0, 1, 2, 3, 4, 6]
    assert of(store.points(), gone) == []


def test_an_influxdb_that_does_not_answer_or_refuses_changes_nothing(
    home: Home,
    store: Store,
    meter: Meter,
    mark: str,
) -> None:
    run = started(home, meter, store)
    meter.send(power(1, f"M-{mark}".encode()))
    until(lambda: watts(store.points(), f"M-{mark}"))
    run.stop()
    refusals: list[tuple[dict[str, Any], str | None]] = [
        ({"influx_url": f"http://127.0.0.1:{free_port()}"}, "connection refused"),
        ({"influx_bucket": "not_there"}, "not_there"),
        ({"influx_token": "tester:wrong"}, "HAN_INFLUX_TOKEN_FILE" if store.token else None),
    ]
    for given, reason in refusals:
        if reason is not None:
            done = home.han("forget", f"M-{mark}", influx=store, **given)
            assert done.returncode == 2
            assert reason in done.stderr
            assert "wrong" not in done.stderr
    assert kept(home) == {f"M-{mark}"}
    assert watts(store.points(), f"M-{mark}") == [1.0]


@pytest.mark.parametrize("right", ["READ", "WRITE"])
def test_with_a_token_that_may_not_do_it_the_message_says_which_one_may(
    home: Home,
    store: Store,
    mark: str,
    right: str,
) -> None:
    if os.environ.get("HAN_TEST_INFLUX_URL"):
        pytest.skip("only InfluxDB 1.8 has users with these rights")
    client = store.client()
    client.write([f"active_power,direction=import,meter_id=M-{mark} value=1 1"])
    client.close()
    store.admin(f"CREATE USER u{mark}{right} WITH PASSWORD 'pw'")
    store.admin(f'GRANT {right} ON "{store.bucket}" TO u{mark}{right}')
    done = home.han("forget", f"M-{mark}", influx=store, influx_token=f"u{mark}{right}:pw")
    assert done.returncode == 2
    assert "HAN_INFLUX_TOKEN_FILE" in done.stderr
    assert "docker compose run --rm admin forget METER" in done.stderr
    assert len(store.points()) == 1


def test_quotes_in_an_id_delete_no_other_meter(home: Home, store: Store) -> None:
    ids = ["A", 'A"B', "A'B", "A B", "A,B=C", "ø%5C", "A' OR meter_id != '", 'x" OR meter_id="A']
    client = store.client()
    escaped = [one.replace(",", "\\,").replace(" ", "\\ ").replace("=", "\\=") for one in ids]
    client.write([f"active_power,direction=import,meter_id={one} value=1 {n}" for n, one in enumerate(escaped)])
    client.close()
    for number, one in enumerate(ids):
        assert len(of(store.points(), one)) == 1
        done = home.han("forget", one, influx=store)
        assert done.returncode == 0, done.stderr
        assert "1 series, 1 point." in done.stdout
        left = {dict(p.tags)["meter_id"] for p in store.points()}
        assert left == set(ids[number + 1 :])
    assert quoted("O'Hara \\") == "'O\\'Hara \\\\'"
    done = home.han("forget", "A", influx=store)
    assert (done.returncode, "no meter A." in done.stderr) == (1, True)


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_id_is_reported_as_empty(home: Home, empty: str) -> None:
    done = home.han("forget", empty)
    assert (done.returncode, "is empty" in done.stderr.splitlines()[-1]) == (1, True)
    with closing(Outbox(home.outbox)) as outbox:
        outbox.append([], {"last_id:one": "A-METER"})
    done = home.han("forget", empty)
    assert done.returncode == 1
    *_, message, meter = done.stderr.splitlines()
    assert "is empty" in message
    assert meter == "  A-METER"


@pytest.mark.parametrize(("answer", "removed"), [("n", False), ("", False), ("y", True)])
def test_on_a_terminal_it_asks(home: Home, store: Store, mark: str, answer: str, removed: bool) -> None:
    client = store.client()
    client.write([f"active_power,direction=import,meter_id=M-{mark} value=1 1"])
    client.close()
    keyboard, terminal = pty.openpty()
    os.write(keyboard, f"{answer}\n".encode())
    command = [str(HAN), "forget", f"M-{mark}"]
    done = subprocess.run(
        command,
        env=home.environment(store),
        cwd=home.folder,
        stdin=terminal,
        capture_output=True,
        timeout=HANG_S,
        check=False,
    )
    os.close(terminal)
    os.close(keyboard)
    question = done.stderr.decode()
    assert all(part in question for part in (f"M-{mark} ", "(1 series, 1 point in InfluxDB)", "[y/N]:"))
    assert done.returncode == (0 if removed else 1)
    assert len(store.points()) == (0 if removed else 1)


def test_with_yes_it_does_not_ask(home: Home, store: Store, mark: str) -> None:
    client = store.client()
    client.write([f"active_power,direction=import,meter_id=M-{mark} value=1 1"])
    client.close()
    keyboard, terminal = pty.openpty()
    command = [str(HAN), "forget", "--yes", f"M-{mark}"]
    done = subprocess.run(
        command, env=home.environment(store), cwd=home.folder, stdin=terminal, timeout=HANG_S, check=False
    )
    os.close(terminal)
    os.close(keyboard)
    assert (done.returncode, store.points()) == (0, set())


def test_a_locked_outbox_whose_service_does_not_answer(home: Home, influx: Influx, mark: str) -> None:
    outbox = Outbox(home.outbox)
    outbox.append([], {f"clock:M-{mark}": "[]"})
    done = home.han("forget", f"M-{mark}", influx=influx)
    assert done.returncode == 2
    assert str(home.outbox) in done.stderr and "try again" in done.stderr
    outbox.close()
    assert home.han("forget", f"M-{mark}", influx=influx).returncode == 0
    assert kept(home) == set()
    assert not Path(f"{home.outbox}.sock").exists()


def test_an_id_that_starts_with_a_dash_is_given_after_two_dashes(home: Home) -> None:
    outbox = Outbox(home.outbox)
    outbox.append([], {"clock:-x": "[]", "clock:M": "[]"})
    outbox.close()
    done = home.han("forget", "-x")
    assert (done.returncode, "han-exporter forget -- -x" in done.stderr) == (2, True)
    assert kept(home) == {"-x", "M"}
    assert home.han("forget", "--", "-x").returncode == 0
    assert kept(home) == {"M"}


@pytest.mark.parametrize("content", [b"", b"no database" * 1000])
def test_a_damaged_outbox_is_reported(home: Home, content: bytes) -> None:
    home.outbox.write_bytes(content)
    done = home.han("forget", "M")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{home.outbox} is {'damaged' if content else 'empty'}" in done.stderr
    assert home.outbox.read_bytes() == content
