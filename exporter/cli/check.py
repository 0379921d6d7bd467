"""`check`: test everything that has to work, and say for each part that it is ok, or what to do."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from exporter.cli._common import config_option, exit_on_wrong_settings, settings_options, settings_or_exit
from exporter.config import LazySettings
from exporter.counted import counted
from exporter.pipeline.link import NO_BYTES, Level, Link, LinkState
from exporter.service.metrics import faults
from exporter.service.status_socket import NotRunning, ask

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.sources.contract import Source, SourceError

_NOT_WRONG: Final = frozenset(state.label for state in LinkState if state.level is not Level.WRONG)
_LISTEN_S: Final = 15.0
"""A Kamstrup meter sends its list every 10 s, the others more often."""


@click.command()
@click.option("--running", is_flag=True, help="Only ask the running service whether it works (for health checks).")
@click.option(
    "--seconds", type=click.FloatRange(1, 600), default=_LISTEN_S, show_default=True, help="How long to listen."
)
@settings_options
@config_option
def check(running: bool, seconds: float, config: Path | None, **overrides: Any) -> None:
    """Test settings, sources, frames, InfluxDB and clock, and say for each that it is ok, or what to do.

    If `run` is using the port, `check` asks `run` and does not open the port.

    Exit code 0: everything works. 1: something does not. 2: the settings cannot be used.
    """
    verdicts = Verdicts()
    if running:
        _ask_service(config, overrides, verdicts)
        raise SystemExit(verdicts.exit_code)
    settings = settings_or_exit(config, **overrides)
    verdicts.ok("settings", f"{counted(len(settings.sources), 'source')}, time zone {settings.timezone}")
    try:
        status = ask(settings.outbox_path)
    except NotRunning:
        _outbox(settings.outbox_path, verdicts)
        _sources(settings, seconds, verdicts)
    else:
        _service(status, verdicts, patient=False)
    _influx(settings, verdicts)
    _clock(verdicts)
    raise SystemExit(verdicts.exit_code)


def _ask_service(config: Path | None, overrides: Mapping[str, Any], verdicts: Verdicts) -> None:
    """Ask the running service. This is done every minute, so the settings are checked only if no service answers."""
    settings = LazySettings(overrides, config)
    try:
        with exit_on_wrong_settings():
            status = ask(settings.outbox_path)
    except NotRunning as error:
        with exit_on_wrong_settings():
            settings.check()
        verdicts.wrong("service", str(error))
    else:
        _service(status, verdicts, patient=True)


class Verdicts:
    """Prints each verdict at once."""

    def __init__(self) -> None:
        self.exit_code = 0

    def ok(self, what: str, message: str) -> None:
        """It works."""
        click.echo(f"ok     {what}: {message}")

    def note(self, what: str, message: str) -> None:
        """It is not an error, but good to know."""
        click.echo(f"note   {what}: {message}")

    def wrong(self, what: str, message: str) -> None:
        """It does not work; `message` says what to do."""
        click.echo(f"WRONG  {what}: {message}")
        self.exit_code = 1


def _service(status: Mapping[str, Any], verdicts: Verdicts, *, patient: bool) -> None:
    """Report the status of a running service. If `patient`, what may pass by itself and is recent is only a note."""
    verdicts.ok(
        "service", f"han-exporter {status['version']} is running, process {status['pid']}, since {status['started']}"
    )
    reported = set()
    for link in status["sources"]:
        frames = counted(link["frames"], "frame")
        age = f", the last {link['frame_age_s']:.0f} s ago" if link["frames"] else ""
        message = f"{link['words']}; {frames}{age}"
        if link["state"] in _NOT_WRONG:
            verdicts.ok(link["name"], message)
        elif patient:
            verdicts.note(link["name"], message)
        else:
            verdicts.wrong(link["name"], message)
            reported.add(link["words"])
    trouble = status["outbox"].get("trouble")  # an older service does not send it
    if trouble:
        direct = status["influx"] is not None
        result = "readings are sent to InfluxDB without it" if direct else "readings are lost"
        report = verdicts.note if patient and direct else verdicts.wrong
        report("outbox", f"{trouble}. The service tries again; until it works, {result}")
    else:
        _contents(status["outbox"]["path"], status["outbox"], verdicts)
    for fault in faults(status):
        if fault not in reported:
            verdicts.wrong("service", fault)


def _outbox(path: Path, verdicts: Verdicts) -> None:
    """Check an outbox that no service is using."""
    from exporter.cli._outbox import check_outbox, explain, is_there
    from exporter.outbox.queue import OutboxError

    if not is_there(path):
        return  # `run` creates it
    try:
        _contents(path, asdict(check_outbox(path)), verdicts)
    except OutboxError as error:
        verdicts.wrong("outbox", explain(error, path))


def _contents(path: Path | str, outbox: Mapping[str, Any], verdicts: Verdicts) -> None:
    """Report what the outbox contains."""
    verdicts.ok("outbox", f"{path}: {counted(outbox['depth_lines'], 'line')} waiting")
    rejected, dropped = outbox["rejected_lines"], outbox["dropped_lines"]
    if rejected:
        shows = "`han-exporter rejected` shows " + ("it" if rejected == 1 else "them")
        verdicts.note("outbox", f"InfluxDB rejected {counted(rejected, 'line')}; {shows}")
    if dropped:
        verdicts.note("outbox", f"{counted(dropped, 'line')} dropped because it was full")


def _sources(settings: Settings, seconds: float, verdicts: Verdicts) -> None:
    from exporter.cli._outbox import states
    from exporter.sources.contract import Remembers, SourceError

    if not settings.sources:
        verdicts.wrong("source", "none is configured: set HAN_SOURCE, for example to /dev/ttyUSB0, or to sim:")
    learned = states(settings.outbox_path, "line:")
    for url, source in _opened(settings):
        if isinstance(source, SourceError):
            verdicts.wrong(url, str(source))
            continue
        setting = ""
        if isinstance(source, Remembers):
            source.remembered = learned.get(f"line:{source.name}", "")
            setting = source.remembered
        link = Link(source.name, url)
        try:
            _listen(source, link, settings, seconds)
        except SourceError as error:
            verdicts.wrong(url, str(error))
        else:
            _received(url, link, seconds, setting, verdicts)


def _opened(settings: Settings) -> list[tuple[str, Source | SourceError]]:
    """Each source with the name that it has in `run`, or the error in its URL."""
    from exporter.service.service import name_apart
    from exporter.sources.contract import SourceError
    from exporter.sources.open import open_source

    found: list[tuple[str, Source | SourceError]] = []
    for url in settings.sources:
        try:
            found.append((url, open_source(url, zone=settings.zone)))
        except SourceError as error:
            found.append((url, error))
    name_apart([source for _, source in found if not isinstance(source, SourceError)])
    return found


def _received(url: str, link: Link, seconds: float, setting: str, verdicts: Verdicts) -> None:
    """Report what was received from a source. `setting` is the speed and parity that `run` found earlier."""
    condition = link.condition(patience=0)
    if link.state is LinkState.OK:
        size, frames = counted(link.counts.bytes, "byte"), counted(link.counts.messages, "frame")
        found = f" ({setting}, which `run` found)" if setting else ""
        findings = "".join(f"; {finding}" for finding in link.take_findings())
        verdicts.ok(url, f"{size}, {frames}, all can be decoded{found}{findings}")
    elif condition.kind == NO_BYTES:
        verdicts.wrong(
            url, f"open, but nothing was received in {seconds:.0f} s: is the adapter in the HAN port, is it on?"
        )
    else:
        verdicts.wrong(url, condition.message)


def _listen(source: Source, link: Link, settings: Settings, seconds: float) -> None:
    """Listen until a frame was decoded or `seconds` are over."""
    from exporter.pipeline.host_clock import HostClock
    from exporter.pipeline.pipeline import NoState, Pipeline, Purpose

    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.daemon = True
    timer.start()
    pipeline = Pipeline(source.name, settings, NoState(), HostClock(), purpose=Purpose.READINGS, link=link)
    try:
        for chunk in source.chunks(stop, link.happened):
            pipeline.feed((chunk,), more=True)
            if link.state is LinkState.OK or stop.is_set():
                break
        else:
            if not stop.is_set():
                link.ended()
    finally:
        timer.cancel()


def _influx(settings: Settings, verdicts: Verdicts) -> None:
    if settings.influx_url is None:
        verdicts.note("InfluxDB", "not configured (HAN_INFLUX_URL); until it is, `run` keeps everything in its outbox")
        return
    from exporter.config import SettingsError
    from exporter.sinks.contract import Verdict
    from exporter.sinks.influx.client import Client, Unreachable

    try:
        client = Client(
            settings.influx_url,
            bucket=settings.influx_bucket,
            token=settings.token(),
            org=settings.influx_org,
            ca_cert=settings.influx_ca_cert,
        )
        version = client.version()
    except (SettingsError, ValueError) as error:
        verdicts.wrong("InfluxDB", str(error))
        return
    except Unreachable as error:
        verdicts.wrong("InfluxDB", error.message)
        return
    verdicts.ok("InfluxDB", f"{client.address} answers{f', version {version}' if version else ''}")
    outcome = client.can_write()
    if outcome.verdict is Verdict.TAKEN:
        verdicts.ok("token", f"may write to bucket {settings.influx_bucket}")
    else:
        verdicts.wrong("token", outcome.message)


def _clock(verdicts: Verdicts) -> None:
    from exporter.pipeline.host_clock import NOT_BEFORE, synchronised

    now = datetime.now(UTC)
    if now < NOT_BEFORE:
        verdicts.wrong(
            "clock", f"the time of this computer is {now:%Y-%m-%d %H:%M} UTC, which cannot be right; set it (NTP)"
        )
    elif synchronised() is False:
        verdicts.note("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC, but not synchronised: is an NTP service running?")
    else:
        verdicts.ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")
