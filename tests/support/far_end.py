"""An RFC 2217 server in front of a UART that hears what the line lets it hear."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import serial
from serial import rfc2217

from exporter.sources.serial.serial_url import Line
from tests.support.uart import Receiver, heard


class FarEnd:
    """An RFC 2217 server in front of a UART: what its meter sends with `sent` is heard as the client has set the line.

    `refused` are parities that it does not take.
    """

    def __init__(self, peer: socket.socket, sent: Line, receiver: Receiver, refused: str = "") -> None:
        self.device = _Device(refused)
        self._peer, self._sent, self._receiver = peer, sent, receiver
        self._manager = rfc2217.PortManager(cast(rfc2217.Serial, self.device), cast(rfc2217.Serial, self))
        threading.Thread(target=self._answer, daemon=True).start()

    def write(self, octets: bytes) -> None:
        self._peer.sendall(octets)

    def send(self, octets: bytes) -> None:
        """The meter sends these."""
        come = heard(octets, self._sent, self.device.line, self._receiver)
        self.write(b"".join(self._manager.escape(come)))

    def _answer(self) -> None:
        with suppress(OSError):
            while data := self._peer.recv(1024):
                for _ in self._manager.filter(data):
                    pass


class _Device(serial.serial_for_url("loop://", do_not_open=True).__class__):  # type: ignore[misc]
    """What the server believes to be its serial port."""

    def __init__(self, refused: str) -> None:
        self._refused = refused
        self._parity = "N"
        super().__init__("loop://", timeout=0)

    @property
    def line(self) -> Line:
        return Line(self.baudrate, self.bytesize, self.parity, self.stopbits)

    def _reconfigure_port(self) -> None:
        if self._parity in self._refused:
            self._parity = "N"
            raise ValueError("not here")
        super()._reconfigure_port()


@contextmanager
def far_end(listening: socket.socket, *given: Any) -> Iterator[FarEnd]:
    """The next client's connection."""
    peer, _ = listening.accept()
    with peer:
        yield FarEnd(peer, *given)
        with suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)  # or it lasts for as long as the other thread waits for it
