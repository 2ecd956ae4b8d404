"""Reading a space once: its document, knobs and domains, the plan, limits and moves."""
