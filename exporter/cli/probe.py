"""`han-exporter probe`: find the port, its speed and its parity by listening."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import click

from exporter.cli._common import EXIT_OK, EXIT_REJECTED, EXIT_UNUSABLE, give_up
from exporter.sources.contract import SourceError
from exporter.sources.serial.adapters import serial_ports, stable_path
from exporter.sources.serial.line_setting import lines_to_try
from exporter.sources.serial.serial_url import Line, SerialUrl

__all__ = ["Heard", "listen", "probe"]

_TURN: Final = 0.5
_KEPT: Final = 4096


@dataclass(slots=True)
class Heard:
    """What came while listening: octets, whole frames, who sent them; `head` is the first of the octets."""

    octets: int = 0
    frames: int = 0
    sender: str = ""
    head: bytes = b""

    def words(self) -> str:
        """What it was, for the owner."""
        if self.frames:
            return self.sender
        if not self.octets:
            return "silence"
        from exporter.sources.capture.forms import Form, name_content

        name = name_content(self.head)
        known = "" if name == Form.RAW.value or name.startswith("text") else f": {name}"
        return f"{self.octets} octets, but no frame that checks{known}"


def listen(take: Callable[[float], bytes], seconds: float, now: Callable[[], float] = time.monotonic) -> Heard:
    """Listen until a frame checks or the time is over. Raises what `take` raises."""
    from exporter.protocol.hdlc import Deframer, Frame

    heard, deframer, until = Heard(), Deframer(), now() + seconds
    while not heard.frames and (left := until - now()) > 0:
        octets = take(min(_TURN, left))
        heard.octets += len(octets)
        heard.head = (heard.head + octets)[:_KEPT]
        for found in deframer.feed(octets):
            if isinstance(found, Frame):
                heard.frames += 1
                heard.sender = _sender(found.content)
    return heard


def _sender(information: bytes) -> str:
    from exporter.meters import interpret
    from exporter.protocol.apdu import decode
    from exporter.protocol.axdr import DecodeError

    try:
        reading = interpret(decode(information))
    except DecodeError as error:
        return f"whole frames, but they cannot be read: {error}"
    who = f"frames of {reading.meter.maker or 'a meter whose maker the list does not say'}"
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
    help="How long to listen to each setting; every meter sends something within 10 s.",
)
@click.pass_context
def probe(ctx: click.Context, url: str | None, seconds: float) -> None:
    """Find the port, speed and parity by listening, and say which setting to use.

    Without URL every serial port of this machine is tried. URL is a port (/dev/ttyUSB0), socket://HOST:PORT or
    rfc2217://HOST:PORT. Nothing is ever sent.

    Exit code: 0 when a meter was found, 1 when nothing usable was heard, 2 when there is no port or it cannot be
    opened.
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
        "No meter was found. Is the adapter's cable in the meter's HAN port, is that port switched on (the grid "
        "company does that), and is the adapter one for M-Bus?"
    )
    ctx.exit(EXIT_REJECTED)


def _urls(url: str | None) -> list[SerialUrl]:
    if url is not None:
        if url.startswith(("sim:", "file:")):
            raise SourceError(f"{url} has no line to probe; give a port, such as /dev/ttyUSB0, or none to try all")
        return [SerialUrl.parse(url)]
    ports = serial_ports()
    if not ports:
        raise SourceError(
            "this machine has no serial port: plug the adapter in (in a container: bind /dev into it), or name the "
            "port, such as socket://HOST:PORT"
        )
    return [SerialUrl.parse(port.device) for port in ports]


def _try_port(url: SerialUrl, seconds: float) -> tuple[bool, SerialUrl | None]:
    """Whether the port could be listened to, and the setting at which a meter was heard, if one was."""
    from exporter.sources.serial.port import open_port
    from exporter.sources.serial.port_trouble import PortError

    listened = False
    for line in _lines(url):
        asked = url.with_line(line)
        at = f" at {line}" if url.line_is_ours else ""
        click.echo(f"{url.path or url.address}{at}: ", nl=False)
        try:
            with open_port(asked) as port:
                heard = listen(port.take, seconds)
        except (PortError, SourceError) as error:
            click.echo(str(error))
            if listened and (isinstance(error, SourceError) or error.kind == "line"):
                continue  # the adapter cannot do this speed or parity; it may do the next
            break
        listened = True
        click.echo(heard.words())
        if heard.frames:
            return True, asked
        if not heard.octets:
            break  # a wrong speed gives wrong octets, never none: the other settings would be as silent
    return listened, None


def _lines(url: SerialUrl) -> list[Line]:
    """What to try: the setting's own line first; a plain socket's far end has set the line."""
    if not url.line_is_ours:
        return [url.line]
    return lines_to_try(url.line)


def _recommend(found: SerialUrl) -> None:
    click.echo(f"\nUse this setting:\n\n    HAN_SOURCE={found.setting}\n")
    stable = stable_path(found.path)
    if stable is not None:
        click.echo(
            "or this, which keeps its name whatever else is plugged in:\n\n"
            f"    HAN_SOURCE={found.setting.replace(str(found.path), stable, 1)}\n"
        )
