"""autotune finds the GPT pretraining configuration with the best return on investment, and proves it.

>>> import autotune
>>> finished = autotune.search("search_spaces/quickstart.toml", study="mine", budget_seconds=600)  # doctest: +SKIP
>>> finished.recommendation.verdict  # doctest: +SKIP
<Verdict.CLAIMED: 'claimed'>
>>> trials = autotune.load_study("mine")  # doctest: +SKIP
>>> [study.name for study in autotune.studies()]  # doctest: +SKIP
['mine']

Importing it is fast: what a search needs is imported when one starts. See `autotune.api` for more.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from autotune.analysis.look import Looked
    from autotune.api import Finished
    from autotune.executors.base import Executor
    from autotune.study.events import Listener
    from autotune.study.listing import StudySummary

__all__ = ["load_study", "look", "resume", "search", "studies"]
__version__: str  # read from the installed package on access

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
    baseline_log: Path | str = "",
) -> Finished:
    """Search the space in the TOML file at `space_path`, or continue the study of that name.

    Args:
        space_path: the space file.
        data: a corpus that replaces the space's own: a file, folder, glob or `.jsonl`, or `stdlib`.
        study: the study's name; by default the space's name.
        budget_seconds: a cap on the whole search that replaces the space's own.
        root: the folder of all studies.
        executor: where trials run: a name from `autotune.executors.EXECUTORS`, or your own executor.
        listeners: called with every event (`autotune.study.events`).
        baseline_log: the log of a run of the plan with the baseline, to compare the first run with (see `look`).

    Raises:
        autotune.errors.AutotuneError: its subclasses are the kinds of failure.
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
        baseline_log=baseline_log,
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
    baseline_log: Path | str = "",
) -> Finished:
    """Continue a study where it stopped; a finished study returns its recommendation again.

    Args:
        study: the study's name.
        fork: the name of a new study to start, which tries the best configurations of `study` first.
        space_path: the fork's space; by default the `space.toml` of `study` as it is now.
        budget_seconds: replaces the study's budget, or the fork's.
        root: the folder of all studies.
        executor: where trials run: a name from `autotune.executors.EXECUTORS`, or your own executor.
        listeners: called with every event (`autotune.study.events`).
        baseline_log: the log of a run of the plan with the baseline, to compare the first run with (see `look`).

    Raises:
        autotune.errors.AutotuneError: its subclasses are the kinds of failure.
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
        baseline_log=baseline_log,
    )


def look(
    study: str,
    log: Path | str,
    *,
    baseline_log: Path | str = "",
    root: Path | str = _ROOT,
    executor: str | Executor = "local",
) -> Looked:
    """What run 1 of the plan, with the configuration to try, decides for the other runs.

    `log` is that run's. It is compared with the baseline's run: `baseline_log`, or the log given to the search.

    Raises:
        autotune.errors.AutotuneError: its subclasses; BadInput if a log cannot be used, or there is nothing to decide.
    """
    from autotune import api

    return api.look(study, log, baseline_log=baseline_log, root=root, executor=executor)


def load_study(study: str, *, root: Path | str = _ROOT) -> pd.DataFrame:
    """The trials of a study as a table: a row per trial, a column per knob. The study is neither locked nor changed.

    Raises:
        autotune.errors.AutotuneError: there is no such study, or it cannot be read.
    """
    from autotune import api

    return api.load_study(study, root=root)


def studies(root: Path | str = _ROOT) -> list[StudySummary]:
    """All studies under `root`, by name, damaged ones included. No study is locked or changed."""
    from autotune.study import listing

    return listing.studies(root)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("autotune")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Package(ModuleType):
    """Keeps `autotune.search` the function.

    Importing a submodule sets it as an attribute of its package, so `autotune/search/` would replace the function as
    soon as a search starts. Modules in that folder are imported as `from autotune.search.race import race`, which does
    not need that attribute.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
