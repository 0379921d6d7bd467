"""(b) The same bytes by other projects' decoders, as ratios: `pip install 'han-exporter[benchmarks]'`.

amshan and smartmeter-datacollector decode bytes to a meter's values. dlms-cosem decodes the information field of a
frame to the values in it, which is what readers of such meters use it for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Final, NamedTuple

from tests.benchmarks import frames
from tests.benchmarks.figures import Effort, Figure, together
from tests.benchmarks.paths import bytes_to_lines

AMSHAN_AIM: Final = 100
_HINT: Final = "not installed: pip install 'han-exporter[benchmarks]'"


class Other(NamedTuple):
    """A project. `reads` returns from how many frames it got values; `informations`: it takes no whole frames."""

    name: str
    distribution: str
    reads: Callable[[Sequence[bytes]], int]
    informations: bool = False
    aim: float | None = None


def _amshan(frames: Sequence[bytes]) -> int:
    # A new reader for each run; a chunk for each frame, as a port gives them.
    reader, decoder = import_module("han.hdlc").HdlcFrameReader(), import_module("han.autodecoder").AutoDecoder()
    return sum(
        decoder.decode_message(frame) is not None for chunk in frames for frame in reader.read(chunk) if frame.is_valid
    )


def _dlms_cosem(fields: Sequence[bytes]) -> int:
    notification = import_module("dlms_cosem.protocol.xdlms.data_notification").DataNotification
    parse = import_module("dlms_cosem.utils").parse_as_dlms_data
    return sum(bool(parse(notification.from_bytes(field[3:]).body)) for field in fields)


def _datacollector(frames: Sequence[bytes]) -> int:
    parsing = import_module("smartmeter_datacollector.smartmeter.hdlc_dlms_parser")
    cosem = import_module("smartmeter_datacollector.smartmeter.cosem").Cosem("benchmark")
    parser, read = parsing.HdlcDlmsParser(cosem), 0
    for frame in frames:
        parser.append_to_hdlc_buffer(frame)
        if parser.extract_data_from_hdlc_frames():
            moment, objects = parser.extract_message_time(), parser.parse_to_dlms_objects()
            read += bool(objects) and bool(parser.convert_dlms_bundle_to_reader_data(objects, moment).data_points)
    return read


OTHERS: Final = (
    Other("amshan", "amshan", _amshan, aim=AMSHAN_AIM),
    Other("dlms-cosem (Data-Notification alone)", "dlms-cosem", _dlms_cosem, informations=True),
    Other("smartmeter-datacollector", "smartmeter-datacollector", _datacollector),
)


def run(effort: Effort) -> Iterator[Figure]:
    """All of (b): the makers' main lists; the aim is for the Kamstrup 10 s list."""
    for case in frames.CASES:
        if case.main:
            for other in OTHERS:
                yield from _of(other, case, effort)


def _of(other: Other, case: frames.Case, effort: Effort) -> Iterator[Figure]:
    sent = frames.frames(case, effort.of(10_000, 20_000))
    name, some = f"{case.name}: times {other.name}", sent[: effort.of(200, 500)]
    given = list(frames.informations(some)) if other.informations else some
    try:
        which = version(other.distribution)
        read = other.reads(given[:10])
    except ImportError:
        yield Figure(name, None, "x", note=_HINT)
        return
    except Exception as error:  # noqa: BLE001 - another project can fail in any way
        yield Figure(name, None, "x", note=f"it cannot read this list ({type(error).__name__})")
        return
    if read < 10:
        yield Figure(name, None, "x", note="it cannot read this list")
        return
    theirs, ours = together(
        partial(other.reads, given), partial(bytes_to_lines, b"".join(sent)), least_s=1.0, patience_s=6.0
    )
    theirs_s = theirs.best / len(given)
    aim = other.aim if case == frames.KAMSTRUP else None
    note = f"{which}: {theirs_s * 1e6:.0f} us a frame"
    yield Figure(name, theirs_s / ours.best * len(sent), "x", aim, note=note, compared=True)
