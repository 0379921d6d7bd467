"""Any id of a meter: InfluxDB returns the id that was made safe, and one line stays one line."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from exporter.cli.run import LocalTime
from exporter.derive import points
from exporter.derive.limits import Threshold
from exporter.meters import safe_text
from exporter.pipeline.decoder import Decoded
from exporter.service import own_points
from tests.e2e.made import power
from tests.support.influx_server import Store
from tests.support.pipeline import Placer, Reader

OSLO = ZoneInfo("Europe/Oslo")
NOW = int(time.time() * 1000)
ODD = [
    b"A,B",
    b"A B",
    b" A",
    b"A=B",
    b"A\nactive_power value=666 1",
    b"A\r\nB",
    b'say "A"',
    b"O'Hara",
    b"A\\",
    b"\\",
    b"A\\,value=1 1",
    b"A\\ value=666 1\n",
    b"100 %",
    b"%0A",
    b"A\x00B",
    b"\x1b[2J\x1b[31mA",
    b"\x7f\x80\xff",
    "ø\u202eA\u2028\u2029\ufeff".encode(),
    "\U0001f50c".encode(),
    b"\xed\xa0\x80",
    b"#A",
    b"A,meter_id=B",
    b"x" * 300,
    b"x" * 299 + b"y",
    b"\xff" * 300,
    b"' OR 1=1; DROP MEASUREMENT active_power",
    b"${PATH} $(id) `id` {{.}} %s %d %(x)s {0}",
]
ANY_ID = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.text(min_size=1, max_size=120).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.sampled_from([b",", b" ", b"=", b"\\", b'"', b"'", b"\n", b"\r", b"%", b"\t", b"\0", b"A"])).map(
        b"".join
    ),
)


def lines_of(meter_id: bytes) -> tuple[str, list[str]] | None:
    """The id, and lines of each kind that has it, of a frame; None if it is not an id."""
    (decoded,) = Reader(OSLO).feed(power(1, meter_id), datetime.now(UTC))
    assert isinstance(decoded, Decoded)
    name = safe_text(meter_id)
    assert decoded.reading.meter.id == name
    if name is None:
        return None
    (placed,) = Placer("a port", zone=OSLO, fallback=None, state={}).place(decoded.reading)
    lines = list(points.lines(placed))
    assert [line.split(" ")[-2:] for line in lines] == [["value=1.0", str(placed.time)]]
    lines.append(points.threshold_line(Threshold("voltage", "max", 253), NOW, name))
    lines.append(points.meter_line(name, "Europe/Oslo", NOW))
    lines.append(points.final_hour_line(name, "import", 1.0, NOW // 3_600_000 * 3_600_000, OSLO))
    lines.append(own_points.event_line("house", "meter_changed", f"it is {name} now", NOW))
    return name, lines


def written(store: Store, ids: list[bytes], known: set[str]) -> None:
    """Write what these meters sent, and compare the ids in InfluxDB with theirs and with those in `known`."""
    made = dict(found for one in ids if (found := lines_of(one)) is not None)
    every = [line for lines in made.values() for line in lines]
    assert all("\n" not in line for line in every)
    if not made:
        return
    with closing(store.client()) as client:
        outcome = client.write(every)
    assert outcome.message == ""
    known.update(made)
    stored = store.points()
    for measurement in ("active_power", "threshold", "hour_energy"):
        called = {dict(p.tags)["meter_id"] for p in stored if p.measurement == measurement}
        assert called == known
    assert {p.measurement for p in stored} <= {"active_power", "threshold", "hour_energy", "meter", "event"}
    assert {dict(p.fields)["value"] for p in stored if p.measurement == "active_power"} == {1.0}
    assert {name for p in stored for name, _ in p.tags} <= {
        *("direction", "meter_id", "obis", "bound", "quantity", "instance", "kind", "hour", "weekday"),
        *("real", "simulated", "timezone"),
    }


def test_odd_ids_are_returned_as_they_were_made_safe(store: Store) -> None:
    written(store, ODD, set())
    stored = {dict(p.tags)["meter_id"] for p in store.points("active_power")}
    assert stored == {safe_text(one) for one in ODD}
    assert len(stored) == len(ODD), "different ids stay different, also long ones"
    assert all(len(one) <= 141 for one in stored)


def test_any_id_is_returned_as_it_was_made_safe(store: Store) -> None:
    known: set[str] = set()

    @settings(max_examples=15, phases=[Phase.generate])
    @given(st.lists(ANY_ID, min_size=20, max_size=60))
    def written_and_read(ids: list[bytes]) -> None:
        written(store, ids, known)

    written_and_read()
    assert len(known) > 100


def logged(meter_id: bytes) -> str:
    record = logging.LogRecord("a", logging.INFO, "", 0, "reading meter %s", (safe_text(meter_id),), None)
    return LocalTime(OSLO).format(record)


@pytest.mark.parametrize("meter_id", ODD)
def test_a_log_line_with_an_odd_id_shows_it(meter_id: bytes) -> None:
    name = str(safe_text(meter_id))
    assert logged(meter_id).isprintable()
    assert logged(meter_id).endswith(f"INFO reading meter {name}") or not name.isprintable()


@given(ANY_ID)
def test_a_log_line_with_any_id_is_one_printable_line(meter_id: bytes) -> None:
    line = logged(meter_id)
    assert line.isprintable()
    assert len(line.splitlines()) == 1
