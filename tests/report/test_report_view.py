import dataclasses
import tomllib
import typing

import pytest

from autotune.analysis.caveat import Caveat, FewRestarts
from autotune.analysis.decision import Decision, Expected, Guard, Keep, Look, RaceInRun, Unguarded, Watch
from autotune.analysis.recommendation import Batches, Recommendation, Verdict
from autotune.quantity import Unknown
from autotune.report import View, build_view
from autotune.report.view import Part
from autotune.report.words import caveat_kind, caveat_words, conclusion_word, label_word, outcome_word, stage_word
from autotune.trial.types import FailedKind, InfeasibleKind, Stage

from .caveat_examples import CAVEATS
from .examples import (
    EXAMPLES,
    expected,
    expected_alone,
    expected_speed,
    expected_unguarded,
    expected_with_a_run_to_look,
    race,
    race_over_the_claimed,
)
from .search_examples import BASELINE, CREATED_AT, WINNER, claimed, interval, keep, not_informative, too_short


def view(recommendation: Recommendation, study: str = "gpt-small") -> View:
    return build_view(recommendation, study=study, created_at=CREATED_AT)


def figure(v: View, label: str) -> str:
    return next(f.shown.text for group in v.groups for f in group.figures if f.label == label)


def part(v: View, kind: str) -> Part:
    return next(p for p in (*v.parts, *v.unused) if p.kind == kind)


def test_there_is_an_example_of_every_decision_and_every_guard() -> None:
    decisions = [make().decision for make in EXAMPLES.values()]
    assert {type(d) for d in decisions} == set(typing.get_args(Decision))
    guards = [d.guard for d in decisions if isinstance(d, Expected | RaceInRun)]
    assert {type(guard) for guard in guards} == set(typing.get_args(Guard))
    assert {guard.needs_run for guard in guards if isinstance(guard, Look)} == {True, False}


def test_what_is_shown_is_said_first_with_its_interval() -> None:
    v = view(claimed())
    assert v.headline == "Adopt: same validation loss 1.42x sooner (90 % interval 1.35-1.49x)"
    assert "27 h 59 min (24 h 6 min to 31 h 12 min)" in v.why[-1]
    assert "38.4 USD (18.9-55.7)" in v.why[-1]


def test_seconds_per_step_are_carried_over_the_plan() -> None:
    step, hours, money, energy = view(claimed()).carried
    assert step.shown.text == "43.0 ms (37.4-47.7)"
    assert hours.shown.text == "27 h 59 min (24 h 6 min to 31 h 12 min)"
    assert money.shown.text == "38.4 USD (18.9-55.7)"
    assert energy.shown.text == "1.62 kWh (1.31-1.94)"
    assert energy.note == "measured (RAPL package zones), net of the search"
    assert money.note == "net of search and adoption; includes electricity, measured (RAPL package zones)"


def test_keeping_within_the_noise_names_the_floor() -> None:
    v = view(keep())
    assert v.headline.startswith("Keep your baseline")
    assert "noise" in v.headline
    assert any("3.4 % (2.6-4.3)" in sentence for sentence in v.why)
    assert v.changes_title.endswith("(not recommended)")


def test_keeping_because_it_does_not_pay_says_so() -> None:
    r = claimed()
    short = dataclasses.replace(r, decision=Keep(), claimed=r.baseline, recommended=r.baseline)
    v = view(short)
    assert v.headline == "Keep your baseline: the gain would not pay for itself on this plan"
    assert v.why[-1] == "It pays back after 18 % of your plan (843 M of 4.8 B tokens)."


def test_a_break_even_beyond_the_plan_is_said_to_be_so() -> None:
    r = dataclasses.replace(claimed(), break_even_tokens=interval(6e9, 5e9, 7e9))
    note = next(f.note for group in view(r).groups for f in group.figures if f.label == "Break-even")
    assert note == "pays back after 6 B tokens, and your plan has 4.8 B"


def test_keeping_because_nothing_differs_says_so() -> None:
    r = keep()
    v = view(dataclasses.replace(r, candidate=r.baseline))
    assert v.headline == "Keep your baseline: nothing tried is better"
    assert v.changes == ()


def test_not_informative_says_why_and_what_to_do() -> None:
    v = view(not_informative())
    assert v.headline == "Not informative: the budget ended before the confirmation"
    assert "`autotune resume gpt-small --fork NEW --budget 20m`" in v.why[-1]
    r = not_informative()
    wide = dataclasses.replace(
        r, over_baseline=dataclasses.replace(r.over_baseline, speedup=interval(1.11, 0.97, 1.31))
    )
    assert "1.11x (0.97-1.31), is not shown to pay" in view(wide).why[0]


def test_trials_that_are_too_short_say_what_would_inform_and_what_it_costs() -> None:
    v = view(too_short())
    assert v.headline.startswith("Not informative: trials too short: ")
    assert v.why[-1] == (
        "Trials of 2.4 M tokens each would inform. A search with as many of them as were tried takes about 6 h 20 min."
    )
    assert not any("autotune resume" in sentence for sentence in v.why), "a larger budget alone does not help"


def test_what_is_expected_stands_apart_from_what_is_shown() -> None:
    v = view(expected())
    assert v.headline == (
        "Adopt micro_batch=16, dtype=bf16_autocast, attention=sdpa, optimizer_kernel=fused, learning_rate=0.003, "
        "schedule=wsd: same validation loss 1.42x sooner is shown, 1.70x is expected (90 % interval 1.22-2.36x)"
    )
    cost, careful = v.why
    assert cost == (
        "Your plan is expected to cost the least with it: 84 % of the cost with the claimed part if its first run is "
        "looked at. Probability that it costs more: 18 %."
    )
    assert careful == (
        "If you rely only on what is shown, adopt the claimed part alone: "
        "micro_batch=16, dtype=bf16_autocast, attention=sdpa, optimizer_kernel=fused."
    )
    shown, hoped = v.parts
    assert [t.knob for t in shown.turns] == ["micro_batch", "dtype", "attention", "optimizer_kernel"]
    assert {f.label: f.shown.text for f in shown.figures} == {
        "Speed-up to the same loss": "1.42x (1.35-1.49)",
        "Device time saved": "27 h 59 min (24 h 6 min to 31 h 12 min)",
        "Money saved": "38.4 USD (18.9-55.7)",
        "ROI": "0.418 (0.206-0.607)",
    }
    assert [(t.knob, t.old, t.new) for t in hoped.turns] == [
        ("learning_rate", "0.001", "0.003"),
        ("schedule", "cosine", "wsd"),
    ]
    said = {f.label: f.shown.text for f in hoped.figures}
    assert said["Expected speed-up over the claimed part"] == "1.20x (0.86-1.66)"
    assert said["Expected speed-up over your baseline"] == "1.70x (1.22-2.36)"
    assert said["Probability of costing more"] == "18 %"
    assert {f.label for f in shown.figures}.isdisjoint(said)
    assert all(f.label.startswith(("Expected", "Probability")) for f in hoped.figures)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_key_figures_are_those_of_the_claimed_part_whatever_is_expected(name: str) -> None:
    r = EXAMPLES[name]()
    without = dataclasses.replace(r, decision=Keep(), expectation=Unknown(reason="nothing is expected"))
    v, other = view(r), view(without)
    assert v.carried == other.carried
    figures, others = ({f.label: f for group in w.groups for f in group.figures} for w in (v, other))
    assert all(figures[label] == others[label] for label in figures.keys() & others.keys())
    assert others.keys() - figures.keys() <= {"Plan as recommended"}


def test_nothing_that_is_claimed_is_said_where_nothing_is_shown() -> None:
    v = view(expected_alone())
    assert v.headline == (
        "Adopt learning_rate=0.003, schedule=wsd: nothing is shown to pay, "
        "same validation loss 1.42x sooner is expected (90 % interval 0.62-3.23x)"
    )
    assert v.why[-1] == "If you rely only on what is shown, keep your baseline."
    assert part(v, "shown").text == ("Nothing is shown to pay.",)
    assert (part(v, "shown").turns, part(v, "shown").figures) == ((), ())
    labels = [f.label for f in part(v, "expected").figures]
    assert labels[0] == "Expected speed-up over your baseline", "the claimed part is the baseline"


GUARDS = {
    expected: (
        "Run 1 of the plan, with learning_rate=0.003, schedule=wsd, is the look. Compare its validation loss with the "
        "log of your baseline run (`autotune look gpt-small LOG`). Then decide for the other 3 runs."
    ),
    expected_with_a_run_to_look: (
        "Run 1 of the plan, with learning_rate=0.003, schedule=wsd, is the look. Compare its validation loss with one "
        "run of your baseline's learning knobs (learning_rate=0.001, schedule=cosine) at full length, which is one of "
        "the plan's 40. Then decide for the other 38 runs."
    ),
    expected_alone: (
        "Start two runs, one of your baseline and one with learning_rate=0.003, schedule=wsd, to 1 % of the tokens "
        "each (12 M tokens). Cool both down over a fifth of that, and keep the better one: it goes on from where its "
        "cooldown began."
    ),
    expected_unguarded: "It is not: nothing in the plan can tell in time whether it is worse.",
    expected_speed: (
        "How fast compile=default is shows in the first minutes of a run: compare its tokens/s with those of the "
        "claimed part, and go back if it is no faster."
    ),
}


@pytest.mark.parametrize("make", GUARDS)
def test_a_guard_says_what_to_do_in_the_real_run(make: typing.Callable[[], Recommendation]) -> None:
    assert part(view(make()), "expected").guard == GUARDS[make]


def test_a_guard_at_its_limits_is_good_english() -> None:
    def guard(guard: Guard, runs: int) -> str:
        r = expected()
        assert isinstance(r.decision, Expected)
        plan = dataclasses.replace(r.plan, runs=runs)
        decision = dataclasses.replace(r.decision, guard=guard)
        return part(view(dataclasses.replace(r, decision=decision, plan=plan)), "expected").guard

    assert guard(Look(needs_run=False), 2).endswith("Then decide for the other run.")
    assert guard(Look(needs_run=True), 2).endswith("this one has no other run to decide for.")
    assert guard(Unguarded(), 4).startswith("It is not: a run to compare it with the claimed part would cost more")
    assert guard(Watch(), 1) == (
        "How fast learning_rate=0.003, schedule=wsd is shows in the first minutes of a run: compare its tokens/s with "
        "those of the claimed part, and go back if it is no faster."
    )
    r = dataclasses.replace(expected_alone(), plan_tokens=Unknown(reason="no curve"))
    assert "to 1 % of the tokens each. Cool both" in part(view(r), "expected").guard


def test_a_race_keeps_what_is_shown_and_says_what_the_look_saves() -> None:
    v = view(race())
    assert v.headline == (
        "Keep your baseline, and try learning_rate=0.003, schedule=wsd in the real run: "
        "drop it if it does not do better"
    )
    risk, look = v.why
    assert risk == (
        "Adopting learning_rate=0.003, schedule=wsd at once is not worth the risk: with a probability of 40 % your "
        "plan would cost more than with your baseline, and it would cost 98 % of that on average."
    )
    assert look == (
        "Trying it first, and dropping it if it does no better, is worth it: your plan is then expected to cost 87 % "
        "of what it costs with your baseline, a saving of 13 %."
    )
    assert tomllib.loads(v.toml) == dict(BASELINE)
    assert v.changes == ()
    over = view(race_over_the_claimed())
    assert over.headline == (
        "Adopt micro_batch=16, dtype=bf16_autocast, attention=sdpa, optimizer_kernel=fused: "
        "same validation loss 1.42x sooner is shown; "
        "try learning_rate=0.003, schedule=wsd in the real run, and drop it if it does not do better"
    )
    assert tomllib.loads(over.toml) == dict(WINNER)
    assert over.subject == "the claimed part"


def test_what_is_expected_and_not_recommended_says_so() -> None:
    v = view(claimed())
    assert v.parts == ()
    (unused,) = v.unused
    assert unused.title == "Expected, not shown, not recommended"
    assert unused.text[0].startswith("It is not recommended: compared with the claimed part")
    assert unused.guard == ""


def test_an_expectation_that_is_lost_is_not_made_up() -> None:
    lost = dataclasses.replace(expected(), expectation=Unknown(reason="lost"))
    assert view(lost).headline.endswith("1.42x sooner is shown, the expected speed-up is not known: lost")
    assert part(view(lost), "expected").text[0] == "Its figures are not known: lost."
    assert part(view(lost), "expected").figures == ()


def test_stored_verdicts_have_words() -> None:
    assert {v: conclusion_word(v.value) for v in Verdict} == {
        Verdict.CLAIMED: "adopt",
        Verdict.EXPECTED: "adopt, expected",
        Verdict.RACE: "try it in the real run",
        Verdict.KEEP: "keep your baseline",
        Verdict.NOT_INFORMATIVE: "not informative",
    }
    assert conclusion_word("keep_all") == "keep all", "of another version"


def test_a_claim_without_a_known_speedup_does_not_invent_one() -> None:
    r = claimed()
    unknown = dataclasses.replace(r.over_baseline, speedup=Unknown(reason="lost"))
    assert view(dataclasses.replace(r, over_baseline=unknown)).headline.endswith("not known: lost")


def test_only_changed_knobs_are_listed_and_the_configuration_is_whole() -> None:
    v = view(claimed())
    assert [c.knob for c in v.changes] == ["micro_batch", "dtype", "attention", "optimizer_kernel"]
    assert 'dtype = "bf16_autocast"  # was "fp32"' in v.toml


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_toml_is_the_recommended_configuration(name: str) -> None:
    r = EXAMPLES[name]()
    assert tomllib.loads(view(r).toml) == dict(r.recommended)


def test_the_target_loss_of_a_plan_is_stated() -> None:
    assert "loss of 3.2 nats per token" in view(not_informative()).plan
    assert "8 devices at 2.1 USD per device-hour (rented)" in view(not_informative()).plan


def test_unknown_figures_say_why_instead_of_zero() -> None:
    v = view(not_informative())
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
    assert "1.24x" in words["learning_is_expected"]
    assert "60 k tokens" in words["trials_too_short"]
    assert "slope 0.94, r^2 0.97" in words["trials_too_short"]
    assert "Trials of 2.4 M tokens may inform." in words["trials_too_short"]
    assert "6 h 20 min" in words["trials_too_short"]
    assert "197 k tokens" in words["curve_steepening"]
    assert "at least 2.04x" in words["efficiency_censored"]
    assert "2 process restarts" in words["few_restarts"]


def test_caveats_at_their_limits_are_good_english() -> None:
    assert "1 process restart." in caveat_words(FewRestarts(restarts=1))[1]


@pytest.mark.parametrize("kind", [*InfeasibleKind, *FailedKind])
def test_every_outcome_has_words(kind: str) -> None:
    assert len(outcome_word(kind)) > 3
    assert "_" not in outcome_word(kind)


def test_strange_outcomes_and_stages_are_printed_as_they_are() -> None:
    assert outcome_word("node_lost") == "node lost"
    assert stage_word("warm_up") == "warm up"


def test_labels_of_stored_trials_are_worded() -> None:
    first, second = claimed().trials[:2]
    r = dataclasses.replace(claimed(), trials=(first, second, dataclasses.replace(first, label="without dtype")))
    assert [t.label for t in view(r).outcomes[0].trials] == ["baseline", "hand-tuned default", "without dtype"]
    assert view(claimed()).runners_up[0].label == "hand-tuned default"
    assert label_word("winner's system part") == "winner, system knobs only"


def test_values_that_were_kept_as_text_look_like_those_of_a_file() -> None:
    r = claimed()
    tied = dataclasses.replace(r.techniques[-1], baseline_value="False", value="True")
    v = view(dataclasses.replace(r, techniques=(tied,)))
    assert v.techniques[0].change == "false -> true"


def test_batches_are_held_against_the_noise_of_the_gradient() -> None:
    r = dataclasses.replace(claimed(), batches=Batches(baseline=16, candidate=16, expected=64))
    assert view(r).noise_text.startswith(
        "Gradient noise scale of your baseline, in sequences: 14.2 after 50 k tokens, 41.7 after 100 k tokens. "
        "Your batch of 16 is below it: a larger batch costs few extra tokens. "
        "The expected configuration's batch of 64 is above it: a larger batch has diminishing returns. "
    )
    other = dataclasses.replace(r, batches=Batches(baseline=16, candidate=32, expected=0))
    assert "The candidate's batch of 32 is below it" in view(other).noise_text
    assert "not known after 2 k tokens (the budget ended before the confirmation)" in view(not_informative()).noise_text


def test_knobs_that_a_workload_no_longer_has_are_still_reported() -> None:
    r = claimed()
    old, new = (c.with_values({"retired": value}) for c, value in ((r.baseline, 1), (r.candidate, 2)))
    v = view(dataclasses.replace(r, baseline=old, candidate=new, claimed=new, recommended=new))
    change = v.changes[-1]
    assert (change.knob, change.title, change.baseline, change.value, change.expert) == (
        "retired",
        "retired",
        "1",
        "2",
        "",
    )


def test_trials_are_grouped_by_outcome_with_their_reasons() -> None:
    groups = {g.key: g for g in view(claimed()).outcomes}
    assert next(iter(groups)) == "completed"
    assert groups["completed"].count == "4 trials"
    assert groups["predicted_oom"].trials[0].reason == "needs 9.1 GiB of 7.6 GiB"
    assert sum(len(g.trials) for g in groups.values()) == len(claimed().trials)


def test_shares_of_the_search_time_add_up() -> None:
    v = view(claimed())
    assert sum(s.seconds for s in v.stages) == sum(claimed().search_cost.seconds_by_stage.values())
    assert v.stages[0].text == "8 min 32 s, 14 %"


def test_control_characters_do_not_reach_the_reader() -> None:
    r = claimed()
    evil = dataclasses.replace(r.trials[4], reason="no\x1b[31m\nroom \udc80", label="a\tb")
    v = view(dataclasses.replace(r, trials=(evil,)), study="s\x1b]0;x\x07")
    assert v.outcomes[0].trials[0].reason == "no [31m room"
    assert v.outcomes[0].trials[0].label == "a b"
    assert v.study.isprintable()
