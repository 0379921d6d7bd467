"""The queries of alert rules on a real InfluxDB, at moments that are hard to wait for."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from exporter.derive import points
from exporter.derive.capacity import capacity, capacity_step, with_running
from exporter.derive.limits import Threshold
from exporter.model.calendar import month_start
from exporter.service import own_points
from grafana.dashboards import alerts
from grafana.dashboards.rule_parts import Rule
from tests.e2e.alerting import write
from tests.support.grafana_queries import filled
from tests.support.influx_server import Store

OSLO = ZoneInfo("Europe/Oslo")
HOUR_MS = 3_600_000
MARK = secrets.token_hex(3)
"""Makes names of this run unique in a shared InfluxDB."""
STEPS_W = [2_000.0, 5_000.0, 10_000.0]


@dataclass(frozen=True)
class Evaluated:
    """A rule at a moment: its numbers for one meter or exporter."""

    numbers: dict[str, float]
    rule: Rule

    @property
    def fires(self) -> bool:
        """Whether it fires in Grafana: never if one of the numbers is missing."""
        if self.numbers.keys() != {query.name for query in self.rule.queries}:
            return False
        text = self.rule.condition.replace("&&", "and").replace("||", "or")
        return bool(eval(re.sub(r"\$(\w+)", r"numbers['\1']", text), {"numbers": self.numbers}))


def evaluate(store: Store, rule: Rule, owner: str, now_ms: int) -> Evaluated:
    """Send each query of a rule, with the time range before this moment."""
    numbers = {}
    for one in rule.queries:
        query = filled(
            one.query.replace("$timeFilter", f"time >= {now_ms - one.since_s * 1000}ms AND time <= {now_ms}ms"),
            meter="",
            timezone="Europe/Oslo",
            start_ms=0,
            end_ms=now_ms,
        )
        for series in store.query(query):
            values = [row[1] for row in series.rows if row[1] is not None]
            if values and (owner in series.tags.values() or not series.tags):
                numbers[one.name] = float(values[-1])
    return Evaluated(numbers, rule)


def at(month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return int(datetime(2026, month, day, hour, minute, second, tzinfo=OSLO).timestamp() * 1000)


def test_the_capacity_alert_separates_two_months_at_every_hour_around_their_change(store: Store) -> None:
    """Hours of 3 kWh, 4 kWh at 8 each day, more at 18 on some days: mean, step and month change."""
    meter = f"TURN-{MARK}"
    finals: dict[int, float] = {}
    fired, wrong = [], []
    for start in range(at(10, 28), at(11, 6), HOUR_MS):
        local = datetime.fromtimestamp(start / 1000, OSLO)
        wh = 9_000.0 if (local.hour, local.day) in ((18, 31), (18, 4)) else 4_000.0 if local.hour == 8 else 3_000.0
        now = start + HOUR_MS // 2
        mean = with_running(finals, start, wh, OSLO)
        write(
            store,
            [
                points.running_hour_line(meter, "import", "projected", wh, now),
                points.projected_capacity_line(meter, mean, now),
            ],
        )
        evaluated = evaluate(store, alerts.CAPACITY, meter, now)
        found = capacity(finals, start, OSLO)
        step = None if found is None else capacity_step(found.mean, STEPS_W)
        expected = found is not None and len(found.peaks) == 3 and step is not None and mean >= step
        if evaluated.fires != expected:
            wrong.append((str(local), evaluated.numbers))
        fired += [local] if evaluated.fires else []
        finals[start] = wh
        found = capacity(finals, start, OSLO)
        assert found is not None
        write(store, list(points.capacity_lines(meter, found, STEPS_W)))
    assert not wrong
    assert [(moment.month, moment.day, moment.hour) for moment in fired] == [(10, 31, 18), (11, 4, 18)]


def test_a_months_step_is_found_until_its_last_hour(store: Store) -> None:
    """The longest time range is on 31 October, after the end of summer time: 31 days and an hour."""
    meter = f"LONG-{MARK}"
    finals = {at(10, day, 8): 4_500.0 for day in (1, 2, 3)}
    found = capacity(finals, at(10, 1), OSLO)
    assert found is not None
    now = at(10, 31, 23, 59)
    assert now - month_start(now, OSLO) == (31 * 24 + 1) * HOUR_MS - 60_000
    projected = [
        points.projected_capacity_line(meter, 5_100, now - 5_000),
        points.running_hour_line(meter, "import", "projected", 6_300, now - 5_000),
    ]
    write(store, [*points.capacity_lines(meter, found, STEPS_W), *projected])
    evaluated = evaluate(store, alerts.CAPACITY, meter, now)
    assert evaluated.numbers == {"mean": 5.1, "step": 5.0, "peaks": 3.0, "hour": 6.3}
    assert evaluated.fires


def test_an_exporter_is_silent_after_five_minutes_and_ignored_after_a_day(store: Store) -> None:
    """At any second of a minute."""
    ended = at(11, 20, 12)
    fields = {"memory": 5e7, "outbox_age": 0.0}
    write(store, [own_points.exporter_line(f"one{MARK}", fields, ended - 10_000 * n) for n in range(360)])

    def silent(after: timedelta) -> bool:
        return evaluate(store, alerts.EXPORTER, f"one{MARK}", ended + int(after.total_seconds() * 1000)).fires

    for second in range(0, 60, 7):
        assert not silent(timedelta(seconds=second))
        assert not silent(timedelta(minutes=4, seconds=second - 1))
        assert silent(timedelta(minutes=5, seconds=second))
        assert silent(timedelta(hours=23, seconds=second))
        assert not silent(timedelta(hours=24, minutes=6, seconds=second)), "it is ignored now"


def test_the_mean_of_five_minutes_is_low_after_one_minute(store: Store) -> None:
    """After one minute of readings, high power for five minutes is not known."""
    meter, began = f"MEAN-{MARK}", at(11, 20, 12, 0, 20)

    def mean(after_s: int) -> float:
        return evaluate(store, alerts.HIGH_LOAD, meter, began + after_s * 1000).numbers["power"]

    write(store, [_power(meter, 15_000, began + 10_000 * n) for n in range(60)])
    write(store, [points.threshold_line(one, began, meter) for one in _limits()])
    assert mean(60) == pytest.approx(3, abs=0.5)
    assert mean(120) == pytest.approx(6, abs=0.5)
    for second in range(310, 400, 7):
        assert mean(second) == pytest.approx(15, abs=0.5), "at any second of a minute"
    lost = [_power(meter, 15_000, began + 10_000 * n) for n in range(60, 120) if n % 6 < 5]
    write(store, lost)
    for second in range(1_000, 1_100, 7):
        assert mean(second) == pytest.approx(15, abs=1), "a lost frame in each minute changes almost nothing"


def _power(meter: str, watt: float, ms: int) -> str:
    return f"active_power,direction=import,meter_id={meter},obis=1-1:1.7.0 value={float(watt)} {ms}"


def _limits() -> Iterable[Threshold]:
    return (Threshold("active_power", "max", 10_000),)
