"""Captures that owners of meters published. They are not ours to pass on, so they are not in this repository.

They are read from the folder that HAN_TEST_CAPTURES names, else from ../shared/captures beside this checkout. A test
that needs them is marked with `needed`: it is skipped where there is no such folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import octets

_BESIDE: Final = Path(__file__).resolve().parents[3] / "shared" / "captures"
FOLDER: Final = Path(os.environ.get("HAN_TEST_CAPTURES") or _BESIDE)
THERE: Final = (FOLDER / "expected.json").is_file()
needed = pytest.mark.skipif(
    not THERE,
    reason="the real captures are not here: neither HAN_TEST_CAPTURES nor ../shared/captures is a folder that has them",
)


def names() -> list[str]:
    """The names of the real captures; where they are not there, of the captures that have the same forms."""
    return sorted(octets.expected(FOLDER) if THERE else octets.expected())


def expected() -> dict[str, list[dict[str, Any]]]:
    """Capture name -> what each of its frames says."""
    return octets.expected(FOLDER)


def frames_of(name: str) -> list[bytes]:
    """The frames of a real capture."""
    return octets.frames_of(name, FOLDER)


def list_with_hidden_id(meter_id: str) -> bytes:
    """The Kamstrup list whose owner wrote XX for the meter id: with this id in its place, and the FCS that fits it."""
    text = (FOLDER / "published-kamstrup-10s.txt").read_text()
    data = bytes.fromhex(text.replace("XX " * 16, meter_id.encode().hex()))
    body = data[1:-3]
    return b"\x7e" + body + octets.crc_x25(body) + b"\x7e"
