"""The one way from a chunk of bytes to points and state."""
