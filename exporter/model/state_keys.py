"""What the keys of the state mean: which meter an entry is about."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["meter_of", "meters_of", "state_of"]


def meter_of(key: str, value: str) -> str | None:
    """The meter that an entry of the state is about; None for one of another kind.

    Keys: `last_id:STREAM` (pipeline/identity.py; the meter is its value), `clock:METER` (pipeline/clock_rules.py),
    `running:DIRECTION:METER` (derive/derivations.py), `registers:` and `imported:METER:DIRECTION:MONTH`
    (derive/hours.py).
    """
    kind, _, rest = key.partition(":")
    if kind == "last_id":
        return value
    if kind == "clock":
        return rest
    if kind == "running":
        return rest.partition(":")[2]
    if kind in ("registers", "imported"):
        return rest.rsplit(":", 2)[0]
    return None


def state_of(state: Mapping[str, str], meter_id: str) -> list[str]:
    """The keys of the entries that are about a meter."""
    return [key for key, value in state.items() if meter_of(key, value) == meter_id]


def meters_of(state: Mapping[str, str]) -> set[str]:
    """The meters that a state knows."""
    return {meter_id for key, value in state.items() if (meter_id := meter_of(key, value))}
