"""Which checkpoint of a training is meant: best, last, latest, epoch:N. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.contract import LATEST_SUFFIX, Kpi
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.records import names_in
from rtdetr_slurm.runs.checkpoints import (
    CheckpointFile,
    Verify,
    best_first,
    is_checkpoint_name,
    list_checkpoints,
    resume_candidates,
    verify_checkpoint,
)


@dataclass(frozen=True)
class Chosen:
    """A whole checkpoint.

    Attributes:
        about: what there is to say about it, for the record.
        epochs: that are done in it; None where its name does not say.
    """

    path: Path
    about: str
    epochs: int | None = None


def best_or_last(results_dir: Path, verify: Verify = verify_checkpoint) -> Chosen:
    """The highest val_mAP, else the latest epoch; a damaged file is passed over, which is said.

    Raises:
        RequestError: there is no whole checkpoint.
    """
    listed = list_checkpoints(results_dir)
    problems: list[str] = []
    for file in dict.fromkeys([*best_first(listed), *reversed(listed)]):
        problem = verify(file.path)
        if problem is None:
            return _chosen(file, *(f"{one}; passed over" for one in problems))
        problems.append(problem)
    raise RequestError("; ".join([f"there is no whole checkpoint in {results_dir}", *problems]))


def checkpoint_of(results_dir: Path, choice: str, verify: Verify = verify_checkpoint) -> Chosen:
    """The one checkpoint that `choice` (contract.CHECKPOINT_CHOICE) names, and no other.

    `latest` is what the folder's link `*_latest.pth` leads to, as TAO keeps one; where there is
    none, the furthest there is, be it an epoch's or that of an interruption.

    Raises:
        RequestError: there is none, or it is damaged; says which there are.
    """
    if choice == "latest":
        found = _latest(results_dir)
    else:
        found = _of_epochs(list_checkpoints(results_dir), choice, results_dir)
    problem = verify(found.path)
    if problem is not None:
        raise RequestError(f"{problem}; {_epochs(list_checkpoints(results_dir))}")
    return found


def _of_epochs(listed: Sequence[CheckpointFile], choice: str, results_dir: Path) -> Chosen:
    if choice == "best":
        candidates = best_first(listed)[:1]
        missing = f"no checkpoint with a {Kpi.VAL_MAP}"
    elif choice == "last":
        candidates = [*listed[-1:]]
        missing = "no checkpoint"
    else:
        number = int(choice.removeprefix("epoch:"))
        candidates = [file for file in listed if file.epoch == number]
        missing = f"no checkpoint of epoch {number}"
    if not candidates:
        raise RequestError(f"there is {missing} in {results_dir}; {_epochs(listed)}")
    return _chosen(candidates[0])


def _latest(results_dir: Path) -> Chosen:
    links = [name for name in names_in(results_dir) if name.endswith(LATEST_SUFFIX)]
    if len(links) > 1:
        raise RequestError(f"{results_dir} has several of *{LATEST_SUFFIX}: {', '.join(links)}")
    if links:
        # A resumed training goes by the name of the file that the link leads to.
        path = (results_dir / links[0]).resolve()
        number = next((c.epoch for c in list_checkpoints(path.parent) if c.path == path), None)
        return Chosen(path, f"by {links[0]}", None if number is None else number + 1)
    candidates = resume_candidates(results_dir)
    if not candidates:
        raise RequestError(f"there is no checkpoint in {results_dir}")
    return _chosen(candidates[0])


def _chosen(file: CheckpointFile, *words: str) -> Chosen:
    about = [f"epoch {file.epoch}"]
    if not is_checkpoint_name(file.path.name):
        about = [f"epoch {file.epoch}, {file.step} steps"]
    if file.metric is not None:
        about.append(f"{Kpi.VAL_MAP} {file.metric:.4f}")
    return Chosen(file.path, ", ".join([*about, *words]), file.progress[0])


def _epochs(listed: Sequence[CheckpointFile]) -> str:
    """Which epochs there are."""
    if not listed:
        return "there is none of any epoch"
    numbers = [str(file.epoch) for file in listed]
    shown = numbers if len(numbers) <= 12 else [*numbers[:6], "…", *numbers[-5:]]
    return f"there are those of epoch{'s' * (len(numbers) > 1)} {', '.join(shown)}"
