"""A proxy between the exporter and InfluxDB that imitates faults of networks and servers.

A connection has one request after the other. Each is answered with the fault that is set when it comes. Without a
fault, the connection stays open, as with InfluxDB; most faults close it.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from tests.support.patience import HANG_S

__all__ = ["FAULTS", "FaultProxy"]

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection:[^\r]*", re.IGNORECASE)
_HTML: Final = b"<html><body><h1>%d</h1></body></html>"
_NO_LINGER: Final = struct.pack("ii", 1, 0)
"""With this option, a socket that is closed sends RST instead of FIN."""


class FaultProxy:
    """Listens at `url`, passes on to `upstream`. `fault` is one of FAULTS, or "pass"; `hits` counts requests by it."""

    def __init__(self, upstream: str, chance: random.Random) -> None:
        address = urlsplit(upstream)
        self._upstream = (address.hostname or "localhost", address.port or 80)
        self._chance = chance
        self.hits: Counter[str] = Counter()
        self._fault = "pass"
        self._over = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._port = 0
        self._port = self._call(self._listen())
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._call(self._refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(HANG_S)
        self._loop.close()

    def set(self, fault: str) -> None:
        """Use this fault from now on. Requests that hang are ended."""
        assert fault == "pass" or fault in FAULTS, fault
        self._call(self._set(fault))

    def _call(self, work: Awaitable[int]) -> int:
        async def awaited() -> int:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result(20)

    async def _set(self, fault: str) -> int:
        self._fault = fault
        self._over.set()
        self._over = asyncio.Event()
        if fault in ("refuse", "reset idle"):
            self.hits[fault] += len(self._connections)
            await self._cut()
        if fault == "refuse":
            return await self._refuse()
        return await self._listen()

    async def _listen(self) -> int:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        return int(self._server.sockets[0].getsockname()[1])

    async def _refuse(self) -> int:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()
        return 0

    async def _cut(self) -> None:
        open_ = list(self._connections)
        for connection in open_:
            connection.cancel()
        await asyncio.gather(*open_, return_exceptions=True)

    # --- a connection -------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                request = await _message(reader)
                fault = self._fault
                self.hits[fault] += 1
                if not await _BEHAVIOURS[fault](self, request, writer):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # one side has closed, so the other is closed below
        finally:
            self._connections.discard(task)
            _reset(writer)

    async def _ask(self, request: bytes) -> bytes:
        """The answer of InfluxDB. Raises OSError if it does not answer."""
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            head, _, body = request.partition(b"\r\n\r\n")
            writer.write(_CLOSE.sub(b"", head) + b"\r\nConnection: close\r\n\r\n" + body)
            await writer.drain()
            answer = await reader.read(-1)
        finally:
            writer.close()
        if not answer:
            raise ConnectionError("InfluxDB closed the connection")
        head, _, body = answer.partition(b"\r\n\r\n")
        return _CLOSE.sub(b"", head) + b"\r\n\r\n" + body

    async def _pass(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(await self._ask(request))
        await writer.drain()
        return True

    async def _hang(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        over = self._over
        if self._chance.random() < 0.5:
            await self._ask(request)
        await over.wait()
        return False

    async def _reset_in_answer(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        answer = await self._ask(request)
        writer.write(answer[: self._chance.randrange(1, len(answer))])
        await writer.drain()
        return False

    async def _cut_body(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        """An answer that is shorter than its length says; in half of the cases, after a write that succeeded."""
        if self._chance.random() < 0.5:
            await self._ask(request)
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 400\r\n\r\n" + _HTML % 500)
        await writer.drain()
        writer.write_eof()
        await asyncio.sleep(0.05)
        return False

    async def _cut_request(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        """InfluxDB receives only half of the request."""
        reader, influx = await asyncio.open_connection(*self._upstream)
        influx.write(request[: (len(request) + request.index(b"\r\n\r\n")) // 2])
        await influx.drain()
        influx.write_eof()
        with_answer = self._chance.random() < 0.5
        answer = await reader.read(-1)
        influx.close()
        if with_answer and answer:
            writer.write(answer)
            await writer.drain()
        return False

    async def _lose_answer(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        await self._ask(request)
        return False

    async def _slow(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(self._chance.uniform(0.05, 0.5))
        answer = await self._ask(request)
        for at in range(0, len(answer), 16):
            writer.write(answer[at : at + 16])
            await writer.drain()
            await asyncio.sleep(self._chance.uniform(0, 0.1))
        return True

    async def _too_many(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        """Status 429, with the time to wait in seconds, as a date, or without it."""
        soon = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        asked = self._chance.choice((b"Retry-After: 1\r\n", f"Retry-After: {soon}\r\n".encode(), b""))
        writer.write(_answer(429, asked))
        await writer.drain()
        return True

    async def _reset_idle(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        return False

    async def _gateway_after_write(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        await self._ask(request)
        writer.write(_answer(504))
        await writer.drain()
        return True


_Behaviour = Callable[[FaultProxy, bytes, asyncio.StreamWriter], Awaitable[bool]]
"""Answers a request. False: the connection is closed with RST."""


def _failing(status: int) -> _Behaviour:
    async def answer(_: FaultProxy, request: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(_answer(status))
        await writer.drain()
        return True

    return answer


_BEHAVIOURS: Final[dict[str, _Behaviour]] = {
    "pass": FaultProxy._pass,
    "refuse": FaultProxy._reset_idle,
    "hang": FaultProxy._hang,
    "reset in the answer": FaultProxy._reset_in_answer,
    "reset idle": FaultProxy._reset_idle,
    "429": FaultProxy._too_many,
    "500": _failing(500),
    "502": _failing(502),
    "503": _failing(503),
    "504 after the write": FaultProxy._gateway_after_write,
    "cut answer": FaultProxy._cut_body,
    "cut request": FaultProxy._cut_request,
    "slow": FaultProxy._slow,
    "answer lost": FaultProxy._lose_answer,
}
FAULTS: Final = tuple(name for name in _BEHAVIOURS if name != "pass")


def _answer(status: int, headers: bytes = b"") -> bytes:
    body = _HTML % status
    return b"HTTP/1.1 %d Fault\r\n%sContent-Length: %d\r\n\r\n%s" % (status, headers, len(body), body)


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")


def _reset(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    peer: socket.socket | None = transport.get_extra_info("socket")
    if peer is not None and peer.fileno() >= 0:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
