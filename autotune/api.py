"""Searching, resuming and reading studies: what the command line and a notebook use."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import autotune_model
import pandas as pd
from autotune_model.config import TrainingConfig

import autotune
from autotune.analysis.recommendation import Recommendation
from autotune.errors import BadInput, Interrupted
from autotune.executors.base import Executor
from autotune.executors.local import LocalExecutor
from autotune.hardware.memory import available_bytes
from autotune.hardware.prepare import Machine, prepare
from autotune.measure.alignment import Alignment, claims_of, measure_alignment
from autotune.measure.lab import Lab
from autotune.report.build import build_view
from autotune.report.view import View
from autotune.report.writers import write_report
from autotune.search import run_search
from autotune.search.propose import database
from autotune.space.limits import Pruned, attempts_for, limits_of, prune
from autotune.space.load import load_space
from autotune.space.space import SearchSpace
from autotune.study.events import EventKind, Listener
from autotune.study.store import FORMAT, Fingerprint, Study, StudyInfo, check_name, read_records
from autotune.trial.types import Completed, Stage, TrialRecord, outcome_kind

DEFAULT_ROOT = Path("reports")
_HARDWARE_KEYS = ("device_name", "logical_cores", "device_memory_bytes", "torch")
_WARM_START = 4  # configurations carried into a fork


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished search: its recommendation and the folder with report and trials."""

    recommendation: Recommendation
    study: str
    space: str
    created_at: str
    folder: Path


def search(
    space_path: Path | str,
    *,
    data: str = "",
    study: str = "",
    budget_seconds: float = 0.0,
    root: Path | str = DEFAULT_ROOT,
    listeners: Sequence[Listener] = (),
) -> Finished:
    """Search the space in the TOML file at `space_path`, or go on with the study of that name.

    Args:
        space_path: the space.
        data: a corpus instead of the space's own: a file, folder, glob or `.jsonl`, or `stdlib`.
        study: the study's name; the space's name where empty.
        budget_seconds: a cap on everything together instead of the space's own.
        root: the folder of all studies.
        listeners: told of every event.

    Raises:
        autotune.errors.AutotuneError: see there for the kinds.
    """
    started = time.monotonic()
    path = Path(space_path)
    space = with_overrides(load_space(path), data=data, budget_seconds=budget_seconds)
    name = check_name(study or space.name)
    folder = Path(root) / name
    machine = _machine_for(space, folder)
    fingerprint = fingerprint_of(space, machine)
    if (folder / "study.json").exists():
        with Study.open(folder) as opened:
            _require_same(opened, fingerprint)
            if space.budget_seconds != opened.info.budget_seconds:
                raise BadInput(
                    f"a study keeps its budget of {opened.info.budget_seconds:g} s; got {space.budget_seconds:g} s: "
                    f"`autotune resume {name} --fork NEW --budget ..` starts a new one from it"
                )
            return _run(opened, machine, listeners, started)
    info = StudyInfo(
        format=FORMAT,
        name=name,
        created_at=_now(),
        space_name=space.name,
        corpus=space.workload.data.corpus,
        budget_seconds=space.budget_seconds,
        fingerprint=fingerprint,
    )
    with Study.create(folder, info, path.read_text(encoding="utf-8")) as created:
        return _run(created, machine, listeners, started)


def resume(
    study: str,
    *,
    fork: str = "",
    budget_seconds: float = 0.0,
    root: Path | str = DEFAULT_ROOT,
    listeners: Sequence[Listener] = (),
) -> Finished:
    """Go on with a study from wherever it stands; a finished one gives its recommendation again.

    With `fork`, a new study of that name is started from the old one's space as it is now (with another
    budget, where one is given), and tries the old one's best configurations first.

    Raises:
        autotune.errors.AutotuneError: see there; BadInput where space, data, code or hardware changed.
    """
    if budget_seconds and not fork:
        raise BadInput("a study keeps its budget; got another without --fork: add --fork NEW")
    started = time.monotonic()
    folder = Path(root) / check_name(study)
    with Study.open(folder) as opened:
        machine = _machine_for(opened.space, Path(root) / check_name(fork or study))
        fingerprint = fingerprint_of(opened.space, machine)
        if not fork:
            _require_same(opened, fingerprint)
            return _run(opened, machine, listeners, started)
        info = replace(
            opened.info,
            name=check_name(fork),
            created_at=_now(),
            budget_seconds=budget_seconds or opened.info.budget_seconds,
            fingerprint=fingerprint,
            forked_from=study,
            warm_start=_best_configs(opened.records),
        )
        text = (folder / "space.toml").read_text(encoding="utf-8")
    with Study.create(Path(root) / fork, info, text) as created:
        return _run(created, machine, listeners, started)


def load_study(study: str, *, root: Path | str = DEFAULT_ROOT) -> pd.DataFrame:
    """The trials of a study as a table: one row a trial, a column a knob; neither locks nor changes it."""
    folder = Path(root) / check_name(study)
    if not (folder / "study.json").exists():
        raise BadInput(f"a study is a folder with study.json; got {str(folder)!r}: see `autotune studies`")
    rows = []
    for record in read_records(folder):
        row: dict[str, object] = {
            "number": record.spec.number,
            "stage": record.spec.stage.value,
            "label": record.spec.label,
            "outcome": outcome_kind(record.outcome),
            "seed": record.spec.seed,
            "horizon_tokens": record.spec.horizon_tokens,
            "loss": record.evaluations[-1].loss if record.evaluations else float("nan"),
            "cost_seconds": record.costs.total_seconds,
        }
        rows.append(row | record.spec.config.to_mapping())
    return pd.DataFrame(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What `doctor` found: the machine, the values of a space that are of no use on it, whether studies can be kept.

    `storage` is empty where the folder of studies can be written, else what is in the way.
    """

    machine: Machine
    pruned: tuple[Pruned, ...]
    storage: str


def doctor(space_path: Path | str, *, root: Path | str = DEFAULT_ROOT) -> Examination:
    """Examine this machine as a search of the space would, and what of the space it would not try here.

    Raises:
        autotune.errors.AutotuneError: see there.
    """
    space = load_space(Path(space_path))
    machine = prepare(space.workload.data, device=space.workload.device, attempts=attempts_for(space))
    limits = limits_of(space, machine.limits, vocab_size=machine.corpus.vocab_size, environment=machine.environment)
    folder = next(p for p in (Path(root).absolute(), *Path(root).absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            storage = ""
    except OSError as error:
        storage = f"{folder}: {error.strerror}"
    return Examination(machine=machine, pruned=prune(space, limits)[1], storage=storage)


def alignment(space_path: Path | str, *, restarts: int, tell: Callable[[str], None]) -> Alignment:
    """Whether powers of two pay on this machine: the claims of the source's 3.1 on the workload of a space.

    Raises:
        autotune.errors.AutotuneError: see there.
    """
    space = load_space(Path(space_path))
    machine = prepare(space.workload.data, device=space.workload.device)
    claims = claims_of(space, machine.corpus.vocab_size)
    with _executor() as executor:
        return measure_alignment(executor, space, claims, restarts=restarts, tell=tell)


def with_overrides(space: SearchSpace, *, data: str, budget_seconds: float) -> SearchSpace:
    """The space with another corpus (relative to the working directory) and another budget, where given."""
    if data:
        corpus = data if data == "stdlib" else str(Path(data).expanduser().absolute())
        workload = replace(space.workload, data=replace(space.workload.data, corpus=corpus))
        space = replace(space, workload=workload)
    return replace(space, budget_seconds=budget_seconds) if budget_seconds else space


def fingerprint_of(space: SearchSpace, machine: Machine) -> Fingerprint:
    """What the measurements of a study depend on, here and now."""
    return Fingerprint(
        space=space.fingerprint[:16],
        data=machine.corpus.content_sha256[:16],
        code=f"{metadata.version('autotune')} {_code_digest()[:16]}",
        hardware="; ".join(f"{key} {machine.environment.get(key, '?')}" for key in _HARDWARE_KEYS),
    )


def view_of(finished: Finished) -> View:
    """A finished search in words, as its report has it."""
    return build_view(
        finished.recommendation,
        study=finished.study,
        created_at=finished.created_at,
        version=metadata.version("autotune"),
        space=finished.space,
        folder=str(finished.folder),
    )


def _run(study: Study, machine: Machine, listeners: Sequence[Listener], started: float) -> Finished:
    with _executor() as executor, database(study.database) as storage:
        lab = Lab(
            study=study,
            executor=executor,
            machine=machine,
            storage=storage,
            capacity_bytes=available_bytes(machine.environment),
            clock=time.monotonic,
            sitting_started=started,
            listeners=listeners,
        )
        try:
            lab.tell(
                EventKind.SITTING_STARTED,
                study=study.info.name,
                budget_seconds=study.info.budget_seconds,
                spent_seconds=round(study.elapsed_seconds, 1),
                resumed=bool(study.records),
            )
            recommendation = run_search(lab)
        except KeyboardInterrupt:
            lab.budget.note()
            raise Interrupted(
                f"the search was interrupted, nothing is lost: `autotune resume {study.info.name}` goes on"
            ) from None
        finally:
            lab.close()
    finished = Finished(
        recommendation=recommendation,
        study=study.info.name,
        space=study.info.space_name,
        created_at=_now(),
        folder=study.folder,
    )
    write_report(recommendation, view_of(finished), folder=study.folder)
    return finished


@contextlib.contextmanager
def _executor() -> Iterator[Executor]:
    executor = LocalExecutor()
    try:
        yield executor
    finally:
        executor.close()


def _machine_for(space: SearchSpace, folder: Path) -> Machine:
    """This machine, as a study in `folder` needs it: what it keeps is not tried again."""
    attempts = () if (folder / "limits.json").exists() else attempts_for(space)
    return prepare(space.workload.data, device=space.workload.device, attempts=attempts)


def _require_same(study: Study, now: Fingerprint) -> None:
    """Refuse to go on where something differs; a finished study is only read, so other code does it no harm."""
    before = study.info.fingerprint
    differences = before.differences(replace(now, code=before.code) if study.is_finished else now)
    if differences:
        raise BadInput(
            f"a study goes on only with the same space, data, code and hardware; {study.info.name!r} differs: "
            f"{'; '.join(differences)}: `autotune resume {study.info.name} --fork NEW` starts a new one from it"
        )


def _best_configs(records: Sequence[TrialRecord]) -> tuple[TrainingConfig, ...]:
    """What was confirmed, then what was proposed last, of a study that is forked; each once."""
    order = {Stage.CONFIRM: 0, Stage.RACE: 1, Stage.EXPLORE_LEARNING: 2, Stage.EXPLORE_SYSTEM: 3}
    sound = [r for r in records if isinstance(r.outcome, Completed) and r.spec.stage in order]
    sound.sort(key=lambda r: (order[r.spec.stage], -r.spec.number))
    return tuple(dict.fromkeys(r.spec.config for r in sound))[:_WARM_START]


def _code_digest() -> str:
    """SHA-256 over the sources of both packages: other code may measure otherwise."""
    digest = hashlib.sha256()
    for package in (autotune, autotune_model):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
