"""The one way from a chunk of bytes to points and state: `run`, `watch`, `import`, `decode` and `check` go it.

    bytes -> framer -> messages -> decoder -> readings -> placer -> lists with meter and time -> points

Frames of a shape that came before go a quicker way inside (learned/), with the same result for every input. The
pipeline asks no clock but the one that it is handed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from operator import getitem
from typing import TYPE_CHECKING, Final, Protocol, cast

from fastcrc import crc16

from exporter.derive import points
from exporter.derive.derivations import Derivations, Finals
from exporter.derive.values import Values
from exporter.model.point import Row, escaped, is_of, replaced_key, without
from exporter.model.reading import Placed, Reading, Zone
from exporter.model.state_keys import meter_of
from exporter.pipeline.arrival import Arrival, arrival_of
from exporter.pipeline.clock_reading import to_us
from exporter.pipeline.decoder import Decoded, Outcome, decode_message
from exporter.pipeline.host_clock import HostClock, HostTime
from exporter.pipeline.identity import NAMELESS_WAIT_MS
from exporter.pipeline.learned import Ready, Table
from exporter.pipeline.placing import Placer
from exporter.protocol.framing import Message, Rejected, open_framer
from exporter.protocol.hdlc import FLAG, FRAME_START, Frame
from exporter.sources.contract import Chunk

if TYPE_CHECKING:
    from exporter.config import Naming, Settings
    from exporter.pipeline.link import Link

__all__ = ["PAST", "Counts", "Fed", "NoState", "Pipeline", "Purpose", "State"]

_FLAG: Final = bytes([FLAG])
_BOUNDARY: Final = re.compile(rb"\x7e(?=\x7e?[\xa0-\xaf])")
_LEAST_PIECE: Final = 16
_RIGHT: Final = 0x0F47
"""CRC-16/X-25 of any bytes with their own CRC after them."""
PAST: Final = timedelta(minutes=1)
"""A chunk that was received longer ago was not stamped by this computer's clock now."""


class Purpose(Enum):
    """What the points are for."""

    RUN = "run"
    """Values and everything derived, the running hour and limits too; state is kept over a restart."""
    IMPORT = "import"
    """The same of a capture: nothing speaks of now, and of the state only the hours' registers are kept."""
    VALUES = "values"
    """The values that the meter sent, and nothing derived; also those of lists without a time."""
    SHOW = "show"
    """No points: every message and what it says, and the readings with their meter and time."""
    READINGS = "readings"
    """No points, and nothing is placed: every message and what it says."""


class State(Protocol):
    """What was kept before, by key."""

    def get_state(self, key: str) -> str | None:
        """The text kept under a key, None if there is none."""
        ...

    def states(self, prefix: str) -> Mapping[str, str]:
        """All keys that start so, and their texts."""
        ...


class NoState:
    """The state of a stream that nothing was kept of."""

    def get_state(self, key: str) -> str | None:  # noqa: ARG002
        """There is none."""
        return None

    def states(self, prefix: str) -> Mapping[str, str]:  # noqa: ARG002
        """There are none."""
        return {}


@dataclass(slots=True)
class Counts:
    """What went through a pipeline so far. `without_time` are readings that nothing gave a time."""

    size: int = 0
    messages: int = 0
    quick: int = 0
    """Of the messages, those that went the quick way."""
    undecoded: int = 0
    readings: int = 0
    without_time: int = 0


@dataclass(slots=True)
class Fed:
    """What some chunks brought.

    `rows` are for the sink. `state` has the keys that changed, to be kept in the same transaction; a key comes again
    until `Pipeline.kept` is called. `outcomes` are the bytes and messages that could not be read, and for SHOW and
    READINGS the decoded ones too, in the order of the stream; `placed` are the readings with meter and time, for SHOW.
    """

    rows: list[Row] = field(default_factory=list)
    state: dict[str, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)


class Pipeline:
    """One stream's way to points.

    `stream` names it in logs and in the id of last resort. RUN and IMPORT need all settings, the others the time zone
    and HAN_METER_ID. `state` is what was kept before a restart. `live` says that
    the chunks come now, so that their times are this computer's. `link` counts what the stream does. With `waits`
    false no list waits for another. `others` are final hours that are stored elsewhere. `quick` false lets every frame
    go the slow way, which is the definition: for tests.
    """

    def __init__(
        self,
        stream: str,
        settings: Settings | Naming,
        state: State,
        clock: HostClock,
        *,
        purpose: Purpose = Purpose.RUN,
        live: bool = False,
        link: Link | None = None,
        waits: bool = True,
        others: Finals | None = None,
        quick: bool = True,
    ) -> None:
        self.counts = Counts()
        self._clock, self._live, self._link = clock, live, link
        self._zone: Zone = settings.zone
        self._purpose = purpose
        kept: dict[str, str] = {}
        if purpose is Purpose.RUN:
            kept = {**state.states(f"last_id:{stream}"), **state.states("clock:")}
        self._placer = Placer(stream, fallback=settings.meter_id, state=kept, now=clock.now)
        self._host = HostTime(clock)
        self._derivations: Derivations | None = None
        if purpose in (Purpose.RUN, Purpose.IMPORT):
            self._derivations = Derivations(
                cast("Settings", settings),
                state.get_state,
                others=others,
                imported=purpose is Purpose.IMPORT,
                monotonic=clock.monotonic,
            )
        self._shows = purpose in (Purpose.SHOW, Purpose.READINGS)
        self._waits = waits
        self._waiting_since: float | None = None
        # The stream of bytes.
        self._framer = open_framer()
        self._table = Table(settings.zone) if quick and not self._shows else None
        self._last_ready: Ready | None = None
        self._rest = b""  # the beginning of a frame of a known shape, whose end is not here yet
        self._passed = 0  # bytes that the framer does not know of yet
        self._chunk = Chunk(b"", None)
        self._before: datetime | None = None  # when the chunk before this one was received
        self._received: int | None = None  # of this chunk, us
        self._until = 0  # offset of the first byte after this chunk
        # What was made since it was last given out.
        self._lines: list[str] = []
        self._rows: list[Row] = []
        self._fed = Fed()
        self._unkept: dict[str, str] = {}
        self._escaped = "", ""  # the last meter's id, and the same as it stands in a line
        if link is not None:
            link.expect(self._placer.expected[0], named=self._placer.expected[1])

    # --- in and out -------------------------------------------------------------------------------------------------

    def feed(self, chunks: Iterable[Chunk], *, more: bool = False) -> Fed:
        """Take chunks in the order in which they came. Bad input never raises.

        `more` says that the caller has more of the past to feed before it keeps anything: then sums of days and months,
        and the state, come with a later call.
        """
        for chunk in chunks:
            self._feed(chunk)
        return self._given_out(more=more)

    def tick(self) -> Fed:
        """To be called about every second of a live stream: lists that waited 60 s for a name go out."""
        since = self._waiting_since
        if since is not None and self._live and self._clock.monotonic() - since >= NAMELESS_WAIT_MS / 1000:
            for one in self._placer.give_up(all_heard=False):
                self._write(one)
        return self._given_out()

    def now(self, now_ms: int) -> list[str]:
        """The lines that speak of now."""
        return [] if self._derivations is None else self._derivations.now(now_ms)

    def interrupted(self) -> Fed:
        """The stream broke off or ended: what waited for its end is rejected. What comes next is a new stream."""
        rest, self._rest = self._rest, b""
        self._feed_slowly(rest)
        for rejected in self._framer.end():
            self._reject(rejected)
        return self._given_out(more=True)

    def end(self, *, all_heard: bool = True) -> Fed:
        """Nothing comes any more: what waits is placed. `all_heard` says that a file was read to its end."""
        for one in self._placer.give_up(all_heard=all_heard):
            self._write(one)
        return self._given_out()

    def kept(self) -> None:
        """What was given out last is stored, state and all."""
        self._unkept = {}
        if self._derivations is not None:
            self._derivations.kept()

    def forget(self, meter_id: str) -> None:
        """Remove everything that is known of a meter, its lines that were not given out yet too."""
        self._placer.forget(meter_id)
        if self._derivations is not None:
            self._derivations.forget(meter_id)
        if self._link is not None:
            self._link.forget(meter_id)
        doomed = is_of(meter_id)
        self._lines = [line for text in self._lines for line in text.split("\n") if not doomed(line)]
        self._rows = without(self._rows, meter_id)
        self._unkept = {key: text for key, text in self._unkept.items() if meter_of(key, text) != meter_id}

    def count_in(self, link: Link | None) -> None:
        """Count what comes from now on in this link, or in none."""
        self._link = link

    @property
    def clock_trusted(self) -> bool:
        """False while lists take another time than this computer's, or would if any meter sent one."""
        return self._host.trusted

    @property
    def left_out(self) -> int:
        """Lists without a name that were left out because two meters send on this stream."""
        return self._placer.left_out

    def _given_out(self, *, more: bool = False) -> Fed:
        fed, self._fed = self._fed, Fed()
        if not more and self._derivations is not None:
            self._add(self._derivations.sums())
            if self._purpose is Purpose.RUN:
                self._unkept |= self._placer.new_state()
            self._unkept |= self._derivations.new_state()
            fed.state = dict(self._unkept)
        if self._lines:
            fed.rows = [Row("\n".join(self._lines).encode())]
            self._lines = []
        if self._rows:
            fed.rows += self._rows
            self._rows = []
        if self._link is not None:
            self._link.counts.left_out = self._placer.left_out
        return fed

    # --- bytes to messages ------------------------------------------------------------------------------------------

    def _feed(self, chunk: Chunk) -> None:
        data, received = chunk.data, chunk.received
        self._before, self._chunk = self._chunk.received, chunk
        self._received = None if received is None else to_us(received)
        self._until += len(data)
        self.counts.size = self._until
        if self._link is not None:
            self._link.hear(len(data))
        if self._rest:
            data, self._rest = self._rest + data, b""
        if self._table is None:
            self._feed_slowly(data)
        else:
            self._feed_quickly(data, self._table)
        if self._link is not None:
            self._link.judge()

    def _feed_quickly(self, data: bytes, table: Table) -> None:
        at, size = 0, len(data)
        while at < size:
            if not self._framer.waiting:
                at = self._known(data, at, table)
                if at < size and table.may_begin(data, at):
                    self._rest = data[at:]
                    return
            found = _BOUNDARY.search(data, at + _LEAST_PIECE)
            end = size if found is None else found.end()  # to where the next frame may begin
            self._feed_slowly(data[at:end])
            at = end

    def _known(self, data: bytes, at: int, table: Table) -> int:
        """Take frames of known shapes, one after the other, and return where the first other byte is."""
        ready = self._last_ready or table.find(data, at)  # the next frame is nearly always of the last one's shape
        begun, size, crc, number_of = at, len(data), crc16.ibm_sdlc, int.from_bytes
        while ready is not None:
            end = at + ready.size
            frame = data[at:end]
            if number_of(frame, "big") & ready.mask != ready.fixed:
                ready = table.find(data, at)
                continue
            inner = frame[1:-1]
            if crc(inner) != _RIGHT or (_FLAG in inner and FRAME_START.search(inner)):
                break
            if not self._take_known(ready, frame, size - end):
                other = table.find(data, at) if ready.not_zeros else None
                if other is None or other is ready:
                    break
                ready = other
                continue
            at = end
        self._last_ready = ready
        self._passed += at - begun
        return at

    def _take_known(self, ready: Ready, frame: bytes, after: int) -> bool:
        """Take a frame whose shape and check sum are right; False, with nothing done, where the slow way must say.

        `after` is how many bytes of the chunk came after it.
        """
        received = self._received
        if received is not None and (self._live or self._chunk.byte_seconds):
            moment = self._moment(after)
            received = None if moment is None else to_us(moment)
            if received is not None and self._is_ours() and not self._host.is_right(received):
                return False
        one = ready.arrival(frame, received)
        if one is None:
            return False
        self.counts.messages += 1
        self.counts.quick += 1
        if self._link is not None:
            self._link.decoded()
        self._place(one)
        return True

    def _feed_slowly(self, data: bytes) -> None:
        if self._passed:
            self._framer.passed(self._passed)
            self._passed = 0
        for item in self._framer.feed(data):
            if isinstance(item, Rejected):
                self._reject(item)
            else:
                self._take(item)

    def _take(self, message: Message) -> None:
        after = self._until - message.end
        ready = None
        if self._table is not None and isinstance(message, Frame):
            wire = message.wire()
            ready = self._table.find(wire)
            if ready is not None and self._take_known(ready, wire, after):
                return
        self.counts.messages += 1
        outcome = decode_message(message, self._moment(after), self._zone)
        if not isinstance(outcome, Decoded):
            self.counts.undecoded += 1
            self._fed.outcomes.append(outcome)
            if self._link is not None:
                self._link.undecoded(outcome.reason)
            return
        if self._table is not None and ready is None:
            self._table.missed(outcome)
        if self._shows:
            self._fed.outcomes.append(outcome)
        if self._link is not None:
            self._link.decoded()
        if self._purpose is not Purpose.READINGS:
            self._place(self._arrival(outcome.reading))

    def _reject(self, rejected: Rejected) -> None:
        self._fed.outcomes.append(rejected)
        if self._link is not None:
            self._link.rejected(rejected)

    def _moment(self, after: int) -> datetime | None:
        """When a message came that ended `after` bytes before the end of the chunk.

        It is `received` less the wire time of the bytes after it, but not before the chunk before: bytes that come
        faster than on a wire (a pseudo-terminal, a buffer that is emptied) would else overtake those before them.
        """
        chunk, before = self._chunk, self._before
        if chunk.received is None or not chunk.byte_seconds:
            return chunk.received
        moment = chunk.received - timedelta(seconds=after * chunk.byte_seconds)
        if before is not None and moment < before <= chunk.received and after < len(chunk.data):
            return before
        return moment

    # --- lists to points --------------------------------------------------------------------------------------------

    def _is_ours(self) -> bool:
        """Whether this computer's clock stamped the chunk just now."""
        received = self._chunk.received
        return self._live and received is not None and abs(self._clock.now() - received) < PAST

    def _arrival(self, reading: Reading) -> Arrival:
        one = arrival_of(reading, self._zone)
        if self._is_ours():
            self._host.correct(one, self._placer.clock_of(one))
        return one

    def _place(self, one: Arrival) -> None:
        placed = self._placer.place(one)
        if not placed and not self._waits:
            placed = self._placer.give_up()
        for each in placed:
            self._write(each)
        if self._live:
            self._note_waiting()

    def _note_waiting(self) -> None:
        if not self._placer.waits:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = self._clock.monotonic()

    def _write(self, one: Arrival) -> None:
        self.counts.readings += 1
        if self._link is not None:
            # What a capture holds is no news, though it is read now.
            self._link.read(one.meter_id, named=self._live and one.own is not None, timed=one.time is not None)
        if one.time is None:
            self.counts.without_time += 1
        content = one.content
        if isinstance(content, tuple):
            self._write_learned(one, *content)
        else:
            self._write_reading(one, cast("Reading", content))

    def _write_reading(self, one: Arrival, reading: Reading) -> None:
        placed = Placed(reading, one.meter_id, one.time, one.register_time, one.is_hour, one.clock_offset)
        if self._shows:
            self._fed.placed.append(placed)
            return
        if self._derivations is None:
            self._lines += points.lines(placed)
            return
        values = Values.of(placed)
        if values is not None:
            self._lines += points.lines(placed)
            self._add(self._derivations.of(values))

    def _write_learned(self, one: Arrival, ready: Ready, numbers: tuple[int, ...]) -> None:
        """As `_write_reading` would, from a template."""
        meter_id, time = one.meter_id, one.time
        if meter_id != self._escaped[0]:
            self._escaped = meter_id, escaped(meter_id)
        there = self._escaped[1]
        stamp = "" if time is None else f" {time}"
        registers = stamp if one.register_time == time else f" {one.register_time}"
        if self._derivations is None:
            self._lines.append(ready.plain.fill(there, map(getitem, ready.texts, numbers), stamp, registers))
        elif time is not None and one.register_time is not None:
            values = [*map(getitem, ready.values, numbers)]
            offset = one.clock_offset
            derived = Values(meter_id, time, one.register_time, one.is_hour, offset, ready.layout, values)
            figures = ready.figures.texts(numbers, values, self._derivations.fuse(meter_id))
            texts = [*map(getitem, ready.texts, numbers)]
            if figures is None:
                self._lines.append(ready.plain.fill(there, texts, stamp, registers))
                self._add(self._derivations.of(derived))
                return
            if offset is None:
                self._lines.append(ready.derived.fill(there, texts + figures, stamp, registers))
            else:
                self._lines.append(ready.timed.fill(there, [*texts, repr(offset), *figures], stamp, registers))
            more = self._derivations.beside_figures(derived)
            if more:
                self._add(more)

    def _add(self, lines: list[str]) -> None:
        for line in lines:
            key = replaced_key(line)
            if key:
                self._rows.append(Row(line.encode(), key))
            else:
                self._lines.append(line)
