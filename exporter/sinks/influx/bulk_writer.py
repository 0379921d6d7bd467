"""Writes many lines to InfluxDB, for `import`.

Unlike the writer it has no outbox: what it cannot write is still in the file that is imported.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import tenacity

from exporter.sinks.contract import Verdict, WriteResult
from exporter.sinks.influx.client import Client

__all__ = ["BulkWriter", "GaveUp"]

_BATCH_LINES: Final = 5000
_BATCH_BYTES: Final = 1 << 20
"""About 12 000 lines: InfluxDB takes more lines in a second than in smaller batches."""
_CONNECTIONS: Final = 2
_SWITCH_S: Final = 0.0005
"""Seconds that a posting thread waits for the interpreter. With the usual 5 ms the server is idle between batches."""
_MOST_RUNNING: Final = 4
"""At most so many batches wait or are being posted."""
_PATIENCE_S: Final = 60.0
_REASONS_KEPT: Final = 5
_DROPPED: Final = re.compile(r"(partial write: .*) dropped=(\d+)$")
"""The message of 1.8.10 and 2.8.0 when they took the other lines (both tried with several shards)."""


class GaveUp(Exception):  # noqa: N818
    """InfluxDB cannot be used; the message says why."""


class BulkWriter:
    """Posts batches over two connections, waits for an InfluxDB that does not answer, and leaves bad lines out.

    `say` is called with a message before each retry. Raises GaveUp when InfluxDB has not answered for a minute, or
    refuses.
    """

    def __init__(self, client: Client, say: Callable[[str], None]) -> None:
        self._client = client
        self._say = say
        self.written = 0
        self.rejected = 0
        self.reasons: list[str] = []
        """The first few different reasons why lines were rejected."""
        self._collected: list[str] = []
        self._size = 0
        self._pool = ThreadPoolExecutor(_CONNECTIONS)
        sys.setswitchinterval(_SWITCH_S)
        self._running: deque[Future[None]] = deque()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._silent_since: float | None = None

    def take(self, texts: Sequence[str]) -> bool:
        """Take texts of a line or more, whose order does not matter; return whether a batch was started."""
        self._collected += texts
        self._size += sum(map(len, texts))
        if self._size < _BATCH_BYTES:
            return False
        self._start_batch()
        return True

    def finish(self) -> None:
        """Wait until everything that was taken is in InfluxDB."""
        self._start_batch()
        while self._running:
            self._running.popleft().result()

    def post(self, lines: Sequence[str]) -> None:
        """Post lines, in their order."""
        for start in range(0, len(lines), _BATCH_LINES):
            self._post(lines[start : start + _BATCH_LINES])

    def close(self) -> None:
        """Drop what was not posted yet, and retry nothing."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start_batch(self) -> None:
        batch, self._collected, self._size = self._collected, [], 0
        while len(self._running) >= _MOST_RUNNING or (self._running and self._running[0].done()):
            self._running.popleft().result()
        self._running.append(self._pool.submit(self._post, batch))

    def _post(self, texts: Sequence[str]) -> None:
        if not texts or self._stop.is_set():
            return
        body = "\n".join(texts)
        outcome = self._write_with_retries(body)
        count = body.count("\n") + 1
        dropped = _DROPPED.search(outcome.message) if outcome.verdict is Verdict.BAD_LINES else None
        if outcome.verdict is Verdict.TAKEN:
            self._count(count, 0)
        elif dropped:
            self._count(count - int(dropped[2]), int(dropped[2]), dropped[1])
        elif (outcome.verdict is Verdict.BAD_LINES or outcome.too_large) and count > 1:
            lines = body.split("\n")
            self._post(lines[: count // 2])
            self._post(lines[count // 2 :])
        elif outcome.verdict is Verdict.BAD_LINES:
            self._count(0, 1, outcome.message)
        elif not self._stop.is_set():
            self._stop.set()  # the other connection would be refused, too
            raise GaveUp(outcome.message)

    def _write_with_retries(self, body: str) -> WriteResult:
        outcome: WriteResult = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda outcome: outcome.verdict is Verdict.RETRY),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
            stop=lambda _state: self._stop.is_set() or self._is_over(),
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=lambda state: (
                self._say(f"{state.outcome.result().message}; trying again") if state.outcome else None
            ),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )(self._client.write, [body])
        if outcome.verdict is not Verdict.RETRY:
            self._silent_since = None
        return outcome

    def _is_over(self) -> bool:
        """Return whether InfluxDB has not answered for too long, on any connection."""
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        return now - self._silent_since >= _PATIENCE_S

    def _count(self, written: int, rejected: int, reason: str = "") -> None:
        with self._lock:
            self.written += written
            self.rejected += rejected
            if reason and reason not in self.reasons and len(self.reasons) < _REASONS_KEPT:
                self.reasons.append(reason)
