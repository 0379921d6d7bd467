"""Hours, days and the month, to compare with the bill."""
