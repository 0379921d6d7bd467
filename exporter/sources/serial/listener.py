"""Watches what a serial port gives: changes its settings while no valid message comes, and slows a flood down.

settings_finder.py has the rules of the change, flood.py those of a flood. Here the port is set, and the owner gets a
report when a search begins, when all settings were tried, and when messages are found.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final

from exporter.counted import counted
from exporter.protocol.framing import Message, open_framer
from exporter.sources.contract import Happened, Report, SourceError, SourceEvent
from exporter.sources.serial.flood import RATE, Flood
from exporter.sources.serial.pacing import Pacing
from exporter.sources.serial.port import Port
from exporter.sources.serial.port_errors import PortError, holders
from exporter.sources.serial.serial_url import SerialSettings, SerialUrl
from exporter.sources.serial.settings_finder import SettingsFinder, settings_to_try

__all__ = ["Listener"]

log = logging.getLogger(__name__)

_FIELDS: Final = {"baud": "baud rate", "parity": "parity"}


class Listener:
    """One port, each time it is opened. `url` is as configured; times are seconds of a monotonic clock."""

    def __init__(self, url: SerialUrl) -> None:
        self._url = url
        self._finder = SettingsFinder(settings_to_try(url.settings, url.fixed) if url.is_settable else [url.settings])
        self._framer = open_framer()
        self._flood = Flood()
        self._pacing = Pacing()
        self._has_wire = url.byte_seconds > 0

    @property
    def settings(self) -> SerialSettings:
        """The settings in use."""
        return self._finder.current

    @property
    def byte_seconds(self) -> float:
        """Wire time of one byte with the settings in use; 0 if the port has no wire here."""
        return self.settings.byte_seconds if self._has_wire else 0.0

    @property
    def remembered(self) -> str:
        """The settings that gave messages, as the query of a URL; empty if they are the configured ones."""
        found = self._finder.preferred
        return "" if found == self._url.settings else found.query or "baud=2400"

    def remember(self, query: str) -> None:
        """Begin with the settings of an earlier process, given by its `remembered`, if the configuration allows it."""
        with suppress(SourceError):  # another version may have written it
            self._finder.prefer(SerialUrl.parse(f"{self._url.name}?{query}").settings)

    def opened(self, now: float) -> SerialSettings:
        """The port is about to be opened; returns the settings to open it with."""
        self._framer = open_framer()
        return self._finder.opened(now)

    def lost(self) -> None:
        """The port was lost, or does not exist."""
        self._finder.lost()

    def heard(self, data: bytes, now: float, report: Report) -> float:
        """Take bytes; return the seconds to pause before the next read, for a flood or within a message."""
        messages = sum(isinstance(found, Message) for found in self._framer.feed(data))
        if self._finder.heard(len(data), messages, now):
            report(SourceEvent(Happened.FOUND, self._found()))
        pause = self._flood.heard(len(data), messages, now)
        if pause and not self._flood.reported:
            self._flood.reported = True
            report(SourceEvent(Happened.NO_FRAMES, self._flooded(now)))
        return pause or self._pacing.heard(len(data), self._framer.missing, self.byte_seconds)

    def change_if_due(self, port: Port, now: float, report: Report) -> None:
        """Change the settings of the port when it is time. Call it after bytes, and once a second without.

        Raises PortError if the port is lost.
        """
        finder = self._finder
        failed, untried = finder.failed_turns, bool(finder.untried)
        settings, size = finder.current, finder.turn_bytes
        change = finder.change_due(now)
        if not failed and finder.failed_turns:
            report(SourceEvent(Happened.NO_FRAMES, self._doubted(settings, size)))
        if change is not None:
            self._change(port, change, now)
        if untried and not finder.untried:
            report(SourceEvent(Happened.NO_FRAMES, self._tried_all()))

    def _change(self, port: Port, settings: SerialSettings, now: float) -> None:
        self._framer = open_framer()
        log.debug("%s: no valid frame; trying %s", self._url.name, settings)
        try:
            port.configure(settings)
        except PortError as error:
            if error.kind != "settings":
                raise
            log.debug("%s", error)
            port.configure(self._finder.refused(now))

    def _found(self) -> str:
        settings = self._finder.current
        if settings == self._url.settings:
            return f"{self._url.name} gives valid frames again, with {settings}"
        source = self._url.with_settings(settings).text
        advice = f"write HAN_SOURCE={source} so that every command begins with this"
        return f"{self._url.name} gives valid frames with {settings}: {advice}"

    def _doubted(self, settings: SerialSettings, size: int) -> str:
        """Bytes without a valid frame: what they are, and what is done about it."""
        came = f"bytes come from {self._url.name}, but no valid frame in {counted(size, 'byte')}"
        if not self._url.is_settable:
            return (
                f"{came}; baud rate and parity are set at the far end: try others there (such as 2400 8E1 instead of "
                f"2400 8N1){self._other_readers()}"
            )
        came += f" with {settings}"
        if self._finder.proven:
            came += ", which gave valid frames before: noise on the wires?"
        if self._finder.count == 1:
            return (
                f"{came}; HAN_SOURCE fixes baud rate and parity: remove baud and parity from it, and others are tried"
                f"{self._other_readers()}"
            )
        message = f"{came}; other settings are tried in turn"
        fixed = [_FIELDS[name] for name in _FIELDS if name in self._url.fixed]
        if fixed:
            message += f", but none with another {fixed[0]}, which HAN_SOURCE fixes: remove it unless it is certain"
        return message + self._other_readers()

    def _tried_all(self) -> str:
        return (
            f"bytes come from {self._url.name}, but no valid frame with any of {self._finder.count} settings: is it "
            "the HAN port of a meter, are both wires connected firmly, is the adapter for M-Bus? All are tried again "
            f"and again; `han-exporter capture` records what comes{self._other_readers()}"
        )

    def _flooded(self, now: float) -> str:
        flood = self._flood
        seconds = max(now - flood.since, 0.001)
        return (
            f"{self._url.name} floods: {flood.received // 1024} kB in {seconds:.2g} s without a valid frame, more than "
            f"any meter sends; it is read at {RATE // 1024} kB/s now, so that nothing else has to wait: is it the "
            "right port?"
        )

    def _other_readers(self) -> str:
        others = ", ".join(holders(self._url.path)) if self._url.path is not None else ""
        return f". {others} has the port open too, and takes bytes away: stop it" if others else ""
