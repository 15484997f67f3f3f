"""Going on with a run: what is missing of it is sent once more, and nothing else."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import EVALUATE, STAGE, local_stage, make_run
from slurm_support import FakeSlurm, queue_line, submitted, survey

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.model import Array, Dependency, Origin, StageTask
from rtdetr_slurm.runs.claim import Start, claim_id, read_claim
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.report import keep_summary
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState, first_start, is_to_end, task_events
from rtdetr_slurm.runs.status import StatusLog
from rtdetr_slurm.slurm.commands import SlurmUnreachable, SubmissionRefused
from rtdetr_slurm.submission.cancel import cancel_run
from rtdetr_slurm.submission.resume import resume_run
from rtdetr_slurm.submission.sending import open_tasks, token
from rtdetr_slurm.submission.submit import submit_run

FAILED = {"state": "failed", "failure_class": "timeout", "reason": "the time limit was over"}


@pytest.fixture
def chain(tmp_path: Path, slurm: FakeSlurm) -> Run:
    """A training and its evaluation as jobs 42 and 43; later ones are 52 and 53."""
    run = make_run(tmp_path / "runs", STAGE, EVALUATE)
    slurm.answer("sbatch", "case $* in *evaluate*) echo 43;; *) echo 42;; esac")
    submit_run(run)
    slurm.answer("sbatch", "case $* in *evaluate*) echo 53;; *) echo 52;; esac")
    return run


def own(run: Run, stage: str = "train") -> list[str]:
    task = StageTask(run.plan.stage(stage))
    return [event["event"] for event in task_events(run.events(), task)]


def ended(run: Run, stage: str, job: str, restart: int = 0, **how: str) -> None:
    facts = {"stage": stage, "job_id": job, "restart": restart}
    run.record("started", **facts)
    run.record("finished", **facts, **(how or {"state": "success"}))


def script(run: Run, stage: str = "train") -> str:
    return (run.job_dir(stage) / "job.sh").read_text()


def sent(slurm: FakeSlurm) -> int:
    return len(slurm.calls("sbatch"))


def test_a_failed_training_and_what_waits_for_it_are_sent_again(
    slurm: FakeSlurm, chain: Run
) -> None:
    ended(chain, "train", "42", restart=2, **FAILED)
    line = queue_line(chain, "43", "PENDING", "evaluate", "DependencyNeverSatisfied")
    slurm.answer("squeue", f"echo '{line}'")
    keep_summary(chain)
    assert resume_run(chain) == {"train": "52", "evaluate": "53"}
    assert slurm.calls("scancel") == ["43"], "which would wait in vain"
    assert own(chain) == ["submitting", "resumed", "submitted"]
    text = script(chain)
    assert f"--comment={token(chain.id, 'train', 3)}\n" in text.replace("'", "")
    assert f"stage {chain.path} train 3) &\n" in text, "its starts are counted on"
    assert "--dependency=afterok:52\n" in script(chain, "evaluate")
    [why] = [e["reason"] for e in chain.events() if e["event"] == "resumed" and "restart" in e][:1]
    assert why == "failed: the time limit was over"
    jobs = [("42", "train", "FAILED"), ("43", "evaluate", "CANCELLED")]
    lines = [queue_line(chain, job, state, stage) for job, stage, state in jobs]
    new = f"52|PENDING|None|N/A||{token(chain.id, 'train', 3)}|"
    slurm.answer("squeue", "\n".join(f"echo '{line}'" for line in [*lines, new]))
    stages = survey(chain).stages
    assert (stages[0].state, stages[0].job_id) == (StageState.QUEUED, "52")


def test_a_secret_that_is_not_set_any_more_is_noted(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = replace(STAGE.launch, secrets=("MY_KEY", "MY_LOGIN", "KEPT"))
    run = make_run(tmp_path / "runs", replace(STAGE, launch=launch))
    monkeypatch.setenv("KEPT", "x")
    submit_run(run)
    monkeypatch.delenv("KEPT")
    monkeypatch.setenv("MY_LOGIN", "y")
    ended(run, "train", "42", **FAILED)
    notes: list[str] = []
    resume_run(run, on_note=notes.append)
    assert notes == ["MY_KEY, one of the profile's secrets, is not set here: jobs do without it"]
    slurm.answer("squeue", f"echo '42|PENDING|None|N/A||{token(run.id, 'train', 1)}|'")
    resume_run(run, on_note=notes.append)
    assert len(notes) == 1, "nothing is sent"


def test_what_has_succeeded_is_not_waited_for(slurm: FakeSlurm, chain: Run) -> None:
    ended(chain, "train", "42")
    ended(chain, "evaluate", "43", **FAILED)
    assert resume_run(chain) == {"evaluate": "53"}
    assert "--dependency" not in script(chain, "evaluate"), "Slurm may have forgotten job 42"
    assert f"stage {chain.path} evaluate 1) &\n" in script(chain, "evaluate")


def test_what_runs_is_waited_for_and_left_alone(slurm: FakeSlurm, chain: Run) -> None:
    slurm.answer("squeue", f"echo '{queue_line(chain, '42', 'RUNNING')}'")
    slurm.answer("sacct", f"echo '43|CANCELLED by 0|0:0|None|n|||{chain.path}'")
    assert resume_run(chain) == {"evaluate": "53"}
    assert slurm.calls("scancel") == []
    assert "--dependency=afterok:42\n" in script(chain, "evaluate")


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_nothing_is_missing_of_what_waits_or_runs(slurm: FakeSlurm, chain: Run, state: str) -> None:
    lines = [queue_line(chain, "42", state), queue_line(chain, "43", "PENDING", "evaluate")]
    slurm.answer("squeue", "\n".join(f"echo '{line}'" for line in lines))
    assert resume_run(chain) == {}
    assert sent(slurm) == 2


def test_nothing_is_missing_of_what_has_succeeded(slurm: FakeSlurm, chain: Run) -> None:
    ended(chain, "train", "42")
    ended(chain, "evaluate", "43")
    assert resume_run(chain) == {}
    assert sent(slurm) == 2


def test_a_submission_that_was_killed_goes_on(slurm: FakeSlurm, tmp_path: Path) -> None:
    """Of a process that is gone: the first stage was queued, of the second no answer is known."""
    run = make_run(tmp_path / "runs", STAGE, EVALUATE)
    submitted(run)
    gone = {"pid": 2**22 + 1, **process_facts("1"), "process_start": 1}
    run.record("submitting", stage="evaluate", **gone)
    slurm.answer("squeue", f"echo '{queue_line(run, '42')}'")
    slurm.answer("sbatch", "echo 53")
    assert resume_run(run) == {"evaluate": "53"}
    assert (run.path / "jobs" / "controller.zip").exists()
    assert "--dependency=afterok:42\n" in script(run, "evaluate")
    assert first_start(task_events(run.events(), StageTask(run.plan.stages[1]))) == 1


def test_a_submission_under_way_is_left_alone(slurm: FakeSlurm, run: Run) -> None:
    run.record("submitting", stage="train", pid=1, **process_facts("1"))
    with pytest.raises(RequestError, match="is being submitted by process 1 on"):
        resume_run(run)
    elsewhere = make_run(run.path.parent, STAGE, run_id="train-20260103-000000-aaaa")
    elsewhere.record("submitting", stage="train", pid=1, host="another", process_start=1)
    with pytest.raises(RequestError, match="is being submitted by process 1 on another"):
        resume_run(elsewhere)
    assert sent(slurm) == 0


def test_of_two_at_once_one_sends(
    slurm: FakeSlurm, chain: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(chain, "train", "42", **FAILED)
    ended(chain, "evaluate", "43", **FAILED)
    other = chain.path / "events" / "submitting-train-1.jsonl"
    facts = '"schema_version": 1, "timestamp": "2026-01-02T00:00:00+00:00", "stage": "train"'
    announced = f'{{"event": "submitting", {facts}, "restart": 1}}'
    slurm.answer("squeue", f"echo '{announced}' > {other}")  # right after this one has looked
    monkeypatch.setattr("rtdetr_slurm.submission.resume.being_sent", lambda _: None)
    submits = sent(slurm)
    chain_events = chain.events()
    monkeypatch.setattr(Run, "events", lambda self: chain_events)
    with pytest.raises(RequestError, match="has just been submitted by another process"):
        resume_run(chain)
    assert sent(slurm) == submits
    monkeypatch.undo()
    assert own(chain) == ["submitting"], "the other one's is not taken back"


def test_what_was_sent_while_slurm_was_asked_is_not_sent_again(
    slurm: FakeSlurm, chain: Run
) -> None:
    """The report is of the moment before."""
    ended(chain, "train", "42", **FAILED)
    facts = '"schema_version": 1, "timestamp": "2999-01-02T00:00:00+00:00", "stage": "train"'
    announced = f'{{"event": "submitting", {facts}, "restart": 1}}'
    answered = f'{{"event": "submitted", {facts}, "restart": 1, "job_id": "50"}}'
    other = chain.path / "events" / "other.jsonl"
    slurm.answer("squeue", f"echo '{announced}' > {other}; echo '{answered}' >> {other}")
    with pytest.raises(RequestError, match="has just been submitted by another process"):
        resume_run(chain)
    assert sent(slurm) == 2
    assert slurm.calls("scancel") == [], "not the other one's either"


def test_a_local_stage_that_outlives_its_runner_is_not_started_beside_itself(
    tmp_path: Path,
) -> None:
    train = local_stage(tmp_path / "train")
    evaluate = replace(local_stage(tmp_path / "evaluate"), name="evaluate", action="evaluate")
    run = make_run(tmp_path / "runs", train, replace(evaluate, depends_on=EVALUATE.depends_on))
    me = process_facts(str(os.getpid()))
    dead = {**me, "process_start": 1}
    for stage in run.plan.stages:
        run.record("submitting", stage=stage.name, pid=os.getpid(), **dead)
        run.record("submitted", stage=stage.name, job_id=str(os.getpid()), **dead)
    run.record("started", stage="train", job_id=str(os.getpid()), pid=os.getpid(), **me)
    with pytest.raises(RequestError, match="train has not ended yet"):
        resume_run(run)
    assert [one["restart"] for one in run.events() if one["event"] == "resumed"] == []


def test_a_local_submission_that_was_killed_before_its_runner_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "runs", local_stage(tmp_path / "train"))
    me = process_facts(str(os.getpid()))
    run.record("submitting", stage="train", pid=os.getpid(), **{**me, "process_start": 1})
    monkeypatch.setattr("rtdetr_slurm.submission.backends.start_runner", lambda *_: "1")
    assert resume_run(run) == {"train": "1"}


def test_who_is_overtaken_leaves_the_claims_to_the_other(
    slurm: FakeSlurm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run whose submission was killed before it claimed anything."""

    def overtake(*_: Any, **__: Any) -> bool:
        return False  # there is such an event already

    monkeypatch.setattr("rtdetr_slurm.submission.submit.record_once", overtake)
    with pytest.raises(RequestError, match="has just been submitted by another process"):
        resume_run(run)
    held = read_claim(StageTask(run.plan.stages[0]).results_dir)
    assert held is not None
    assert held.id == claim_id(run.id, "train")


def test_a_refused_stage_takes_back_only_what_was_sent_with_it(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    third = replace(EVALUATE, name="again", results_dir="/runs/r/results/again")
    run = make_run(tmp_path / "runs", STAGE, EVALUATE, third)
    submitted(run)
    refusal = "echo 'sbatch: error: invalid account' >&2; exit 1"
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'RUNNING')}'")
    slurm.answer("sbatch", f"case $* in *again*) {refusal};; *) echo 43;; esac")
    with pytest.raises(SubmissionRefused):
        resume_run(run)
    assert slurm.calls("scancel") == []
    stages = survey(run).stages
    assert stages[0].state is StageState.RUNNING
    assert stages[2].state is StageState.FAILED
    assert is_to_end(task_events(run.events(), StageTask(run.plan.stages[1])))


def test_an_unclear_answer_is_looked_for_by_its_own_token(slurm: FakeSlurm, chain: Run) -> None:
    """The old job is still shown, and it is not the one."""
    ended(chain, "train", "42", **FAILED)
    ended(chain, "evaluate", "43", **FAILED)
    old = queue_line(chain, "42", "FAILED")
    slurm.answer("sbatch", "echo garbage")
    slurm.answer("squeue", f"echo '{old}'")
    slurm.answer("sacct", f"echo '42|FAILED|1:0|None|n|||{chain.path}'")
    with pytest.raises(SlurmUnreachable, match=f"{token(chain.id, 'train', 1)}"):
        resume_run(chain)
    assert survey(chain).stages[0].state is StageState.UNKNOWN
    new = f"60|PENDING|None|N/A||{token(chain.id, 'train', 1)}|"
    slurm.answer("squeue", f"echo '{old}'; echo '{new}'")
    [one] = [t for t in open_tasks(chain, chain.events()) if t.task.name == "train"]
    assert one.job_id is None
    assert survey(chain).stages[0].job_id == "60"


def test_what_slurm_does_not_tell_is_not_sent_again(slurm: FakeSlurm, chain: Run) -> None:
    slurm.answer("squeue", "exit 1")
    with pytest.raises(SiteError, match="whether train waits or runs cannot be told"):
        resume_run(chain)
    assert sent(slurm) == 2


def test_what_is_being_cancelled_is_waited_for(slurm: FakeSlurm, chain: Run) -> None:
    slurm.answer("squeue", f"echo '{queue_line(chain, '42', 'RUNNING')}'")
    chain.record("started", stage="train", job_id="42", restart=0)
    cancel_run(chain)
    with pytest.raises(RequestError, match="train is being cancelled, and has not ended yet"):
        resume_run(chain)
    slurm.answer("squeue", f"echo '{queue_line(chain, '42', 'CANCELLED')}'")
    assert set(resume_run(chain)) == {"train", "evaluate"}
    assert not is_to_end(task_events(chain.events(), StageTask(chain.plan.stages[0])))


def test_a_cancel_meanwhile_holds_also_for_what_is_not_sent_yet(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    """Of two stages that do not wait for each other, the second is sent when the first has been
    cancelled."""
    export = replace(EVALUATE, name="again", results_dir="/runs/r/results/again")
    run = make_run(tmp_path / "runs", STAGE, EVALUATE, export)
    for stage, how in (("train", {}), ("evaluate", FAILED), ("again", FAILED)):
        run.record("submitting", stage=stage)
        ended(run, stage, "42", **how)
    facts = '"schema_version": 1, "timestamp": "2999-01-02T00:00:00+00:00", "restart": 0'
    wish = f'{{"event": "cancelling", {facts}, "stage": "again"}}'
    cancel = f"echo '{wish}' > {run.path}/events/other.jsonl"
    slurm.answer("sbatch", f"case $* in *again*) echo 53;; *) {cancel}; echo 52;; esac")
    slurm.answer("squeue", f"echo '52|PENDING|None|N/A||{token(run.id, 'evaluate', 1)}|'")
    with pytest.raises(SiteError, match=r"was cancelled while it was being .*job 52"):
        resume_run(run)
    assert slurm.calls("scancel") == ["52"]
    assert sent(slurm) == 1
    assert is_to_end(task_events(run.events(), StageTask(EVALUATE))), "should it still start"


def test_a_cancelled_run_and_its_claims(slurm: FakeSlurm, chain: Run) -> None:
    """What was begun under the claim is gone on from; what another run holds is not taken."""
    task = StageTask(chain.plan.stages[0])
    claim = claim_id(chain.id, "train")
    StatusLog(task.results_dir / "status.json", Start(claim)).fail(FailureClass.CANCELLED, "so")
    cancel_run(chain)
    resume_run(chain)
    held = read_claim(task.results_dir)
    assert held is not None
    assert held.id == claim


def test_only_the_missing_tasks_of_an_array(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", replace(STAGE, array=Array(4, 2)))
    submit_run(run)
    for number, how in enumerate(({}, FAILED, {}, FAILED)):
        facts = {"stage": "train", "job_id": f"42_{number}", "task": number}
        run.record("started", **facts, restart=0)
        run.record("finished", **facts, restart=0, **(how or {"state": "success"}))
    slurm.answer("sbatch", "echo 52")
    assert resume_run(run) == {"train": "52"}
    assert "#SBATCH --array=1,3%2\n" in script(run)
    slurm.answer("squeue", f"echo '52_[1,3]|PENDING|None|N/A||{token(run.id, 'train', 1)}|'")
    states = [(one.state.value, one.job_id) for one in survey(run).stages]
    assert states == [
        ("success", "42_0"),
        ("queued", "52_1"),
        ("success", "42_2"),
        ("queued", "52_3"),
    ]


def after_any(root: Path) -> Run:
    """An array of three as job 42, and as 43 what comes after it whatever became of it; later ones
    are 52 and 53."""
    after = (Dependency(Origin("train"), "afterany"),)
    return make_run(
        root / "runs", replace(STAGE, array=Array(3)), replace(EVALUATE, depends_on=after)
    )


@pytest.fixture
def gathered(tmp_path: Path, slurm: FakeSlurm) -> Run:
    run = after_any(tmp_path)
    slurm.answer("sbatch", "case $* in *evaluate*) echo 43;; *) echo 42;; esac")
    submit_run(run)
    slurm.answer("sbatch", "case $* in *evaluate*) echo 53;; *) echo 52;; esac")
    return run


def task_ended(run: Run, number: int, **how: str) -> None:
    facts = {"stage": "train", "job_id": f"42_{number}", "task": number, "restart": 0}
    run.record("started", **facts)
    run.record("finished", **facts, **(how or {"state": "success"}))


def test_what_gathers_waits_for_old_and_new_tasks(slurm: FakeSlurm, gathered: Run) -> None:
    task_ended(gathered, 0)
    task_ended(gathered, 1, **FAILED)
    lines = [
        queue_line(gathered, "42_2", "RUNNING"),
        queue_line(gathered, "43", "PENDING", "evaluate", "Dependency"),
    ]
    slurm.answer("squeue", "\n".join(f"echo '{line}'" for line in lines))
    assert resume_run(gathered) == {"train": "52", "evaluate": "53"}
    assert slurm.calls("scancel") == ["43"], "and not the task that runs"
    assert "#SBATCH --array=1%1\n" in script(gathered)
    assert "--dependency=afterany:42:52\n" in script(gathered, "evaluate")


def test_what_gathered_before_all_was_there_does_so_again(slurm: FakeSlurm, gathered: Run) -> None:
    for number in range(3):
        task_ended(gathered, number, **(FAILED if number == 1 else {}))
    slurm.answer("squeue", f"echo '{queue_line(gathered, '43', 'RUNNING', 'evaluate')}'")
    with pytest.raises(RequestError, match="evaluate is at work on what there is so far"):
        resume_run(gathered)
    ended(gathered, "evaluate", "43")
    assert resume_run(gathered) == {"train": "52", "evaluate": "53"}
    assert "--dependency=afterany:52\n" in script(gathered, "evaluate")


def test_a_stage_with_more_to_do_is_sent_again(slurm: FakeSlurm, gathered: Run) -> None:
    for number in range(3):
        task_ended(gathered, number)
    ended(gathered, "evaluate", "43")
    assert resume_run(gathered) == {}
    assert resume_run(gathered, reopened=["train"]) == {"train": "52", "evaluate": "53"}
    why = [event["reason"] for event in gathered.events() if event["event"] == "resumed"]
    assert why == ["there is more for it to do"] * 2


def test_a_run_of_an_older_version_is_refused(slurm: FakeSlurm, run: Run) -> None:
    path = run.path / "run.json"
    path.write_text(path.read_text().replace('"launch_version": 2', '"launch_version": 1'))
    from rtdetr_slurm.runs.run import open_run

    with pytest.raises(RequestError, match="was submitted by an older version"):
        resume_run(open_run(run.path))


def test_the_administrators_limits_hold_for_what_is_resumed(
    slurm: FakeSlurm, chain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = tmp_path / "site.yaml"
    admin.write_text("limits: {max_nodes: 1}\n")
    monkeypatch.setattr("rtdetr_slurm.site.discover.ADMIN_PROFILE", admin)
    ended(chain, "train", "42", **FAILED)
    with pytest.raises(SiteError, match=rf"num_nodes: found 2; at most 1 \({admin}:1\)"):
        resume_run(chain)
    assert sent(slurm) == 2
