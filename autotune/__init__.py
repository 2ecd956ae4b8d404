"""autotune finds the GPT pretraining configuration with the best return on investment, and proves it.

>>> import autotune
>>> finished = autotune.search("search_spaces/quickstart.toml")
>>> finished.recommendation.verdict
"""
