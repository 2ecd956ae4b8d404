"""A study on disk: its folder, its clock and stages, what it tells while it runs."""
