"""What `watch` shows: the state of a source and its meters, and how it looks in a terminal."""
