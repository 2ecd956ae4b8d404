"""Reading a space once: what may be turned, over which values, for which plan."""
