"""How a running service is asked: a local socket beside the outbox that gives out one JSON object.

`check` must not open a port that `run` holds, and a health check must be cheap. Who asks may say one line of JSON
first, `{"forget": "METER"}`: then that is done, and the answer says how. Whoever may use the socket may use the outbox.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

log = logging.getLogger(__name__)

_LONGEST_NAME: Final = 64
"""Octets of an outbox's name that fit a socket's address behind `/proc/self/fd/N/`."""


_MOST_SAID: Final = 4096
_SAYING_S: Final = 1.0
"""Whoever says nothing for so long wants to know the status."""

Command = Callable[[str], Mapping[str, Any]]


class NotRunning(Exception):  # noqa: N818 - an answer, not a fault
    """No service answers for this outbox."""


def socket_path(outbox: Path) -> Path:
    """Where the service of this outbox listens."""
    name = outbox.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return outbox.with_name(name + ".sock")


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for a socket that fits the 107 octets which the kernel allows, however deep its folder is."""
    if len(os.fsencode(path)) < 100 or not Path("/proc/self/fd").exists():
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class StatusServer:
    """Answers every connection with `status()` as JSON, in a thread of its own, until `close`.

    `commands` are what else may be asked for: name -> what does it and gives the answer, in a thread of its own.
    Raises OSError when there can be no socket at its place.
    """

    def __init__(
        self, outbox: Path, status: Callable[[], Mapping[str, Any]], commands: Mapping[str, Command] | None = None
    ) -> None:
        self._path = socket_path(outbox)
        self._status = status
        self._commands = commands or {}
        self._closing = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # The outbox is locked, so whoever left this behind is gone.
            self._path.unlink(missing_ok=True)
            with _short(self._path) as name:
                self._socket.bind(name)
            self._path.chmod(0o600)
            self._socket.listen(8)
        except OSError:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="status", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            command = self._asked(connection)
            if command is None:
                self._answer(connection, self._status)
            else:
                work = threading.Thread(target=self._answer, args=(connection, command), name="command", daemon=True)
                work.start()

    def _asked(self, connection: socket.socket) -> Callable[[], Mapping[str, Any]] | None:
        """What a connection asks to be done; None when it is the status that it wants."""
        said, until = b"", time.monotonic() + _SAYING_S
        with contextlib.suppress(OSError):
            while b"\n" not in said and len(said) < _MOST_SAID and (left := until - time.monotonic()) > 0:
                connection.settimeout(left)
                if not (more := connection.recv(_MOST_SAID)):
                    break
                said += more
        try:
            ((name, what),) = json.loads(said or b"{}").items()
            command = self._commands[name]
        except (ValueError, KeyError, AttributeError, RecursionError):
            return None
        return lambda: command(str(what))

    def _answer(self, connection: socket.socket, give: Callable[[], Mapping[str, Any]]) -> None:
        with connection:
            connection.settimeout(2)
            try:
                connection.sendall(json.dumps(give()).encode())
            except OSError as error:
                log.debug("whoever asked went away: %s", error)
            except Exception as error:  # whoever asked sees no answer; the service goes on
                if self._closing:
                    log.debug("asked while it was stopping: %s", error)
                else:
                    log.exception("what was asked for broke; please report this")

    def close(self) -> None:
        """Stop answering. A question that was taken already may find that what it asks for is closed."""
        self._closing = True
        with contextlib.suppress(OSError):  # wakes accept(); not connected is what it says then
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with contextlib.suppress(OSError):  # a disk that has become read-only; the next service removes it
            self._path.unlink(missing_ok=True)


def ask(outbox: Path, timeout: float = 5.0, command: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The status of the service that holds this outbox, or its answer to a command. Raises NotRunning."""
    path = socket_path(outbox)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client, _short(path) as name:
            client.settimeout(timeout)
            client.connect(name)
            if command is not None:
                client.sendall(json.dumps(command).encode() + b"\n")
            client.shutdown(socket.SHUT_WR)
            parts = []
            while part := client.recv(65536):
                parts.append(part)
        status = json.loads(b"".join(parts))
    except (OSError, ValueError) as error:
        raise NotRunning(f"no `han-exporter run` answers at {path}: {error}") from None
    if not isinstance(status, dict):
        raise NotRunning(f"something else answers at {path}")
    return status
