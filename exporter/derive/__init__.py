"""What is derived from readings: pure calculations, and the state that they need."""
