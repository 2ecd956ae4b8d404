"""Asking the torch side about corpus and machine: its answer, its refusals, its collapse."""

import json
import sys

import pytest
from autotune_model.config import DataConfig

from autotune.errors import BadInput, EnvironmentProblem
from autotune.hardware.prepare import Corpus, prepare

CORPUS = {
    "train_tokens": 900,
    "holdout_tokens": 100,
    "documents": 7,
    "bytes_per_token": 3,
    "vocab_size": 300,
    "content_sha256": "ab",
}
ANSWER = {"corpus": CORPUS, "environment": {"device": "cpu"}, "peak_flops": {"fp32": 1e11, "bf16": 2e11}, "limits": {}}


def _command(body: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-S", "-c", f"import json, sys\n{body}")


def _saying(answer: object, code: int = 0) -> tuple[str, ...]:
    return _command(f"print({json.dumps(answer)!r})\nsys.exit({code})")


def test_the_answer_becomes_a_machine() -> None:
    machine = prepare(DataConfig(), device="auto", command=_saying(ANSWER))
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


def test_the_torch_side_is_asked_about_the_data_and_the_device() -> None:
    echo = _command(
        "kind, _, path, _, device, *attempts = sys.argv[1:]\n"
        f"answer = json.loads({json.dumps(json.dumps(ANSWER))})\n"
        "answer['environment'] = {'kind': kind, 'device': device, 'corpus': json.load(open(path))['corpus'], "
        "'attempts': ' '.join(attempts)}\n"
        "print('chatter of a library')\nprint(json.dumps(answer))"
    )
    machine = prepare(DataConfig(corpus="/somewhere"), device="cuda", attempts=("compile", "flex"), command=echo)
    tried = "--attempt=compile --attempt=flex"
    assert machine.environment == {"kind": "prepare", "device": "cuda", "corpus": "/somewhere", "attempts": tried}


def test_a_corpus_that_cannot_be_used_is_bad_input() -> None:
    command = _saying({"failure": {"kind": "invalid", "message": "corpus must hold text; got nothing: name a file"}}, 2)
    with pytest.raises(BadInput, match=r"^corpus must hold text; got nothing: name a file$"):
        prepare(DataConfig(), device="auto", command=command)


@pytest.mark.parametrize("kind", ["crash", "oom"])
def test_any_other_failure_is_a_problem_of_the_environment(kind: str) -> None:
    with pytest.raises(EnvironmentProblem, match=f"{kind}.*no such device"):
        prepare(
            DataConfig(),
            device="auto",
            command=_saying({"failure": {"kind": kind, "message": "no such device"}}, 2),
        )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (_command("sys.exit('No module named torch')"), r"exit code 1 \(No module named torch\)"),
        (_command("import os; os.kill(os.getpid(), 9)"), "exit code -9"),
        (_command("print('hello')"), "hello"),
        (_saying({"corpus": {}}), "complete"),
        (_saying({**ANSWER, "corpus": {**CORPUS, "documents": "7"}}), r"corpus\.documents"),
    ],
)
def test_no_usable_answer_is_a_problem_of_the_environment(command: tuple[str, ...], words: str) -> None:
    with pytest.raises(EnvironmentProblem, match=words) as problem:
        prepare(DataConfig(), device="auto", command=command)
    assert "\n" not in str(problem.value).replace(command[-1], "")
