"""Whose a results folder is: claim.json in it. Standard library only.

One run at a time writes to a results folder. `submit` claims it before anything is queued; every
start of the job writes its number into the claim; and a start that is no longer the latest, on a
node that was only cut off, stops writing.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import CLAIM_JSON, CLAIM_VERSION, Env, FailureClass
from rtdetr_slurm.errors import ActionError, NewerVersion, RequestError
from rtdetr_slurm.files import write_atomic, write_new
from rtdetr_slurm.records import BadRecord, checked, read_json
from rtdetr_slurm.runs.processes import user_name


@dataclass(frozen=True)
class Start:
    """One start under a claim: what its status lines carry.

    Attributes:
        claim: id of the claim.
        restart: its number under that claim, as Slurm counts them.
    """

    claim: str
    restart: int = 0

    def facts(self) -> dict[str, Any]:
        """The keys that a status line of this start has."""
        return {"claim": self.claim, "restart": self.restart}

    def wrote(self, line: Mapping[str, Any]) -> bool:
        return (line.get("claim"), line.get("restart")) == (self.claim, self.restart)

    def environment(self) -> dict[str, str]:
        """What tells the engine of it."""
        return {Env.CLAIM: self.claim, Env.RESTART: str(self.restart)}


def start_of(environ: Mapping[str, str]) -> Start | None:
    """The start that a launcher has told this process of; None when it was started by hand."""
    claim, restart = environ.get(Env.CLAIM), environ.get(Env.RESTART) or "0"
    return Start(claim, int(restart)) if claim and restart.isdecimal() else None


@dataclass(frozen=True)
class Claim:
    """Who writes to a results folder.

    Attributes:
        id: what its status lines carry; `claim_id` of a run's.
        restart: the latest start that has begun; None before the first.
        continues: whether the folder held checkpoints already, from which it goes on.
        ended: whether it is over: said of a start by hand, and of a run whose job could not record
            its own end.
        run_dir, stage, job_id: of a run; the job is known once it has started.
        pid, process_start: of a start by hand.
    """

    id: str
    user: str
    host: str
    time: str
    restart: int | None = None
    continues: bool = False
    ended: bool = False
    run_dir: str | None = None
    stage: str | None = None
    job_id: str | None = None
    pid: int | None = None
    process_start: int | None = None

    def __post_init__(self) -> None:
        """A claim is shown by whoever meets it, and anybody may have written it.

        Raises:
            ValueError: it holds what is no text for a terminal.
        """
        text = (self.id, self.user, self.host, self.time, self.run_dir, self.stage, self.job_id)
        for value in text:
            if value is not None and not value.isprintable():
                raise ValueError(f"found {value!a}; expected printable text")

    def __str__(self) -> str:
        who = f"process {self.pid} on {self.host}"
        if self.run_dir is not None:
            job = f", job {self.job_id}" if self.job_id else ""
            who = f"run {Path(self.run_dir).name} (stage {self.stage}{job})"
        return f"{who} of {self.user}, since {self.time}"


class Superseded(ActionError):
    """The results folder belongs to another start by now; whoever meets this writes no more."""


def claim_id(run_id: str, task: str) -> str:
    """The id of the claim of a run's stage, or of one task of its array."""
    return f"{run_id}:{task}"


def new_claim(claim: str, **facts: Any) -> Claim:
    """A claim of this user, on this host, now."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Claim(claim, user_name(), os.uname().nodename, now, **facts)


def read_claim(folder: Path) -> Claim | None:
    """The claim on a folder; None when nobody has claimed it.

    Raises:
        NewerVersion: a newer rtdetr-slurm has claimed it.
        RequestError: the claim cannot be read.
    """
    return _read(folder / CLAIM_JSON)


def take(folder: Path, mine: Claim, over: Claim | None = None) -> None:
    """Claim a folder that nobody has claimed, or take it over from `over`, whose run has ended.

    Of several that do so at once one succeeds.

    Raises:
        RequestError: another one was faster.
        OSError: the folder is not writable.
    """
    path = folder / CLAIM_JSON
    if over is None:
        _make(path, mine)
        return
    with _alone(path):
        held = _read(path)
        if held is None:
            _make(path, mine)
        elif held == over:
            write_atomic(path, _text(mine))
        else:
            raise RequestError(f"{folder} has just been claimed by {held}")


def give_back(folder: Path, mine: str, former: Claim | None) -> None:
    """Undo `take` of a claim under which nothing has started.

    Raises:
        RequestError: another one is taking the folder over at this moment.
        OSError: the folder is not writable.
    """
    with _alone(folder / CLAIM_JSON):
        held = read_claim(folder)
        if held is None or held.id != mine or held.restart is not None:
            return
        if former is None:
            (folder / CLAIM_JSON).unlink(missing_ok=True)
        else:
            write_atomic(folder / CLAIM_JSON, _text(former))


def has_begun(folder: Path, start: Start, *, holds_checkpoints: bool) -> bool:
    """Whether an earlier start of a run has begun here: only then are the folder's checkpoints its
    own. How often the job was requeued does not tell that.

    Args:
        start: the run's present one.
        holds_checkpoints: whether there are any in the folder.

    Raises:
        ActionError: the folder is another's, or nobody can tell whose its checkpoints are.
        Superseded: a later start of the same run has begun.
    """
    held = read_claim(folder)
    if held is None:
        if holds_checkpoints:
            raise ActionError(
                f"results_dir {folder} holds checkpoints, and {CLAIM_JSON}, which tells whose they "
                "are, is gone: submit with another results_dir"
            )
        return False
    if held.id != start.claim:
        raise ActionError(f"results_dir {folder} belongs to {held}: submit with another one")
    _refuse_later(folder, held, start)
    return held.restart is not None


def begin(folder: Path, mine: Claim) -> None:
    """Write the number of a run's start into its claim, after `has_begun`."""
    held = read_claim(folder)
    if held is None:
        take(folder, mine)
    else:
        write_atomic(folder / CLAIM_JSON, _text(replace(mine, continues=held.continues)))


def latest_start(folder: Path, claim: str) -> Start | None:
    """The latest start that has begun to write to a folder under a claim; None when none has, or
    the folder is another's by now."""
    held = read_claim(folder)
    if held is None or held.id != claim or held.restart is None:
        return None
    return Start(claim, held.restart)


def mark_ended(folder: Path, start: Start) -> None:
    """Mark a claim as over, if it is still that of this start; what lives on writes no more."""
    held = read_claim(folder)
    if held is not None and (held.id, held.restart) == (start.claim, start.restart):
        write_atomic(folder / CLAIM_JSON, _text(replace(held, ended=True)))


def check_latest(folder: Path, start: Start) -> None:
    """Before writing to a results folder: it still belongs to this very start.

    Raises:
        Superseded: to another one by now.
    """
    held = read_claim(folder)
    if held is not None:
        _refuse_later(folder, held, start)


def _refuse_later(folder: Path, held: Claim, start: Start) -> None:
    if held.id != start.claim:
        raise Superseded(f"{folder} belongs to {held} by now; this start writes no more")
    if held.ended and held.restart == start.restart:
        raise Superseded(f"this start was found to have ended; it no longer writes to {folder}")
    if (held.restart or 0) > start.restart:
        raise Superseded(
            f"start {held.restart} of this job, on {held.host}, writes to {folder} by now; this "
            f"one, start {start.restart}, writes no more",
            FailureClass.INFRA,
        )


def _make(path: Path, mine: Claim) -> None:
    try:
        write_new(path, _text(mine))
    except FileExistsError:
        holder = _read(path) or "another"  # which may have given it back already
        raise RequestError(f"{path.parent} has just been claimed by {holder}") from None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Of those that have seen the same dead claim, one at a time may replace it."""
    turn = path.with_name(f".{path.name}.turn")
    try:
        write_new(turn, "")
    except FileExistsError:
        raise RequestError(
            f"{path.parent} has just been claimed by another; if none uses it, remove {turn}"
        ) from None
    try:
        yield
    finally:
        turn.unlink(missing_ok=True)


def _text(claim: Claim) -> str:
    return json.dumps({"schema_version": CLAIM_VERSION, **asdict(claim)}, indent=2) + "\n"


def _read(path: Path) -> Claim | None:
    try:
        content = _content(path)
        version = content.pop("schema_version", None) if isinstance(content, dict) else None
        if isinstance(version, int) and version > CLAIM_VERSION:
            raise NewerVersion(path, version, CLAIM_VERSION)
        return checked(Claim, content, path)
    except FileNotFoundError:
        return None
    except BadRecord as error:
        raise RequestError(f"{error}; if no job writes to {path.parent}, remove it") from error


def _content(path: Path) -> Any:
    try:
        return read_json(path)
    except BadRecord as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.ESTALE:
            raise
        return read_json(path)  # another node has replaced it meanwhile
