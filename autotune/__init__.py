"""autotune finds the GPT pretraining configuration with the best return on investment, and proves it.

The public API is `autotune.api`:

>>> from autotune import api
>>> finished = api.search("search_spaces/quickstart.toml")  # doctest: +SKIP
>>> finished.recommendation.verdict  # doctest: +SKIP
"""
