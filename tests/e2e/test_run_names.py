"""Meter ids and names in `run` as a process: odd ones, missing ones, two that are the same."""

from __future__ import annotations

import time
from collections.abc import Callable

from exporter.meters import safe_text
from exporter.outbox.queue import Outbox
from tests.e2e.harness import Home, Meter, assert_lines_are_whole, started, words
from tests.e2e.made import power
from tests.e2e.truth import of_exporter, of_meters, powers
from tests.support.influx_server import Store
from tests.support.patience import until

Plug = Callable[[str], Meter]
STOP = 5.0
"""Seconds that a stop may take."""

ODD_IDS = {
    b"57 06,50=5\"67'": "57 06,50=5\"67'",
    b"a=b, c": "a=b, c",
    b"two\nlines\r\n2026-11-22 ERROR not so": "two%0Alines%0D%0A2026-11-22 ERROR not so",
    b"C:\\meter\\": "C:%5Cmeter%5C",
    b"100%": "100%25",
    b"  before and after  \x00\x00": "  before and after",
    "Ålesund-é-電-😀".encode(): "Ålesund-é-電-😀",
    b"\xff\xfe latin \xe5": "%FF%FE latin %E5",
    "turned \u202e round".encode(): "turned %E2%80%AE round",
    b"\x1b[31mred": "%1B[31mred",
    b"3" * 300: "3" * 128 + "~",
    b"#comment,=\\": "#comment,=%5C",
}


def test_odd_meter_ids_are_made_safe_and_break_no_line(home: Home, store: Store, meter: Meter) -> None:
    run = started(home, meter, store)
    wanted = {}
    for watts, (raw, safe) in enumerate(ODD_IDS.items()):
        made_safe = safe_text(raw)
        assert made_safe is not None
        assert made_safe == safe or (len(raw) == 300 and made_safe.startswith(safe) and len(made_safe) == 141)
        wanted[made_safe] = [float(watts), float(watts)]
    for _ in range(2):  # in the second round it is logged, with their ids, that they alternate
        for watts, raw in enumerate(ODD_IDS):
            meter.send(power(watts, raw))
            time.sleep(0.002)
    until(lambda: sum(map(len, powers(of_meters(store.points())).values())) == 2 * len(ODD_IDS))
    assert powers(of_meters(store.points())) == wanted
    found = {dict(p.tags)["meter_id"] for p in of_meters(store.points())}
    assert found == set(wanted)
    run.expect("two meters.* ttyHAN0")
    assert run.stop() < STOP
    assert_lines_are_whole(run)
    outbox = Outbox(home.outbox, read_only=True)
    assert outbox.status().rejected_lines == 0
    outbox.close()


def test_names_in_the_settings_may_be_anything(home: Home, store: Store, plug: Plug, mark: str) -> None:
    """HAN_METER_ID, HAN_INSTANCE, and the name of a port or file."""
    meter = plug('tty, "x"=\\')
    run = home.run(influx=store, source="", meter_id=f'my meter, "{mark}"\n= \\', instance=f"här\n{mark}\\")
    assert run.wait() == 2
    assert "HAN_SOURCE" in words(run.log), "it has no source; the names are not wrong"
    run = home.run(influx=store, source=meter.device, meter_id=f'my meter, "{mark}"\n= \\', instance=f"här\n{mark}\\")
    run.expect("is open")
    meter.send(power(7))
    run.expect("reading")
    assert run.stop() < STOP  # the list that waits for an id gets the one of the settings
    assert powers(of_meters(store.points())) == {f'my meter, "{mark}"%0A= %5C': [7.0]}
    assert {dict(p.tags)["instance"] for p in of_exporter(store.points()) if p.measurement == "event"} == {
        f"här%0A{mark}%5C"
    }
    assert_lines_are_whole(run)


def test_lists_without_an_id_get_the_last_one_also_after_a_kill(
    home: Home, store: Store, meter: Meter, mark: str
) -> None:
    run = started(home, meter, store)
    meter.send(power(1))
    meter.send(power(2))
    run.expect("reading ttyHAN0")
    meter.send(power(3, f"NAME-{mark}".encode()))
    meter.send(power(4))
    until(lambda: powers(store.points()) == {f"NAME-{mark}": [1.0, 2.0, 3.0, 4.0]})
    run.kill()
    run = started(home, meter, store)
    meter.send(power(5))
    until(lambda: powers(store.points()) == {f"NAME-{mark}": [1.0, 2.0, 3.0, 4.0, 5.0]})
    assert run.stop() < STOP


def test_two_ports_with_the_same_name_keep_their_own_meters(home: Home, store: Store, mark: str) -> None:
    """They are in two folders. The state of one must not be used for the other."""
    meters = []
    for name in ("a", "b"):
        (home.folder / name).mkdir()
        meters.append(Meter(home.folder / name / "ttyHAN0"))
    sources = " ".join(str(meter.path) for meter in meters)
    run = home.run(influx=store, source=sources)
    run.expect("is open", times=2)
    for meter, name in zip(meters, "ab", strict=True):
        meter.send(power(1, f"{name}-{mark}".encode()))
    until(lambda: len(powers(store.points())) == 2)
    assert run.stop() < STOP
    run = home.run(influx=store, source=sources)
    run.expect("is open", times=2)
    for meter in meters:
        meter.send(power(2))
    until(lambda: sum(map(len, powers(store.points()).values())) == 4)
    assert run.stop() < STOP
    assert powers(store.points()) == {f"a-{mark}": [1.0, 2.0], f"b-{mark}": [1.0, 2.0]}
    for meter in meters:
        meter.unplug()


def test_with_two_meters_on_one_source_lists_without_an_id_are_left_out(
    home: Home, store: Store, meter: Meter, mark: str
) -> None:
    run = started(home, meter, store)
    for watts in range(10):
        meter.send(power(100 + watts, f"{'AB'[watts % 2]}-{mark}".encode()))
        meter.send(power(200 + watts))
    meter.send(power(300, f"A-{mark}".encode()))
    until(lambda: any(300.0 in values for values in powers(store.points()).values()))
    there = powers(of_meters(store.points()))
    # At the first change, B could have replaced A. At the second one it is known that there are two meters.
    assert there == {
        f"A-{mark}": [100.0, 200.0, 102.0, 104.0, 106.0, 108.0, 300.0],
        f"B-{mark}": [101.0, 201.0, 103.0, 105.0, 107.0, 109.0],
    }
    run.expect(f"two meters.* B-{mark} and A-{mark}.* ttyHAN0")
    # tests/integration/test_service.py checks the count, which is written every 10 s.
    assert run.stop() < STOP
