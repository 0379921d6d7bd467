"""An open serial port, read without waiting longer than asked. Used by SerialSource and by `probe`."""

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

from exporter.sources.serial.port_trouble import cannot_open, cannot_set, check_kind, errno_of, lost
from exporter.sources.serial.serial_url import Line, SerialUrl

__all__ = ["MOST", "Opener", "Port", "open_port"]

MOST: Final = 4096
"""Octets taken from a port at a time, so that a device that floods cannot fill the memory."""

_LOOK: Final = 1.0
"""Seconds that a port without a file descriptor is waited for; `stop` is looked at in between."""

_KEPT_FOR_US: Final = 1 << 18
"""Octets that pyserial's own thread (RFC 2217) may read ahead; more wait at the far end."""

_ANY: Final = 1 << 62
_PTY_MAJORS: Final = range(136, 144)
"""Major device numbers of Unix98 pseudo-terminal slaves (Linux Documentation/admin-guide/devices.txt)."""

Opener = Callable[..., Any]
"""`serial.serial_for_url`, or in a test what stands in for it."""


def open_port(url: SerialUrl, opener: Opener = serial.serial_for_url) -> Port:
    """Open a port for us alone and set its line.

    Raises PortError for what may pass (missing, no permission, busy, unreachable), SourceError for what never can.
    """
    if url.path is not None:
        check_kind(url.path)
    try:
        return Port(url, _open(url, url.line, opener))
    except (OSError, ValueError, termios.error) as error:  # SerialException is an OSError
        raise cannot_open(url, error) from error


def _open(url: SerialUrl, line: Line, opener: Opener) -> Any:
    # pyserial's RFC 2217 fills a queue from a thread and has no descriptor to wait on: it waits by its timeout.
    timeout = _LOOK if url.scheme == "rfc2217" else 0
    # What a network brings first is the meter's: pyserial would throw away what came while it opened.
    keeps = url.is_network
    try:
        port = opener(
            url.address,
            baudrate=line.baud,
            bytesize=line.bits,
            parity=line.parity,
            stopbits=line.stop,
            timeout=timeout,
            exclusive=True,
            **({"do_not_open": True} if keeps else {}),
        )
        if keeps:
            port.reset_input_buffer = _keep
            port.open()
        return port
    except termios.error:
        # A pseudo-terminal has no line, and some C libraries say EINVAL when asked for parity or 7 bits on it.
        if line != Line(line.baud) and url.path is not None and _is_pty(url.path):
            return _open(url, Line(line.baud), opener)
        raise


def _guard(url: SerialUrl, descriptor: int) -> None:
    """Set what pyserial leaves as it was: no break flushes what is read, and no other program opens the port."""
    with suppress(termios.error):
        attributes = termios.tcgetattr(descriptor)
        if attributes[0] & termios.BRKINT:
            # `stty sane` leaves it so, and octets of a wrong speed look like breaks.
            attributes[0] &= ~termios.BRKINT
            termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
    # The lock that pyserial takes only keeps those out who ask for it. A pseudo-terminal would stay closed to others
    # after we were killed, for its other end stays open.
    if url.path is not None and not _is_pty(url.path):
        with suppress(OSError):
            fcntl.ioctl(descriptor, termios.TIOCEXCL)


def _keep() -> None:
    """In place of `reset_input_buffer`."""


def _is_pty(path: str) -> bool:
    try:
        return os.major(os.stat(path).st_rdev) in _PTY_MAJORS  # noqa: PTH116
    except OSError:
        return False


class Port:
    """An open port. `take` gives what is there; closing it twice is harmless."""

    def __init__(self, url: SerialUrl, port: Any) -> None:
        self._url = url
        self._port = port
        self._poll: select.poll | None = None
        try:
            descriptor = port.fileno()
        except (AttributeError, io.UnsupportedOperation):
            if port.timeout != _LOOK:
                port.timeout = _LOOK
        else:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)
            if url.path is not None:
                _guard(url, descriptor)
        self._bound(_KEPT_FOR_US)

    def take(self, seconds: float) -> bytes:
        """Octets as soon as there are any, at most MOST; b"" when none came in that time.

        A port without a file descriptor waits a second, or not at all for 0. Raises PortError (LOST).
        """
        try:
            if self._poll is not None:
                return self._port.read(MOST) if self._poll.poll(seconds * 1000) else b""
            if not seconds and not self._port.in_waiting:
                return b""
            first: bytes = self._port.read(1)
            return first + self._rest() if first else b""
        except (OSError, termios.error) as error:
            raise lost(self._url, error) from error

    def _rest(self) -> bytes:
        try:
            waiting = min(self._port.in_waiting, MOST - 1)
            return self._port.read(waiting) if waiting else b""
        except (OSError, termios.error):
            return b""  # the octet before it is not lost for that; the next `take` meets the same error

    def set_line(self, line: Line) -> None:
        """Change speed and parity of the open port; octets that come at that very moment may be lost.

        Raises PortError: of kind "line" when the port cannot be set so, else LOST.
        """
        if self._url.path is not None and _is_pty(self._url.path):
            line = Line(line.baud)
        self._bound(_ANY)  # the far end's answer stands behind the octets
        try:
            self._port.apply_settings(
                {"baudrate": line.baud, "bytesize": line.bits, "parity": line.parity, "stopbits": line.stop}
            )
        except (OSError, ValueError, termios.error) as error:
            raise cannot_set(self._url, line, error) from error
        finally:
            self._bound(_KEPT_FOR_US)

    def close(self) -> None:
        """Give the port back."""
        self._bound(_ANY)  # so that the thread that reads ahead comes to its end
        if self._poll is not None and self._url.path is not None:
            # Who had it open before us would keep it closed to us, too, when we open it again.
            with suppress(OSError, ValueError, TypeError):
                fcntl.ioctl(self._port.fileno(), termios.TIOCNXCL)
        try:
            self._port.close()
        except (OSError, termios.error) as error:
            # An adapter that was pulled out says EIO here as well; the descriptor is closed all the same.
            if errno_of(error) is None:
                raise

    def _bound(self, most: int) -> None:
        ahead = getattr(self._port, "_read_buffer", None)
        if isinstance(ahead, queue.Queue):
            with ahead.mutex:
                ahead.maxsize = most
                ahead.not_full.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
