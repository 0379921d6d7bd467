"""A household and the octets its meter would send: for `sim:` and for tests.

sample.py what a list says · household.py and loads.py what there is to measure · kamstrup.py, aidon.py, kaifa.py and
encoder.py values to octets · meter.py which frame when · serve.py octets at the pace of a wire.
"""
