"""Measuring: sessions side by side, slices in turn, every result kept before anything else happens."""
