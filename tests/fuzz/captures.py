"""Any file as a capture, in its three forms: bytes and problems, or NotACapture, and the points of `import`."""

from __future__ import annotations

import random
import zlib
from typing import Final

from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.pipeline import NoState, Pipeline, Purpose
from exporter.sources.capture.forms import Form, NotACapture
from exporter.sources.capture.reader import BLOCK, CaptureParser
from exporter.sources.contract import Chunk
from tests.fuzz.stream import SETTINGS, kept, slices

_MOST_WAITING: Final = 1 << 17
_PROBLEMS: Final = 100


def run(content: bytes) -> None:
    """Read it at once and in pieces."""
    whole = parsed([content[at : at + BLOCK] for at in range(0, len(content), BLOCK)])
    pieces = slices(content) if random.Random(zlib.crc32(content)).random() < 0.5 else [content]
    parsed(pieces)
    pipeline = Pipeline("fuzz", SETTINGS, NoState(), HostClock(), purpose=Purpose.IMPORT)
    kept([pipeline.feed(whole), pipeline.interrupted(), pipeline.end()])


def parsed(pieces: list[bytes]) -> list[Chunk]:
    """The chunks of a file that is read in these pieces; none if it is not a capture."""
    parser, chunks = CaptureParser(), list[Chunk]()
    length = sum(map(len, pieces))
    try:
        for piece in pieces:
            chunks += parser.feed(piece)
            assert len(parser._rest) <= _MOST_WAITING + len(piece)
        chunks += parser.end()
    except NotACapture as error:
        assert error.what
        assert len(error.what) < 300
        return []
    assert parser.form is not None or not chunks
    assert len(parser.problems) == min(parser.damaged, _PROBLEMS)
    for problem in parser.problems:
        assert problem.line >= 1
        assert str(problem).isprintable(), str(problem)
    assert sum(len(chunk.data) for chunk in chunks) <= length
    assert all(chunk.data for chunk in chunks)
    if parser.form is Form.STAMPED:
        assert all(chunk.received is not None for chunk in chunks)
    return chunks
