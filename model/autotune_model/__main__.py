"""`python -P -m autotune_model`: the processes that autotune starts. Torch is imported only once the command is known.

-P keeps the current folder off the import path: a user's `tokenizers.py` or `numpy.py` there is none of ours.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import socket
import sys
import time
import traceback
from pathlib import Path

from autotune_model.attempts import NAMES, end_with_starter, tell
from autotune_model.config import DataConfig
from autotune_model.failures import failure_report
from autotune_model.lifeline import end_with_parent
from autotune_model.protocol import Phase, PhaseName, encode, send


def main() -> int:
    started = time.perf_counter()
    arguments = _parser().parse_args()
    match arguments.command:
        case "worker":
            _worker(arguments.session, arguments.commands, arguments.events, started)
        case "rank":
            _rank(arguments, started)
        case "launcher":
            _launcher(arguments.control)
        case "prepare":
            return _prepare(arguments.order)
        case "attempt":
            _attempt(arguments.name, arguments.device)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -P -m autotune_model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    worker = commands.add_parser("worker", help="run one training session")
    rank = commands.add_parser("rank", help="be another process of a worker's session")
    for parser_of_session in (worker, rank):
        parser_of_session.add_argument("--session", type=Path, required=True, help="SessionConfig as JSON")
        parser_of_session.add_argument("--commands", type=int, required=True, help="descriptor to read commands from")
        parser_of_session.add_argument("--events", type=int, required=True, help="descriptor to write events to")
    rank.add_argument("--rank", type=int, required=True, help="its number; the worker is 0")
    rank.add_argument("--port", type=int, required=True, help="where the worker waits, on this machine")
    launcher = commands.add_parser("launcher", help="fork workers on request")
    launcher.add_argument("--control", type=int, required=True, help="descriptor of a Unix stream socket")
    prepare = commands.add_parser("prepare", help="encode a corpus and measure the machine; prints one JSON line")
    prepare.add_argument(
        "--order",
        type=Path,
        required=True,
        help='JSON: {"data": DataConfig, "device": DEVICE, "attempts": what to try too, which takes seconds, '
        '"trial": what the text must suffice for}',
    )
    attempt = commands.add_parser("attempt", help="try what may not end; ends with standard input; prints a JSON line")
    attempt.add_argument("name", choices=NAMES)
    attempt.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    return parser


def _own_process_group() -> None:
    """Become the leader of a process group, unless the driver already did that."""
    if os.getpgrp() != os.getpid():
        os.setsid()


def _worker(session_path: Path, commands_fd: int, events_fd: int, started: float) -> None:
    end_with_parent(commands_fd)
    _own_process_group()
    events = os.fdopen(events_fd, "w", encoding="utf-8")
    send(events, Phase(name=PhaseName.STARTED))
    from autotune_model import worker

    worker.serve(session_path, commands_fd, events, started)


def _rank(arguments: argparse.Namespace, started: float) -> None:
    """Stays in the process group of the worker that started it."""
    end_with_parent(arguments.commands)
    from autotune_model import worker

    events = os.fdopen(arguments.events, "w", encoding="utf-8")
    worker.serve_rank(arguments.session, arguments.commands, events, started, rank=arguments.rank, port=arguments.port)


def _launcher(control_fd: int) -> None:
    end_with_parent(control_fd)
    _own_process_group()  # so that Ctrl-C in a terminal reaches only the driver
    from autotune_model import launcher

    with socket.socket(fileno=control_fd) as control:
        launcher.serve(control)


def _prepare(order_path: Path) -> int:
    """Print the fields of `autotune.workload.machine.Machine` except free memory, or a `Failure`, on one line."""
    end_with_parent(0)
    with contextlib.redirect_stdout(sys.stderr):
        from autotune_model import tokens

        try:
            order = json.loads(order_path.read_text())
            if unknown := set(order["attempts"]) - set(NAMES):
                raise ValueError(f"attempts must be of {', '.join(NAMES)}; got {', '.join(sorted(unknown))}")
            corpus = tokens.open_corpus(DataConfig.from_mapping(order["data"]), thorough=True)
            if trial := order.get("trial"):  # refused now, not by the first trial of a study
                length = trial["sequence_length"]
                corpus.training_windows(sequence_length=length, sequences_per_step=trial["sequences_per_step"])
                corpus.evaluation_windows(sequence_length=length, evaluation_tokens=trial["evaluation_tokens"])
            from autotune_model import (  # torch takes seconds: only after the corpus is validated
                capabilities,
                device,
                probe,
            )

            resolved = device.resolve_device(order["device"])
            peak_flops = probe.peak_flops(resolved)
            answer = {
                "corpus": {
                    "train_tokens": len(corpus.train),
                    "holdout_tokens": len(corpus.holdout),
                    "documents": corpus.documents,
                    "text_bytes": corpus.text_bytes,
                    "bytes_per_token": corpus.bytes_per_token,
                    "vocab_size": corpus.vocab_size,
                    "vocab_wanted": corpus.vocab_wanted,
                    "content_sha256": corpus.content_sha256,
                    "left_out": [dataclasses.asdict(row) for row in corpus.left_out],
                    "cache_damage": corpus.cache_damage,
                },
                "environment": probe.environment(resolved) | capabilities.describe(resolved),
                "peak_flops": peak_flops,
                "limits": capabilities.limits(resolved, peak_flops, order["attempts"]),
            }
            line, status = json.dumps(answer), 0
        except Exception as error:
            traceback.print_exc()
            line, status = encode(failure_report(error)).strip(), 2
    print(line)
    return status


def _attempt(name: str, device_name: str) -> None:
    end_with_parent(0)
    _own_process_group()
    end_with_starter()
    with contextlib.redirect_stdout(sys.stderr):
        from autotune_model import capabilities, device

        reason = capabilities.why_not(name, device.resolve_device(device_name))
    tell(reason)


if __name__ == "__main__":
    sys.exit(main())
