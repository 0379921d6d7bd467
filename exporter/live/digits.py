"""Numbers that are three terminal lines high, made of half blocks."""

from __future__ import annotations

from typing import Final

__all__ = ["big_number"]

# Each digit has five rows of dots; two rows fit into a terminal line.
_DOTS: Final = {
    "0": ("###", "# #", "# #", "# #", "###"),
    "1": (" # ", "## ", " # ", " # ", "###"),
    "2": ("###", "  #", "###", "#  ", "###"),
    "3": ("###", "  #", "###", "  #", "###"),
    "4": ("# #", "# #", "###", "  #", "  #"),
    "5": ("###", "#  ", "###", "  #", "###"),
    "6": ("###", "#  ", "###", "# #", "###"),
    "7": ("###", "  #", "  #", "  #", "  #"),
    "8": ("###", "# #", "###", "# #", "###"),
    "9": ("###", "# #", "###", "  #", "###"),
    "-": ("   ", "   ", "###", "   ", "   "),
    " ": (" ", " ", " ", " ", " "),
}
_HALVES: Final = {"  ": " ", "# ": "▀", " #": "▄", "##": "█"}


def big_number(text: str) -> list[str]:
    """The three lines for digits, blanks and minus signs. Raises KeyError for any other character."""
    rows = [" ".join(_DOTS[character][row] for character in text) for row in range(5)]
    rows.append(" " * len(rows[0]))
    return ["".join(_HALVES[a + b] for a, b in zip(*rows[at : at + 2], strict=True)) for at in (0, 2, 4)]
