"""Names that a meter sends, made safe for a tag in line protocol, for a log line and for a terminal."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Final

MAX_LENGTH: Final = 128
_ESCAPED: Final = frozenset("\\%")
# control, format (bidirectional overrides), line and paragraph separators: each can rewrite a log line
_ESCAPED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Zl", "Zp"})


def safe_text(name: bytes) -> str | None:
    """Make an id, a type or a list name safe; None if nothing is left.

    Blanks and NULs at the end are removed. Control characters, backslash, % and bytes that are not UTF-8 become %XX,
    one for each byte. A text longer than 128 characters is cut there and gets `~` and a hash of the whole text, so
    that two long ids stay different.
    """
    name = name.rstrip(b" \x00")
    if name.isalnum():  # the names of all known meters
        text = name.decode("ascii")
    else:
        text = "".join(_safe(character) for character in name.decode("utf-8", "surrogateescape"))
    if len(text) > MAX_LENGTH:
        text = f"{text[:MAX_LENGTH]}~{hashlib.sha256(name).hexdigest()[:12]}"
    return text or None


def _safe(character: str) -> str:
    if 0xDC80 <= ord(character) <= 0xDCFF or (
        character in _ESCAPED or unicodedata.category(character) in _ESCAPED_CATEGORIES
    ):
        return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
    return character
