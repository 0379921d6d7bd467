"""A meter on a serial port, or behind a serial server."""
