"""What is tried again, and where, when the cluster has failed; and when that comes to an end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.launch.history import History, history_of
from rtdetr_slurm.launch.node_errors import Refusal
from rtdetr_slurm.launch.suspects import left_out, suspects
from rtdetr_slurm.launch.verdict import Kind, Witnesses, before_step, decide
from rtdetr_slurm.plan.model import Endurance
from rtdetr_slurm.runs.events import Event, read_events, record_event
from rtdetr_slurm.runs.failures import Failure

NODES = ("node1", "node2")
LOST = Witnesses(
    exit_code=1,
    last_line={"status": "FAILURE", "failure_class": "infra", "reason": "no batch came"},
    resume_from="model_epoch_003.pth",
    requeue_allowed=True,
    nodes=NODES,
    ranks_per_node=2,
    log_tail=["rtdetr: error: rank 3: no batch came", "srun: error: node1: task 0: Exited with 1"],
)
BIND = "/data does not exist on this node"


def refused(*nodes: str, by_all: bool = False) -> Witnesses:
    failure = Failure(FailureClass.INFRA, f"node 0 ({nodes[0]}): {BIND}")
    refusal = Refusal(failure, nodes, frozenset({BIND}), by_all=by_all)
    return replace(LOST, exit_code=3, last_line=None, refusal=refusal, log_tail=[])


class TestInfraFailures:
    def test_go_back_to_the_queue_without_the_node_of_the_rank(self) -> None:
        verdict = decide(LOST)
        assert (verdict.kind, verdict.failure_class) == (Kind.REQUEUE, FailureClass.INFRA)
        assert verdict.bad_nodes == ("node2",)
        assert verdict.write_status, "FAILURE is not the end"
        assert verdict.reason == (
            "no batch came; goes on from model_epoch_003.pth after requeue (retry 1 of 2)"
        )

    def test_come_to_an_end(self) -> None:
        verdict = decide(replace(LOST, history=History(infra_retries=2)))
        assert verdict.kind is Kind.FAILED
        assert "tried again 2 times already (job.max_infra_retries)" in verdict.reason

    @pytest.mark.parametrize(
        "change",
        [{"requeue_allowed": False}, {"endurance": Endurance(max_infra_retries=0)}],
    )
    def test_end_the_job_where_nothing_else_is_allowed(self, change: dict[str, Any]) -> None:
        verdict = decide(replace(LOST, **change))
        assert (verdict.kind, verdict.reason) == (Kind.FAILED, "no batch came")

    def test_use_up_the_budget_of_requeues_as_well(self) -> None:
        verdict = decide(replace(LOST, restart=7, endurance=Endurance(max_requeues=7)))
        assert verdict.kind is Kind.FAILED
        assert "put back 7 times (job.max_requeues)" in verdict.reason

    def test_are_not_tried_again_without_hours_left(self) -> None:
        verdict = decide(replace(LOST, out_of_hours=True, endurance=Endurance(max_hours=2)))
        assert verdict.kind is Kind.FAILED
        assert "no batch came; the 2 hours that it may take in all are used up" in verdict.reason

    def test_other_classes_are_not_tried_again(self) -> None:
        line = {"status": "FAILURE", "failure_class": "oom_gpu", "reason": "out of memory"}
        assert decide(replace(LOST, last_line=line)).kind is Kind.FAILED


class TestRefusals:
    def test_of_one_node_are_tried_on_another(self) -> None:
        verdict = decide(refused("node2"))
        assert (verdict.kind, verdict.bad_nodes) == (Kind.REQUEUE, ("node2",))
        assert verdict.refusal == BIND

    def test_that_another_node_has_repeated_are_the_sites(self) -> None:
        again = replace(
            refused("node1"), history=History(infra_retries=1, refusals=frozenset({BIND}))
        )
        verdict = decide(again)
        assert verdict.kind is Kind.FAILED
        assert verdict.reason.endswith("other nodes refused alike, so it is not tried again")

    def test_of_all_nodes_alike_are_the_sites(self) -> None:
        verdict = decide(refused("node1", "node2", by_all=True))
        assert (verdict.kind, verdict.failure_class) == (Kind.FAILED, FailureClass.INFRA)
        assert verdict.reason.endswith("all nodes refuse alike, so it is not tried on others")

    def test_by_apptainer_count_as_well(self) -> None:
        log = ["FATAL:   no such mount", "srun: error: node2: task 1: Exited with exit code 255"]
        end = replace(LOST, exit_code=255, last_line=None, log_tail=log)
        verdict = decide(end)
        assert (verdict.kind, verdict.bad_nodes) == (Kind.REQUEUE, ("node2",))
        repeated = History(refusals=frozenset({str(verdict.refusal)}))
        assert decide(replace(end, history=repeated)).kind is Kind.FAILED


@pytest.mark.parametrize(
    ("log", "node"),
    [
        (["srun: error: node2: task 1: Killed"], "node2"),
        (["srun: error: node2: task 1: Exited with exit code 1"], None),
        (["srun: error: Task launch for StepId=8.0 failed on node node1: No such"], "node1"),
        (["srun: error: node9: task 1: Killed"], None),  # none of the job's
        (["rtdetr: error: rank 99: why"], None),
        (["rtdetr: error: rank 2: why", "rtdetr: error: rank 3: why"], "node2"),
        (["rtdetr: error: rank 2: why", "rtdetr: error: rank 0: something else"], "node2"),
        (["rtdetr: error: rank 2: why", "rtdetr: error: rank 0: why"], None),
    ],
)
def test_who_is_suspected(log: Sequence[str], node: str | None) -> None:
    assert suspects(NODES, 2, log_tail=log) == (() if node is None else (node,))


def test_the_only_node_and_the_one_that_is_named_are_suspected() -> None:
    assert suspects(("node7",), 1) == ("node7",)
    assert suspects(NODES, 2, node_rank=1, log_tail=["rtdetr: error: rank 0: x"]) == ("node2",)
    assert suspects((), 2, node_rank=1) == ()


@pytest.mark.parametrize(
    ("partition", "needed", "count"),
    [(40, 2, 3), (30, 2, 3), (29, 2, 2), (3, 2, 1), (3, 3, 0), (2, 2, 0), (1, 1, 0), (40, 39, 1)],
)
def test_at_most_a_tenth_of_the_partition_is_left_out(
    partition: int, needed: int, count: int
) -> None:
    assert left_out(("d", "c", "b"), partition, needed) == ("d", "c", "b")[:count]


class TestBeforeTheStep:
    def verdict(self, history: History, restart: int = 1, **endurance: Any) -> Any:
        return before_step(
            Endurance(**endurance),
            history,
            restart,
            seconds_needed=60,
            nodes=NODES,
            starts_in_vain=0,
        )

    def test_nothing_speaks_against_it(self) -> None:
        assert self.verdict(History(seconds=1e6, excluded=("node3",))) is None

    def test_the_hours_are_used_up(self) -> None:
        assert self.verdict(History(seconds=3535), max_hours=1) is None
        verdict = self.verdict(History(seconds=3545), max_hours=1)
        assert (verdict.kind, verdict.failure_class) == (Kind.FAILED, FailureClass.TIMEOUT)
        assert "the 1 hours that it may take in all are used up" in verdict.reason

    def test_somebody_puts_it_back_without_end(self) -> None:
        assert self.verdict(History(), restart=5, max_requeues=5) is None
        verdict = self.verdict(History(), restart=6, max_requeues=5)
        assert (verdict.kind, verdict.failure_class) == (Kind.FAILED, FailureClass.PREEMPTED)

    def test_the_bad_node_comes_again(self) -> None:
        """Once it goes back for that, not for ever."""
        verdict = self.verdict(History(excluded=("node2",), bad_nodes=("node2",)))
        assert (verdict.kind, verdict.misplaced) == (Kind.REQUEUE, True)
        assert "node2 was to be left out" in verdict.reason
        assert self.verdict(History(excluded=("node2",), misplaced=True)) is None


def test_hours_that_run_out_are_no_reason_to_come_back() -> None:
    end = replace(
        LOST, exit_code=75, interruption=FailureClass.TIMEOUT, out_of_hours=True, progressed=True
    )
    end = replace(end, last_line={"status": "PREEMPTED"}, endurance=Endurance(max_hours=0.5))
    verdict = decide(end)
    assert (verdict.kind, verdict.failure_class) == (Kind.FAILED, FailureClass.TIMEOUT)
    assert verdict.reason == (
        "it was stopped in time; the 0.5 hours that it may take in all are used up "
        "(job.max_hours); model_epoch_003.pth is left to resume from"
    )
    assert decide(replace(end, interruption=FailureClass.PREEMPTED)).kind is Kind.FAILED


def events(folder: Path) -> list[Event]:
    """Three starts: an infra failure, a start on the wrong node, one that was killed."""
    folder.mkdir()
    record_event(folder, "started", restart=0, seconds_before=0.0)
    record_event(
        folder,
        "requeued",
        restart=0,
        failure_class="infra",
        bad_nodes=["node2"],
        excluded=["node2"],
        refusal=BIND,
    )
    record_event(folder, "started", restart=1, seconds_before=20.0)
    record_event(
        folder, "requeued", restart=1, failure_class="infra", excluded=["node2"], misplaced=True
    )
    record_event(folder, "started", restart=2, seconds_before=50.0)
    # The clocks of the nodes differ: the order in which events are read says nothing.
    return read_events(folder)[::-1]


def test_the_history_of_a_job(tmp_path: Path) -> None:
    known = events(tmp_path / "events")
    began = datetime.fromisoformat(known[0]["timestamp"])
    sign = datetime.fromtimestamp(began.timestamp() + 40, began.tzinfo)
    history = history_of(known, 3, sign)
    assert (history.infra_retries, history.bad_nodes) == (1, ("node2",))
    assert (history.excluded, history.misplaced) == (("node2",), True)
    assert history.refusals == {BIND}
    assert history.seconds == pytest.approx(90, abs=0.01)
    assert history_of(known, 3, None).seconds == 50
    assert history_of(known, 2, sign).seconds == pytest.approx(20, abs=1)
    assert history_of(known, 0, sign) == History()


def test_a_node_failure_after_which_slurm_puts_the_job_back_is_no_retry(tmp_path: Path) -> None:
    record_event(tmp_path, "requeued", restart=0, failure_class="infra", by_slurm=True)
    assert history_of(read_events(tmp_path), 1, None) == History()
