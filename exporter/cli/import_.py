"""`import`: put captures into InfluxDB."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter.cli._captures import Tally, feed_capture, progress
from exporter.cli._common import (
    EXIT_OK,
    EXIT_REJECTED,
    EXIT_UNUSABLE,
    client_or_exit,
    config_option,
    give_up,
    influx_options,
    say,
    settings_or_exit,
)
from exporter.cli.run import start_logging
from exporter.counted import counted
from exporter.model import point
from exporter.outbox.queue import OutboxError
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.pipeline import Pipeline, Purpose
from exporter.sources.capture.forms import NotACapture
from exporter.sources.capture.reader import CaptureParser

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.sinks.influx.bulk_writer import BulkWriter
    from exporter.sinks.influx.hours import StoredHours


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@influx_options
@config_option
def import_(files: tuple[Path, ...], config: Path | None, **overrides: str | None) -> None:
    """Put the captures FILES into InfluxDB as `run` would have written them.

    Time stamps in a capture say when a reading was received; without them the meter's own clock does, and readings
    without any time are counted and left out. The same file always gives the same points: importing it again changes
    nothing, so an import that was broken off is simply repeated.

    Exit code 0: all is in InfluxDB. 1: something was rejected. 2: a file, the settings or InfluxDB cannot be used.
    """
    settings = settings_or_exit(config, **overrides)
    start_logging(settings)
    from exporter.sinks.influx.bulk_writer import BulkWriter, GaveUp
    from exporter.sinks.influx.hours import StoredHours

    client = client_or_exit(settings)
    poster, stored = BulkWriter(client, say), StoredHours(client)
    hours = Hours(settings.outbox_path)
    codes = []
    for file in files:
        try:
            codes.append(_import(file, settings, poster, hours, stored))
        except NotACapture as error:
            say(f"{file}: {error.what}; no HDLC frame in it")
            codes.append(EXIT_UNUSABLE)
        except OSError as error:
            say(f"{file} cannot be read: {error.strerror or error}")
            codes.append(EXIT_UNUSABLE)
        except GaveUp as problem:
            poster.close()
            give_up(f"{problem}. What was imported stays; import the same file again, nothing comes twice.")
        except BaseException:
            poster.close()
            raise
    poster.close()
    raise SystemExit(max(codes))


def _import(file: Path, settings: Settings, poster: BulkWriter, hours: Hours, stored: StoredHours) -> int:
    tally, parser = Tally(), CaptureParser()
    rejected_before, written_before = poster.rejected, poster.written
    pipeline = Pipeline(file.name, settings, hours, HostClock(), purpose=Purpose.IMPORT, others=stored)
    newest: dict[str, str] = {}  # of points that are replaced, by their key: they go last, each once
    state: dict[str, str] = {}
    with file.open("rb") as stream, progress(file) as bar:
        for fed in feed_capture(stream, parser, pipeline):
            for outcome in fed.outcomes:
                tally.count(outcome)
            newest |= {row.key: row.body.decode() for row in fed.rows if row.key}
            if poster.take([row.body.decode() for row in fed.rows if not row.key]):
                bar.at(parser.fed)
            state = fed.state
        poster.finish()
        hours.put(state)  # first, so that a service that runs beside has them in its sums too
        poster.post([*newest.values()])
        bar.at(parser.fed)
    tally.close(parser, pipeline)
    if tally.is_no_capture:
        say(f"{file}: no HDLC frame in it ({counted(tally.size, 'byte')} of something else)")
        return EXIT_UNUSABLE
    rejected = poster.rejected - rejected_before
    say(f"{tally.summary(str(file))}; {counted(poster.written - written_before, 'point')} in InfluxDB")
    if rejected:
        say(f"InfluxDB rejected {counted(rejected, 'point')}: {'; '.join(poster.reasons)}")
    return EXIT_OK if not rejected and tally.exit_code == EXIT_OK else EXIT_REJECTED


class Hours:
    """The hour registers that the outbox of this computer knows, and those that this import adds to them.

    Without an outbox that can be used the import goes on, and knows only its own.
    """

    def __init__(self, outbox: Path) -> None:
        from exporter.outbox.shared_state import SharedState

        self._own: dict[str, str] = {}
        self._shared: SharedState | None = None
        try:
            self._shared = SharedState(outbox, point.replaced_key)
        except (OutboxError, OSError) as error:
            say(f"Note: {error}; the hours of this import are not remembered")

    def get_state(self, key: str) -> str | None:
        """What is kept under a key of the state."""
        return self._own.get(key) if self._shared is None else self._shared.get(key)

    def states(self, prefix: str) -> Mapping[str, str]:  # noqa: ARG002
        """Nothing: what `run` learned of names and clocks is not for a file."""
        return {}

    def put(self, state: Mapping[str, str]) -> None:
        """Keep what a file added: for each key a JSON object that is united with the one there."""
        self._own.update(state)
        if self._shared is not None:
            try:
                self._shared.put(state)
            except OutboxError as error:
                say(f"Note: {error}; the hours of this import are not remembered")
