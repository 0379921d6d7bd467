"""`check` as a user runs it: everything that has to work is really tested, and messages say what to do."""

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
from tests.e2e.harness import Home, Meter
from tests.e2e.made import power
from tests.support.influx_server import Store, free_port
from tests.support.patience import HANG_S, until
from tests.support.rows import rows

Plug = Callable[[str], Meter]


@contextmanager
def talking(meter: Meter, data: bytes, every: float = 0.1) -> Iterator[None]:
    """The meter sends the same bytes again and again."""
    over = threading.Event()

    def talk() -> None:
        while not over.wait(every):
            meter.send(data)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join(HANG_S)


def verdicts(text: str) -> dict[str, tuple[str, str]]:
    """What was checked -> (ok, note or WRONG; the message)."""
    found = {}
    for line in text.splitlines():
        verdict, what, *rest = line.split(maxsplit=2)
        found[what.removesuffix(":")] = (verdict, rest[0] if rest else "")
    return found


def test_everything_works(home: Home, store: Store, meter: Meter) -> None:
    with talking(meter, power(1, b"CHECK")):
        done = home.han("check", influx=store, source=meter.path)
    found = verdicts(done.stdout)
    assert done.returncode == 0, done.stdout
    assert found["settings"][0] == "ok"
    verdict, received = found[str(meter.path)]
    assert verdict == "ok"
    assert re.match(r"[1-9]\d* bytes, [1-9]\d* frames?, all ", received)
    assert found["InfluxDB"][0] == "ok"
    assert found["InfluxDB"][1].startswith(store.url)
    assert found["token"][0] == "ok"
    assert store.bucket in found["token"][1]
    assert found["clock"][0] in ("ok", "note")
    assert not store.points(), "checking leaves nothing behind"
    assert not home.outbox.exists()


@pytest.mark.parametrize(
    ("settings", "what", "reason"),
    [
        ({"influx_bucket": "not_there"}, "token", "not_there"),
        ({"influx_token": "tester:wrong-secret"}, "token", "does not know the token"),
        ({"influx_url": "http://127.0.0.1:{free}"}, "InfluxDB", "connection refused"),
        ({"influx_url": "http://name.invalid:8086"}, "InfluxDB", "name"),
    ],
    ids=["bucket", "token", "nothing listens", "name"],
)
def test_each_thing_that_is_wrong_with_influxdb(
    home: Home, store: Store, settings: dict[str, Any], what: str, reason: str
) -> None:
    if "influx_token" in settings and not store.token:
        pytest.skip("this server takes any token")
    settings = {name: value.replace("{free}", str(free_port())) for name, value in settings.items()}
    capture = home.folder / "a.bin"
    capture.write_bytes(power(1, b"CHECK"))
    done = home.han("check", influx=store, source=f"file:{capture}", **settings)
    found = verdicts(done.stdout)
    assert done.returncode == 1
    assert found[what][0] == "WRONG"
    assert reason in found[what][1]
    assert [name for name, (verdict, _) in found.items() if verdict == "WRONG"] == [what]
    assert "wrong-secret" not in done.stdout + done.stderr


def test_no_influxdb_and_no_source(home: Home) -> None:
    done = home.han("check")
    assert done.returncode == 1
    found = verdicts(done.stdout)
    assert found["source"][0] == "WRONG"
    assert "HAN_SOURCE" in found["source"][1]
    assert found["InfluxDB"][0] == "note"
    assert "HAN_INFLUX_URL" in found["InfluxDB"][1]


def test_what_is_wrong_with_sources(home: Home, plug: Plug) -> None:
    silent, garbled, encrypted = plug("ttySILENT"), plug("ttyGARBLED"), plug("ttyENCRYPTED")
    ordinary = home.folder / "file"
    ordinary.write_bytes(b"")
    missing = home.folder / "ttyMISSING"
    sources = [home.folder, ordinary, missing, silent.path, garbled.path, encrypted.path]
    with talking(garbled, b"\xd5\x55\xaa" * 100, 0.05), talking(encrypted, ENCRYPTED):
        done = home.han("check", "--seconds", "1", source=" ".join(map(str, sources)))
    assert done.returncode == 1
    found = verdicts(done.stdout)
    for source, reason in zip(
        sources,
        (
            "directory",
            "empty",
            f"no such port: {missing}",
            " 1 s: is the adapter in the HAN port",
            f"wrong parity or speed? Run `han-exporter probe {garbled.path}`",
            "encrypted",
        ),
        strict=True,
    ):
        verdict, message = found[str(source)]
        assert (verdict, reason in message) == ("WRONG", True), (source, message)


def without_the_right_to_open() -> Sequence[str]:
    """A command that starts another one for which the modes of files count, as they do for every user except root."""
    if os.geteuid() != 0:
        return ()
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")


@pytest.mark.parametrize("command", ["check", "run"])
def test_no_permission_on_the_port_names_the_group_to_join(home: Home, meter: Meter, command: str) -> None:
    import grp

    group = grp.getgrgid(os.stat(meter.device).st_gid).gr_name  # noqa: PTH116
    os.chmod(meter.device, 0o060)  # noqa: PTH101 - the group may open it, its owner may not
    if any(Path(sign).exists() for sign in ("/.dockerenv", "/run/.containerenv")):
        advice = f"HAN_COMPOSE_DIALOUT_GID={os.stat(meter.device).st_gid} in .env "  # noqa: PTH116
    else:
        advice = f"sudo usermod -aG {group} "
    before = without_the_right_to_open()
    if command == "check":
        done = home.han("check", "--seconds", "1", source=meter.path, before=before)
        assert done.returncode == 1
        verdict, message = verdicts(done.stdout)[str(meter.path)]
        assert verdict == "WRONG"
        assert all(part in message for part in (str(meter.path), f"group {group}", advice)), message
        return
    run = home.run(source=meter.path, before=before)
    run.expect(f"{re.escape(str(meter.path))}.*group {group}.*{re.escape(advice)}")
    os.chmod(meter.device, 0o660)  # noqa: PTH101 - run tries again, so the permission is enough
    run.expect("is open")
    meter.send(power(1, b"ALLOWED"))
    run.expect("reading ttyHAN0")
    assert run.stop() < 5


def test_while_run_is_using_the_port_run_is_asked_and_the_port_is_not_opened(
    home: Home, store: Store, meter: Meter
) -> None:
    run = home.run(influx=store, source=meter.path)
    run.expect("is open")
    meter.send(power(5, b"HELD"))
    until(lambda: store.points("active_power"))
    done = home.han("check", influx=store, source=meter.path)
    found = verdicts(done.stdout)
    assert done.returncode == 0, done.stdout
    assert found["service"][0] == "ok"
    assert f"process {run.process.pid}," in found["service"][1]
    verdict, message = found["ttyHAN0"]
    assert verdict == "ok"
    assert "; 1 frame, " in message
    assert found["outbox"][0] == "ok"
    assert found["outbox"][1].startswith(f"{home.outbox}: 0 lines ")
    assert found["token"][0] == "ok"
    meter.send(power(6, b"HELD"))  # check did not take any of its bytes
    until(lambda: len(store.points("active_power")) == 2)
    assert run.stop() < 5


def test_the_health_check(home: Home, meter: Meter) -> None:
    assert home.han("check", "--running").returncode == 1
    run = home.run(source=meter.path)
    run.expect("is open")
    waiting = home.han("check", "--running", source=meter.path)
    assert waiting.returncode == 0, "it has just started: 5 minutes are not over"
    assert list(verdicts(waiting.stdout)) == ["service", "ttyHAN0", "outbox"], "it opens nothing and asks nothing else"
    for _ in range(3):
        meter.send(ENCRYPTED)
    run.expect("ttyHAN0 .*none .*encrypted")
    red = home.han("check", "--running")
    assert red.returncode == 1
    [wrong] = [line for line in red.stdout.splitlines() if line.startswith("WRONG  service: ")]
    assert "ttyHAN0" in wrong and "encrypted" in wrong
    meter.send(power(1, b"PLAIN"))
    run.expect("reading ttyHAN0")
    assert home.han("check", "--running").returncode == 0
    meter.unplug()
    run.expect("unplugged")
    gone = home.han("check", "--running")
    assert gone.returncode == 0, "an adapter that is unplugged for a moment is not an error yet"
    assert "note   ttyHAN0: " in gone.stdout
    assert home.han("check").returncode == 1, "but a user wants to know"
    assert run.stop() < 5


def test_an_outbox_that_no_service_is_using(home: Home) -> None:
    outbox = Outbox(home.outbox)
    for number in range(300):
        outbox.append(rows([f"a value={number}.0 {number}"] * 10))
    outbox.close()
    whole = home.outbox.read_bytes()
    verdict, message = verdicts(home.han("check").stdout)["outbox"]
    assert verdict == "ok"
    assert message.startswith(f"{home.outbox}: 3 000 lines ")
    for content, reason in (
        (whole[: len(whole) // 3], "is damaged (database disk image is malformed)"),
        (os.urandom(9000), "is damaged (file is not a database)"),
        (b"", "is empty"),
    ):
        home.outbox.write_bytes(content)
        done = home.han("check")
        verdict, message = verdicts(done.stdout)["outbox"]
        assert (done.returncode, verdict) == (1, "WRONG")
        assert reason in message
        assert home.outbox.read_bytes() == content, "check only reads it"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("ALTER TABLE chunk ADD COLUMN kind TEXT; PRAGMA user_version = 99", "newer"),
        ("DROP TABLE tally; CREATE TABLE more (one TEXT); PRAGMA user_version = 7", "newer"),
        ("PRAGMA user_version = 5000", "5000"),
        ("DROP TRIGGER chunk_out", "damaged"),
    ],
)
def test_it_reports_of_an_outbox_what_run_will_report(home: Home, meter: Meter, change: str, reason: str) -> None:
    Outbox(home.outbox).close()
    with closing(sqlite3.connect(home.outbox)) as db:
        db.executescript(change)
    verdict, message = verdicts(home.han("check").stdout)["outbox"]
    assert (verdict, reason in message) == ("WRONG", True), message
    if reason == "newer":
        done = home.han("run", source=meter.path)
        assert done.returncode == 2
        assert message in done.stderr


def test_it_listens_with_the_setting_that_run_found(home: Home) -> None:
    from tests.e2e.test_line_found import gateway

    with gateway() as (source, _):
        name = source.removeprefix("rfc2217://")
        found = verdicts(home.han("check", "--seconds", "5", source=f"{source} sim:kamstrup").stdout)
        assert found[source][0] == "WRONG"
        outbox = Outbox(home.outbox)
        outbox.append([], {f"line:{name}": "parity=E"})
        outbox.close()
        verdict, message = verdicts(home.han("check", source=source).stdout)[source]
        assert verdict == "ok", message
        assert "(parity=E" in message
