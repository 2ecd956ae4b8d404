import dataclasses
import tomllib

import pytest

from autotune.analysis.recommendation import Caveat, CaveatKind, Recommendation, Verdict
from autotune.quantity import Unknown
from autotune.report import View, build_view
from autotune.report.words import caveat_words, outcome_word, stage_word
from autotune.trial.types import FailedKind, InfeasibleKind, Stage

from .examples import CREATED_AT, DETAILS, EXAMPLES, adopt, caveat, inconclusive, interval, keep_baseline


def view(recommendation: Recommendation, study: str = "gpt-small") -> View:
    return build_view(recommendation, study=study, created_at=CREATED_AT)


def figure(v: View, label: str) -> str:
    return next(f.shown.text for group in v.groups for f in group.figures if f.label == label)


def test_adopt_is_said_first_with_its_interval() -> None:
    v = view(adopt())
    assert v.headline == "Adopt: 1.42x faster to equal quality (90 % interval 1.35-1.49x)"
    assert "27 h 59 min (24 h 6 min to 31 h 12 min)" in v.why[-1]
    assert "38.4 USD (18.9-55.7)" in v.why[-1]


def test_seconds_per_step_are_carried_over_the_plan() -> None:
    step, hours, money, energy = view(adopt()).carried
    assert step.shown.text == "43.0 ms (37.4-47.7)"
    assert hours.shown.text == "27 h 59 min (24 h 6 min to 31 h 12 min)"
    assert money.shown.text == "38.4 USD (18.9-55.7)"
    assert energy.shown.text == "1.62 kWh (1.31-1.94)"
    assert energy.note == "measured (RAPL package zones), net of the search"
    assert money.note == "net of search and adoption; electricity measured (RAPL package zones)"


def test_keeping_within_the_noise_names_the_floor() -> None:
    v = view(keep_baseline())
    assert v.headline.startswith("Keep what you have")
    assert "noise" in v.headline
    assert any("3.4 % (2.6-4.3)" in sentence for sentence in v.why)
    assert v.changes_title.endswith("(not recommended)")


def test_keeping_because_it_does_not_pay_says_so() -> None:
    r = adopt()
    short = dataclasses.replace(r, verdict=Verdict.KEEP_BASELINE, recommended=r.baseline)
    v = view(short)
    assert v.headline == "Keep what you have: the gain would not pay for itself on this plan"
    assert any("843 M tokens" in sentence for sentence in v.why)


def test_keeping_because_nothing_differs_says_so() -> None:
    r = keep_baseline()
    v = view(dataclasses.replace(r, candidate=r.baseline))
    assert v.headline == "Keep what you have: nothing that was tried is better"
    assert v.changes == ()


def test_inconclusive_says_why_and_what_to_do() -> None:
    v = view(inconclusive())
    assert v.headline == "Inconclusive: the budget ended before the confirmation"
    assert "--budget" in v.why[-1]
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
    assert tomllib.loads(view(r).toml) == r.recommended.to_mapping()


def test_the_target_loss_of_a_plan_is_stated() -> None:
    assert "loss of 3.2 nats per token" in view(inconclusive()).plan
    assert "8 devices at 2.1 USD per device-hour (rented)" in view(inconclusive()).plan


def test_unknown_figures_say_why_instead_of_zero() -> None:
    v = view(inconclusive())
    for label in ("Speed-up to equal quality", "Throughput", "ROI", "Break-even", "Noise floor"):
        assert figure(v, label).startswith("not known: ")


@pytest.mark.parametrize("kind", CaveatKind)
def test_every_caveat_is_worded_with_its_figures(kind: CaveatKind) -> None:
    title, text = caveat_words(caveat(kind), currency="USD")
    assert title
    assert text.endswith(".")
    assert "not recorded" not in text
    for value in DETAILS[kind].values():
        if isinstance(value, str) and value not in set(Stage):
            assert value in text


@pytest.mark.parametrize("kind", CaveatKind)
def test_a_caveat_without_its_figures_does_not_lose_the_report(kind: CaveatKind) -> None:
    _, text = caveat_words(Caveat(kind=kind, details={}), currency="USD")
    assert ("not recorded" in text) == bool(DETAILS[kind])


def test_caveat_figures_are_formatted() -> None:
    words = {kind: caveat_words(caveat(kind), currency="USD")[1] for kind in CaveatKind}
    assert "3.4 %" in words[CaveatKind.NOISY_MACHINE]
    assert "12,200 times" in words[CaveatKind.SHORT_HORIZON]
    assert "1.24x" in words[CaveatKind.LEARNING_IS_HYPOTHESIS]
    assert "0.031 USD" in words[CaveatKind.SEARCH_STOPPED_EARLY]
    assert "explore learning knobs" in words[CaveatKind.BUDGET_ENDED]


@pytest.mark.parametrize("kind", [*InfeasibleKind, *FailedKind])
def test_every_outcome_has_words(kind: str) -> None:
    assert len(outcome_word(kind)) > 3
    assert "_" not in outcome_word(kind)


def test_strange_outcomes_and_stages_are_printed_as_they_are() -> None:
    assert outcome_word("node_lost") == "node lost"
    assert stage_word("warm_up") == "warm up"


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
