"""`han-exporter probe`: find the port, its speed and its parity by listening."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import click

from exporter.cli._common import EXIT_OK, EXIT_REJECTED, EXIT_UNUSABLE, give_up
from exporter.counted import counted
from exporter.sources.contract import SourceError
from exporter.sources.serial.adapters import serial_ports, stable_path
from exporter.sources.serial.serial_url import SerialSettings, SerialUrl
from exporter.sources.serial.settings_finder import settings_to_try

__all__ = ["Listened", "listen", "probe"]

_TURN_S: Final = 0.5
_HEAD_SIZE: Final = 4096


@dataclass(slots=True)
class Listened:
    """What was received while listening: number of bytes and valid frames, the sender, the first bytes."""

    size: int = 0
    frames: int = 0
    sender: str = ""
    head: bytes = b""

    def describe(self) -> str:
        """What it was, for the user."""
        if self.frames:
            return self.sender
        if not self.size:
            return "silence"
        from exporter.sources.capture.forms import Form, name_content

        name = name_content(self.head)
        known = "" if name == Form.RAW.value or name.startswith("text") else f": {name}"
        return f"{counted(self.size, 'byte')}, but no valid frame{known}"


def listen(take: Callable[[float], bytes], seconds: float, now: Callable[[], float] = time.monotonic) -> Listened:
    """Listen until there is a valid frame or the time is over. Raises what `take` raises."""
    from exporter.protocol.framing import Message, open_framer

    found, framer, until = Listened(), open_framer(), now() + seconds
    while not found.frames and (left := until - now()) > 0:
        data = take(min(_TURN_S, left))
        found.size += len(data)
        found.head = (found.head + data)[:_HEAD_SIZE]
        for frame in framer.feed(data):
            if isinstance(frame, Message):
                found.frames += 1
                found.sender = _sender(frame.content)
    return found


def _sender(content: bytes) -> str:
    from exporter.meters import interpret
    from exporter.protocol.apdu import decode
    from exporter.protocol.axdr import DecodeError

    try:
        reading = interpret(decode(content))
    except DecodeError as error:
        return f"valid frames, but they cannot be decoded: {error}"
    who = f"frames of {reading.meter.maker or 'an unknown maker'}"
    if reading.meter.type is not None:
        who += f", type {reading.meter.type}"
    return who + (f", id {reading.meter.id}" if reading.meter.id is not None else "")


@click.command()
@click.argument("url", required=False)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=12.0,
    show_default=True,
    help="How long to listen with each setting; every meter sends something within 10 s.",
)
@click.pass_context
def probe(ctx: click.Context, url: str | None, seconds: float) -> None:
    """Find the port, speed and parity by listening, and show the setting to use.

    Without URL every serial port of this machine is tried. URL is a port (/dev/ttyUSB0), socket://HOST:PORT or
    rfc2217://HOST:PORT. Nothing is sent to the meter.

    Exit code 0: a meter was found. 1: nothing usable was received. 2: there is no port, or it cannot be opened.
    """
    try:
        urls = _urls(url)
    except SourceError as error:
        give_up(f"Cannot probe: {error}")
    opened = False
    for each in urls:
        listened, found = _try_port(each, seconds)
        opened = opened or listened
        if found is not None:
            _recommend(found)
            ctx.exit(EXIT_OK)
    if not opened:
        ctx.exit(EXIT_UNUSABLE)
    click.echo(
        "No meter was found. Is the cable of the adapter in the HAN port of the meter? Is the HAN port switched on "
        "(the grid company does that)? Is it an M-Bus adapter?"
    )
    ctx.exit(EXIT_REJECTED)


def _urls(url: str | None) -> list[SerialUrl]:
    if url is not None:
        if url.startswith(("sim:", "file:")):
            raise SourceError(
                f"{url} has no serial line to probe; give a port, like /dev/ttyUSB0, or nothing to try all ports"
            )
        return [SerialUrl.parse(url)]
    ports = serial_ports()
    if not ports:
        raise SourceError(
            "this machine has no serial port: plug the adapter in (in a container: mount /dev into it), or give the "
            "port, like socket://HOST:PORT"
        )
    return [SerialUrl.parse(port.device) for port in ports]


def _try_port(url: SerialUrl, seconds: float) -> tuple[bool, SerialUrl | None]:
    """Whether the port could be opened, and the setting with which a meter was found, None if none was."""
    from exporter.sources.serial.port import open_port
    from exporter.sources.serial.port_errors import PortError

    listened = False
    for settings in _settings(url):
        setting = url.with_settings(settings)
        at = f" at {settings}" if url.is_settable else ""
        click.echo(f"{url.path or url.address}{at}: ", nl=False)
        try:
            with open_port(setting) as port:
                found = listen(port.read, seconds)
        except (PortError, SourceError) as error:
            click.echo(str(error))
            if listened and (isinstance(error, SourceError) or error.kind == "settings"):
                continue  # the adapter does not support this speed or parity, but maybe the next
            break
        listened = True
        click.echo(found.describe())
        if found.frames:
            return True, setting
        if not found.size:
            break  # with a wrong speed there would be wrong bytes, so the other settings would be silent too
    return listened, None


def _settings(url: SerialUrl) -> list[SerialSettings]:
    """The settings to try, those of the URL first. Those of a plain socket are set at its other end."""
    if not url.is_settable:
        return [url.settings]
    return settings_to_try(url.settings)


def _recommend(found: SerialUrl) -> None:
    click.echo(f"\nUse this setting:\n\n    HAN_SOURCE={found.text}\n")
    stable = stable_path(found.path)
    if stable is not None:
        click.echo(
            "or this, whose name does not depend on what else is plugged in:\n\n"
            f"    HAN_SOURCE={found.text.replace(str(found.path), stable, 1)}\n"
        )
