"""Sessions on the nodes of a Ray cluster: each is a local session inside an actor on its node.

Only plain data crosses between driver and node: the fields of `SessionRequest` go out, protocol lines
come back, including how a session ended. Ray never retries anything: a repeated step would be timed
as one. autotune must be installed on every node, and logs stay there unless the folder is shared.
This uses Ray core actors, not Ray Tune: Tune reports out-of-memory trials as failures, which samplers ignore.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self, TypeVar

from autotune.errors import AutotuneError, BadInput, EnvironmentProblem
from autotune.executors.base import Executor, OutOfTime, Patience, Session, SessionEnded, SessionRequest
from autotune.executors.local import LocalExecutor
from autotune.space.configuration import Configuration
from autotune.trial.codec import encode_event, from_json, parse_event, to_json
from autotune.trial.types import Evaluation, FailedKind, Fingerprint, GradientNoise, Ready, Slice
from autotune.workload.base import WorkerOrder
from autotune.workload.machine import Machine
from autotune_model.protocol import Event, Failure

E = TypeVar("E", Ready, Slice, Evaluation, Fingerprint, GradientNoise)

_NODE_SECONDS = 120.0  # on top of the node's own timeout: starting an actor, a network hiccup
_CLOSE_SECONDS = 10.0
_WATCH_SECONDS = 2.0  # between looks at the time that is left during a long wait
_LOOPBACK = "127.0.0.1"

_spawning = partial(LocalExecutor, launch="spawn")  # a launcher would serve one session only


class RayExecutor:
    """Runs sessions on the cluster at `address`; by default, on a cluster of this machine alone.

    Only sessions on the same device can be compared, so all sessions that one driver thread opens share one;
    to use several `slots` at once, open sessions from several threads.
    `inner` makes the executor that runs on the node.
    """

    def __init__(self, address: str = "", *, inner: Callable[[], Executor] = _spawning) -> None:
        """Connect.

        Raises:
            EnvironmentProblem: Ray is not installed, or no cluster answers at `address`.
        """
        self._ray = _import_ray(starts_cluster=not address)
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            _connect(self._ray, address)
        self._host = self._ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(_Host)
        self._inner = inner
        self._place_of_thread: dict[int, tuple[str, str]] = {}
        self._sessions: set[RaySession] = set()

    @property
    def slots(self) -> int:
        """The number of accelerators in the cluster, or of nodes if there are none."""
        return len(self._places())

    def load(self) -> None:
        """Not known: what disturbs a node is not seen from here."""

    def examine(self, order: WorkerOrder, *, limit_seconds: float = math.inf) -> Machine:
        """See `Executor.examine`; describes the node that this thread's sessions run on."""
        actor = self._actor_here()
        try:
            answer = self._ray.get(actor.examine.remote(to_json(order), limit_seconds))
            return from_json(Machine, json.loads(answer))
        except self._ray.exceptions.RayError as error:
            cause = error.cause if isinstance(error, self._ray.exceptions.RayTaskError) else error
            if isinstance(cause, BadInput):
                raise BadInput(str(cause)) from None
            raise EnvironmentProblem(f"on a node of the cluster: {cause}") from None
        finally:
            self._ray.kill(actor)

    def open(self, request: SessionRequest) -> RaySession:
        """See `Executor.open`.

        Raises:
            SessionEnded: the worker did not become ready, or its node died.
            EnvironmentProblem: the worker program cannot start on the node.
        """
        session = RaySession(self._ray, self._actor_here(), request, self._sessions)
        try:
            session.await_ready()
        except BaseException:
            session.close()
            raise
        return session

    def renew(self) -> None:
        """Nothing to do: each session has a fresh process image."""

    def close(self) -> None:
        """End all sessions, and the connection if this executor made it. Safe to call twice."""
        for session in tuple(self._sessions):
            session.close()
        if self._is_ours:
            self._ray.shutdown()
            self._is_ours = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _actor_here(self) -> Any:
        """A new actor on this thread's node and device."""
        node, device = self._place()
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        return self._host.options(scheduling_strategy=here).remote(self._inner, device)

    def _places(self) -> list[tuple[str, str]]:
        """Node and device of every slot; the device is "" where a whole node is one slot."""
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        gpus = [(n["NodeID"], str(i)) for n in nodes for i in range(int(n["Resources"].get("GPU", 0)))]
        return gpus or [(n["NodeID"], "") for n in nodes if n["Resources"].get("CPU", 0) >= 1]

    def _place(self) -> tuple[str, str]:
        """Node and device of this thread's sessions, fixed while the node lives."""
        places = self._places()
        if not places:
            raise EnvironmentProblem("a cluster needs a node with a CPU or a GPU; got none: add one")
        thread = threading.get_ident()
        if self._place_of_thread.get(thread) not in places:
            taken = self._place_of_thread.values()
            self._place_of_thread[thread] = next((p for p in places if p not in taken), places[0])
        return self._place_of_thread[thread]


class RaySession:
    """A session on a node. Made by `RayExecutor.open`."""

    def __init__(self, ray: ModuleType, actor: Any, request: SessionRequest, siblings: set[RaySession]) -> None:
        """Takes over the actor; stays in `siblings` until closed."""
        self._ray = ray
        self._actor = actor
        self._request = request
        self._siblings = siblings
        self._ready: Ready | None = None
        self._is_closed = False
        siblings.add(self)

    @property
    def ready(self) -> Ready:
        """What the worker reported when it became ready."""
        assert self._ready is not None, "open() returns ready sessions only"  # noqa: S101 - for the type checker
        return self._ready

    def await_ready(self) -> None:
        """Open the session on the node and wait for it."""
        patience = self._request.patience
        seconds = patience.setup_seconds + self._request.first_pass_seconds
        self._ready = self._ask(Ready, seconds, self._actor.open, _plain(self._request))

    def advance(self, steps: int, round: int = -1) -> Slice:
        """See `Session.advance`."""
        seconds = self._request.advance_seconds(steps, is_proven=True)  # the session on the node judges the pace
        return self._ask(Slice, seconds, self._actor.advance, steps, round)

    def evaluate(self) -> Evaluation:
        """See `Session.evaluate`."""
        return self._ask(Evaluation, self._request.evaluate_seconds(), self._actor.evaluate)

    def fingerprint(self) -> Fingerprint:
        """See `Session.fingerprint`."""
        return self._ask(Fingerprint, self._request.fingerprint_seconds(), self._actor.fingerprint)

    def gradient_noise(self, batches: int) -> GradientNoise:
        """See `Session.gradient_noise`."""
        seconds = self._request.gradient_noise_seconds(batches)
        return self._ask(GradientNoise, seconds, self._actor.gradient_noise, batches)

    def expect(self, patience: Patience) -> None:
        """See `Session.expect`."""
        self._request = replace(self._request, patience=patience)
        self._actor.expect.remote(to_json(patience))  # an actor does one thing after the other: before the next order

    def close(self) -> None:
        """See `Session.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        self._siblings.discard(self)
        with suppress(self._ray.exceptions.RayError):  # do not wait longer for an answer
            self._ray.get(self._actor.close.remote(), timeout=_CLOSE_SECONDS)
        self._ray.kill(self._actor)  # its worker exits when the pipes close

    def _ask(self, kind: type[E], seconds: float, method: Any, *arguments: object) -> E:
        """The node's answer, of type `kind`; anything else ends the session."""
        if self._is_closed:
            raise SessionEnded(FailedKind.CRASH, "this session has ended: open another one")
        errors = self._ray.exceptions
        try:
            answer = parse_event(self._await(method.remote(*arguments), seconds + _NODE_SECONDS))
        except errors.GetTimeoutError:
            answer = Failure(kind=FailedKind.HUNG, message="a node must answer; got no reply in time: see its log")
        except errors.RayError as error:
            if isinstance(error, errors.RayTaskError) and isinstance(error.cause, AutotuneError):
                raise EnvironmentProblem(f"on a node of the cluster: {error.cause}") from None
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._require_a_node(reason)
            answer = Failure(
                kind=FailedKind.CRASH, message=f"the node or its actor died ({reason}): run the trial again"
            )
        except ValueError as problem:
            answer = Failure(
                kind=FailedKind.CRASH,
                message=f"the node broke the protocol ({problem}): install the same autotune version there",
            )
        if isinstance(answer, kind):
            return answer
        self.close()
        if isinstance(answer, Failure):
            raise SessionEnded(answer.kind, answer.message)
        raise SessionEnded(
            FailedKind.CRASH,
            f"a node must answer with {kind.__name__}; got {answer!r}: install the same autotune version there",
        )

    def _await(self, answer: Any, seconds: float) -> bytes:
        """The answer when it is there. A long wait looks at the time that is left."""
        deadline = time.monotonic() + seconds
        while True:
            wait_seconds = min(_WATCH_SECONDS, max(0.0, deadline - time.monotonic()))
            ready, _ = self._ray.wait([answer], timeout=wait_seconds)
            if ready or time.monotonic() >= deadline:
                return self._ray.get(answer, timeout=0.0 if not ready else None)  # type: ignore[no-any-return]
            if self._request.left_seconds() <= 0.0:
                self.close()
                raise OutOfTime

    def _require_a_node(self, reason: str) -> None:
        """Raises EnvironmentProblem: Ray itself is gone, which is no fault of a configuration."""
        errors = self._ray.exceptions
        try:
            is_there = any(node["Alive"] for node in self._ray.nodes())
        except (ConnectionError, RuntimeError, errors.RayError):
            is_there = False
        if not is_there:
            raise EnvironmentProblem(
                f"sessions on a cluster need a node that lives; got none ({reason}): start Ray again and resume"
            ) from None


class _Host:
    """The actor: runs one session on its node."""

    def __init__(self, inner: Callable[[], Executor], device: str) -> None:
        if device:
            os.environ["CUDA_VISIBLE_DEVICES"] = device  # of this actor and the worker it starts
        self._executor = inner()
        self._session: Session

    def examine(self, order: dict[str, Any], limit_seconds: float) -> str:
        found = self._executor.examine(from_json(WorkerOrder, order), limit_seconds=limit_seconds)
        return json.dumps(to_json(found))

    def open(self, plain: dict[str, Any]) -> bytes:
        request = _request(plain)
        return _answer(lambda: self._open(request))

    def _open(self, request: SessionRequest) -> Ready:
        self._session = self._executor.open(request)
        return self._session.ready

    def advance(self, steps: int, round: int) -> bytes:
        return _answer(lambda: self._session.advance(steps, round))

    def evaluate(self) -> bytes:
        return _answer(lambda: self._session.evaluate())

    def fingerprint(self) -> bytes:
        return _answer(lambda: self._session.fingerprint())

    def gradient_noise(self, batches: int) -> bytes:
        return _answer(lambda: self._session.gradient_noise(batches))

    def expect(self, patience: dict[str, Any]) -> None:
        self._session.expect(from_json(Patience, patience))

    def close(self) -> None:
        self._executor.close()


def _plain(request: SessionRequest) -> dict[str, Any]:
    """The request as plain data, so that none of our classes is pickled. The time left is known to the driver alone."""
    return {
        "configuration": dict(request.configuration),
        "seed": request.seed,
        "horizon_tokens": request.horizon_tokens,
        "evaluation_tokens": request.evaluation_tokens,
        "tokens_per_step": request.tokens_per_step,
        "order": to_json(request.order),
        "log_path": str(request.log_path),
        "patience": to_json(request.patience),
    }


def _request(plain: Mapping[str, Any]) -> SessionRequest:
    return SessionRequest(
        configuration=Configuration(plain["configuration"]),
        seed=plain["seed"],
        horizon_tokens=plain["horizon_tokens"],
        evaluation_tokens=plain["evaluation_tokens"],
        tokens_per_step=plain["tokens_per_step"],
        order=from_json(WorkerOrder, plain["order"]),
        log_path=Path(plain["log_path"]),
        patience=from_json(Patience, plain["patience"]),
    )


def _answer(ask: Callable[[], Event]) -> bytes:
    """A session's answer as a protocol line; its end becomes a Failure."""
    try:
        return encode_event(ask())
    except SessionEnded as ended:
        return encode_event(Failure(kind=ended.kind, message=ended.message))


def _import_ray(*, starts_cluster: bool) -> ModuleType:
    """Import Ray, only when needed: it takes seconds."""
    if starts_cluster and "ray" not in sys.modules:  # Ray reads these variables once
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # an open Ray port is remote code execution (CVE-2023-48022)
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:  # else Ray leaves a token in the home folder that all may read
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Its name is of the systems where this is the default: a cluster of one machine, reached by loopback alone.
        # Without it, Ray turns the loopback address back into that of the network.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise EnvironmentProblem(f"sessions on a cluster need Ray; got {error}: pip install 'ray[tune]'") from None
    return ray


def _connect(ray: ModuleType, address: str) -> None:
    """Join the cluster at `address`, or start one on this machine alone."""
    try:
        if address:
            ray.init(address=address, log_to_driver=False)
        else:
            ray.init(address="local", _node_ip_address=_LOOPBACK, include_dashboard=False, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = f"at {address!r}" if address else "on this machine"
        raise EnvironmentProblem(f"Ray must run {where}; got {error}: see `ray status`") from None
