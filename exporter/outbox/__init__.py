"""The durable queue: rows on their way to a sink, and the state that points are derived from."""
