"""What holds for all tests, and a search in simulated time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from autotune import api

settings.register_profile("any machine", deadline=None)  # machines are shared: no test is about time
settings.load_profile("any machine")


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    """A space called "mine" with a plan that no search can pay for: it ends after two trials."""
    from simulated_machine import TINY

    path = tmp_path / "mine.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def search(tmp_path: Path, space_file: Path) -> Callable[..., api.Finished]:
    """Searches that space in the folder `root`, in simulated time unless an executor is given."""
    from simulated_machine import SimulatedMachine

    import autotune

    def run(executor: SimulatedMachine | None = None, **options: object) -> api.Finished:
        return autotune.search(space_file, root=tmp_path / "root", executor=executor or SimulatedMachine(), **options)

    return run
