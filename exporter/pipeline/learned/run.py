"""What is handed from who reads ahead (`ahead.Ahead`) to who has heard what was before (`Lines.take`)."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.pipeline.placing import Run

__all__ = ["ReadAhead"]


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """Frames of known shapes behind one another, and their lines as they are if `lists` can be placed so.

    They stand at `start` of a piece of the file, `size` octets of it long, over `rows` rows of text (raw: 0); `octets`
    are those of the frames. `stamped` tells that a time stamp in the file timed them.
    """

    lists: Run
    start: int
    size: int
    rows: int
    octets: int
    frames: int
    stamped: bool
    texts: list[str]
