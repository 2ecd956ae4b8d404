"""Every system knob changes what it should: the dtype of a buffer, the kernel that runs, what is kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from autotune_model import gpt as gpt_module
from autotune_model.config import InvalidConfiguration, TrainingConfig
from autotune_model.data import Prefetching
from autotune_model.gpt import GPT, GPTConfig
from autotune_model.inspections import fingerprint
from autotune_model.optim import InBackward
from autotune_model.trainer import Trainer

MakeTrainer = Callable[..., Trainer]


@pytest.fixture(autouse=True)
def _own_precision() -> Iterator[None]:
    """A trainer sets the precision of products for its whole process."""
    yield
    torch.set_float32_matmul_precision("highest")


def operators(trainer: Trainer) -> set[str]:
    """The operators that a training step runs."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        trainer.step()
    return {event.name for event in profiler.events()}


@pytest.mark.parametrize(
    ("attention", "operator", "absent"),
    [
        ("math", "aten::softmax", "aten::_scaled_dot_product_flash_attention_for_cpu"),
        ("sdpa", "aten::scaled_dot_product_attention", "aten::softmax"),
        ("flash", "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::softmax"),
    ],
)
def test_the_attention_kernel_is_the_one_that_is_named(
    make_trainer: MakeTrainer, attention: str, operator: str, absent: str
) -> None:
    found = operators(make_trainer(attention=attention))
    assert operator in found
    assert absent not in found


@pytest.mark.parametrize("attention", ["efficient", "cudnn"])
def test_a_kernel_that_a_cpu_lacks_is_an_error_and_not_another_kernel(
    make_trainer: MakeTrainer, attention: str
) -> None:
    with pytest.raises(RuntimeError, match="No viable backend"):
        make_trainer(attention=attention).step()


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_computes_what_math_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU torch has its forward pass alone, and compiling it takes long: here it runs uncompiled."""
    monkeypatch.setattr(gpt_module, "_compiled_flex", lambda: gpt_module.flex_attention)
    config = GPTConfig(layers=1, heads=2, width=32, sequence_length=16)
    tokens = torch.arange(32).view(2, 16)
    with torch.no_grad():
        flex, math = (
            GPT(config, TrainingConfig(attention=kernel), vocab_size=40, seed=0).logits(tokens)
            for kernel in ("flex", "math")
        )
    torch.testing.assert_close(flex, math, rtol=1e-5, atol=1e-6)


def test_the_vocabulary_is_padded_and_its_padding_never_learns(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(vocab_multiple=64, weight_decay=0.0)
    rows, used = len(trainer.model.head.weight), trainer.model.vocab_size
    assert rows % 64 == 0
    assert used < rows < used + 64
    trainer.advance(3, round=-1)
    for weight in (trainer.model.head.weight, trainer.model.token_embedding.weight):
        assert not weight[used:].any()
    assert trainer.model.logits(torch.zeros(1, 2, dtype=torch.int64)).shape[-1] == used


@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
@pytest.mark.parametrize("prefetch", [False, True])
def test_tokens_have_the_index_dtype_on_the_device(
    make_trainer: MakeTrainer, index_dtype: str, prefetch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(index_dtype=index_dtype, prefetch=prefetch)
    seen: list[torch.Tensor] = []
    loss = trainer.parallel.loss
    monkeypatch.setattr(trainer.parallel, "loss", lambda tokens, targets: seen.append(tokens) or loss(tokens, targets))
    trainer.step()
    assert [str(tokens.dtype) for tokens in seen] == [f"torch.{index_dtype}"]


def test_prefetching_reads_ahead_in_another_thread(make_trainer: MakeTrainer) -> None:
    plain, ahead = make_trainer(), make_trainer(prefetch=True)
    count = plain.session.training.micro_batch
    assert torch.equal(plain.batches.take(0, count)[0], ahead.batches.take(0, count)[0])
    expected = plain.batches.take(count, count)[1]
    assert ahead.batches._read is not None
    assert torch.equal(ahead.batches._read.result(timeout=10)[1], expected), "read before it was asked for"
    assert torch.equal(plain.batches.take(2, 1)[0], ahead.batches.take(2, 1)[0]), "out of order"


def test_prefetching_skips_what_other_processes_take(make_trainer: MakeTrainer) -> None:
    batches = make_trainer().batches
    ahead = Prefetching(batches, ranks=3)
    ahead.take(1, 2)
    assert ahead._next == (7, 2)
    assert ahead._read is not None
    assert torch.equal(ahead._read.result(timeout=10)[0], batches.take(7, 2)[0])


@pytest.mark.parametrize(
    ("dtype", "weights", "updated", "moments"),
    [
        ("fp32", torch.float32, torch.float32, torch.float32),
        ("bf16_autocast", torch.float32, torch.float32, torch.float32),
        ("bf16_master", torch.bfloat16, torch.float32, torch.float32),
        ("bf16_pure", torch.bfloat16, torch.bfloat16, torch.bfloat16),
    ],
)
def test_weights_and_moments_are_stored_in_the_dtype(
    make_trainer: MakeTrainer, dtype: str, weights: torch.dtype, updated: torch.dtype, moments: torch.dtype
) -> None:
    trainer = make_trainer(dtype=dtype)
    trainer.step()
    assert {w.dtype for w in trainer.model.parameters()} == {weights}
    assert {w.dtype for w in trainer.updated.parameters()} == {updated}
    assert {state["exp_avg"].dtype for state in trainer.optimizer.state.values()} == {moments}


def test_a_master_adds_up_what_bf16_alone_would_lose(make_trainer: MakeTrainer) -> None:
    """Steps of 1e-5 are a hundredth of a bf16 weight's last digit."""
    moved = {}
    for dtype in ("bf16_master", "bf16_pure"):
        trainer = make_trainer(dtype=dtype, learning_rate=1e-5, schedule="constant", warmup_fraction=0.0)
        before = [w.detach().clone() for w in trainer.updated.parameters()]
        trainer.advance(3, round=-1)
        after = trainer.updated.parameters()
        moved[dtype] = sum(int((a != b).sum()) for a, b in zip(after, before, strict=True))
    assert moved["bf16_pure"] < 0.8 * moved["bf16_master"]


@pytest.mark.parametrize("dtype", ["bf16_master", "bf16_pure"])
def test_bf16_weights_learn(make_trainer: MakeTrainer, dtype: str) -> None:
    trainer = make_trainer(dtype=dtype, micro_batch=4, global_batch=8)
    before = trainer.evaluate().loss
    trainer.advance(20, round=-1)
    assert trainer.evaluate().loss < before - 1.0


def test_medium_precision_is_set_for_the_process_and_changes_products(make_trainer: MakeTrainer) -> None:
    exact = make_trainer().advance(1, round=-1).losses
    assert torch.get_float32_matmul_precision() == "highest"
    make_trainer(matmul_precision="medium").advance(1, round=-1)
    assert torch.get_float32_matmul_precision() == "medium"
    assert make_trainer().advance(1, round=-1).losses == exact, "set back by the next session"


class LargestTensor(TorchDispatchMode):
    """Watches how many elements the largest result of an operator has."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_the_chunked_loss_never_holds_all_logits(make_trainer: MakeTrainer) -> None:
    largest = {}
    for kernel in ("full", "chunked"):
        trainer = make_trainer(loss_kernel=kernel)
        with LargestTensor() as watch:
            trainer.step()
        largest[kernel] = watch.elements
    logits = 8 * 16 * make_trainer().model.vocab_size
    assert largest["full"] >= logits > largest["chunked"]


def test_checkpointing_computes_blocks_twice(make_trainer: MakeTrainer) -> None:
    calls = {}
    for checkpointing in (False, True):
        trainer = make_trainer(checkpointing=checkpointing)
        count: list[int] = []
        trainer.model.blocks[0].mlp_in.register_forward_hook(lambda *_, count=count: count.append(1))
        trainer.step()
        calls[checkpointing] = len(count)
        trainer.evaluate()
    assert calls == {False: 1, True: 2}


@pytest.mark.parametrize("layout", ["strided", "contiguous"])
def test_queries_lie_in_one_piece_where_they_are_copied(
    make_trainer: MakeTrainer, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(qkv_layout=layout)
    attention = trainer.model.blocks[0].attention
    seen: list[bool] = []
    math = attention._math
    monkeypatch.setattr(attention, "_math", lambda q, k, v: seen.append(q.is_contiguous()) or math(q, k, v))
    trainer.step()
    assert seen == [layout == "contiguous"]


@pytest.mark.parametrize("set_to_none", [False, True])
def test_gradients_are_freed_or_zeroed(make_trainer: MakeTrainer, set_to_none: bool) -> None:
    trainer = make_trainer(set_to_none=set_to_none)
    trainer.step()
    kept = [weight.grad for weight in trainer.model.parameters() if weight.grad is not None]
    assert bool(kept) is not set_to_none
    assert not any(gradient.any() for gradient in kept)


def test_an_update_in_the_backward_pass_leaves_no_gradient(make_trainer: MakeTrainer) -> None:
    fused, plain = (make_trainer(optimizer_in_backward=on, clip_norm=0.0) for on in (True, False))
    assert isinstance(fused.optimizer, InBackward)
    fused.set_rates(1e-2, 0.0)
    fused.optimizer.is_armed = True
    fused.accumulate()
    assert all(weight.grad is None for weight in fused.model.parameters())
    assert fused.skipped_steps == -1, "every weight was updated before the step was counted"
    again = make_trainer(optimizer_in_backward=True, clip_norm=0.0)
    again.first_pass()
    fingerprint(again)
    assert again.advance(5, round=-1).losses == pytest.approx(plain.advance(5, round=-1).losses, rel=1e-5)
    assert again.skipped_steps == 0


def test_regional_compilation_compiles_each_block_and_evaluates_without(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []

    def pretend(module: torch.nn.Module, **_: Any) -> Callable[..., Any]:
        return lambda x: compiled.append(type(module).__name__) or module(x)

    monkeypatch.setattr(torch, "compile", pretend)
    trainer = make_trainer(compile="regional")
    trainer.step()
    assert compiled == ["Block", "Block"]
    trainer.evaluate()
    assert compiled == ["Block", "Block"]


def test_pinned_memory_without_a_gpu_is_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(InvalidConfiguration, match="pinned_memory needs a GPU to copy to"):
        make_trainer(pinned_memory=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs a GPU")
def test_pinned_batches_are_copied_without_waiting() -> None:
    from autotune_model.device import to_device

    rows = torch.arange(8)
    assert torch.equal(to_device(rows, torch.device("cuda"), pinned=True).cpu(), rows)


@pytest.mark.parametrize(
    ("knobs", "rule"),
    [
        ({"optimizer_in_backward": True}, "needs clip_norm"),
        ({"optimizer_in_backward": True, "clip_norm": 0.0, "micro_batch": 4}, "needs accumulation_steps"),
        ({"optimizer_in_backward": True, "clip_norm": 0.0, "dtype": "bf16_master"}, "neither skip a step"),
        ({"loss_kernel": "chunked", "compile": "default"}, "as part of the whole graph"),
        ({"loss_kernel": "chunked", "vocab_multiple": 64}, "not work with padded rows"),
        ({"matmul_precision": "medium", "dtype": "bf16_pure"}, "only affects fp32 products"),
    ],
)
def test_what_cannot_exist_together_is_refused(knobs: dict[str, Any], rule: str) -> None:
    with pytest.raises(InvalidConfiguration, match=rule):
        TrainingConfig(**knobs)
