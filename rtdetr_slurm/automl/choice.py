"""Which checkpoint of which trial is the best one of a search, and which are left in the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.automl.history import TrialState
from rtdetr_slurm.automl.leaderboard import Entry
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.plan.model import Stage, StageTask
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.records import names_in
from rtdetr_slurm.runs.best import Best
from rtdetr_slurm.runs.checkpoints import Verify, list_checkpoints, verify_checkpoint
from rtdetr_slurm.runs.claim import claim_id, read_claim
from rtdetr_slurm.runs.run import Run


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        best: None where no trial has left a whole checkpoint that was scored.
        passed_over: what is wrong with those that would have been better.
    """

    best: Best | None
    passed_over: tuple[str, ...] = ()


def choose(
    stage: Stage, search: Search, entries: Sequence[Entry], verify: Verify = verify_checkpoint
) -> Choice:
    """The whole checkpoint with the best score of all trials that have ended.

    Args:
        stage: that searches.
        entries: the leaderboard.
    """
    problems: list[str] = []
    for _, entry, epoch, path in _candidates(stage, search, entries):
        if (problem := verify(path)) is None:
            trial = entry.trial
            best = Best(
                trial=trial.number,
                action=stage.action,
                epoch=epoch,
                checkpoint=path.name,
                sha256=sha256_of(path),
                metric=search.objective.metric,
                value=trial.curve[epoch],
                values=trial.values,
            )
            return Choice(best, tuple(problems))
        problems.append(problem)
    return Choice(None, tuple(problems))


def _candidates(
    stage: Stage, search: Search, entries: Sequence[Entry]
) -> list[tuple[tuple[float, int, int], Entry, int, Path]]:
    """Every checkpoint with a score, the best first; of equals the earlier trial's earlier one."""
    sign = -1 if search.objective.direction == "maximize" else 1
    found = []
    for entry in entries:
        if entry.rank is None:
            continue
        curve = entry.trial.curve
        for one in list_checkpoints(StageTask(stage, trial=entry.trial.number).results_dir):
            if one.epoch in curve:
                key = (sign * curve[one.epoch], entry.trial.number, one.epoch)
                found.append((key, entry, one.epoch, one.path))
    return sorted(found, key=lambda candidate: candidate[0])


# --- what is left --------------------------------------------------------------------------
def kept_trials(search: Search, entries: Sequence[Entry], best: Best) -> set[int]:
    """The trials whose checkpoints stay where not all do: the best one, where there are several
    objectives all that no other beats, and the `keep` best of retention `topk`."""
    kept = {best.trial} | {entry.trial.number for entry in entries if entry.on_front}
    if search.retention == "topk":
        ranked = (entry.trial.number for entry in entries if entry.rank is not None)
        kept |= {number for _, number in zip(range(search.keep), ranked, strict=False)}
    return kept


def remove_checkpoints(
    run: Run, stage: Stage, entries: Sequence[Entry], kept: set[int]
) -> tuple[int, int]:
    """Remove those of the trials that have ended and are not `kept`.

    Returns:
        Number of files and of bytes.
    """
    files = size = 0
    for path in _removable(run, stage, entries, kept):
        with suppress(OSError):  # gone already, or it cannot be helped
            here = path.lstat().st_size
            path.unlink()
            files, size = files + 1, size + here
    return files, size


def _removable(run: Run, stage: Stage, entries: Sequence[Entry], kept: set[int]) -> Iterator[Path]:
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)
    for entry in entries:
        if entry.trial.state not in ended or entry.trial.number in kept:
            continue
        task = StageTask(stage, trial=entry.trial.number)
        held = read_claim(task.results_dir)
        if held is None or held.id != claim_id(run.id, task.name):
            continue  # another run has taken the folder over
        names = names_in(task.results_dir)
        yield from (task.results_dir / name for name in names if name.endswith(".pth"))
