"""What every workload promises. Inherit `WorkloadContract` and override its fixtures."""

from __future__ import annotations

import json
import math

import pytest

from autotune.quantity import Unknown
from autotune.simulation.executor import MACHINE
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.knobs import KnobClass, contains, members
from autotune.workload.base import CompareSketches, NoGate, Workload
from autotune.workload.machine import Machine


class WorkloadContract:
    """Subclasses give a workload, a legal other value of one of its knobs, and a combination that cannot be."""

    @pytest.fixture
    def workload(self) -> Workload:
        raise NotImplementedError("give the workload")

    @pytest.fixture
    def change(self) -> tuple[str, object]:
        """A knob and a value that it may be turned to by itself."""
        raise NotImplementedError("give a knob and another value of it")

    @pytest.fixture
    def impossible(self) -> dict[str, object]:
        """Values that no run can have together."""
        raise NotImplementedError("give values that exclude each other")

    @pytest.fixture
    def machine(self) -> Machine:
        return MACHINE

    @pytest.fixture
    def other(self, workload: Workload, change: tuple[str, object]) -> Configuration:
        name, value = change
        return workload.baseline.with_values({name: value})  # type: ignore[dict-item]

    def test_every_knob_is_described_and_the_baseline_legal(self, workload: Workload) -> None:
        workload.check(workload.baseline)
        assert set(workload.baseline) == set(workload.knobs)
        for name, knob in workload.knobs.items():
            assert knob.name == name
            assert knob.title
            assert knob.knob_class in KnobClass
            assert not knob.problem_with(workload.baseline[name])
            assert contains(knob.domain, workload.baseline[name])
            assert knob.problem_with(object())

    def test_a_change_is_a_configuration_of_its_own(self, workload: Workload, other: Configuration) -> None:
        workload.check(other)
        assert other != workload.baseline
        assert len(other.difference(workload.baseline)) == 1
        assert other.with_values(workload.baseline) == workload.baseline
        assert hash(other.with_values(workload.baseline)) == hash(workload.baseline)

    def test_what_cannot_be_is_refused_with_rule_value_and_remedy(
        self, workload: Workload, impossible: dict[str, object]
    ) -> None:
        with pytest.raises(InvalidConfiguration, match=r".+; got .+: .+") as refused:
            workload.check(workload.baseline.with_values(impossible))  # type: ignore[arg-type]
        assert "\n" not in str(refused.value)
        with pytest.raises(InvalidConfiguration):
            workload.order(workload.baseline.with_values(impossible), seed=0, horizon_tokens=1_000)  # type: ignore[arg-type]

    def test_the_expert_is_a_legal_configuration(self, workload: Workload, machine: Machine) -> None:
        expert = workload.expert(machine)
        workload.check(expert)
        assert set(expert) == set(workload.baseline)

    def test_limits_name_knobs_and_reasons(self, workload: Workload, machine: Machine) -> None:
        values = {name: tuple(members(knob.domain))[:9] for name, knob in workload.knobs.items()}
        for name, reasons in workload.limits(machine, values).items():
            assert name in workload.knobs
            assert all(reasons.values())

    def test_a_step_has_tokens_and_a_pass_no_more_than_that(self, workload: Workload, other: Configuration) -> None:
        for configuration in (workload.baseline, other):
            cost = workload.cost(configuration)
            assert 0 < cost.pass_tokens <= cost.tokens
            assert workload.cost(configuration) == cost

    def test_memory_is_a_number_of_bytes_or_not_known_and_why(self, workload: Workload, machine: Machine) -> None:
        match workload.peak_bytes(workload.baseline, machine):
            case Unknown(reason=reason):
                assert reason
            case peak:
                assert 0 < peak < 1 << 50

    def test_the_baseline_passes_its_own_gate(self, workload: Workload, other: Configuration) -> None:
        for configuration in (workload.baseline, other):
            match workload.gate(configuration):
                case CompareSketches() as gate:
                    assert all(0 < t <= math.inf for t in (gate.logits, gate.gradient, gate.update))
                case NoGate(reason=reason):
                    assert reason

    def test_an_order_is_plain_data_and_names_what_differs(self, workload: Workload, other: Configuration) -> None:
        ordered = workload.order(workload.baseline, seed=1, horizon_tokens=workload.horizon_tokens)
        assert json.loads(json.dumps(ordered.payload)) == ordered.payload
        assert all(isinstance(word, str) for word in ordered.program)
        assert ordered == workload.order(workload.baseline, seed=1, horizon_tokens=workload.horizon_tokens)
        json.dumps(workload.order(other, seed=2, horizon_tokens=2 * workload.horizon_tokens).payload)
        json.dumps(workload.examination({}).payload)

    def test_the_area_of_a_schedule_is_positive_and_grows_with_its_length(self, workload: Workload) -> None:
        areas = [workload.schedule_area(workload.baseline, tokens) for tokens in (100_000, 400_000)]
        known = [area for area in areas if not isinstance(area, Unknown)]
        assert len(known) in (0, 2)
        assert known == sorted(known)
        assert all(area > 0 for area in known)

    def test_claims_of_speed_compare_legal_configurations(self, workload: Workload, machine: Machine) -> None:
        for claim in workload.speed_claims(machine):
            workload.check(claim.aligned)
            workload.check(claim.other)
            assert claim.words
            assert claim.aligned != claim.other

    def test_its_identity_is_text_and_changes_with_nothing_but_itself(self, workload: Workload) -> None:
        identity = workload.identity()
        assert identity == workload.identity()
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in identity.items())
        assert workload.with_corpus("/another/text").identity() == identity, "the text's content says what it is"

    def test_another_text_changes_the_text_alone(self, workload: Workload) -> None:
        other = workload.with_corpus("/another/text")
        assert other.corpus == "/another/text"
        assert other.baseline == workload.baseline
        assert other.knobs == workload.knobs
