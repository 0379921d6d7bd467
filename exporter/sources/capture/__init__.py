"""Captures: recorded bytes, in the forms in which programs write them."""
