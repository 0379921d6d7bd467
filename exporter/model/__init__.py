"""What the packages of this product pass to each other: readings, OBIS codes, the calendar, points.

Nothing here imports another package of this product.
"""
