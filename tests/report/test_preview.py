"""What a search would do, said beforehand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autotune.report.preview import preview
from autotune.report.words import stage_word
from autotune.simulation.executor import MACHINE
from autotune.space.document import parse_document
from autotune.space.shipped import shipped_spaces
from autotune.study.ledger import SHARES
from autotune.trial.types import Stage
from autotune.workload.space import SearchSpace, load_space, space_of

from .search_examples import CORPUS

TEXT = """
[workload]
layers = 2
heads = 2
width = 64
sequence_length = 128
horizon_tokens = 40_000

[plan]
tokens = 400_000
device_hour_usd = 3.0

[search]
budget = "20m"

[baseline]
micro_batch = 4
global_batch = 8

[knobs]
micro_batch = [2, 3, 4]
dtype = ["fp32", "bf16_autocast"]
threads = { low = 0, high = 3 }
schedule = ["linear", "cosine"]
"""


def space(text: str = TEXT) -> SearchSpace:
    return space_of(parse_document(text, name="mine", source="mine.toml", folder=Path("/")))


CONTINUOUS = space(TEXT + "learning_rate = { low = 1e-4, high = 1e-2, log = true }\n")


def test_the_preview_as_json_has_every_figure() -> None:
    machine = replace(MACHINE, limits={"schedule": {"wsd": "not of this space"}, "dtype": {"bf16_autocast": "no bf16"}})
    facts = json.loads(preview(space(TEXT.replace('"fp32", ', '"fp32", "fp16_autocast", ')), machine, as_json=True))
    by_stage = facts.pop("budget_seconds_by_stage")
    assert facts == {
        "space": "mine",
        "text": {
            "train_tokens": 100_000_000,
            "holdout_tokens": 1_000_000,
            "documents": 1_000,
            "bytes_per_token": 3.0,
            "vocab_size": 2_048,
            "content_sha256": "0" * 64,
            "text_bytes": 0,
            "vocab_wanted": 0,
            "left_out": [],
            "cache_damage": "",
        },
        "epochs_of_a_trial": 0.0004,
        "pruned": [{"knob": "dtype", "value": "bf16_autocast", "reason": "no bf16"}],
        "baseline_in_doubt": {},
        "dimensions": {
            "micro_batch": "2, 3, 4",
            "threads": "0 to 3",
            "dtype": "fp32, fp16_autocast",
            "schedule": "linear, cosine",
        },
        "system_and_numerics_combinations": 3 * 2 * 4,
        "learning_combinations": 2,
        # 3 does not divide 8: with 2 dtypes, the 2 ends of threads and 2 schedules
        "filtered": {"global_batch must be a multiple of micro_batch": 16},
        "budget_seconds": 1200.0,
        "expected_cost": {"hours": pytest.approx(1 / 3), "usd": pytest.approx(1.0)},
    }
    assert list(by_stage) == [stage.value for stage in Stage]
    assert sum(by_stage.values()) == pytest.approx(1200.0)


def test_a_continuous_range_has_no_number_of_combinations() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    facts = json.loads(preview(CONTINUOUS, MACHINE, as_json=True), parse_constant=refuse)
    assert facts["learning_combinations"] == "continuous"
    assert facts["system_and_numerics_combinations"] == 24
    assert facts["dimensions"]["learning_rate"] == "0.0001 to 0.01 (log)"


def test_the_preview_as_text_says_the_same() -> None:
    text = preview(CONTINUOUS, MACHINE, as_json=False)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "mine: 5 knobs"
    assert "text: 1,000 documents" in lines
    assert "tokens: 100,000,000 to train on, 1,000,000 held out (0.99 %)" in lines
    assert "vocabulary: 2,048" in lines
    assert "micro_batch system 2, 3, 4" in lines
    assert "dtype precision fp32, bf16_autocast" in lines
    assert "learning_rate learning 0.0001 to 0.01 (log)" in lines
    assert "combinations: 24 of system and precision knobs, infinitely many of learning knobs" in lines
    (impossible,) = (line for line in lines if line.startswith("impossible"))
    assert impossible == (
        "impossible: 32 combinations of listed values and ends of ranges, "
        "global_batch must be a multiple of micro_batch"
    )
    assert "expected cost: at most 1200 s of this machine and 1 USD, shared out as" in lines
    assert f"calibrate {SHARES[Stage.CALIBRATE] * 1200:.0f} s" in lines
    assert [line.rsplit(None, 2)[0].strip() for line in lines if line.endswith(" s")] == [stage_word(s) for s in Stage]


def test_the_text_is_told_with_what_is_missing_and_what_is_too_little() -> None:
    machine = replace(MACHINE, corpus=replace(CORPUS, train_tokens=16_000))
    lines = preview(space(), machine, as_json=False).splitlines()
    assert "text: 799 documents, 12.6 MB" in lines
    assert "vocabulary: 758 of 2,048 wanted: the text has no more" in lines
    assert (
        "left out: 12, 3.4 MB, neither UTF-8 nor what its byte order mark says (a/old.txt, b.txt, c.txt, ...): "
        "convert it to UTF-8"
    ) in lines
    assert "left out: 1, a linked folder, which is not followed (a/more): name the folder itself" in lines
    assert "cache: the tokens were damaged (train.bin is not what was written) and made again" in lines
    assert any(line.startswith("too little text: trials of 40,000 tokens read it 2.50 times") for line in lines)
    facts = json.loads(preview(space(), machine, as_json=True))
    assert facts["epochs_of_a_trial"] == 2.5
    assert facts["text"]["left_out"][0]["reason"] == "encoding"


def test_what_is_not_there_is_not_made_up() -> None:
    asked = space(TEXT.replace("[2, 3, 4]", "[2, 4]"))
    text = preview(replace(asked, plan=replace(asked.plan, device_hour_usd=0.0)), MACHINE, as_json=False)
    assert "impossible: none" in text.splitlines()
    assert "USD" not in text


def test_too_many_combinations_are_not_said_to_be_all_possible() -> None:
    space = load_space(shipped_spaces()["gpt2_small_gpu"])
    text = preview(space, MACHINE, as_json=False)
    assert "impossible: not counted, there are too many combinations" in text.splitlines()
    assert json.loads(preview(space, MACHINE, as_json=True))["filtered"] == "too many combinations to look at"


def test_what_the_machine_cannot_run_is_told_and_not_counted() -> None:
    machine = replace(
        MACHINE,
        environment={"device": "cpu", "logical_cores": "2"},
        limits={"dtype": {"bf16_autocast": "computed in software", "fp16_autocast": "not asked for"}},
    )
    text = preview(space(), machine, as_json=False).splitlines()
    assert "not tried here: dtype = bf16_autocast, computed in software" in text
    assert "not tried here: threads = 3, exceeds the number of logical cores (2)" in text
    assert text[0] == "mine: 3 knobs", "one precision is no knob"
    assert "combinations: 9 of system and precision knobs, 2 of learning knobs" in text
    assert not any("baseline may not run" in line for line in text)


@pytest.mark.parametrize("knob", ["dtype", "optimizer_kernel"])
def test_a_baseline_that_the_machine_cannot_run_is_doubted_whether_it_is_searched_or_not(knob: str) -> None:
    asked = space()
    value = str(asked.baseline[knob])
    machine = replace(MACHINE, limits={knob: {value: "no such kernel"}})
    assert json.loads(preview(asked, machine, as_json=True))["baseline_in_doubt"] == {knob: "no such kernel"}
    lines = preview(asked, machine, as_json=False).splitlines()
    assert f"the baseline may not run here: {knob} = {value}, no such kernel" in lines
