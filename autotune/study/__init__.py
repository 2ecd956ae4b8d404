"""A study on disk: its folder, its clock and stages, and the events of a running search."""
