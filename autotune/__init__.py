"""autotune finds the GPT pretraining configuration with the best return on investment, and proves it.

>>> import autotune
>>> finished = autotune.search("search_spaces/quickstart.toml", study="mine", budget_seconds=600)  # doctest: +SKIP
>>> finished.recommendation.verdict  # doctest: +SKIP
<Verdict.ADOPT: 'adopt'>
>>> trials = autotune.load_study("mine")  # doctest: +SKIP
>>> [study.name for study in autotune.studies()]  # doctest: +SKIP
['mine']

Importing it takes no time: what a search needs is imported when one is started. More is in `autotune.api`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from autotune.api import Finished
    from autotune.executors.base import Executor
    from autotune.study.events import Listener
    from autotune.study.listing import StudySummary

__all__ = ["load_study", "resume", "search", "studies"]
__version__: str  # read from the installed package when it is asked for

_ROOT = "reports"


def search(
    space_path: Path | str,
    *,
    data: str = "",
    study: str = "",
    budget_seconds: float = 0.0,
    root: Path | str = _ROOT,
    executor: str | Executor = "local",
    listeners: Sequence[Listener] = (),
) -> Finished:
    """Search the space in the TOML file at `space_path`, or go on with the study of that name.

    Args:
        space_path: the space.
        data: a text instead of the space's own: a file, folder, glob or `.jsonl`, or `stdlib`.
        study: the study's name; the space's name where empty.
        budget_seconds: a cap on everything together instead of the space's own.
        root: the folder of all studies.
        executor: where trials run: a name of `autotune.executors.EXECUTORS`, or an executor of your own.
        listeners: told of every event (`autotune.study.events`).

    Raises:
        autotune.errors.AutotuneError: see there for the kinds.
    """
    from autotune import api

    return api.search(
        space_path,
        data=data,
        study=study,
        budget_seconds=budget_seconds,
        root=root,
        executor=executor,
        listeners=listeners,
    )


def resume(
    study: str,
    *,
    fork: str = "",
    space_path: Path | str = "",
    budget_seconds: float = 0.0,
    root: Path | str = _ROOT,
    executor: str | Executor = "local",
    listeners: Sequence[Listener] = (),
) -> Finished:
    """Go on with a study from wherever it stands; a finished one gives its recommendation again.

    Args:
        study: the study's name.
        fork: the name of a new study to start instead, which tries the best trials of `study` first.
        space_path: the space of the fork; the one in the folder of `study` where empty.
        budget_seconds: a larger budget, or that of the fork.
        root: the folder of all studies.
        executor: where trials run: a name of `autotune.executors.EXECUTORS`, or an executor of your own.
        listeners: told of every event (`autotune.study.events`).

    Raises:
        autotune.errors.AutotuneError: see there for the kinds.
    """
    from autotune import api

    return api.resume(
        study,
        fork=fork,
        space_path=space_path,
        budget_seconds=budget_seconds,
        root=root,
        executor=executor,
        listeners=listeners,
    )


def load_study(study: str, *, root: Path | str = _ROOT) -> pd.DataFrame:
    """The trials of a study as a table: one row a trial, a column a knob. It neither locks nor changes the study.

    Raises:
        autotune.errors.AutotuneError: there is no such study, or it cannot be read.
    """
    from autotune import api

    return api.load_study(study, root=root)


def studies(root: Path | str = _ROOT) -> list[StudySummary]:
    """All studies under `root`, by name, with their state, space and time of creation."""
    from autotune.study import listing

    return listing.studies(root)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("autotune")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Package(ModuleType):
    """Keeps `autotune.search` the function.

    Importing a submodule sets it as an attribute of its package. `autotune/search/` would so take the place of the
    function as soon as a search is started. Modules of that folder are imported as `from autotune.search.race import
    race`, which needs no such attribute.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
