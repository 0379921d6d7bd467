"""Lines of frames of a known shape against the slow way, which defines them: any list, mutation, order and slicing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from exporter.meters import OSLO
from exporter.model.reading import MeterClock
from exporter.protocol.apdu import Notification
from exporter.protocol.axdr import Tag, Value
from exporter.simulator import aidon, kaifa, kamstrup
from exporter.simulator.encoder import Addresses, date_time, frame, information
from exporter.simulator.sample import Flows, Identity, Sample
from tests.benchmarks.frames import CASES, frames
from tests.support.examples import examples
from tests.support.octets import expected, frames_of
from tests.support.two_ways import Chunks, same, with_check_sums

NOON = datetime(2024, 1, 1, 11, 59, 40, tzinfo=UTC)
ZONES = [ZoneInfo(name) for name in ("Europe/Oslo", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns", "UTC")]


@lru_cache(maxsize=1)
def lists() -> dict[str, Sequence[bytes]]:
    """Frames of each capture, and of each list that the simulator makes."""
    captured: dict[str, Sequence[bytes]] = {name: frames_of(name) for name in sorted(expected())}
    return captured | {case.name: frames(case, 12) for case in CASES}


def times(count: int) -> st.SearchStrategy[list[datetime | None]]:
    """When chunks were received, or None where nobody wrote that down."""
    seconds = st.lists(st.sampled_from([0.0, 0.0004, 2.5, 10.0, 10.0, 1800.0, 3600.0]), min_size=count, max_size=count)

    def summed(steps: list[float]) -> list[datetime | None]:
        return [NOON + timedelta(seconds=sum(steps[: n + 1])) for n in range(count)]

    all_of_them = seconds.map(summed)
    some = st.tuples(all_of_them, st.lists(st.booleans(), min_size=count, max_size=count)).map(
        lambda both: [moment if there else None for moment, there in zip(*both, strict=True)]
    )
    return st.one_of(st.just([None] * count), all_of_them, some)


@st.composite
def received(draw: st.DrawFn, pieces: Sequence[bytes]) -> Chunks:
    """Each piece a chunk, or the stream cut anywhere."""
    whole = b"".join(pieces)
    cuts = draw(st.one_of(st.none(), st.integers(1, 3000), st.lists(st.integers(0, len(whole)), max_size=12)))
    if isinstance(cuts, int):
        step = max(cuts, len(whole) // 600)
        pieces = [whole[at : at + step] for at in range(0, len(whole), step)]
    elif cuts is not None:
        bounds = [0, *sorted(cuts), len(whole)]
        pieces = [whole[start:stop] for start, stop in pairwise(bounds)]
    few = draw(times(min(len(pieces), 8)))
    # as if the first eight moments went on and on
    moments = [few[n % len(few)] for n in range(len(pieces))] if few else []
    later = [m and m + timedelta(seconds=60 * (n // 8)) for n, m in enumerate(moments)]
    return list(zip(pieces, later, strict=True))


# Streams


def cut_or_filled(sent: bytes) -> st.SearchStrategy[bytes]:
    """A frame that is damaged, and whose FCS says so; or fill, or noise beside it."""
    places = st.integers(0, len(sent) - 1)
    return st.one_of(
        places.map(lambda at: sent[:at]),
        places.map(lambda at: sent[:at] + sent),
        st.tuples(places, st.integers(1, 255)).map(
            lambda flip: sent[: flip[0]] + bytes([sent[flip[0]] ^ flip[1]]) + sent[flip[0] + 1 :]
        ),
        st.just(sent[:-1]),
        st.just(sent[1:]),
        st.just(sent[:3]),
        st.integers(1, 4).map(lambda n: b"\x7e" * n + sent),
        st.binary(max_size=30).map(lambda noise: noise + sent),
    )


def other_octets(sent: bytes) -> st.SearchStrategy[bytes]:
    """Another frame, whose FCS is right: a byte is something else, or a flag and a format stand in it."""
    places = st.integers(1, len(sent) - 5)
    instead = st.one_of(
        st.binary(min_size=1, max_size=1), st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80", b"\x7e\xa0", b"\x7e\x7e"])
    )
    return st.tuples(places, instead).map(
        lambda at: with_check_sums(sent[: at[0]] + at[1] + sent[at[0] + len(at[1]) :]) if sent[0] == 0x7E else sent
    )


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Lists of one meter or of several, over and over, some of them damaged and some another one's."""
    known = lists()
    names = draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=3))
    turns = draw(st.integers(2, 4))
    usual = [sent for turn in range(turns) for name in names for sent in known[name][turn * 2 : turn * 2 + 3]]
    usual += [sent for name in names for sent in known[name][:2]]
    pieces: list[bytes] = []
    for sent in usual:
        pieces.append(sent)
        kind = draw(st.integers(0, 7))
        if kind == 0:
            pieces.append(draw(cut_or_filled(sent)))
        elif kind == 1:
            pieces.append(draw(other_octets(sent)))
        elif kind == 2:  # a whole frame of another list where this one broke off
            other = draw(st.sampled_from(usual))
            pieces.append(sent[: draw(st.integers(1, 40))] + other)
    return pieces


@examples(120)
@given(st.data(), streams(), st.booleans(), st.sampled_from([None, "the fallback"]))
def test_any_stream(data: st.DataObject, pieces: list[bytes], derived: bool, fallback: str | None) -> None:
    same(data.draw(received(pieces)), derived=derived, fallback=fallback)


@examples(60)
@given(st.sampled_from(sorted(lists())), st.sampled_from([1, 0x40, 0x80, 0xFF]), st.integers(0, 6), st.booleans())
def test_each_byte_is_another_one(name: str, flip: int, first: int, derived: bool) -> None:
    known = lists()[name]
    sent = known[-1]
    pieces = [*known[:4], *[sent] * 3]
    for at in range(1 + first, len(sent) - 3, 7):
        changed = sent[:at] + bytes([sent[at] ^ flip]) + sent[at + 1 :]
        pieces += [with_check_sums(changed), sent] if sent[at] ^ flip != sent[at] else []
    same([(piece, None) for piece in pieces], derived=derived)


# Meters


IDS = [
    b"5706567000000001",
    b"5706567000000002",
    b'a b,c=d"e%f',
    b"\xff\xfe",
    b"sixsix",
    b"\x01\x01\0\0\5\xff",
    b"",
    b" \0",
]
IDS += [
    b"\x07\xe8\x01\x01\xff\x0b\x00\x00\xff\x80\x00\x00",
    b"x" * 127,
    b"5706567000000001 ",
    "æ\u2028".encode(),
    b"a\\\n",
]
TYPES = [b"MA304H3E", b"MA304H4", b"6841121BN243101040", b"6851121BN243109", b""]
numbers = st.sampled_from([0, 1, 99, 999, 1000, 1001, 65535])
meters = st.builds(Identity, st.sampled_from(IDS), st.sampled_from(TYPES))
flows = st.builds(Flows, numbers, numbers, numbers, numbers)
samples = st.builds(
    Sample,
    flows,
    st.tuples(st.just(1.5), st.sampled_from([0, 0, 3.2]), st.just(2.5)),
    st.tuples(st.sampled_from([230, 1000, 1001]), st.sampled_from([0, 0, 231]), st.just(229)),
    registers=flows,
)
MAKERS: dict[str, Callable[[Identity, Sample, datetime], bytes]] = {
    "kaifa 2": lambda meter, sample, moment: kaifa.list2(meter, sample, kaifa.clock(moment, OSLO)),
    "kaifa 3": lambda meter, sample, moment: kaifa.list3(meter, sample, kaifa.clock(moment, OSLO)),
    "kaifa pairs": lambda meter, sample, moment: kaifa.pairs(meter, sample, kaifa.clock(moment, OSLO)),
    "landis+gyr": lambda meter, sample, moment: aidon.list2(meter, sample, aidon.E350),
    "landis+gyr 3": lambda meter, sample, moment: aidon.list3(meter, sample, aidon.clock(moment, OSLO), aidon.E350),
    "kamstrup": lambda meter, sample, moment: kamstrup.list1(meter, sample, kamstrup.clock(moment, OSLO)),
    "kamstrup hourly": lambda meter, sample, moment: kamstrup.hourly(meter, sample, kamstrup.clock(moment, OSLO)),
    "nameless": lambda meter, sample, moment: kaifa.list1(sample, kaifa.clock(moment, OSLO)),
}


@examples(120)
@given(
    st.lists(st.sampled_from(sorted(MAKERS)), min_size=1, max_size=3),
    st.lists(meters, min_size=1, max_size=3),
    st.lists(samples, min_size=1, max_size=6),
    st.sampled_from([0, 10, 10, 590, 3600]),
    st.tuples(st.booleans(), st.booleans()),
)
def test_meters_and_what_they_measure(
    makers: list[str], ids: list[Identity], measured: list[Sample], step: int, also: tuple[bool, bool]
) -> None:
    timed, derived = also
    pieces: list[tuple[bytes, datetime | None]] = []
    moment = NOON
    for turn in range(24):
        # each list with the same numbers a few times, and then with others
        encode = MAKERS[makers[turn % len(makers)]]
        sent = encode(ids[turn // 3 % len(ids)], measured[turn // 4 % len(measured)], moment)
        pieces.append((sent, moment if timed else None))
        moment += timedelta(seconds=step)
    same(pieces, derived=derived)


# Clocks


def twelve(local: datetime, hundredths: int | None = None, deviation: int | None = None) -> bytes:
    """A clock's sent."""
    day = (local.year, local.month, local.day, None, local.hour, local.minute, local.second)
    return date_time(MeterClock(*day, hundredths, deviation, 0))


# What a meter may show around them, and it knows no zone: UTC stands for none.
CHANGES = [
    datetime(2024, 10, 27, 1, tzinfo=UTC),  # Oslo: 02 comes twice
    datetime(2024, 3, 31, 1, tzinfo=UTC),  # and 02 never
    datetime(2024, 4, 7, 0, 59, tzinfo=UTC),  # Lord Howe: half an hour
    datetime(2024, 10, 6, 1, tzinfo=UTC),
    datetime(2010, 11, 6, 22, 59, tzinfo=UTC),  # St. John's: at one past midnight
    datetime(2010, 3, 13, 23, tzinfo=UTC),
    datetime(2026, 11, 23, 22, tzinfo=UTC),  # tomorrow, and after it
    datetime(2014, 12, 31, 23, tzinfo=UTC),
    datetime(1999, 12, 31, 23, tzinfo=UTC),
    datetime(9999, 12, 31, 22, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
]
usual_clocks = st.builds(
    twelve,
    st.tuples(st.sampled_from(CHANGES), st.sampled_from([0, 10, 59, 1800, 3599, 3600, 3609, 5400, 7199])).map(
        lambda both: both[0] + timedelta(seconds=both[1])
    ),
    st.sampled_from([None, None, 0, 50, 99, 100]),
    st.sampled_from([None, None, 0, -60, 60, -32767]),
)
odd_clocks = st.tuples(usual_clocks, st.integers(0, 11), st.sampled_from([0, 13, 24, 32, 60, 0xFF])).map(
    lambda odd: odd[0][: odd[1]] + bytes([odd[2]]) + odd[0][odd[1] + 1 :]
)
clocks = st.one_of(usual_clocks, usual_clocks, odd_clocks)
CLOCKED = [case.name for case in CASES if "list 2" not in case.name or case.maker == "kaifa"]


@examples(200)
@given(
    st.data(),
    st.lists(st.sampled_from(CLOCKED), min_size=1, max_size=2),
    st.lists(clocks, min_size=1, max_size=8),
    st.sampled_from(ZONES),
    st.booleans(),
)
def test_clocks(data: st.DataObject, names: list[str], shown: list[bytes], zone: ZoneInfo, derived: bool) -> None:
    known = lists()
    pieces = [sent for name in names for sent in known[name][:4]]
    for turn, clock in enumerate(shown + shown[:3]):
        sent = known[names[turn % len(names)]][5]
        at, here = sent.find(b"\x07\xe8\x01"), clock
        while at >= 0:
            sent = sent[:at] + here + sent[at + 12 :]
            at = sent.find(b"\x07\xe8\x01", at + 12)
            # The list's own clock may differ from the header's.
            here = shown[turn * 7 % len(shown)] if turn % 2 else clock
        pieces.append(with_check_sums(sent))
    near = data.draw(st.sampled_from([None, *CHANGES[:6]]))
    moments = [near and near + timedelta(seconds=900 * n) for n in range(len(pieces))]
    same(list(zip(pieces, moments, strict=True)), zone=zone, derived=derived)


# Lists that no maker sends


def octet_string(sent: bytes) -> Value:
    return Value(Tag.OCTET_STRING, sent)


codes = st.sampled_from(
    [
        *(bytes([1, 0, c, d, 0, 255]) for c in (1, 2, 31, 51, 32, 52, 13) for d in (7, 8)),
        bytes([1, 1, 0, 0, 5, 255]),  # ids
        bytes([0, 0, 96, 1, 0, 255]),
        bytes([0, 0, 96, 1, 7, 255]),  # type
        bytes([0, 0, 1, 0, 0, 255]),  # clock
        bytes([1, 1, 0, 2, 129, 255]),  # list
        bytes([9, 9, 9, 9, 9, 9]),
    ]
)
RANGES = {
    Tag.INT8: (-(1 << 7), (1 << 7) - 1),
    Tag.UINT8: (0, (1 << 8) - 1),
    Tag.BCD: (0, 255),
    Tag.ENUM: (0, 255),
    Tag.INT16: (-(1 << 15), (1 << 15) - 1),
    Tag.UINT16: (0, (1 << 16) - 1),
    Tag.INT32: (-(1 << 31), (1 << 31) - 1),
    Tag.UINT32: (0, (1 << 32) - 1),
    Tag.INT64: (-(1 << 63), (1 << 63) - 1),
    Tag.UINT64: (0, (1 << 64) - 1),
}
numbers_of_lists = st.sampled_from(sorted(RANGES)).flatmap(
    lambda tag: st.one_of(st.sampled_from([0, *RANGES[tag]]), st.integers(*RANGES[tag])).map(lambda n: Value(tag, n))
)
others = st.one_of(
    st.sampled_from([b"AIDON_V0001", b"EMBRIQ_V1_1", b"KFM_001", b"7359992890000000", b"MA304H3E", b"sixsix"]).map(
        octet_string
    ),
    st.just(octet_string(twelve(NOON))),
    st.sampled_from([0.0, 1.5, float("nan")]).map(lambda number: Value(Tag.FLOAT32, number)),
    st.booleans().map(lambda truth: Value(Tag.BOOLEAN, truth)),
    st.just(Value(Tag.NULL, None)),
)
scalers = st.sampled_from([-128, -3, -1, 0, 1, 127])
units = st.sampled_from([0x1B, 0x1E, 0x20, 0x21, 0x23, 0xFF])


@st.composite
def entries(draw: st.DrawFn) -> list[Value]:
    entry = [octet_string(draw(codes)), draw(st.one_of(numbers_of_lists, numbers_of_lists, others))]
    scaled = draw(st.integers(0, 3))
    if scaled:
        both = (Value(Tag.INT8, draw(scalers)), Value(Tag.ENUM, draw(units)))
        entry += [Value(Tag.STRUCTURE, both)] if scaled == 1 else both[: scaled - 1]
    return entry


def varied(value: Value, draw: st.DrawFn) -> Value:
    """A value of the same form with other numbers, scalers among them: these are of another shape then."""
    if isinstance(value.content, tuple):
        return Value(value.tag, tuple(varied(element, draw) for element in value.content))
    if value.tag in RANGES and not draw(st.integers(0, 2)):
        return Value(value.tag, draw(st.sampled_from([0, 1, *RANGES[value.tag]])))
    if isinstance(value.content, bytes) and len(value.content) > 6 and not draw(st.integers(0, 5)):
        return Value(value.tag, draw(st.binary(min_size=len(value.content), max_size=len(value.content))))
    return value


@st.composite
def unheard_of(draw: st.DrawFn) -> list[bytes]:
    """A list of a form that no maker sends, and the same form with other numbers."""
    found = draw(st.lists(entries(), min_size=1, max_size=7))
    start = draw(st.sampled_from([[], [b"Kamstrup_V0001"], [b"KFM_001", b"7000000000000000", b"MA304H3E"]]))
    flat = [octet_string(text) for text in start] + [value for entry in found for value in entry]
    nested = [Value(Tag.STRUCTURE, tuple(entry)) for entry in found]
    listed = draw(st.sampled_from([Value(Tag.STRUCTURE, tuple(flat)), Value(Tag.ARRAY, tuple(nested))]))
    clock = draw(st.sampled_from([None, MeterClock(2024, 1, 1, None, 12, 5, 0, None, None, 0)]))
    made = [listed] * 3 + [varied(listed, draw) for _ in range(4)] + [listed]
    to = Addresses(b"\x41", b"\x08\x83", 0x13)
    return [frame(to, information(Notification(turn, clock, value))) for turn, value in enumerate(made)]


@examples(250)
@given(unheard_of(), st.sampled_from([0, 10, 3600]), st.booleans())
def test_lists_that_no_maker_sends(pieces: list[bytes], step: int, derived: bool) -> None:
    named = lists()["kamstrup 10 s"][:3]
    moments = [NOON + timedelta(seconds=step * turn) for turn in range(30)] if step else [None] * 30
    same(list(zip([*named, *pieces, *pieces], moments, strict=False)), derived=derived)
