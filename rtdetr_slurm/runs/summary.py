"""What there is to tell about a run, as plain values: what `status` prints, `--json` gives and
summary.json keeps. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

from rtdetr_slurm.contract import RUN_VERSION, SUMMARY_JSON, FailureClass
from rtdetr_slurm.records import BadRecord, Prose, checked, read_json
from rtdetr_slurm.runs.artefacts import Results
from rtdetr_slurm.runs.failures import Failure
from rtdetr_slurm.runs.live import Live, LiveSummary
from rtdetr_slurm.runs.progress import Progress
from rtdetr_slurm.runs.run import check_version
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.usage import Usage, UsageSummary
from rtdetr_slurm.slurm.answers import JobInfo

FailureSummary = TypedDict(
    "FailureSummary", {"class": FailureClass, "evidence": Prose, "advice": Prose}
)


class _Later(TypedDict, total=False):
    """What summaries of older versions lack."""

    usage: UsageSummary
    live: LiveSummary | None
    report: str | None
    done_without: bool


class StageSummary(_Later):
    """A stage, or a task of its array, as `--json` and summary.json have it."""

    name: str
    action: str
    state: StageState
    detail: Prose
    job_id: str | None
    slurm_state: str | None
    slurm_reason: str | None
    expected_start: str | None
    nodes: str | None
    restarts: int
    epoch: int | None
    max_epoch: int | None
    eta: Prose | None
    metrics: Mapping[str, float]
    failure: FailureSummary | None
    best_checkpoint: str | None
    best_val_mAP: float | None
    last_checkpoint: str | None
    picture: str | None
    results_dir: str
    log: str | None


@dataclass(frozen=True)
class _RunFacts:
    """What is told of a run besides its stages."""

    run_id: str
    run_dir: str
    name: str | None
    action: str
    created: str
    user: str

    def facts(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(_RunFacts)}


@dataclass(frozen=True)
class RunSummary(_RunFacts):
    """A run as `--json` and summary.json have it."""

    state: StageState
    stages: tuple[StageSummary, ...]
    schema_version: int


@dataclass(frozen=True)
class StageReport:
    """One stage, or one task of its array.

    Attributes:
        name: `train`, or `train.4`.
        job: what the scheduler said, where it was asked and knew.
        log: path of the job's log.
        live: what rank 0 says of itself, while the stage runs.
        usage: what became of its time.
        done_without: whether it is a worker that has not ended well, of a search that has its best
            trial nevertheless.
    """

    name: str
    action: str
    state: StageState
    detail: str = ""
    failure: Failure | None = None
    job_id: str | None = None
    job: JobInfo | None = None
    restarts: int = 0
    progress: Progress = field(default_factory=Progress)
    results: Results = field(default_factory=Results)
    results_dir: str = ""
    log: str | None = None
    live: Live | None = None
    usage: Usage = field(default_factory=Usage)
    done_without: bool = False

    def to_json(self) -> StageSummary:
        job, progress, results, failure = self.job, self.progress, self.results, self.failure
        slurm = None if job is None or job.gone or job.source == "local" else job
        return {
            "name": self.name,
            "action": self.action,
            "state": self.state,
            "detail": self.detail,
            "job_id": self.job_id,
            "slurm_state": slurm.state if slurm else None,
            "slurm_reason": slurm.reason if slurm else None,
            "expected_start": slurm.expected_start if slurm else None,
            "nodes": slurm.nodes if slurm else None,
            "restarts": self.restarts,
            "epoch": progress.epoch,
            "max_epoch": progress.max_epoch,
            "eta": progress.eta,
            "metrics": dict(progress.metrics),
            "failure": None if failure is None else _failure_summary(failure),
            "best_checkpoint": _text(results.best),
            "best_val_mAP": results.best_metric,
            "last_checkpoint": _text(results.last),
            "picture": _text(results.picture),
            "report": _text(results.report),
            "results_dir": self.results_dir,
            "log": self.log,
            "usage": self.usage.to_json(),
            "live": None if self.live is None else self.live.to_json(),
            "done_without": self.done_without,
        }

    @staticmethod
    def from_json(data: StageSummary) -> StageReport:
        failure = data["failure"]
        return StageReport(
            name=data["name"],
            action=data["action"],
            state=data["state"],
            detail=data["detail"],
            failure=failure and Failure(failure["class"], failure["evidence"]),
            job_id=data["job_id"],
            restarts=data["restarts"],
            progress=Progress(data["epoch"], data["max_epoch"], data["eta"], data["metrics"]),
            results=Results(
                best=_path(data["best_checkpoint"]),
                best_metric=data["best_val_mAP"],
                last=_path(data["last_checkpoint"]),
                picture=_path(data["picture"]),
                report=_path(data.get("report")),
            ),
            results_dir=data["results_dir"],
            log=data["log"],
            usage=Usage.from_json(data["usage"]) if "usage" in data else Usage(),
            done_without=data.get("done_without", False),
        )


@dataclass(frozen=True)
class RunReport(_RunFacts):
    """One run with all its stages."""

    stages: tuple[StageReport, ...]

    @property
    def state(self) -> StageState:
        """The run's state: the most pressing one of its stages that matter in the end."""
        states = [stage.state for stage in self.stages if not stage.done_without]
        order = (
            StageState.FAILED,
            StageState.CANCELLED,
            StageState.RUNNING,
            StageState.UNKNOWN,
            StageState.QUEUED,
            StageState.SKIPPED,
        )
        return next((state for state in order if state in states), StageState.SUCCESS)

    @property
    def ended(self) -> bool:
        """Whether nothing of it will change any more."""
        return all(stage.state.ended for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """A RunSummary as plain data."""
        stages = tuple(stage.to_json() for stage in self.stages)
        version = {"schema_version": RUN_VERSION}
        return {**version, **self.facts(), "state": self.state, "stages": stages}

    @staticmethod
    def from_json(data: RunSummary) -> RunReport:
        stages = tuple(StageReport.from_json(stage) for stage in data.stages)
        return RunReport(**data.facts(), stages=stages)


def read_summary(run_dir: Path) -> RunReport | None:
    """The report of a run that has ended, from one small file; None while there is none.

    Raises:
        RequestError: it cannot be read, or was written by another version.
    """
    path = run_dir / SUMMARY_JSON
    try:
        content = read_json(path)
    except FileNotFoundError:
        return None
    check_version(path, content)
    summary = checked(RunSummary, content, path)
    if not summary.stages:
        raise BadRecord(path, "stages: there is none")
    try:
        return RunReport.from_json(summary)
    except ValueError as error:
        raise BadRecord(path, f"usage: {error}") from error


def _failure_summary(failure: Failure) -> FailureSummary:
    return {
        "class": failure.failure_class,
        "evidence": failure.evidence,
        "advice": failure.advice,
    }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
