"""The alert rules: what is wrong, when they fire, and the texts. dashboards.py writes rules.yaml.

No rule contains a limit. Each reads the owner's limits of each meter from the measurement `threshold`
(HAN_FUSE_WARN_PCT and others). A number in a condition is a count, or 0.

A rule does not fire where data is missing, or while InfluxDB does not answer: one rule is for exactly that. The time
ranges are long enough that one or two lost frames change nothing, and short enough that a series that has ended does
not fire.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import yaml

from grafana.dashboards.influxql import IMPORT, TOTAL, tag
from grafana.dashboards.rule_parts import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    Group,
    Rule,
    RuleQuery,
    Words,
    duration,
    label,
    limit,
    number,
    panel_ids,
    provisioning,
    recent,
)

FOLDER: Final = "HAN"
RETIRED: Final[tuple[str, ...]] = ()
"""Uids of rules that an earlier version had."""

_METER: Final = f"(meter {label('meter_id')})"
_PHASE: Final = label("phase")

# Fuse: the median of the three or four readings of the last 40 s (of four, the lower of the two in the middle). A
# single odd reading, for example when a motor starts, does not change it, and one or two lost frames leave no gap.
_FUSE_WINDOW_S: Final = 40
_BY_PHASE: Final = ("meter_id", "phase")
_LOAD: Final = RuleQuery("A", "load", recent("fuse_load", of='percentile("value", 50)', by=_BY_PHASE), _FUSE_WINDOW_S)
_FUSE: Final = limit("current", name="fuse", ref="F")
_AMPERES: Final = ("amperes", "$load * $fuse / 100")
_CARRIES: Final = f"{_PHASE} carries {number('amperes')} A"

FUSE: Final = Rule(
    uid="han-fuse",
    title="Fuse overloaded",
    after="30s",
    queries=(_LOAD, limit("fuse_load"), _FUSE),
    also=(_AMPERES,),
    condition="$load > $limit",
    severity="critical",
    area="fuse",
    words=Words(
        title=f"Fuse overloaded: {_PHASE}",
        summary=f"{_CARRIES}, {number('load')} % of the main fuse ({number('fuse')} A). {_METER}",
        advice=f"Switch something on {_PHASE} off now: the oven, a heater, the water heater, the car. "
        "At this load the main fuse trips: the higher, the sooner.",
        resolved=f"{_CARRIES}, {number('load')} % of the main fuse. {_METER}",
    ),
    panel=("han-now", "Phases and main fuse"),
)

FUSE_WARN: Final = Rule(
    uid="han-fuse-warn",
    title="Fuse nearly full",
    after="2m",
    # While the phase is over the fuse for a whole minute, the rule above fires, and this one is not needed. If readings
    # are on both sides of the fuse's limit, that rule may not fire, and this one must.
    queries=(
        _LOAD,
        limit("fuse_load", "warn"),
        RuleQuery("B", "lowest", recent("fuse_load", of='min("value")', by=_BY_PHASE), MINUTE_S),
        limit("fuse_load", name="full", ref="M"),
        _FUSE,
    ),
    also=(_AMPERES,),
    condition="$load > $limit && $lowest <= $full",
    severity="warning",
    area="fuse",
    words=Words(
        title=f"Fuse nearly full: {_PHASE}",
        summary=f"{_CARRIES}, {number('load')} % of the main fuse ({number('fuse')} A), for two minutes; "
        f"your limit is {number('limit')} %. {_METER}",
        advice=f"Wait with the next large thing on {_PHASE}, or switch one off.",
        resolved=f"{_CARRIES}, {number('load')} % of the main fuse"
        f"{{{{ if gt .Values.load.Value .Values.full.Value }}}}: see Fuse overloaded{{{{ end }}}}. {_METER}",
    ),
    panel=("han-now", "Phases and main fuse"),
)

# The energy of the known part of five minutes, divided by five minutes: so the first minute after a start is not taken
# for the mean of five, and a lost frame changes little. The 5 s are for the gaps at the two ends of the range.
_POWER: Final = recent("active_power", TOTAL, IMPORT, of='integral("value", 5m) / 1000')
_TAKES: Final = (
    f"The house takes {number('power')} kW, the mean of five minutes; your limit is {number('limit')} kW. {_METER}"
)

HIGH_LOAD: Final = Rule(
    uid="han-high-load",
    title="High load",
    after="30s",
    queries=(
        RuleQuery("A", "power", _POWER, 5 * MINUTE_S + 5),
        limit("active_power", per=1000),
    ),
    condition="$power > $limit",
    severity="warning",
    area="power",
    words=Words(
        title="High load",
        summary=_TAKES,
        advice="Switch something large off, or wait with the next: oven, water heater, car charger.",
        resolved=_TAKES,
    ),
    panel=("han-now", "Power now"),
)

_PROJECTED_KWH: Final = recent("hour_energy", tag("kind", "projected"), IMPORT, of='last("value") / 1000')
_COMES_TO: Final = (
    f"At the present power this hour comes to {number('energy')} kWh; your limit is {number('limit')} kWh. {_METER}"
)

HOUR: Final = Rule(
    uid="han-hour",
    title="This hour is heading over its limit",
    after="2m",
    queries=(
        RuleQuery("A", "energy", _PROJECTED_KWH, MINUTE_S),
        limit("hour_energy", per=1000),
    ),
    condition="$energy > $limit",
    severity="warning",
    area="power",
    words=Words(
        title="This hour is heading over its limit",
        summary=_COMES_TO,
        advice="Wait with dishwasher, washing machine and car until the next full hour, or switch something off.",
        resolved=_COMES_TO,
    ),
    panel=("han-now", "This hour"),
)

VOLTAGE: Final = Rule(
    uid="han-voltage",
    title="Voltage outside its limits",
    after="10m",
    queries=(
        RuleQuery("A", "volts", recent("voltage", of='mean("value")', by=_BY_PHASE), MINUTE_S),
        limit("voltage", "min", name="low", ref="L"),
        limit("voltage", "max", name="high", ref="M"),
    ),
    condition="$volts < $low || $volts > $high",
    severity="warning",
    area="voltage",
    words=Words(
        title=f"Voltage outside its limits: {_PHASE}",
        summary=f"{_PHASE} has {number('volts')} V, and has been outside {number('low')} to {number('high')} V "
        f"for ten minutes. {_METER}",
        advice="Your grid company has to mend this: call it. If lamps flicker or are too bright, the neutral may be "
        "loose: pull the plugs of what is dear, and call an electrician at once.",
        resolved=f"{_PHASE} has {number('volts')} V. {_METER}",
    ),
    panel=("han-quality", "Voltage, 1-minute means"),
)

UNBALANCE: Final = Rule(
    uid="han-unbalance",
    title="Phases out of balance",
    after="15m",
    queries=(
        RuleQuery(
            "A", "unbalance", recent("phase_unbalance", tag("quantity", "current"), of='mean("value")'), MINUTE_S
        ),
        limit("phase_unbalance"),
        RuleQuery("F", "highest", recent("fuse_load", of='max("value")'), MINUTE_S),
        limit("phase_unbalance", "from", name="floor", ref="M"),
    ),
    condition="$unbalance > $limit && $highest >= $floor",
    severity="warning",
    area="balance",
    words=Words(
        title="Phases out of balance",
        summary=f"One phase has been far from the mean of the phases for fifteen minutes, now {number('unbalance')} %; "
        f"your limit is {number('limit')} %. The highest phase takes {number('highest')} % of the main fuse. {_METER}",
        advice="Move something large to another phase (an electrician can move a whole circuit). "
        "The dashboard Phase balance shows which phase.",
        resolved=f"Unbalance is {number('unbalance')} %; your limit is {number('limit')} %. {_METER}",
    ),
    panel=("han-balance", "Unbalance of the currents"),
)

# reading_age is written for the meters of the exporter's sources until one day after their last reading. Their limits
# are as old as that reading.
NO_READING: Final = Rule(
    uid="han-no-reading",
    title="No reading from the meter",
    after="30s",
    queries=(
        RuleQuery("A", "age", recent("reading_age"), MINUTE_S),
        limit("reading_age", since_s=DAY_S + HOUR_S),
    ),
    condition="$age > $limit",
    severity="warning",
    area="meter",
    words=Words(
        title="No reading from the meter",
        summary=f"Nothing has come from the meter for {duration('age')}. {_METER}",
        advice="Is the adapter plugged in, at the meter and at the computer? "
        "`docker compose exec exporter han-exporter check` says what is wrong.",
        resolved=f"The meter is heard again. {_METER}",
    ),
    panel=("han-now", "Last reading"),
)

# The points of each minute of a day are counted (0 if none), and the mean of the last five minutes is taken: it is 0 if
# five minutes, the current one included, had no point. An exporter that wrote nothing for a day does not fire any more.
_POINTS: Final = recent("exporter", of='moving_average(count("memory"), 5) AS "points"', by=("instance",), every="1m")
EXPORTER: Final = Rule(
    uid="han-exporter-silent",
    title="Exporter silent",
    after="90s",  # when InfluxDB is back, the exporter writes within a minute
    queries=(RuleQuery("A", "points", f'SELECT last("points") FROM ({_POINTS} fill(0)) GROUP BY "instance"', DAY_S),),
    condition="$points == 0",
    severity="warning",
    area="exporter",
    words=Words(
        title="Exporter silent",
        summary=f"Nothing has come from the exporter {label('instance')} for five minutes or longer: "
        "nothing new is shown, and no other alert can tell.",
        advice="Does it run, and can it reach InfluxDB? `docker compose ps` and `docker compose logs exporter` tell. "
        "If it runs, it keeps what it reads.",
        resolved=f"The exporter {label('instance')} is heard again.",
    ),
    panel=("han-exporter", "Source"),
)

BACKLOG: Final = Rule(
    uid="han-backlog",
    title="Readings wait",
    after="2m",
    queries=(
        RuleQuery("A", "age", recent("exporter", of='last("outbox_age")', by=("instance",)), MINUTE_S),
        # This limit has no meter, so it applies to every exporter.
        RuleQuery(
            "L", "limit", recent("threshold", tag("quantity", "backlog_age"), tag("bound", "max"), by=()), HOUR_S
        ),
    ),
    condition="$age > $limit",
    severity="warning",
    area="exporter",
    words=Words(
        title="Readings wait",
        summary=f"Readings have waited {duration('age')} to be stored; your limit is {duration('limit')}. "
        f"(exporter {label('instance')})",
        advice="InfluxDB is slow, full, or refuses them: `docker compose logs exporter` says which. "
        "Nothing is lost while there is room in the outbox.",
        resolved=f"The oldest reading that waits is {duration('age')} old. (exporter {label('instance')})",
    ),
    panel=("han-exporter", "Age of the oldest unsent"),
)

# The points of a month's peaks, mean and step have the time of the start of the local month. So the range is a month,
# and in the first days of a month it contains two; the newest point of each is used. Until the month has peaks of three
# days, its mean is of fewer days and always rises. In the first hour of a month, there is no step yet, and the newest
# is last month's; the projected mean is then the running hour alone, so the two are equal.
_MONTH_S: Final = 32 * DAY_S
_PEAKS: Final = recent("capacity", '"kind" =~ /^peak/', of='count("value") AS "peaks"', every="1d")
CAPACITY: Final = Rule(
    uid="han-capacity",
    title="Capacity charge about to rise",
    after="2m",
    queries=(
        RuleQuery("A", "mean", recent("capacity", tag("kind", "projected"), of='last("value") / 1000'), MINUTE_S),
        RuleQuery("L", "step", recent("capacity_step", of='last("value") / 1000'), _MONTH_S),
        RuleQuery("P", "peaks", f'SELECT last("peaks") FROM ({_PEAKS} fill(none)) GROUP BY "meter_id"', _MONTH_S),
        RuleQuery("H", "hour", _PROJECTED_KWH, MINUTE_S),
    ),
    # A mean of exactly 5 kWh is in the step from 5 to 10; above the last step, where `step` is negative, there is no
    # higher one.
    condition="$mean >= $step && $step > 0 && $peaks >= 3 && $mean != $hour",
    severity="warning",
    area="capacity",
    words=Words(
        title="Capacity charge about to rise",
        summary=f"At the present power this hour lifts the mean of the month's three highest days to {number('mean')} "
        f"kWh, out of the step up to {number('step')} kW. {_METER}",
        advice="Use less for the rest of this hour and the month stays in its step: wait with dishwasher, washing "
        "machine and car until the next full hour.",
        resolved=f"With this hour the mean of the month's three highest days is {number('mean')} kWh, "
        f"in the step up to {number('step')} kW. {_METER}",
    ),
    panel=("han-capacity", "Step with this hour"),
)

INFLUXDB: Final = Rule(
    uid="han-influxdb",
    title="InfluxDB does not answer",
    after="2m",  # longer than it takes to start again
    queries=(
        RuleQuery("A", "answers", recent("exporter", of='count("memory")', by=()), 5 * MINUTE_S, reducer="count"),
    ),
    condition="$answers < 0",  # never true: the rule fires when the query fails
    on_error=True,
    severity="critical",
    area="database",
    words=Words(
        title="InfluxDB does not answer",
        summary="Grafana has had no answer from InfluxDB for two minutes: nothing is shown, no other alert can tell.",
        advice="`docker compose ps` and `docker compose logs influxdb` tell why. Is the disk full? "
        "The exporter keeps what it reads, and sends it later.",
        resolved="InfluxDB answers again.",
    ),
    panel=("han-exporter", "Source"),
)

GROUPS: Final = (
    Group("Fuse", "10s", (FUSE, FUSE_WARN)),
    Group("Power, meter and exporter", "30s", (HIGH_LOAD, HOUR, NO_READING, EXPORTER, BACKLOG, INFLUXDB)),
    Group("Voltage, balance and capacity", "1m", (VOLTAGE, UNBALANCE, CAPACITY)),
)

_HEADER: Final = """\
# Alert rules. Written by grafana/dashboards/dashboards.py: change alerts.py beside it and run that.
# Grafana shows them as provisioned, and they cannot be changed there.
# docs/operating.md, "Alerts", says how to make your own.
"""


def rules(dashboards: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of the file for Grafana's provisioning. `dashboards` are the JSON of those that messages link to.

    Raises LookupError if a rule links to a panel that does not exist.
    """
    return provisioning(GROUPS, FOLDER, RETIRED, panel_ids(dashboards))


def text(dashboards: Iterable[Mapping[str, Any]]) -> str:
    """The text of rules.yaml."""
    dumped: str = yaml.safe_dump(rules(dashboards), sort_keys=False, width=1000, allow_unicode=True)
    return _HEADER + dumped
