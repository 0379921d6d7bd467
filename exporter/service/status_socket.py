"""A local socket next to the outbox, on which a running service answers with its status as one JSON object.

`check` must not open a port that `run` is using, and a health check must be cheap. A client may first send one line of
JSON, `{"forget": "METER"}`: then this command is run, and the answer is its result. Only a user who may use the outbox
may use the socket.
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
"""Bytes of the name of an outbox that fit into a socket address after `/proc/self/fd/N/`."""
_MAX_REQUEST: Final = 4096
_REQUEST_S: Final = 1.0
"""A client that sends nothing for this long wants to know the status."""

Command = Callable[[str], Mapping[str, Any]]


class NotRunning(Exception):  # noqa: N818 - an answer, not an error
    """No service is running with this outbox."""


def socket_path(outbox: Path) -> Path:
    """The socket on which the service of this outbox listens."""
    name = outbox.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return outbox.with_name(name + ".sock")


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for the socket that fits into the 107 bytes that the kernel allows, however deep its folder is."""
    if len(os.fsencode(path)) < 100 or not Path("/proc/self/fd").exists():
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class StatusServer:
    """Answers every connection with `status()` as JSON, in its own thread, until `close`.

    `commands` are the other requests: name -> function that returns the answer. Each request is run in its own thread.
    Raises OSError if the socket cannot be created.
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
            # The outbox is locked, so the process that left this socket does not exist any more.
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
            command = self._requested(connection)
            if command is None:
                self._answer(connection, self._status)
            else:
                work = threading.Thread(target=self._answer, args=(connection, command), name="command", daemon=True)
                work.start()

    def _requested(self, connection: socket.socket) -> Callable[[], Mapping[str, Any]] | None:
        """The command that a client requests; None if it wants the status."""
        request, until = b"", time.monotonic() + _REQUEST_S
        with contextlib.suppress(OSError):
            while b"\n" not in request and len(request) < _MAX_REQUEST and (left := until - time.monotonic()) > 0:
                connection.settimeout(left)
                if not (more := connection.recv(_MAX_REQUEST)):
                    break
                request += more
        try:
            ((name, argument),) = json.loads(request or b"{}").items()
            command = self._commands[name]
        except (ValueError, KeyError, AttributeError, RecursionError):
            return None
        return lambda: command(str(argument))

    def _answer(self, connection: socket.socket, give: Callable[[], Mapping[str, Any]]) -> None:
        with connection:
            connection.settimeout(2)
            try:
                connection.sendall(json.dumps(give()).encode())
            except OSError as error:
                log.debug("the client closed the connection: %s", error)
            except Exception as error:  # the client gets no answer; the service continues
                if self._closing:
                    log.debug("a request failed because the service is stopping: %s", error)
                else:
                    log.exception("a request on the status socket failed; please report this")

    def close(self) -> None:
        """Stop answering. A request that was already accepted may fail because what it needs is closed."""
        self._closing = True
        with contextlib.suppress(OSError):  # wakes accept(); it then fails with "not connected"
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with contextlib.suppress(OSError):  # the disk is read-only now; the next service removes the file
            self._path.unlink(missing_ok=True)


def ask(outbox: Path, timeout: float = 5.0, command: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The status of the service that uses this outbox, or its answer to a command. Raises NotRunning."""
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
        raise NotRunning(f"another program answers at {path}")
    return status
