"""Many lines into InfluxDB at once, straight from a file: what `import` posts with.

Unlike the writer it has no outbox behind it: what it cannot bring in, the file still has.
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
_BATCH_OCTETS: Final = 1 << 20
"""Some 12 000 lines, of which InfluxDB takes more in a second than of smaller batches."""
_CONNECTIONS: Final = 2
_SWITCH_S: Final = 0.0005
"""A thread that posts waits so long for its turn, while lines are made: 5 ms leave the server idle between batches."""
_UNDER_WAY: Final = 4
"""Batches that wait or are being posted."""
_PATIENCE_S: Final = 60.0
_WORDS_SHOWN: Final = 5
_DROPPED: Final = re.compile(r"(partial write: .*) dropped=(\d+)$")
"""What 1.8.10 and 2.8.0 say when they have taken the other lines (both tried with several shards)."""


class GaveUp(Exception):  # noqa: N818 - it may be a wish of the person at the terminal
    """InfluxDB cannot be used; the message says why."""


class BulkWriter:
    """Posts batches over two connections, waits for an InfluxDB that is away for a moment, sets bad lines apart.

    `say` is told of what is tried again. Raises GaveUp once InfluxDB has been away for a minute, or refuses.
    """

    def __init__(self, client: Client, say: Callable[[str], None]) -> None:
        self._client = client
        self._say = say
        self.written = 0
        self.rejected = 0
        self.reasons: list[str] = []
        """The first few different reasons for what was rejected."""
        self._gathered: list[str] = []
        self._octets = 0
        self._pool = ThreadPoolExecutor(_CONNECTIONS)
        sys.setswitchinterval(_SWITCH_S)
        self._under_way: deque[Future[None]] = deque()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._away_since: float | None = None

    def take(self, texts: Sequence[str]) -> bool:
        """Take texts of a line or more, in no order; True when a batch has gone off."""
        self._gathered += texts
        self._octets += sum(map(len, texts))
        if self._octets < _BATCH_OCTETS:
            return False
        self._go()
        return True

    def finish(self) -> None:
        """Wait until all that was taken is in InfluxDB."""
        self._go()
        while self._under_way:
            self._under_way.popleft().result()

    def post(self, lines: Sequence[str]) -> None:
        """Post lines in their order."""
        for start in range(0, len(lines), _BATCH_LINES):
            self._post(lines[start : start + _BATCH_LINES])

    def close(self) -> None:
        """Leave what has not gone off, and try nothing again."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _go(self) -> None:
        batch, self._gathered, self._octets = self._gathered, [], 0
        while len(self._under_way) >= _UNDER_WAY or (self._under_way and self._under_way[0].done()):
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(self._post, batch))

    def _post(self, texts: Sequence[str]) -> None:
        if not texts or self._stop.is_set():
            return
        body = "\n".join(texts)
        outcome = self._tried(body)
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
            self._stop.set()  # the other connection has nothing to hope for either
            raise GaveUp(outcome.message)

    def _tried(self, body: str) -> WriteResult:
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
            self._away_since = None
        return outcome

    def _is_over(self) -> bool:
        """Whether InfluxDB has been away for too long, on every connection."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        return now - self._away_since >= _PATIENCE_S

    def _count(self, written: int, rejected: int, words: str = "") -> None:
        with self._lock:
            self.written += written
            self.rejected += rejected
            if words and words not in self.reasons and len(self.reasons) < _WORDS_SHOWN:
                self.reasons.append(words)
