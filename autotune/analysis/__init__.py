"""From records to conclusions: pure functions of numbers. No I/O, no clock, no hidden randomness."""
