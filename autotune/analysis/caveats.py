"""Collects the caveats of a case. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from autotune.analysis import caveat
from autotune.analysis.case import FEWEST_RESTARTS, Case
from autotune.analysis.caveat import Caveat
from autotune.analysis.choice import Choice
from autotune.analysis.claims import Claim, is_inferior
from autotune.analysis.evidence import BASELINE, EXPLORED, WINNER, effects_of, known_speed
from autotune.analysis.informative import is_steepening
from autotune.analysis.rates import PairedSpeed
from autotune.quantity import Interval, Unknown
from autotune.space.knobs import KnobClass
from autotune.trial.types import BUSY_SHARE, Infeasible, InfeasibleKind, Stage, StageEnd
from autotune.workload.base import NoGate
from autotune.workload.machine import Corpus, epochs_of
from autotune_model.left_out import WORDS

_MUCH = 0.05  # a share of all bytes; what is left out beyond it may change what the model learns
_NOISY = 0.10  # a log-ratio; a floor above it may hide the effect of most techniques


def caveats_of(choice: Choice) -> tuple[Caveat, ...]:
    """All caveats, in the order of the method."""
    case = choice.case
    return (
        *_of_speed(case),
        *_of_the_machine(case),
        *_of_stages(case),
        *_of_claims(case),
        *_of_hopes(choice),
        *_of_text(case.facts.corpus),
        *_of_learning(case),
        *_of_configurations(case),
        *_of_training(case),
        *_of_price(case),
        *_of_the_expert(case),
    )


def _of_speed(case: Case) -> Iterator[Caveat]:
    for record in case.confirmation:
        speed = known_speed(record.slices, record.reference_slices)
        if isinstance(speed, PairedSpeed) and not speed.steady:
            yield caveat.NoSteadyState(trial=record.spec.number)
    floor = case.floor_of(case.claim)
    if not isinstance(floor, Unknown) and floor > _NOISY:
        yield caveat.NoisyMachine(floor=round(math.expm1(floor), 4))


def _of_the_machine(case: Case) -> Iterator[Caveat]:
    if (share := case.others_share) >= BUSY_SHARE:
        yield caveat.BusyMachine(others_share=round(share, 3))


def _of_stages(case: Case) -> Iterator[Caveat]:
    for stage, end in case.facts.stage_ends.items():
        if stage is Stage.RACE and end is StageEnd.BUDGET and not case.of_stage(stage):
            yield caveat.RaceSkipped()
        elif stage in (Stage.CONFIRM, Stage.ATTRIBUTE) and end is StageEnd.BUDGET:
            yield caveat.BudgetEnded(stage=stage.value)
        elif end is StageEnd.NOTHING_FOUND:
            yield caveat.CombinationsNotFound(stage=stage.value)
        elif end is StageEnd.NOT_WORTH_IT:
            yield caveat.SearchStoppedEarly(stage=stage.value)


def _of_claims(case: Case) -> Iterator[Caveat]:
    if isinstance(case.claim, Claim) and case.claim.restarts < FEWEST_RESTARTS:
        yield caveat.FewRestarts(restarts=case.claim.restarts)
    for claim in case.claims:
        learned = _names(case.space.changed(claim.config, KnobClass.LEARNING))
        if claim.is_expected and isinstance(claim.plan_efficiency, Interval):
            factor = math.exp(claim.plan_efficiency.estimate)
            yield caveat.LearningIsExpected(knobs=learned, factor=round(factor, 3))
        if not isinstance(claim.numerics, Unknown) and not claim.numerics.is_shown:
            inferior = is_inferior(claim.numerics)
            kind = caveat.NumericsInferior if inferior else caveat.NumericsUndecided
            yield kind(
                knobs=_names(case.space.changed(claim.config, KnobClass.NUMERICS)),
                lost=round(-math.expm1(claim.numerics.mean if inferior else claim.numerics.low), 4),
                margin=round(claim.numerics.margin, 4),
            )
        if learned and isinstance(case.plan_tokens, float) and case.learnt.informed:
            longest = max(seen.tokens for seen in case.learnt.informed)
            yield caveat.ShortHorizon(knobs=learned, horizon_tokens=longest, plan_tokens=case.plan_tokens)


def _of_hopes(choice: Choice) -> Iterator[Caveat]:
    case, hope = choice.case, choice.hopeful
    if not isinstance(hope, Unknown) and hope.label == EXPLORED:
        confirmed = {r.spec.config for r in case.confirmation} | {case.baseline}
        beside = min((case.space.changed(hope.config, KnobClass.SYSTEM, base=c) for c in confirmed), key=len)
        yield caveat.SpeedIsExpected(knobs=_names(beside))


def _of_text(corpus: Corpus) -> Iterator[Caveat]:
    if corpus.is_vocabulary_short:
        yield caveat.VocabularyShort(wanted=corpus.vocab_wanted, had=corpus.vocab_size)
    missing = [row for row in corpus.left_out if row.matters]
    lost = sum(row.bytes for row in missing)
    share = lost / max(1, lost + corpus.text_bytes)
    unknown = sum(row.unknown_sizes for row in missing)
    if share > _MUCH or unknown:
        reasons = ", ".join(WORDS[row.reason][0] for row in missing)
        yield caveat.TextLeftOut(share=round(share, 4), bytes=lost, unknown_sizes=unknown, reasons=reasons)


def _of_learning(case: Case) -> Iterator[Caveat]:
    longest = max((r.spec.horizon_tokens for r in case.records if r.evaluations), default=0)
    epochs = epochs_of(case.facts.corpus, longest)
    if epochs > 1:
        yield caveat.RepeatedData(epochs=round(epochs, 2))
    if case.is_starved:
        tokens = case.learnt.starved[-1]
        gate = case.learnt.starvation[tokens]
        yield caveat.TrialsTooShort(
            horizon_tokens=tokens,
            slope=round(gate.slope, 3),
            r_squared=round(gate.r_squared, 3),
            informative_tokens=round(case.informative_tokens),
            cost_seconds=round(gate.trials * case.informative_tokens / case.calibration.rate.estimate),
        )
    if isinstance(case.calibration.curve, Unknown):
        yield caveat.CurveNotFitted(reason=case.calibration.curve.reason)
    elif is_steepening(case.calibration.points):
        yield caveat.CurveSteepening(horizon_tokens=case.calibration.points[-1][0])
    if case.facts.baseline_log.problem:
        yield caveat.BaselineLogUnfit(reason=case.facts.baseline_log.problem)
    for effect in effects_of(case.confirmation, WINNER, against=BASELINE, curve=case.calibration.curve):
        if not isinstance(effect.efficiency, Unknown) and effect.efficiency.censored:
            yield caveat.EfficiencyCensored(bound=round(math.exp(effect.efficiency.value), 3))
            return


def _of_configurations(case: Case) -> Iterator[Caveat]:
    for record in case.records:
        if isinstance(record.outcome, Infeasible) and record.outcome.kind is InfeasibleKind.NOT_EQUIVALENT:
            values = case.space.changed(record.spec.config)
            yield caveat.NotEquivalent(
                knobs=_names(f"{name} = {value}" for name, value in values.items()), reason=record.outcome.message
            )
    if isinstance(case.claim, Claim) and (system := case.space.changed(case.claim.config, KnobClass.SYSTEM)):
        gate = case.space.workload.gate(case.claim.config)
        if isinstance(gate, NoGate):
            yield caveat.NotGated(knobs=_names(system), reason=gate.reason)
    for value in case.facts.pruned:
        yield caveat.ValuePruned(knobs=f"{value.knob} = {value.value}", reason=value.reason)


def _of_training(case: Case) -> Iterator[Caveat]:
    overflowed = [s for r in case.records if any(s.skipped_steps for s in r.slices) for s in r.slices]
    if overflowed:
        skipped = sum(s.skipped_steps for s in overflowed)
        yield caveat.Overflow(skipped=skipped, steps=sum(len(s.losses) for s in overflowed))
    if any(not r.interleaved for r in case.records):
        yield caveat.AlternatedSessions()


def _of_price(case: Case) -> Iterator[Caveat]:
    if isinstance(case.power, Unknown):
        unpaid = "; no figure includes its cost" if case.space.plan.pays_for_energy else ""
        yield caveat.EnergyUnknown(reason=case.power.reason + unpaid)
    if case.space.plan.device_hour_usd <= 0:
        yield caveat.Unpriced()


def _of_the_expert(case: Case) -> Iterator[Caveat]:
    searched = {d.knob.name for d in case.space.dimensions}
    wanted = case.space.changed(case.facts.expert_anywhere)
    if left_out := [name for name in wanted if name not in searched]:
        yield caveat.ExpertPartial(knobs=_names(left_out))


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)
