"""The public API: search, resume and read studies, from the command line or a notebook."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from autotune.analysis.choice import Choice
from autotune.analysis.decision import Expected, RaceInRun
from autotune.analysis.look import Looked, RunEnd, compared
from autotune.analysis.recommendation import Recommendation
from autotune.errors import BadInput, Interrupted, NothingFeasible
from autotune.executors import open_executor
from autotune.executors.base import Executor
from autotune.measure.alignment import Alignment, measure_alignment
from autotune.measure.lab import Lab
from autotune.quantity import Unknown
from autotune.report.build import build_view
from autotune.report.preview import preview
from autotune.report.view import View
from autotune.report.writers import render_report
from autotune.search import run_search
from autotune.search.calibrate import calibrate
from autotune.search.database import Dashboard
from autotune.search.recommend import whole_case
from autotune.space.configuration import Configuration
from autotune.space.document import SpaceDocument, read_document
from autotune.space.limits import Pruned
from autotune.study.events import Listener, MachineBusy, SittingStarted, StudyMended, TextRead
from autotune.study.folder import Folder
from autotune.study.identity import identity_of
from autotune.study.info import FORMAT, StudyInfo, check_name, differences, no_study, written_corpus
from autotune.study.listing import DEFAULT_ROOT, StudySummary, studies
from autotune.study.making import has_trials
from autotune.study.reading import DamagedTrial, read_all_records
from autotune.study.runlog import RunLog, log_of_run
from autotune.study.store import Study
from autotune.trial.types import Completed, Stage, TrialRecord, outcome_kind, outcome_reason
from autotune.workload.base import Values
from autotune.workload.machine import Machine
from autotune.workload.space import SearchSpace, load_space, space_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "DEFAULT_ROOT",
    "Examination",
    "Finished",
    "StudySummary",
    "alignment",
    "doctor",
    "dry_run",
    "load_study",
    "look",
    "resume",
    "search",
    "studies",
    "view_of",
]

_QUESTION = ("workload.", "baseline.", "knobs.")
"""Prefixes of the identity keys that come from the space file."""
_WARM_START = 4  # configurations that a fork takes over


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
    executor: str | Executor = "local",
    listeners: Sequence[Listener] = (),
    baseline_log: Path | str = "",
) -> Finished:
    """Search the space in the TOML file at `space_path`, or continue the study of that name if it has a trial.

    Plan, prices and budget may differ from the study's: its trials are then priced again, and stages that ended early
    (out of budget, or not worth it) continue.

    Args:
        space_path: the space file.
        data: a corpus that replaces the space's own: a file, folder, glob or `.jsonl`, or `stdlib`.
        study: the study's name; by default the space's name.
        budget_seconds: a cap on the whole search that replaces the space's own.
        root: the folder of all studies.
        executor: where trials run: a name from `autotune.executors.EXECUTORS`, or your own executor.
        listeners: called with every event.
        baseline_log: the log of a run of the plan with the baseline, to compare the first run with (see `look`).

    Raises:
        autotune.errors.AutotuneError: its subclasses are the kinds of failure.
    """
    started = time.monotonic()
    document = read_document(Path(space_path))
    space = _with_overrides(space_of(document), data=data, budget_seconds=budget_seconds)
    folder = Path(root) / check_name(study or document.name)
    if _has_trials(folder):
        with Study.open(folder) as opened:
            _revise(opened, document, space, executor, budget_is_given=budget_seconds > 0)
            if opened.machine is not None:
                _keep(opened, _log_of_baseline(baseline_log, space, opened.machine))
            return _go_on(opened, executor, listeners, started)
    with running_executor(executor) as running:
        machine = _examine(running, space, space.values)
        space.check_choice(space.workload.limits(machine, space.values))
        log = _log_of_baseline(baseline_log, space, machine)
        with Study.create(folder, _info_of(document, space, machine), document.text) as created:
            _keep(created, log)
            return _run(created, running, machine, listeners, started)


def resume(
    study: str,
    *,
    fork: str = "",
    space_path: Path | str = "",
    budget_seconds: float = 0.0,
    root: Path | str = DEFAULT_ROOT,
    executor: str | Executor = "local",
    listeners: Sequence[Listener] = (),
    baseline_log: Path | str = "",
) -> Finished:
    """Continue a study where it stopped; a finished study returns its recommendation again.

    `budget_seconds` replaces the study's budget. `fork` starts a new study of that name. The new study searches the
    space in `space_path` (by default the old study's `space.toml` as it is now), and tries the old study's best
    configurations first. `baseline_log` is as for `search`.

    Raises:
        autotune.errors.AutotuneError: its subclasses; BadInput if model, text, code or hardware changed.
    """
    if space_path and not fork:
        raise BadInput("a study cannot change its space; got another space without --fork: add --fork NEW")
    started = time.monotonic()
    with Study.open(Path(root) / check_name(study)) as opened:
        if not fork:
            space = replace(opened.space, budget_seconds=budget_seconds or opened.info.budget_seconds)
            _revise(opened, opened.document, space, executor, budget_is_given=True)
            if opened.machine is not None:
                _keep(opened, _log_of_baseline(baseline_log, space, opened.machine))
            return _go_on(opened, executor, listeners, started)
        document = read_document(Path(space_path)) if space_path else opened.document
        space = space_of(document) if space_path else _with_text(opened)
        space = replace(space, budget_seconds=budget_seconds or space.budget_seconds)
        best = tuple(space.completed(c) for c in _best_configurations(opened.records))
    folder = Path(root) / check_name(fork)
    if (folder / "study.json").exists():
        raise BadInput(f"a new study needs a new name; got {fork!r}, which exists: choose another --fork")
    with running_executor(executor) as running:
        machine = _examine(running, space, space.values)
        space.check_choice(space.workload.limits(machine, space.values))
        info = replace(_info_of(document, space, machine), forked_from=study, warm_start=best)
        log = _log_of_baseline(baseline_log, space, machine)
        with Study.create(folder, info, document.text) as created:
            _keep(created, log)
            return _run(created, running, machine, listeners, started)


def _log_of_baseline(path: Path | str, space: SearchSpace, machine: Machine) -> RunLog | None:
    """The log at `path` of a run of the plan with the baseline; None if there is none."""
    return log_of_run(Path(path), space.baseline, space, machine) if path else None


def _keep(study: Study, log: RunLog | None) -> None:
    if log is not None:
        study.keep_baseline_log(log)


def look(
    study: str,
    log: Path | str,
    *,
    baseline_log: Path | str = "",
    root: Path | str = DEFAULT_ROOT,
    executor: str | Executor = "local",
) -> Looked:
    """What run 1 of the plan, with the configuration to try, decides for the other runs.

    `log` is that run's. It is compared with the baseline's run: `baseline_log`, or the log given to the search.

    Raises:
        autotune.errors.AutotuneError: its subclasses; BadInput if a log cannot be used, or there is nothing to decide.
    """
    with Study.open(Path(root) / check_name(study)) as opened:
        machine, space = opened.machine, opened.space
        if machine is None or not opened.is_finished:
            raise BadInput(
                f"a look needs a finished study; {study!r} is not finished: `autotune resume {study}` continues it"
            )
        with running_executor(executor) as running:
            lab = Lab(
                study=opened,
                executor=running,
                machine=machine,
                storage=optuna.storages.InMemoryStorage(),
                clock=time.monotonic,
                listeners=(),
            )
            choice = Choice(case=whole_case(lab, calibrate(lab)))
        if not isinstance(choice.decision, Expected | RaceInRun):
            raise BadInput(
                f"a look decides about what is expected; {study!r} expects nothing: `autotune report {study}` says why"
            )
        points = choice.case.calibration.points
        baseline = opened.baseline_log
        if baseline_log:
            baseline = log_of_run(Path(baseline_log), space.baseline, space, machine, points)
        if baseline is None:
            raise BadInput("a look compares two runs; got no log of the baseline's: add --baseline-log FILE")
        tried = log_of_run(Path(log), choice.decision.config, space, machine, points)
    if tried.is_held_out != baseline.is_held_out:
        raise BadInput("two logs must have the same loss; got held-out and training loss: log the held-out loss")
    found = compared(choice, _end_of(tried), _end_of(baseline))
    if isinstance(found, Unknown):
        raise BadInput(found.reason)
    return found


def _end_of(log: RunLog) -> RunEnd:
    return RunEnd(tokens=log.points[-1].tokens, loss=log.points[-1].loss)


def report_again(study: str, *, root: Path | str = DEFAULT_ROOT) -> None:
    """Write the report of a finished study anew, under the name that its folder has now. Measures nothing.

    Raises:
        autotune.errors.AutotuneError: its subclasses; BadInput if the study is not finished.
    """
    with Study.open(Path(root) / study) as opened:
        if opened.machine is None or not opened.is_finished:
            raise BadInput(
                f"a finished study has a report; {study!r} is not finished: `autotune resume {study}` continues it"
            )
        with running_executor("local") as running:  # it starts nothing unless it is asked to
            _run(opened, running, opened.machine, (), time.monotonic())


def load_study(study: str, *, root: Path | str = DEFAULT_ROOT) -> pd.DataFrame:
    """The trials of a study as a table: a row per trial, a column per knob. The study is neither locked nor changed.

    A trial whose result is damaged has the outcome `damaged`, the reason, and nothing else.
    """
    import pandas as pd

    folder = Path(root) / check_name(study)
    if not (folder / "study.json").exists():
        raise no_study(folder)
    rows: list[dict[str, object]] = []
    for record in read_all_records(folder):
        if isinstance(record, DamagedTrial):
            rows.append({"number": record.number, "outcome": "damaged", "reason": record.reason})
            continue
        row: dict[str, object] = {
            "number": record.spec.number,
            "stage": record.spec.stage.value,
            "label": record.spec.label,
            "outcome": outcome_kind(record.outcome),
            "reason": outcome_reason(record.outcome),
            "seed": record.spec.seed,
            "horizon_tokens": record.spec.horizon_tokens,
            "loss": record.evaluations[-1].loss if record.evaluations else float("nan"),
            "cost_seconds": record.costs.total_seconds,
        }
        rows.append(row | dict(record.spec.config))
    return pd.DataFrame(rows)


def dry_run(
    space_path: Path | str,
    *,
    data: str = "",
    study: str = "",
    budget_seconds: float = 0.0,
    root: Path | str = DEFAULT_ROOT,
    executor: str | Executor = "local",
    as_json: bool = False,
) -> str:
    """What a search would do, as text or JSON. Measures and stores nothing, but raises what a search would raise.

    Raises:
        autotune.errors.AutotuneError: its subclasses.
    """
    document = read_document(Path(space_path))
    space = _with_overrides(space_of(document), data=data, budget_seconds=budget_seconds)
    folder = Path(root) / check_name(study or document.name)
    with running_executor(executor) as running:
        machine = _examine(running, space, {})
    if _has_trials(folder):
        with Study.open(folder) as opened:
            if different := differences(opened.info.identity, identity_of(space, machine)):
                raise _another(opened, different)
    space.check_choice(space.workload.limits(machine, space.values))
    return preview(space, machine, as_json=as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What `doctor` found: the machine, the values of the space it would skip, and whether studies can be stored.

    `storage` is empty if the folder of studies is writable, else the reason why it is not.
    """

    machine: Machine
    pruned: tuple[Pruned, ...]
    storage: str


def doctor(
    space_path: Path | str, *, root: Path | str = DEFAULT_ROOT, executor: str | Executor = "local"
) -> Examination:
    """Examine this machine as a search would, and list the values of the space that it would skip here.

    Raises:
        autotune.errors.AutotuneError: its subclasses.
    """
    space = load_space(Path(space_path))
    with running_executor(executor) as running:
        machine = running.examine(space.workload.examination(space.values))
    folder = next(p for p in (Path(root).absolute(), *Path(root).absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            storage = ""
    except OSError as error:
        storage = f"{folder}: {error.strerror}"
    _, pruned = space.pruned(space.workload.limits(machine, space.values))
    return Examination(machine=machine, pruned=pruned, storage=storage)


def alignment(
    space_path: Path | str, *, restarts: int, tell: Callable[[str], None], executor: str | Executor = "local"
) -> Alignment:
    """Measure whether aligned shapes are faster on this machine, on the workload of a space.

    Raises:
        autotune.errors.AutotuneError: its subclasses.
    """
    space = load_space(Path(space_path))
    with running_executor(executor) as running:
        machine = running.examine(space.workload.examination({}))
        claims = space.workload.speed_claims(machine)
        return measure_alignment(running, space, claims, restarts=restarts, tell=tell)


def view_of(finished: Finished) -> View:
    """The text of a finished search, as its report shows it."""
    return build_view(
        finished.recommendation,
        study=finished.study,
        created_at=finished.created_at,
        version=metadata.version("autotune"),
        space=finished.space,
        folder=str(finished.folder),
    )


# -- going on with a study -----------------------------------------------------------------------


def _revise(
    study: Study, document: SpaceDocument, space: SearchSpace, executor: str | Executor, *, budget_is_given: bool
) -> None:
    """Adopt plan, prices, budget and the text's place from a space whose workload, baseline and knobs are the study's.

    The budget is the given one; else the file's, if the file's has changed; else the study's own.
    """
    before = {key: value for key, value in study.info.identity.items() if key.startswith(_QUESTION)}
    now = {key: value for key, value in space.identity().items() if key in before or not key.startswith("baseline.")}
    if different := differences(before, now):  # a knob added after the study began makes no difference
        raise _another(study, different)
    if study.is_finished and space.workload.corpus != study.info.corpus:  # nothing else compares its content
        with running_executor(executor) as running:
            found = _examine(running, space, {}).corpus.content_sha256
        measured = study.info.identity.get("text", "")
        if not found.startswith(measured):  # it was kept shortened once
            raise _another(study, differences({"text": measured}, {"text": found}))
    budget = space.budget_seconds
    if not budget_is_given and document.budget_seconds() == study.document.budget_seconds():
        budget = study.info.budget_seconds
    study.revise(document, corpus=space.workload.corpus, budget_seconds=budget)


def _go_on(study: Study, executor: str | Executor, listeners: Sequence[Listener], started: float) -> Finished:
    """Measure what is missing. A finished study is only read, on any machine and by any version."""
    known = study.machine
    with running_executor(executor) as running:
        if known is not None and study.is_finished:
            return _run(study, running, known, listeners, started)
        values = {} if known else study.space.values  # the results of probing are stored with the study
        different: tuple[str, ...] = ()
        for place in study.places_of_text:
            space = study.space.with_corpus(place)
            machine = _examine(running, space, values)
            if not (here := differences(study.info.identity, identity_of(space, machine))):
                study.take_text_from(place)
                return _run(study, running, machine, listeners, started)
            different = different or here
        raise _another(study, different) if different else _without_text(study)


def _run(study: Study, executor: Executor, machine: Machine, listeners: Sequence[Listener], started: float) -> Finished:
    for event in study.mended:
        for listener in listeners:
            listener(event)
    with Dashboard(study, lambda text: lab.tell(StudyMended(text=text))) as dashboard:
        lab = Lab(
            study=study,
            executor=executor,
            machine=machine,
            storage=optuna.storages.InMemoryStorage(),
            clock=time.monotonic,
            sitting_started=started,
            listeners=(dashboard, *listeners),
        )
        try:
            load = executor.load()
            lab.tell(
                SittingStarted(
                    study=study.name,
                    budget_seconds=study.info.budget_seconds,
                    spent_seconds=round(study.elapsed_seconds, 1),
                    resumed=bool(study.records),
                )
            )
            lab.tell(TextRead(corpus=machine.corpus, horizon_tokens=study.space.workload.horizon_tokens))
            if load and load.is_busy and not study.is_finished:
                lab.tell(MachineBusy(others_share=round(load.others_share, 3)))
            recommendation = run_search(lab)
        except KeyboardInterrupt:
            lab.budget.note()
            raise Interrupted(
                f"the search was interrupted, nothing is lost: `autotune resume {study.name}` continues it"
            ) from None
        finally:
            lab.close()
    finished = Finished(
        recommendation=recommendation,
        study=study.name,
        space=study.info.space_name,
        created_at=_now(),
        folder=study.folder,
    )
    study.keep_report(render_report(recommendation, view_of(finished)))
    return finished


def _info_of(document: SpaceDocument, space: SearchSpace, machine: Machine) -> StudyInfo:
    return StudyInfo(
        format=FORMAT,
        created_at=_now(),
        space_name=document.name,
        corpus=space.workload.corpus,
        corpus_as_written=written_corpus(document),
        budget_seconds=space.budget_seconds,
        identity=identity_of(space, machine),
    )


def _another(study: Study, different: Sequence[str]) -> BadInput:
    return BadInput(
        f"a study can only continue under the conditions it was measured in; {study.name!r} differs: "
        f"{'; '.join(different)}: `autotune resume {study.name} --fork NEW` starts a new study from it"
    )


def _without_text(study: Study) -> BadInput:
    return BadInput(
        f"a study needs its text; there is none at {study.info.corpus!r}: put it back, or say where it is with "
        f"`autotune search {study.folder / 'space.toml'} --study {study.name} --data PATH`"
    )


def _with_text(study: Study) -> SearchSpace:
    """The study's space, with its text where it lies now; for a fork, which may have another text."""
    return study.space.with_corpus(next(iter(study.places_of_text), study.info.corpus))


def _has_trials(folder: Path) -> bool:
    """Whether a study in `folder` has measured anything. One that has not does not block a new search of its name."""
    if not (folder / "study.json").exists():
        return False
    with Folder.open(folder) as files:
        return has_trials(files)


def _best_configurations(records: Sequence[TrialRecord]) -> tuple[Configuration, ...]:
    """The best configurations of a study to fork, without repeats: confirmed ones first, then the latest proposals."""
    order = {Stage.CONFIRM: 0, Stage.RACE: 1, Stage.EXPLORE_LEARNING: 2, Stage.EXPLORE_SYSTEM: 3}
    sound = [r for r in records if isinstance(r.outcome, Completed) and r.spec.stage in order]
    sound.sort(key=lambda r: (order[r.spec.stage], -r.spec.number))
    return tuple(dict.fromkeys(r.spec.config for r in sound))[:_WARM_START]


def _with_overrides(space: SearchSpace, *, data: str, budget_seconds: float) -> SearchSpace:
    """The space with corpus (relative to the working directory) and budget replaced where given."""
    space = space.with_corpus(data) if data else space
    return replace(space, budget_seconds=budget_seconds) if budget_seconds else space


@contextlib.contextmanager
def running_executor(executor: str | Executor) -> Iterator[Executor]:
    """The executor of that name, closed on exit. An executor passed in stays open: the caller closes it."""
    if not isinstance(executor, str):
        yield executor
        return
    opened = open_executor(executor)
    try:
        yield opened
    finally:
        opened.close()


def _examine(executor: Executor, space: SearchSpace, values: Values) -> Machine:
    """Text and machine, for a search of `space` in which `values` have yet to be tried.

    Raises:
        NothingFeasible: the baseline needs more devices than there are.
    """
    machine = executor.examine(space.workload.examination(values), limit_seconds=space.budget_seconds)
    needed, there = space.workload.cost(space.baseline).processes, int(machine.environment.get("devices", "0"))
    if machine.environment.get("device", "cpu") != "cpu" and 0 < there < needed:
        raise NothingFeasible(
            f"each process of the baseline needs a device; got {needed} processes and {there} devices: "
            "change [baseline]"
        )
    return machine


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
