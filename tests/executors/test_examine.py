"""Asking the trial side about text and machine: its answer, its refusals, its collapse."""

import json
import os
import sys
from types import SimpleNamespace

import psutil
import pytest

from autotune.errors import BadInput, EnvironmentProblem
from autotune.executors.examine import examine_here
from autotune.workload.base import WorkerOrder
from autotune.workload.machine import Corpus

CORPUS = {
    "train_tokens": 900,
    "holdout_tokens": 100,
    "documents": 7,
    "bytes_per_token": 3,
    "vocab_size": 300,
    "content_sha256": "ab",
}
ANSWER = {
    "corpus": CORPUS,
    "environment": {"device": "cpu"},
    "peak_flops": {"fp32": 1e11, "bf16": 2e11},
    "limits": {"pinned_memory": {"True": "there is no GPU"}},
}


def _order(body: str, payload: dict[str, object] | None = None, **environment: str) -> WorkerOrder:
    program = (sys.executable, "-P", "-S", "-c", f"import json, os, sys\n{body}")
    return WorkerOrder(program=program, payload=payload or {}, environment=environment)


def _saying(answer: object, code: int = 0) -> WorkerOrder:
    return _order(f"print({json.dumps(answer)!r})\nsys.exit({code})")


def test_the_answer_becomes_a_machine() -> None:
    machine = examine_here(_saying(ANSWER))
    assert machine.corpus == Corpus(
        train_tokens=900,
        holdout_tokens=100,
        documents=7,
        bytes_per_token=3.0,
        vocab_size=300,
        content_sha256="ab",
    )
    assert machine.environment == {"device": "cpu"}
    assert machine.peak_flops == {"fp32": 1e11, "bf16": 2e11}
    assert machine.limits == {"pinned_memory": {"True": "there is no GPU"}}


def test_the_memory_that_is_free_is_looked_up_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5_000))
    assert examine_here(_saying(ANSWER)).available_bytes == 5_000
    gpu = {"device": "cuda", "device_memory_bytes": "80000"}
    assert examine_here(_saying({**ANSWER, "environment": gpu})).available_bytes == 80_000


def test_the_program_is_told_its_order_and_its_environment() -> None:
    echo = (
        "kind, option, path = sys.argv[1:]\n"
        f"answer = json.loads({json.dumps(json.dumps(ANSWER))})\n"
        "answer['environment'] = {'device': 'cpu', 'kind': kind, 'option': option, 'corpus': json.load(open(path))"
        "['data']['corpus'], 'added': os.environ['ADDED'], 'path': os.environ.get('PATH', ''), 'file': path}\n"
        "print('chatter of a library')\nprint(json.dumps(answer))"
    )
    environment = dict(examine_here(_order(echo, {"data": {"corpus": "/somewhere"}}, ADDED="yes")).environment)
    assert not os.path.exists(environment.pop("file")), "nothing is left behind"  # noqa: PTH110
    assert environment == {
        "device": "cpu",
        "kind": "prepare",
        "option": "--order",
        "corpus": "/somewhere",
        "added": "yes",
        "path": os.environ.get("PATH", ""),
    }


def test_a_corpus_that_cannot_be_used_is_bad_input() -> None:
    order = _saying({"failure": {"kind": "invalid", "message": "corpus must hold text; got nothing: name a file"}}, 2)
    with pytest.raises(BadInput, match=r"^corpus must hold text; got nothing: name a file$"):
        examine_here(order)


@pytest.mark.parametrize("kind", ["crash", "oom"])
def test_any_other_failure_is_a_problem_of_the_environment(kind: str) -> None:
    with pytest.raises(EnvironmentProblem, match=f"{kind}.*no such device"):
        examine_here(_saying({"failure": {"kind": kind, "message": "no such device"}}, 2))


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (_order("sys.exit('No module named torch')"), r"exit code 1 \(No module named torch\)"),
        (_order("os.kill(os.getpid(), 9)"), "exit code -9"),
        (_order("print('hello')"), "hello"),
        (_saying({"corpus": {}}), r"corpus\.train_tokens is missing"),
        (_saying({**ANSWER, "corpus": {**CORPUS, "documents": "7"}}), r"corpus\.documents"),
        (_saying({"failure": {"kind": "tired", "message": ""}}), "'tired'"),
    ],
)
def test_no_usable_answer_is_a_problem_of_the_environment(order: WorkerOrder, words: str) -> None:
    with pytest.raises(EnvironmentProblem, match=words) as problem:
        examine_here(order)
    assert "\n" not in str(problem.value).replace(order.program[-1], "")
