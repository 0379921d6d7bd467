"""Where points go: the writer that empties the outbox, and the databases that it writes to."""
