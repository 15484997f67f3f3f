"""A worker of a search: one task of its array, which trains trials until none is left for it.

Workers know of one another by the study and by the record of the run alone, so that it does not
matter how many there are, when they come, and which of them Slurm takes away.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rtdetr_slurm.automl.budget import failing, gpu_hours, search_events, seconds_of, why_over
from rtdetr_slurm.automl.dismissal import dismiss_waiting
from rtdetr_slurm.automl.history import Assignment, TrialRecord, TrialState
from rtdetr_slurm.automl.leases import Lease, holders, lease_of, may_take, take
from rtdetr_slurm.automl.study import Study, open_study
from rtdetr_slurm.automl.trial import Outcome, TrialEnd, TrialStart
from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.files import PRIVATE_DIR
from rtdetr_slurm.installed import see_installed
from rtdetr_slurm.launch.allocation import Allocation
from rtdetr_slurm.launch.history import history_of
from rtdetr_slurm.launch.job_run import JobRun
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.launch.verdict import Kind, Verdict, Witnesses
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.runs.checkpoints import resume_candidates
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import task_history

INFRA_RETRIES = 1
"""So often is a trial tried again that has ended because the cluster failed."""
WAIT_S = 10.0
"""How often it is looked whether there is something to train again."""
_JITTER_S = 30.0
_PER_WORKER_S = 0.5
_MOST_LOST = 2
"""After so many trials in a row that the cluster has failed here, a worker takes no more."""


@dataclass(frozen=True)
class _Taken:
    """A trial that this worker has."""

    assignment: Assignment
    start: int


class Worker(JobRun):
    """One start of a worker."""

    def __init__(self, run: Run, allocation: Allocation, stop: StopRequest, search: Search) -> None:
        super().__init__(run, allocation, stop)
        self.search = search
        self.study: Study
        self._steps = self._ended = 0
        self._lost_in_a_row = 0

    # --- as a job ----------------------------------------------------------------------------
    def reached(self) -> tuple[int, int]:
        """Trials of its own that have ended, and how far its last one is."""
        own = [e for e in self._of_the_search() if e.get("worker") == self.task.index]
        ended = sum(event["event"] == "finished" for event in own)
        started = [event["trial"] for event in own if event["event"] == "started"]
        furthest = resume_candidates(self._task(started[-1]).results_dir) if started else []
        epochs, steps = furthest[0].progress if furthest else (0, 0)
        return ended, epochs * 10**9 + steps

    def look(self) -> None:
        pass

    def prepare(self) -> None:
        see_installed(self.search.python_path, "optuna")
        # All tasks of an array start at once, and all read the same journal first.
        workers = 1 if self.task.stage.array is None else self.task.stage.array.size
        time.sleep(random.uniform(0, min(_JITTER_S, _PER_WORKER_S * (workers - 1))))
        self.study = open_study(self.search)
        self.run.job_dir(self.task.name).mkdir(mode=PRIVATE_DIR, exist_ok=True)

    def write_end(self, verdict: Verdict) -> None:
        pass

    def end_facts(self, verdict: Verdict) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def after_end(self) -> None:
        pass

    def of_this_job(self, end: Witnesses) -> Witnesses:
        found = super().of_this_job(end)
        return replace(found, progressed=found.progressed or self._ended > 0)

    # --- its work ----------------------------------------------------------------------------
    def work(self) -> Verdict:
        while True:
            events = self._of_the_search()
            over = why_over(self.task.stage, events)
            stopped = self.stop.signum is not None
            taken = None if stopped else self._next(events, begins=over is None)
            if taken is not None:
                verdict = self._train(taken)
                if verdict is not None:
                    return verdict
                continue
            if self.stop.signum is not None:
                return self._interrupted()
            if over or not self.study.awaits_others or self.study.is_over():
                self._dismiss_waiting(over)
                return Verdict(Kind.SUCCESS, f"{self._told()}; {over or 'none is left'}")
            self._wait()

    def _dismiss_waiting(self, over: str | None) -> None:
        """Unless a trial still runs, which one of those that wait may be there to go on with.

        Args:
            over: why no trial begins.
        """
        running = any(one.state is TrialState.RUNNING for one in self.study.trials())
        if not running and (over or self.study.is_over()):
            self.note(lambda: dismiss_waiting(self.run, self.allocation))

    def _told(self) -> str:
        return f"{self._ended} {'trial has' if self._ended == 1 else 'trials have'} ended here"

    def _wait(self) -> None:
        until = time.monotonic() + WAIT_S
        while self.stop.signum is None and time.monotonic() < until:
            time.sleep(min(0.5, WAIT_S))

    def _interrupted(self) -> Verdict:
        """The verdict on a worker that is asked to stop between two trials."""
        assert self.stop.signum is not None
        why = self.why(self.stop.signum).why
        if why is FailureClass.CANCELLED:
            return Verdict(Kind.CANCELLED, "cancelled on request", why, write_status=True)
        if self.task.stage.launch.requeue:
            return Verdict(Kind.REQUEUE, f"{why.value}; takes trials again after requeue", why)
        return Verdict(Kind.SUCCESS, f"{self._told()}; {why.value}, and requeue is not allowed")

    # --- which trial -------------------------------------------------------------------------
    def _next(self, events: Sequence[Event], *, begins: bool) -> _Taken | None:
        """A trial to train, which this worker has from now on: its own first that was interrupted,
        then those that nobody stands by any more, then a new one.

        Args:
            begins: whether a new one may begin.
        """
        running = [one for one in self.study.trials() if one.state is TrialState.RUNNING]
        for idle in (False, True):
            if (found := self._left_behind(running, events, idle=idle)) is not None:
                return found
            if not idle and begins and (new := self.study.take()) is not None:
                if not take(self.run, self._task(new.number), 0, self.allocation.job_id):
                    return None  # this process was held up for minutes, and another has it by now
                return _Taken(new, 0)
        return None

    def _left_behind(
        self, running: Sequence[TrialRecord], events: Sequence[Event], *, idle: bool
    ) -> _Taken | None:
        leases = {one.number: lease_of(events, self._task(one.number)) for one in running}
        mine = (self.task.index, self.allocation.job_id)
        others = holders(leases.values()) - {self.allocation.job_id}
        standing = self.allocation.standing(others) if others else {}
        own_first = sorted(
            running, key=lambda one: (not _is_mine(leases[one.number], mine[0]), one.number)
        )
        for one in own_first:
            lease = leases[one.number]
            if may_take(lease, mine, standing, taken=one.started, idle=idle):
                start = 0 if lease is None else lease.start + 1
                if take(self.run, self._task(one.number), start, self.allocation.job_id):
                    return _Taken(self.study.assignment(one.number), start)
        return None

    def _task(self, trial: int) -> StageTask:
        return StageTask(self.task.stage, self.task.index, trial)

    def _of_the_search(self) -> list[Event]:
        return search_events(self.run.events(), self.task.stage)

    # --- one trial ---------------------------------------------------------------------------
    def _train(self, taken: _Taken) -> Verdict | None:
        """Train a trial; the verdict on this worker where that is its end, too."""
        number = taken.assignment.number
        start = TrialStart(self, self.search, self.study, taken.assignment, taken.start)
        again = f" (start {taken.start + 1})" if taken.start else ""
        values = ", ".join(f"{field}={value}" for field, value in taken.assignment.values.items())
        say(f"trial {number}{again}: {values}")
        end = start.execute(self._steps)
        self._steps += 1
        say(f"trial {number}: {end.outcome.value}: {end.verdict.reason}")
        if end.outcome is Outcome.FAILED and end.verdict.failure_class is FailureClass.INFRA:
            return self._lost(taken, start, end)
        if end.outcome is Outcome.PAUSED:
            self._record_trial("requeued", taken, end)
            return end.verdict
        self._lost_in_a_row = 0
        self._end_trial(taken, start, end)
        return None

    def _lost(self, taken: _Taken, start: TrialStart, end: TrialEnd) -> Verdict | None:
        """After the cluster has failed a trial: it is tried again once; where the job goes back to
        the queue because of it, or nothing gets on here, that is the end of this worker."""
        verdict = end.verdict
        own = task_history(self.run.events(), self._task(taken.assignment.number))
        if history_of(own, taken.start, None).infra_retries < INFRA_RETRIES:
            self._record_trial("requeued", taken, end)
        else:
            self._end_trial(taken, start, end)
            self._lost_in_a_row += 1
        if verdict.kind is Kind.REQUEUE:
            return verdict
        return verdict if self._lost_in_a_row >= _MOST_LOST else None

    def _end_trial(self, taken: _Taken, start: TrialStart, end: TrialEnd) -> None:
        """Tell the study and the record how a trial has ended, in this order: a trial whose end
        only the study knows is not trained again."""
        number, reason = taken.assignment.number, end.verdict.evidence or end.verdict.reason
        facts = self._facts(taken)
        if end.outcome is Outcome.FAILED:
            self.study.fail(number, end.failure_class.value, reason, facts)
        elif end.outcome is Outcome.PRUNED:
            self.study.prune(number, facts)
        else:
            self.study.complete(number, facts)
        start.leave()
        self._ended += 1
        self._record_trial("finished", taken, end)
        events = self._of_the_search()
        if why_over(self.task.stage, events) is None and (why := failing(events)) is not None:
            self.note(lambda: self.run.record("stopping", search=self.task.stage.name, reason=why))

    def _facts(self, taken: _Taken) -> dict[str, Any]:
        own = task_history(self.run.events(), self._task(taken.assignment.number))
        return {
            "seconds": round(seconds_of(own), 1),
            "gpu_hours": round(gpu_hours(self.task.stage, own), 6),
            "starts": sum(event["event"] == "started" for event in own),
            "worker": self.task.index,
        }

    def _record_trial(self, event: str, taken: _Taken, end: TrialEnd) -> None:
        facts = self._task(taken.assignment.number).event_facts(self.allocation.job_id)
        data: dict[str, Any] = {"reason": end.verdict.reason}
        if event == "finished":
            data["state"] = "failed" if end.outcome is Outcome.FAILED else "success"
        if end.outcome in (Outcome.FAILED, Outcome.PAUSED):
            data["failure_class"] = end.failure_class.value
        if end.verdict.by_slurm:
            data["by_slurm"] = True
        self.note(lambda: self.run.record(event, **facts, restart=taken.start, **data))


def _is_mine(lease: Lease | None, worker: int | None) -> bool:
    return lease is not None and lease.worker == worker
