"""Imagined machines with a known truth, and the real pipeline run on them: how the method is held to its word."""
