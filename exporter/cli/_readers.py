"""The processes that read a capture ahead; apart from `_cores`, since loading this takes longer than most files do."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TYPE_CHECKING, Self

from exporter.pipeline.learned import Lines, ReadAhead
from exporter.sources.capture.forms import Form

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.model.reading import Zone

__all__ = ["Readers"]

log = logging.getLogger(__name__)


class Readers:
    """Processes that read ahead, each over a pipe of its own, so that it ends when this process does.

    One that ends for whatever reason reads nothing more, and what it would have read is read here.
    """

    def __init__(self, count: int, zone: Zone, settings: Settings | None = None) -> None:
        """`settings` where figures are to be derived, too."""
        self._readers: list[_Reader] = []
        try:
            for _ in range(count):
                self._readers.append(_Reader(zone, settings))
        except (OSError, RuntimeError) as problem:  # RuntimeError: no thread can be started
            log.debug("no more processes can be had: %s", problem)
        self._turns = cycle(self._readers)

    @property
    def count(self) -> int:
        """How many pieces they should have before them."""
        return 2 * len(self._readers)

    def give(self, piece: bytes, form: Form, lines: Lines) -> Future[Sequence[ReadAhead]]:
        """Have the next one read a piece; what it will have found. No exception comes of it."""
        return next(self._turns).give(piece, form, lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers:
            reader.close()


class _Reader:
    """One such process, and the thread that waits for it."""

    def __init__(self, zone: Zone, settings: Settings | None) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would take threads' locks along
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(int).result()  # a thread that cannot be had is told now
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_read_ahead, args=(there, zone, settings), daemon=True)
        self._process.start()
        there.close()
        self._known = 0

    def give(self, piece: bytes, form: Form, lines: Lines) -> Future[Sequence[ReadAhead]]:
        examples = lines.examples
        new, self._known = (examples if len(examples) != self._known else ()), len(examples)
        return self._thread.submit(self._ask, new, form, lines.meter_id, piece)

    def _ask(self, *what: object) -> Sequence[ReadAhead]:
        try:
            self._pipe.send(what)
            runs: Sequence[ReadAhead] = self._pipe.recv()
            return runs
        except (EOFError, OSError) as problem:
            log.debug("a process that reads ahead has ended (%r): the rest is read here", problem)
            return ()

    def close(self) -> None:
        self._process.terminate()
        self._thread.shutdown(wait=False, cancel_futures=True)


def _read_ahead(pipe: Connection, zone: Zone, settings: Settings | None) -> None:
    """What such a process does, until the other end of its pipe is closed."""
    from exporter.derive.deriver import Deriver
    from exporter.pipeline.learned.ahead import Ahead

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is told to the process that reads in order
    ahead = Ahead(zone, None if settings is None else Deriver(settings, lambda _: None, imported=True))
    try:
        while True:
            examples, form, meter_id, piece = pipe.recv()
            ahead.learn(examples)
            pipe.send((ahead.raw if form is Form.RAW else ahead.stamped)(piece, meter_id))
    except (EOFError, OSError):
        pass  # nobody is there any more
