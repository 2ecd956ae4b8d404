"""The memory model: known sizes by hand, and the directions in which it must grow."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autotune_model import memory
from autotune_model.config import GPTConfig, TrainingConfig
from autotune_model.gpt import GPT
from autotune_model.memory import RUNTIME_BYTES, multiplied_parameter_count, parameter_count, predict_peak_bytes
from autotune_model.optim import build_optimizer

SMALL = GPTConfig(layers=2, heads=4, width=8, sequence_length=16)
VOCABULARY = 32


def test_parameters_of_a_model_counted_by_hand() -> None:
    layer = 8 * 24 + 8 * 8 + 8 * 32 + 32 * 8 + 2 * 8  # qkv, projection, the MLP, two norms
    untied = 32 * 8 + 16 * 8 + 2 * layer + 8 + 32 * 8
    assert parameter_count(SMALL, VOCABULARY, tied_head=False) == untied
    assert parameter_count(SMALL, VOCABULARY, tied_head=True) == untied - 32 * 8
    assert multiplied_parameter_count(SMALL, VOCABULARY) == untied - 32 * 8 - 16 * 8


def test_gpt2_small_has_its_known_size() -> None:
    gpt2 = GPTConfig(layers=12, heads=12, width=768, sequence_length=1_024)
    biases = (
        12 * 11 * 768 + 768
    )  # the published 124.4 million include them: 9 widths a layer, 2 in norms, the last norm
    assert parameter_count(gpt2, 50_257, tied_head=True) + biases == 124_439_808


def test_bytes_of_a_session_counted_by_hand() -> None:
    training = TrainingConfig(micro_batch=2, global_batch=8, attention="math", dtype="fp32")
    state = 16 * parameter_count(SMALL, VOCABULARY, tied_head=False)
    scores = 4 * 4 * 16  # fp32, 4 heads, 16 positions looked at
    per_token = 2 * (64 * 8 + scores) + 4 * scores + 16 * 32
    assert predict_peak_bytes(SMALL, VOCABULARY, training) == RUNTIME_BYTES + state + 2 * 16 * per_token


@pytest.mark.parametrize("tied_head", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_the_state_of_an_optimizer_is_what_torch_allocates(optimizer: str, tied_head: bool) -> None:
    training = TrainingConfig(micro_batch=1, global_batch=1, optimizer=optimizer, tied_head=tied_head)
    model = GPT(SMALL, training, vocab_size=VOCABULARY, seed=0)
    tokens = torch.arange(16).view(1, 16)
    model(tokens, tokens).backward()
    built = build_optimizer(model, training)
    built.step()
    counts = [t.nbytes for state in built.state.values() for name, t in state.items() if name != "step"]
    adamw = dataclasses.replace(training, optimizer="adamw")
    saved = predict_peak_bytes(SMALL, VOCABULARY, adamw) - predict_peak_bytes(SMALL, VOCABULARY, training)
    assert sum(counts) == 8 * model.parameter_count - saved


def test_adafactor_has_lists_for_a_fused_kernel() -> None:
    wide = GPTConfig(layers=2, heads=4, width=256, sequence_length=8)  # whose peak is the update

    def predicted(**knobs: object) -> int:
        return predict_peak_bytes(wide, VOCABULARY, _training(micro_batch=1, **knobs))

    in_lists = predicted(optimizer="adafactor", optimizer_kernel="foreach")
    assert predicted(optimizer="adafactor", optimizer_kernel="fused") == in_lists
    assert predicted(optimizer="adafactor") < in_lists


def test_activations_in_half_precision_follow_korthikanti() -> None:
    """Sixteen activations of two bytes, and two norms whose inputs autocast keeps in fp32."""
    one = TrainingConfig(micro_batch=1, global_batch=2, attention="sdpa", dtype="bf16_autocast")
    two = dataclasses.replace(one, micro_batch=2)
    grown = predict_peak_bytes(SMALL, VOCABULARY, two) - predict_peak_bytes(SMALL, VOCABULARY, one)
    assert grown == 16 * (2 * ((32 + 4) * 8 + 4 * 4) + 12 * 32)


_shapes = st.builds(
    lambda layers, heads, head_width, sequence_length: GPTConfig(
        layers=layers, heads=heads, width=heads * head_width, sequence_length=sequence_length
    ),
    layers=st.integers(1, 48),
    heads=st.integers(1, 32),
    head_width=st.integers(8, 128),
    sequence_length=st.integers(8, 8_192),
)


def _training(**knobs: object) -> TrainingConfig:
    return TrainingConfig(global_batch=65_536, **knobs)  # type: ignore[arg-type]


@given(
    gpt=_shapes,
    exponent=st.integers(0, 15),
    dtype=st.sampled_from(("fp32", "bf16_autocast")),
    attention=st.sampled_from(("math", "sdpa")),
    dropout=st.sampled_from((0.0, 0.1)),
    vocab_size=st.integers(257, 100_000),
)
def test_more_of_anything_takes_more_memory(
    gpt: GPTConfig, exponent: int, dtype: str, attention: str, dropout: float, vocab_size: int
) -> None:
    training = _training(micro_batch=2**exponent, dtype=dtype, attention=attention, dropout=dropout)
    predicted = predict_peak_bytes(gpt, vocab_size, training)
    larger = dataclasses.replace(training, micro_batch=2 ** (exponent + 1))
    assert predict_peak_bytes(gpt, vocab_size, larger) > predicted
    assert predict_peak_bytes(gpt, vocab_size + 1, training) > predicted
    assert predict_peak_bytes(dataclasses.replace(gpt, layers=gpt.layers + 1), vocab_size, training) > predicted
    longer = dataclasses.replace(gpt, sequence_length=gpt.sequence_length + 1)
    assert predict_peak_bytes(longer, vocab_size, training) > predicted


@given(gpt=_shapes, vocab_size=st.integers(257, 100_000))
def test_techniques_save_what_they_are_known_to_save(gpt: GPTConfig, vocab_size: int) -> None:
    def predicted(**knobs: object) -> int:
        return predict_peak_bytes(gpt, vocab_size, _training(micro_batch=8, **knobs))

    assert predicted(tied_head=True) < predicted(tied_head=False)
    assert predicted(optimizer_kernel="fused") <= predicted(optimizer_kernel="foreach")
    assert predicted(attention="sdpa") < predicted(attention="math")
    assert predicted(dtype="bf16_pure") < min(predicted(dtype="bf16_master"), predicted())
    whole = TrainingConfig(micro_batch=8, global_batch=8, clip_norm=0.0)
    in_backward = dataclasses.replace(whole, optimizer_in_backward=True)
    assert predict_peak_bytes(gpt, vocab_size, in_backward) < predict_peak_bytes(gpt, vocab_size, whole)
    assert predicted(checkpointing=True) < predicted() or gpt.layers == 1
    assert predicted(vocab_multiple=4_096) >= predicted()
    assert predicted(optimizer="adafactor") < predicted(optimizer="muon") < predicted(optimizer="adamw")
    assert predicted(dropout=0.1) > predicted()
    assert predict_peak_bytes(gpt, vocab_size, TrainingConfig(micro_batch=8, global_batch=8)) == predicted()


@given(gpt=_shapes, vocab_size=st.integers(257, 100_000))
def test_processes_cost_a_runtime_each_and_what_they_do_not_share(gpt: GPTConfig, vocab_size: int) -> None:
    def beyond_runtimes(**knobs: object) -> int:
        training = _training(micro_batch=8, **knobs)
        others = (training.world_size - 1) * memory._SPAWNED_BYTES
        return predict_peak_bytes(gpt, vocab_size, training) - training.world_size * RUNTIME_BYTES - others

    alone = beyond_runtimes()
    ddp = beyond_runtimes(parallelism="ddp", world_size=4)
    assert ddp >= 4 * alone
    for parallelism in ("tensor", "pipeline"):
        assert alone < beyond_runtimes(parallelism=parallelism, world_size=4) < ddp
    assert alone < beyond_runtimes(parallelism="fsdp", world_size=4)
