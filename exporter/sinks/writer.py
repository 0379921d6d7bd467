"""The writer: empties the outbox into InfluxDB, for ever, losing nothing and blocked by nothing.

A round takes one batch, newest and oldest in turn while there is a backlog, posts it, and removes from the outbox
what InfluxDB said yes to. A round that fails is tried again by tenacity with whatever waits then.

Which lines are bad. InfluxDB names the first bad line of a batch at best, so a refused batch is halved until bad lines
stand alone. They are put aside only when InfluxDB took a good line in the same round; a server that says no to
everything drains nothing. Where the round has no good line of its own, the witness is posted: the last line that was
taken, which changes nothing where it stands already. A bad line with neither waits until good lines have come.
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
"""How long a stop may go unnoticed while nothing comes: whoever wants it noticed at once calls `Outbox.wake`."""
TROUBLED_SECONDS = 0.5
"""As IDLE_SECONDS, while an outbox that could not be used is to be tried again."""
WITHOUT_PROOF = 20
"""So many bad lines with no good one, and a proof is asked for before the splitting goes on."""

_Line: TypeAlias = tuple[str, str]
"""A line, and its key or ""."""
_STOPPING = WriteResult(Verdict.RETRY, "stopping")


@dataclass(slots=True)
class _Round:
    """What became of a batch so far: how many lines were taken, which (by place) are bad and why."""

    taken: int = 0
    proven: bool = False
    bad: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Sent:
    """A batch that InfluxDB has taken, and what Outbox.delete needs to know of it."""

    batch: Batch
    rejected: dict[int, str]
    keep: list[int]

    def drop(self, doomed: Callable[[str], bool]) -> None:
        """Put back none of such lines."""
        self.keep = [place for place in self.keep if not doomed(self.batch.lines[place])]
        self.rejected = {place: why for place, why in self.rejected.items() if not doomed(self.batch.lines[place])}


class Writer:
    """Sends what waits in `outbox` through `client`; `run` is one thread's work.

    A line with a key is a version of a point. When newer lines are sent before older ones, those with a key are kept
    and sent once more in order, so that the newest version is the last to arrive.
    What the outbox could not take comes through `straight`, and goes first; whoever puts something
    there has an OrderedOutbox.
    """

    def __init__(
        self,
        outbox: Outbox,
        client: Sink,
        *,
        memory: MemoryQueue | None = None,
        batch_lines: int = BATCH_LINES,
        pause: Callable[[int], float] = pause,
    ) -> None:
        self._outbox = outbox
        self._memory = MemoryQueue() if memory is None else memory
        self._client = client
        self._batch_lines = batch_lines
        self._at_once = batch_lines  # fewer after "too large"
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
        self._rejecting = OnceAMinute()

    def status(self) -> WriterStatus:
        """How it goes; may be called from any thread."""
        return self._status

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set, then try for `FLUSH_SECONDS` to send what still waits.

        A post that InfluxDB leaves unanswered is not interrupted by `stop` (it ends with the client's timeout): run
        this in a daemon thread, join it for some seconds, and leave. What was not answered is still in the outbox.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda outcome: outcome.verdict is not Verdict.TAKEN),
            wait=self._wait,
            sleep=tenacity.sleep_using_event(stop),
            stop=tenacity.stop_when_event_set(stop),
            retry_error_callback=lambda _: _STOPPING,
        )
        while not stop.is_set():
            idle = TROUBLED_SECONDS if self._trouble.rests else IDLE_SECONDS
            if self._outbox.wait(idle) or self._trouble.due:
                retrying(self._empty, lambda: 0.0 if stop.is_set() else math.inf)
        self._flush()

    def let_go(self, doomed: Callable[[str], bool], patience_s: float = 30.0) -> bool:
        """Wait until the batch is done with that is on its way now; True when it is.

        No `doomed` line is sent after that, unless it still waits in the outbox.
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
        """A batch is on its way."""
        with self._turn:
            self._in_round, self._rounds = True, self._rounds + 1
        try:
            yield
        finally:
            with self._turn:
                self._in_round = False
                self._turn.notify_all()

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds until the next try: what the server asks for, else exponential with jitter."""
        self._status = replace(self._status, retries=self._status.retries + 1)
        outcome = state.outcome.result() if state.outcome else None
        asked = outcome.retry_after if isinstance(outcome, WriteResult) else None
        return asked or self._pause(self._failures)

    def _flush(self) -> None:
        deadline = time.monotonic() + FLUSH_SECONDS
        self._trouble.rest_no_more()
        self._empty(lambda: deadline - time.monotonic())
        left = self._left()
        if (self._memory or (left and self._memory.overtaken)) and not self._taken_back():
            self._say_lost(left)
        if left:
            log.info("%d lines stay in the outbox; they are sent after the next start", left)

    def _left(self) -> int:
        try:
            return self._outbox.status().depth_lines
        except OutboxError:
            return 0  # closed already, or broken, and nobody knows

    def _say_lost(self, left: int) -> None:
        waiting, sums = len(self._memory), self._memory.overtaken
        if waiting:
            log.error("%d lines that the outbox could not take are lost: InfluxDB did not take them", waiting)
        if left and sums:
            log.error(
                "InfluxDB has newer values of %d sums and peaks than the outbox, whose older ones go over them after "
                "the next start, until a full hour brings new ones",
                sums,
            )

    def _empty(self, time_left: Callable[[], float]) -> WriteResult:
        """Send batch after batch until none waits or one fails."""
        while True:
            with self._in_turn():
                outcome = self._send_some(time_left)
            if outcome is None:
                return WriteResult(Verdict.TAKEN)
            if outcome is not _STOPPING:
                self._note(outcome)
            if outcome.verdict is not Verdict.TAKEN:
                return outcome

    def _send_some(self, time_left: Callable[[], float]) -> WriteResult | None:
        """Send one batch; None when nothing waits, or the outbox is to be left alone for now."""
        if self._memory and not self._taken_back():
            return self._send_from_memory(time_left)
        if self._trouble.rests:
            return None
        try:
            outcome = self._out_of_outbox(time_left)
        except OutboxError as problem:
            words = str(problem)
            if self._sent is not None:
                words = f"What InfluxDB has taken cannot be removed from the outbox, and is not sent again: {words}"
            self._status = replace(self._status, last_error=words)
            self._trouble.failed(words)
            return None
        self._trouble.over()
        return outcome

    def _out_of_outbox(self, time_left: Callable[[], float]) -> WriteResult | None:
        """Send what waits there, when all that was sent before is removed. Raises OutboxError."""
        if self._sent is not None:
            self._remove(self._sent)
        batch = self._next()
        return None if batch is None else self._round(batch, time_left)

    def _remove(self, sent: _Sent) -> None:
        self._sent = sent
        self._outbox.delete(sent.batch, refused=sent.rejected, keep=sent.keep)
        self._sent = None

    def _next(self) -> Batch | None:
        """Newest and oldest in turn; both are the same when one batch holds all."""
        newest, self._newest = self._newest, not self._newest
        batch = self._outbox.take(self._batch_lines, newest=newest)
        if batch is None and newest:  # only lines that are to be sent once more, in order
            return self._outbox.take(self._batch_lines, newest=False)
        return batch

    def _round(self, batch: Batch, time_left: Callable[[], float]) -> WriteResult:
        """Post a batch, find its bad lines, and remove from the outbox what is done with. Raises OutboxError."""
        round_ = _Round()
        pairs = zip(batch.lines, batch.keys, strict=True)
        lines = [(self._memory.newest(line, key), key) for line, key in pairs]
        failed = self._post_all(lines, round_, time_left)
        if failed is not None:
            return failed
        if round_.bad and not (round_.taken or round_.proven or self._proof([], time_left)):
            return self._unproven(round_)
        keep: list[int] = []
        if batch.out_of_order:
            keep = [place for place, key in enumerate(batch.keys) if key and place not in round_.bad]
        self._remove(_Sent(batch, round_.bad, keep))
        self._say_rejected(batch.lines, round_, "they are put aside, and `han-exporter rejected` shows them")
        return WriteResult(Verdict.TAKEN)

    def _taken_back(self) -> bool:
        """Put what the outbox could not take into it after all, if there is room again."""
        try:
            self._memory.back(self._outbox.append)
        except OutboxError:
            return False
        return True

    def _send_from_memory(self, time_left: Callable[[], float]) -> WriteResult:
        """Post what the outbox could not take. A bad line among it is lost: there is nowhere to put it aside."""
        lines, mark = self._memory.first(self._batch_lines)
        round_ = _Round()
        failed = self._post_all(lines, round_, time_left)
        if failed is not None:
            return failed
        if round_.bad and not (round_.taken or round_.proven or self._proof([], time_left)):
            return self._unproven(round_)
        self._memory.done(len(lines), mark, refused=round_.bad)
        self._say_rejected([line for line, _ in lines], round_, "they are lost, since the outbox takes nothing")
        return WriteResult(Verdict.TAKEN)

    def _post_all(self, lines: Sequence[_Line], round_: _Round, time_left: Callable[[], float]) -> WriteResult | None:
        """Post the lines in their order, halving what is refused; return the outcome that ended it early, if any."""
        todo = [(0, len(lines))]
        while todo:
            start, end = todo.pop()
            if end - start > self._at_once:
                todo += _halves(start, end)
                continue
            outcome = self._post(lines[start:end], time_left)
            if outcome.verdict is Verdict.TAKEN:
                round_.taken += end - start
            elif outcome.too_large and end - start > 1:
                self._at_once = (end - start + 1) // 2
                self._note(outcome)
                todo.append((start, end))
            elif outcome.verdict is not Verdict.BAD_LINES:
                return outcome
            elif end - start > 1:
                todo += _halves(start, end)
            else:
                round_.bad[start] = outcome.message
                if len(round_.bad) >= WITHOUT_PROOF and not (round_.taken or round_.proven):
                    round_.proven = self._proof(lines, time_left)
                    if not round_.proven:
                        return self._unproven(round_)
        return None

    def _post(self, lines: Sequence[_Line], time_left: Callable[[], float]) -> WriteResult:
        left = time_left()
        if left <= 0:
            return _STOPPING
        began = time.monotonic()
        outcome = self._client.write([line for line, _ in lines], timeout=None if left == math.inf else left)
        if outcome.verdict is not Verdict.TAKEN:
            return outcome
        self._at_once = min(self._batch_lines, self._at_once + max(1, self._at_once // 8))
        self._status = replace(
            self._status,
            points_written=self._status.points_written + len(lines),
            last_latency_s=time.monotonic() - began,
        )
        last, key = lines[-1]
        if not key:  # an old version of a point must not be sent again
            self._witness = last
        return outcome

    def _proof(self, lines: Sequence[_Line], time_left: Callable[[], float]) -> bool:
        """Does InfluxDB take good lines at this moment? Asked with the witness, then with some of `lines`.

        These will be posted again in their order, so asking with them changes nothing in the end.
        """
        some = random.sample(lines, min(16, len(lines)))
        asked = ([(self._witness, "")] if self._witness is not None else []) + some
        return any(self._post([line], time_left).verdict is Verdict.TAKEN for line in asked)

    def _unproven(self, round_: _Round) -> WriteResult:
        words = next(iter(round_.bad.values()))
        return WriteResult(
            Verdict.MISCONFIGURED,
            f"InfluxDB at {self._client.address} refuses every line that it is sent ({words}); nothing is put aside "
            "before it takes some line: is HAN_INFLUX_BUCKET right, and its retention long enough?",
        )

    def _note(self, outcome: WriteResult) -> None:
        """Keep the state, and tell the log: a failure at once, then once a minute, and that it is over."""
        if outcome.verdict is Verdict.TAKEN:
            if self._failing.over():
                log.info("InfluxDB takes lines again; %s", self._waiting())
            self._status = replace(self._status, state=WriterState.OK)
            self._failures = 0
            return
        self._failures += 1
        mendable = outcome.verdict is Verdict.MISCONFIGURED
        state = WriterState.MISCONFIGURED if mendable else WriterState.WAITING
        self._status = replace(self._status, state=state, last_error=outcome.message)
        if self._failing.due():
            log.log(logging.ERROR if mendable else logging.WARNING, "%s (%s)", outcome.message, self._kept())

    def _waiting(self) -> str:
        try:
            return f"{self._outbox.status().depth_lines} lines are waiting"
        except OutboxError as problem:
            return str(problem)

    def _kept(self) -> str:
        try:
            depth = self._outbox.status().depth_lines
        except OutboxError:
            return "it is tried again"
        return f"{depth} lines are kept and tried again"

    def _say_rejected(self, lines: Sequence[str], round_: _Round, fate: str) -> None:
        if not round_.bad:
            return
        self._status = replace(self._status, lines_rejected=self._status.lines_rejected + len(round_.bad))
        if self._rejecting.due():
            place, words = next(iter(round_.bad.items()))
            log.error(
                "InfluxDB rejects lines; %s (%d since the start). One of them: %s (%s)",
                fate,
                self._status.lines_rejected,
                clean(lines[place], 200),
                words,
            )


def _halves(start: int, end: int) -> list[tuple[int, int]]:
    """The right half, then the left: a stack gives the left one first, so that the order of lines is kept."""
    middle = (start + end) // 2
    return [(middle, end), (start, middle)]
