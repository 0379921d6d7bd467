"""The 3-wire IT net (230 V between phases): two meters send 0 for what they do not measure there."""

from __future__ import annotations

from typing import Final

from exporter.model.reading import Measurement

U2: Final = (52, 7, 0)
I2: Final = (51, 7, 0)


def without_unmeasured(measurements: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
    """Leave out U2 if it is 0, and then I2 too if that is 0.

    With Kaifa MA304H3E and Landis+Gyr E350, U2 = 0 says that the net has 3 wires. With any other meter 0 is a value.
    """
    zeros = {m.obis[2:5] for m in measurements if m.value == 0}
    if U2 not in zeros:
        return measurements
    return tuple(m for m in measurements if not (m.obis[2:5] in (U2, I2) and m.value == 0))
