"""The exporter's own points: counters, events, the age of each meter's last reading (docs/schema.md)."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.model.point import tag, text_field

__all__ = ["event_line", "exporter_line", "reading_age_line"]


def reading_age_line(meter_id: str, age_s: float, ms: int) -> str:
    """Age of a meter's last reading, s."""
    return f"reading_age,{tag('meter_id', meter_id)} value={age_s!r} {ms}"


def exporter_line(instance: str, fields: Mapping[str, int | float], ms: int) -> str:
    """The exporter's own counters; every field a float, so that no later version changes a field's type."""
    text = ",".join(f"{name}={float(value)!r}" for name, value in sorted(fields.items()))
    return f"exporter,{tag('instance', instance)} {text} {ms}"


def event_line(instance: str, kind: str, text: str, ms: int) -> str:
    """Something that an owner may want to know; dashboards mark it on graphs."""
    return f"event,{tag('instance', instance)},{tag('kind', kind)} text={text_field(text)} {ms}"
