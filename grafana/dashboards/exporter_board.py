"""Exporter: whether meter, exporter and InfluxDB work, for when something is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from grafana_foundation_sdk.models import dashboard as model

from exporter.pipeline.link import LinkState
from exporter.protocol.framing import Kind
from grafana.dashboards.frame import Page, Row
from grafana.dashboards.influxql import INSTANCE, Target, course, latest, tag
from grafana.dashboards.now import last_reading
from grafana.dashboards.panels import (
    AGE,
    BYTES,
    COUNT,
    FINE,
    NEAR,
    OVER,
    PER_MINUTE,
    SECONDS,
    Look,
    Panel,
    bars,
    figure,
    graph,
    horizontal_bars,
    limit_line,
    one_colour,
    rows,
    states,
    thresholds,
    with_max,
)

ABSOLUTE: Final = model.ThresholdsMode.ABSOLUTE
_FEW: Final = Look("short", 0, soft_min=0, soft_max=5)
_SECONDS: Final = Look("suffix:s", soft_min=0)
_MINUTES: Final = Look("suffix:min", soft_min=0)
_OFF: Final = Look("s", soft_min=-10, soft_max=10)
_WEEK: Final = "$timeFilter AND time > now() - 7d"
"""At most the last week of the time range. Counters start at 0 with the process, so each point is compared with the
next
one, which is fast for a week and slow for a year."""
Mapping: TypeAlias = model.ValueMap | model.RangeMap | model.RegexMap | model.SpecialValueMap
_POINT: Final = '"{}"'
_SILENT: Final = "silent"
_NO_FIGURES: Final = "no figures of the exporter in this time"

_STATES: Final = {
    LinkState.WAITING: ("waiting", NEAR),
    LinkState.OK: ("reading", FINE),
    LinkState.MISSING: ("port missing", OVER),
    LinkState.SILENT: ("port silent", OVER),
    LinkState.NO_FRAMES: ("no frames", OVER),
    LinkState.UNREADABLE: ("unreadable", OVER),
    LinkState.ENDED: ("ended", NEAR),
    LinkState.FAILED: ("wrong setting", OVER),
}
_REJECTS: Final = {
    "Not understood": ("rejects_unread",),
    "Damaged": tuple(f"rejects_{kind.value}" for kind in (Kind.FCS, Kind.HEADER, Kind.CLOSING_FLAG)),
    "Broken off": (f"rejects_{Kind.BROKEN_OFF.value}",),
    "Port lost in it": (f"rejects_{Kind.INCOMPLETE.value}",),
    "Noise": (f"rejects_{Kind.NOISE.value}",),
}
"""Why bytes were not a readable frame. Kind.FILL is not a reason: HDLC allows flags between frames."""
_ALL_REJECTS: Final = tuple(field for fields in _REJECTS.values() for field in fields)
_LOST: Final = {
    "lines_lost": "No room on the disk",
    "lines_dropped": "Outbox full",
    "lines_rejected": "Refused by InfluxDB",
    "readings_left_out": "Unknown which meter's",
    "readings_without_time": "Unknown when",
}


def _last(field: str, of: str = 'last("{}")') -> str:
    return latest("exporter", of=of.format(field), whose=INSTANCE)


_NO_METERS: Final = tag("meter_id", "")


def _backlog() -> str:
    """The exporter's limit for a backlog, in s. It has no meter."""
    return latest("threshold", tag("quantity", "backlog_age"), within="1d", whose=_NO_METERS)


def _backlog_course() -> str:
    """The same over the time range, in minutes."""
    of = 'last("value") / 60'
    return course("threshold", tag("quantity", "backlog_age"), of=of, fill="previous", whose=_NO_METERS)


def _course(field: str, of: str = "max") -> str:
    return course("exporter", of=f'{of}("{field}")', whose=INSTANCE)


def _steps(fields: Sequence[str], of: str, bounds: str) -> str:
    """The rise of each of the counters, from each point (or interval) to the next."""
    rise = 'SELECT non_negative_difference({}) AS "rise" FROM "exporter" WHERE {} AND {}'
    return ", ".join(f"({rise.format(of.format(field), INSTANCE, bounds)})" for field in fields)


def _rise(*fields: str) -> str:
    """The rise of counters in the last day, as one sum."""
    # The outer query needs the time range too: without it, InfluxDB reads everything that it has.
    bounds = "time > now() - 1d"
    return f'SELECT sum("rise") FROM {_steps(fields, _POINT, bounds)} WHERE {bounds}'


def _rises(*fields: str) -> str:
    """The rise of counters in each interval, as one sum."""
    each = "GROUP BY time($__interval)"
    steps = _steps(fields, f"last({_POINT})", f"{_WEEK} {each}")
    return f'SELECT sum("rise") FROM {steps} WHERE {_WEEK} {each} fill(null)'


def _rate(field: str, below: int = 0) -> str:
    """The rise of a counter for each minute, without steps of `below` or more."""
    steps = f'SELECT non_negative_derivative("{field}", 1m) AS "rate" FROM "exporter" WHERE {INSTANCE} AND {_WEEK}'
    slow = f' AND "rate" < {below}' if below else ""
    return f'SELECT mean("rate") FROM ({steps}) WHERE {_WEEK}{slow} GROUP BY time($__interval) fill(null)'


def _words(found: dict[str, model.ValueMappingResult]) -> list[Mapping]:
    return [model.ValueMap(options=found)]


def _state_words() -> list[Mapping]:
    found = {}
    for index, state in enumerate(LinkState):
        text, colour = _STATES[state]
        found[str(state.value)] = model.ValueMappingResult(text=text, color=colour, index=index)
    return _words(found)


def _source() -> Panel:
    return figure(
        "Source",
        "What the port, or the worst of several, does; words for each state stand in the exporter's log.",
        COUNT,
        Target(_last("source_state"), "Source"),
        none=_SILENT,
    ).mappings(_state_words())


def _age() -> Panel:
    return last_reading("How long ago the chosen meter was last heard; vermilion from your limit for silence.")


def _damaged() -> Panel:
    panel = figure(
        "Damaged, 24 h",
        "Frames that came damaged or could not be understood in the last 24 hours; a few are usual on a long wire.",
        COUNT,
        Target(_rise(*_ALL_REJECTS), "Damaged"),
        none=_SILENT,
    )
    return panel.thresholds(thresholds(((None, FINE), (100.0, NEAR), (1000.0, OVER)), ABSOLUTE))


def _lost() -> Panel:
    panel = figure(
        "Lost, 24 h",
        "Readings of the last 24 hours that InfluxDB will never have; the panel Readings lost says why.",
        COUNT,
        Target(_rise(*_LOST), "Lost"),
        none=_SILENT,
    )
    return panel.thresholds(thresholds(((None, FINE), (1.0, OVER)), ABSOLUTE))


def _unsent() -> Panel:
    panel = figure(
        "Oldest unsent",
        "Age of the oldest reading that InfluxDB has not taken yet; vermilion from your limit for a backlog.",
        AGE,
        Target(_last("outbox_age", 'round(last("{}"))'), "Age"),
        none=_SILENT,
    )
    panel.min(0).thresholds(thresholds(((None, FINE), (10.0, NEAR), (100.0, OVER))))
    with_max(panel, "backlog_age", query=_backlog())
    return panel


def _clock() -> Panel:
    words = {
        "0": model.ValueMappingResult(text="right", color=FINE, index=0),
        "1": model.ValueMappingResult(text="wrong", color=OVER, index=1),
    }
    return figure(
        "Computer's clock",
        "Whether the clock of the exporter's computer can be trusted; while it is wrong, the meter's is used.",
        COUNT,
        Target(_last("clock_untrusted"), "Clock"),
        none=_SILENT,
    ).mappings(_words(words))


def _states_over_time() -> Panel:
    panel = states(
        "Source over time",
        "What the port, or the worst of several, did over the time range.",
        Target(_course("source_state"), "Source"),
    )
    return panel.mappings(_state_words())


def _frames() -> Panel:
    panel = graph(
        "Frames",
        "Frames a minute that came from the meter whole; of the time range, the last week at most. More than a wire "
        "carries (a capture, the simulator's past) is left out.",
        PER_MINUTE,
        Target(_rate("frames", below=600), "Frames"),
        fill=15,
        none=_NO_FIGURES,
    )
    return one_colour(panel)


def _rejected() -> Panel:
    panel = bars(
        "Damaged frames",
        "Frames that came damaged or could not be understood, when they came; the last week at most.",
        _FEW,
        Target(_rises(*_ALL_REJECTS), "Damaged"),
        none=_NO_FIGURES,
    )
    return one_colour(panel, NEAR)


def _reasons() -> Panel:
    return horizontal_bars(
        "Damaged frames by reason, 24 h",
        "Why bytes of the last 24 hours were no frame that could be read: noise and damage come from the wire or a "
        "wrong speed or parity, what is not understood is encrypted or from an unknown meter.",
        COUNT,
        *(Target(_rise(*fields), words) for words, fields in _REJECTS.items()),
        none=_SILENT,
    )


def _written() -> Panel:
    panel = graph(
        "Points written",
        "Points a minute that InfluxDB took; of the time range, the last week at most.",
        PER_MINUTE,
        Target(_rate("points_written"), "Points"),
        fill=15,
        none=_NO_FIGURES,
    )
    return one_colour(panel)


def _depth() -> Panel:
    panel = graph(
        "Points waiting",
        "Points in the outbox: on this computer's disk, and not in InfluxDB yet.",
        COUNT,
        Target(_course("outbox_depth"), "Points"),
        fill=15,
        none=_NO_FIGURES,
    )
    return one_colour(panel)


def _unsent_course() -> Panel:
    panel = graph(
        "Age of the oldest unsent",
        "How long the oldest reading in the outbox has waited for InfluxDB, with your limit for a backlog.",
        _MINUTES,
        Target(course("exporter", of='max("outbox_age") / 60', whose=INSTANCE), "Age"),
        fill=15,
        none=_NO_FIGURES,
    )
    limit_line(panel, "backlog_age", "Limit", query=_backlog_course())
    return one_colour(panel)


def _latency() -> Panel:
    panel = graph(
        "Write latency",
        "How long InfluxDB took to take a batch of points, at most in each interval.",
        SECONDS,
        Target(_course("write_latency"), "Latency"),
        fill=15,
        none=_NO_FIGURES,
    )
    return one_colour(panel)


def _again() -> Panel:
    panel = bars(
        "Reconnects and retries",
        "How often the port was opened again, and how often a write to InfluxDB was; the last week at most.",
        _FEW,
        Target(_rises("reconnects"), "Port opened again"),
        Target(_rises("write_retries"), "Written again"),
        none=_NO_FIGURES,
    )
    panel.override_by_name("Port opened again", [_fixed(OVER)])
    panel.override_by_name("Written again", [_fixed(NEAR)])
    return panel


def _fixed(colour: str) -> model.DynamicConfigValue:
    return model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def _memory() -> Panel:
    panel = graph(
        "Memory",
        "Memory of the exporter's process.",
        BYTES,
        Target(_course("memory"), "Memory"),
        fill=15,
        none=_NO_FIGURES,
    )
    return one_colour(panel)


def _age_course() -> Panel:
    panel = graph(
        "Age of the last reading",
        "How long ago the chosen meter was last heard, at most in each interval, with your limit for silence.",
        _SECONDS,
        Target(course("reading_age", of='max("value")'), "Age"),
        fill=15,
    )
    limit_line(panel, "reading_age", "Limit")
    return one_colour(panel)


def _offset() -> Panel:
    panel = graph(
        "Meter's clock",
        "The chosen meter's clock less this computer's: above 0 it is fast. A few seconds are the wire's.",
        _OFF,
        Target(course("meter_clock_offset"), "Offset"),
        none="Most meters tell their clock once an hour: choose a longer time range",
    )
    return one_colour(panel)


def _reasons_lost() -> Panel:
    return horizontal_bars(
        "Readings lost, by reason, 24 h",
        "Why points or readings of the last 24 hours are in InfluxDB never: `han-exporter check` and the log say more.",
        COUNT,
        *(Target(_rise(field), words) for field, words in _LOST.items()),
        none=_SILENT,
    ).thresholds(thresholds(((None, FINE), (1.0, OVER)), ABSOLUTE))


def _events() -> Panel:
    query = f'SELECT "text" FROM "event" WHERE {INSTANCE} AND time > now() - 90d ORDER BY time DESC LIMIT 50'
    panel = rows(
        "Events",
        "What the exporter said of itself in the last 90 days, newest first.",
        COUNT,
        Target(query, table=True),
        none="nothing in the last 90 days",
    )
    panel.override_by_name("Time", [model.DynamicConfigValue("custom.width", 170)])
    return panel.override_by_name("text", [model.DynamicConfigValue("displayName", "What happened")])


def _rows() -> list[Row]:
    figures = [(4, _source()), (4, _age()), (4, _damaged()), (4, _lost()), (4, _unsent()), (4, _clock())]
    return [
        (4, figures),
        (4, [(24, _states_over_time())]),
        (8, [(8, _frames()), (8, _rejected()), (8, _reasons())]),
        (8, [(8, _age_course()), (8, _offset()), (8, _reasons_lost())]),
        (8, [(8, _written()), (8, _depth()), (8, _unsent_course())]),
        (8, [(8, _latency()), (8, _again()), (8, _memory())]),
        (8, [(24, _events())]),
    ]


PAGE: Final = Page(
    "exporter",
    "Exporter",
    "Whether meter, exporter and InfluxDB do their work; all is well while the first row is blue.",
    _rows,
    since="now-6h",
    instance=True,
)
