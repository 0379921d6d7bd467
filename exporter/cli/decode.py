"""`decode`: say what the frames of a capture mean."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from exporter.cli._captures import Tally, feed_capture, progress
from exporter.cli._common import give_up, naming_or_exit, say
from exporter.counted import counted
from exporter.model.obis import describe
from exporter.model.reading import Reading
from exporter.pipeline.decoder import Outcome, Undecoded
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.pipeline import NoState, Pipeline, Purpose
from exporter.protocol.framing import Kind, Rejected
from exporter.sources.capture.forms import NotACapture
from exporter.sources.capture.reader import CaptureParser

if TYPE_CHECKING:
    from exporter.config import Naming


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
def decode(file: Path, form: str) -> None:
    """Say what the frames in FILE (default: standard input) mean.

    FILE is a capture: raw bytes, hex text, or time-stamped hex as `capture` writes it; which one is found by looking.

    Exit code 0: everything decoded. 1: something was rejected (the frames that a capture begins or ends in the middle
    of do not count). 2: FILE cannot be read, is empty, or holds no HDLC frame at all.
    """
    naming = naming_or_exit()
    name = "standard input" if str(file) == "-" else str(file)
    if str(file) == "-" and sys.stdin.isatty():
        give_up("Give a capture file, or send one to standard input; see han-exporter decode --help.")
    tally = Tally()
    try:
        if str(file) == "-":
            _decode(sys.stdin.buffer, form, naming, "stdin", tally, None)
        else:
            with file.open("rb") as stream:
                _decode(stream, form, naming, file.name, tally, None if sys.stdout.isatty() else file)
    except BrokenPipeError:
        raise
    except NotACapture as error:
        give_up(f"{name}: {error.what}; no HDLC frame in it")
    except OSError as error:
        give_up(f"{name} cannot be read: {error.strerror or error}")
    if tally.is_no_capture:
        give_up(f"{name}: no HDLC frame in it ({counted(tally.size, 'byte')} of something else)")
    say(tally.summary(name))
    raise SystemExit(tally.exit_code)


def _decode(stream: BinaryIO, form: str, naming: Naming, source: str, tally: Tally, shown: Path | None) -> None:
    """Write all of a capture to standard output; with a progress bar for the file `shown`."""
    purpose = Purpose.VALUES if form == "lp" else Purpose.READINGS
    pipeline = Pipeline(source, naming, NoState(), HostClock(), purpose=purpose)
    parser = CaptureParser()
    out = sys.stdout.buffer
    with nullcontext() if shown is None else progress(shown) as bar:
        for fed in feed_capture(stream, parser, pipeline):
            for outcome in fed.outcomes:
                tally.count(outcome)
                _show(outcome, form)
            for row in fed.rows:
                out.write(row.body + b"\n")
            out.flush()
            if bar is not None:
                bar.at(parser.fed)
    tally.close(parser, pipeline)
    if form != "lp":  # readings without a time are shown as well
        tally.without_time = 0


def _show(outcome: Outcome, form: str) -> None:
    if form == "json":
        sys.stdout.buffer.write(_json_line(outcome).encode() + b"\n")
    elif form == "text":
        sys.stdout.buffer.write(_text(outcome).encode() + b"\n")
    elif isinstance(outcome, Undecoded):
        say(f"byte {outcome.message.offset}: {outcome.reason}")
    elif isinstance(outcome, Rejected) and outcome.kind is not Kind.FILL:
        say(_rejected_words(outcome))


def _rejected_words(rejected: Rejected) -> str:
    return f"byte {rejected.offset}: {counted(rejected.size, 'byte')} rejected: {rejected.reason}"


def _json_line(outcome: Outcome) -> str:
    if isinstance(outcome, Rejected):
        return json.dumps({"offset": outcome.offset, "octets": outcome.size, "rejected": outcome.reason})
    where = {"offset": outcome.message.offset, "octets": outcome.message.size}
    if isinstance(outcome, Undecoded):
        return json.dumps(where | {"rejected": outcome.reason})
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
        return _rejected_words(outcome)
    message = outcome.message
    if isinstance(outcome, Undecoded):
        return f"byte {message.offset}: frame of {counted(message.size, 'byte')} not readable: {outcome.reason}"
    reading = outcome.reading
    meter = reading.meter
    head = [
        reading.list_id or "list without a name",
        f"{meter.maker or 'maker not named'} {meter.type or ''}".rstrip(),
        f"meter {meter.id}" if meter.id else "meter not named",
        f"clock {_clock(reading)}" if reading.clock else "no clock",
    ]
    rows = [f"byte {message.offset}: {counted(message.size, 'byte')}, {', '.join(head)}"]
    for m in reading.measurements:
        quantity = describe(m.obis)
        title = quantity.title if quantity else "(not in the catalogue)"
        unit = "" if m.unit == "1" else m.unit
        rows.append(f"  {m.obis!s:<14} {title:<26} {_number(m.value):>14} {unit}".rstrip())
    return "\n".join(rows)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
