"""`rtdetr` without a run: it claims its results folder itself."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import CLAIM_JSON, Env
from rtdetr_slurm.engine.process.failures import writing_error
from rtdetr_slurm.errors import RequestError, UserError
from rtdetr_slurm.runs.checkpoints import in_the_way, resume_candidates, resumed_checkpoint
from rtdetr_slurm.runs.claim import Start, mark_ended, new_claim, read_claim, take
from rtdetr_slurm.runs.holders import report_of_record, why_in_use
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.spec import LoadedSpec


@contextmanager
def claimed_by_hand(folder: Path, loaded: LoadedSpec) -> Iterator[Start]:
    """Claim a results folder for as long as this lasts, before anything is written to it; this
    process's workers are told of it.

    Raises:
        RequestError: somebody else writes there, or it holds the checkpoints of a training that
            the spec does not go on from.
        ActionError: the claim cannot be written.
    """
    held = read_claim(folder)
    problem = why_in_use(folder, held, report_of_record)
    resumes = os.environ.get(Env.RESUME) == "1"
    if problem is None and get_action(loaded.action).trains and not resumes:
        problem = in_the_way(folder, resumed_checkpoint(loaded.resolved()))
    if problem is not None:
        raise RequestError(problem)
    pid = os.getpid()
    start = Start(f"{os.uname().nodename}-{pid}-{secrets.token_hex(4)}")
    mine = new_claim(
        start.claim,
        restart=start.restart,
        continues=bool(resume_candidates(folder)),
        pid=pid,
        process_start=process_facts(str(pid))["process_start"],
    )
    try:
        take(folder, mine, held)
    except OSError as error:
        raise writing_error(error, folder / CLAIM_JSON) from None
    os.environ.update(start.environment())
    try:
        yield start
    finally:
        for name in start.environment():
            del os.environ[name]
        try:
            mark_ended(folder, start)
        except (OSError, UserError) as error:
            print(f"rtdetr: {folder / CLAIM_JSON} stays as it is: {error}", file=sys.stderr)
