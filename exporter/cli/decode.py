"""`decode`: say what the frames of a capture mean."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from exporter.cli._common import EXIT_OK, EXIT_REJECTED, EXIT_UNUSABLE, give_up, naming_or_exit, say
from exporter.cli._cores import jobs_option, lines_ahead, readers_of
from exporter.config import Naming
from exporter.derive import points
from exporter.model.obis import describe
from exporter.model.reading import Placed, Reading
from exporter.pipeline.decoder import Heard, Intake, Outcome, Unread
from exporter.pipeline.learned import Lines
from exporter.pipeline.placing import Placer
from exporter.protocol.framing import Kind, Rejected
from exporter.protocol.hdlc import MAX_FRAME
from exporter.sources.capture.forms import NotACapture
from exporter.sources.capture.reader import BLOCK, CaptureParser, CaptureReader, read_capture

if TYPE_CHECKING:
    from exporter.cli._readers import Readers

_A_FRAME_IT_WAS: Final = frozenset({Kind.FCS, Kind.CLOSING_FLAG, Kind.BROKEN_OFF, Kind.INCOMPLETE})
_KNOWN_BY: Final = 1 << 20
"""Octets of a file by which its meters' shapes are known, so that others can read on."""
_HEADER_OCTETS: Final = 8
"""Flag, format, two addresses, control and HCS: fewer than these at the end of a file prove no frame."""


@click.command()
@click.argument("file", default="-", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "lp"]),
    default="text",
    show_default=True,
    help="text for people; json: one object a line; lp: the line protocol that would be written.",
)
@jobs_option
def decode(file: Path, form: str, jobs: int | None) -> None:
    """Say what the frames in FILE (default: standard input) mean.

    FILE is a capture: raw octets, hex text, or time-stamped hex as `capture` writes it; which one is told by looking.

    Exit code 0: everything decoded. 1: something was rejected (the frames that a capture begins or ends in the middle
    of are not held against it). 2: FILE cannot be read, is empty, or holds no HDLC frame at all.
    """
    naming = naming_or_exit()
    name = "standard input" if str(file) == "-" else str(file)
    if str(file) == "-" and sys.stdin.isatty():
        give_up("Give a capture file, or send one to standard input; see han-exporter decode --help.")
    tally = Tally()
    try:
        with nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as stream:
            source = "stdin" if str(file) == "-" else file.name
            for line in _decoded(stream, form, naming, source, tally, jobs):
                sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except NotACapture as error:
        give_up(f"{name}: {error.words}; no HDLC frame in it")
    except OSError as error:
        give_up(f"{name} cannot be read: {error.strerror or error}")
    if tally.frames == 0 and not tally.damaged_frames:
        give_up(f"{name}: no HDLC frame in it ({tally.octets} octets of something else)")
    say(tally.summary(name))
    raise SystemExit(tally.exit_code)


class Tally:
    """What came out of a capture, and whether it can be held against it."""

    def __init__(self) -> None:
        self.octets = 0
        self.frames = 0
        self.unread = 0
        self.unread_words = ""
        self.rejected = 0
        self.damaged_frames = 0
        self.damaged_lines = 0
        self.without_time = 0
        self.nameless = 0
        self._held = 0

    def count(self, outcome: Outcome) -> None:
        """Take the next outcome of the stream."""
        if not isinstance(outcome, Rejected):
            self.frames += 1
            if isinstance(outcome, Unread):
                self.unread += 1
                self.unread_words = outcome.words
            return
        if outcome.kind is Kind.FILL:
            return
        self.rejected += 1
        self.damaged_frames += outcome.kind in _A_FRAME_IT_WAS and outcome.size >= _HEADER_OCTETS
        cut_start = outcome.offset == 0 and outcome.kind is Kind.NOISE and outcome.size < MAX_FRAME - 1
        if not cut_start and outcome.kind is not Kind.INCOMPLETE:
            self._held += 1

    @property
    def exit_code(self) -> int:
        """0 when everything decoded, 1 when not, 2 when there was no frame."""
        if self.frames == 0:
            return EXIT_REJECTED if self.damaged_frames else EXIT_UNUSABLE
        return EXIT_REJECTED if self._held or self.unread or self.damaged_lines else EXIT_OK

    def summary(self, name: str) -> str:
        """One line for a person."""
        parts = [f"{self.frames} frame{'s' * (self.frames != 1)}"]
        for count, words in (
            (self.unread, f"of them not readable ({self.unread_words})"),
            (self.rejected, "rejected"),
            (self.damaged_lines, "damaged lines"),
            (self.without_time, "without any time"),
            (self.nameless, "left out, since two meters speak and these name none"),
        ):
            if count:
                parts.append(f"{count} {words}")
        return f"{name}: {', '.join(parts)}"


def _decoded(stream: BinaryIO, form: str, naming: Naming, source: str, tally: Tally, jobs: int | None) -> Iterator[str]:
    if form == "lp":
        placer = Placer(source, zone=naming.zone, fallback=naming.meter_id)
        lines = Lines(placer, lambda outcome: _line_protocol(outcome, placer, tally), naming.zone)
        for texts in lines_of(stream, CaptureParser(), lines, tally, readers_of(stream, jobs, naming.zone)):
            if texts:
                yield "\n".join(texts)
        for placed in placer.give_up():
            yield from _placed_lines(placed, tally)
        tally.nameless = placer.left_out
        return
    show: Callable[[Outcome], str] = _json_line if form == "json" else _text
    for outcome in outcomes_of(read_capture(stream), naming, tally):
        yield show(outcome)


def outcomes_of(reader: CaptureReader, naming: Naming, tally: Tally) -> Iterator[Outcome]:
    """Every outcome of a capture, counted; damaged lines of a text capture are said as they come."""
    intake = Intake(naming.zone)
    told = 0
    for chunk in reader:
        for outcome in intake.feed(chunk.data, chunk.received):
            tally.count(outcome)
            yield outcome
        told = _tell_problems(reader, told)
    for outcome in intake.end():
        tally.count(outcome)
        yield outcome
    _tell_problems(reader, told)
    tally.octets = intake.octets
    tally.damaged_lines = reader.damaged


def _tell_problems(reader: CaptureReader | CaptureParser, told: int) -> int:
    for problem in reader.problems[told:]:
        say(str(problem))
    return len(reader.problems)


def lines_of(
    stream: BinaryIO, parser: CaptureParser, lines: Lines, tally: Tally, cores: AbstractContextManager[Readers | None]
) -> Iterator[list[str]]:
    """The lines of a capture, piece by piece; what goes the slow way is for the `slow` of `lines` to count.

    With readers on other `cores` the lines are the same.
    """
    told = 0
    with cores as readers:
        for texts in _in_order(stream, parser, lines, until=None if readers is None else _KNOWN_BY):
            yield texts
            told = _tell_problems(parser, told)
        if readers is not None:
            for texts in lines_ahead(stream, parser, lines, readers):
                yield texts
                told = _tell_problems(parser, told)
    for texts in _in_order(stream, parser, lines):
        yield texts
        told = _tell_problems(parser, told)
    for chunk in parser.end():
        yield lines.feed(chunk.data, chunk.received)
    yield lines.end()
    _tell_problems(parser, told)
    tally.frames += lines.frames
    tally.without_time += lines.without_time
    tally.octets = lines.octets
    tally.damaged_lines = parser.damaged


def _in_order(stream: BinaryIO, parser: CaptureParser, lines: Lines, until: int | None = None) -> Iterator[list[str]]:
    """The lines of a capture up to its end, or to where shapes are known and so many octets of the file are done."""
    read = getattr(stream, "read1", stream.read)  # a pipe hands over what is there; a file, a block
    while (until is None or not lines.examples or parser.fed < until) and (data := read(BLOCK)):
        for chunk in parser.feed(data):
            yield lines.feed(chunk.data, chunk.received)


def _line_protocol(outcome: Outcome, placer: Placer, tally: Tally) -> Iterator[str]:
    tally.count(outcome)
    if isinstance(outcome, Heard):
        for placed in placer.place(outcome.reading):
            yield from _placed_lines(placed, tally)
    elif isinstance(outcome, Unread):
        say(f"octet {outcome.frame.offset}: {outcome.words}")
    elif outcome.kind is not Kind.FILL:
        say(f"octet {outcome.offset}: {outcome.size} octets rejected: {outcome.reason}")


def _placed_lines(placed: Placed, tally: Tally) -> Iterator[str]:
    tally.without_time += placed.time is None
    return points.lines(placed)


def _json_line(outcome: Outcome) -> str:
    if isinstance(outcome, Rejected):
        return json.dumps({"offset": outcome.offset, "octets": outcome.size, "rejected": outcome.reason})
    where = {"offset": outcome.frame.offset, "octets": outcome.frame.size}
    if isinstance(outcome, Unread):
        return json.dumps(where | {"rejected": outcome.words})
    reading = outcome.reading
    return json.dumps(
        where
        | {
            "maker": reading.meter.maker,
            "meter_id": reading.meter.id,
            "meter_type": reading.meter.type,
            "list": reading.list_id,
            "clock": _clock(reading),
            "measurements": {str(m.obis): {"value": m.value, "unit": m.unit} for m in reading.measurements},
        },
        ensure_ascii=False,
    )


def _clock(reading: Reading) -> str | None:
    if reading.clock is None:
        return None
    timespec = "milliseconds" if reading.clock.microsecond else "seconds"
    return reading.clock.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"


def _text(outcome: Outcome) -> str:
    if isinstance(outcome, Rejected):
        return f"octet {outcome.offset}: {outcome.size} octets rejected: {outcome.reason}"
    frame = outcome.frame
    if isinstance(outcome, Unread):
        return f"octet {frame.offset}: frame of {frame.size} octets not readable: {outcome.words}"
    reading = outcome.reading
    meter = reading.meter
    head = [
        reading.list_id or "list without a name",
        f"{meter.maker or 'maker not named'} {meter.type or ''}".rstrip(),
        f"meter {meter.id}" if meter.id else "meter not named",
        f"clock {_clock(reading)}" if reading.clock else "no clock",
    ]
    rows = [f"octet {frame.offset}: {frame.size} octets, {', '.join(head)}"]
    for m in reading.measurements:
        quantity = describe(m.obis)
        title = quantity.title if quantity else "(not in the catalogue)"
        unit = "" if m.unit == "1" else m.unit
        rows.append(f"  {m.obis!s:<14} {title:<26} {_number(m.value):>14} {unit}".rstrip())
    return "\n".join(rows)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
