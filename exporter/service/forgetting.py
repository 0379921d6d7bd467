"""Removes everything about a meter from the outbox, and from the memory of a running service (`forget`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Protocol

from exporter.counted import counted
from exporter.model import point
from exporter.model.state_keys import state_of
from exporter.outbox.queue import Outbox

log = logging.getLogger(__name__)


class Memory(Protocol):
    """Something that remembers meters, and appends to the outbox."""

    def forgetting(self, meter_id: str) -> AbstractContextManager[None]:
        """Forget the meter, and append nothing before the context ends."""
        ...


class Sender(Protocol):
    """Something that sends lines of the outbox."""

    def discard(self, doomed: Callable[[str], bool]) -> bool:
        """Finish the batch that is being sent, and forget these lines; return False when that takes too long."""
        ...


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How much was removed: waiting lines, refused lines, entries of the state.

    `settled` is False when a batch that may have lines of the meter is still being sent.
    """

    lines: int
    rejected: int
    entries: int
    settled: bool = True


def forget(outbox: Outbox, meter_id: str, memories: Sequence[Memory] = (), sender: Sender | None = None) -> Forgotten:
    """Remove everything about a meter, also from memory. Raises OutboxError; then it can be called again.

    The lines are removed first: as long as there is state, it is seen that this is not finished. Then memory and state
    are removed together, so that neither is made again from the other. Last are lines that were put back into the
    outbox because they were in a batch that was being sent.
    """
    doomed, mark = point.is_of(meter_id), point.meter_tag(meter_id)
    lines, rejected = outbox.remove_lines(doomed, mark)
    with ExitStack() as paused:
        for memory in memories:
            paused.enter_context(memory.forgetting(meter_id))
        keys = state_of(outbox.states(""), meter_id)
        outbox.append([], dict.fromkeys(keys))
    settled, more = True, 1
    while settled and more:
        settled = sender is None or sender.discard(doomed)
        more, more_rejected = outbox.remove_lines(doomed, mark)
        rejected += more_rejected
    log.info(
        "the meter %s is forgotten: %s and %s of the state were removed",
        meter_id,
        counted(lines, "line"),
        counted(len(keys), "entry", "entries"),
    )
    return Forgotten(lines, rejected, len(keys), settled)
