"""Listens to what a port gives, and changes its speed and parity while no frame checks (line_setting.py has the rules).

The owner is told when that begins, when everything was tried, and what was found.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final

from exporter.protocol.framing import Message, open_framer
from exporter.sources.contract import Happened, Report, SourceError, SourceEvent
from exporter.sources.serial.flood import RATE, Flood
from exporter.sources.serial.line_setting import LineSetting, lines_to_try
from exporter.sources.serial.pacing import Pacing
from exporter.sources.serial.port import Port
from exporter.sources.serial.port_trouble import PortError, holders
from exporter.sources.serial.serial_url import Line, SerialUrl

__all__ = ["LineFinder"]

log = logging.getLogger(__name__)

_FIELDS: Final = {"baud": "speed", "parity": "parity"}


class LineFinder:
    """One port's line, through all its openings. `url` is as it was set; times are seconds of a monotonic clock."""

    def __init__(self, url: SerialUrl) -> None:
        self._url = url
        self._setting = LineSetting(lines_to_try(url.line, url.fixed) if url.line_is_ours else [url.line])
        self._framer = open_framer()
        self._flood = Flood()
        self._pacing = Pacing()
        self._has_wire = url.byte_seconds > 0

    @property
    def line(self) -> Line:
        """The line in use."""
        return self._setting.line

    @property
    def byte_seconds(self) -> float:
        """Wire time of an octet on the line in use, 0 where their spacing says nothing."""
        return self.line.byte_seconds if self._has_wire else 0.0

    @property
    def learnt(self) -> str:
        """What `remember` takes after a restart: the query of the line that gave frames, empty for the one set."""
        home = self._setting.home
        return "" if home == self._url.line else home.query or "baud=2400"

    def remember(self, learnt: str) -> None:
        """Begin with the line that gave frames before this process, if the setting allows it."""
        with suppress(SourceError):  # kept by another version
            self._setting.remember(SerialUrl.parse(f"{self._url.name}?{learnt}").line)

    def opened(self, now: float) -> Line:
        """The port is about to be opened: the line to open it with."""
        self._framer = open_framer()
        return self._setting.opened(now)

    def lost(self) -> None:
        """The port was lost, or is not there."""
        self._setting.lost()

    def heard(self, octets: bytes, now: float, report: Report) -> float:
        """Take octets; gives the seconds to rest before the next: in a flood, and within a frame."""
        frames = sum(isinstance(found, Message) for found in self._framer.feed(octets))
        if self._setting.heard(len(octets), frames, now):
            report(SourceEvent(Happened.FOUND, self._found()))
        rest = self._flood.heard(len(octets), frames, now)
        if rest and not self._flood.told:
            self._flood.told = True
            report(SourceEvent(Happened.NO_FRAMES, self._flooded(now)))
        return rest or self._pacing.heard(len(octets), self._framer.missing, self.byte_seconds)

    def look(self, port: Port, now: float, report: Report) -> None:
        """Change the port's line when it is time. To be called after octets, and every second without.

        Raises PortError when the port is lost.
        """
        setting = self._setting
        failed, untried, line, octets = setting.failed, bool(setting.untried), setting.line, setting.octets
        change = setting.look(now)
        if not failed and setting.failed:
            report(SourceEvent(Happened.NO_FRAMES, self._doubted(line, octets)))
        if change is not None:
            self._change(port, change, now)
        if untried and not setting.untried:
            report(SourceEvent(Happened.NO_FRAMES, self._tried_all()))

    def _change(self, port: Port, line: Line, now: float) -> None:
        self._framer = open_framer()
        log.debug("%s: no frame checks; trying %s", self._url.name, line)
        try:
            port.set_line(line)
        except PortError as error:
            if error.kind != "line":
                raise
            log.debug("%s", error)
            port.set_line(self._setting.refused(now))

    def _found(self) -> str:
        line = self._setting.line
        if line == self._url.line:
            return f"frames from {self._url.name} check again, with {line}"
        setting = self._url.with_line(line).setting
        advice = f"write HAN_SOURCE={setting} so that every command starts with it"
        return f"frames from {self._url.name} check with {line}: {advice}"

    def _doubted(self, line: Line, octets: int) -> str:
        """Octets and no frame: what now?"""
        came = f"octets come from {self._url.name}, but no frame checks in {octets} of them"
        if not self._url.line_is_ours:
            return (
                f"{came}; speed and parity are set at the far end: try others there (such as 2400 8E1 in place of "
                f"2400 8N1){self._others_reading()}"
            )
        came += f" with {line}"
        if self._setting.proven:
            came += ", which gave frames before: noise on the wires?"
        if self._setting.lines == 1:
            return (
                f"{came}; the setting fixes speed and parity: take baud and parity out of HAN_SOURCE, and others are "
                f"tried{self._others_reading()}"
            )
        words = f"{came}; other settings are tried in turn"
        fixed = [_FIELDS[name] for name in _FIELDS if name in self._url.fixed]
        if fixed:
            words += f", but none with another {fixed[0]}, which HAN_SOURCE fixes: take it out if it is not sure"
        return words + self._others_reading()

    def _tried_all(self) -> str:
        return (
            f"octets come from {self._url.name}, but no frame checks with any of {self._setting.lines} settings: "
            "is it a meter's HAN port, are the two wires firm, is the adapter one for M-Bus? It is tried on; "
            f"`han-exporter capture` records what comes{self._others_reading()}"
        )

    def _flooded(self, now: float) -> str:
        flood = self._flood
        seconds = max(now - flood.since, 0.001)
        return (
            f"{self._url.name} floods: {flood.octets // 1024} kB in {seconds:.2g} s and no frame in them, more than a "
            f"meter sends; read at {RATE // 1024} kB/s now, so that nothing else has to wait: is it the right port?"
        )

    def _others_reading(self) -> str:
        others = ", ".join(holders(self._url.path)) if self._url.path is not None else ""
        return f". {others} has the port open as well, and takes octets away: stop it" if others else ""
