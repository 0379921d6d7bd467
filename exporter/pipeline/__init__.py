"""The one way from a chunk of bytes to points and state."""

from exporter.derive.running_hour import HourSoFar

__all__ = ["HourSoFar"]
