"""Frames for benchmarks: each maker's lists with numbers and clocks that change from frame to frame, as a meter's do.

The simulator's encoder makes them from a simulated household or, for a capture, from the values in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import cycle, islice
from typing import Final, NamedTuple, TypeGuard

from exporter.model.reading import MeterClock
from exporter.protocol.apdu import decode
from exporter.protocol.axdr import Tag, Value
from exporter.protocol.hdlc import Deframer, Frame
from exporter.simulator import aidon, kaifa, kamstrup
from exporter.simulator.encoder import Addresses, date_time, frame, information, local_clock, standard_time
from exporter.simulator.household import Household
from exporter.simulator.meter import OSLO
from exporter.simulator.sample import Flows, Identity, Sample
from tests.support.octets import expected, frames_of

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
_EVERY: Final = {False: timedelta(seconds=10), True: timedelta(hours=1)}
_SEED: Final = 1
_VARYING: Final = frozenset({Tag.INT16, Tag.UINT16, Tag.INT32, Tag.UINT32, Tag.INT64, Tag.UINT64})
_REGISTER: Final = 50_000
"""A number in a capture that is larger is an energy register, and only grows."""
_FIRST_ID: Final = {"kamstrup": 5706567000000000, "aidon": 7359992890000000, "kaifa": 6970631400000000}
_TYPES: Final = {"kamstrup": b"6841121BN243101040", "aidon": b"6534", "kaifa": b"MA304H4"}


class Case(NamedTuple):
    """A list of a maker: how a frame of it is made.

    `main`: the maker's 10 s list. `named`: it has a meter id. `hourly`: it is sent each hour, with energy registers.
    `registers`: it has energy registers though it is not hourly.
    """

    name: str
    maker: str
    encode: Callable[[Identity, Sample, datetime], bytes]
    main: bool = False
    named: bool = True
    hourly: bool = False
    registers: bool = False
    phases: int = 3


def _kamstrup(meter: Identity, sample: Sample, moment: datetime) -> bytes:
    return kamstrup.list1(meter, sample, kamstrup.clock(moment, OSLO))


def _kamstrup_hourly(meter: Identity, sample: Sample, moment: datetime) -> bytes:
    return kamstrup.hourly(meter, sample, kamstrup.clock(moment, OSLO))


def _aidon_hourly(meter: Identity, sample: Sample, moment: datetime) -> bytes:
    return aidon.list3(meter, sample, aidon.clock(moment, OSLO))


def _aidon_swedish(meter: Identity, sample: Sample, moment: datetime) -> bytes:
    power = sample.power
    third = Flows(*(flow // 3 for flow in power))
    clock = local_clock(standard_time(moment, OSLO), deviation=None)
    return aidon.swedish(replace(sample, phase_power=(third, third, third)), clock)


def _landisgyr(meter: Identity, sample: Sample, moment: datetime) -> bytes:
    return aidon.list2(Identity(meter.id[-8:].ljust(16, b"\0"), b"ZF1"), sample, aidon.E350)


def _kaifa(meter: Identity, sample: Sample, moment: datetime) -> bytes:
    return kaifa.list2(meter, sample, kaifa.clock(moment, OSLO))


def _kaifa_hourly(meter: Identity, sample: Sample, moment: datetime) -> bytes:
    return kaifa.list3(meter, sample, kaifa.clock(moment, OSLO))


def _kaifa_pairs(meter: Identity, sample: Sample, moment: datetime) -> bytes:
    return kaifa.pairs(Identity(meter.id, b"MA304H4PSE"), replace(sample, registers=None), kaifa.clock(moment, OSLO))


CASES: Final = (
    Case("kamstrup 10 s", "kamstrup", _kamstrup, main=True),
    Case("kamstrup 10 s, 1 phase", "kamstrup", _kamstrup, phases=1),
    Case("kamstrup hourly", "kamstrup", _kamstrup_hourly, hourly=True),
    Case("aidon 10 s (list 2)", "aidon", lambda meter, sample, _: aidon.list2(meter, sample), main=True),
    Case("aidon 2.5 s (list 1)", "aidon", lambda _meter, sample, _: aidon.list1(sample), named=False),
    Case("aidon hourly (list 3)", "aidon", _aidon_hourly, hourly=True),
    Case("aidon 10 s, Sweden", "aidon", _aidon_swedish, named=False, registers=True),
    Case("landis+gyr 10 s", "aidon", _landisgyr),
    Case("kaifa 10 s (list 2)", "kaifa", _kaifa, main=True),
    Case(
        "kaifa 2 s (list 1)",
        "kaifa",
        lambda _meter, sample, moment: kaifa.list1(sample, kaifa.clock(moment, OSLO)),
        named=False,
    ),
    Case("kaifa hourly (list 3)", "kaifa", _kaifa_hourly, hourly=True),
    Case("kaifa 10 s, Sweden", "kaifa", _kaifa_pairs),
)
KAMSTRUP: Final = CASES[0]
NAMELESS: Final = "aidon 10 s, Sweden"
"""No list of this meter has its id."""
_NAMING: Final = {case.maker: case for case in reversed(CASES) if case.main}


def identity(maker: str, number: int = 1) -> Identity:
    """Id of 16 digits and type of a maker's meter."""
    return Identity(str(_FIRST_ID[maker] + number).encode(), _TYPES[maker])


@lru_cache(maxsize=4)
def samples(count: int, *, hourly: bool, registers: bool, phases: int = 3) -> Sequence[Sample]:
    """What a household's meter measures every 10 s or every hour."""
    household = Household(_SEED, phases, "TN", OSLO)
    moments = (START + i * _EVERY[hourly] for i in range(count))
    return [household.sample(moment, registers_at=moment if registers else None) for moment in moments]


@lru_cache(maxsize=4)
def frames(case: Case, count: int, meters: int = 1) -> Sequence[bytes]:
    """Frames of a list, from a number of meters in turn.

    Before a list without a meter id comes one frame of the same maker that has it, unless the meter never sends one.
    """
    identities = [identity(case.maker, number) for number in range(meters)]
    made = [
        case.encode(identities[i % meters], sample, START + i // meters * _EVERY[case.hourly])
        for i, sample in enumerate(
            samples(count, hourly=case.hourly, registers=case.hourly or case.registers, phases=case.phases)
        )
    ]
    if not case.named and case.name != NAMELESS:
        naming = _NAMING[case.maker]
        made[0] = naming.encode(identities[0], samples(1, hourly=False, registers=False)[0], START)
    return made


def damaged(whole: Sequence[bytes], share: float = 0.01) -> list[bytes]:
    """The frames with this share of them damaged: one byte is wrong, or the end is missing."""
    choice = random.Random(_SEED)
    out = list(whole)
    for place in choice.sample(range(len(out)), round(len(out) * share)):
        data = bytearray(out[place])
        at = choice.randrange(1, len(data))
        if choice.random() < 0.5:
            data[at] ^= choice.randrange(1, 256)
        else:
            del data[at:]
        out[place] = bytes(data)
    return out


def captures() -> list[str]:
    """Names of the captures in tests/captures."""
    return sorted(expected())


@lru_cache(maxsize=4)
def capture_frames(name: str, count: int) -> Sequence[bytes]:
    """Frames of a capture over and over, with numbers and clocks that continue from those in it."""
    originals = parsed(frames_of(name))
    return [again(item, turn) for turn, item in enumerate(islice(cycle(originals), count))]


def parsed(data: Sequence[bytes]) -> list[Frame]:
    """The whole frames in a stream of bytes."""
    return [item for item in Deframer().feed(b"".join(data)) if isinstance(item, Frame)]


def has_clock(sent: Sequence[bytes]) -> bool:
    """Whether any of the frames has a clock, in its header or in its list."""
    for item in parsed(sent[:100]):
        content = decode(item.content)
        if content.date_time is not None or _holds_clock(content.value):
            return True
    return False


def _holds_clock(value: Value) -> bool:
    if isinstance(value.content, tuple):
        return any(map(_holds_clock, value.content))
    return _is_clock(value.content)


def _is_clock(content: object) -> TypeGuard[bytes]:
    return isinstance(content, bytes) and len(content) == 12 and content[0] == 7  # years 1792 to 2047


def unlike(original: Frame, every: timedelta, at_most: int = 10_000) -> Sequence[bytes]:
    """The frame again and again, `every` so much later and with other numbers, until two would be the same."""
    made = dict.fromkeys([again(original, 0)])
    for turn in range(1, at_most):
        one = again(original, turn, every)
        if one in made:
            break
        made[one] = None
    return list(made)


def again(original: Frame, turn: int, every: timedelta = _EVERY[False]) -> bytes:
    """A frame with slightly different numbers, and its clocks `turn` steps later; the same frame for turn 0."""
    content = decode(original.content)
    later = replace(content, value=_varied(content.value, turn, every))
    if content.date_time is not None:
        later = replace(later, date_time=_later(content.date_time, turn * every))
    tagged = original.content[8] == Tag.OCTET_STRING
    addresses = Addresses(original.destination, original.source, original.control)
    return frame(addresses, information(later, tagged_clock=tagged))


def _varied(value: Value, turn: int, every: timedelta) -> Value:
    content = value.content
    if isinstance(content, tuple):
        return Value(value.tag, tuple(_varied(element, turn, every) for element in content))
    if value.tag in _VARYING and isinstance(content, int) and content > _REGISTER:
        return Value(value.tag, content + turn // 7)
    if value.tag in _VARYING and isinstance(content, int) and content > 0:
        return Value(value.tag, content - turn * 7919 % (content // 3 + 1))
    if _is_clock(content):
        clock = decode(b"\xe6\xe7\x00\x0f\0\0\0\0\x0c" + content + b"\0").date_time
        assert clock is not None
        return Value(value.tag, date_time(_later(clock, turn * every)))
    return value


def _later(clock: MeterClock, by: timedelta) -> MeterClock:
    fields = (clock.year, clock.month, clock.day, clock.hour, clock.minute, clock.second)
    moment = datetime(*(field or 0 for field in fields)) + by  # type: ignore[arg-type]  # noqa: DTZ001
    weekday = moment.isoweekday() if by and clock.weekday is not None else clock.weekday
    return replace(
        clock,
        year=moment.year,
        month=moment.month,
        day=moment.day,
        weekday=weekday,
        hour=moment.hour,
        minute=moment.minute,
        second=moment.second,
    )


def informations(data: Sequence[bytes]) -> Iterator[bytes]:
    """The information fields of frames."""
    return (item.content for item in parsed(data))
