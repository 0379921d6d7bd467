"""An RFC 2217 server with a simulated UART, which receives what its settings let it receive."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import serial
from serial import rfc2217

from exporter.sources.serial.serial_url import SerialSettings
from tests.support.uart import Receiver, received


class FarEnd:
    """An RFC 2217 server with a UART. Its meter sends with the settings `sent`; the client sets those of the UART.

    `refused` are parities that it refuses.
    """

    def __init__(self, peer: socket.socket, sent: SerialSettings, receiver: Receiver, refused: str = "") -> None:
        self.device = _Device(refused)
        self._peer, self._sent, self._receiver = peer, sent, receiver
        self._manager = rfc2217.PortManager(cast(rfc2217.Serial, self.device), cast(rfc2217.Serial, self))
        threading.Thread(target=self._answer, daemon=True).start()

    def write(self, data: bytes) -> None:
        self._peer.sendall(data)

    def send(self, data: bytes) -> None:
        """The meter sends these."""
        got = received(data, self._sent, self.device.serial_settings, self._receiver)
        self.write(b"".join(self._manager.escape(got)))

    def _answer(self) -> None:
        with suppress(OSError):
            while data := self._peer.recv(1024):
                for _ in self._manager.filter(data):
                    pass


class _Device(serial.serial_for_url("loop://", do_not_open=True).__class__):  # type: ignore[misc]
    """The serial port of the server, as pyserial knows it."""

    def __init__(self, refused: str) -> None:
        self._refused = refused
        self._parity = "N"
        super().__init__("loop://", timeout=0)

    @property
    def serial_settings(self) -> SerialSettings:
        return SerialSettings(self.baudrate, self.bytesize, self.parity, self.stopbits)

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
            peer.shutdown(socket.SHUT_RDWR)  # else it stays open while the other thread waits for it
