"""InfluxDB 1.8, 2 and 3: writing to it, asking it, preparing a fresh one."""
