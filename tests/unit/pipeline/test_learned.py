"""Lines of frames of a known shape: what goes the quick way, what must not, and what once differed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from exporter.config import Settings
from exporter.meters import OSLO
from exporter.pipeline.pipeline import NoState, Pipeline, Purpose
from exporter.protocol.apdu import Notification
from exporter.protocol.axdr import Tag, Value
from exporter.protocol.framing import Kind, Rejected
from exporter.simulator import aidon, kaifa, kamstrup
from exporter.simulator.encoder import Addresses, frame, information
from exporter.simulator.sample import Flows, Identity, Sample
from exporter.sources.contract import Chunk
from tests.benchmarks.frames import CASES, frames
from tests.support.made_captures import kamstrup_10s
from tests.support.octets import frame as built
from tests.support.octets import notification, obis, octet_string, structure, u32
from tests.support.two_ways import CLOCK as HOST
from tests.support.two_ways import Chunks, at_once, same, with_check_sums

NOON = datetime(2024, 1, 1, 11, 59, 40, tzinfo=UTC)
LISTS = {case.name: list(frames(case, 60)) for case in CASES}
KAMSTRUP, AIDON, AIDON_1 = LISTS["kamstrup 10 s"], LISTS["aidon 10 s (list 2)"], LISTS["aidon 2.5 s (list 1)"]
CLOCK = b"\x07\xe8\x01\x01"  # how the clocks of all these lists begin


def every(seconds: float, sent: list[bytes], start: datetime = NOON) -> Chunks:
    return [(piece, start + timedelta(seconds=seconds * turn)) for turn, piece in enumerate(sent)]


def clocked(sent: bytes, clock: str) -> bytes:
    """A frame with other sent for the beginning of each of its clocks."""
    at, there = sent.find(CLOCK), bytes.fromhex(clock)
    while at >= 0:
        sent = sent[:at] + there + sent[at + len(there) :]
        at = sent.find(CLOCK, at + len(there))
    return with_check_sums(sent)


# What goes the quick way


@pytest.mark.parametrize("name", sorted(LISTS))
@pytest.mark.parametrize("derived", [False, True])
def test_lists_of_every_maker(name: str, derived: bool) -> None:
    pieces = LISTS[name]
    for chunks in (at_once(pieces), every(10, pieces), every(10, [sent[:-1] for sent in [*pieces, b"\x7e\0"]])):
        quick = same(chunks, derived=derived)
        assert quick >= len(pieces) - 12


def test_any_size_of_chunk_is_the_same() -> None:
    whole = b"".join([*KAMSTRUP[:6], b"noise", *AIDON[:5], b"\x7e\x7e", *KAMSTRUP[6:8]])
    for size in (1, 2, 3, 16, 17, 227, 228, 229, 500):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert same(every(0.1, pieces)) >= 6
        assert same([(piece, None) for piece in pieces]) >= 6


def test_meters_share_a_shape() -> None:
    ids = [f"57065670000000{number:02}" for number in range(40)]
    pieces = [kamstrup_10s(meter_id).frame for meter_id in [*ids, *ids, *ids]]
    assert same(every(1, pieces)) == len(pieces) - 2  # two frames that teach the shape


def test_frames_that_share_a_flag() -> None:
    assert same([(KAMSTRUP[0] + b"".join(sent[1:] for sent in KAMSTRUP[1:20]), None)]) >= 17


def test_an_invoke_id_that_counts() -> None:
    at = KAMSTRUP[0].index(b"\xe6\xe7\0\x0f") + 4
    pieces = [with_check_sums(o[:at] + n.to_bytes(4, "big") + o[at + 4 :]) for n, o in enumerate(KAMSTRUP)]
    assert same(at_once(pieces)) >= 57


# What once differed


@pytest.mark.parametrize("name", ["kamstrup 10 s", "kaifa 10 s (list 2)", "kaifa hourly (list 3)"])
@pytest.mark.parametrize("clock", ["270f0c1fff17", "270f0c1fff0b", "00010101ff00", "08d60c1fff17", "08d60101ff00"])
def test_a_clock_at_the_edge_of_the_calendar(name: str, clock: str) -> None:
    far = [clocked(sent, clock) for sent in LISTS[name][30:33]]
    same(at_once([*LISTS[name][:30], *far]))
    same(every(10, [*LISTS[name][:30], *far]), derived=True)


def test_a_whole_frame_in_the_beginning_of_another_is_of_its_own_time() -> None:
    for after in (AIDON[22], b"\x01", b"\x7e"):
        same(every(10, [*AIDON[:20], AIDON[21][:30] + AIDON_1[5], after]))
        same(every(10, [*AIDON[:20], AIDON[21][:30], AIDON_1[5], after]))
        same(every(10, [*AIDON[:20], AIDON[21][:2], AIDON_1[5], after]))


def test_registers_in_an_odd_unit_tell_the_hour_all_the_same() -> None:
    def odd(sent: bytes) -> bytes:
        return with_check_sums(sent.replace(b"\x16\x1e", b"\x16\x1b").replace(b"\x16\x20", b"\x16\x1b"))

    pieces = [*AIDON[:5], *map(odd, LISTS["aidon hourly (list 3)"][:20])]
    same(at_once(pieces))
    same(every(3600, pieces))


def test_lists_without_any_time_give_no_lines_of_their_own() -> None:
    pieces = [*AIDON[:3], *AIDON_1[1:6], AIDON_1[6][:20], *AIDON_1[7:12]]
    assert same(at_once(pieces), derived=True) > 3


# What must not go the quick way


def sampled(u2: float, i2: float, turn: int = 1) -> Sample:
    return Sample(Flows(turn, 2, 3, 4), (1.5, i2, 2.5), (230, u2, 229), registers=Flows(turn, 6, 7, 8))


@pytest.mark.parametrize("meter_type", [b"MA304H3E", b"MA304T3", b"MA304H4"])
def test_zeros_of_the_three_wire_net(meter_type: bytes) -> None:
    kinds = [(0, 0), (0, 3.2), (231, 0), (231, 3.2)]
    clock = kaifa.clock(NOON, OSLO)
    meter = Identity(b"6970631400000000", meter_type)
    for first in range(4):
        order = kinds[first:] + kinds[:first]
        measured = [sampled(*kind, turn=turn) for turn in range(3) for kind in order for _ in range(3)]
        same(at_once([kaifa.list2(meter, sample, clock) for sample in measured]))
        same(at_once([kaifa.pairs(meter, sample, clock) for sample in measured]))
        same(every(10, [aidon.list2(meter, sample, aidon.E350) for sample in measured]), derived=True)


def test_a_net_of_three_wires_and_one_of_four_are_both_quick() -> None:
    three, four = (
        [aidon.list2(Identity(meter_id, b"ZF1"), sampled(u2, 0, turn), aidon.E350) for turn in range(30)]
        for meter_id, u2 in ((b"36976031", 0), (b"36976032", 231))
    )
    in_turn = [sent for both in zip(three, four, strict=True) for sent in both]
    for pieces in (three + four, four + three, in_turn):
        assert same(every(10, pieces), derived=False) >= 54


@pytest.mark.parametrize("volts", [0, 999, 1000, 1001, 65535])
def test_hundredths_of_a_volt(volts: int) -> None:
    meter, clock = Identity(b"5706567000000000", b"6841121BN243101040"), kamstrup.clock(NOON, OSLO)
    pieces = [kamstrup.list1(meter, sampled(u2, 1), clock) for u2 in [230] * 5 + [volts, 230] * 5]
    assert same(at_once(pieces)) > 10


@pytest.mark.parametrize(
    "meter_id",
    [b" " * 16, bytes(16), b'a b,c=d"e%f\\ghij', b"\xff" * 16, "æøå\u2028\u202e12345".encode(), b"5706567000000 \0 "],
)
def test_ids_of_all_sorts(meter_id: bytes) -> None:
    odd = [with_check_sums(o.replace(b"5706567000000000", meter_id)) for o in KAMSTRUP]
    assert meter_id in odd[0]
    for pieces in (odd, KAMSTRUP[:9] + odd[9:30], [o for both in zip(KAMSTRUP, odd, strict=True) for o in both]):
        same(at_once(pieces))
        same(every(10, pieces), derived=True)


def test_an_id_of_six_octets_and_an_id_that_is_a_number() -> None:
    def of(meter_id: bytes, power: int) -> bytes:
        values = [octet_string("Kamstrup_V0001"), obis("1-1:0.0.5"), meter_id, obis("1-1:1.7.0"), u32(power)]
        return built(notification(structure(*values)))

    for ids in ([octet_string("sixsix")], [octet_string(b"\x01\x01\0\0\5\xff")], [u32(7), u32(8)], [octet_string("")]):
        same(every(10, [of(ids[turn % len(ids)], turn) for turn in range(12)]))
        same(every(10, [*(of(ids[0], turn) for turn in range(4)), *KAMSTRUP[:4], of(ids[0], 5)]))


def test_two_meters_and_lists_that_name_none() -> None:
    first, second = kamstrup_10s("5706567000000001").frame, kamstrup_10s("5706567000000002").frame
    nameless = AIDON_1[1]
    pieces = [nameless, first, first, nameless, second, nameless, first, nameless, second, nameless, nameless]
    for seconds in (10, 61, 700):
        same(every(seconds, pieces * 3))
    same(at_once(pieces * 3), fallback="at home")
    same(every(10, [nameless] * 20), fallback="at home")
    same(at_once([nameless] * 20))


def test_a_clock_that_stands_still() -> None:
    same(at_once([*KAMSTRUP[:3], *[KAMSTRUP[3]] * 30]))
    same([(sent, NOON) for sent in [*KAMSTRUP[:3], *[AIDON_1[3], KAMSTRUP[3]] * 20]], derived=True)


@pytest.mark.parametrize("zone", ["Europe/Oslo", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns"])
@pytest.mark.parametrize(
    "name", ["kamstrup 10 s", "kaifa 10 s (list 2)", "aidon 10 s, Sweden", "kaifa hourly (list 3)"]
)
def test_hours_that_come_twice_or_never(zone: str, name: str) -> None:
    changes = [datetime(2024, 10, 27), datetime(2024, 3, 31), datetime(2024, 4, 7), datetime(2024, 10, 6)]  # noqa: DTZ001
    changes += [datetime(2010, 11, 6, 22), datetime(2010, 3, 13, 22)]  # noqa: DTZ001
    for change in changes:
        shown = [change + timedelta(minutes=11 * turn, seconds=turn) for turn in range(22)]
        texts = [f"{m.year:04x}{m.month:02x}{m.day:02x}ff{m.hour:02x}{m.minute:02x}{m.second:02x}" for m in shown]
        pieces = [clocked(LISTS[name][turn], text) for turn, text in enumerate(texts)]
        same(at_once([*LISTS[name][:5], *pieces]), zone=ZoneInfo(zone))
        same(every(661, pieces, change.replace(tzinfo=UTC)), zone=ZoneInfo(zone), derived=True)


def test_a_segment_of_a_longer_message() -> None:
    segment = with_check_sums(KAMSTRUP[9][:1] + bytes([KAMSTRUP[9][1] | 8]) + KAMSTRUP[9][2:])
    assert same(at_once([*KAMSTRUP[:9], segment, *KAMSTRUP[9:20], segment])) >= 16


def test_a_flag_and_a_format_within_a_frame() -> None:
    at = KAMSTRUP[9].index(bytes.fromhex("0101010700ff06")) + 7
    inner = [
        with_check_sums(o[:at] + b"\0\x7e" + bytes([0xA0 + n % 16, n]) + o[at + 4 :]) for n, o in enumerate(KAMSTRUP)
    ]
    same(at_once([*KAMSTRUP[:9], *inner]))
    same(every(10, [*KAMSTRUP[:9], *inner]))


def test_a_frame_that_is_cut_anywhere() -> None:
    for at in [*range(24), *range(24, 220, 7), *range(220, 228)]:
        same(at_once([*KAMSTRUP[:4], KAMSTRUP[9][:at]]))
        same(every(10, [*KAMSTRUP[:4], KAMSTRUP[9][:at], *KAMSTRUP[10:12]]))


def test_a_byte_that_is_another_one_anywhere() -> None:
    for flip in (1, 0xFF):
        changed = [KAMSTRUP[9][:at] + bytes([KAMSTRUP[9][at] ^ flip]) + KAMSTRUP[9][at + 1 :] for at in range(228)]
        same(at_once([*KAMSTRUP[:4], *[sent for one in changed for sent in (one, KAMSTRUP[9])]]))
        checked = [with_check_sums(sent) for sent in changed[1:225]]
        same(at_once([*KAMSTRUP[:4], *[sent for one in checked for sent in (one, KAMSTRUP[9])]]))


def test_feeding_goes_on_after_an_interruption() -> None:
    pipeline = Pipeline("x", Settings(), NoState(), HOST, purpose=Purpose.VALUES)
    for data in (*KAMSTRUP[:6], KAMSTRUP[6][:100]):
        pipeline.feed((Chunk(data, None),))
    (cut,) = pipeline.interrupted().outcomes
    assert isinstance(cut, Rejected)
    assert (cut.kind, cut.size) == (Kind.INCOMPLETE, 100)
    rows = [row for data in KAMSTRUP[7:10] for row in pipeline.feed((Chunk(data, None),)).rows]
    assert len(rows) == 3
    assert pipeline.counts.size == 9 * 228 + 100


# Hostile streams


def of_many_shapes(count: int, times: int) -> Iterator[bytes]:
    at = KAMSTRUP[0].index(b"6841121BN") + 9
    for turn in range(count * times):
        sent = KAMSTRUP[turn % 60]
        yield with_check_sums(sent[:at] + b"%09d" % (turn // times) + sent[at + 9 :])


def test_more_shapes_than_are_remembered() -> None:
    same(at_once([*of_many_shapes(70, 3), *of_many_shapes(70, 2), *KAMSTRUP]))
    same(at_once(of_many_shapes(300, 1)))


@pytest.mark.parametrize(
    "sent", [b"\x7e" * 5000, b"\x7e\xa0" * 2500, KAMSTRUP[0][:9] * 500, b"\x7e\xa7" + bytes(5000), bytes(5000)]
)
def test_noise(sent: bytes) -> None:
    same(at_once([*KAMSTRUP[:5], sent, *KAMSTRUP[5:9]]))
    same(every(10, [*KAMSTRUP[:5], sent[:2500], sent[2500:], *KAMSTRUP[5:9]]))


def test_a_float_and_a_list_of_two_identical_codes() -> None:
    code = Value(Tag.OCTET_STRING, b"\x01\0\x01\x07\0\xff")
    to = Addresses(b"\x41", b"\x08\x83", 0x13)
    for second in (
        Value(Tag.FLOAT32, 1.5),
        Value(Tag.FLOAT32, float("nan")),
        Value(Tag.UINT32, 5),
        Value(Tag.INT8, -5),
    ):
        listed = Value(Tag.STRUCTURE, (code, Value(Tag.UINT32, 7), code, second))
        said = Notification(0, None, listed)
        pieces = [frame(to, information(replace(said, invoke_id=turn))) for turn in range(8)]
        same(every(10, [*KAMSTRUP[:2], *pieces]))
