"""How a stage ended: success is never believed on one witness alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.launch.node_errors import Refusal
from rtdetr_slurm.launch.verdict import Kind, Witnesses, decide
from rtdetr_slurm.runs.failures import Failure

SUCCESS = {"status": "SUCCESS"}
PREEMPTED = {"status": "PREEMPTED"}
GOOD = Witnesses(exit_code=0, last_line=SUCCESS)
STOPPED = Witnesses(
    exit_code=75,
    interruption=FailureClass.TIMEOUT,
    last_line=PREEMPTED,
    artefact_problem="there is no model_epoch_*.pth",
    resume_from="interrupted_epoch_003_step_000002.pth",
    progressed=True,
    requeue_allowed=True,
)


def failure_line(failure_class: str) -> dict[str, Any]:
    return {"status": "FAILURE", "failure_class": failure_class, "reason": "why"}


def test_success_needs_exit_code_status_and_checkpoint() -> None:
    verdict = decide(GOOD)
    assert (verdict.kind, verdict.exit_code, verdict.write_status) == (Kind.SUCCESS, 0, False)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (replace(GOOD, last_line=None), "exit code 0, but status.json has no SUCCESS line"),
        (replace(GOOD, last_line={"status": "RUNNING"}), "no SUCCESS line"),
        (replace(GOOD, artefact_problem="a.pth is damaged"), "success, but a.pth is damaged"),
        (replace(GOOD, exit_code=1), "exit code 1; the log is empty"),
    ],
)
def test_one_doubt_makes_a_failure(end: Witnesses, reason: str) -> None:
    verdict = decide(end)
    assert (verdict.kind, verdict.exit_code, verdict.write_status) == (Kind.FAILED, 1, True)
    assert reason in verdict.reason


def test_a_success_that_is_none_is_an_interruption_where_an_end_was_asked_for() -> None:
    """TAO ends an interrupted training as if it had finished."""
    end = replace(STOPPED, exit_code=0, last_line=SUCCESS, artefact_problem="of 3 epochs")
    verdict = decide(end)
    assert (verdict.kind, verdict.write_status) == (Kind.REQUEUE, True)
    assert decide(replace(end, artefact_problem=None)).kind is Kind.SUCCESS


def test_the_engines_own_failure_line_is_kept() -> None:
    verdict = decide(Witnesses(exit_code=1, last_line=failure_line("oom_gpu")))
    assert verdict.failure_class is FailureClass.OOM_GPU
    assert not verdict.write_status


def test_an_engine_that_died_is_classified_from_its_log() -> None:
    end = Witnesses(exit_code=137, log_tail=["slurmstepd: error: Detected 1 oom_kill event"])
    verdict = decide(end)
    assert verdict.failure_class is FailureClass.OOM_HOST
    assert verdict.write_status


def test_an_exit_code_is_not_believed_against_the_engines_own_word() -> None:
    """TAO's, where somebody has interrupted it."""
    line = {"status": "FAILURE", "failure_class": "unknown", "reason": "TAO says: interrupted"}
    verdict = decide(Witnesses(exit_code=0, last_line=line))
    assert (verdict.kind, verdict.reason) == (
        Kind.FAILED,
        "exit code 0, but TAO says: interrupted",
    )


def test_what_a_node_refused_explains_the_end() -> None:
    why = Failure(FailureClass.INFRA, "node 1 (n1): port 20001 cannot be used")
    refused = Refusal(why, ("n1",), frozenset({"port 20001 cannot be used"}), by_all=False)
    verdict = decide(Witnesses(exit_code=3, refusal=refused, log_tail=["CUDA out of memory"]))
    assert (verdict.failure_class, verdict.reason) == (why.failure_class, why.evidence)
    assert verdict.write_status


@pytest.mark.parametrize("why", [FailureClass.TIMEOUT, FailureClass.PREEMPTED])
def test_an_interrupted_training_goes_back_to_the_queue(why: FailureClass) -> None:
    verdict = decide(replace(STOPPED, interruption=why))
    assert (verdict.kind, verdict.exit_code, verdict.write_status) == (Kind.REQUEUE, 75, False)
    assert "goes on from interrupted_epoch_003_step_000002.pth after requeue" in verdict.reason


def test_a_node_failure_is_told_as_what_it_is() -> None:
    lost = replace(STOPPED, interruption=FailureClass.INFRA)
    verdict = decide(lost)
    assert (verdict.kind, verdict.failure_class) == (Kind.REQUEUE, FailureClass.INFRA)
    assert verdict.reason.startswith("a node of the job failed; goes on from interrupted_")
    assert verdict.by_slurm, "it is no retry of ours"
    verdict = decide(replace(lost, requeue_allowed=False))
    assert (verdict.kind, verdict.failure_class) == (Kind.FAILED, FailureClass.INFRA)
    assert verdict.reason.startswith("a node of the job failed; requeue is not allowed")


def test_a_lost_exit_code_does_not_lose_the_interruption() -> None:
    # srun reports the highest code of all nodes; one of them was killed.
    assert decide(replace(STOPPED, exit_code=137)).kind is Kind.REQUEUE


def test_a_training_that_a_killed_neighbour_took_along_was_not_preempted() -> None:
    """It stops in good order, and says so; nobody has asked for it."""
    log = ["srun: error: node2: task 1: Killed", "srun: Force Terminated StepId=7.0"]
    verdict = decide(replace(STOPPED, exit_code=137, interruption=None, log_tail=log))
    assert (verdict.kind, verdict.write_status) == (Kind.FAILED, True)
    assert verdict.reason == "killed by signal 9; srun: error: node2: task 1: Killed"


def test_a_training_killed_before_it_could_save_goes_on_from_its_last_epoch() -> None:
    end = replace(
        STOPPED, exit_code=137, last_line={"status": "RUNNING"}, resume_from="model_epoch_003.pth"
    )
    verdict = decide(end)
    assert verdict.kind is Kind.REQUEUE
    assert verdict.write_status, "status.json still lacks its PREEMPTED line"
    assert "model_epoch_003.pth" in verdict.reason


def test_a_time_limit_without_progress_is_not_tried_again() -> None:
    verdict = decide(replace(STOPPED, progressed=False))
    assert (verdict.kind, verdict.failure_class) == (Kind.FAILED, FailureClass.TIMEOUT)
    assert "no checkpoint was written since its start" in verdict.reason


def test_preemption_again_and_again_without_progress_has_an_end() -> None:
    again = replace(STOPPED, interruption=FailureClass.PREEMPTED, progressed=False)
    assert decide(replace(again, starts_in_vain=9)).kind is Kind.REQUEUE
    verdict = decide(replace(again, starts_in_vain=10))
    assert (verdict.kind, verdict.failure_class) == (Kind.FAILED, FailureClass.PREEMPTED)
    assert "10 starts in a row have not got further" in verdict.reason
    assert decide(replace(again, starts_in_vain=10, progressed=True)).kind is Kind.REQUEUE


def test_preemption_before_the_first_checkpoint_starts_anew() -> None:
    end = replace(STOPPED, interruption=FailureClass.PREEMPTED, progressed=False, resume_from=None)
    verdict = decide(end)
    assert verdict.kind is Kind.REQUEUE
    assert "starts anew" in verdict.reason


def test_without_leave_to_requeue_the_interruption_is_a_failure_that_says_so() -> None:
    verdict = decide(replace(STOPPED, requeue_allowed=False))
    assert (verdict.kind, verdict.failure_class) == (Kind.FAILED, FailureClass.TIMEOUT)
    assert "requeue is not allowed" in verdict.reason
    assert "interrupted_epoch_003_step_000002.pth is left to resume from" in verdict.reason


def test_a_cancelled_job_never_comes_back() -> None:
    verdict = decide(replace(STOPPED, interruption=FailureClass.CANCELLED))
    assert (verdict.kind, verdict.failure_class) == (Kind.CANCELLED, FailureClass.CANCELLED)
    assert verdict.write_status


def test_a_training_that_ended_well_in_spite_of_the_signal_has_succeeded() -> None:
    assert decide(replace(GOOD, interruption=FailureClass.TIMEOUT)).kind is Kind.SUCCESS


@pytest.mark.parametrize("failure_class", ["config", "oom_gpu", "oom_host"])
def test_a_failure_of_its_own_is_not_taken_for_the_interruption(failure_class: str) -> None:
    end = replace(STOPPED, exit_code=1, last_line=failure_line(failure_class))
    assert decide(end).kind is Kind.FAILED


def test_a_failure_that_the_signal_brought_about_is_the_interruption() -> None:
    end = replace(STOPPED, exit_code=1, last_line=failure_line("infra"))
    assert decide(end).kind is Kind.REQUEUE
