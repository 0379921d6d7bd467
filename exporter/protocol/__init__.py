"""Octets -> values. Sans-I/O: no socket, file, clock or thread is imported here."""
