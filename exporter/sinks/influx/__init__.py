"""InfluxDB 1.8, 2 and 3: writing to it, asking it, preparing a fresh one."""

from exporter.sinks.influx.client import Client, Outcome, QueryError, Series, Verdict
from exporter.sinks.writer import Writer, WriterStatus

__all__ = ["Client", "Outcome", "QueryError", "Series", "Verdict", "Writer", "WriterStatus"]
