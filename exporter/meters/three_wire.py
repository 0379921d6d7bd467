"""The 3-wire IT net (230 V between phases) as two meters show it: by zeros where they do not measure."""

from __future__ import annotations

from typing import Final

from exporter.model.reading import Measurement

U2: Final = (52, 7, 0)
I2: Final = (51, 7, 0)


def without_unmeasured(measurements: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
    """Leave out U2 if it is 0, and then I2 too if that is 0.

    On Kaifa MA304H3E and Landis+Gyr E350, U2 = 0 marks a 3-wire net; on every other meter 0 is a value (design.md,
    "meters").
    """
    zeros = {m.obis[2:5] for m in measurements if m.value == 0}
    if U2 not in zeros:
        return measurements
    return tuple(m for m in measurements if not (m.obis[2:5] in (U2, I2) and m.value == 0))
