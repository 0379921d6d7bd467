"""A household and the bytes its meter would send: for `sim:` and for tests.

household.py and loads.py have what a meter measures, sample.py what a list says. kamstrup.py, aidon.py, kaifa.py and
encoder.py make bytes of it. meter.py says which frame is sent when, serve.py writes bytes at the pace of a wire.
"""
