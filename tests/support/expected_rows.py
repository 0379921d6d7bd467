"""What the product reads in a frame, written as a row of expected.json."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from exporter.model.obis import describe
from exporter.model.reading import Measurement, Reading
from exporter.pipeline.decoder import Decoded
from tests.e2e.truth import read
from tests.support.pipeline import Reader

Row = dict[str, Any]


def row_of(reading: Reading) -> Row:
    """A reading as a row; what it does not say has no key."""
    row: Row = {_key_of(m): m.value for m in reading.measurements}
    row |= {"maker": reading.meter.maker, "meter_id": reading.meter.id, "meter_type": reading.meter.type}
    if reading.clock is not None:
        row["clock_utc"] = reading.clock.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {key: value for key, value in row.items() if value is not None}


def row_of_frame(data: bytes) -> Row:
    """A whole frame as a row."""
    return row_of(read(data))


def said(row: Row) -> Row:
    """A row of expected.json without the keys of which that frame alone says nothing."""
    return {key: value for key, value in row.items() if value is not None}


def rows_of_stream(pieces: Iterable[bytes]) -> list[Row]:
    """The rows of a stream that comes in these pieces."""
    intake = Reader()
    outcomes = [outcome for piece in pieces for outcome in intake.feed(piece)] + intake.end()
    return [row_of(outcome.reading) for outcome in outcomes if isinstance(outcome, Decoded)]


def _key_of(measurement: Measurement) -> str:
    quantity = describe(measurement.obis)
    assert quantity is not None
    assert quantity.unit == measurement.unit
    parts = [quantity.name, quantity.direction, quantity.phase.lower()]
    return "_".join(part for part in parts if part)
