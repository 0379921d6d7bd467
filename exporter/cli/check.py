"""`check`: try each thing that must work, and say of each ok or what to do."""

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
from exporter.pipeline.link import Link, LinkState, faults
from exporter.service.status_socket import NotRunning, ask

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.sources.contract import Source, SourceError

_LISTEN_S: Final = 15.0
"""A Kamstrup sends its list every 10 s, the others more often."""


@click.command()
@click.option("--running", is_flag=True, help="Only ask the running service whether it is well (for health checks).")
@click.option("--seconds", type=click.FloatRange(1, 600), default=_LISTEN_S, show_default=True, help="Listen so long.")
@settings_options
@config_option
def check(running: bool, seconds: float, config: Path | None, **overrides: Any) -> None:
    """Try settings, source, frames, InfluxDB and clock, and say of each ok or what to do.

    While `run` holds the port it is asked, and the port is left alone.

    Exit code 0: all is well. 1: something is not. 2: the settings cannot be used.
    """
    verdicts = Verdicts()
    if running:
        _ask_alone(config, overrides, verdicts)
        raise SystemExit(verdicts.exit_code)
    settings = settings_or_exit(config, **overrides)
    verdicts.ok("settings", f"{len(settings.sources)} source(s), time zone {settings.timezone}")
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


def _ask_alone(config: Path | None, overrides: Mapping[str, Any], verdicts: Verdicts) -> None:
    """Ask the running service alone. This is done every minute: only when none answers are the settings checked."""
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
    """Prints each verdict as it falls."""

    def __init__(self) -> None:
        self.exit_code = 0

    def ok(self, what: str, words: str) -> None:
        """It works."""
        click.echo(f"ok     {what}: {words}")

    def note(self, what: str, words: str) -> None:
        """Not a fault, but worth knowing."""
        click.echo(f"note   {what}: {words}")

    def wrong(self, what: str, words: str) -> None:
        """It does not work; `words` say what to do."""
        click.echo(f"WRONG  {what}: {words}")
        self.exit_code = 1


def _service(status: Mapping[str, Any], verdicts: Verdicts, *, patient: bool) -> None:
    """What a running service says. `patient`: only what does not pass by itself, or has not for long, is a fault."""
    verdicts.ok("service", f"han-exporter {status['version']} runs, process {status['pid']}, since {status['started']}")
    told = set()
    for link in status["sources"]:
        words = f"{link['words']}; {link['frames']} frames, the last {link['frame_age_s']:.0f} s ago"
        if link["state"] in ("ok", "waiting", "ended"):
            verdicts.ok(link["name"], words)
        elif patient:
            verdicts.note(link["name"], words)
        else:
            verdicts.wrong(link["name"], words)
            told.add(link["words"])
    trouble = status["outbox"].get("trouble")  # an older service does not tell
    if trouble:
        straight = status["influx"] is not None
        fate = "readings go straight to InfluxDB until then" if straight else "readings are lost until then"
        say = verdicts.note if patient and straight else verdicts.wrong
        say("outbox", f"{trouble}. It is tried again by itself; {fate}")
    else:
        _holds(status["outbox"]["path"], status["outbox"], verdicts)
    for words in faults(status):
        if words not in told:
            verdicts.wrong("service", words)


def _outbox(path: Path, verdicts: Verdicts) -> None:
    """What no service holds now: is it whole?"""
    from exporter.cli._outbox import in_words, is_there, look_through
    from exporter.outbox.queue import OutboxError

    if not is_there(path):
        return  # `run` makes it
    try:
        _holds(path, asdict(look_through(path)), verdicts)
    except OutboxError as error:
        verdicts.wrong("outbox", in_words(error, path))


def _holds(path: Path | str, outbox: Mapping[str, Any], verdicts: Verdicts) -> None:
    verdicts.ok("outbox", f"{path}: {outbox['depth_lines']} lines wait")
    if outbox["rejected_lines"]:
        verdicts.note(
            "outbox", f"InfluxDB rejected {outbox['rejected_lines']} lines; `han-exporter rejected` shows them"
        )
    if outbox["dropped_lines"]:
        verdicts.note("outbox", f"{outbox['dropped_lines']} lines were dropped since it was full")


def _sources(settings: Settings, seconds: float, verdicts: Verdicts) -> None:
    from exporter.cli._outbox import states
    from exporter.sources.contract import Learns, SourceError

    if not settings.sources:
        verdicts.wrong("source", "none is given: set HAN_SOURCE, for example to /dev/ttyUSB0, or to sim:")
    learnt = states(settings.outbox_path, "line:")
    for url, source in _opened(settings):
        if isinstance(source, SourceError):
            verdicts.wrong(url, str(source))
            continue
        begins_with = ""
        if isinstance(source, Learns):
            source.learnt = learnt.get(f"line:{source.name}", "")
            begins_with = source.learnt
        link = Link(source.name, url)
        try:
            _listen(source, link, settings, seconds)
        except SourceError as error:
            verdicts.wrong(url, str(error))
        else:
            _heard(url, source, link, seconds, begins_with, verdicts)


def _opened(settings: Settings) -> list[tuple[str, Source | SourceError]]:
    """Each source with the name that it has in `run`, or what is wrong with how it is written."""
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


def _heard(url: str, source: Source, link: Link, seconds: float, begins_with: str, verdicts: Verdicts) -> None:
    """What listening to a source has shown."""
    if link.state is LinkState.OK:
        learnt = f" ({begins_with}, which `run` has found out)" if begins_with else ""
        found = "".join(f"; {words}" for words in link.findings())
        verdicts.ok(url, f"{link.counts.octets} octets, {link.counts.frames} frames, all can be read{learnt}{found}")
    elif link.state is LinkState.WAITING and not link.counts.octets:
        verdicts.wrong(url, f"open, but no octet came in {seconds:.0f} s: is the adapter in the HAN port, is it on?")
    elif link.counts.frames and link.counts.unread == link.counts.frames:
        verdicts.wrong(url, f"{link.counts.frames} frames, and none can be read: {link.unread_words}")
    elif not link.counts.frames and link.counts.octets:
        probing = f"wrong parity or speed? Run `han-exporter probe {url}`; `run` finds them by itself, too"
        advice = probing if source.live else "is it a capture?"
        verdicts.wrong(url, f"{link.counts.octets} octets and no frame: {advice}")
    else:
        verdicts.wrong(url, link.words)


def _listen(source: Source, link: Link, settings: Settings, seconds: float) -> None:
    """Listen until a frame was read or `seconds` are over."""
    from exporter.pipeline.decoder import Intake

    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.daemon = True
    timer.start()
    intake = Intake(settings.zone)
    try:
        for chunk in source.chunks(stop, link.happened):
            link.heard(len(chunk.data), intake.feed(chunk.data, chunk.received))
            if link.state is LinkState.OK or stop.is_set():
                break
    finally:
        timer.cancel()


def _influx(settings: Settings, verdicts: Verdicts) -> None:
    if settings.influx_url is None:
        verdicts.note(
            "InfluxDB", "none is configured (HAN_INFLUX_URL); `run` keeps everything in its outbox until one is"
        )
        return
    from exporter.config import SettingsError
    from exporter.sinks.influx.answers import Verdict
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
        verdicts.wrong("InfluxDB", error.words)
        return
    verdicts.ok("InfluxDB", f"{client.address} answers{f', version {version}' if version else ''}")
    outcome = client.can_write()
    if outcome.verdict is Verdict.TAKEN:
        verdicts.ok("token", f"may write to bucket {settings.influx_bucket}")
    else:
        verdicts.wrong("token", outcome.words)


def _clock(verdicts: Verdicts) -> None:
    from exporter.pipeline.host_clock import NOT_BEFORE, synchronised

    now = datetime.now(UTC)
    if now < NOT_BEFORE:
        verdicts.wrong("clock", f"this computer says it is {now:%Y-%m-%d %H:%M} UTC, which cannot be; set it (NTP)")
    elif synchronised() is False:
        verdicts.note("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC, but not synchronised: is an NTP service running?")
    else:
        verdicts.ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")
