"""Shows a LiveState as a screen (rich) and as plain lines. Pure: it prints nothing and reads no clock.

Only the sixteen colours of the terminal are used, so that they suit a dark and a light background. No information is
only in a colour: there is always a text or a number too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from exporter.counted import counted, grouped
from exporter.live.digits import big_number
from exporter.live.state import HISTORY_MS, LiveState, MeterState, PhaseValues
from exporter.model.calendar import HOUR_MS, from_ms
from exporter.model.obis import describe
from exporter.model.reading import Placed
from exporter.pipeline.link import READING, Condition, Level, LinkState

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

__all__ = ["ShownLimits", "View", "load_style", "plain_line", "sparkline"]

MIN_WIDTH: Final = 40
MAX_WIDTH: Final = 100
_TALL: Final = 20
"""With this many terminal rows there is room for big digits and blank lines."""

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_SLOT_MS: Final = 10_000
_STYLES: Final = {Level.WELL: "green", Level.WAITING: "cyan", Level.WRONG: "bold red"}
_PERCENT_STYLES: Final = {"green": None, "yellow": "bold", "red": "bold red"}
"""Yellow text cannot be read on a light background; the bar next to it is yellow enough."""


@dataclass(frozen=True, slots=True)
class ShownLimits:
    """What the values of a meter are compared with: A, V, V. `fuse_is_set` is False if the fuse is the default."""

    main_fuse_a: float
    voltage_min: float
    voltage_max: float
    fuse_is_set: bool = True


def load_style(percent: float) -> str:
    """The colour for the load of a fuse: from 80 % it needs attention, from 90 % something has to be switched off."""
    if percent >= 90:
        return "red"
    return "yellow" if percent >= 80 else "green"


@dataclass(frozen=True, slots=True)
class View:
    """How states are shown. Times are in `zone`; `limits_of` gives the limits of a meter."""

    zone: ZoneInfo
    limits_of: Callable[[str], ShownLimits]

    def render(self, state: LiveState, width: int, height: int, now: float) -> Group:
        """The screen at `now` (monotonic), at most `width` columns wide. What is important comes first."""
        from rich.console import Group
        from rich.text import Text

        width = max(min(width, MAX_WIDTH), MIN_WIDTH)
        tall = height >= _TALL
        condition = state.condition(now)
        meter = state.newest
        blocks: list[list[Text]] = [self._head(state, meter, condition, width, now)]
        if meter is not None:
            blocks += [
                self._power(meter, tall),
                self._phases(meter, width),
                self._hour(meter),
                self._minutes(meter, width, 3 if tall else 1),
            ]
        blocks.append(self._foot(state, meter, now))
        lines: list[Text] = []
        for block in filter(None, blocks):
            if lines and tall:
                lines.append(Text())
            lines += block
        return Group(*(_within(line, width) for line in lines))

    def _head(
        self, state: LiveState, meter: MeterState | None, condition: Condition, width: int, now: float
    ) -> list[Text]:
        from rich.text import Text

        message = Text(" ") + Text(condition.message, _STYLES[condition.level])
        message.no_wrap = False
        if meter is None:
            return [_ends(Text(f" {state.link.name}", "bold"), Text(), width), message]
        maker_and_type = " ".join(filter(None, (meter.maker or "unknown maker", meter.type)))
        age = f"{_duration(now - meter.last_at)} ago"
        lines = [
            _ends(Text(f" {meter.id}", "bold"), Text(self._moment(meter.last_time)), width),
            _ends(
                Text(f" {maker_and_type}, on {state.link.name}"),
                Text("" if state.link.state is LinkState.ENDED else age),
                width,
            ),
        ]
        return lines if condition.kind == READING else [*lines, message]

    def _power(self, meter: MeterState, tall: bool) -> list[Text]:
        from rich.text import Text

        imported, exported = meter.value("active_power", "import"), meter.value("active_power", "export")
        if imported is None and exported is None:
            return [Text(" The lists of this meter have no active power.")]
        exports = bool(exported) and not imported
        power, direction = (exported or 0.0, "export") if exports else (imported or 0.0, "import")
        texts = [f"W {direction}"]
        if imported and exported:
            texts.append(f"{grouped(exported)} W export")
        texts += _reactive(meter)
        if not tall:
            return [Text(f" {grouped(power)} {'  '.join(texts)}", "bold")]
        rows = big_number(grouped(power))
        texts = [""] * (len(rows) - len(texts)) + texts[: len(rows)]
        style = "bold green" if exports else "bold"
        return [Text("  ") + Text(row, style) + Text(f"  {text}") for row, text in zip(rows, texts, strict=True)]

    def _phases(self, meter: MeterState, width: int) -> list[Text]:
        from rich.text import Text

        phases = meter.phases
        if not phases:
            return []
        limits = self.limits_of(meter.id)
        assumed = "" if limits.fuse_is_set else " (assumed: set HAN_MAIN_FUSE_A to yours)"
        with_power = any(phase.power is not None for phase in phases)
        bar = width - 4 - 8 - 8 - 8 - (10 if with_power else 0) - 1
        title = Text(f" Main fuse {limits.main_fuse_a:g} A{assumed}", "dim")
        return [title, *(_phase_line(phase, limits, min(bar, 50), with_power) for phase in phases)]

    def _hour(self, meter: MeterState) -> list[Text]:
        from rich.text import Text

        hour = meter.imported if meter.imported.known else meter.exported
        if not hour.known or hour.hour is None:
            return []
        energies = [f"{meter.imported.energy / 1000:.3f} kWh"] if meter.imported.known else []
        if meter.exported.known and meter.exported.energy:
            energies.append(f"{meter.exported.energy / 1000:.3f} kWh exported")
        start, end = (from_ms(ms).astimezone(self.zone) for ms in (hour.hour, hour.hour + HOUR_MS))
        since = "so far" if hour.whole else f"since {self._clock(hour.since)}"
        missing = f", {_duration(hour.unheard / 1000)} missing" if hour.unheard >= 1000 else ""
        return [
            Text(f" Hour {start:%H:%M}-{end:%H:%M}  ") + Text(", ".join(energies), "bold") + Text(f" {since}{missing}")
        ]

    def _minutes(self, meter: MeterState, width: int, rows: int) -> list[Text]:
        from rich.text import Text

        slots = _slots(meter.history, min(HISTORY_MS // _SLOT_MS, width - 2))
        known = [abs(power) for power in slots if power is not None]
        if not known:
            return []
        lines = []
        for row in sparkline(slots, rows):
            line = Text(" ")
            for power, character in zip(slots, row, strict=True):
                line.append(character, "green" if power is not None and power < 0 else "cyan")
            lines.append(line)
        export = ", export green" if any(power is not None and power < 0 for power in slots) else ""
        minutes = round(len(slots) * _SLOT_MS / 60_000)
        title = f" Last {minutes} minutes, highest {grouped(max(known))} W{export}"
        return [Text(title, "dim"), *lines]

    def _foot(self, state: LiveState, meter: MeterState | None, now: float) -> list[Text]:
        from rich.text import Text

        lines = []
        others = [other for other in reversed(state.meters.values()) if other is not meter]
        if others:
            others_shown = ", ".join(f"{other.id} {_other(other, now)}" for other in others)
            lines.append(Text(f" Other meters: {others_shown}"))
        counts = state.link.counts
        parts = [counted(counts.messages, "frame"), counted(counts.rejected, "reject")]
        if counts.left_out:
            parts.append(f"{counted(counts.left_out, 'list')} without a meter id ignored")
        if meter is not None and meter.clock_offset is not None:
            parts.append(f"meter clock {_offset(meter.clock_offset)}")
        lines.append(Text(f" {', '.join(parts)}", "dim"))
        if state.note:
            lines.append(Text(f" {state.note}"))
            lines[-1].no_wrap = False
        elif counts.rejected:
            lines.append(Text(f" last reject: {state.link.last_reject}", "dim"))
        return lines

    def plain_line(self, placed: Placed) -> str:
        """One reading as one line: local time, meter, and the values of this reading only."""
        return plain_line(placed, self.zone)

    def _moment(self, ms: int | None) -> str:
        return _local(ms, self.zone)

    def _clock(self, ms: int) -> str:
        return from_ms(ms).astimezone(self.zone).strftime("%H:%M")


def plain_line(placed: Placed, zone: ZoneInfo) -> str:
    """`2026-11-22 17:00:10 6970… 3771 W  L1 14.7 A 220 V  L2 …`: one reading as one line, in local time.

    Export is shown if there is any, registers (kWh) for hourly lists. A quantity that is not in the list is not in the
    line.
    """
    values: dict[tuple[str, str, str], float] = {}
    for measurement in placed.reading.measurements:
        quantity = describe(measurement.obis)
        if quantity is not None and (not quantity.is_register or measurement.obis.e == 0):
            values[quantity.name, quantity.phase, quantity.direction] = measurement.value
    parts = [f"{_local(placed.time, zone)} {placed.meter_id} {_plain_power(values)}".rstrip()]
    for phase in ("L1", "L2", "L3"):
        current, voltage = values.get(("current", phase, "")), values.get(("voltage", phase, ""))
        texts = [] if current is None else [f"{current:.1f} A"]
        texts += [] if voltage is None else [f"{voltage:.0f} V"]
        if texts:
            parts.append(f"{phase} {' '.join(texts)}")
    for direction in ("import", "export"):
        register = values.get(("active_energy", "", direction))
        if register is not None:
            parts.append(f"{direction} {register / 1000:.2f} kWh")
    return "  ".join(parts)


def _plain_power(values: dict[tuple[str, str, str], float]) -> str:
    imported = values.get(("active_power", "", "import"))
    exported = values.get(("active_power", "", "export"))
    texts = [] if imported is None or (exported and not imported) else [f"{imported:.0f} W"]
    if exported or (exported is not None and imported is None):
        texts.append(f"export {exported:.0f} W")
    return " ".join(texts)


def sparkline(slots: list[float | None], rows: int) -> list[str]:
    """Bars of |W|, `rows` lines high; the highest is full. A blank means not known, a low mark means 0."""
    top = max((abs(power) for power in slots if power is not None), default=0.0) or 1.0
    steps = [0 if power is None else max(round(abs(power) / top * 8 * rows), 1) for power in slots]
    return ["".join(_BLOCKS[min(max(step - 8 * row, 0), 8)] for step in steps) for row in reversed(range(rows))]


def _slots(history: Iterable[tuple[int, float]], count: int) -> list[float | None]:
    """Mean W of each of the last `count` slots of 10 s. One slot without a reading has the mean of the slot before."""
    sums: dict[int, tuple[float, int]] = {}
    last = 0
    for time, power in history:
        last = time // _SLOT_MS
        total, number = sums.get(last, (0.0, 0))
        sums[last] = (total + power, number + 1)
    means: list[float | None] = []
    held: float | None = None
    for slot in range(last - count + 1, last + 1):
        if slot in sums:
            total, number = sums[slot]
            held = total / number
            means.append(held)
        else:
            means.append(held)
            held = None
    return means


def _phase_line(phase: PhaseValues, limits: ShownLimits, bar: int, with_power: bool) -> Text:
    from rich.text import Text

    line = Text(" ").append(phase.phase, "bold").append(" ")
    if phase.current is None:
        line.append(f"{'current not measured':<{bar + 16}}", "dim")
    else:
        percent = phase.current / limits.main_fuse_a * 100
        style = load_style(percent)
        full = min(round(percent / 100 * bar), bar)
        line.append("▆" * full, style).append("▁" * (bar - full), "dim")
        line.append(f"{phase.current:6.1f} A")
        line.append(f"{percent:5.0f} %" + ("!" if percent > 100 else " "), _PERCENT_STYLES[style])
    outside = phase.voltage is not None and not limits.voltage_min <= phase.voltage <= limits.voltage_max
    voltage = "" if phase.voltage is None else f"{phase.voltage:.0f} V"
    line.append(f"{voltage:>8}", "bold red" if outside else None)
    if with_power:
        line.append("" if phase.power is None else f"{grouped(phase.power) + ' W':>10}")
    return line


def _reactive(meter: MeterState) -> list[str]:
    texts = []
    for direction in ("import", "export"):
        value = meter.value("reactive_power", direction)
        if value:
            texts.append(f"{grouped(value)} var {direction}")
    if not texts and meter.net("reactive_power") is not None:
        texts.append("0 var")
    return [", ".join(texts) + " (reactive)"] if texts else []


def _other(meter: MeterState, now: float) -> str:
    net = meter.net("active_power")
    power = "" if net is None else f"{grouped(net)} W, "
    return f"({power}{_duration(now - meter.last_at)} ago)"


def _offset(seconds: float) -> str:
    if abs(seconds) < 1.5:
        return "correct to 1 s"
    return f"{_duration(abs(seconds))} {'ahead' if seconds > 0 else 'behind'}"


def _duration(seconds: float) -> str:
    """`5 s`, `12 min`, `3 h 20 min`, `400 days`."""
    whole = max(round(seconds), 0)
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


def _local(ms: int | None, zone: ZoneInfo) -> str:
    if ms is None:
        return "(no time)"
    moment: datetime = from_ms(ms).astimezone(zone)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _ends(left: Text, right: Text, width: int) -> Text:
    """Two texts at both ends of a line. The left one is cut if there is not enough room."""
    left = left.copy()
    left.truncate(max(width - right.cell_len - 2, 8), overflow="ellipsis", pad=True)
    return left + " " + right


def _within(line: Text, width: int) -> Text:
    """The line, cut at the width, or wrapped if it is a sentence (`no_wrap` is False)."""
    from rich.console import Console

    if line.no_wrap is False:
        lines = line.wrap(Console(width=width), width - 1)
        for following in lines[1:]:
            following.pad_left(1)
        wrapped = type(line)("\n").join(lines)
        wrapped.no_wrap = True
        return wrapped
    line = line.copy()
    line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    return line
