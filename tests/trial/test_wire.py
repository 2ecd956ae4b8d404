"""The written form: whatever is written is read back the same, and nothing else is read at all."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from autotune_model.config import TrainingConfig
from hypothesis import given
from hypothesis import strategies as st

from autotune.study.store import read_records
from autotune.trial.codec import (
    Advance,
    Close,
    Evaluate,
    Exited,
    Failure,
    Forked,
    Launcher,
    Malformed,
    MeasureFingerprint,
    MeasureGradientNoise,
    Phase,
    PhaseName,
    encode_command,
    encode_event,
    encode_fork,
    from_json,
    parse,
    parse_event,
    parse_notice,
    to_json,
)
from autotune.trial.types import (
    Completed,
    Costs,
    Evaluation,
    Failed,
    FailedKind,
    Fingerprint,
    GradientNoise,
    Infeasible,
    InfeasibleKind,
    Pruned,
    Ready,
    Slice,
    Stage,
    TrialRecord,
    TrialSpec,
)

_reals = st.floats(allow_nan=False, allow_infinity=False)
_counts = st.integers(min_value=0, max_value=2**60)
_texts = st.text(max_size=20)
_names = st.dictionaries(_texts, _texts, max_size=3)


def _tuples(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values, max_size=4).map(tuple)


_configs = st.builds(
    TrainingConfig,
    micro_batch=st.just(4),
    global_batch=st.sampled_from((4, 8, 64)),
    dtype=st.sampled_from(("fp32", "bf16_autocast")),
    learning_rate=st.floats(min_value=1e-8, max_value=10.0),
    tied_head=st.booleans(),
)
_slices = st.builds(
    Slice,
    round=st.integers(-1, 1_000),
    tokens=_counts,
    seconds=_reals,
    step_seconds=_tuples(_reals),
    losses=_tuples(_reals),
    peak_memory_bytes=_counts,
    energy_joules=st.none() | _reals,
)
_evaluations = st.builds(
    Evaluation, tokens_seen=_counts, loss=_reals, stderr=_reals, tokens=_counts, bits_per_byte=_reals
)
_fingerprints = st.builds(Fingerprint, logits=_tuples(_reals), gradient=_tuples(_reals), update=_tuples(_reals))
_gradient_noises = st.builds(
    GradientNoise,
    tokens_seen=_counts,
    micro_batch=_counts,
    batch=_counts,
    micro_square_norm=_reals,
    square_norm=_reals,
)
_readies = st.builds(
    Ready,
    setup_seconds=_reals,
    compile_seconds=_reals,
    parameters=_counts,
    flops_per_token=_reals,
    tokens_per_step=_counts,
    horizon_steps=_counts,
    peak_memory_bytes=_counts,
    environment=_names,
)
_outcomes = st.one_of(
    st.just(Completed()),
    st.builds(Pruned, reason=_texts),
    st.builds(Infeasible, kind=st.sampled_from(InfeasibleKind), message=_texts),
    st.builds(Failed, kind=st.sampled_from(FailedKind), message=_texts),
)
_specs = st.builds(
    TrialSpec,
    number=_counts,
    stage=st.sampled_from(Stage),
    label=_texts,
    config=_configs,
    seed=_counts,
    horizon_tokens=_counts,
    block=_counts,
)
_costs = st.builds(
    Costs,
    total_seconds=_reals,
    open_seconds=_reals,
    compile_seconds=_reals,
    step_seconds=_reals,
    reference_step_seconds=_reals,
    evaluate_seconds=_reals,
)
_records = st.builds(
    TrialRecord,
    spec=_specs,
    outcome=_outcomes,
    ready=_tuples(_readies),
    slices=_tuples(_slices),
    reference_slices=_tuples(_slices),
    evaluations=_tuples(_evaluations),
    fingerprints=_tuples(_fingerprints),
    gradient_noise=_tuples(_gradient_noises),
    costs=_costs,
    interleaved=st.booleans(),
    started_at=_texts,
    finished_at=_texts,
)
_failures = st.builds(
    Failure, kind=st.one_of(st.sampled_from(InfeasibleKind), st.sampled_from(FailedKind)), message=_texts
)
_events = st.one_of(
    st.builds(Phase, name=st.sampled_from(PhaseName)),
    _readies,
    _slices,
    _evaluations,
    _fingerprints,
    _gradient_noises,
    _failures,
)


def _slice_text(**changed: str) -> bytes:
    fields = {
        "round": "1",
        "tokens": "10",
        "seconds": "0.5",
        "step_seconds": "[0.5]",
        "losses": "[3]",
        "peak_memory_bytes": "7",
    } | changed
    return ('{"slice": {' + ", ".join(f'"{k}": {v}' for k, v in fields.items() if v) + "}}").encode()


@given(_records)
def test_a_record_is_read_back_as_it_was_written(record: TrialRecord) -> None:
    text = json.dumps(to_json(record), allow_nan=False)
    assert from_json(TrialRecord, parse(text)) == record


@given(_specs)
def test_a_spec_is_read_back_as_it_was_written(spec: TrialSpec) -> None:
    assert from_json(TrialSpec, parse(json.dumps(to_json(spec)))) == spec


@given(_events)
def test_an_event_is_read_back_as_it_was_written_and_is_one_line(event: Any) -> None:
    line = encode_event(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert parse_event(line) == event


def test_the_protocol_is_pinned() -> None:
    assert encode_command(Advance(steps=12, round=3)) == b'{"advance":{"steps":12,"round":3}}\n'
    assert encode_command(Evaluate()) == b'{"evaluate":{}}\n'
    assert encode_command(MeasureFingerprint()) == b'{"fingerprint":{}}\n'
    assert encode_command(MeasureGradientNoise(batches=2)) == b'{"gradient_noise":{"batches":2}}\n'
    assert encode_command(Close()) == b'{"close":{}}\n'
    fingerprint = Fingerprint(logits=(1.0,), gradient=(2.0,), update=(3.0,))
    assert parse_event(b'{"fingerprint": {"logits": [1], "gradient": [2], "update": [3]}}\n') == fingerprint
    assert encode_event(
        GradientNoise(tokens_seen=1, micro_batch=2, batch=4, micro_square_norm=3.0, square_norm=2.0)
    ) == (b'{"gradient_noise":{"tokens_seen":1,"micro_batch":2,"batch":4,"micro_square_norm":3.0,"square_norm":2.0}}\n')
    assert encode_fork("/tmp/s.json") == b'{"fork":{"session":"/tmp/s.json"}}\n'  # noqa: S108 - no file
    assert parse_notice(b'{"launcher": {"ready": {}}}\n') == Launcher(ready={})
    assert parse_notice(b'{"forked": {"pid": 5}}\n') == Forked(pid=5)
    assert parse_notice(b'{"exited": {"pid": 5, "status": 9}}\n') == Exited(pid=5, status=9)
    assert parse_event(b'{"phase": {"name": "built"}}\n') == Phase(name=PhaseName.BUILT)
    assert parse_event(b'{"failure": {"kind": "crash", "message": "x"}}\n') == Failure(
        kind=FailedKind.CRASH, message="x"
    )


def test_the_outcome_of_a_record_is_tagged() -> None:
    """Two members of the union have the same fields: only the tag tells them apart."""
    outcome = Failed(kind=FailedKind.HUNG, message="silent")
    record = TrialRecord(
        spec=TrialSpec(
            number=0,
            stage=Stage.RACE,
            label="",
            config=TrainingConfig(),
            seed=0,
            horizon_tokens=1,
            block=0,
        ),
        outcome=outcome,
        ready=(),
        slices=(),
        reference_slices=(),
        evaluations=(),
        costs=Costs(total_seconds=1.0),
        interleaved=True,
        started_at="",
        finished_at="",
    )
    assert to_json(record)["outcome"] == {"failed": {"kind": "hung", "message": "silent"}}


def test_a_record_from_before_a_field_has_its_default_there() -> None:
    """The default of a field that came later says what was so before it; without one, a gap is never filled."""
    record = TrialRecord(
        spec=TrialSpec(
            number=0,
            stage=Stage.RACE,
            label="",
            config=TrainingConfig(),
            seed=0,
            horizon_tokens=1,
            block=0,
        ),
        outcome=Completed(),
        ready=(),
        slices=(),
        reference_slices=(),
        evaluations=(),
        costs=Costs(total_seconds=1.0),
        interleaved=True,
        started_at="",
        finished_at="",
    )
    plain = to_json(record)
    assert from_json(TrialRecord, plain) == record
    for field in ("fingerprints", "gradient_noise"):
        del plain[field]
    assert from_json(TrialRecord, plain) == record
    for field in ("slices", "costs"):
        del plain[field]
    with pytest.raises(Malformed, match="TrialRecord must be complete; got 'no costs, slices'"):
        from_json(TrialRecord, plain)


def test_what_may_be_none_is_null_and_what_may_not_is_refused() -> None:
    energies = {"": None, "null": None, "12": 12.0, "0.5": 0.5}
    for written, energy in energies.items():
        event = parse_event(_slice_text(energy_joules=written))
        assert isinstance(event, Slice)
        assert event.energy_joules == energy
    assert b'"energy_joules":null' in encode_event(parse_event(_slice_text()))
    with pytest.raises(Malformed, match=r"event\.slice\.energy_joules must be of type float; got 'much'"):
        parse_event(_slice_text(energy_joules='"much"'))


def test_an_int_may_stand_for_a_float_and_nothing_else_is_converted() -> None:
    event = parse_event(_slice_text(seconds="2"))
    assert isinstance(event, Slice)
    assert type(event.seconds) is type(event.losses[0]) is float


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (_slice_text(seconds="NaN"), "NaN"),
        (_slice_text(seconds="-Infinity"), "-Infinity"),
        (_slice_text(seconds="1e999"), r"event\.slice\.seconds must be a finite number"),
        (_slice_text(seconds="1" + "0" * 400), r"event\.slice\.seconds must be a finite number"),
        (_slice_text(seconds="1" + "0" * 9_000), "JSON"),
        (_slice_text(seconds="true"), r"event\.slice\.seconds"),
        (_slice_text(seconds="null"), r"event\.slice\.seconds"),
        (_slice_text(tokens="10.0"), r"event\.slice\.tokens must be of type int"),
        (_slice_text(tokens="true"), r"event\.slice\.tokens"),
        (_slice_text(losses='[1.0, "x"]'), r"event\.slice\.losses\[1\]"),
        (_slice_text(losses="1.0"), r"event\.slice\.losses must be a list"),
        (_slice_text(seconds=""), "no seconds"),
        (_slice_text(speed="1"), "got 'speed'"),
        (b'{"phase": {"name": "tired"}}', r"event\.phase\.name"),
        (b'{"phase": {"name": []}}', r"event\.phase\.name"),
        (b'{"phase": ["name"]}', r"event\.phase"),
        (b'{"failure": {"kind": {}, "message": ""}}', r"event\.failure\.kind"),
        (b'{"phase": {"name": "built"}, "ready": {}}', "one key"),
        (b'{"forked": {"pid": 1}}', "one key"),
        (b"{}", "one key"),
        (b"[]", "one key"),
        (b"7", "one key"),
        (b"", "JSON"),
        (b"\xff\xfe\x00", "JSON"),
        (b'{"slice"', "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"phase": {"name": ' + b"[" * 400 + b"]" * 400 + b"}}", r"event\.phase\.name"),
    ],
)
def test_a_foreign_line_is_refused_with_its_place(line: bytes, place: str) -> None:
    with pytest.raises(Malformed, match=place) as problem:
        parse_event(line)
    assert "\n" not in str(problem.value)
    assert len(str(problem.value)) < 500


@given(st.binary(max_size=60))
def test_no_line_whatever_raises_anything_else(line: bytes) -> None:
    try:
        parse_event(line)
    except Malformed:
        return
    raise AssertionError("random bytes are no event")


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_not_written(loss: float) -> None:
    evaluation = Evaluation(tokens_seen=1, loss=loss, stderr=0.1, tokens=1, bits_per_byte=1.0)
    with pytest.raises(Malformed, match=r"Evaluation\.loss must be a finite number"):
        to_json(evaluation)


def test_a_field_that_does_not_hold_its_type_is_not_written() -> None:
    with pytest.raises(Malformed, match=r"TrialSpec\.stage must be a Stage"):
        to_json(
            TrialSpec(
                number=0,
                stage="race",  # type: ignore[arg-type]
                label="",
                config=TrainingConfig(),
                seed=0,
                horizon_tokens=1,
                block=0,
            )
        )


def test_a_knob_that_is_younger_than_a_study_has_its_default_there() -> None:
    plain = to_json(TrainingConfig(micro_batch=2))
    assert isinstance(plain, dict)
    del plain["checkpointing"]
    assert from_json(TrainingConfig, plain) == TrainingConfig(micro_batch=2)


def test_the_study_of_the_gallery_can_still_be_read() -> None:
    folder = Path(__file__).parents[2] / "reports" / "gallery" / "reality"
    assert {r.spec.stage.value for r in read_records(folder)} >= {"calibrate", "confirm"}


def test_a_configuration_that_cannot_exist_is_refused_with_its_reason() -> None:
    plain = to_json(TrainingConfig()) | {"micro_batch": 3}
    with pytest.raises(Malformed, match=r"TrainingConfig: global_batch must be a multiple of micro_batch"):
        from_json(TrainingConfig, plain)


@dataclass(frozen=True)
class _Loose:
    points: tuple[tuple[int, float], ...]
    data: Mapping[str, object]


def test_pairs_and_plain_values_are_kept() -> None:
    loose = _Loose(points=((1, 2.0), (3, 4.5)), data={"a": [1, None, {"b": True}], "c": "d"})
    assert from_json(_Loose, parse(json.dumps(to_json(loose)))) == loose


def test_plain_values_are_checked_down_to_their_numbers() -> None:
    with pytest.raises(Malformed, match=r"_Loose\.data\['a'\]\[0\] must be a finite number"):
        to_json(_Loose(points=(), data={"a": [math.nan]}))


def test_a_pair_has_two_elements() -> None:
    with pytest.raises(Malformed, match=r"points\[0\] must be of length 2"):
        from_json(_Loose, {"points": [[1, 2.0, 3.0]], "data": {}})
