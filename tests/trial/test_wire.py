"""The written form: whatever is written is read back the same, and nothing else is read at all."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.space.configuration import Configuration
from autotune.study import events
from autotune.trial.codec import (
    Malformed,
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
    Outcome,
    Pruned,
    Ready,
    Slice,
    Stage,
    StageEnd,
    TrialRecord,
    TrialSpec,
)
from autotune_model.protocol import (
    Advance,
    Close,
    Command,
    Evaluate,
    Exited,
    Failure,
    Fork,
    Forked,
    Launcher,
    MeasureFingerprint,
    MeasureGradientNoise,
    Notice,
    Phase,
    PhaseName,
    decode_command,
    decode_failure,
    decode_fork,
    encode,
    tag,
)

TRIALS = sorted((Path(__file__).parents[2] / "reports" / "gallery" / "reality" / "trials").glob("*/*.json"))

_reals = st.floats(allow_nan=False, allow_infinity=False)
_counts = st.integers(min_value=0, max_value=2**60)
_texts = st.text(max_size=20)
_names = st.dictionaries(_texts, _texts, max_size=3)


def _tuples(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values, max_size=4).map(tuple)


_values = st.booleans() | st.integers(-(2**60), 2**60) | _reals | _texts
_configs = st.dictionaries(_texts, _values, max_size=5).map(Configuration)
_slices = st.builds(
    Slice,
    round=st.integers(-1, 1_000),
    tokens=_counts,
    seconds=_reals,
    step_seconds=_tuples(_reals),
    losses=_tuples(_reals),
    peak_memory_bytes=_counts,
    energy_joules=st.none() | _reals,
    skipped_steps=_counts,
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


# -- records and events of a study -------------------------------------------------------------------


@given(_records)
def test_a_record_is_read_back_as_it_was_written(record: TrialRecord) -> None:
    text = json.dumps(to_json(record), allow_nan=False)
    read = from_json(TrialRecord, parse(text))
    assert read == record
    assert list(read.spec.config.items()) == list(record.spec.config.items())


@given(_specs)
def test_a_spec_is_read_back_as_it_was_written(spec: TrialSpec) -> None:
    assert from_json(TrialSpec, parse(json.dumps(to_json(spec)))) == spec


def _record(outcome: Outcome) -> TrialRecord:
    config = Configuration({"micro_batch": 4, "learning_rate": 1.0, "dtype": "fp32", "tied_head": False})
    return TrialRecord(
        spec=TrialSpec(number=0, stage=Stage.RACE, label="", config=config, seed=0, horizon_tokens=1, block=0),
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


def test_the_outcome_of_a_record_is_tagged() -> None:
    """Two members of the union have the same fields: only the tag tells them apart."""
    hung = Failed(kind=FailedKind.HUNG, message="silent")
    assert to_json(_record(hung))["outcome"] == {"failed": {"kind": "hung", "message": "silent"}}
    assert to_json(_record(Completed()))["outcome"] == {"completed": {}}


def test_a_configuration_is_a_plain_object_in_its_own_order() -> None:
    plain = to_json(_record(Completed()))
    text = '{"micro_batch": 4, "learning_rate": 1.0, "dtype": "fp32", "tied_head": false}'
    assert json.dumps(plain["spec"]["config"]) == text
    assert json.dumps(dict(from_json(TrialRecord, plain).spec.config)) == text


def test_a_record_from_before_a_field_has_its_default_there() -> None:
    """The default of a field that came later says what was so before it; without one, a gap is never filled."""
    record = _record(Completed())
    plain = to_json(record)
    assert from_json(TrialRecord, plain) == record
    for name in ("fingerprints", "gradient_noise"):
        del plain[name]
    assert from_json(TrialRecord, plain) == record
    del plain["costs"]
    with pytest.raises(Malformed, match=r"^TrialRecord\.costs is missing$"):
        from_json(TrialRecord, plain)


def test_the_trials_of_an_old_study_are_read_and_written_as_they_were() -> None:
    assert len(TRIALS) > 50
    for path in TRIALS:
        plain = json.loads(path.read_text())
        again = to_json(from_json(TrialSpec if path.name == "spec.json" else TrialRecord, plain))
        later = {name: value for name, value in again.items() if name not in plain}
        assert json.dumps(again) == json.dumps(plain | later), f"the same data in the same order: {path}"
        assert set(later) <= {"others_share"}, "added since, with its default"


def test_what_happens_in_a_search_is_tagged() -> None:
    started = events.TrialStarted(stage=Stage.RACE, number=3, label="", changes={"dtype": "fp32", "micro_batch": 8})
    plain = {
        "elapsed_seconds": 1.5,
        "what": {
            "trial_started": {
                "stage": "race",
                "number": 3,
                "label": "",
                "changes": {"dtype": "fp32", "micro_batch": 8},
            }
        },
    }
    event = events.Event(elapsed_seconds=1.5, what=started)
    assert to_json(event) == plain
    assert from_json(events.Event, plain) == event
    finished = events.StageFinished(stage=Stage.RACE, spent_seconds=2.0, reason=StageEnd.DONE)
    assert to_json(events.Event(elapsed_seconds=2.0, what=finished))["what"] == {
        "stage_finished": {"stage": "race", "spent_seconds": 2.0, "reason": "done"}
    }


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_not_written(loss: float) -> None:
    evaluation = Evaluation(tokens_seen=1, loss=loss, stderr=0.1, tokens=1, bits_per_byte=1.0)
    with pytest.raises(Malformed, match=r"Evaluation\.loss must be a finite number"):
        to_json(evaluation)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("stage", "race", r"TrialSpec\.stage must be an instance of Stage; got 'race'"),
        ("config", {"dtype": "fp32"}, r"TrialSpec\.config must be an instance of Configuration"),
        (
            "config",
            Configuration({"dropout": math.nan}),
            r"config\.dropout must be one of .* finite float",
        ),
        ("seed", 1.0, r"TrialSpec\.seed must be a valid integer; got 1\.0"),
    ],
)
def test_a_field_that_does_not_hold_its_type_is_not_written(name: str, value: object, words: str) -> None:
    fields: dict[str, Any] = {
        "number": 0,
        "stage": Stage.RACE,
        "label": "",
        "config": Configuration({}),
        "seed": 0,
        "horizon_tokens": 1,
        "block": 0,
    }
    assert from_json(TrialSpec, to_json(TrialSpec(**fields))) == TrialSpec(**fields)
    with pytest.raises(Malformed, match=words):
        to_json(TrialSpec(**{**fields, name: value}))


def test_what_is_no_member_of_a_union_is_not_written() -> None:
    with pytest.raises(Malformed, match=r"TrialRecord\.outcome must be one of Completed, Pruned, Infeasible, Failed"):
        to_json(_record("completed"))  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Even:
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError(f"number must be even; got {self.number}: add one")


def test_a_dataclass_that_checks_itself_refuses_in_its_own_words() -> None:
    assert from_json(_Even, {"number": 4}) == _Even(4)
    with pytest.raises(Malformed, match=r"^_Even: number must be even; got 3: add one$"):
        from_json(_Even, {"number": 3})


@dataclass(frozen=True)
class _Loose:
    points: tuple[tuple[int, float], ...]
    data: Mapping[str, object]
    names: Mapping[str, str] = field(default_factory=dict)


def test_pairs_and_plain_values_and_any_mapping_are_kept() -> None:
    data = {"a": [1, None, {"b": True}], "c": "d", "e": 1.0}
    loose = _Loose(points=((1, 2.0), (3, 4.5)), data=data, names=MappingProxyType({"f": "g"}))
    assert from_json(_Loose, parse(json.dumps(to_json(loose)))) == loose


def test_plain_values_are_checked_down_to_their_numbers() -> None:
    with pytest.raises(Malformed, match=r"^_Loose\.data\.a\S* must be a finite number; got nan$"):
        to_json(_Loose(points=(), data={"a": [math.nan]}))


def test_a_pair_has_two_elements() -> None:
    with pytest.raises(Malformed, match=r"^_Loose\.points\[0\]: Tuple should have at most 2 items"):
        from_json(_Loose, {"points": [[1, 2.0, 3.0]], "data": {}})


# -- the wire, read by the driver, which trusts nobody -----------------------------------------------


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


def test_what_may_be_none_is_null_and_what_may_not_is_refused() -> None:
    energies = {"": None, "null": None, "12": 12.0, "0.5": 0.5}
    for written, energy in energies.items():
        event = parse_event(_slice_text(energy_joules=written))
        assert isinstance(event, Slice)
        assert event.energy_joules == energy
    assert b'"energy_joules":null' in encode_event(parse_event(_slice_text()))
    with pytest.raises(Malformed, match=r"event\.slice\.energy_joules must be a valid number; got 'much'"):
        parse_event(_slice_text(energy_joules='"much"'))


def test_an_int_may_stand_for_a_float_and_nothing_else_is_converted() -> None:
    event = parse_event(_slice_text(seconds="2"))
    assert isinstance(event, Slice)
    assert type(event.seconds) is type(event.losses[0]) is float


_EVALUATION = b'{"tokens_seen": 1, "loss": 1.0, "stderr": 0.1, "tokens": 1, "bits_per_byte": 1.0}'


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (_slice_text(seconds="NaN"), r"event\.slice\.seconds must be a finite number; got nan"),
        (_slice_text(seconds="-Infinity"), r"event\.slice\.seconds must be a finite number"),
        (_slice_text(losses="[NaN]"), r"event\.slice\.losses\[0\] must be a finite number"),
        (_slice_text(seconds="1e999"), r"event\.slice\.seconds must be a finite number"),
        (_slice_text(seconds="1" + "0" * 400), r"event\.slice\.seconds must be a (finite|valid) number"),
        (_slice_text(seconds="1" + "0" * 9_000), "JSON"),
        (_slice_text(seconds="true"), r"event\.slice\.seconds"),
        (_slice_text(seconds="null"), r"event\.slice\.seconds"),
        (_slice_text(tokens="10.0"), r"event\.slice\.tokens must be a valid integer"),
        (_slice_text(tokens="true"), r"event\.slice\.tokens"),
        (_slice_text(losses='[1.0, "x"]'), r"event\.slice\.losses\[1\]"),
        (_slice_text(losses="1.0"), r"event\.slice\.losses must be a valid array"),
        (_slice_text(seconds=""), r"event\.slice\.seconds is missing$"),
        (_slice_text(speed="1"), r"event\.slice\.speed is not known$"),
        (b'{"phase": {"name": "tired"}}', r"event\.phase\.name"),
        (b'{"phase": {"name": []}}', r"event\.phase\.name"),
        (b'{"phase": ["name"]}', r"event\.phase must be an object"),
        (b'{"failure": {"kind": {}, "message": ""}}', r"event\.failure\.kind must be one of oom, .*implausible; got"),
        (b'{"phase": {"name": "built"}, "close": {}}', r"event\.close is not known$"),
        (b'{"phase": {"name": "built"}, "evaluation": ' + _EVALUATION + b"}", "one key out of phase, ready, slice"),
        (b'{"forked": {"pid": 1}}', r"event\.forked is not known$"),
        (b"{}", "one key"),
        (b"[]", "an object"),
        (b"7", "an object"),
        (b"", "JSON"),
        (b"\xff\xfe\x00", "JSON"),
        (b'{"slice"', "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"phase": {"name": ' + b"[" * 400 + b"]" * 400 + b"}}", "JSON"),
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


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": 1', "", b"\xff"])
def test_a_text_that_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(Malformed, match="JSON"):
        parse(text)


# -- the wire, read and written by the worker's side with the standard library alone -----------------


@pytest.mark.parametrize("notice", [Launcher(ready={}), Forked(pid=5), Exited(pid=5, status=9)])
def test_what_a_launcher_writes_the_driver_reads(notice: Notice) -> None:
    assert parse_notice(encode(notice).encode()) == notice


@pytest.mark.parametrize(
    "command",
    [Advance(steps=3, round=-1), Evaluate(), MeasureFingerprint(), MeasureGradientNoise(batches=2), Close()],
)
def test_what_the_driver_orders_a_worker_reads(command: Command) -> None:
    assert decode_command(encode_command(command).decode()) == command


def test_what_the_driver_orders_a_launcher_reads() -> None:
    assert decode_fork(encode_fork("/some/where.json")) == Fork(session="/some/where.json")


@given(_failures)
def test_what_a_rank_fails_of_rank_0_reads(failure: Failure) -> None:
    read = decode_failure(encode(failure))
    assert read == failure
    assert type(read.kind) is type(failure.kind)


@pytest.mark.parametrize(
    "line",
    [
        '{"advance": {"steps": 1}}',
        '{"advance": {"steps": 1, "round": 1, "speed": 1}}',
        '{"train": {}}',
        '{"evaluate": {}, "close": {}}',
        '{"evaluate": null}',
        '{"failure": {"kind": "crash", "message": ""}}',
        "[]",
        "7",
        "",
    ],
)
def test_a_worker_takes_no_other_commands(line: str) -> None:
    with pytest.raises(ValueError, match="a message must be one of advance, evaluate, fingerprint, gradient_noise, cl"):
        decode_command(line)


def test_a_worker_writes_no_number_that_is_not_finite() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(Evaluation(tokens_seen=1, loss=math.nan, stderr=0.1, tokens=1, bits_per_byte=1.0))


def test_the_names_of_commands() -> None:
    names = ["advance", "evaluate", "fingerprint", "gradient_noise", "close"]
    assert [tag(kind) for kind in get_args(Command)] == names


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("autotune_model.protocol", "autotune"),
        ("autotune_model.protocol", "torch"),
        ("autotune.trial.types", "pydantic"),
    ],
)
def test_messages_and_records_import_nothing_heavy(module: str, absent: str) -> None:
    script = f"import sys, {module}; sys.exit({absent!r} in sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", script], check=True)
