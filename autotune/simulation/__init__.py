"""Simulated machines with known truth; running the real pipeline on them validates the method."""
