"""What is kept of a meter in the outbox, and how all of it is removed (`forget`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Protocol

from exporter.model import point
from exporter.model.state_keys import state_of
from exporter.outbox.queue import Outbox

log = logging.getLogger(__name__)


class Memory(Protocol):
    """Who remembers something of a meter, and adds to the outbox."""

    def forgetting(self, meter_id: str) -> AbstractContextManager[None]:
        """Let go of the meter, and do nothing until the context is over."""
        ...


class Sender(Protocol):
    """Who has lines on their way."""

    def let_go(self, doomed: Callable[[str], bool]) -> bool:
        """Be done with these lines; False when that takes too long."""
        ...


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was removed: lines that waited, lines that were put aside, entries of the state.

    `settled` is False when a batch is still on its way that may hold lines of the meter.
    """

    lines: int
    rejected: int
    entries: int
    settled: bool = True


def forget(outbox: Outbox, meter_id: str, memories: Sequence[Memory] = (), sender: Sender | None = None) -> Forgotten:
    """Remove all that is kept of a meter, in memory too. Raises OutboxError; it can be done again then.

    The lines first: as long as there is state, it is known that there is something to forget. Then memory and state
    at one moment, so that neither is made again from the other. Then what a batch on its way put back, until no batch
    can hold a line of the meter.
    """
    doomed, mark = point.is_of(meter_id), point.meter_tag(meter_id)
    lines, rejected = outbox.take_out(doomed, mark)
    with ExitStack() as still:
        for memory in memories:
            still.enter_context(memory.forgetting(meter_id))
        keys = state_of(outbox.states(""), meter_id)
        outbox.append([], dict.fromkeys(keys))
    settled, more = True, 1
    while settled and more:
        settled = sender is None or sender.let_go(doomed)
        more, more_rejected = outbox.take_out(doomed, mark)
        rejected += more_rejected
    log.info("meter %s is forgotten: %d lines, %d entries of the state", meter_id, lines, len(keys))
    return Forgotten(lines, rejected, len(keys), settled)
