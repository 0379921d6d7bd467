"""What is fuzzed, its first inputs, and how inputs are changed. Modules of the product are imported late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

from tests.fuzz import mutate
from tests.support.octets import all_frames, frames_of

KEPT: Final = Path(__file__).parent / "kept"
"""A folder for each target: the inputs that found a fault."""

_STAMP: Final = "2026-11-22T17:00:{:02}.123Z {}"
_SETTINGS: Final = (
    b"source=sim:kamstrup?seed=1&speed=2\nlog_level=debug\n---\n",
    b"source=/dev/ttyUSB0?parity=E&baud=2400&bits=8&stop=1 socket://10.0.0.5:2001 rfc2217://gw:1 file:x?pace=1\n---\n",
    b'outbox_max=500M\n---\ntimezone = "Europe/Oslo"\ncapacity_steps_kw = "2,5,10"\n',
    b"influx_url=http://localhost:8086\ninflux_token=x\ninstance=box\nmeter_id=5\nmain_fuse_a=63\n---\n",
    b'influx_token_file=/tmp/none\n---\n[meter."5706567100012345"]\nmain_fuse_a = 25\nlimit_hour_wh = 10000\n',
    b'---\nvoltage_min = 207.5\nvoltage_max = 253\noutbox_max = 2000000\ninflux_token_file = "t"\n',
)
_DAMAGES: Final = (
    b"\0",
    b"\1",
    b"\2\3\0\0\x05\0\0\0\0\0",
    b"\3\2\1\0\4\0\0\x20\0\0",
    b"\1\0\0\0\0\0\x40\xff\0\0",
    b"\0\2\0\0\3\0\0\xff\0\0",
    b"\4\4\0\0\3\0\0\2\0\0",
)


@dataclass(frozen=True)
class Target:
    """`module` of this package has `run`; `most` is the size of the longest input."""

    module: str
    change: mutate.Mutator
    first: Callable[[], list[bytes]]
    most: int

    def load(self) -> Callable[[bytes], None]:
        """The function that is called with an input. It raises an error for what must never happen."""
        run: Callable[[bytes], None] = import_module(f"tests.fuzz.{self.module}").run
        return run


def _streams() -> list[bytes]:
    frames = all_frames()
    return [*frames, b"".join(frames[:3]), b"".join(frames[-3:]), b"\x7e" * 5, frames[0][:40]]


def _captures() -> list[bytes]:
    forms = []
    for name in ("kaifa-3phase-norway", "kamstrup-1phase-norway", "aidon-3phase-norway"):
        frames = frames_of(name)[:3]
        forms.append(b"".join(frames))
        forms.append(("# a capture\n" + "\n".join(data.hex() for data in frames) + "\n").encode())
        forms.append(" ".join(f"0x{byte:02X}," for byte in frames[0]).encode())
        forms.append("\n".join(_STAMP.format(n * 10, data.hex().upper()) for n, data in enumerate(frames)).encode())
    return forms


TARGETS: Final = {
    "stream": Target("stream", mutate.framed, _streams, 4500),
    "captures": Target("captures", mutate.capture, _captures, 4500),
    "settings": Target("settings", mutate.text, lambda: list(_SETTINGS), 20_000),
    "outbox": Target("outbox", mutate.damage, lambda: list(_DAMAGES), 400),
}


def kept(name: str) -> list[bytes]:
    """The inputs that found a fault in a target."""
    return [file.read_bytes() for file in sorted((KEPT / name).glob("*")) if file.is_file()]
