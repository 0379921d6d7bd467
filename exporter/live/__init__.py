"""What `watch` shows: the state of what was heard, and its picture in a terminal."""
