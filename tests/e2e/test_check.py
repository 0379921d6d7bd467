"""`check` as an owner runs it: each thing that must work, tried for real, and words that say what to do."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from exporter.outbox.queue import Outbox
from tests.e2e.captures import ENCRYPTED
from tests.e2e.harness import Home, Meter, until
from tests.e2e.made import power
from tests.support.influx_server import Store, free_port
from tests.support.rows import rows

Plug = Callable[[str], Meter]


@contextmanager
def talking(meter: Meter, octets: bytes, every: float = 0.1) -> Iterator[None]:
    """The meter sends these over and over."""
    over = threading.Event()

    def talk() -> None:
        while not over.wait(every):
            meter.send(octets)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join(5)


def verdicts(text: str) -> dict[str, tuple[str, str]]:
    """What -> (ok, note or WRONG; the words)."""
    found = {}
    for line in text.splitlines():
        verdict, what, *rest = line.split(maxsplit=2)
        found[what.removesuffix(":")] = (verdict, rest[0] if rest else "")
    return found


def test_all_is_well(home: Home, store: Store, meter: Meter) -> None:
    with talking(meter, power(1, b"CHECK")):
        done = home.han("check", influx=store, source=meter.path)
    said = verdicts(done.stdout)
    assert done.returncode == 0, done.stdout
    assert said["settings"][0] == "ok"
    verdict, heard = said[str(meter.path)]
    assert verdict == "ok"
    assert heard.endswith("frames, all can be read")
    assert said["InfluxDB"][0] == "ok"
    assert said["InfluxDB"][1].startswith(f"{store.url} answers")
    assert said["token"] == ("ok", f"may write to bucket {store.bucket}")
    assert said["clock"][0] in ("ok", "note")
    assert not store.points(), "checking leaves nothing behind"
    assert not home.outbox.exists()


@pytest.mark.parametrize(
    ("settings", "what", "words"),
    [
        ({"influx_bucket": "not_there"}, "token", 'no bucket or database "not_there"'),
        ({"influx_token": "tester:wrong-secret"}, "token", "does not know the token"),
        ({"influx_url": "http://127.0.0.1:{free}"}, "InfluxDB", "cannot be reached: connection refused"),
        ({"influx_url": "http://name.invalid:8086"}, "InfluxDB", "cannot be reached: its name is not known"),
    ],
    ids=["bucket", "token", "nobody", "name"],
)
def test_each_thing_that_is_wrong_with_influxdb(
    home: Home, store: Store, settings: dict[str, Any], what: str, words: str
) -> None:
    if "influx_token" in settings and not store.token:
        pytest.skip("this server takes any token")
    settings = {name: value.replace("{free}", str(free_port())) for name, value in settings.items()}
    capture = home.folder / "a.bin"
    capture.write_bytes(power(1, b"CHECK"))
    done = home.han("check", influx=store, source=f"file:{capture}", **settings)
    said = verdicts(done.stdout)
    assert done.returncode == 1
    assert said[what][0] == "WRONG"
    assert words in said[what][1]
    assert [name for name, (verdict, _) in said.items() if verdict == "WRONG"] == [what]
    assert "wrong-secret" not in done.stdout + done.stderr


def test_no_influxdb_and_no_source(home: Home) -> None:
    done = home.han("check")
    assert done.returncode == 1
    said = verdicts(done.stdout)
    assert said["source"] == ("WRONG", "none is given: set HAN_SOURCE, for example to /dev/ttyUSB0, or to sim:")
    assert said["InfluxDB"][0] == "note"
    assert "`run` keeps everything in its outbox" in said["InfluxDB"][1]


def test_what_is_wrong_with_sources(home: Home, plug: Plug) -> None:
    silent, garbled, encrypted = plug("ttySILENT"), plug("ttyGARBLED"), plug("ttyENCRYPTED")
    ordinary = home.folder / "file"
    ordinary.write_bytes(b"")
    missing = home.folder / "ttyMISSING"
    sources = [home.folder, ordinary, missing, silent.path, garbled.path, encrypted.path]
    with talking(garbled, b"\xd5\x55\xaa" * 100, 0.05), talking(encrypted, ENCRYPTED):
        done = home.han("check", "--seconds", "1", source=" ".join(map(str, sources)))
    assert done.returncode == 1
    said = verdicts(done.stdout)
    for source, words in zip(
        sources,
        (
            "is a directory, not a port; give the port in it, for example",
            "is no capture: it is empty",
            f"no such port: {missing}; is the adapter plugged in?",
            "open, but no octet came in 1 s: is the adapter in the HAN port, is it on?",
            f"no frame: wrong parity or speed? Run `han-exporter probe {garbled.path}`",
            "none can be read: encrypted; not supported yet",
        ),
        strict=True,
    ):
        verdict, told = said[str(source)]
        assert (verdict, words in told) == ("WRONG", True), (source, told)


def without_the_right_to_open() -> Sequence[str]:
    """A command that starts another one to which the modes of files apply, as they do to any user but root."""
    if os.geteuid() != 0:
        return ()
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")


@pytest.mark.parametrize("command", ["check", "run"])
def test_no_permission_on_the_port_names_the_group_to_join(home: Home, meter: Meter, command: str) -> None:
    import grp

    group = grp.getgrgid(os.stat(meter.device).st_gid).gr_name  # noqa: PTH116
    os.chmod(meter.device, 0o060)  # noqa: PTH101 - the group may, and we as its owner may not
    words = f"no permission to open {meter.path}: "
    if any(Path(sign).exists() for sign in ("/.dockerenv", "/run/.containerenv")):
        number = os.stat(meter.device).st_gid  # noqa: PTH116
        words += f"it belongs to group {group}; inside this container: set HAN_COMPOSE_DIALOUT_GID={number} in .env "
    else:
        words += f"add the user to group {group}: sudo usermod -aG {group} "
    before = without_the_right_to_open()
    if command == "check":
        done = home.han("check", "--seconds", "1", source=meter.path, before=before)
        assert done.returncode == 1
        assert verdicts(done.stdout)[str(meter.path)][0] == "WRONG"
        assert words in done.stdout
        return
    run = home.run(source=meter.path, before=before)
    run.expect(re.escape(words))
    os.chmod(meter.device, 0o660)  # noqa: PTH101 - it is tried again, so giving it the right is enough
    run.expect("is open")
    meter.send(power(1, b"ALLOWED"))
    run.expect("reading ttyHAN0")
    assert run.stop() < 5


def test_while_run_holds_the_port_it_is_asked_and_the_port_left_alone(home: Home, store: Store, meter: Meter) -> None:
    run = home.run(influx=store, source=meter.path)
    run.expect("is open")
    meter.send(power(5, b"HELD"))
    until(lambda: store.points("active_power"))
    done = home.han("check", influx=store, source=meter.path)
    said = verdicts(done.stdout)
    assert done.returncode == 0, done.stdout
    assert said["service"][0] == "ok"
    assert f"process {run.process.pid}," in said["service"][1]
    verdict, words = said["ttyHAN0"]
    assert verdict == "ok"
    assert "reading ttyHAN0; 1 frames, the last" in words
    assert said["outbox"] == ("ok", f"{home.outbox}: 0 lines wait")
    assert said["token"][0] == "ok"
    meter.send(power(6, b"HELD"))  # nothing of it was taken away
    until(lambda: len(store.points("active_power")) == 2)
    assert run.stop() < 5


def test_the_health_check(home: Home, meter: Meter) -> None:
    assert home.han("check", "--running").returncode == 1
    run = home.run(source=meter.path)
    run.expect("is open")
    waiting = home.han("check", "--running", source=meter.path)
    assert waiting.returncode == 0, "just begun: 5 minutes are not over"
    assert list(verdicts(waiting.stdout)) == ["service", "ttyHAN0", "outbox"], "it opens nothing and asks nobody else"
    for _ in range(3):
        meter.send(ENCRYPTED)
    run.expect("none can be read: encrypted; not supported yet")
    red = home.han("check", "--running")
    assert red.returncode == 1
    assert "WRONG  service: frames come from ttyHAN0 and none can be read: encrypted; not supported yet" in red.stdout
    meter.send(power(1, b"PLAIN"))
    run.expect("reading ttyHAN0")
    assert home.han("check", "--running").returncode == 0
    meter.unplug()
    run.expect("gone: unplugged")
    gone = home.han("check", "--running")
    assert gone.returncode == 0, "an adapter that is out for a moment is no fault yet"
    assert "note   ttyHAN0: " in gone.stdout
    assert home.han("check").returncode == 1, "but who asks wants to know"
    assert run.stop() < 5


def test_an_outbox_that_nobody_holds(home: Home) -> None:
    outbox = Outbox(home.outbox)
    for number in range(300):
        outbox.append(rows([f"a value={number}.0 {number}"] * 10))
    outbox.close()
    whole = home.outbox.read_bytes()
    assert verdicts(home.han("check").stdout)["outbox"] == ("ok", f"{home.outbox}: 3000 lines wait")
    for octets, words in (
        (whole[: len(whole) // 3], "is damaged (database disk image is malformed). `han-exporter run` sets it aside"),
        (os.urandom(9000), "is damaged (file is not a database)"),
        (b"", "is empty, a file of 0 octets"),
    ):
        home.outbox.write_bytes(octets)
        done = home.han("check")
        verdict, told = verdicts(done.stdout)["outbox"]
        assert (done.returncode, verdict) == (1, "WRONG")
        assert words in told
        assert home.outbox.read_bytes() == octets, "it only looks"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ALTER TABLE chunk ADD COLUMN kind TEXT; PRAGMA user_version = 3", "was made by a newer han-exporter: use "),
        ("DROP TABLE tally; CREATE TABLE more (one TEXT); PRAGMA user_version = 7", "was made by a newer han-exporter"),
        ("PRAGMA user_version = 5000", "is damaged (its version, 5000, is impossible)"),
        ("DROP TRIGGER chunk_out", "is damaged (its tables are not as they were made)"),
    ],
)
def test_it_says_of_an_outbox_what_run_will_say(home: Home, meter: Meter, change: str, words: str) -> None:
    Outbox(home.outbox).close()
    with closing(sqlite3.connect(home.outbox)) as db:
        db.executescript(change)
    assert verdicts(home.han("check").stdout)["outbox"][0] == "WRONG"
    assert words in verdicts(home.han("check").stdout)["outbox"][1]
    if "newer" in words:
        done = home.han("run", source=meter.path)
        assert done.returncode == 2
        assert words in done.stderr


def test_it_listens_as_run_has_found_out(home: Home) -> None:
    from tests.e2e.test_line_found import gateway

    with gateway() as (source, _):
        name = source.removeprefix("rfc2217://")
        said = verdicts(home.han("check", "--seconds", "5", source=f"{source} sim:kamstrup").stdout)
        assert said[source][0] == "WRONG"
        outbox = Outbox(home.outbox)
        outbox.append([], {f"line:{name}": "parity=E"})
        outbox.close()
        verdict, told = verdicts(home.han("check", source=source).stdout)[source]
        assert verdict == "ok", told
        assert "all can be read (parity=E, which `run` has found out)" in told
