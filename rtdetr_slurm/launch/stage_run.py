"""One start of a stage that runs its action once: prepare, run its step, judge, close."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rtdetr_slurm.launch.allocation import Allocation
from rtdetr_slurm.launch.attempt import Attempt
from rtdetr_slurm.launch.inputs import Resolved
from rtdetr_slurm.launch.job_run import JobRun
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.launch.verdict import Kind, Verdict, decide
from rtdetr_slurm.runs.alive import say_alive
from rtdetr_slurm.runs.artefacts import made_files, verified_checkpoints
from rtdetr_slurm.runs.best import values_before
from rtdetr_slurm.runs.claim import Start, claim_id
from rtdetr_slurm.runs.efficiency import keep_efficiency
from rtdetr_slurm.runs.run import Run


class StageRun(JobRun):
    """One start of a stage, or of one task of its array."""

    def __init__(self, run: Run, allocation: Allocation, stop: StopRequest) -> None:
        super().__init__(run, allocation, stop)
        start = Start(claim_id(run.id, self.task.name), allocation.restart)
        self.attempt = Attempt(run, allocation, self.task, start)

    def reached(self) -> tuple[int, int]:
        return self.attempt.reached_before

    def look(self) -> None:
        self.attempt.results.look_for_claim()

    def prepare(self) -> None:
        searched = values_before(self.run, self.task.stage)

        def record(inputs: list[Resolved]) -> None:
            values = {"values": searched} if searched else {}
            self.record("resolved", inputs=[asdict(one) for one in inputs], **values)

        self.attempt.prepare(record, values=searched)

    def work(self) -> Verdict:
        end = self.attempt.execute(
            self.stop,
            self.why,
            seconds_left=self.seconds_left,
            sign_of_life=lambda: self.note(lambda: say_alive(self.run, self.task)),
        )
        return decide(self.of_this_job(self.attempt.witnesses(end)))

    def write_end(self, verdict: Verdict) -> None:
        self.attempt.close(verdict)

    def end_facts(self, verdict: Verdict) -> dict[str, Any]:
        results, action = self.attempt.results, self.attempt.action
        if action.trains and results.holds:
            return {"checkpoints": verified_checkpoints(results.path, results.verify)}
        if verdict.kind is Kind.SUCCESS:
            return {"made": made_files(action, results.path, self.attempt.spec)}
        return {}

    def after_end(self) -> None:
        if self.attempt.results.holds:
            keep_efficiency(self.run, self.task)
