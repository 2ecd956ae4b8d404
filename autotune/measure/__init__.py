"""Measurement: sessions run side by side in alternating slices; every result is stored before the next step."""
