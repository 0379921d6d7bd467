"""Captures: recorded bytes, in the forms that programs write them."""
