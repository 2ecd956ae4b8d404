"""The JSON Schema of a space file: the one that is shipped is the one of the code, and it judges as the reader does."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from autotune.errors import BadInput
from autotune.space.document import SpaceDocument
from autotune.space.shipped import shipped_spaces
from autotune.workload.gpt_knobs import KNOBS
from autotune.workload.gpt_table import gpt_space_schema
from autotune.workload.space import space_of

SCHEMA = gpt_space_schema()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
SHIPPED = shipped_spaces()
FILE = SHIPPED["quickstart"].parent / "space.schema.json"


def tables_of(name: str) -> dict[str, Any]:
    return tomllib.loads(SHIPPED[name].read_text(encoding="utf-8"))


def is_read(tables: dict[str, Any]) -> bool:
    """Whether these tables make a space; anything but BadInput is an error of ours."""
    try:
        space_of(SpaceDocument(text="", name="mine", source="mine.toml", folder=Path("/"), tables=tables))
    except BadInput:
        return False
    return True


def test_the_shipped_schema_is_that_of_the_code() -> None:
    renewed = "python -m autotune.workload.gpt_table > search_spaces/space.schema.json"
    assert json.loads(FILE.read_text(encoding="utf-8")) == json.loads(json.dumps(SCHEMA)), f"run {renewed}"


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_space_names_the_schema_and_satisfies_it(name: str) -> None:
    first = SHIPPED[name].read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("#:schema ")
    assert (SHIPPED[name].parent / first.removeprefix("#:schema ")).resolve() == FILE.resolve()
    assert [error.message for error in VALIDATOR.iter_errors(tables_of(name))] == []


def test_every_key_says_what_it_means() -> None:
    assert set(SCHEMA["properties"]["knobs"]["properties"]) == set(KNOBS)
    assert set(SCHEMA["properties"]["baseline"]["properties"]) == set(KNOBS)
    for name, table in SCHEMA["properties"].items():
        assert table["description"], name
        for key, rules in table["properties"].items():
            assert rules["description"], (name, key)


VALUES: list[Any] = [
    True, 0, 1, -1, 2, 2.0, 4e1, 2.5, 0.5, -0.5, 12, 10**6 + 1, 2**63, 10**400, float("inf"), "", "2", "gpu", "fp32",
    "cpu", "1h", [], [1], [8], [1, 1], [0.001], ["fp32"], [False, True], ["x"], [[1]], {}, {"low": 1, "high": 16},
    {"low": 1, "high": 16, "log": True}, {"low": 1}, {"low": 1, "high": 2, "step": 1}, {"low": "a", "high": "b"},
]  # fmt: skip


def keys_of(schema: dict[str, Any]) -> list[tuple[str, str]]:
    return [(table, key) for table, rules in schema["properties"].items() for key in (*rules["properties"], "unknown")]


@pytest.mark.parametrize(("table", "key"), keys_of(SCHEMA))
def test_the_schema_accepts_what_is_read_and_refuses_what_is_not(table: str, key: str) -> None:
    base = tables_of("quickstart")
    if (table, key) == ("plan", "target_loss"):
        del base["plan"]["tokens"]
    verdicts = set()
    for value in VALUES:
        tables = copy.deepcopy(base)
        tables[table][key] = value
        read, valid = is_read(tables), VALIDATOR.is_valid(tables)
        assert valid or not read, f"{value!r} is read, and an editor would mark it"
        verdicts.add((read, valid))
    assert (False, False) in verdicts
    assert (True, True) in verdicts or table in ("knobs", "baseline") or key == "unknown"


@pytest.mark.parametrize("table", ["workload", "plan", "baseline", "knobs"])
def test_a_table_that_is_missing_is_noticed_by_both(table: str) -> None:
    tables = tables_of("quickstart")
    del tables[table]
    assert not is_read(tables)
    assert not VALIDATOR.is_valid(tables)


def test_a_plan_with_two_goals_or_none_is_noticed_by_both() -> None:
    for goals in ({}, {"tokens": 10, "target_loss": 3.0}):
        tables = tables_of("quickstart") | {"plan": goals}
        assert not is_read(tables)
        assert not VALIDATOR.is_valid(tables)


def test_what_every_command_imports_does_without_pydantic() -> None:
    modules = ["knobs", "configuration", "shipped", "plan", "document"]
    code = (
        "import sys; " + "; ".join(f"import autotune.space.{m}" for m in modules) + "; print('pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
