import dataclasses
import tomllib
import typing

import pytest

from autotune.analysis.caveat import Caveat, FewRestarts, LearningIsHypothesis
from autotune.analysis.recommendation import Batches, Recommendation, Verdict
from autotune.quantity import Unknown
from autotune.report import View, build_view
from autotune.report.words import caveat_kind, caveat_words, label_word, outcome_word, stage_word
from autotune.trial.types import FailedKind, InfeasibleKind, Stage

from .examples import CAVEATS, CREATED_AT, EXAMPLES, adopt, inconclusive, interval, keep_baseline


def view(recommendation: Recommendation, study: str = "gpt-small") -> View:
    return build_view(recommendation, study=study, created_at=CREATED_AT)


def figure(v: View, label: str) -> str:
    return next(f.shown.text for group in v.groups for f in group.figures if f.label == label)


def test_adopt_is_said_first_with_its_interval() -> None:
    v = view(adopt())
    assert v.headline == "Adopt: same validation loss 1.42x sooner (90 % interval 1.35-1.49x)"
    assert "27 h 59 min (24 h 6 min to 31 h 12 min)" in v.why[-1]
    assert "38.4 USD (18.9-55.7)" in v.why[-1]


def test_seconds_per_step_are_carried_over_the_plan() -> None:
    step, hours, money, energy = view(adopt()).carried
    assert step.shown.text == "43.0 ms (37.4-47.7)"
    assert hours.shown.text == "27 h 59 min (24 h 6 min to 31 h 12 min)"
    assert money.shown.text == "38.4 USD (18.9-55.7)"
    assert energy.shown.text == "1.62 kWh (1.31-1.94)"
    assert energy.note == "measured (RAPL package zones), net of the search"
    assert money.note == "net of search and adoption; includes electricity, measured (RAPL package zones)"


def test_keeping_within_the_noise_names_the_floor() -> None:
    v = view(keep_baseline())
    assert v.headline.startswith("Keep your baseline")
    assert "noise" in v.headline
    assert any("3.4 % (2.6-4.3)" in sentence for sentence in v.why)
    assert v.changes_title.endswith("(not recommended)")


def test_keeping_because_it_does_not_pay_says_so() -> None:
    r = adopt()
    short = dataclasses.replace(r, verdict=Verdict.KEEP_BASELINE, recommended=r.baseline)
    v = view(short)
    assert v.headline == "Keep your baseline: the gain would not pay for itself on this plan"
    assert v.why[-1] == "It pays back after 18 % of your plan (843 M of 4.8 B tokens)."


def test_a_break_even_beyond_the_plan_is_said_to_be_so() -> None:
    r = dataclasses.replace(adopt(), break_even_tokens=interval(6e9, 5e9, 7e9))
    note = next(f.note for group in view(r).groups for f in group.figures if f.label == "Break-even")
    assert note == "pays back after 6 B tokens, and your plan has 4.8 B"


def test_keeping_because_nothing_differs_says_so() -> None:
    r = keep_baseline()
    v = view(dataclasses.replace(r, candidate=r.baseline))
    assert v.headline == "Keep your baseline: nothing tried is better"
    assert v.changes == ()


def test_inconclusive_says_why_and_what_to_do() -> None:
    v = view(inconclusive())
    assert v.headline == "Inconclusive: the budget ended before the confirmation"
    assert "`autotune resume gpt-small --fork NEW --budget 20m`" in v.why[-1]
    r = inconclusive()
    wide = dataclasses.replace(
        r, over_baseline=dataclasses.replace(r.over_baseline, speedup=interval(1.11, 0.97, 1.31))
    )
    assert "0.97-1.31x" in view(wide).headline


def test_adopt_without_a_known_speedup_does_not_invent_one() -> None:
    r = adopt()
    unknown = dataclasses.replace(r.over_baseline, speedup=Unknown(reason="lost"))
    assert view(dataclasses.replace(r, over_baseline=unknown)).headline.endswith("not known: lost")


def test_only_changed_knobs_are_listed_and_the_configuration_is_whole() -> None:
    v = view(adopt())
    assert [c.knob for c in v.changes] == ["micro_batch", "dtype", "attention", "optimizer_kernel"]
    assert 'dtype = "bf16_autocast"  # was "fp32"' in v.toml


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_toml_is_the_recommended_configuration(name: str) -> None:
    r = EXAMPLES[name]()
    assert tomllib.loads(view(r).toml) == dict(r.recommended)


def test_the_target_loss_of_a_plan_is_stated() -> None:
    assert "loss of 3.2 nats per token" in view(inconclusive()).plan
    assert "8 devices at 2.1 USD per device-hour (rented)" in view(inconclusive()).plan


def test_unknown_figures_say_why_instead_of_zero() -> None:
    v = view(inconclusive())
    for label in ("Speed-up to the same loss", "Throughput", "ROI", "Break-even", "Noise floor"):
        assert figure(v, label).startswith("not known: ")


def test_every_class_of_caveat_has_an_example() -> None:
    assert {type(c) for c in CAVEATS.values()} == set(typing.get_args(Caveat))


@pytest.mark.parametrize("kind", CAVEATS)
def test_every_caveat_is_worded_with_its_fields(kind: str) -> None:
    caveat = CAVEATS[kind]
    assert caveat_kind(caveat) == kind
    title, text = caveat_words(caveat)
    assert title
    assert text.endswith(".")
    for value in dataclasses.asdict(caveat).values():
        if isinstance(value, str):
            assert (stage_word(value) if value in set(Stage) else value) in text


def test_caveat_figures_are_formatted() -> None:
    words = {kind: caveat_words(caveat)[1] for kind, caveat in CAVEATS.items()}
    assert "3.4 %" in words["noisy_machine"]
    assert "98.3 k tokens" in words["short_horizon"]
    assert "12,200 times" in words["short_horizon"]
    assert "1.24x" in words["learning_is_hypothesis"]
    assert "at least 2.04x" in words["efficiency_censored"]
    assert "2 process restarts" in words["few_restarts"]


def test_caveats_at_their_limits_are_good_english() -> None:
    assert "1 process restart." in caveat_words(FewRestarts(restarts=1))[1]
    unknown = caveat_words(LearningIsHypothesis(knobs="schedule", factor=0.0))[1]
    assert unknown.startswith("schedule: a gain of unknown size")


@pytest.mark.parametrize("kind", [*InfeasibleKind, *FailedKind])
def test_every_outcome_has_words(kind: str) -> None:
    assert len(outcome_word(kind)) > 3
    assert "_" not in outcome_word(kind)


def test_strange_outcomes_and_stages_are_printed_as_they_are() -> None:
    assert outcome_word("node_lost") == "node lost"
    assert stage_word("warm_up") == "warm up"


def test_labels_of_stored_trials_are_worded() -> None:
    first, second = adopt().trials[:2]
    r = dataclasses.replace(adopt(), trials=(first, second, dataclasses.replace(first, label="without dtype")))
    assert [t.label for t in view(r).outcomes[0].trials] == ["baseline", "hand-tuned default", "without dtype"]
    assert view(adopt()).runners_up[0].label == "hand-tuned default"
    assert label_word("winner's system part") == "winner, system knobs only"


def test_values_that_were_kept_as_text_look_like_those_of_a_file() -> None:
    r = adopt()
    tied = dataclasses.replace(r.techniques[-1], baseline_value="False", value="True")
    v = view(dataclasses.replace(r, techniques=(tied,), hypotheses={"tied_head": "True"}))
    assert v.techniques[0].change == "false -> true"
    assert v.hypotheses[0].value == "true"
    assert v.hypotheses[0].title == "tied embeddings"


def test_batches_are_held_against_the_noise_of_the_gradient() -> None:
    r = dataclasses.replace(adopt(), batches=Batches(baseline=16, candidate=16, hypothesis=64))
    assert view(r).noise_text.startswith(
        "Gradient noise scale of your baseline, in sequences: 14.2 after 50 k tokens, 41.7 after 100 k tokens. "
        "Your batch of 16 is below it: a larger batch costs few extra tokens. "
        "The batch worth trying of 64 is above it: a larger batch has diminishing returns. "
    )
    other = dataclasses.replace(r, batches=Batches(baseline=16, candidate=32, hypothesis=0))
    assert "The candidate's batch of 32 is below it" in view(other).noise_text
    assert "not known after 2 k tokens (the budget ended before the confirmation)" in view(inconclusive()).noise_text


def test_knobs_that_a_workload_no_longer_has_are_still_reported() -> None:
    r = adopt()
    old, new = (c.with_values({"retired": value}) for c, value in ((r.baseline, 1), (r.candidate, 2)))
    v = view(dataclasses.replace(r, baseline=old, candidate=new, recommended=new))
    change = v.changes[-1]
    assert (change.knob, change.title, change.baseline, change.value, change.expert) == (
        "retired",
        "retired",
        "1",
        "2",
        "",
    )


def test_trials_are_grouped_by_outcome_with_their_reasons() -> None:
    groups = {g.key: g for g in view(adopt()).outcomes}
    assert next(iter(groups)) == "completed"
    assert groups["completed"].count == "4 trials"
    assert groups["predicted_oom"].trials[0].reason == "needs 9.1 GiB of 7.6 GiB"
    assert sum(len(g.trials) for g in groups.values()) == len(adopt().trials)


def test_shares_of_the_search_time_add_up() -> None:
    v = view(adopt())
    assert sum(s.seconds for s in v.stages) == sum(adopt().search_cost.seconds_by_stage.values())
    assert v.stages[0].text == "8 min 32 s, 14 %"


def test_control_characters_do_not_reach_the_reader() -> None:
    r = adopt()
    evil = dataclasses.replace(r.trials[4], reason="no\x1b[31m\nroom \udc80", label="a\tb")
    v = view(dataclasses.replace(r, trials=(evil,)), study="s\x1b]0;x\x07")
    assert v.outcomes[0].trials[0].reason == "no [31m room"
    assert v.outcomes[0].trials[0].label == "a b"
    assert v.study.isprintable()
