"""Bytes -> messages -> values. Sans-I/O: nothing here uses a socket, a file, a clock, a thread or a log."""
