"""The machine: what it has, and what a configuration will ask of it."""
