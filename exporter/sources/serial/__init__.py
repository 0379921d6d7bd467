"""A meter on a serial port, local or of another machine."""
