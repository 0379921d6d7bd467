"""What `run` is: threads, signals, the order of stopping, own metrics, status."""
