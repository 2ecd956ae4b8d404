"""Logs of the user's own runs: what is read from them, and what is refused."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.study.runlog import (
    ExpectedRun,
    LogPoint,
    Refusal,
    RefusalKind,
    RunLog,
    parse_run_log,
    read_run_log,
)

EXPECTED = ExpectedRun(
    configuration={"learning_rate": "0.001", "schedule": "cosine", "tied_head": "False", "global_batch": "16"},
    tokens_per_step=2_000,
    vocab_size=1_024,
    parameters=541_344,
    corpus_sha256="ab" * 32,
    corpus="stdlib",
    plan_tokens=2_000_000,
    shortest_tokens=40_000,
    cooled=((40_000, 5.0), (160_000, 4.2)),
)
STEPS = range(100, 1_001, 100)
POINTS = tuple(LogPoint(tokens=step * 2_000, loss=round(7 - 0.5 * math.log(step), 4)) for step in STEPS)
"""A log that fits: 200,000 to 2,000,000 tokens, 4.70 to 3.55 nats per token."""


def parsed(text: str, expected: ExpectedRun = EXPECTED) -> RunLog:
    log = parse_run_log(text, expected)
    assert isinstance(log, RunLog), log
    return log


def refused(text: str, kind: RefusalKind, *words: str, expected: ExpectedRun = EXPECTED) -> None:
    """`text` is refused for `kind`, in one line that has all `words`."""
    refusal = parse_run_log(text, expected)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.kind is kind, refusal
    assert all(word in refusal.reason for word in words), refusal
    assert refusal.reason.startswith("a log must ")
    assert len(refusal.reason.splitlines()) == 1


def csv_of(points: tuple[LogPoint, ...] = POINTS, header: str = "tokens,val_loss", sign: str = ",") -> str:
    return "\n".join([header.replace(",", sign), *(f"{p.tokens}{sign}{p.loss}" for p in points)])


def rows_of(write: Callable[[int, int, float], str]) -> str:
    """One line a point: step, tokens and loss as `write` puts them."""
    return "\n".join(write(point.tokens // 2_000, point.tokens, point.loss) for point in POINTS)


# -- formats -----------------------------------------------------------------------------------------------------------

PRINTED = {
    "nanoGPT": lambda step, tokens, loss: (
        f"iter {step}: loss 3.1000, time 9.5ms, mfu 31.00%\nstep {step}: train loss 3.1234, val loss {loss}"
    ),
    "equal signs": lambda step, tokens, loss: f"step={step} val_loss={loss}",
    "commas": lambda step, tokens, loss: f"step={step},val_loss={loss},lr=1e-3",
    "modded": lambda step, tokens, loss: f"step:{step}/1000 val_loss:{loss} train_time:123ms step_avg:1.23ms",
    "thousands": lambda step, tokens, loss: f"tokens {tokens:,}: val loss {loss}",
    "both": lambda step, tokens, loss: f"step {step:,} | tokens {tokens:,} | loss 9.9 | eval/loss {loss:e}",
    "logging": lambda step, tokens, loss: (
        f"2025-01-01 12:00:00,123 - INFO - trainer: INFO step {step} - train_loss: 9 - val_loss: {loss} - 5ms/step"
    ),
    "colours": lambda step, tokens, loss: f"\x1b[32mstep {step}\x1b[0m validation loss: \x1b[1;31m{loss}\x1b[0m",
    "progress bar": lambda step, tokens, loss: (
        f"10%|#  | {step}/1000 [00:10<01:00, 9.9it/s]\r10%|#  | {step}/1000 [00:10, step={step}, val_loss={loss}]"
    ),
    "dict": lambda step, tokens, loss: f"{{'eval_loss': {loss}, 'eval_runtime': 1.5, 'step': {step}}}",
    "other numbers": lambda step, tokens, loss: (
        f"rank0: gpt2 epoch 1 step {step} lr 1e-3 aux loss 0.1 z_loss=0.2 tok/sec: 9,000 best val loss 1.5 "
        f"Val-Loss {loss}"
    ),
    "Windows": lambda step, tokens, loss: f"Step {step} Held-Out Loss {loss}\r",
}


@pytest.mark.parametrize("name", PRINTED)
def test_what_trainers_print_is_read(name: str) -> None:
    text = "using device cuda\n" + rows_of(PRINTED[name]) + "\nsaved to out/ckpt.pt, best val loss 1.5\n"
    assert parsed(text) == RunLog(points=POINTS, said={}, is_held_out=True)


@pytest.mark.parametrize("sign", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["tokens,val_loss", "Tokens Seen,Val/Loss", "consumed_tokens,loss/val"])
def test_a_csv_file_is_read(header: str, sign: str) -> None:
    assert parsed(csv_of(header=header, sign=sign)).points == POINTS


def test_comments_and_columns_of_other_things_do_no_harm() -> None:
    text = "# learning_rate = 1e-3\n# corpus: 'stdlib'\n# a note\ntime,loss,val_loss,step,name\n"
    text += "\n\n".join(f'0.5,,{p.loss},"{p.tokens // 2_000:,}","a, b"' for p in POINTS)
    text += "\n1.0,3.3,,1000,lr only\n"
    assert parsed(text) == RunLog(points=POINTS, said={"learning_rate": "1e-3", "corpus": "stdlib"}, is_held_out=True)


def test_fields_may_be_empty_in_a_file_with_tabs() -> None:
    text = "loss\tstep\tval_loss\n" + rows_of(lambda step, _, loss: f"3.1\t{step - 50}\t\n\t{step}\t{loss}")
    assert parsed(text).points == POINTS


def test_json_lines_are_read_with_what_they_say_of_the_run() -> None:
    head = {
        "run": "mine",
        "config": {"Learning-Rate": 0.001, "tied_head": False, "deep": {"er": 1}},
        "vocab_size": 1024,
    }
    rows = [{"step": 0, "lr": 0.0}, *({"step": p.tokens // 2_000, "metrics": {"eval/loss": p.loss}} for p in POINTS)]
    text = "\n".join(map(json.dumps, [head, *rows, {"step": 1_000, "train_loss": 3.9, "runtime": 9.5}]))
    log = parsed(text)
    assert log.points == POINTS
    assert log.said == {"run": "mine", "Learning-Rate": "0.001", "tied_head": "false", "vocab_size": "1024"}


@pytest.mark.parametrize(
    "head",
    [
        {"step": 0, "learning_rate": 0.0},
        {"tokens": 0, "learning_rate": 0.0},
        {"tokens": 0, "loss": 7.0, "learning_rate": 0.0},
    ],
)
def test_a_first_row_of_measurements_says_nothing_of_the_run(head: dict[str, float]) -> None:
    rows = ({"step": p.tokens // 2_000, "val_loss": p.loss} for p in POINTS)
    assert parsed("\n".join(map(json.dumps, [head, *rows]))).said == {}


@pytest.mark.parametrize(
    "head", [{"step": 0, "config": {"learning_rate": 0.1}}, {"tokens": 5, "learning_rate": 0.1, "name": "a"}]
)
def test_a_description_with_a_length_is_still_one(head: dict[str, object]) -> None:
    rows = ({"step": p.tokens // 2_000, "val_loss": p.loss} for p in POINTS)
    refused("\n".join(map(json.dumps, [head, *rows])), RefusalKind.OTHER_CONFIGURATION)


@pytest.mark.parametrize("name", ["loss", "train_loss", "train/loss", "Loss/Train"])
def test_a_training_loss_is_used_and_named_where_there_is_no_other(name: str) -> None:
    log = parsed(csv_of(header=f"tokens,{name}"))
    assert (log.points, log.is_held_out) == (POINTS, False)


def test_the_summary_that_trainers_add_is_not_the_training_loss() -> None:
    rows = [{"step": p.tokens // 2_000, "loss": p.loss} for p in POINTS]
    assert parsed("\n".join(map(json.dumps, [*rows, {"step": 1_000, "train_loss": 4.5}]))).points == POINTS


def test_a_row_may_say_that_its_loss_is_held_out() -> None:
    text = "split,step,loss\n" + rows_of(lambda step, _, loss: f"train,{step},9.0\nval,{step},{loss}\ntest,{step},1.0")
    log = parsed(text)
    assert (log.points, log.is_held_out) == (POINTS, True)


def test_nested_losses_are_told_apart() -> None:
    rows = [{"train": {"loss": 9.0}, "val": {"loss": p.loss}, "step": p.tokens // 2_000} for p in POINTS]
    assert parsed("\n".join(map(json.dumps, rows))).points == POINTS


@pytest.mark.parametrize("first", [0, 1])
def test_steps_count_from_0_or_1(first: int) -> None:
    text = "step,tokens,val_loss\n0,0,6.9\n" + rows_of(lambda s, t, loss: f"{s - 1 + first},{t},{loss}")
    assert parsed(text).points == POINTS
    assert parsed("step,val_loss\n0,6.9\n" + rows_of(lambda s, t, loss: f"{s},{loss}")).points == POINTS


@pytest.mark.parametrize("write", ["{}.0", "{:e}", "+{}"])
def test_whole_tokens_may_be_written_as_floats(write: str) -> None:
    text = "tokens,val_loss\n" + rows_of(lambda s, t, loss: f"{write.format(t)},{loss}")
    assert parsed(text).points == POINTS


def test_repeated_lines_and_a_repeated_header_are_one() -> None:
    header, *rows = csv_of().splitlines()
    assert parsed("\n".join([header, *rows[:5], rows[4], header, *rows[5:]])).points == POINTS


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["json", "csv", "text"]), st.booleans(), st.booleans())
def test_names_order_and_format_do_not_matter(order: random.Random, kind: str, tokens: bool, steps: bool) -> None:
    lengths = [["tokens", "Tokens_Seen", "num tokens"]] * (tokens or not steps) + [
        ["step", "ITER", "global-step"]
    ] * steps
    names = [order.choice(some) for some in (*lengths, ["val_loss", "Eval/Loss", "held-out loss"], ["lr"], ["loss"])]
    order.shuffle(names)
    lines = [",".join(names)] if kind == "csv" else []
    for point in POINTS:
        values = {"lr": 0.001, "loss": 9.0}
        for name in names:
            if "oken" in name.lower():
                values[name] = point.tokens
            elif "oss" in name.lower() and name != "loss":
                values[name] = point.loss
            elif name not in values:
                values[name] = point.tokens // 2_000
        lines.append(
            {
                "json": lambda v: json.dumps({name: v[name] for name in names}),
                "csv": lambda v: ",".join(str(v[name]) for name in names),
                "text": lambda v: order.choice([", ", " | ", " "]).join(f"{name}: {v[name]}" for name in names),
            }[kind](values)
        )
    assert parsed("\n".join(lines)) == RunLog(points=POINTS, said={}, is_held_out=True)


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "log").write_text(csv_of(), encoding=encoding)
    log = read_run_log(tmp_path / "log", EXPECTED)
    assert isinstance(log, RunLog)
    assert log.points == POINTS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "nothing"),
        (b" \n\n", "nothing"),
        (b"step 1 \xff loss 3", "UTF-8"),
        (b"\xff\xfea", "UTF-8"),
        (b"step\0,loss", "null"),
        (b"x" * (64 * 2**20 + 1), "64 MiB"),
        (b"\n" * 2_000_001 + b"x", "lines"),
    ],
    ids=["empty", "blank", "bytes", "half a character", "null", "large", "long"],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "log").write_bytes(content)
    refusal = read_run_log(tmp_path / "log", EXPECTED)
    assert isinstance(refusal, Refusal)
    assert refusal.kind is RefusalKind.UNREADABLE
    assert words in refusal.reason


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "pipe", Path("/dev/zero"), tmp_path / "a\0b"):
        refusal = read_run_log(path, EXPECTED)
        assert isinstance(refusal, Refusal)
        assert refusal.kind is RefusalKind.UNREADABLE


@settings(deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.log"
    path.write_bytes(content)
    assert isinstance(read_run_log(path, EXPECTED), RunLog | Refusal)


PIECES = ["step", "tokens", "val_loss", "loss", "ppl", ",", ";", "\t", "\n", "\r", " ", ":", "=", "{", "}", '"', "#",
          "[", "1", "20", "0.5", "-", "1e999", "nan", "1,000", "null", "9" * 50, "\x1b[0m", "\ud800", "_",
          "k"]  # fmt: skip


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_any_text_of_the_words_of_logs_is_read_or_refused(text: str) -> None:
    result = parse_run_log(text, EXPECTED)
    assert isinstance(result, RunLog | Refusal)
    if isinstance(result, Refusal):
        assert result.reason.isprintable()
        result.reason.encode()


@settings(deadline=None)
@given(st.integers(0, len(csv_of()) - 1), st.sampled_from(["", "\n", ",", "x", "-", ".", "e", '"', " ", "\0", "{"]))
def test_one_wrong_character_never_changes_a_loss_unnoticed(place: int, wrong: str) -> None:
    text = csv_of()
    damaged = text[:place] + wrong + text[place:]
    result = parse_run_log(damaged, EXPECTED)
    if isinstance(result, RunLog) and wrong not in (".", "-", "e"):
        assert set(result.points) <= set(POINTS)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"step": 1, "loss": 3.0}\nstep 2 loss 3\n',
        '{"step": 1, "loss": 3.0}\n{"step": 2, "lo',
        '{"step": 1, "loss": 3.0}\n[1]',
        '{"step": 1, "loss": 3.0, "loss": 3.1}',
        '{"step": ' + "[" * 100_000,
        '{"step": ' * 100_000,
        csv_of() + "\n1,2,3",
        csv_of() + '\n"1,2',
        csv_of() + "\n3000000,3.1x2",
        csv_of(sign=";") + "\n3000000;3,12",
        csv_of() + "\nlots,3.1",
        csv_of() + "\n" + "9" * 5_000 + ",3.1",
        '{"step": ' + "9" * 5_000 + ', "val_loss": 3.1}',
        "step,val_loss,eval_loss\n1,3.1,3.2",
        "step 100 loss 3.1 loss 3.2",
        "step 100 loss 3,21",
        csv_of()[:-3],
    ],
)  # fmt: skip
def test_a_broken_line_is_unreadable(text: str) -> None:
    refused(text, RefusalKind.UNREADABLE)


def test_a_last_line_that_ends_with_a_line_break_is_whole() -> None:
    assert csv_of().endswith("\n2000000,3.5461")
    refused(csv_of()[:-3], RefusalKind.UNREADABLE, "'3.5' in line 11")
    assert parsed(csv_of()[:-3] + "\n").points[-1].loss == 3.5


def test_a_broken_line_is_named() -> None:
    refused(csv_of() + "\n3000000,3.1x2", RefusalKind.UNREADABLE, "line 12", "3.1x2")


@pytest.mark.parametrize(
    "text",
    [
        "step,time\n1,2",
        '{"step": 1, "time": 2}',
        "step 1 took 2 s",
        "# learning_rate = 0.001",
        "step 100: aux loss 3.1",
        "validation loss at iteration 100 | lm loss value: 3.1",
        "step 100: 5 lossless 3.1, floss 3.1, loss(3.1), loss2 3.1, 2loss 3.1, loss @ 3.1, loss, 3.1",
        "Validation: step 100 loss 3.1",
        "step,split,loss\n1,test,3.1",
        "step,val_loss\n1,\n2,null",
    ],
)
def test_a_log_without_a_loss_is_refused(text: str) -> None:
    refused(text, RefusalKind.NO_LOSS, "val_loss")


@pytest.mark.parametrize(
    "text",
    ["epoch,val_loss\n1,3.1", "val_loss\n3.1", "epoch 1 loss 3.1", '{"_step": 1, "loss": 3}', "time per step 3 loss 3"],
)
def test_a_log_without_a_length_is_refused(text: str) -> None:
    refused(text, RefusalKind.NO_LENGTH, "step or tokens")


@pytest.mark.parametrize("loss", ["nan", "NaN", "inf", "-inf", "Infinity", "1e999"])
def test_a_loss_that_is_not_finite_is_refused_with_its_line(loss: str) -> None:
    refused(csv_of() + f"\n3000000,{loss}", RefusalKind.NOT_FINITE, "line 12", loss)
    refused(f"step 100: loss {loss}, val loss 3.1", RefusalKind.NOT_FINITE, "line 1")
    refused('{"step": 1, "train_loss": NaN, "val_loss": 3.1}', RefusalKind.NOT_FINITE, "line 1")


def test_a_restart_gaps_and_too_few_points_are_refused() -> None:
    refused(csv_of(POINTS[:6] + POINTS[3:]), RefusalKind.GAPS, "800,000 tokens after 1,200,000 in line 8")
    again = LogPoint(tokens=POINTS[-1].tokens, loss=3.0)
    refused(csv_of((*POINTS, again)), RefusalKind.GAPS, "2,000,000 tokens after 2,000,000")
    refused(csv_of(POINTS[6:]), RefusalKind.GAPS, "one from 0 to 1,400,000 of 2,000,000 tokens")
    refused(csv_of(POINTS[:3] + POINTS[9:]), RefusalKind.GAPS, "one from 600,000 to 2,000,000 of 2,000,000 tokens")
    refused(csv_of(POINTS[4::5]), RefusalKind.GAPS, "3 lengths or more", "got 2")
    assert parsed(csv_of((POINTS[2], POINTS[6], POINTS[9]))).points == (POINTS[2], POINTS[6], POINTS[9])


@pytest.mark.parametrize(
    "text",
    [
        csv_of(tuple(replace(p, loss=math.exp(p.loss)) for p in POINTS)),
        csv_of(tuple(replace(p, loss=p.loss * 1_024) for p in POINTS)),
        csv_of(tuple(replace(p, loss=-p.loss) for p in POINTS)),
        csv_of(POINTS, header="tokens,val_ppl"),
        csv_of(POINTS, header="tokens,bits_per_byte"),
        rows_of(lambda step, tokens, loss: f"step {step} | validation bpb: 1.1"),
        rows_of(lambda step, tokens, loss: f"step {step} | val loss: {loss} bits"),
        "tokens,val_loss\n" + rows_of(lambda step, tokens, loss: f"{tokens / 1e6},{loss}"),
        "tokens,val_loss\n" + rows_of(lambda step, tokens, loss: f"{tokens // 100_000},{loss}"),
        rows_of(lambda step, tokens, loss: f"tokens {tokens / 1e6}M loss {loss}"),
        "step,tokens,val_loss\n" + rows_of(lambda step, tokens, loss: f"{step},{tokens // 1000},{loss}"),
        "step,tokens,val_loss\n" + rows_of(lambda step, tokens, loss: f"{step},{tokens * 1.02:.0f},{loss}"),
        "iter,step,val_loss\n" + rows_of(lambda step, tokens, loss: f"{step * 8},{step},{loss}"),
        csv_of() + f"\n{10**15 + 1},3.1",
        csv_of() + "\n1e999,3.1",
        csv_of() + "\n-5,3.1",
        csv_of() + "\n3000000,1e300",
    ],
)
def test_other_units_are_refused(text: str) -> None:
    refused(text, RefusalKind.UNITS)


def test_a_step_that_has_other_tokens_is_named() -> None:
    refused("step,tokens,loss\n5,20000,3.1", RefusalKind.UNITS, "2,000 tokens per step", "20,000 tokens at step 5")


@pytest.mark.parametrize(
    "said", ["learning_rate = 0.002", "Learning-Rate: 2e-3", "schedule = wsd", "tokens_per_step: 4000"]
)
def test_a_log_of_another_configuration_is_refused(said: str) -> None:
    refused(f"# {said}\n{csv_of()}", RefusalKind.OTHER_CONFIGURATION, said.split()[-1])


def test_the_knob_and_both_values_are_named() -> None:
    refused(f"# schedule = wsd\n{csv_of()}", RefusalKind.OTHER_CONFIGURATION, "schedule = cosine", "schedule = 'wsd'")


@pytest.mark.parametrize(
    "said",
    ["learning_rate = 1e-3", "global_batch = 16.0", "tied_head: false", "schedule = Cosine", "tokens_per_step = 2,000",
     "vocab_size: 1,024", "parameters = 541,344", f"corpus_sha256 = {'AB' * 32}", "corpus = stdlib", "unheard = of"],
)  # fmt: skip
def test_a_log_that_says_the_same_in_other_words_is_read(said: str) -> None:
    assert parsed(f"# {said}\n{csv_of()}").said


@pytest.mark.parametrize("said", ["vocab_size = 50257", "parameters = 541345", "num_params: 0.54M"])
def test_a_log_of_another_model_is_refused(said: str) -> None:
    refused(f"# {said}\n{csv_of()}", RefusalKind.OTHER_MODEL, said.split()[-1])


@pytest.mark.parametrize("said", ["corpus = books", f"corpus_sha256 = {'cd' * 32}"])
def test_a_log_of_another_text_is_refused(said: str) -> None:
    refused(f"# {said}\n{csv_of()}", RefusalKind.OTHER_TEXT)


def test_the_hash_of_a_text_outweighs_its_name_and_what_is_not_known_is_not_checked() -> None:
    parsed(f"# corpus_sha256 = {'ab' * 32}\n# corpus = /data/stdlib\n{csv_of()}")
    unknown = replace(EXPECTED, parameters=0, corpus="", corpus_sha256="")
    parsed(f"# parameters = 5\n# corpus = books\n# corpus_sha256 = {'cd' * 32}\n{csv_of()}", unknown)


def test_a_run_that_is_too_short_is_refused() -> None:
    refused(csv_of(POINTS[:8]), RefusalKind.TOO_SHORT, "90 % of the plan, 1,800,000", "1,600,000")
    assert parsed(csv_of(POINTS[:9])).points == POINTS[:9]
    short = tuple(replace(point, tokens=point.tokens // 100) for point in POINTS)
    refused(csv_of(short), RefusalKind.TOO_SHORT, "shortest measured token budget, 40,000", "20,000")


def test_losses_that_this_model_cannot_have_are_refused() -> None:
    too_good = tuple(replace(point, loss=point.loss - 1.5) for point in POINTS)
    at = replace(EXPECTED, cooled=((400_000, 4.2),))
    refused(csv_of(too_good), RefusalKind.OTHER_MODEL, "400,000 tokens", expected=at)
    between = replace(EXPECTED, cooled=((500_000, 4.2),))
    refused(csv_of(too_good), RefusalKind.OTHER_MODEL, "does not fit", "500,000 tokens", expected=between)
    too_bad = tuple(replace(point, loss=point.loss + 1) for point in POINTS)
    refused(csv_of(too_bad), RefusalKind.OTHER_MODEL, "does not fit", "160,000 tokens")
    parsed(csv_of(too_good))  # the log starts after the measured token budgets: nothing to compare at
    parsed(csv_of(too_bad), replace(EXPECTED, cooled=()))
    longer = replace(EXPECTED, cooled=((40_000, 5.0), (9_000_000, 3.0)))
    parsed(csv_of(too_bad), longer)  # the run is shorter than the longest measured one


def test_a_loss_within_the_tolerance_of_a_measured_one_fits() -> None:
    _, second, *_ = POINTS
    for below, fits in ((0.29, True), (0.31, False)):
        # Half way through, a run has moved its weights as far as a complete schedule of twice the tokens so far.
        expected = replace(EXPECTED, cooled=((2 * second.tokens, second.loss + below),))
        assert isinstance(parse_run_log(csv_of(), expected), RunLog) is fits
