"""Hours, days and the month beside the bill."""
