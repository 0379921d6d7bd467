"""Lines of time-stamped hex, in any slicing: reading them quickly gives the same as the slow way, which defines it."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from exporter.sources.capture.forms import NotACapture
from exporter.sources.capture.reader import CaptureParser, Problem
from exporter.sources.contract import Chunk

START = "2026-11-22T17:00:00.000Z 7EA0E2\n"
"""Makes a file this form, whatever follows."""

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (its zone is written by hand)

STAMPS = (
    "2026-11-22T17:00:10.123Z",
    "1969-12-31T23:59:59.999Z",
    "1970-01-01T00:00:00.000Z",
    "1970-W01-1T00:00:00.0000Z",
    "1970-W01-1T00:00:00.000Z",
    "1971-W01-1T00:00:00.000Z",
    "2261-12-31T23:59:59.999Z",
    "2261-W52-7T23:59:59.999Z",
    "2262-01-01T00:00:00.000Z",
    "2262-W01-1T00:00:00.000Z",
    "9999-12-31T23:59:59.999Z",
    "0001-01-01T00:00:00.000Z",
    "2026-11-22t17:00:10.123z",
    "2026-11-22 17:00:10.123Z",
    "2026-11-22T17:00:10.123",
    "2026-11-22T17:00:10.12+Z",
    "2026-11-22T17:00:1+01:0Z",
    "2026-11-22T17:00:10,123Z",
    "2026-11-22T24:00:00.000Z",
    "2026-11-31T00:00:00.000Z",
    "2026-02-29T23:59:60.000Z",
    "2026-11-22T18:00:10.123+01:00",
    "２０２６-11-22T17:00:10.123Z",
    "2026-11-2２T17:00:10.123Z",
    "20261122T170010.1230000Z",
)
BYTES = (
    "7EA0E2",
    "7ea0e2",
    "7e A0\tE2",
    "7EA",
    "",
    " ",
    "7EA0 # meter",
    "#",
    "0x7E,0xA0",
    "7E:A0",
    "7EG0",
    "７E",
    "\0",
    "7E\xa0",
)
ENDS = ("\n", "\r\n", " \n", "\x1c\n", "\x85\n", "\n\n", "\v\n", "\ufeff\n")

exact = st.builds(
    lambda seconds, data: f"{(EPOCH + timedelta(seconds=seconds)).isoformat(timespec='milliseconds')}Z {data.hex()}",
    st.integers(-10, 9_214_646_400 + 10),
    st.binary(max_size=20),
)
odd = st.builds(
    "{}{}{}".format, st.sampled_from(STAMPS), st.sampled_from((" ", "  ", "\t", "", " \t")), st.sampled_from(BYTES)
)
lines = st.builds(
    "{}{}{}".format,
    st.sampled_from(("", "", "", " ", "\ufeff", "# ", "\r")),
    exact | odd | st.sampled_from(BYTES) | st.text(max_size=40),
    st.sampled_from(("\n", *ENDS)),
)


@st.composite
def captures(draw: st.DrawFn) -> bytes:
    text = "".join(draw(st.lists(lines, max_size=8))).encode("utf-8", "surrogatepass")
    damage = draw(st.lists(st.tuples(st.integers(0, max(0, len(text) - 1)), st.integers(0, 255)), max_size=3))
    data = bytearray(text)
    for place, byte in damage:
        data[place : place + 1] = bytes([byte])
    return bytes(data).removesuffix(b"\n") if draw(st.booleans()) else bytes(data)


class Slowly(CaptureParser):
    """Reads no line quickly."""

    def _read_stamped(self, lines: list[str]) -> list[Chunk]:
        chunks = []
        for line in lines:
            self._line += 1
            chunks += self._join_lines(line.lstrip("\ufeff"))
        return chunks


def read(parser: CaptureParser, pieces: list[bytes]) -> tuple[list[Chunk], list[Problem], int, str]:
    chunks, end = [], ""
    try:
        for piece in pieces:
            chunks += parser.feed(piece)
        chunks += parser.end()
    except NotACapture as error:
        end = error.what
    return chunks, parser.problems, parser.damaged, end


@given(capture=captures(), begins=st.sampled_from(("", START)), cuts=st.lists(st.integers(0, 400), max_size=4))
def test_the_quick_way_reads_every_line_as_the_slow_way(capture: bytes, begins: str, cuts: list[int]) -> None:
    capture = begins.encode() + capture
    places = [0, *sorted(cuts), len(capture)]
    pieces = [capture[start:end] for start, end in pairwise(places)]
    quick = read(CaptureParser(), pieces)
    assert quick == read(Slowly(), pieces)
    assert all(chunk.received is None or chunk.received.tzinfo is UTC for chunk in quick[0])


def test_the_usual_line_is_read_quickly() -> None:
    class Quickly(CaptureParser):
        def _join_lines(self, line: str) -> list[Chunk]:
            assert not line, f"{line!r} was read slowly"
            return []

    text = START + "2026-11-22T17:00:10.123Z 7ea0e2\r\n"
    chunks = read(Quickly(), [text.encode()])[0]
    assert [chunk.data for chunk in chunks] == [bytes.fromhex("7EA0E2")] * 2
