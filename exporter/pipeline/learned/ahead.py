"""Frames of known shapes read ahead of those before them, by another process: what `Lines.take` takes.

Which meter a list is of and when it was depends on what was heard before. Nearly every list says nothing new of that:
so runs of such lists are read on the belief that all is as it was, and whoever has heard what was before looks whether
that is so, once for a run. What is not in a run goes the ordinary way, there.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from exporter.model.calendar import HOUR_MS
from exporter.model.reading import Zone
from exporter.pipeline.decoder import Heard, read_frame
from exporter.pipeline.learned import Lines
from exporter.pipeline.learned.run import ReadAhead
from exporter.pipeline.placing import Placer, Run
from exporter.protocol.hdlc import Deframer, Frame
from exporter.sources.capture.reader import quick_line

if TYPE_CHECKING:
    from exporter.derive.deriver import Deriver

__all__ = ["Ahead"]

_START: Final = re.compile(rb"\x7e[\xa0-\xaf]")
_MINUTE_MS: Final = 60_000
_MOST: Final = 256
"""Frames in a run: some 300 kB of lines."""
_FEWEST: Final = 8
"""To place fewer one by one takes no longer than to look at a run of them."""


class Ahead:
    """Sans-I/O: a piece of a capture in, runs of frames out; `learn` from `Lines.examples` which shapes there are.

    With a `deriver` figures are derived too, and the runs hold no lines of lists without a time. `fewest` is how many
    frames make a run.
    """

    def __init__(self, zone: Zone, deriver: Deriver | None = None, *, fewest: int = _FEWEST) -> None:
        self._lines = _Lines(zone, deriver)
        self._fewest = fewest

    def learn(self, examples: Sequence[bytes]) -> None:
        """Know the shapes of these frames, too."""
        for example in examples:
            self._lines.learn(example)

    def raw(self, octets: bytes, meter_id: str | None) -> list[ReadAhead]:
        """Runs in raw octets; `meter_id` is whose the lists are that name no meter, until one does."""
        lines, at, runs = self._lines, 0, []
        lines.placer.meter_id = meter_id
        while (found := _START.search(octets, at)) is not None:
            at = found.start()
            lines.begin()
            end = lines.known(octets, at)
            if lines.placer.frames >= self._fewest:
                runs.append(lines.run(at, end - at, 0))
            at = max(end, at + 1)
        return runs

    def stamped(self, text: bytes, meter_id: str | None) -> list[ReadAhead]:
        """The same of whole lines of time-stamped hex; what is damaged in them is for others to tell of."""
        self._lines.placer.meter_id = meter_id
        rows = text.decode("latin-1").split("\n")[:-1]  # a character an octet
        offsets = [0, *accumulate(len(row) + 1 for row in rows)]
        return [
            self._lines.run(offsets[first], offsets[end] - offsets[first], end - first)
            for first, end in self._whole(rows)
            if self._lines.placer.frames >= self._fewest
        ]

    def _whole(self, rows: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Where rows begin and end that hold nothing but whole frames of a run; the run is that of these then."""
        lines = self._lines
        first = clean = at = 0
        lines.begin()
        while at < len(rows):
            chunk = quick_line(rows[at])
            if chunk is not None and lines.takes(*chunk):
                at += 1
                if lines.is_clean:
                    clean = at
                    lines.mark()
                continue
            lines.back()
            yield first, clean
            # What ends a run may begin the next one.
            first = clean = at = at if first < clean == at else at + 1
            lines.begin()
        lines.back()
        yield first, clean


class _Lines(Lines):
    """Lines of a run: known shapes alone, and of what is derived figures alone."""

    def __init__(self, zone: Zone, deriver: Deriver | None) -> None:
        self.placer = _Believed(zone)
        super().__init__(self.placer, lambda _: (), zone, deriver)
        self._broken = False
        self._kept: list[str] = []
        self._mark = self.placer.mark(), 0, 0

    def learn(self, example: bytes) -> None:
        """Know the shape of this frame, too."""
        for item in Deframer().feed(example):
            outcome = read_frame(item, None, self._zone) if isinstance(item, Frame) else item
            if isinstance(outcome, Heard):
                self._table.learn(outcome)

    def begin(self) -> None:
        """A run begins."""
        self.placer.begin()
        self._rest, self._passed, self._broken, self._kept = b"", 0, False, []
        self._received = self._moment = None
        self.mark()

    def known(self, octets: bytes, at: int) -> int:
        """Take frames, one behind the other, and return where the first other octet stands."""
        end = self._known(octets, at)
        self._kept += self._given_out()
        return end

    def takes(self, octets: bytes, received: datetime) -> bool:
        """Take a chunk; False where there is something else in it."""
        self._kept += self.feed(octets, received)
        return not self._broken

    @property
    def is_clean(self) -> bool:
        """Whether no frame has begun that is not whole."""
        return not self._rest

    def mark(self) -> None:
        """Remember the run as it is now."""
        self._mark = self.placer.mark(), len(self._kept), self._passed

    def back(self) -> None:
        """Let the run be as it was at the mark."""
        placed, kept, self._passed = self._mark
        self.placer.back(placed)
        del self._kept[kept:]

    def run(self, start: int, size: int, rows: int) -> ReadAhead:
        """The run, which is found there."""
        texts = ["\n".join(self._kept)] if self._kept else []
        return ReadAhead(self.placer.run(), start, size, rows, self._passed, self.placer.frames, rows > 0, texts)

    def _derives(self, own: str | None, moment: int) -> bool:  # noqa: ARG002 - believed of every list
        return True

    def _feed_slowly(self, octets: bytes) -> None:
        self._broken = self._broken or bool(octets)


_Mark = tuple[str | None, int, int, tuple[bool, bool, bool], int | None, int | None]


class _Believed(Placer):
    """Places on the belief that lists are of one meter and say nothing new, until one cannot be."""

    def __init__(self, zone: Zone) -> None:
        super().__init__("", zone=zone)
        self.meter_id: str | None = None
        self.begin()

    def begin(self) -> None:
        """A run begins; the meter is still the last one."""
        self.frames = 0
        self._moments, self._named = array("q"), bytearray()
        self._names_itself = self._nameless = self._plain = False
        self._shown: int | None = None
        self._moment: int | None = None

    def mark(self) -> _Mark:
        """What `back` goes back to."""
        flags = self._names_itself, self._nameless, self._plain
        return self.meter_id, self.frames, len(self._moments), flags, self._shown, self._moment

    def back(self, mark: _Mark) -> None:
        """Forget what was placed since the mark."""
        self.meter_id, self.frames, timed, flags, self._shown, self._moment = mark
        self._names_itself, self._nameless, self._plain = flags
        del self._moments[timed:], self._named[timed:]

    def run(self) -> Run:
        """What was placed since."""
        return Run(
            self.meter_id or "",
            self._moments,
            bytes(self._named),
            self._names_itself,
            self._nameless,
            self._plain,
            self._shown,
        )

    def place_known(self, own: str | None, moment: int | None, shown: int | None) -> tuple[str, int | None] | None:
        meter_id = self.meter_id if own is None else own
        if meter_id is None or self.frames >= _MOST or (self.frames and meter_id != self.meter_id):
            return None
        if shown is not None and shown % HOUR_MS < _MINUTE_MS:
            return None
        time = moment
        if moment is not None and self._moments and moment <= self._moments[-1]:
            if moment != self._moment:
                return None
            time = self._moments[-1] + 1
        self.frames += 1
        self.meter_id = meter_id
        if own is None:
            self._nameless = True
        else:
            self._names_itself = True
        if shown is None:
            self._plain = True
        else:
            self._shown = shown
        if time is not None:
            self._moment = moment
            self._moments.append(time)
            self._named.append(own is not None)
        return meter_id, time
