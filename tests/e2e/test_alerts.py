"""The alert rules on a real Grafana: each fires and ends, in an owner's words, and nothing else does.

The rules are those of the stack, in a hurry: evaluated every 10 s, and holding for 10 s instead of minutes. The last
test waits for the real ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from exporter.config import Limits
from tests.e2e.alerting import House, StartedGrafana, Webhook, Writing, exporter_lines
from tests.e2e.harness import until
from tests.e2e.overload import Overload
from tests.grafana_server import NO_GRAFANA, find_grafana
from tests.influx_server import Influx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(700),
    pytest.mark.skipif(find_grafana() is None, reason=NO_GRAFANA),
    pytest.mark.usefixtures("overload"),  # begins, and is waited for by the last
]

OSLO = ZoneInfo("Europe/Oslo")
WELL = (
    House("WELL"),
    House("CABIN", loads={"L1": 50.0}, volts={"L1": 230.0}, unbalance=None),
    House("IT", loads={"L1": 50.0, "L3": 50.0}, volts={"L1": 230.0, "L3": 231.0}),
    House("NEW", peaks=0),
    # what would be too much elsewhere
    House("OTHER-LIMITS", Limits(63, 95, 20_000, 9_000, 80, 180, 280, 900), {"L1": 93.0}, {"L1": 200.0}).changed(
        power=12_000, hour=6_000, unbalance=62, age=400
    ),
    # nothing to hold it against
    House("NO-LIMITS", None, {"L1": 150.0}, {"L1": 150.0}, power=50_000, unbalance=90, hour=50_000, age=5_000),
    # over for ten minutes already
    House("ENDED", loads={"L1": 150.0}, volts={"L1": 150.0}, power=50_000, hour=50_000, age=5_000, ended_s=600),
    # a month whose mean is of two days; a mean above the last step; a month's first hour, before it has a step
    House("TWO-DAYS", month=6_000, peaks=2),
    House("ABOVE-ALL", month=6_000, step=-1),
    House("FIRST-HOUR", month=4_900, hour=4_900, step=2_000),
)
SMALL = Limits(20, 70, 10_000, 5_000, 40, 207, 253, 300)
FREE_HOUR = Limits(40, 90, 10_000, 50_000, 40, 207, 253, 300)
ILL = (
    House("FUSE", loads={"L1": 50.0, "L2": 108.0, "L3": 90.0}),
    House("NEARLY", loads={"L1": 93.0, "L2": 60.0}),
    House("SMALL-FUSE", SMALL, {"L1": 80.0, "L2": 60.0}),
    House("LOAD", power=11_250),
    House("HOUR", hour=5_620),
    House("LOW", volts={"L1": 230.0, "L2": 200.4}),
    House("HIGH", volts={"L3": 256.1}),
    House("UNBALANCED", unbalance=62),
    House("SILENT", age=372),
    House("STEP", FREE_HOUR, month=5_000, hour=8_000),
)
FIRING = {
    ("Fuse overloaded", "FUSE L2"): ("Fuse overloaded: L2", "L2 carries 43.2 A, 108 % of the main fuse (40 A)"),
    ("Fuse nearly full", "NEARLY L1"): ("Fuse nearly full: L1", "L1 carries 37.2 A, 93 %"),
    ("Fuse nearly full", "SMALL-FUSE L1"): ("Fuse nearly full: L1", "16 A, 80 % of the main fuse (20 A)"),
    ("High load", "LOAD"): ("High load", "11.2 kW, the mean of five minutes; your limit is 10 kW"),
    ("This hour is heading over its limit", "HOUR"): ("This hour", "comes to 5.62 kWh; your limit is 5 kWh"),
    ("Voltage outside its limits", "LOW L2"): (
        "Voltage outside its limits: L2",
        "200 V, and has been outside 207 to 253",
    ),
    ("Voltage outside its limits", "HIGH L3"): ("Voltage outside its limits: L3", "L3 has 256 V"),
    ("Phases out of balance", "UNBALANCED"): ("Phases out of balance", "now 62 %; your limit is 40 %"),
    ("No reading from the meter", "SILENT"): ("No reading from the meter", "for 6m 12s. (meter SILENT)"),
    ("Exporter silent", "gone"): ("Exporter silent", "from the exporter gone for five minutes"),
    ("Readings wait", "slow"): ("Readings wait", "waited 15m 0s to be stored; your limit is 10m 0s. (exporter slow)"),
    ("Capacity charge about to rise", "STEP"): ("Capacity charge", "to 5 kWh, out of the step up to 5 kW"),
}
ENDED = {
    ("Fuse overloaded", "FUSE L2"): "L2 carries 24 A, 60 % of the main fuse. (meter FUSE)",
    ("Fuse nearly full", "NEARLY L1"): "L1 carries 20 A, 50 %",
    ("High load", "LOAD"): "takes 3 kW, the mean of five minutes",
    ("Voltage outside its limits", "LOW L2"): "L2 has 231 V",
    ("No reading from the meter", "SILENT"): "heard again",
    ("Exporter silent", "gone"): "The exporter gone is heard again",
    (
        "Capacity charge about to rise",
        "STEP",
    ): "the mean of the month's three highest days is 4.2 kWh, in the step up to 5",
}


def ill(now_ms: int) -> Iterator[str]:
    for house in (*WELL, *ILL):
        yield from house.lines(now_ms, OSLO)
    yield from exporter_lines("well", now_ms)
    yield from exporter_lines("slow", now_ms, outbox_age=900)


def well(now_ms: int) -> Iterator[str]:
    for house in (*WELL, *(House(house.meter_id, house.limits) for house in ILL)):
        yield from house.lines(now_ms, OSLO)
    for instance in ("well", "slow", "gone"):
        yield from exporter_lines(instance, now_ms)


def gone(now_ms: int) -> Iterator[str]:
    """An exporter's points until seven minutes ago."""
    return exporter_lines("gone", now_ms, ended_s=420)


def test_every_rule_fires_and_ends_in_an_owners_words_and_a_stopped_influxdb_is_one_alert(
    tmp_path: Path, influx: Influx, webhook: Webhook
) -> None:
    home = find_grafana()
    assert home is not None
    grafana = StartedGrafana(home, tmp_path / "grafana", influx, HAN_ALERT_WEBHOOK=webhook.url)
    grafana.hurry()
    Writing(influx, gone).close()
    writing = Writing(influx, ill)
    grafana.start()
    try:
        took = until(lambda: webhook.told("firing").keys() >= FIRING.keys(), 90, "every alert")
        print(f"\n{grafana.version}: all {len(FIRING)} fired within {took:.0f} s")
        time.sleep(25)  # two more evaluations, for what must not fire
        told = webhook.told("firing")
        assert told.keys() == FIRING.keys()
        assert grafana.alerts() == FIRING.keys()
        for which, (title, words) in FIRING.items():
            assert title in told[which].title
            assert words in told[which].words, told[which].words
            assert "no value" not in told[which].words
            assert "localhost" not in told[which].words, "a link that works on this computer alone"

        before = len(webhook.messages)
        writing.change(well)
        took = until(lambda: webhook.told("resolved").keys() >= FIRING.keys(), 90, "every end")
        print(f"all ended within {took:.0f} s")
        told = webhook.told("resolved")
        for which, words in ENDED.items():
            assert told[which].title.startswith("Ended: "), told[which].title
            assert words in told[which].words, told[which].words
        assert not webhook.told("firing", before)

        before = len(webhook.messages)
        influx.stop()
        until(lambda: webhook.told("firing", before), 90, "the alert of InfluxDB")
        time.sleep(25)
        assert webhook.told("firing", before).keys() == {("InfluxDB does not answer", "")}
        assert not webhook.told("resolved", before)
        influx.start()
        until(lambda: webhook.told("resolved", before), 90, "its end")
        time.sleep(25)
        assert webhook.told("firing", before).keys() == {("InfluxDB does not answer", "")}
        assert webhook.told("resolved", before).keys() == {("InfluxDB does not answer", "")}
        log = grafana.log.read_text("utf-8")
        assert "expanding template" not in log
        assert "failed to template" not in log
    finally:
        writing.close()
        grafana.stop()


def test_an_overload_in_the_simulator_is_told_within_three_minutes_and_so_is_its_end(overload: Overload) -> None:
    overload.wait()
    assert overload.fired is not None
    assert overload.ended is not None
    print(f"\nfuse alert {overload.fired_after:.0f} s after the first octet, its end {overload.ended_after:.0f} s")
    print(*(f"{one.title}: {one.words}" for one in overload.messages), sep="\n")
    assert overload.fired_after < 180
    assert overload.fired.title == "Fuse overloaded: L2"
    assert "L2 carries" in overload.fired.words
    assert "of the main fuse (40 A)" in overload.fired.words
    assert overload.ended.title == "Ended: Fuse overloaded: L2"
    assert "L2 carries" in overload.ended.words
    assert 300 < overload.ended_after < 480
    assert not [one for one in overload.messages if "Fuse nearly full" in one.title], "one fault, one alert"
