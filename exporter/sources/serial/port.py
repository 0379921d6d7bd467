"""An open serial port, read with a limit on the waiting time. SerialSource and `probe` use it."""

from __future__ import annotations

import fcntl
import io
import os
import queue
import select
import termios
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import serial

from exporter.sources.serial.port_errors import cannot_configure, cannot_open, check_kind, errno_of, lost
from exporter.sources.serial.serial_url import SerialSettings, SerialUrl

__all__ = ["MAX_READ", "Opener", "Port", "open_port"]

MAX_READ: Final = 4096
"""Bytes taken from a port at a time, so that a device that floods cannot fill the memory."""

_WAIT: Final = 1.0
"""Seconds to wait for a port without a file descriptor, so that the caller can look at `stop`."""

_READ_AHEAD: Final = 1 << 18
"""Bytes that pyserial's own thread (RFC 2217) may read ahead; more wait at the far end."""

_UNLIMITED: Final = 1 << 62
_PTY_MAJORS: Final = range(136, 144)
"""Major device numbers of Unix98 pseudo-terminal slaves (Linux Documentation/admin-guide/devices.txt)."""

Opener = Callable[..., Any]
"""`serial.serial_for_url`, or what a test uses in its place."""


def open_port(url: SerialUrl, opener: Opener = serial.serial_for_url) -> Port:
    """Open a port for this process only, and set it.

    Raises PortError for what may pass (missing, no permission, busy, unreachable), SourceError for what never can.
    """
    if url.path is not None:
        check_kind(url.path)
    try:
        return Port(url, _open(url, url.settings, opener))
    except (OSError, ValueError, termios.error) as error:  # SerialException is an OSError
        raise cannot_open(url, error) from error


def _open(url: SerialUrl, settings: SerialSettings, opener: Opener) -> Any:
    # pyserial's RFC 2217 fills a queue from a thread and has no descriptor to wait for: it waits by its timeout.
    timeout = _WAIT if url.scheme == "rfc2217" else 0
    # The first bytes of a network connection are the meter's, but pyserial would discard what came while it opened.
    keeps = url.is_network
    try:
        port = opener(
            url.address,
            baudrate=settings.baud,
            bytesize=settings.bits,
            parity=settings.parity,
            stopbits=settings.stop,
            timeout=timeout,
            exclusive=True,
            **({"do_not_open": True} if keeps else {}),
        )
        if keeps:
            port.reset_input_buffer = _keep_input
            port.open()
        return port
    except termios.error:
        # A pseudo-terminal has no parity, and some C libraries answer EINVAL when asked for it, or for 7 bits.
        if settings != SerialSettings(settings.baud) and url.path is not None and _is_pty(url.path):
            return _open(url, SerialSettings(settings.baud), opener)
        raise


def _protect(url: SerialUrl, descriptor: int) -> None:
    """Set what pyserial does not: a break discards no input, and no other program can open the port."""
    with suppress(termios.error):
        attributes = termios.tcgetattr(descriptor)
        if attributes[0] & termios.BRKINT:
            # `stty sane` sets it, and bytes with a wrong baud rate look like breaks.
            attributes[0] &= ~termios.BRKINT
            termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
    # The lock that pyserial takes only stops programs that ask for it. A pseudo-terminal is left out: its other end
    # stays open, so it would stay closed to others if this process were killed.
    if url.path is not None and not _is_pty(url.path):
        with suppress(OSError):
            fcntl.ioctl(descriptor, termios.TIOCEXCL)


def _keep_input() -> None:
    """In place of `reset_input_buffer`."""


def _is_pty(path: str) -> bool:
    try:
        return os.major(os.stat(path).st_rdev) in _PTY_MAJORS  # noqa: PTH116
    except OSError:
        return False


class Port:
    """An open port. Closing it twice is harmless."""

    def __init__(self, url: SerialUrl, port: Any) -> None:
        self._url = url
        self._port = port
        self._poll: select.poll | None = None
        try:
            descriptor = port.fileno()
        except (AttributeError, io.UnsupportedOperation):
            if port.timeout != _WAIT:
                port.timeout = _WAIT
        else:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)
            if url.path is not None:
                _protect(url, descriptor)
        self._limit_read_ahead(_READ_AHEAD)

    def read(self, seconds: float) -> bytes:
        """Bytes as soon as there are any, at most MAX_READ; b"" if none came in that time.

        A port without a file descriptor waits for a second, or not at all for 0. Raises PortError (LOST).
        """
        try:
            if self._poll is not None:
                return self._port.read(MAX_READ) if self._poll.poll(seconds * 1000) else b""
            if not seconds and not self._port.in_waiting:
                return b""
            first: bytes = self._port.read(1)
            return first + self._rest() if first else b""
        except (OSError, termios.error) as error:
            raise lost(self._url, error) from error

    def _rest(self) -> bytes:
        try:
            waiting = min(self._port.in_waiting, MAX_READ - 1)
            return self._port.read(waiting) if waiting else b""
        except (OSError, termios.error):
            return b""  # the byte before is kept; the next `read` gets the same error

    def configure(self, settings: SerialSettings) -> None:
        """Change the settings of the open port; bytes that come at that moment may be lost.

        Raises PortError: of kind "settings" if the port cannot be set so, else LOST.
        """
        if self._url.path is not None and _is_pty(self._url.path):
            settings = SerialSettings(settings.baud)
        self._limit_read_ahead(_UNLIMITED)  # the far end's answer comes after the bytes that are waiting
        try:
            self._port.apply_settings(
                {
                    "baudrate": settings.baud,
                    "bytesize": settings.bits,
                    "parity": settings.parity,
                    "stopbits": settings.stop,
                }
            )
        except (OSError, ValueError, termios.error) as error:
            raise cannot_configure(self._url, settings, error) from error
        finally:
            self._limit_read_ahead(_READ_AHEAD)

    def close(self) -> None:
        """Close the port."""
        self._limit_read_ahead(_UNLIMITED)  # so that the thread that reads ahead can end
        if self._poll is not None and self._url.path is not None:
            # If another program had the port open before, TIOCEXCL would stay and would stop us from opening it again.
            with suppress(OSError, ValueError, TypeError):
                fcntl.ioctl(self._port.fileno(), termios.TIOCNXCL)
        try:
            self._port.close()
        except (OSError, termios.error) as error:
            # An adapter that was unplugged answers EIO here too; the descriptor is closed nevertheless.
            if errno_of(error) is None:
                raise

    def _limit_read_ahead(self, size: int) -> None:
        ahead = getattr(self._port, "_read_buffer", None)
        if isinstance(ahead, queue.Queue):
            with ahead.mutex:
                ahead.maxsize = size
                ahead.not_full.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
