"""Memory for sessions: how much there is, and what fits into it."""

from types import SimpleNamespace

import psutil
import pytest

from autotune.executors.memory import available_bytes, fits


def test_a_session_must_fit_with_a_margin() -> None:
    assert fits(100, 125)
    assert not fits(100, 124)
    assert fits(0, 0), "where nobody can tell how much is needed, it is tried"


def test_an_accelerator_has_the_memory_it_states() -> None:
    assert available_bytes({"device": "cuda", "device_memory_bytes": "80000000000"}) == 80_000_000_000


@pytest.mark.parametrize("environment", [{"device": "cpu"}, {}])
def test_a_machine_without_has_what_is_free(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5_000))
    assert available_bytes(environment) == 5_000
