"""`run` as a process: the installed command, real ports, a real InfluxDB."""

from __future__ import annotations

import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest

from exporter.counted import grouped
from tests.e2e.harness import Home, Meter, started, words
from tests.e2e.made import frames_of_power, power
from tests.e2e.truth import assert_same, of_exporter, of_meters, point, points_of_lists, powers, times_of
from tests.support.influx_server import Influx, Store, free_port
from tests.support.patience import until

Plug = Callable[[str], Meter]
STOP = 5.0
"""Seconds that a stop may take."""


# --- on the way to InfluxDB -------------------------------------------------------------------------------------------


def test_a_reading_is_in_influxdb_within_a_second_of_its_closing_flag(
    home: Home, store: Store, meter: Meter, mark: str
) -> None:
    run = started(home, meter, store)
    frames = frames_of_power(f"SOON-{mark}", range(1, 13))
    took = []
    for number, data in enumerate(frames, 1):
        meter.send(data[:-1])
        time.sleep(0.15 * random.random())  # at any moment of the loops in the service
        meter.send(data[-1:])
        took.append(until(lambda number=number: len(powers(store.points()).get(f"SOON-{mark}", [])) == number, 10))  # type: ignore[misc]
    assert_same(of_meters(store.points()), points_of_lists(store.points(), f"SOON-{mark}", frames))
    print(
        f"\nin InfluxDB after the closing flag: {max(took):.3f} s at most, {sorted(took)[len(took) // 2]:.3f} s median"
    )
    assert max(took) < 3
    assert sorted(took)[len(took) // 2] < 1
    assert run.stop() < STOP


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_loses_nothing_that_was_sent(
    home: Home, store: Store, meter: Meter, mark: str, number: signal.Signals
) -> None:
    run = started(home, meter, store, instance=mark)
    frames = frames_of_power(f"STOP-{mark}", range(20))
    for data in frames:
        meter.send(data)
    took = run.stop(number)
    print(f"\n{number.name} to end: {took:.2f} s")
    assert took < STOP
    assert_same(of_meters(store.points()), points_of_lists(store.points(), f"STOP-{mark}", frames))
    assert number.name in words(run.log)
    assert "nothing is left unsent" in words(run.log)
    events = [dict(p.tags) for p in sorted(of_exporter(store.points()), key=lambda p: p.time)]
    assert [e["kind"] for e in events if "kind" in e] == ["start", "stop"]
    assert home.waiting_lines() == 0


@contextmanager
def black_hole() -> Iterator[int]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        yield hole.getsockname()[1]


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_a_stop_without_influxdb_keeps_all_for_the_next_run(
    home: Home, store: Store, meter: Meter, mark: str, silent: bool
) -> None:
    frames = frames_of_power(f"AWAY-{mark}", range(20))
    with black_hole() as hole:
        run = started(home, meter, store, influx_url=f"http://127.0.0.1:{hole if silent else free_port()}")
        for data in frames[:10]:
            meter.send(data)
        until(lambda: home.waiting_lines() >= 10)
        if not silent:
            run.expect("connection refused")
        for data in frames[10:]:
            meter.send(data)
        took = run.stop()
    print(f"\nSIGTERM to end without InfluxDB: {took:.2f} s")
    assert took < STOP
    left = home.waiting_lines()
    assert left >= 20
    assert f"{grouped(left)} lines" in words(run.log)
    assert str(home.outbox) in words(run.log)
    assert not store.points()

    run = home.run(influx=store, source=meter.path)
    until(lambda: home.waiting_lines() == 0 and store.points())
    assert run.stop() < STOP
    assert_same(of_meters(store.points()), points_of_lists(store.points(), f"AWAY-{mark}", frames))


def test_a_kill_loses_nothing_that_is_in_the_outbox(home: Home, store: Store, meter: Meter, mark: str) -> None:
    frames = frames_of_power(f"KILL-{mark}", range(30))
    run = started(home, meter, store, influx_url=f"http://127.0.0.1:{free_port()}")
    for data in frames:
        meter.send(data)
    until(lambda: home.waiting_lines() >= 30)
    run.kill()
    run = home.run(influx=store, source=meter.path)
    until(lambda: home.waiting_lines() == 0 and store.points())
    run.stop()
    assert_same(of_meters(store.points()), points_of_lists(store.points(), f"KILL-{mark}", frames))


def test_kills_at_any_moment_leave_whole_readings_and_no_holes(
    home: Home, store: Store, meter: Meter, mark: str
) -> None:
    """What arrived between two kills is a beginning of what was sent, without a hole."""
    sent = 0
    begun = []
    for round_ in range(4):
        run = started(home, meter, store)
        begun.append(sent)
        killer = threading.Timer(0.05 + 0.25 * random.random(), run.kill)
        killer.start()
        with suppress(TimeoutError):
            while killer.is_alive():
                meter.send(power(sent, f"ANY-{round_}-{mark}".encode()), patience=1)
                sent += 1
                time.sleep(0.002)
        killer.join()
    run = home.run(influx=store, source=meter.path)
    run.expect("is open")
    until(lambda: home.waiting_lines() == 0)
    assert run.stop() < STOP
    there = powers(of_meters(store.points()))
    for round_, (first, end) in enumerate(pairwise([*begun, sent])):
        values = there.get(f"ANY-{round_}-{mark}", [])
        assert values == [float(n) for n in range(first, first + len(values))]
        assert len(values) <= end - first
    print(f"\n{sum(map(len, there.values()))} readings of {sent} before four kills")
    assert sum(map(len, there.values())) > 20


# --- without an InfluxDB ----------------------------------------------------------------------------------------------


def test_without_an_influxdb_everything_is_kept_and_sent_once_there_is_one(
    home: Home, store: Store, meter: Meter, mark: str
) -> None:
    frames = frames_of_power(f"LATER-{mark}", range(25))
    run = started(home, meter)
    assert str(home.outbox) in run.expect("HAN_INFLUX_URL")
    for data in frames:
        meter.send(data)
    until(lambda: home.waiting_lines() >= 25)
    status = home.han("check", source=meter.path)
    (outbox,) = (line for line in status.stdout.splitlines() if line.startswith("ok     outbox: "))
    assert f"{home.outbox}: {grouped(home.waiting_lines())} lines " in outbox
    assert any(line.startswith("note   InfluxDB: ") and "HAN_INFLUX_URL" in line for line in status.stdout.splitlines())
    assert run.stop() < STOP
    assert f"{grouped(home.waiting_lines())} lines" in words(run.log)

    run = home.run(influx=store, source=meter.path)
    until(lambda: home.waiting_lines() == 0 and store.points())
    run.stop()
    assert_same(of_meters(store.points()), points_of_lists(store.points(), f"LATER-{mark}", frames))


# --- settings and InfluxDB that are wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["bucket", "token"])
def test_what_is_wrong_with_influxdb_is_logged_and_nothing_is_lost(
    home: Home, store: Store, meter: Meter, mark: str, wrong: str
) -> None:
    if wrong == "token" and not store.token:
        pytest.skip("this server takes any token")
    settings: dict[str, Any] = (
        {"influx_bucket": "not_there"} if wrong == "bucket" else {"influx_token": "tester:wrong-secret"}
    )
    run = started(home, meter, store, **settings)
    frames = frames_of_power(f"WRONG-{mark}", range(5))
    for data in frames:
        meter.send(data)
    assert ("not_there" if wrong == "bucket" else "HAN_INFLUX_TOKEN") in run.expect(" ERROR ")
    until(lambda: home.waiting_lines() >= 5)
    check = home.han("check", influx=store, source=meter.path, **settings)
    assert check.returncode == 1
    assert re.search("WRONG  token: .*" + ("not_there" if wrong == "bucket" else "token"), check.stdout)
    assert run.stop() < STOP
    run_again = home.run(influx=store, source=meter.path)
    until(lambda: home.waiting_lines() == 0 and store.points())
    run_again.stop()
    assert_same(of_meters(store.points()), points_of_lists(store.points(), f"WRONG-{mark}", frames))
    log = words([*run.log, *run_again.log, check.stdout, check.stderr])
    assert "wrong-secret" not in log
    assert not store.token or store.token.partition(":")[2] not in log


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"source": ""}, ["HAN_SOURCE"]),
        ({"source": "ttyUSB9"}, ["ttyUSB9"]),
        ({"source": "usb:ttyUSB0"}, ["usb:"]),
        ({"source": "/dev/ttyUSB0?parity=X"}, ["parity=X", "N ", "E ", "O "]),
        ({"source": "sim:landis"}, ["landis", "sim:kamstrup"]),
        ({"influx_url": "localhost:8086"}, ["HAN_INFLUX_URL", "http://", "https://"]),
        ({"timezone": "Oslo"}, ["HAN_TIMEZONE", "'Oslo'"]),
        ({"outbox_max": "lots"}, ["HAN_OUTBOX_MAX", "K, M or G"]),
        ({"outbox_max": "100K"}, ["HAN_OUTBOX_MAX", "1M"]),
        ({"log_level": "loud"}, ["HAN_LOG_LEVEL", "'debug', 'info', 'warning' or 'error'"]),
        ({"main_fuse_a": "-3"}, ["HAN_MAIN_FUSE_A", "0"]),
        ({"inflix_url": "http://x"}, ["HAN_INFLIX_URL", "HAN_INFLUX_URL"]),
        ({"influx_url": "http://x", "influx_token_file": "/no/token"}, ["HAN_INFLUX_TOKEN_FILE", "/no/token"]),
        ({"influx_token": "tell-no-one", "influx_token_file": "/x"}, ["HAN_INFLUX_TOKEN", "HAN_INFLUX_TOKEN_FILE"]),
    ],
)
def test_wrong_settings_end_it_at_once_with_what_is_allowed(
    home: Home, settings: dict[str, Any], names: list[str]
) -> None:
    given = {"source": "sim:kamstrup"} | settings
    for command in ["run"] if "source" in settings or "token_file" in "".join(settings) else ["run", "check"]:
        done = home.han(command, **given)
        assert done.returncode == 2, (command, done.stderr)
        assert all(name in done.stderr for name in names), done.stderr
        assert "tell-no-one" not in done.stderr + done.stdout


def test_han_toml_is_named_with_the_setting(home: Home) -> None:
    (home.folder / "han.toml").write_text('source = "sim:kamstrup"\nmain_fuse_a = "big"\nspeed = 3\n')
    done = home.han("run")
    assert done.returncode == 2
    assert "main_fuse_a in han.toml: " in done.stderr
    assert "speed in han.toml: " in done.stderr


def test_only_one_run_can_use_an_outbox(home: Home, meter: Meter) -> None:
    first = started(home, meter)
    second = home.han("run", source="sim:kamstrup")
    assert second.returncode == 2
    assert f"process {first.process.pid}" in second.stderr
    assert str(home.outbox) in second.stderr
    assert "HAN_OUTBOX" in second.stderr
    assert first.stop() < STOP


def test_an_outbox_that_cannot_be_made(home: Home) -> None:
    file = home.folder / "file"
    file.write_text("")
    done = home.han("run", source="sim:kamstrup", outbox=file / "outbox.sqlite")
    assert done.returncode == 2
    assert f"outbox {file}/outbox.sqlite" in done.stderr


# --- ports ------------------------------------------------------------------------------------------------------------


def test_a_directory_is_no_port(home: Home) -> None:
    done = home.han("run", source=home.folder)
    assert done.returncode == 2
    assert f"{home.folder} is a directory" in done.stderr


def test_a_port_that_appears_later_and_is_unplugged_and_comes_back(
    home: Home, store: Store, plug: Plug, mark: str
) -> None:
    path = home.folder / "ttyHAN7"
    run = home.run(influx=store, source=path)
    frames = frames_of_power(f"BACK-{mark}", range(2))
    for number, data in enumerate(frames, 1):
        run.expect(f"no such port: {path}", times=number)
        meter = plug("ttyHAN7")
        run.expect(r"\(2400 8N1\) is open", times=number)
        meter.send(data)
        until(lambda number=number: len(powers(store.points()).get(f"BACK-{mark}", [])) == number)  # type: ignore[misc]
        meter.unplug()
        run.expect(f"{path} .*unplugged", times=number)
    assert run.stop() < STOP
    assert_same(of_meters(store.points()), points_of_lists(store.points(), f"BACK-{mark}", frames))
    events = [
        (dict(p.tags)["kind"], dict(p.fields)["text"]) for p in sorted(store.points("event"), key=lambda p: p.time)
    ]
    assert [kind for kind, _ in events] == ["start", "reconnect", "reconnect", "stop"], "one pair in five minutes"
    assert "ttyHAN7" in events[1][1] and str(path) in events[1][1]
    assert "ttyHAN7" in events[2][1] and " s" in events[2][1]


def test_two_meters_and_one_source_that_is_dead(home: Home, store: Store, plug: Plug, mark: str) -> None:
    one, other = plug("ttyA"), plug("ttyB")
    sources = f"{one.path} {home.folder} {other.path}"
    run = home.run(influx=store, source=sources)
    run.expect(f" ERROR {home.folder} is a directory")
    run.expect("is open", times=2)
    frames = {name: frames_of_power(f"{name}-{mark}", range(10, 20)) for name in ("LEFT", "RIGHT")}
    for left, right in zip(*frames.values(), strict=True):
        one.send(left)
        other.send(right)
    until(lambda: sum(map(len, powers(store.points()).values())) == 20)
    wanted = {p for name in frames for p in points_of_lists(store.points(), f"{name}-{mark}", frames[name])}
    assert_same(of_meters(store.points()), wanted)
    check = home.han("check", influx=store, source=sources)
    assert check.returncode == 1
    (dead,) = (line for line in check.stdout.splitlines() if line.startswith("WRONG"))
    assert "is a directory" in dead
    healthy = home.han("check", "--running")
    assert healthy.returncode == 1, "a source that can never work is a fault"
    assert run.stop() < STOP


# --- a folder that is deep --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["deep folder", "long name"])
def test_check_reaches_run_with_a_long_path_of_the_outbox(home: Home, meter: Meter, where: str) -> None:
    if where == "deep folder":
        outbox = home.folder.joinpath(*[f"a-folder-of-some-length-{n}" for n in range(8)], "outbox.sqlite")
    else:
        outbox = home.folder / f"{'o' * 150}.sqlite"
    assert len(bytes(outbox)) > 150
    run = started(home, meter, outbox=outbox)
    meter.send(power(1, b"DEEP"))
    run.expect("reading ttyHAN0")
    done = home.han("check", "--running", outbox=outbox)
    assert done.returncode == 0, done.stdout
    assert f"process {run.process.pid}" in done.stdout
    assert run.stop() < STOP
    done = home.han("check", "--running", outbox=outbox)
    assert done.returncode == 1
    assert done.stdout.startswith("WRONG  service: ")


def test_a_socket_that_a_killed_run_left_is_replaced(home: Home, meter: Meter) -> None:
    run = started(home, meter)
    run.kill()
    assert home.han("check", "--running").returncode == 1
    run = started(home, meter)
    until(lambda: home.han("check", "--running").returncode == 0)
    assert run.stop() < STOP


# --- sources with an end ----------------------------------------------------------------------------------------------


def test_a_run_whose_sources_have_ended_waits_for_influxdb_and_ends(home: Home, influx: Influx, mark: str) -> None:
    store = Store(influx)
    file = home.folder / "capture.bin"
    frames = frames_of_power(f"END-{mark}", range(5))
    stamps = [f"2026-05-01T10:00:0{n}.500Z {data.hex()}\n" for n, data in enumerate(frames)]
    file.write_text("".join(stamps))
    influx.stop()
    run = home.run(influx=store, source=f"file:{file}")
    run.expect("every source has ended")
    influx.start()
    assert run.wait() == 0
    first = 1777629600500
    assert_same(
        of_meters(store.points()),
        {point("1-0:1.7.0", f"END-{mark}", first + 1000 * n, float(n)) for n in range(5)},
    )
    assert times_of(store.points(), f"END-{mark}") == [first + 1000 * n for n in range(5)]
    assert words(run.log).count("nothing is left unsent") == 1
