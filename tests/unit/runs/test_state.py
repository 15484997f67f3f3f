"""One verdict on a stage from its record, the scheduler and status.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from launch_support import STAGE

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.plan.model import Array, StageTask
from rtdetr_slurm.runs.state import (
    Judgement,
    Signs,
    StageState,
    job_id_of,
    job_ids_of,
    judge,
    starts_in_vain,
    task_events,
)
from rtdetr_slurm.slurm.answers import JobInfo

SUBMITTING = {"event": "submitting", "stage": "train"}
SUBMITTED = {"event": "submitted", "stage": "train", "job_id": "7"}
STARTED = {"event": "started", "stage": "train", "job_id": "7", "restart": 0}
REQUEUED = {"event": "requeued", "stage": "train", "job_id": "7"}
RESTARTED = {"event": "started", "stage": "train", "job_id": "7", "restart": 1}
SUCCESS = {"event": "finished", "stage": "train", "job_id": "7", "state": "success", "reason": ""}
FAILED = SUCCESS | {"state": "failed", "failure_class": "oom_gpu", "reason": "no memory"}
STATUS_SUCCESS = {"status": "SUCCESS"}
STATUS_FAILURE = {"status": "FAILURE", "failure_class": "config", "reason": "bad image"}


def job(state: str, **facts: Any) -> JobInfo:
    return JobInfo("7", state, **facts)


def verdict(
    events: Sequence[dict[str, Any]],
    info: JobInfo | None = None,
    line: dict[str, Any] | None = None,
    log: Sequence[str] = (),
    **signs: Any,
) -> Judgement:
    return judge(events, info, Signs(line, log, **signs))


@pytest.mark.parametrize(
    ("events", "info", "line", "state"),
    [
        ([SUBMITTING, SUBMITTED], job("PENDING"), None, StageState.QUEUED),
        ([SUBMITTING, SUBMITTED], job("CONFIGURING"), None, StageState.RUNNING),
        ([SUBMITTED, STARTED], job("RUNNING"), None, StageState.RUNNING),
        ([SUBMITTED, STARTED], job("COMPLETING"), None, StageState.RUNNING),
        ([SUBMITTED, STARTED, SUCCESS], job("COMPLETING"), STATUS_SUCCESS, StageState.SUCCESS),
        ([SUBMITTED, STARTED, SUCCESS], None, STATUS_SUCCESS, StageState.SUCCESS),
        ([SUBMITTED, STARTED, FAILED], job("FAILED"), STATUS_FAILURE, StageState.FAILED),
        ([SUBMITTED, STARTED, REQUEUED], job("PENDING"), None, StageState.QUEUED),
        ([SUBMITTED, STARTED, REQUEUED, RESTARTED], job("RUNNING"), None, StageState.RUNNING),
        ([STARTED, REQUEUED, RESTARTED, SUCCESS | {"restart": 1}], None, None, StageState.SUCCESS),
        # A node whose clock is behind: its start is listed before, and comes after.
        ([RESTARTED, SUBMITTED, STARTED, FAILED], job("RUNNING"), None, StageState.RUNNING),
        # Put back into the queue by Slurm or an administrator after it had ended.
        ([SUBMITTED, STARTED, FAILED], job("PENDING"), STATUS_FAILURE, StageState.QUEUED),
        ([SUBMITTED, STARTED, FAILED, RESTARTED], job("RUNNING"), None, StageState.RUNNING),
        # Ended without being able to write anything down.
        ([SUBMITTED, STARTED], job("NODE_FAIL"), None, StageState.FAILED),
        ([SUBMITTED, STARTED], job("CANCELLED"), None, StageState.CANCELLED),
        ([SUBMITTED, STARTED], job("COMPLETED"), STATUS_SUCCESS, StageState.SUCCESS),
        ([SUBMITTED, STARTED], job("COMPLETED"), {"status": "RUNNING"}, StageState.FAILED),
        # Nobody knows the job any more.
        ([SUBMITTED, STARTED], None, None, StageState.UNKNOWN),
        ([SUBMITTED, STARTED], None, {"status": "RUNNING"}, StageState.UNKNOWN),
        ([SUBMITTED, STARTED], None, STATUS_SUCCESS, StageState.UNKNOWN),
        ([SUBMITTED, STARTED], None, STATUS_FAILURE, StageState.FAILED),
        ([SUBMITTING], None, None, StageState.UNKNOWN),
        ([SUBMITTING, {"event": "refused", "reason": "no"}], None, None, StageState.FAILED),
        ([{"event": "withdrawn", "reason": "no"}], None, None, StageState.CANCELLED),
        # A word of a Slurm newer than this.
        ([SUBMITTED, STARTED], job("EVAPORATED"), None, StageState.UNKNOWN),
    ],
)
def test_states(
    events: list[dict[str, Any]],
    info: JobInfo | None,
    line: dict[str, Any] | None,
    state: StageState,
) -> None:
    assert verdict(events, info, line).state is state


def test_success_by_its_own_word_needs_the_proof() -> None:
    """Of a job that the scheduler has forgotten; who has not asked it cannot even know the end."""
    forgotten = job("GONE")
    found = verdict([SUBMITTED, STARTED], forgotten, STATUS_SUCCESS, proof_problem=lambda: None)
    assert found.state is StageState.SUCCESS
    bad = verdict([SUBMITTED, STARTED], forgotten, STATUS_SUCCESS, proof_problem=lambda: "it broke")
    assert bad.state is StageState.FAILED
    assert bad.failure is not None
    assert bad.failure.evidence == "the action reported success, but it broke"
    unheard = verdict([SUBMITTED, STARTED], None, STATUS_SUCCESS, proof_problem=lambda: None)
    assert unheard.state is StageState.UNKNOWN


def test_an_end_whose_record_is_still_on_its_way_is_no_failure() -> None:
    """As on NFS: Slurm knows of an end before this node sees what the job's node wrote."""
    for state, code in (("COMPLETED", 0), ("FAILED", 1)):
        found = verdict([SUBMITTED, STARTED], job(state, exit_code=code), just_ended=True)
        assert found.state is StageState.RUNNING
        assert "is not here yet" in found.detail
        later = verdict([SUBMITTED, STARTED], job(state, exit_code=code))
        assert later.state is StageState.FAILED


def test_a_rank_that_talks_shows_that_the_job_runs_where_slurm_is_not_heard() -> None:
    assert verdict([SUBMITTED, STARTED], None, talks=True).state is StageState.RUNNING
    assert verdict([SUBMITTED, STARTED], job("GONE"), talks=True).state is StageState.UNKNOWN


def test_what_the_job_wrote_itself_wins_over_a_reader() -> None:
    by_reader = FAILED | {"recorded_by": "reader"}
    for events in ([by_reader, SUCCESS], [SUCCESS, by_reader]):
        assert verdict([SUBMITTED, STARTED, *events]).state is StageState.SUCCESS


def test_silence_of_the_scheduler_is_never_a_failure() -> None:
    for events in ([], [SUBMITTING], [SUBMITTED], [SUBMITTED, STARTED], [STARTED, REQUEUED]):
        assert verdict(events).state is StageState.UNKNOWN


def test_a_failure_carries_class_evidence_and_advice() -> None:
    failure = verdict([SUBMITTED, STARTED, FAILED]).failure
    assert failure is not None
    assert failure.failure_class is FailureClass.OOM_GPU
    assert failure.evidence == "no memory"
    assert "batch_size" in failure.advice


def test_a_job_that_slurm_ended_is_classified_from_all_there_is() -> None:
    failure = verdict([SUBMITTED, STARTED], job("OUT_OF_MEMORY")).failure
    assert failure is not None
    assert failure.failure_class is FailureClass.OOM_HOST
    failure = verdict([SUBMITTED], job("FAILED"), None, ["x", "CUDA out of memory. Tried"]).failure
    assert failure is not None
    assert failure.failure_class is FailureClass.OOM_GPU
    failure = verdict([SUBMITTED], job("FAILED"), STATUS_FAILURE, ["CUDA out of memory"]).failure
    assert failure is not None
    assert (failure.failure_class, failure.evidence) == (FailureClass.CONFIG, "bad image")


def test_a_wish_to_cancel_shows_until_the_end() -> None:
    cancelling = {"event": "cancelling", "stage": "train", "job_id": "7"}
    report = verdict([SUBMITTED, STARTED, cancelling], job("RUNNING"))
    assert (report.state, report.detail) == (StageState.RUNNING, "cancelling")


def test_starts_in_vain_are_those_in_a_row_that_began_where_this_one_does() -> None:
    places = [[0, 0], [0, 0], [1, 5], [1, 5], [1, 5]]
    events = [STARTED | {"restart": n, "reached": place} for n, place in enumerate(places)]
    assert [
        starts_in_vain(events[:n], n, (place[0], place[1])) for n, place in enumerate(places)
    ] == [0, 1, 0, 1, 2]
    assert starts_in_vain(events, 5, (2, 0)) == 0
    assert starts_in_vain([STARTED, REQUEUED], 1, (0, 0)) == 0, "an older record does not say"


def test_reasons() -> None:
    found = verdict([SUBMITTED, STARTED, REQUEUED, RESTARTED], job("PENDING", reason="BeginTime"))
    assert found.detail == "BeginTime"


@pytest.mark.parametrize(
    ("state", "reason", "advice"),
    [
        ("PENDING", "JobHeldUser", "`scontrol release 7`, or cancel"),
        ("PENDING", "JobHeldAdmin", "ask an administrator to release it, or cancel"),
        ("PENDING", "launch failed requeued held", "`scontrol release 7`, or cancel"),
        ("PENDING", "job_requeued_in_held_state", "`scontrol release 7`, or cancel"),
        ("REQUEUE_HOLD", "", "`scontrol release 7`, or cancel"),
    ],
)
def test_a_job_that_slurm_holds_says_how_to_go_on(state: str, reason: str, advice: str) -> None:
    found = verdict([SUBMITTED], job(state, reason=reason))
    assert found.state is StageState.QUEUED
    assert found.detail == f"held ({reason or state}): {advice}"


# --- arrays --------------------------------------------------------------------------------------
def test_each_task_of_an_array_has_its_own_events_and_job_id() -> None:
    tasks = replace(STAGE, array=Array(3)).tasks()
    started = [
        {"event": "started", "stage": "train", "task": i, "job_id": f"7_{i}"} for i in (0, 2)
    ]
    events: list[Any] = [SUBMITTING, SUBMITTED, *started]
    assert [len(task_events(events, task)) for task in tasks] == [3, 2, 3]
    assert [job_id_of(task_events(events, task), task) for task in tasks] == ["7_0", "7_1", "7_2"]
    assert job_id_of([SUBMITTED], StageTask(STAGE)) == "7"
    again = [SUBMITTED, STARTED, SUBMITTED | {"job_id": "9", "restart": 1}]
    assert job_ids_of(again, StageTask(STAGE)) == ["7", "9"]
    assert job_id_of([SUBMITTING], StageTask(STAGE)) is None
