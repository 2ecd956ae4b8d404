"""Faults that `benchmarks/faults.py` injects, one module for each kind."""
