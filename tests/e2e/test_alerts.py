"""The alert rules on a real Grafana: each fires and ends, with the right texts, and nothing else does.

The rules are those of the stack, but evaluated every 10 s, and they fire after 10 s instead of minutes. The last test
waits for the real ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.e2e.alerting import LIMITS, House, StartedGrafana, Webhook, Writing, exporter_lines
from tests.e2e.overload import Overload
from tests.support.grafana_server import NO_GRAFANA, find_grafana
from tests.support.influx_server import Influx
from tests.support.patience import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_grafana() is None, reason=NO_GRAFANA),
    pytest.mark.usefixtures("overload"),  # it starts now; the last test waits for it
]

OSLO = ZoneInfo("Europe/Oslo")
OTHER = replace(
    LIMITS,
    main_fuse_a=63,
    fuse_warn_pct=95,
    limit_power_w=20_000,
    limit_hour_wh=9_000,
    limit_unbalance_pct=80,
    voltage_min=180,
    voltage_max=280,
    limit_silence_s=900,
)
GOOD = (
    House("WELL"),
    House("CABIN", loads={"L1": 50.0}, volts={"L1": 230.0}, unbalance=None),
    House("IT", loads={"L1": 50.0, "L3": 50.0}, volts={"L1": 230.0, "L3": 231.0}),
    House("NEW", peaks=0),
    House("AT-REST", loads={"L1": 2.0, "L2": 49.0, "L3": 3.0}, unbalance=170),
    House("AT-REST", loads={"L1": 20.0, "L2": 2.0, "L3": 1.0}, unbalance=161),
    # over the limits of other meters
    House("OTHER-LIMITS", OTHER, {"L1": 93.0}, {"L1": 200.0}).changed(power=12_000, hour=6_000, unbalance=62, age=400),
    # no limits
    House("NO-LIMITS", None, {"L1": 150.0}, {"L1": 150.0}, power=50_000, unbalance=90, hour=50_000, age=5_000),
    # it ended ten minutes ago
    House("ENDED", loads={"L1": 150.0}, volts={"L1": 150.0}, power=50_000, hour=50_000, age=5_000, ended_s=600),
    # a mean of two days; a mean above the last step; the first hour of a month, which has no step yet
    House("TWO-DAYS", month=6_000, peaks=2),
    House("ABOVE-ALL", month=6_000, step=-1),
    House("FIRST-HOUR", month=4_900, hour=4_900, step=2_000),
)
SMALL = replace(LIMITS, main_fuse_a=20, fuse_warn_pct=70)
FREE_HOUR = replace(LIMITS, limit_hour_wh=50_000)
FAULTY = (
    House("FUSE", loads={"L1": 50.0, "L2": 108.0, "L3": 90.0}),
    House("LEFT", loads={"L1": 150.0}),  # its points end while its alert fires
    House("NEARLY", loads={"L1": 93.0, "L2": 60.0}),
    House("SMALL-FUSE", SMALL, {"L1": 80.0, "L2": 60.0}),
    House("LOAD", power=12_000),
    House("HOUR", hour=5_620),
    House("LOW", volts={"L1": 230.0, "L2": 200.4}),
    House("HIGH", volts={"L3": 256.1}),
    House("UNBALANCED", unbalance=62),
    House("SILENT", age=372),
    House("STEP", FREE_HOUR, month=5_000, hour=8_000),
)
FIRING = {
    ("Fuse overloaded", "FUSE L2"): ("Fuse overloaded: L2", "L2 carries 43.2 A, 108 % of the main fuse (40 A)"),
    ("Fuse overloaded", "LEFT L1"): ("Fuse overloaded: L1", "L1 carries 60 A, 150 %"),
    ("Fuse nearly full", "NEARLY L1"): ("Fuse nearly full: L1", "L1 carries 37.2 A, 93 %"),
    ("Fuse nearly full", "SMALL-FUSE L1"): ("Fuse nearly full: L1", "16 A, 80 % of the main fuse (20 A)"),
    ("High load", "LOAD"): ("High load", " kW, the mean of five minutes; your limit is 10 kW"),
    ("This hour is heading over its limit", "HOUR"): ("This hour", "comes to 5.62 kWh; your limit is 5 kWh"),
    ("Voltage outside its limits", "LOW L2"): (
        "Voltage outside its limits: L2",
        "200 V, and has been outside 207 to 253",
    ),
    ("Voltage outside its limits", "HIGH L3"): ("Voltage outside its limits: L3", "L3 has 256 V"),
    ("Phases out of balance", "UNBALANCED"): (
        "Phases out of balance",
        "now 62 %; your limit is 40 %. The highest phase takes 60 % of the main fuse",
    ),
    ("No reading from the meter", "SILENT"): ("No reading from the meter", "for 6m 12s. (meter SILENT)"),
    ("Exporter silent", "gone"): ("Exporter silent", "from the exporter gone for five minutes"),
    ("Readings wait", "slow"): ("Readings wait", "waited 15m 0s to be stored; your limit is 10m 0s. (exporter slow)"),
    ("Capacity charge about to rise", "STEP"): ("Capacity charge", "to 5 kWh, out of the step up to 5 kW"),
}
ENDED = {
    ("Fuse overloaded", "FUSE L2"): "L2 carries 24 A, 60 % of the main fuse. (meter FUSE)",
    ("Fuse overloaded", "LEFT L1"): "No values come any more, so this has ended: Fuse overloaded: L1",
    ("Fuse nearly full", "NEARLY L1"): "L1 carries 20 A, 50 %",
    ("High load", "LOAD"): " kW, the mean of five minutes",
    ("Voltage outside its limits", "LOW L2"): "L2 has 231 V",
    ("No reading from the meter", "SILENT"): "heard again",
    ("Exporter silent", "gone"): "The exporter gone is heard again",
    (
        "Capacity charge about to rise",
        "STEP",
    ): "the mean of the month's three highest days is 4.2 kWh, in the step up to 5",
}


class Written:
    """What all of them write. Each name ends with the mark, so that it differs from others in the same InfluxDB."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def with_faults(self, now_ms: int) -> Iterator[str]:
        for house in (*GOOD, *FAULTY):
            yield from self._of(house, now_ms)
        yield from exporter_lines(f"well{self._mark}", now_ms)
        yield from exporter_lines(f"slow{self._mark}", now_ms, outbox_age=900)

    def without_faults(self, now_ms: int) -> Iterator[str]:
        for house in (*GOOD, *(House(house.meter_id, house.limits) for house in FAULTY if house.meter_id != "LEFT")):
            yield from self._of(house, now_ms)
        for instance in ("well", "slow", "gone"):
            yield from exporter_lines(f"{instance}{self._mark}", now_ms)

    def gone(self, now_ms: int) -> Iterator[str]:
        """An exporter's points, which ended seven minutes ago."""
        return exporter_lines(f"gone{self._mark}", now_ms, ended_s=420)

    def _of(self, house: House, now_ms: int) -> Iterator[str]:
        return house.changed(meter_id=house.meter_id + self._mark).lines(now_ms, OSLO)


def test_every_rule_fires_and_ends_and_a_stopped_influxdb_is_one_alert(
    tmp_path: Path, influx: Influx, webhook: Webhook, mark: str
) -> None:
    home = find_grafana()
    assert home is not None
    grafana = StartedGrafana(home, tmp_path / "grafana", influx, HAN_ALERT_WEBHOOK=webhook.url)
    grafana.speed_up()
    written = Written(mark)
    Writing(influx, written.gone).close()
    writing = Writing(influx, written.with_faults)
    grafana.start()
    try:
        took = until(lambda: webhook.by_alert("firing", mark).keys() >= FIRING.keys(), 90, "every alert")
        print(f"\n{grafana.version}: all {len(FIRING)} fired within {took:.0f} s")
        time.sleep(25)  # two more evaluations, in which nothing else must fire
        messages = webhook.by_alert("firing", mark)
        assert messages.keys() == FIRING.keys()
        assert grafana.alerts(mark) == FIRING.keys()
        for which, (title, words) in FIRING.items():
            assert title in messages[which].title
            assert words in messages[which].words.replace(mark, ""), messages[which].words
            assert "no value" not in messages[which].words
            assert "localhost" not in messages[which].words, "a link that works only on this computer"

        before = len(webhook.messages)
        writing.change(written.without_faults)
        took = until(lambda: webhook.by_alert("resolved", mark).keys() >= FIRING.keys(), 120, "every end")
        print(f"all ended within {took:.0f} s")
        messages = webhook.by_alert("resolved", mark)
        for which, words in ENDED.items():
            assert messages[which].title.startswith("Ended: "), messages[which].title
            assert words in messages[which].words.replace(mark, ""), messages[which].words
        assert not webhook.by_alert("firing", mark, before)

        before = len(webhook.messages)
        influx.stop()
        until(lambda: webhook.by_alert("firing", mark, before), 90, "the alert of InfluxDB")
        time.sleep(25)
        assert webhook.by_alert("firing", mark, before).keys() == {("InfluxDB does not answer", "")}
        assert not webhook.by_alert("resolved", mark, before)
        influx.start()
        until(lambda: webhook.by_alert("resolved", mark, before), 90, "its end")
        time.sleep(25)
        assert webhook.by_alert("firing", mark, before).keys() == {("InfluxDB does not answer", "")}
        assert webhook.by_alert("resolved", mark, before).keys() == {("InfluxDB does not answer", "")}
        log = grafana.log.read_text("utf-8")
        assert "expanding template" not in log
        assert "failed to template" not in log
    finally:
        writing.close()
        grafana.stop()


def test_an_overload_in_the_simulator_sends_a_message_within_three_minutes_and_one_at_its_end(
    overload: Overload,
) -> None:
    overload.wait()
    assert overload.fired is not None
    assert overload.ended is not None
    print(f"\nfuse alert {overload.fired_after:.0f} s after the first byte, its end {overload.ended_after:.0f} s")
    print(f"{overload.fired.title}: {overload.fired.words}\n{overload.ended.title}: {overload.ended.words}")
    assert overload.fired_after < 180
    assert overload.fired.title == "Fuse overloaded: L2"
    assert "L2 carries" in overload.fired.words
    assert "of the main fuse (40 A)" in overload.fired.words
    assert overload.ended.title == "Ended: Fuse overloaded: L2"
    assert "L2 carries" in overload.ended.words
    assert 300 < overload.ended_after < 480
    assert "Fuse nearly full" not in {name for _, name, _ in overload.alerts}, "one fault, one alert"
