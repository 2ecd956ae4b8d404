"""A trial: what is asked of a worker process, what it measured, how it ended."""
