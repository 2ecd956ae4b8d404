"""Search spaces shipped with autotune, as TOML. Copy one and edit it."""
