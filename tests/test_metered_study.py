"""Energy from the worker's meter to the report: measured, estimated, or not known and why; never a silent zero."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from scripted_study import SPACE, ScriptedStudy

from autotune.analysis.caveat import EnergyUnknown
from autotune.analysis.recommendation import Recommendation
from autotune.quantity import Interval
from autotune.report import build_view
from autotune.report.html_ import render_html
from autotune.report.json_ import render_json
from autotune.report.markdown import render_markdown
from autotune.simulation.example import ExampleWorld, LognormalNoise
from autotune.simulation.executor import METER, NO_METER
from autotune.study.reading import read_records

SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "report.schema.json").read_text())
QUIET = LognormalNoise(moment=0.05, own=0.01, process=0.005)
METERED = ExampleWorld(noise=QUIET, fp32_watts=50.0)
UNMETERED = replace(METERED, fp32_watts=None)
OWNED = "device_hour_usd = 0.1\nowned = true\nkwh_usd = 0.3\npue = 1.2"


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a study came to, as data and in words."""

    result: Recommendation
    report: dict[str, Any]
    markdown: str
    html: str


def told(folder: Path, world: ExampleWorld, prices: str) -> Told:
    text = SPACE.replace("device_hour_usd = 0.1", prices)
    result = ScriptedStudy(folder=folder, world=world, text=text).sit()
    view = build_view(result, study="s", created_at="2026-01-01T00:00:00+00:00")
    report = json.loads(render_json(result, view))
    Draft202012Validator(SCHEMA).validate(report)
    return Told(result=result, report=report, markdown=render_markdown(view), html=render_html(view))


def kwh(result: Recommendation, watts: float, candidate_watts: float, *, pue: float) -> float:
    """The plan at the baseline less the plan with the claimed part and the search, by the figures reported."""
    hours, recommended = result.baseline_hours, result.claimed_hours
    assert isinstance(hours, Interval)
    assert isinstance(recommended, Interval)
    search = result.search_cost.total_seconds / 3600
    return pue * (watts * hours.estimate - candidate_watts * recommended.estimate - watts * search) / 1e3


def test_with_a_meter_energy_is_measured(tmp_path: Path) -> None:
    study = told(tmp_path / "s", METERED, OWNED + "\ndevice_watts = 500.0")  # the meter knows better
    result, saving = study.result, study.report["net_saving"]
    assert result.claimed == result.candidate
    assert result.candidate["dtype"] == "bf16_autocast"
    assert saving["energy_provenance"] == f"measured ({METER})"
    assert saving["baseline_watts"]["estimate"] == pytest.approx(50.0)
    assert saving["candidate_watts"]["estimate"] == pytest.approx(45.0)
    assert saving["kwh"]["estimate"] == pytest.approx(kwh(result, 50.0, 45.0, pue=1.2))
    assert saving["kwh"]["low"] < saving["kwh"]["estimate"] < saving["kwh"]["high"]
    seconds = result.search_cost.total_seconds
    assert result.search_cost.money == pytest.approx(seconds / 3600 * (0.1 + 0.3 * 1.2 * 0.050))
    hours = saving["hours"]["estimate"]
    money = 0.1 * hours + 0.3 * saving["kwh"]["estimate"] - result.search_cost.adoption_money
    assert saving["money"]["estimate"] == pytest.approx(money)
    assert EnergyUnknown not in {type(c) for c in result.caveats}
    for text in (study.markdown, study.html):
        assert f"includes electricity, measured ({METER})" in text
        assert f"measured ({METER}), net of the search" in text
        assert re.search(rf"MFU [^|<]*45\.0+\sW( \([^)]*\))? measured \({METER}\)", text)


def test_records_keep_the_energy_of_every_slice(tmp_path: Path) -> None:
    ScriptedStudy(folder=tmp_path / "s", world=METERED, budget_seconds=300.0).sit()
    records = [r for r in read_records(tmp_path / "s") if r.slices]
    assert records
    for r in records:
        assert all(s.energy_joules and 44.9 < s.energy_joules / s.seconds < 50.1 for s in r.slices)
        assert r.ready[0].environment["energy_meter"] == METER


def test_without_a_meter_energy_is_estimated_and_the_word_stands_beside_it(tmp_path: Path) -> None:
    study = told(tmp_path / "s", UNMETERED, OWNED + "\ndevice_watts = 65.0")
    result, saving = study.result, study.report["net_saving"]
    assert saving["energy_provenance"] == "estimated from device_watts"
    assert saving["baseline_watts"]["estimate"] == saving["candidate_watts"]["estimate"] == pytest.approx(65.0)
    assert saving["kwh"]["estimate"] == pytest.approx(kwh(result, 65.0, 65.0, pue=1.2))
    assert result.search_cost.money == pytest.approx(result.search_cost.total_seconds / 3600 * (0.1 + 0.36 * 0.065))
    for text in (study.markdown, study.html):
        assert "includes electricity, estimated from device_watts" in text.replace("\\_", "_")
        assert "estimated from device_watts, net of the search" in text.replace("\\_", "_")


@pytest.mark.parametrize("prices", ["device_hour_usd = 0.1", OWNED])
def test_with_neither_the_reason_stands_in_its_place(tmp_path: Path, prices: str) -> None:
    study = told(tmp_path / "s", UNMETERED, prices)
    saving = study.report["net_saving"]
    why = f"no energy meter was read ({NO_METER}) and the plan names no device_watts"
    assert saving["kwh"] == saving["baseline_watts"] == saving["candidate_watts"] == {"unknown": why}
    assert saving["energy_provenance"] == why
    assert study.result.search_cost.money == pytest.approx(study.result.search_cost.total_seconds / 36_000)
    (caveat,) = (c for c in study.report["caveats"] if c["kind"] == "energy_unknown")
    assert why in caveat["text"]
    is_paid = prices == OWNED
    assert ("no figure includes its cost" in caveat["text"]) is is_paid
    for text in (study.markdown, study.html):
        assert why in text.replace("\\_", "_")
        assert ("electricity not included" in text) is is_paid


def test_where_nothing_is_claimed_the_baselines_draw_is_still_told(tmp_path: Path) -> None:
    result = ScriptedStudy(folder=tmp_path / "s", world=METERED, budget_seconds=300.0).sit()
    assert result.claimed == result.baseline
    assert result.net_saving.energy_provenance == f"measured ({METER})"
    assert isinstance(result.net_saving.baseline_watts, Interval)
    assert result.net_saving.baseline_watts.estimate == pytest.approx(50.0)
