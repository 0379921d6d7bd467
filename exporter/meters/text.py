"""Names that a meter sends, made safe once: in a tag of line protocol, in a log line, on a terminal."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Final

MAX_LENGTH: Final = 128
_ESCAPED: Final = frozenset("\\%")
# control, format (bidirectional overrides), line and paragraph separators: each can rewrite a log line
_ESCAPED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Zl", "Zp"})


def safe_text(octets: bytes) -> str | None:
    """Make an id, a type or a list name safe; None when nothing is left.

    Trailing blanks and NULs go. Control characters, backslash, % and octets that are not UTF-8 become %XX, one for each
    octet. What is longer than 128 characters is cut there and gets `~` and a hash of the whole, so that two long
    ids stay two.
    """
    octets = octets.rstrip(b" \x00")
    if octets.isalnum():  # every real meter's
        text = octets.decode("ascii")
    else:
        text = "".join(_safe(character) for character in octets.decode("utf-8", "surrogateescape"))
    if len(text) > MAX_LENGTH:
        text = f"{text[:MAX_LENGTH]}~{hashlib.sha256(octets).hexdigest()[:12]}"
    return text or None


def _safe(character: str) -> str:
    if 0xDC80 <= ord(character) <= 0xDCFF or (
        character in _ESCAPED or unicodedata.category(character) in _ESCAPED_CATEGORIES
    ):
        return "".join(f"%{octet:02X}" for octet in character.encode("utf-8", "surrogateescape"))
    return character
