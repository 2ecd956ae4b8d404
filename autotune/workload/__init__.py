"""Workloads: the protocol, the built-in GPT, and search spaces bound to a workload."""
