"""Frames of a known shape, read quickly.

A meter repeats a handful of shapes: only numbers, clock, id and check sum differ. A shape is learned from a frame that
went the slow way (decoder.py, derive/points.py), which stays the definition: what is written here is what the slow way
would have written, for every input. What a shape cannot say goes the slow way: damage, a shape not seen twice, a clock
that needs a look at the calendar.
"""

from exporter.pipeline.learned.table import Learned, Ready, Table

__all__ = ["Learned", "Ready", "Table"]
