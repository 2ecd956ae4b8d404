"""The stages of a search, one file each, in the order in which `autotune.search` calls them."""
