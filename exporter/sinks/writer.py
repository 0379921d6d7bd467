"""The writer: sends what waits in the outbox to InfluxDB, for ever.

A round takes one batch from the outbox and posts it. What InfluxDB took is removed from the outbox. While there is a
backlog, rounds take the newest and the oldest lines in turn. A round that fails is tried again, with the lines that are
waiting then.

Which lines are bad: InfluxDB names at most the first bad line of a batch. So a batch that it refuses is halved, again
and again, until single lines are refused. They are removed only if InfluxDB took a good line in the same round: a
server that refuses everything must not empty the outbox. If a round has no good line itself, the witness is posted, the
last line that InfluxDB took. Posting it again changes nothing. Without a witness, bad lines wait for a good one.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import tenacity

from exporter.counted import counted
from exporter.limiter import OnceAMinute
from exporter.outbox.batch import Batch
from exporter.outbox.memory_queue import MemoryQueue
from exporter.outbox.queue import Outbox, OutboxError
from exporter.sinks.backoff import OutboxTrouble, pause
from exporter.sinks.contract import Sink, Verdict, WriteResult
from exporter.sinks.influx.answers import clean
from exporter.sinks.writer_status import WriterState, WriterStatus

__all__ = ["Writer"]

log = logging.getLogger(__name__)

BATCH_LINES = 5000
FLUSH_SECONDS = 3.0
IDLE_SECONDS = 5.0
"""While nothing is appended, a stop is noticed after at most this time, or at once after `Outbox.wake`."""
TROUBLED_SECONDS = 0.5
"""As IDLE_SECONDS, while an outbox that could not be used is to be tried again."""
WITHOUT_PROOF = 20
"""After so many bad lines and no good one, the witness is posted before the batch is halved further."""

_Line: TypeAlias = tuple[str, str]
"""A line, and its key or ""."""
_STOPPING = WriteResult(Verdict.RETRY, "stopping")


@dataclass(slots=True)
class _Round:
    """What is known of the lines of a batch: how many were taken, and which (by place) are bad, with the message."""

    taken: int = 0
    proven: bool = False
    bad: dict[int, str] = field(default_factory=dict)

    @property
    def undecided(self) -> bool:
        """Whether lines were refused and none was taken."""
        return bool(self.bad) and not (self.taken or self.proven)


@dataclass(slots=True)
class _Sent:
    """A batch that was sent, and the arguments for `Outbox.delete`."""

    batch: Batch
    refused: dict[int, str]
    keep: list[int]

    def drop(self, doomed: Callable[[str], bool]) -> None:
        """Let the outbox store none of these lines again."""
        lines = self.batch.lines
        self.keep = [place for place in self.keep if not doomed(lines[place])]
        self.refused = {place: message for place, message in self.refused.items() if not doomed(lines[place])}


class Writer:
    """Sends what waits in `outbox` to `sink`. `run` is the work of one thread.

    A line with a key is a version of a point. When newer lines are sent before older ones, those with a key stay in the
    outbox and are sent again after the older ones, so that the newest version is the last to arrive.

    Lines that the outbox could not take wait in `memory` and are sent first. If there is a `memory`, `outbox` must be
    an OrderedOutbox.
    """

    def __init__(
        self,
        outbox: Outbox,
        sink: Sink,
        *,
        memory: MemoryQueue | None = None,
        batch_lines: int = BATCH_LINES,
        pause: Callable[[int], float] = pause,
    ) -> None:
        self._outbox = outbox
        self._memory = MemoryQueue() if memory is None else memory
        self._sink = sink
        self._batch_lines = batch_lines
        self._post_lines = batch_lines  # fewer after "too large"
        self._pause = pause
        self._newest = True
        self._failures = 0  # since the last batch that was taken
        self._witness: str | None = None
        self._turn = threading.Condition()
        self._in_round = False
        self._rounds = 0
        self._status = WriterStatus()
        self._sent: _Sent | None = None  # what could not be removed from the outbox yet
        self._trouble = OutboxTrouble(pause)
        self._failing = OnceAMinute()
        self._refusing = OnceAMinute()

    def status(self) -> WriterStatus:
        """Return the status; may be called from any thread."""
        return self._status

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set, then try for `FLUSH_SECONDS` to send what still waits.

        `stop` does not interrupt a request that InfluxDB does not answer: it ends with the client's timeout. So run
        this in a daemon thread, join it for some seconds, and exit. What was not answered is still in the outbox.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda result: result.verdict is not Verdict.TAKEN),
            wait=self._wait,
            sleep=tenacity.sleep_using_event(stop),
            stop=tenacity.stop_when_event_set(stop),
            retry_error_callback=lambda _: _STOPPING,
        )
        while not stop.is_set():
            idle = TROUBLED_SECONDS if self._trouble.paused else IDLE_SECONDS
            if self._outbox.wait(idle) or self._trouble.due:
                retrying(self._empty, lambda: 0.0 if stop.is_set() else math.inf)
        self._flush()

    def discard(self, doomed: Callable[[str], bool], patience_s: float = 30.0) -> bool:
        """Wait until the batch that is being sent is finished; return whether it is, within `patience_s`.

        After that no `doomed` line is sent, unless it still waits in the outbox.
        """
        with self._turn:
            now = self._rounds
            over = self._turn.wait_for(lambda: not self._in_round or self._rounds != now, patience_s)
            if not self._in_round:
                self._memory.drop(doomed)
                if self._sent is not None:
                    self._sent.drop(doomed)
            if self._witness is not None and doomed(self._witness):
                self._witness = None
            return over

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Mark that a batch is being sent."""
        with self._turn:
            self._in_round, self._rounds = True, self._rounds + 1
        try:
            yield
        finally:
            with self._turn:
                self._in_round = False
                self._turn.notify_all()

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds until the next try: what the server asks for, else exponential with jitter."""
        self._status = replace(self._status, retries=self._status.retries + 1)
        result = state.outcome.result() if state.outcome else None
        asked = result.retry_after if isinstance(result, WriteResult) else None
        return asked or self._pause(self._failures)

    def _flush(self) -> None:
        deadline = time.monotonic() + FLUSH_SECONDS
        self._trouble.end_pause()
        self._empty(lambda: deadline - time.monotonic())
        left = self._left()
        if (self._memory or (left and self._memory.overtaken)) and not self._given_back():
            self._report_lost(left)
        if left:
            log.info("%s in the outbox, to be sent after the next start.", counted(left, "line stays", "lines stay"))

    def _left(self) -> int:
        try:
            return self._outbox.status().depth_lines
        except OutboxError:
            return 0  # it is closed, or broken: the number is not known

    def _report_lost(self, left: int) -> None:
        waiting, sums = len(self._memory), self._memory.overtaken
        if waiting:
            log.error(
                "%s lost: the outbox could not take them, and InfluxDB did not.",
                counted(waiting, "line is", "lines are"),
            )
        if left and sums:
            log.error(
                "InfluxDB has newer values of %s than the outbox. The older ones replace them after the next start, "
                "until the next full hour brings new values.",
                counted(sums, "sum or peak", "sums and peaks"),
            )

    def _empty(self, time_left: Callable[[], float]) -> WriteResult:
        """Send batch after batch until none waits or one fails."""
        while True:
            with self._in_turn():
                result = self._send_some(time_left)
            if result is None:
                return WriteResult(Verdict.TAKEN)
            if result is not _STOPPING:
                self._note(result)
            if result.verdict is not Verdict.TAKEN:
                return result

    def _send_some(self, time_left: Callable[[], float]) -> WriteResult | None:
        """Send one batch; return None when nothing waits, or the outbox must not be used now."""
        if self._memory and not self._given_back():
            return self._send_from_memory(time_left)
        if self._trouble.paused:
            return None
        try:
            result = self._send_from_outbox(time_left)
        except OutboxError as problem:
            message = str(problem)
            if self._sent is not None:
                message = f"Lines that were sent cannot be removed from the outbox, and are not sent again: {message}"
            self._status = replace(self._status, last_error=message)
            self._trouble.failed(message)
            return None
        self._trouble.over()
        return result

    def _send_from_outbox(self, time_left: Callable[[], float]) -> WriteResult | None:
        """Remove what was sent before and could not be removed, then send a batch. Raises OutboxError."""
        if self._sent is not None:
            self._remove(self._sent)
        batch = self._next()
        return None if batch is None else self._round(batch, time_left)

    def _remove(self, sent: _Sent) -> None:
        self._sent = sent
        self._outbox.delete(sent.batch, refused=sent.refused, keep=sent.keep)
        self._sent = None

    def _next(self) -> Batch | None:
        """Take the newest and the oldest lines in turn; they are the same when one batch has all of them."""
        newest, self._newest = self._newest, not self._newest
        batch = self._outbox.take(self._batch_lines, newest=newest)
        if batch is None and newest:  # only lines that were sent before and kept
            return self._outbox.take(self._batch_lines, newest=False)
        return batch

    def _round(self, batch: Batch, time_left: Callable[[], float]) -> WriteResult:
        """Post a batch, find its bad lines, and remove what was sent from the outbox. Raises OutboxError."""
        pairs = zip(batch.lines, batch.keys, strict=True)
        lines = [(self._memory.newest(line, key), key) for line, key in pairs]
        round_ = _Round()
        failed = self._post_all(lines, round_, time_left)
        if failed is not None:
            return failed
        keep: list[int] = []
        if batch.out_of_order:
            keep = [place for place, key in enumerate(batch.keys) if key and place not in round_.bad]
        self._remove(_Sent(batch, round_.bad, keep))
        self._report_refused(batch.lines, round_, "They are kept apart: `han-exporter rejected` shows them")
        return WriteResult(Verdict.TAKEN)

    def _given_back(self) -> bool:
        """Move what waits in memory to the outbox; return whether that was possible."""
        try:
            self._memory.give_back(self._outbox.append)
        except OutboxError:
            return False
        return True

    def _send_from_memory(self, time_left: Callable[[], float]) -> WriteResult:
        """Send lines that the outbox could not take. A line that InfluxDB refuses is lost: nothing can store it."""
        lines, mark = self._memory.first(self._batch_lines)
        round_ = _Round()
        failed = self._post_all(lines, round_, time_left)
        if failed is not None:
            return failed
        self._memory.done(len(lines), mark, refused=round_.bad)
        self._report_refused([line for line, _ in lines], round_, "They are lost, since the outbox takes nothing")
        return WriteResult(Verdict.TAKEN)

    def _post_all(self, lines: Sequence[_Line], round_: _Round, time_left: Callable[[], float]) -> WriteResult | None:
        """Post the lines in their order, and halve what is refused; return the result that ended it early, if any."""
        todo = [(0, len(lines))]
        while todo:
            start, end = todo.pop()
            if end - start > self._post_lines:
                todo += _halves(start, end)
                continue
            result = self._post(lines[start:end], time_left)
            if result.verdict is Verdict.TAKEN:
                round_.taken += end - start
            elif result.too_large and end - start > 1:
                self._post_lines = (end - start + 1) // 2
                self._note(result)
                todo.append((start, end))
            elif result.verdict is not Verdict.BAD_LINES:
                return result
            elif end - start > 1:
                todo += _halves(start, end)
            else:
                round_.bad[start] = result.message
                if len(round_.bad) >= WITHOUT_PROOF and not self._proven(lines, round_, time_left):
                    return self._unproven(round_)
        return None if self._proven([], round_, time_left) else self._unproven(round_)

    def _post(self, lines: Sequence[_Line], time_left: Callable[[], float]) -> WriteResult:
        left = time_left()
        if left <= 0:
            return _STOPPING
        began = time.monotonic()
        result = self._sink.write([line for line, _ in lines], timeout=None if left == math.inf else left)
        if result.verdict is not Verdict.TAKEN:
            return result
        self._post_lines = min(self._batch_lines, self._post_lines + max(1, self._post_lines // 8))
        self._status = replace(
            self._status,
            points_written=self._status.points_written + len(lines),
            last_latency_s=time.monotonic() - began,
        )
        last, key = lines[-1]
        if not key:  # an old version of a point must not be sent again
            self._witness = last
        return result

    def _proven(self, lines: Sequence[_Line], round_: _Round, time_left: Callable[[], float]) -> bool:
        """Return whether refused lines are bad: InfluxDB takes a good line now.

        If the round has none, the witness is posted, and then some of `lines`. These are posted again later, in their
        order, so posting them here changes nothing in the end.
        """
        if round_.undecided:
            some = random.sample(lines, min(16, len(lines)))
            asked = ([(self._witness, "")] if self._witness is not None else []) + some
            round_.proven = any(self._post([line], time_left).verdict is Verdict.TAKEN for line in asked)
        return not round_.undecided

    def _unproven(self, round_: _Round) -> WriteResult:
        message = next(iter(round_.bad.values()))
        return WriteResult(
            Verdict.MISCONFIGURED,
            f"InfluxDB at {self._sink.address} refuses every line ({message}). No line is rejected before it takes "
            "another one: is HAN_INFLUX_BUCKET right, and is its retention long enough?",
        )

    def _note(self, result: WriteResult) -> None:
        """Keep the status, and log a failure (at once, then once a minute) and its end."""
        if result.verdict is Verdict.TAKEN:
            if self._failing.over():
                log.info("InfluxDB takes lines again; %s.", self._waiting())
            self._status = replace(self._status, state=WriterState.OK)
            self._failures = 0
            return
        self._failures += 1
        wrong = result.verdict is Verdict.MISCONFIGURED
        state = WriterState.MISCONFIGURED if wrong else WriterState.WAITING
        self._status = replace(self._status, state=state, last_error=result.message)
        if self._failing.due():
            log.log(logging.ERROR if wrong else logging.WARNING, "%s (%s)", result.message, self._kept())

    def _waiting(self) -> str:
        try:
            return counted(self._outbox.status().depth_lines, "line is waiting", "lines are waiting")
        except OutboxError as problem:
            return str(problem)

    def _kept(self) -> str:
        try:
            depth = self._outbox.status().depth_lines
        except OutboxError:
            return "it is tried again"
        return f"{counted(depth, 'line is', 'lines are')} kept and tried again"

    def _report_refused(self, lines: Sequence[str], round_: _Round, what_happens: str) -> None:
        if not round_.bad:
            return
        self._status = replace(self._status, lines_rejected=self._status.lines_rejected + len(round_.bad))
        if self._refusing.due():
            place, message = next(iter(round_.bad.items()))
            log.error(
                "InfluxDB rejects lines (%d since the start). %s. One of them: %s (%s)",
                self._status.lines_rejected,
                what_happens,
                clean(lines[place], 200),
                message,
            )


def _halves(start: int, end: int) -> list[tuple[int, int]]:
    """Return the second half, then the first: a stack returns the first one first, so the order of lines is kept."""
    middle = (start + end) // 2
    return [(middle, end), (start, middle)]
