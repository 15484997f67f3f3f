"""Slurm's programs as a test wants them to answer; the real ones are in tests/cluster."""

from __future__ import annotations

from pathlib import Path

from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.summary import RunReport
from rtdetr_slurm.submission.sending import token
from rtdetr_slurm.submission.survey import survey_run


class FakeSlurm:
    """A folder on PATH with programs that answer as told and note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answer("sbatch", "echo 42")
        self.answer("squeue", "true")
        self.answer("sacct", "true")
        self.answer("scontrol", "exit 1")
        self.answer("scancel", "true")

    def answer(self, program: str, body: str) -> None:
        path = self.folder / program
        note = f'ulimit -S -f unlimited; echo "$@" >> {self.folder}/{program}.calls'
        path.write_text(f"#!/bin/sh\n{note}\n{body}\n")
        path.chmod(0o755)

    def calls_of(self, program: str) -> Path:
        return self.folder / f"{program}.calls"

    def calls(self, program: str) -> list[str]:
        notes = self.calls_of(program)
        return notes.read_text().splitlines() if notes.exists() else []


def queue_line(
    run: Run, job_id: str, state: str = "PENDING", stage: str = "train", reason: str = "None"
) -> str:
    """squeue's line of a job of this run."""
    return f"{job_id}|{state}|{reason}|N/A||{token(run.id, stage)}|"


def submitted(run: Run, job_id: str = "42", **facts: str) -> None:
    """Record that the run's training was queued."""
    run.record("submitting", stage="train", token=token(run.id, "train"))
    run.record("submitted", stage="train", job_id=job_id, **facts)


def survey(run: Run) -> RunReport:
    """What `status` reports on a run."""
    return survey_run(run.path)[0]
